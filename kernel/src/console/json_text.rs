//! A text of a command: as it was typed, or as it stands in JSON with its escapes.
//!
//! The JSON parser has no memory to write the characters of an escape to, so the text keeps them
//! until it is copied.

use alloc::string::String;
use core::fmt;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json_core::str::{EscapedStr, EscapedStringFragment};

/// A text whose escapes, if it has any, are valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JsonText<'a> {
    written: &'a str,
    has_escapes: bool,
}

impl<'a> JsonText<'a> {
    /// Takes a text as it is: a backslash in it means itself.
    pub const fn plain(text: &'a str) -> Self {
        Self { written: text, has_escapes: false }
    }

    /// Takes a text of JSON; `None` if an escape in it is invalid.
    fn escaped(written: &'a str) -> Option<Self> {
        let has_escapes = written.contains('\\');
        EscapedStr(written).fragments().all(|f| f.is_ok()).then_some(Self { written, has_escapes })
    }

    /// Returns the characters that the text stands for.
    pub fn to_text(self) -> String {
        if !self.has_escapes {
            return self.written.into();
        }
        let mut text = String::with_capacity(self.written.len());
        // `escaped` has checked all of them.
        for fragment in EscapedStr(self.written).fragments().map_while(Result::ok) {
            match fragment {
                EscapedStringFragment::NotEscaped(part) => text.push_str(part),
                EscapedStringFragment::Escaped(character) => text.push(character),
            }
        }
        text
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = JsonText<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, written: &'de str) -> Result<Self::Value, E> {
        JsonText::escaped(written).ok_or_else(|| E::custom("an escape is invalid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_of_json_stands_for_its_character_and_a_typed_backslash_for_itself() {
        let of = |written| JsonText::escaped(written).map(JsonText::to_text);
        assert_eq!(of("quiet").as_deref(), Some("quiet"));
        let escaped = r#"dyndbg=\"file a.c +p\" \\ \u0041\/"#;
        assert_eq!(of(escaped).as_deref(), Some(r#"dyndbg="file a.c +p" \ A/"#));
        for wrong in [r"\q", r"\u12", r"\ud800", r"a\"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(JsonText::plain(r"a\n").to_text(), r"a\n");
    }
}
