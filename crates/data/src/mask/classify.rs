//! Which columns look personal or secret: by name, by type, by what a few rows hold.

use super::class::Class;
use super::{detect, json, names};
use crate::schema::{Column, ValueKind};

/// Of a given name, one in so many rows makes a column one of names.
const NAMES_SHARE: usize = 50;
/// Cards and account numbers may be chance in long numbers; one in so many rows is not.
const NUMBERS_SHARE: usize = 50;
/// From this share of rows that are nothing else, what was found is what the column is for.
const MOST: f64 = 0.7;

/// What a column looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it should be masked.
    pub class: Class,
    /// Why: `by its name`, `holds e-mail addresses`.
    pub why: String,
}

/// By name and type alone.
pub fn by_name(column: &Column) -> Option<Finding> {
    let finding = |class, why: &str| Some(Finding { class, why: why.to_owned() });
    let named = names::class_of(&column.name);
    let by_its_name = |class| finding(class, "by its name");
    match &column.kind {
        ValueKind::Inet => finding(Class::Ip, "by its type"),
        ValueKind::Bytes => match named {
            Some(class) => by_its_name(class),
            None => finding(Class::Secret, "bytes that cannot be looked into"),
        },
        ValueKind::Text { .. } => named.and_then(by_its_name),
        ValueKind::Array(element) => match **element {
            ValueKind::Text { .. } => named.and_then(by_its_name),
            ValueKind::Inet => finding(Class::Ip, "by its type"),
            _ => None,
        },
        ValueKind::Json | ValueKind::Jsonb => named.and_then(|_| by_its_name(Class::Json)),
        ValueKind::Date | ValueKind::Timestamp => {
            named.filter(|class| *class == Class::Date).and_then(by_its_name)
        }
        ValueKind::Uuid => {
            named.filter(|c| matches!(c, Class::Secret | Class::Password)).and_then(by_its_name)
        }
        ValueKind::Int(_) => {
            named.filter(|c| matches!(c, Class::Phone | Class::Id)).and_then(by_its_name)
        }
        ValueKind::Numeric | ValueKind::Float(_) | ValueKind::Composite | ValueKind::Other => {
            named.filter(|class| *class == Class::Null).and_then(by_its_name)
        }
        ValueKind::Bool | ValueKind::Enum => None,
    }
}

/// Whether rows of the column are worth a look: they hold text of some form.
pub fn has_content(column: &Column) -> bool {
    match &column.kind {
        ValueKind::Text { .. } | ValueKind::Json | ValueKind::Jsonb | ValueKind::Composite => true,
        ValueKind::Array(element) => matches!(**element, ValueKind::Text { .. }),
        ValueKind::Other => true,
        _ => false,
    }
}

/// By what rows hold.
#[derive(Default)]
pub struct Content {
    rows: usize,
    /// Rows in which something of a class was found, and those that are nothing else.
    hits: Vec<(Class, usize, usize)>,
    names: usize,
    keys: usize,
}

impl Content {
    /// Looks at one value, as text.
    pub fn look(&mut self, column: &Column, text: &str) {
        self.rows += 1;
        let mut found = detect::found(text);
        found.sort_unstable();
        found.dedup_by_key(|(class, _)| *class);
        // A hash is not personal by itself; its name tells.
        for (class, part) in found.into_iter().filter(|(class, _)| *class != Class::Digest) {
            let whole = usize::from(part == text.trim());
            match self.hits.iter_mut().find(|(known, ..)| *known == class) {
                Some((_, rows, wholes)) => {
                    *rows += 1;
                    *wholes += whole;
                }
                None => self.hits.push((class, 1, whole)),
            }
        }
        self.names += usize::from(holds_a_name(text));
        let is_json = matches!(column.kind, ValueKind::Json | ValueKind::Jsonb);
        self.keys += usize::from(is_json && json::has_telling_key(text));
    }

    /// What the rows together say.
    pub fn finding(&self, column: &Column) -> Option<Finding> {
        let certain = |class: Class, rows: usize| {
            class != Class::Id || (rows >= 3 && rows * NUMBERS_SHARE >= self.rows)
        };
        let hits = self.hits.iter().filter(|(class, rows, _)| certain(*class, *rows));
        let most = hits.max_by_key(|(class, rows, _)| (*rows, *class)).copied();
        let is_json = matches!(column.kind, ValueKind::Json | ValueKind::Jsonb);
        let share = |rows: usize| rows as f64 / self.rows.max(1) as f64;
        if let Some((class, rows, wholes)) = most {
            let why = format!("{} of {} rows hold {}", rows, self.rows, what(class));
            let class = match (is_json, share(wholes) >= MOST) {
                (true, _) => Class::Json,
                (false, true) => class,
                (false, false) => Class::Text,
            };
            return Some(Finding { class, why });
        }
        if self.keys > 0 {
            let why = format!("{} of {} rows have telling keys", self.keys, self.rows);
            return Some(Finding { class: Class::Json, why });
        }
        if self.names >= 3 && self.names * NAMES_SHARE >= self.rows {
            let why = format!("{} of {} rows hold people's names", self.names, self.rows);
            return Some(Finding { class: Class::Name, why });
        }
        None
    }
}

