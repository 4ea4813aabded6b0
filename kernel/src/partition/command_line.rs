//! The kernel command line of an incarnation: the configured text and the hypervisor's parameter.

use alloc::format;
use alloc::string::String;

/// Returns `configured` with the incarnation's number as a parameter of the kernel.
///
/// Linux passes everything behind a word `--` to the first process, so the parameter is inserted
/// before that word.
pub fn with_incarnation(configured: &str, incarnation: u64) -> String {
    let added = format!("tidepool.incarnation={incarnation}");
    match end_of_parameters(configured) {
        Some(at) => {
            let (before, rest) = configured.split_at(at);
            format!("{before}{}{added} {rest}", separator(before))
        }
        None => format!("{configured}{}{added}", separator(configured)),
    }
}

fn separator(before: &str) -> &'static str {
    if before.is_empty() || before.ends_with(is_blank) { "" } else { " " }
}

/// Returns where the first word `--` begins. Blanks between double quotes separate no words (Linux
/// `lib/cmdline.c`, `next_arg`).
fn end_of_parameters(text: &str) -> Option<usize> {
    let (mut start, mut is_quoted) = (0, false);
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        is_quoted ^= c == '"';
        if is_blank(c) && (!is_quoted || at == text.len()) {
            if &text[start..at] == "--" {
                return Some(start);
            }
            start = at + c.len_utf8();
        }
    }
    None
}

/// Tells whether C's `isspace` holds for `c`.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(configured: &str) -> String {
        with_incarnation(configured, 2)
    }

    #[test]
    fn parameters_of_the_kernel_stand_before_the_first_processs_arguments() {
        assert_eq!(second("console=ttyS0 -- alpha"), "console=ttyS0 tidepool.incarnation=2 -- alpha");
        assert_eq!(second("quiet\t--\talpha -- beta"), "quiet\ttidepool.incarnation=2 --\talpha -- beta");
        assert_eq!(second("-- alpha"), "tidepool.incarnation=2 -- alpha");
        assert_eq!(second("quiet --"), "quiet tidepool.incarnation=2 --");
    }

    #[test]
    fn without_arguments_they_are_the_last() {
        assert_eq!(second(""), "tidepool.incarnation=2");
        assert_eq!(second("quiet"), "quiet tidepool.incarnation=2");
        assert_eq!(second("quiet "), "quiet tidepool.incarnation=2");
        assert_eq!(second("a=-- --b ---"), "a=-- --b --- tidepool.incarnation=2");
    }

    #[test]
    fn what_stands_in_quotes_is_no_word_of_its_own() {
        assert_eq!(second("a=\"x -- y\" b"), "a=\"x -- y\" b tidepool.incarnation=2");
        assert_eq!(second("a=\"x -- y\" -- c"), "a=\"x -- y\" tidepool.incarnation=2 -- c");
        assert_eq!(second("a=\"x -- y"), "a=\"x -- y tidepool.incarnation=2");
    }
}
