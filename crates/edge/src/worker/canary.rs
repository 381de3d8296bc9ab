//! Which of two releases a request goes to.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::table::{self, Group};

/// So long a client stays in its group.
const COOKIE_SECONDS: u32 = 3600;

/// A [`table::Canary`], ready for use.
pub(super) struct Canary {
    permille: u16,
    header: Option<(HeaderName, String)>,
    cookie: Option<String>,
}

/// Where a request should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    pub group: Group,
    /// It was drawn, and its client is to be told.
    pub is_new: bool,
}

impl Canary {
    pub(super) fn new(given: &table::Canary) -> Canary {
        let header = given.header.as_ref();
        Canary {
            permille: given.permille,
            header: header.map(|header| {
                (header.name.parse().expect("names are checked"), header.value.clone())
            }),
            cookie: given.cookie.clone(),
        }
    }

    /// What a request asks for, or chance.
    pub(super) fn wish(&self, headers: &HeaderMap) -> Wish {
        if let Some((name, value)) = &self.header
            && headers.get(name).is_some_and(|given| given.as_bytes() == value.as_bytes())
        {
            return Wish { group: Group::Canary, is_new: false };
        }
        if let Some(group) = self.cookie.as_ref().and_then(|name| told(headers, name)) {
            return Wish { group, is_new: false };
        }
        let drawn = draw() % 1000 < u64::from(self.permille);
        let group = if drawn { Group::Canary } else { Group::Stable };
        Wish { group, is_new: self.cookie.is_some() }
    }

    /// Tells a client which group it is in.
    pub(super) fn tell(&self, headers: &mut HeaderMap, wish: Wish) {
        let Some(name) = self.cookie.as_ref().filter(|_| wish.is_new) else { return };
        let cookie = format!(
            "{name}={}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax",
            wish.group.name()
        );
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

/// The group that a cookie names.
fn told(headers: &HeaderMap, name: &str) -> Option<Group> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|one| one.split_once('='));
    let (_, value) = pairs.find(|(known, _)| known.trim() == name)?;
    [Group::Stable, Group::Canary].into_iter().find(|group| group.name() == value.trim())
}

thread_local! {
    static DRAWN: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
}

/// The next number of this thread's xorshift: even, and worth nothing where somebody could guess.
fn draw() -> u64 {
    let mut number = DRAWN.get();
    number ^= number << 13;
    number ^= number >> 7;
    number ^= number << 17;
    DRAWN.set(number);
    number >> 11
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary() -> Canary {
        Canary::new(&table::Canary {
            permille: 100,
            header: Some(table::HeaderMatch { name: "X-Try".to_owned(), value: "1".to_owned() }),
            cookie: Some("try".to_owned()),
        })
    }

    fn wish(name: &'static str, value: &str) -> Wish {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        canary().wish(&headers)
    }

    #[test]
    fn headers_and_cookies_choose_and_else_chance_does() {
        let group = |group| Wish { group, is_new: false };
        assert_eq!(wish("x-try", "1"), group(Group::Canary));
        assert_eq!(wish("cookie", "a=b; try=canary"), group(Group::Canary));
        assert_eq!(wish("cookie", "try=stable; a=b"), group(Group::Stable));
        assert!(wish("cookie", "try=other").is_new && wish("x-try", "2").is_new);
        let canary = canary();
        let drawn = |_: &i32| canary.wish(&HeaderMap::new()).group == Group::Canary;
        let share = (0..20_000).filter(drawn).count();
        assert!((1600..2400).contains(&share), "{share} of 20000");
    }
}
