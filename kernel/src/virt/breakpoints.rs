//! A guest's breakpoints at emulated accesses: the hypervisor carries them out, so the CPU cannot
//! check them.
//!
//! ```text
//!  DR7  31 30 29 28 | 27 26 25 24 | 23 22 21 20 | 19 18 17 16 | 13 | 7 6 5 4 3 2 1 0
//!       LEN3  R/W3  | LEN2  R/W2  | LEN1  R/W1  | LEN0  R/W0  | GD | G3 L3 .. G0 L0
//! ```
//!
//! R/W: 0 execution, 1 writes, 2 ports (with CR4.DE), 3 reads and writes. LEN: 1, 2, 8 and 4 bytes;
//! the low bits of the address are ignored accordingly. SDM 3B "Debug Control Register (DR7)",
//! "Breakpoint Field Recognition". Pure.

use super::exit::AccessWidth;

/// Enable bits of all four breakpoints.
const ENABLED: u64 = 0xff;
/// DR7.GD: a debug exception clears it.
pub const DR7_GENERAL_DETECT: u64 = 1 << 13;
const CR4_DEBUGGING_EXTENSIONS: u64 = 1 << 3;

/// Kind of an access, as breakpoints distinguish it. A read-modify-write counts as a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakpointAccess {
    /// Reads memory.
    Read,
    /// Writes memory.
    Write,
    /// Reads or writes a port.
    Port,
}

/// DR0 to DR3, DR7, and whether I/O breakpoints can exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakpoints {
    addresses: [u64; 4],
    dr7: u64,
    at_ports: AtPorts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AtPorts {
    /// CR4.DE is set.
    Fire,
    Reserved,
}

/// Returns whether any breakpoint is enabled.
pub const fn is_enabled(dr7: u64) -> bool {
    dr7 & ENABLED != 0
}

impl Breakpoints {
    /// Makes the breakpoints from the registers.
    pub const fn new(addresses: [u64; 4], dr7: u64, cr4: u64) -> Self {
        let at_ports =
            if cr4 & CR4_DEBUGGING_EXTENSIONS != 0 { AtPorts::Fire } else { AtPorts::Reserved };
        Self { addresses, dr7, at_ports }
    }

    /// Returns the bits B0 to B3 of DR6 for an access of `width` from `at` on: a linear address, or
    /// a port.
    pub fn hits(&self, touch: BreakpointAccess, at: u64, width: AccessWidth) -> u64 {
        let hit = |number: &usize| self.is_hit(*number, touch, at, width.bytes() as u64);
        (0..self.addresses.len()).filter(hit).fold(0, |bits, number| bits | 1 << number)
    }

    fn is_hit(&self, number: usize, touch: BreakpointAccess, at: u64, bytes: u64) -> bool {
        let field = self.dr7 >> (16 + 4 * number);
        let is_on = self.dr7 >> (2 * number) & 3 != 0;
        let is_kind = match field & 3 {
            1 => touch == BreakpointAccess::Write,
            2 => touch == BreakpointAccess::Port && self.at_ports == AtPorts::Fire,
            3 => touch != BreakpointAccess::Port,
            _ => false,
        };
        let len = [1, 2, 8, 4][(field >> 2 & 3) as usize];
        let start = self.addresses[number] & !(len - 1);
        is_on && is_kind && (start.wrapping_sub(at) < bytes || at.wrapping_sub(start) < len)
    }
}

/// Whether the guest may have a breakpoint enabled. It is checked before exits that are answered at
/// once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DebugUse {
    /// No breakpoint is enabled, and a MOV to DR7 exits.
    Unused,
    /// A MOV to DR7 has exited; the guest repeats it at the next entry.
    Repeated,
    /// A breakpoint may be enabled: DR7 must be read.
    Used,
}

impl DebugUse {
    /// Returns the state at an entry, when DR7 has been read. If no breakpoint is enabled after the
    /// repeated MOV, the state is unused.
    pub const fn at_entry(self, dr7: u64) -> Self {
        match self {
            Self::Repeated => Self::Used,
            Self::Unused | Self::Used => Self::of(dr7),
        }
    }

