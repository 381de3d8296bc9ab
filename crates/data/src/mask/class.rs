//! Kinds of personal and secret data, each with its own way to be masked.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// An e-mail address.
    Email,
    /// A phone number.
    Phone,
    /// A person's name.
    Name,
    /// A name that a person chose, such as a login.
    Handle,
    /// A street and a number.
    Address,
    /// An IP address.
    Ip,
    /// A hash or another fingerprint by which values are matched.
    Digest,
    /// A day of a life, such as a birthday.
    Date,
    /// An identifier at somebody else's, such as a payment provider.
    Id,
    /// Free text, in which everything that is recognised is masked.
    Text,
    /// JSON, in which names of keys tell what values are, and the rest is recognised as in text.
    Json,
    /// A password, or its hash: becomes one that developers know.
    Password,
    /// Something that opens a door. Becomes NULL, or chance.
    Secret,
    /// Becomes NULL.
    Null,
}

const WORDS: [(Class, &str); 14] = [
    (Class::Email, "email"),
    (Class::Phone, "phone"),
    (Class::Name, "name"),
    (Class::Handle, "handle"),
    (Class::Address, "address"),
    (Class::Ip, "ip"),
    (Class::Digest, "digest"),
    (Class::Date, "date"),
    (Class::Id, "id"),
    (Class::Text, "text"),
    (Class::Json, "json"),
    (Class::Password, "password"),
    (Class::Secret, "secret"),
    (Class::Null, "null"),
];

impl Class {
    /// Reads the word of a rule.
    pub fn parse(word: &str) -> Option<Self> {
        WORDS.iter().find(|(_, known)| *known == word).map(|(class, _)| *class)
    }

    /// The word of a rule.
    pub fn word(self) -> &'static str {
        let known = WORDS.iter().find(|(class, _)| *class == self);
        known.map(|(_, word)| *word).expect("every class has a word")
    }

    /// All words, for help.
    pub fn words() -> String {
        WORDS.map(|(_, word)| word).join(", ")
    }
}
