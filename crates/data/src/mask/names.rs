//! What the name of a column or of a JSON key says about its values.

use super::class::Class;

/// The words of a name: `lastLoginIP`, `last_login_ip` are `last login ip`.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut before = ' ';
    for c in name.chars() {
        let begins = c.is_uppercase() && !before.is_uppercase();
        if !c.is_alphanumeric() {
            before = ' ';
            continue;
        }
        let letter = c.to_lowercase();
        match words.last_mut().filter(|_| !begins && before != ' ') {
            Some(word) => word.extend(letter),
            None => words.push(letter.collect()),
        }
        before = c;
    }
    words
}

/// Names that say it with one word, wherever it stands.
const SINGLE: &[(&str, Class)] = &[
    ("email", Class::Email),
    ("emails", Class::Email),
    ("mail", Class::Email),
    ("recipient", Class::Email),
    ("phone", Class::Phone),
    ("phones", Class::Phone),
    ("telephone", Class::Phone),
    ("mobile", Class::Phone),
    ("msisdn", Class::Phone),
    ("fax", Class::Phone),
    ("firstname", Class::Name),
    ("lastname", Class::Name),
    ("surname", Class::Name),
    ("forename", Class::Name),
    ("fullname", Class::Name),
    ("realname", Class::Name),
    ("handle", Class::Handle),
    ("username", Class::Handle),
    ("login", Class::Handle),
    ("nickname", Class::Handle),
    ("address", Class::Address),
    ("street", Class::Address),
    ("postcode", Class::Id),
    ("zip", Class::Id),
    ("ip", Class::Ip),
    ("ipaddress", Class::Ip),
    ("birthday", Class::Date),
    ("birthdate", Class::Date),
    ("dob", Class::Date),
    ("birth", Class::Date),
    ("ssn", Class::Id),
    ("iban", Class::Id),
    ("passport", Class::Id),
    ("last4", Class::Id),
    ("stripe", Class::Id),
    ("paypal", Class::Id),
    // Before `serial`: that of a certificate is short, and a permutation of few values can hit
    // another one that exists.
    ("cert", Class::Secret),
    ("certificate", Class::Secret),
    ("serial", Class::Id),
    ("contact", Class::Text),
    ("location", Class::Null),
    ("latitude", Class::Null),
    ("longitude", Class::Null),
    ("gps", Class::Null),
    ("password", Class::Password),
    ("passwd", Class::Password),
    ("passphrase", Class::Password),
    ("secret", Class::Secret),
    ("token", Class::Secret),
    ("totp", Class::Secret),
    ("otp", Class::Secret),
    ("mfa", Class::Secret),
    ("apikey", Class::Secret),
    ("recovery", Class::Secret),
    ("webhook", Class::Secret),
    ("pem", Class::Secret),
    ("credential", Class::Secret),
    ("credentials", Class::Secret),
    ("cookie", Class::Secret),
    ("session", Class::Secret),
    ("registration", Class::Secret),
    ("unsub", Class::Secret),
    ("salt", Class::Secret),
];

/// Names that say it with two words, one after the other.
const PAIRS: &[(&str, &str, Class)] = &[
    ("first", "name", Class::Name),
    ("last", "name", Class::Name),
    ("middle", "name", Class::Name),
    ("full", "name", Class::Name),
    ("real", "name", Class::Name),
    ("legal", "name", Class::Name),
    ("billing", "name", Class::Name),
    ("shipping", "name", Class::Name),
    ("customer", "name", Class::Name),
    ("contact", "name", Class::Name),
    ("card", "holder", Class::Name),
    ("user", "name", Class::Handle),
    ("screen", "name", Class::Handle),
    ("postal", "code", Class::Id),
    ("api", "key", Class::Secret),
    ("private", "key", Class::Secret),
    ("access", "key", Class::Secret),
    ("signing", "key", Class::Secret),
    ("encryption", "key", Class::Secret),
    ("card", "number", Class::Id),
    ("account", "number", Class::Id),
    ("tax", "id", Class::Id),
    ("vat", "id", Class::Id),
    ("national", "id", Class::Id),
    ("customer", "id", Class::Id),
];

/// What the name says; the more telling of two: `billing_email` is an address for mail, and
/// `ip_hash` no address.
pub(super) fn class_of(name: &str) -> Option<Class> {
    let words = words(name);
    let has = |word: &str| words.iter().any(|known| known == word);
    let single = SINGLE.iter().find(|(word, _)| has(word)).map(|(_, class)| *class);
    let pair = PAIRS.iter().find(|(first, second, _)| {
        words.windows(2).any(|pair| pair[0] == *first && pair[1] == *second)
    });
    let found = single.or(pair.map(|(_, _, class)| *class))?;
    let hashed = has("hash") || has("digest") || has("fingerprint");
    match found {
        Class::Secret | Class::Password => Some(found),
        _ if hashed => Some(Class::Digest),
        _ => Some(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_as_they_are_spoken() {
        assert_eq!(words("lastLoginIP"), ["last", "login", "ip"]);
        assert_eq!(words("card_last4"), ["card", "last4"]);
        assert_eq!(words("Order Notes"), ["order", "notes"]);
    }

    #[test]
    fn names_tell_the_class() {
        let cases = [
            ("email_normalized", Some(Class::Email)),
            ("viewer_ip_hash", Some(Class::Digest)),
            ("password_hash", Some(Class::Password)),
            ("token_hash", Some(Class::Secret)),
            ("cert_serial_number", Some(Class::Secret)),
            ("serial", Some(Class::Id)),
            ("apiKey", Some(Class::Secret)),
            ("full_name", Some(Class::Name)),
            ("billingName", Some(Class::Name)),
            // Neither a person's name, nor an address, nor a key to anything.
            ("name", None),
            ("description", None),
            ("storage_key", None),
            ("shipped", None),
        ];
        for (name, class) in cases {
            assert_eq!(class_of(name), class, "{name}");
        }
    }
}
