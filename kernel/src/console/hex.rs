//! Bytes in JSON lines: two hexadecimal digits each, so that no byte needs an escape.

use arrayvec::{ArrayString, ArrayVec};

/// Most bytes of an `output` event.
pub const OUTPUT: usize = 256;
/// Most bytes of a `type` command.
pub const TYPED: usize = 64;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Encodes bytes; those beyond [`OUTPUT`] are dropped.
pub fn encode(bytes: &[u8]) -> ArrayString<{ 2 * OUTPUT }> {
    let mut text = ArrayString::new();
    for byte in bytes.iter().take(OUTPUT) {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
    text
}

/// Decodes bytes; `None` if there are other characters, an odd digit, or more than [`TYPED`] bytes.
pub fn decode(text: &str) -> Option<ArrayVec<u8, TYPED>> {
    let mut bytes = ArrayVec::new();
    for pair in text.as_bytes().chunks(2) {
        let [high, low] =
            <[u8; 2]>::try_from(pair).ok()?.map(|digit| char::from(digit).to_digit(16));
        bytes.try_push((high? * 16 + low?) as u8).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = encode(&bytes);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        let back: Vec<u8> = text
            .as_bytes()
            .chunks(64)
            .flat_map(|part| decode(core::str::from_utf8(part).unwrap()).unwrap())
            .collect();
        assert_eq!(back, bytes);
    }

    #[test]
    fn what_is_no_byte_is_refused() {
        assert_eq!(["0", "0g", "ä0", " 1"].map(decode), [None, None, None, None]);
        assert!(decode(&"00".repeat(TYPED)).is_some() && decode(&"00".repeat(TYPED + 1)).is_none());
        assert_eq!(decode("0aFF").as_deref(), Some(&[10, 255][..]));
    }
}
