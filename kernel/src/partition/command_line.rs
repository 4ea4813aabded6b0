//! The kernel command line of an incarnation: the configured text and the hypervisor's parameters.
//!
//! | parameter | read by | why |
//! |---|---|---|
//! | `tidepool.incarnation=N` | the first process | which run of the partition this is |
//! | `tsc_early_khz=N` | Linux 5.9 and later | the frequency of the TSC: see [`Added::tsc_khz`] |

use alloc::format;
use alloc::string::String;

/// Linux's parameter for the frequency of the TSC
/// (`Documentation/admin-guide/kernel-parameters.txt`).
const TSC_KEY: &str = "tsc_early_khz=";

/// The parameters that the hypervisor adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Added {
    /// The incarnation's number.
    pub incarnation: u64,
    /// The TSC's frequency, in kHz.
    ///
    /// A Linux without KVM's clock (`no-kvmclock`, `nopv`, built without it) measures the frequency
    /// by the interval timer and the power management timer. It drops a measurement in which a few
    /// port reads take more than 50,000 ticks of the TSC, as they may under an emulator. A kernel
    /// that has no frequency has no timer, and waits at boot for ever. CPUID's leaf 0x15 does not
    /// help: Linux reads it on Intel's CPUs alone.
    pub tsc_khz: u64,
}

impl Added {
    /// The longest parameters of any incarnation on any machine.
    pub const LONGEST: Self = Self { incarnation: u64::MAX, tsc_khz: u64::MAX };
}

/// Returns `configured` with the hypervisor's parameters. A frequency that is configured stays.
///
/// Linux passes everything behind a word `--` to the first process, so the parameters are inserted
/// before that word.
pub fn with_added(configured: &str, added: Added) -> String {
    let (parameters, arguments) = split(configured);
    let blank = if parameters.is_empty() || parameters.ends_with(is_blank) { "" } else { " " };
    let tsc = if words(parameters).any(|(_, word)| word.starts_with(TSC_KEY)) {
        String::new()
    } else {
        format!("{TSC_KEY}{} ", added.tsc_khz)
    };
    let end = if arguments.is_empty() { "" } else { " " };
    format!("{parameters}{blank}{tsc}tidepool.incarnation={}{end}{arguments}", added.incarnation)
}

/// Splits the text before its first word `--`; the second part is empty if there is none.
fn split(text: &str) -> (&str, &str) {
    let at = words(text).find(|(_, word)| *word == "--").map_or(text.len(), |(at, _)| at);
    text.split_at(at)
}

/// Returns the words and where they begin. Blanks between double quotes separate no words (Linux
/// `lib/cmdline.c`, `next_arg`).
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut start, mut is_quoted) = (0, false);
    text.char_indices().chain([(text.len(), ' ')]).filter_map(move |(at, c)| {
        is_quoted ^= c == '"';
        let is_end = is_blank(c) && (!is_quoted || at == text.len());
        let word = is_end.then(|| (start, &text[start..at]));
        if is_end {
            start = at + c.len_utf8();
        }
        word
    })
}

/// Tells whether C's `isspace` holds for `c`.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(configured: &str) -> String {
        with_added(configured, Added { incarnation: 2, tsc_khz: 2_600_211 })
    }

    #[test]
    fn parameters_of_the_kernel_stand_before_the_first_processs_arguments() {
        assert_eq!(
            second("console=ttyS0 -- alpha"),
            "console=ttyS0 tsc_early_khz=2600211 tidepool.incarnation=2 -- alpha"
        );
        assert_eq!(
            second("quiet\t--\talpha -- beta"),
            "quiet\ttsc_early_khz=2600211 tidepool.incarnation=2 --\talpha -- beta"
        );
        assert_eq!(second("-- alpha"), "tsc_early_khz=2600211 tidepool.incarnation=2 -- alpha");
        assert_eq!(second("quiet --"), "quiet tsc_early_khz=2600211 tidepool.incarnation=2 --");
    }

    #[test]
    fn without_arguments_they_are_the_last() {
        assert_eq!(second(""), "tsc_early_khz=2600211 tidepool.incarnation=2");
        assert_eq!(second("quiet"), "quiet tsc_early_khz=2600211 tidepool.incarnation=2");
        assert_eq!(second("quiet "), "quiet tsc_early_khz=2600211 tidepool.incarnation=2");
        assert_eq!(
            second("a=-- --b ---"),
            "a=-- --b --- tsc_early_khz=2600211 tidepool.incarnation=2"
        );
    }

    #[test]
    fn what_stands_in_quotes_is_no_word_of_its_own() {
        assert_eq!(
            second("a=\"x -- y\" b"),
            "a=\"x -- y\" b tsc_early_khz=2600211 tidepool.incarnation=2"
        );
        assert_eq!(
            second("a=\"x -- y\" -- c"),
            "a=\"x -- y\" tsc_early_khz=2600211 tidepool.incarnation=2 -- c"
        );
        assert_eq!(second("a=\"x -- y"), "a=\"x -- y tsc_early_khz=2600211 tidepool.incarnation=2");
    }

    #[test]
    fn a_configured_frequency_stays() {
        assert_eq!(second("tsc_early_khz=7 quiet"), "tsc_early_khz=7 quiet tidepool.incarnation=2");
        assert_eq!(
            second("quiet -- tsc_early_khz=7"),
            "quiet tsc_early_khz=2600211 tidepool.incarnation=2 -- tsc_early_khz=7"
        );
    }

    #[test]
    fn the_longest_parameters_are_the_longest() {
        let most = with_added("quiet", Added::LONGEST).len();
        for added in [
            Added { incarnation: 1, tsc_khz: 999_999_999 },
            Added { incarnation: u64::MAX, tsc_khz: 0 },
        ] {
            assert!(with_added("quiet", added).len() <= most);
        }
    }
}
