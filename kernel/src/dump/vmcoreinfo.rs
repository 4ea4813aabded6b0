//! Finds Linux's VMCOREINFO note in a guest's memory, without help from the guest.
//!
//! Linux allocates one page for the note at `subsys_initcall` (`crash_save_vmcoreinfo_init`), so it
//! lies at byte 0 of a 4 KiB page: name size 11, descriptor size, type 0, the name, then text that
//! starts with `OSRELEASE=`. The hypervisor checksums every page that reaches a block. The first
//! bytes are compared there, so no page is read back only to be searched.

/// Bytes of a page that [`text_len`] reads.
pub const PREFIX: usize = 34;
/// Offset of the text in the page.
pub const TEXT_OFFSET: usize = 24;
const NAME_AND_FIRST_KEY: &[u8] = b"VMCOREINFO\0\0OSRELEASE=";

/// First 4 bytes of the note as a number: the cheap test, which nearly every page fails.
pub const FIRST_WORD: u32 = 11;

/// Returns the length of the text if `page` (at least [`PREFIX`] bytes) starts with the note.
pub fn text_len(page: &[u8]) -> Option<usize> {
    let page = page.first_chunk::<PREFIX>()?;
    let word = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    let len = word(4) as usize;
    let fits = len > 0 && len <= crate::addr::PAGE_SIZE as usize - TEXT_OFFSET;
    (word(0) == FIRST_WORD && word(8) == 0 && fits && &page[12..] == NAME_AND_FIRST_KEY)
        .then_some(len)
}

/// Returns the value after `key=` in the text, up to the line's end.
pub fn value<'a>(text: &'a [u8], key: &str) -> Option<&'a str> {
    let line = text
        .split(|b| *b == b'\n')
        .find(|l| l.strip_prefix(key.as_bytes()).is_some_and(|r| r.first() == Some(&b'=')))?;
    core::str::from_utf8(&line[key.len() + 1..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(len: u32) -> Vec<u8> {
        let mut p = vec![0; 4096];
        p[0] = 11;
        p[4..8].copy_from_slice(&len.to_le_bytes());
        p[12..34].copy_from_slice(NAME_AND_FIRST_KEY);
        p[34..].fill(b'x');
        p
    }

    #[test]
    fn the_note_is_recognised_by_header_and_first_key() {
        assert_eq!(text_len(&page(2000)), Some(2000));
        let mut other = page(2000);
        other[30] = b'!';
        assert_eq!(text_len(&other), None);
    }

    #[test]
    fn a_length_beyond_the_page_is_refused() {
        assert_eq!(text_len(&page(4072)), Some(4072));
        assert_eq!(text_len(&page(4073)), None);
        assert_eq!(text_len(&page(0)), None);
        assert_eq!(text_len(&page(9)[..20]), None);
    }

    #[test]
    fn values_are_found_by_whole_keys() {
        let text = b"OSRELEASE=6.1\nNUMBER(phys_base)=42\n";
        assert_eq!(value(text, "OSRELEASE"), Some("6.1"));
        assert_eq!(value(text, "NUMBER(phys_base)"), Some("42"));
        assert_eq!(value(text, "NUMBER"), None);
    }
}
