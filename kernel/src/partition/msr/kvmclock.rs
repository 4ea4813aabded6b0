//! KVM's paravirtual clock: two pages that the guest names and the hypervisor fills.
//!
//! ```text
//!   WRMSR 0x4b564d01 (address | 1) ──> system time: version, TSC, ns, multiplier, shift, flags
//!   WRMSR 0x4b564d00 (address)     ──> wall clock:  version, seconds, nanoseconds at ns = 0
//! ```
//!
//! The guest's TSC runs at one rate for the whole incarnation. So the system time is written once,
//! when the guest asks for it, with the flag that marks it stable; and again if the guest moves its
//! TSC. Linux `Documentation/virt/kvm/x86/msr.rst`.

use super::tsc::ClockMoment;
use super::{FAULT, MsrError};
use crate::addr::Gpa;
use crate::dump::state_note::{StateError, StateReader, StateWriter};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::partition::devices::clock::{GuestClock, NS_PER_S};

/// Wall clock.
pub const WALL_CLOCK: u32 = 0x4b56_4d00;
/// System time.
pub const SYSTEM_TIME: u32 = 0x4b56_4d01;

const ENABLED: u64 = 1;
const FLAG_TSC_STABLE: u8 = 1 << 0;
/// The guest was stopped. The guest clears this flag itself, and then resets its watchdogs.
const FLAG_GUEST_STOPPED: u8 = 1 << 1;
const FLAGS_OFFSET: u64 = 29;

/// The MSRs' last values.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvmClock {
    wall_clock: u64,
    system_time: u64,
    /// How often the system time was switched off.
    offs: u32,
}

impl KvmClock {
    /// Reads a register; `None` if `msr` is not one of these.
    pub const fn read(&self, msr: u32) -> Option<u64> {
        match msr {
            WALL_CLOCK => Some(self.wall_clock),
            SYSTEM_TIME => Some(self.system_time),
            _ => None,
        }
    }

    /// Appends the registers.
    pub(super) fn save(&self, out: &mut StateWriter) {
        out.u64(self.wall_clock);
        out.u64(self.system_time);
        out.u32(self.offs);
    }

    /// Takes saved registers over.
    pub(super) fn restore(&mut self, from: &mut StateReader<'_>) -> Result<(), StateError> {
        (self.wall_clock, self.system_time, self.offs) = (from.u64()?, from.u64()?, from.u32()?);
        Ok(())
    }

    /// Returns whether the guest uses the system time.
    pub const fn is_used(&self) -> bool {
        self.system_time & ENABLED != 0
    }

    /// Returns how often the guest has switched the system time off, as a kernel does before it
    /// hands over to another one.
    pub const fn offs(&self) -> u32 {
        self.offs
    }

    /// Sets the "stopped" flag of a guest that uses the system time.
    ///
    /// # Errors
    /// The error of the access to guest memory; then nothing has happened.
    pub fn tell_stopped(&self, memory: &dyn GuestMemory) -> Result<(), GuestMemoryError> {
        let area = Gpa::new(self.system_time & !ENABLED);
        let Some(at) = area.checked_add(FLAGS_OFFSET).filter(|_| self.system_time & ENABLED != 0)
        else {
            return Ok(());
        };
        // The flags hold no time, so readers need no new version.
        let mut flags = [0];
        memory.read(at, &mut flags)?;
        memory.write(at, &[flags[0] | FLAG_GUEST_STOPPED])
    }

    /// Writes a register and fills the page that it names.
    ///
    /// # Errors
    /// [`MsrError`]: no such register, no RAM at that address, or the page is not resident.
    pub fn write(
        &mut self,
        msr: u32,
        value: u64,
        clock: &GuestClock,
        memory: &dyn GuestMemory,
        at: ClockMoment,
    ) -> Result<(), MsrError> {
        match msr {
            WALL_CLOCK => {
                publish(Gpa::new(value), &wall_clock(clock), memory)?;
                self.wall_clock = value;
            }
            SYSTEM_TIME => {
                if value & ENABLED != 0 {
                    publish(Gpa::new(value & !ENABLED), &system_time(clock, at), memory)?;
                }
                self.offs =
                    self.offs.wrapping_add(u32::from(self.system_time & !value & ENABLED != 0));
                self.system_time = value;
            }
            _ => return Err(FAULT),
        }
        Ok(())
    }