fn what(class: Class) -> &'static str {
    match class {
        Class::Email => "e-mail addresses",
        Class::Phone => "phone numbers",
        Class::Ip => "IP addresses",
        Class::Id => "card or account numbers",
        Class::Secret => "tokens or keys",
        Class::Name
        | Class::Handle
        | Class::Address
        | Class::Digest
        | Class::Date
        | Class::Text
        | Class::Json
        | Class::Password
        | Class::Null => "personal data",
    }
}

/// Given names that are common somewhere; enough to notice a column of names, not to find each.
const GIVEN: &str = " Ada Adam Ahmed Aisha Alice Ali Amir Amy Ana Andrea Andrei Andrew Angela Anna \
    Anne Antonio Anton Ashley Barbara Ben Brian Bruno Carla Carlos Carol Chen Chloe Christine \
    Christopher Clara Daniel David Deborah Dmitri Diana Donald Edward Elena Elif Elizabeth Emily \
    Emma Eric Eva Fatima Farid Felix Fernando Florian Francesca Frank Gabriel George Giulia Greta \
    Hannah Hans Hassan Helen Henry Hiroshi Hugo Ibrahim Ines Irina Ivan Jack Jacob James Jan Jane \
    Jason Jean Jennifer Jessica John Jonas Jose Joseph Joshua Juan Julia Karen Karim Katarina \
    Keiko Kevin Kim Klaus Laura Layla Leila Lena Li Liam Linda Lisa Louis Lucas Lucia Luis Maja \
    Marco Maria Mario Mark Marta Mary Matteo Matthew Mehmet Mei Michael Michelle Miguel Mina \
    Mohammed Muhammad Nadia Natalia Nathan Nicole Nils Nina Noah Nora Oleg Olga Oliver Olivia Omar \
    Oscar Pablo Patricia Paul Paula Pavel Pedro Peter Pierre Priya Quinn Rachel Raj Ravi Rebecca \
    Richard Robert Rosa Ryan Samuel Sandra Sara Sarah Sergei Simon Sofia Sophie Stefan Stephen \
    Susan Sven Tariq Thomas Tim Tom Uma Vera Viktor Wanda Wei William Ximena Yasmin Yuki Yusuf Zoe ";

/// A given name, and another word with a capital after it.
fn holds_a_name(text: &str) -> bool {
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let begins_upper = word.starts_with(char::is_uppercase);
        let next_upper = words.peek().is_some_and(|next| next.starts_with(char::is_uppercase));
        // Long texts are searched only a little: names stand where they are meant to.
        if begins_upper && next_upper && word.len() < 16 && GIVEN.contains(&format!(" {word} ")) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: ValueKind) -> Column {
        Column {
            name: name.into(),
            type_name: String::new(),
            kind,
            max_chars: None,
            nullable: true,
            generated: false,
            unique: false,
            checked: false,
        }
    }

    fn of_rows(rows: &[&str]) -> Option<(Class, String)> {
        let column = column("x", ValueKind::Text { folds: false });
        let mut content = Content::default();
        rows.iter().for_each(|row| content.look(&column, row));
        content.finding(&column).map(|finding| (finding.class, finding.why))
    }

    #[test]
    fn content_tells_what_a_name_does_not() {
        assert_eq!(of_rows(&["tiny dragon", "night river 3"]), None);
        let text = of_rows(&["tiny dragon", "mail me: ada@uni.example", "x"]);
        assert_eq!(text, Some((Class::Text, "1 of 3 rows hold e-mail addresses".into())));
        let mail = of_rows(&["ada@uni.example", "bo@uni.example"]).unwrap();
        assert_eq!(mail.0, Class::Email);
        let names = of_rows(&["Ada Abara", "Bruno Costa", "for Olga Petrov", "frame 3"]).unwrap();
        assert_eq!(names.0, Class::Name);
    }

    #[test]
    fn only_types_that_can_hold_it_are_flagged_by_name() {
        let class = |name, kind| by_name(&column(name, kind)).map(|finding| finding.class);
        assert_eq!(class("email_verified_at", ValueKind::Timestamp), None);
        assert_eq!(class("has_password", ValueKind::Bool), None);
        assert_eq!(class("last_seen", ValueKind::Inet), Some(Class::Ip));
        assert_eq!(class("location", ValueKind::Composite), Some(Class::Null));
        assert_eq!(class("date_of_birth", ValueKind::Date), Some(Class::Date));
    }
}
