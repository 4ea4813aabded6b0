//! The vectors of external interrupts.

/// The one-shot timer.
pub const TIMER: u8 = 0x30;
/// Another CPU asks this one to check its flags.
pub const KICK: u8 = 0x31;
/// Vector of the first disk; each further disk has the next vector.
pub const DISK: u8 = 0x40;
/// The APIC's vector for a spurious interrupt.
pub const SPURIOUS: u8 = 0xff;
