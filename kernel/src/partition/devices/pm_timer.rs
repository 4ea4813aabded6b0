//! The ACPI power management timer: 24 bits, counting up at 3.579545 MHz, with no carry interrupt.
//!
//! Kernels without KVM's clock measure the TSC against it, also where an exit takes so long that
//! the interval timer is of no use. ACPI 6.5 "Power Management Timer". A hardware-reduced machine
//! need not have this timer, but Linux looks for it.

use super::clock::TscRate;
use crate::time::Ticks;

const HZ: u128 = 3_579_545;
const MASK: u32 = 0x00ff_ffff;

/// Reads the counter.
pub fn read(now: Ticks, rate: TscRate) -> u32 {
    let ticks = u128::from(now.as_u64()) * HZ / u128::from(rate.hz());
    ticks as u32 & MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_at_its_rate_and_wraps_at_24_bits() {
        let rate = TscRate::new(2_500_000_000);
        assert_eq!(
            [0, 1, 4].map(|s| read(Ticks::new(s * rate.hz()), rate)),
            [0, 3_579_545, 14_318_180]
        );
        assert_eq!(read(Ticks::new(5 * rate.hz()), rate), 17_897_725 - 0x100_0000);
        assert_eq!(read(Ticks::MAX, rate) & !MASK, 0);
    }
}
