//! Return addresses from the chain of frame pointers.
//!
//! The kernel is built with frame pointers; the entry code ends the chain with 0. In a panic the
//! chain may be broken anywhere. So each link must be an aligned address in the kernel's image,
//! where all stacks are, and the number of links is bounded. Links need not ascend: from an
//! exception's own stack the chain continues in the interrupted one.
// UNSAFETY: reads the stack by address.
#![cfg_attr(target_os = "none", expect(unsafe_code))]

/// Most frames shown.
const MAX_DEPTH: usize = 32;
/// The address range of the image, cut short of its largest possible extent.
const IMAGE: core::ops::Range<u64> = 0xffff_ffff_8020_0000..0xffff_ffff_c000_0000;

/// Iterator over the return addresses from a frame pointer on, innermost first.
pub struct Backtrace<R> {
    frame: u64,
    depth: usize,
    read: R,
}

impl<R: FnMut(u64) -> u64> Backtrace<R> {
    /// Follows the chain from `frame` on; `read` reads a word of the stack.
    pub fn new(frame: u64, read: R) -> Self {
        Self { frame, depth: 0, read }
    }
}

impl<R: FnMut(u64) -> u64> Iterator for Backtrace<R> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let readable = self.frame.is_multiple_of(8)
            && IMAGE.contains(&self.frame)
            && IMAGE.contains(&(self.frame + 8));
        if !readable || self.depth == MAX_DEPTH {
            return None;
        }
        let (above, address) = ((self.read)(self.frame), (self.read)(self.frame + 8));
        self.frame = if above == self.frame { 0 } else { above };
        self.depth += 1;
        (address != 0).then_some(address)
    }
}

/// Reads a word for [`Backtrace`].
#[cfg(target_os = "none")]
pub fn read_stack(address: u64) -> u64 {
    // SAFETY: an aligned word of the image's range. A hole in it (a guard page) faults, and the
    // resulting second panic ends the report there.
    unsafe { (address as *const u64).read_volatile() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK: u64 = 0xffff_ffff_8030_0000;

    /// Frames at `STACK + 0x100 * n`, each returning to `n`; the last one's link is `end`.
    fn chain(frames: u64, end: u64) -> Vec<u64> {
        let read = move |address: u64| {
            let n = (address - STACK) / 0x100;
            match address % 0x100 {
                0 if n + 1 == frames => end,
                0 => address + 0x100,
                _ => n + 1,
            }
        };
        Backtrace::new(STACK, read).collect()
    }

    #[test]
    fn the_chain_ends_at_the_entry_codes_zero() {
        assert_eq!(chain(3, 0), [1, 2, 3]);
    }

    #[test]
    fn a_broken_link_ends_the_chain() {
        for end in [STACK + 0x201, 0x1000, u64::MAX, u64::MAX - 7, STACK + 0x200] {
            assert_eq!(chain(3, end), [1, 2, 3], "{end:#x}");
        }
    }

    #[test]
    fn a_loop_is_left_after_a_bounded_number_of_frames() {
        assert_eq!(chain(2, STACK).len(), MAX_DEPTH);
    }
}