    /// Writes the page of the system time again, if there is one. To be called when the guest's
    /// counter is about to be moved.
    ///
    /// # Errors
    /// [`MsrError`]: the page is not resident.
    pub fn publish_again(
        &self,
        clock: &GuestClock,
        memory: &dyn GuestMemory,
        at: ClockMoment,
    ) -> Result<(), MsrError> {
        match self.system_time & ENABLED {
            0 => Ok(()),
            _ => publish(Gpa::new(self.system_time & !ENABLED), &system_time(clock, at), memory),
        }
    }
}

/// Writes `body` behind a version, which is odd during the write, and even and different
/// afterwards.
fn publish<const N: usize>(
    at: Gpa,
    body: &[u8; N],
    memory: &dyn GuestMemory,
) -> Result<(), MsrError> {
    let body_at = at.checked_add(4).ok_or(FAULT)?;
    let mut version = [0; 4];
    memory.read(at, &mut version).map_err(fault)?;
    let odd = u32::from_le_bytes(version) | 1;
    memory.write(at, &odd.to_le_bytes()).map_err(fault)?;
    memory.write(body_at, body).map_err(fault)?;
    memory.write(at, &odd.wrapping_add(1).to_le_bytes()).map_err(fault)
}

fn fault(access: GuestMemoryError) -> MsrError {
    match access {
        GuestMemoryError::NotRam(_) => FAULT,
        other => MsrError::Memory(other),
    }
}

/// Bytes 4 to 31 of the system time: pad, TSC, ns, multiplier, shift, flags, pad.
fn system_time(clock: &GuestClock, at: ClockMoment) -> [u8; 28] {
    let scale = KvmClockScale::of(clock.rate.hz());
    let mut body = [0; 28];
    body[4..12].copy_from_slice(&at.guest.to_le_bytes());
    body[12..20].copy_from_slice(&clock.uptime_ns(at.now).as_u64().to_le_bytes());
    body[20..24].copy_from_slice(&scale.multiplier.to_le_bytes());
    body[24] = scale.shift as u8;
    body[25] = FLAG_TSC_STABLE;
    body
}

/// Bytes 4 to 11 of the wall clock: seconds and nanoseconds at system time zero.
fn wall_clock(clock: &GuestClock) -> [u8; 8] {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&((clock.unix_ns_at_start / NS_PER_S) as u32).to_le_bytes());
    body[4..].copy_from_slice(&((clock.unix_ns_at_start % NS_PER_S) as u32).to_le_bytes());
    body
}

/// Nanoseconds = (ticks shifted by `shift`) * `multiplier` / 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct KvmClockScale {
    multiplier: u32,
    shift: i8,
}

impl KvmClockScale {
    /// Chooses the shift for which the multiplier uses all of its 32 bits.
    fn of(hz: u64) -> Self {
        // Nanoseconds a tick, with 64 fraction bits; its top set bit decides the shift.
        let ns = ((u128::from(NS_PER_S) << 64) / u128::from(hz)).max(1);
        let shift = 127 - ns.leading_zeros() as i32 - 63;
        let multiplier = if shift >= -32 { ns >> (32 + shift) } else { ns << (-32 - shift) };
        Self { multiplier: multiplier as u32, shift: shift as i8 }
    }

