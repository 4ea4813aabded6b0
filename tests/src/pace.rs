//! The pace of an activity that reports each of its steps.

use std::ops::Range;

/// Returns the least number of steps in any `window` within `spell`; `None` where the spell is
/// shorter than a window. All times are of one clock; the steps are in ascending order.
pub fn slowest(steps: &[u64], window: u64, spell: Range<u64>) -> Option<usize> {
    let last = spell.end.checked_sub(window).filter(|last| *last >= spell.start)?;
    // The window with the fewest steps begins right after a step, or at either end of the spell.
    let begins =
        steps.iter().map(|step| step + 1).filter(|begin| (spell.start..=last).contains(begin));
    let count =
        |begin: u64| steps.iter().filter(|step| (begin..begin + window).contains(step)).count();
    begins.chain([spell.start, last]).map(count).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_decides() {
        let even: Vec<u64> = (0..10).map(|n| n * 10).collect();
        assert_eq!(slowest(&even, 30, 0..100), Some(3));
        let pause = [0, 10, 20, 70, 80, 90];
        assert_eq!((slowest(&pause, 30, 0..100), slowest(&pause, 60, 0..100)), (Some(0), Some(2)));
    }

    #[test]
    fn a_pause_at_either_end_counts() {
        assert_eq!(slowest(&[50, 60, 70], 30, 0..80), Some(0));
        assert_eq!(slowest(&[0, 10, 20], 30, 0..100), Some(0));
        assert_eq!((slowest(&[0, 10, 20], 30, 0..20), slowest(&[], 30, 0..100)), (None, Some(0)));
    }
}
