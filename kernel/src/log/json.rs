//! Text inside a JSON string, without a heap.

use core::fmt::{self, Write};

/// Escapes all text written through it; RFC 8259 "Strings".
pub struct JsonEscaped<'a, W>(pub &'a mut W);

impl<W: Write> Write for JsonEscaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(self.0, "\\{c}"),
            '\u{0}'..'\u{20}' => write!(self.0, "\\u{:04x}", u32::from(c)),
            _ => self.0.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_control_characters_are_escaped() {
        let mut out = String::new();
        write!(JsonEscaped(&mut out), "a \"b\"\n\\ é").unwrap();
        assert_eq!(out, "a \\\"b\\\"\\u000a\\\\ é");
    }
}