    #[cfg(test)]
    fn apply(self, ticks: u64) -> u128 {
        let shifted = if self.shift >= 0 {
            u128::from(ticks) << self.shift
        } else {
            u128::from(ticks >> -self.shift)
        };
        (shifted * u128::from(self.multiplier)) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::super::InjectedEvent;
    use super::*;
    use crate::partition::devices::clock::TscRate;
    use crate::partition::fake::FakeGuestMemory;
    use crate::time::Ticks;

    fn clock(hz: u64) -> GuestClock {
        GuestClock {
            rate: TscRate::new(hz),
            start: Ticks::new(1000),
            unix_ns_at_start: 1_798_761_599 * NS_PER_S + 5,
        }
    }

    fn at(now: Ticks) -> ClockMoment {
        ClockMoment { now, guest: now.as_u64() }
    }

    #[test]
    fn the_scale_is_exact_to_a_millionth_for_every_sensible_tsc() {
        for hz in [
            1_000_000,
            50_000_000,
            999_999_999,
            1_000_000_000,
            1_000_000_001,
            2_894_560_000,
            5_700_000_000,
        ] {
            let scale = KvmClockScale::of(hz);
            let ns = scale.apply(hz * 3);
            assert!(ns.abs_diff(3 * u128::from(NS_PER_S)) < 3000, "{hz}: {ns} {scale:?}");
            assert!(scale.multiplier >= 1 << 31, "{hz}");
        }
    }

    #[test]
    fn system_time_is_published_with_an_even_new_version() {
        let (mut kvm, memory) = (KvmClock::default(), FakeGuestMemory::new(0x2000));
        memory.poke(0x1000, &7u32.to_le_bytes());
        let now = Ticks::new(1000 + 2_000_000_000);
        assert_eq!(kvm.write(SYSTEM_TIME, 0x1001, &clock(2_000_000_000), &memory, at(now)), Ok(()));
        let page = memory.peek(0x1000, 32);
        assert_eq!(page[0..4], 8u32.to_le_bytes());
        assert_eq!(page[8..16], now.as_u64().to_le_bytes());
        assert_eq!(page[16..24], NS_PER_S.to_le_bytes());
        assert_eq!((page[28] as i8, page[29]), (0, 1));
        assert_eq!(kvm.read(SYSTEM_TIME), Some(0x1001));
    }

    #[test]
    fn the_wall_clock_is_the_time_of_the_start() {
        let (mut kvm, memory) = (KvmClock::default(), FakeGuestMemory::new(0x2000));
        assert_eq!(
            kvm.write(WALL_CLOCK, 0x10, &clock(1_000_000_000), &memory, at(Ticks::new(99_999))),
            Ok(())
        );
        let page = memory.peek(0x10, 12);
        assert_eq!((&page[..4], &page[8..]), (&2u32.to_le_bytes()[..], &5u32.to_le_bytes()[..]));
        assert_eq!(page[4..8], 1_798_761_599u32.to_le_bytes());
    }

    #[test]
    fn a_guest_that_was_stopped_finds_the_flag_beside_the_others() {
        let (mut kvm, memory) = (KvmClock::default(), FakeGuestMemory::new(0x2000));
        assert_eq!(
            (kvm.tell_stopped(&memory), memory.peek(29, 1)),
            (Ok(()), vec![0]),
            "it has no clock"
        );
        kvm.write(SYSTEM_TIME, 0x1001, &clock(1_000_000_000), &memory, at(Ticks::ZERO)).unwrap();
        let before = memory.peek(0x1000, 32);
        memory.evict(0x1000);
        assert_eq!(kvm.tell_stopped(&memory), Err(GuestMemoryError::NotResident(Gpa::new(0x1000))));
        memory.bring_in(0x1000);
        assert_eq!(kvm.tell_stopped(&memory), Ok(()));
        let mut after = memory.peek(0x1000, 32);
        assert_eq!(after[29], FLAG_TSC_STABLE | FLAG_GUEST_STOPPED);
        after[29] = before[29];
        assert_eq!(after, before, "nothing else");
    }

    #[test]
    fn switching_off_counts_and_nothing_else_does() {
        let (mut kvm, memory) = (KvmClock::default(), FakeGuestMemory::new(0x2000));
        let mut write = |value| {
            kvm.write(SYSTEM_TIME, value, &clock(1_000_000_000), &memory, at(Ticks::ZERO)).unwrap();
            kvm.offs()
        };
        assert_eq!(
            [0, 0x1001, 0x1001, 0, 0, 0x1001, 0x1000].map(&mut write),
            [0, 0, 0, 1, 1, 1, 2]
        );
    }

    #[test]
    fn an_absent_page_leaves_the_register_as_it_was() {
        let (mut kvm, memory) = (KvmClock::default(), FakeGuestMemory::new(0x2000));
        memory.evict(0x1000);
        let written =
            kvm.write(SYSTEM_TIME, 0x1001, &clock(1_000_000_000), &memory, at(Ticks::ZERO));
        assert!(matches!(written, Err(MsrError::Memory(GuestMemoryError::NotResident(_)))));
        assert_eq!(kvm.read(SYSTEM_TIME), Some(0));
    }

    #[test]
    fn addresses_without_ram_and_other_numbers_are_general_protection() {
        let (mut kvm, memory) = (KvmClock::default(), FakeGuestMemory::new(0x2000));
        for (msr, value) in
            [(SYSTEM_TIME, 0x10_0001), (WALL_CLOCK, u64::MAX), (0x4b56_4d02, 0), (0x1234, 0)]
        {
            let written = kvm.write(msr, value, &clock(1_000_000_000), &memory, at(Ticks::ZERO));
            assert_eq!(
                written,
                Err(MsrError::Exception(InjectedEvent::general_protection())),
                "{msr:#x}"
            );
        }
        assert_eq!(
            kvm.write(SYSTEM_TIME, 0x10_0000, &clock(1_000_000_000), &memory, at(Ticks::ZERO)),
            Ok(()),
            "switched off"
        );
    }
}
