//! Taking what is ours out of a database's URL, in either of its two forms.

/// What a URL says, and the rest of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The URL without them.
    pub rest: String,
    pub sslmode: Option<String>,
    pub sslrootcert: Option<String>,
}

impl Taken {
    /// Nothing, if it cannot be cut into settings.
    pub fn from(url: &str) -> Option<Self> {
        match url.starts_with("postgres://") || url.starts_with("postgresql://") {
            true => Self::from_url(url),
            false => Self::from_words(url),
        }
    }

    fn set(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.sslmode = Some(value),
            "sslrootcert" => self.sslrootcert = Some(value),
            _ => return false,
        }
        true
    }

    /// `postgresql://user@host/database?sslmode=require`
    fn from_url(url: &str) -> Option<Self> {
        let Some((place, query)) = url.split_once('?') else {
            return Some(Self { rest: url.to_owned(), ..Self::default() });
        };
        let mut taken = Self::default();
        let mut others = Vec::new();
        for setting in query.split('&') {
            let (key, value) = setting.split_once('=')?;
            if !taken.set(key, decoded(value)?) {
                others.push(setting);
            }
        }
        taken.rest = match others.as_slice() {
            [] => place.to_owned(),
            others => format!("{place}?{}", others.join("&")),
        };
        Some(taken)
    }

    /// `host=… dbname='my database' sslmode=require`
    fn from_words(text: &str) -> Option<Self> {
        let mut taken = Self::default();
        let mut left = text.trim_start();
        while !left.is_empty() {
            let (key, after) = left.split_once('=')?;
            let after = after.trim_start();
            let (value, end) = word(after)?;
            let setting = &left[..left.len() - after.len() + end];
            if !taken.set(key.trim(), value) {
                taken.rest.push_str(setting);
                taken.rest.push(' ');
            }
            left = after[end..].trim_start();
        }
        Some(taken)
    }
}

/// A value, perhaps in single quotes, and where it ends.
fn word(text: &str) -> Option<(String, usize)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if quoted => return Some((value, at + 1)),
            '\\' => value.push(chars.next()?.1),
            c if c.is_whitespace() && !quoted => return Some((value, at)),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, text.len()))
}

/// Percent-encoding undone.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(url: &str) -> (String, Option<String>, Option<String>) {
        let taken = Taken::from(url).unwrap();
        (taken.rest, taken.sslmode, taken.sslrootcert)
    }

    #[test]
    fn settings_of_tls_are_taken_out_and_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            taken("postgresql://a:b%40@h:5/d?sslmode=verify-full&x=1&sslrootcert=%2Fca%20x.pem"),
            ("postgresql://a:b%40@h:5/d?x=1".into(), some("verify-full"), some("/ca x.pem"))
        );
        assert_eq!(taken("postgres://h/d"), ("postgres://h/d".into(), None, None));
        assert_eq!(
            taken(r"host = h dbname='a b\'c' sslmode=require password=x\ y sslrootcert='/ca x'"),
            (r"host = h dbname='a b\'c' password=x\ y ".into(), some("require"), some("/ca x"))
        );
    }

    #[test]
    fn what_has_no_end_or_no_value_is_refused() {
        for broken in ["host='a", "host", r"host=a\", "postgres://h/d?x", "postgres://h/d?x=%4"] {
            assert_eq!(Taken::from(broken), None, "{broken}");
        }
    }
}