    /// Returns the state for this value of DR7.
    pub const fn of(dr7: u64) -> Self {
        if is_enabled(dr7) { Self::Used } else { Self::Unused }
    }
}

#[cfg(test)]
mod tests {
    use super::BreakpointAccess::{Port, Read, Write};
    use super::*;
    use crate::virt::exit::AccessWidth::{Byte, Dword, Qword, Word};

    const DE: u64 = 8;

    /// Returns one breakpoint, enabled locally, with kind and length as encoded in DR7.
    fn one(number: usize, kind: u64, len: u64, at: u64) -> Breakpoints {
        let mut addresses = [0x10; 4];
        addresses[number] = at;
        Breakpoints::new(
            addresses,
            0x400 | 1 << (2 * number) | (kind | len << 2) << (16 + 4 * number),
            DE,
        )
    }

    #[test]
    fn each_kind_meets_its_accesses_only() {
        for number in 0..4 {
            for (kind, met) in [(0, &[][..]), (1, &[Write]), (2, &[Port]), (3, &[Read, Write])] {
                for touch in [Read, Write, Port] {
                    let wanted = if met.contains(&touch) { 1 << number } else { 0 };
                    assert_eq!(
                        one(number, kind, 0, 0x80).hits(touch, 0x80, Byte),
                        wanted,
                        "{number} {kind} {touch:?}"
                    );
                }
            }
        }
        let reserved = Breakpoints { at_ports: AtPorts::Reserved, ..one(0, 2, 0, 0x80) };
        assert_eq!(reserved.hits(Port, 0x80, Byte), 0, "without CR4.DE");
    }

    #[test]
    fn any_common_byte_is_enough_and_the_address_is_aligned_to_the_length() {
        for (len, at, touched, width, wanted) in [
            (0, 0x23, 0x20, Dword, 1),
            (0, 0x24, 0x20, Dword, 0),
            (0, 0x1f, 0x20, Dword, 0),
            (1, 0x21, 0x20, Byte, 1),
            (1, 0x21, 0x22, Word, 0),
            (3, 0x22, 0x20, Byte, 1),
            (3, 0x22, 0x23, Word, 1),
            (3, 0x22, 0x24, Qword, 0),
            (3, 0x22, 0x1d, Qword, 1),
            (2, 0x27, 0x20, Byte, 1),
            (2, 0x27, 0x28, Byte, 0),
            (2, 0x27, 0x27, Byte, 1),
        ] {
            assert_eq!(
                one(0, 3, len, at).hits(Read, touched, width),
                wanted,
                "{len} {at:#x} {touched:#x} {width:?}"
            );
        }
    }

    /// Otherwise the repeated MOV would exit again endlessly.
    #[test]
    fn a_mov_that_has_exited_is_repeated_before_dr7_counts() {
        assert_eq!(DebugUse::Repeated.at_entry(0x400), DebugUse::Used);
        assert_eq!(
            (DebugUse::Used.at_entry(0x400), DebugUse::Used.at_entry(0x401)),
            (DebugUse::Unused, DebugUse::Used)
        );
    }

    /// The two ends of the address space are not adjacent.
    #[test]
    fn the_ends_of_the_address_space_are_ends() {
        assert_eq!(one(0, 3, 0, 0).hits(Read, u64::MAX, Byte), 0);
        assert_eq!(one(0, 3, 3, u64::MAX - 3).hits(Read, u64::MAX, Byte), 1);
    }

    #[test]
    fn only_enabled_ones_count_and_several_may_be_met() {
        let at = [0x100, 0x101, 0x102, 0x103];
        let all = 0x3333_0000;
        for (enabled, wanted) in
            [(0x00, 0), (0x01, 1), (0x02, 1), (0x04, 2), (0x80, 8), (0xaa, 15), (0x11, 5)]
        {
            assert_eq!(
                Breakpoints::new(at, all | enabled, 0).hits(Read, 0x100, Dword),
                wanted,
                "{enabled:#x}"
            );
            assert_eq!(is_enabled(all | enabled), enabled != 0);
        }
    }
}
