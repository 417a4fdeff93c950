//! What an address says of encryption. The driver knows some of libpq's words for it and takes
//! others for a mistake, so they are taken out before it reads the rest.

/// `sslmode` and `sslrootcert`; of a word that comes twice the last counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Asked {
    pub(super) mode: Option<String>,
    pub(super) root: Option<String>,
}

impl Asked {
    /// Both, and the address without them.
    pub(in crate::postgres) fn take_from(url: &str) -> (Asked, String) {
        let mut asked = Asked::default();
        let rest = match url.starts_with("postgres://") || url.starts_with("postgresql://") {
            true => asked.take_from_query(url),
            false => asked.take_from_words(url),
        };
        (asked, rest)
    }

    /// Whether the address says nothing of how to encrypt.
    pub(in crate::postgres) fn is_silent(&self) -> bool {
        self.mode.is_none()
    }

    fn put(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.mode = Some(value),
            "sslrootcert" => self.root = Some(value),
            _ => return false,
        }
        true
    }

    /// `postgres://…?key=value&key=value`
    fn take_from_query(&mut self, url: &str) -> String {
        // As the driver reads it: what comes before the first `@` is a name and a password.
        let behind_password = url.find('@').map_or(0, |at| at + 1);
        let Some(mark) = url[behind_password..].find('?') else { return url.to_owned() };
        let (before, query) = url.split_at(behind_password + mark);
        let query = &query[1..];
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !self.put(&decoded(key), decoded(value)) {
                kept.push(pair);
            }
        }
        match kept.is_empty() {
            true => before.to_owned(),
            false => format!("{before}?{}", kept.join("&")),
        }
    }

    /// `key=value key = 'a value'`, where a backslash takes the next character as it is.
    fn take_from_words(&mut self, text: &str) -> String {
        let mut kept = String::new();
        let mut rest = text;
        while let Some(equals) = rest.find('=') {
            let key = rest[..equals].trim();
            let after = rest[equals + 1..].trim_start();
            let (value, length) = word(after);
            let end = rest.len() - after.len() + length;
            if !self.put(key, value) {
                kept.push_str(&rest[..end]);
                kept.push(' ');
            }
            rest = &rest[end..];
        }
        kept.push_str(rest);
        kept
    }
}

/// A value and how many bytes it took.
fn word(text: &str) -> (String, usize) {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return (value, at + 1),
            _ if !is_quoted && character.is_whitespace() => return (value, at),
            _ => value.push(character),
        }
    }
    (value, text.len())
}

/// `%2F` as `/`. What is not UTF-8 then, or not of that form, stays as it was.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *first == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, mode: Option<&str>, root: Option<&str>, rest: &str) {
        let (asked, kept) = Asked::take_from(url);
        assert_eq!((asked.mode.as_deref(), asked.root.as_deref()), (mode, root), "{url}");
        assert_eq!(kept.trim(), rest, "{url}");
    }

    #[test]
    fn what_is_said_of_encryption_is_taken_out_and_the_rest_is_left() {
        check("postgres://a:b@h/d", None, None, "postgres://a:b@h/d");
        check("postgres://h/d?sslmode=require", Some("require"), None, "postgres://h/d");
        check(
            "postgresql://h/d?connect_timeout=3&sslrootcert=%2Fetc%2Fa%20b.pem&sslmode=verify-full",
            Some("verify-full"),
            Some("/etc/a b.pem"),
            "postgresql://h/d?connect_timeout=3",
        );
        check(
            "postgres://u:p?w@h/d?sslmode=require",
            Some("require"),
            None,
            "postgres://u:p?w@h/d",
        );
        check("postgres://h/d?%73slmode=require", Some("require"), None, "postgres://h/d");
        check("postgres://h/d?sslmode", Some(""), None, "postgres://h/d");
        check("host=h user=u", None, None, "host=h  user=u");
        check(
            r"host=h sslmode = verify-ca sslrootcert='/a b\'c' password='x y'",
            Some("verify-ca"),
            Some("/a b'c"),
            "host=h  password='x y'",
        );
        check("sslmode=require sslmode=disable", Some("disable"), None, "");
        // What is broken is left for the driver to say so.
        check("host='h sslmode=require", None, None, "host='h sslmode=require");
        check("", None, None, "");
        check("postgres://h/d?sslrootcert=%zz%", None, Some("%zz%"), "postgres://h/d");
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC*", words in "(postgres://)?[a-z=' \\\\%?&é]*") {
            for text in [text, words] {
                let (_, rest) = Asked::take_from(&text);
                proptest::prop_assert!(rest.len() <= text.len() + text.matches('=').count() + 1);
            }
        }
    }
}
