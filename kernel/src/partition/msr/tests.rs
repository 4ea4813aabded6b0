use super::*;
use crate::mm::layout::RamLayout;
use crate::partition::devices::clock::{GuestClock, TscRate};
use crate::partition::devices::lapic::ApicMode;
use crate::partition::fake::FakeGuestMemory;
use crate::time::Ticks;

struct Cpu {
    efer: u64,
    pat: u64,
    tsc_offset: u64,
}

impl CpuMsrs for Cpu {
    fn efer(&self) -> u64 {
        self.efer
    }
    fn set_efer(&mut self, value: u64) -> Result<(), InjectedEvent> {
        if value & 2 != 0 {
            return Err(InjectedEvent::general_protection());
        }
        self.efer = value;
        Ok(())
    }
    fn pat(&self) -> u64 {
        self.pat
    }
    fn set_pat(&mut self, value: u64) {
        self.pat = value;
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset = offset;
    }
}

struct MsrBed {
    msrs: Msrs,
    cpu: Cpu,
    platform: Platform,
    memory: FakeGuestMemory,
}

impl MsrBed {
    fn new() -> Self {
        let clock = GuestClock {
            rate: TscRate::new(1_000_000_000),
            start: Ticks::ZERO,
            unix_ns_at_start: 0,
        };
        let platform = Platform::new(clock, &RamLayout::new(1 << 20).unwrap(), ApicMode::X2Apic);
        Self {
            msrs: Msrs::new(Vendor::Amd, 40),
            cpu: Cpu { efer: 0x500, pat: 0, tsc_offset: 0 },
            platform,
            memory: FakeGuestMemory::new(0x1000),
        }
    }
    fn read(&self, msr: u32) -> Result<u64, MsrError> {
        self.msrs.read(msr, &self.cpu, &self.platform, Ticks::new(77))
    }
    fn write(&mut self, msr: u32, value: u64) -> Result<(), MsrError> {
        let write = MsrWrite { msr, value };
        self.msrs.write(write, &mut self.cpu, &mut self.platform, &self.memory, Ticks::new(77))
    }
}

#[test]
fn registers_of_the_cpu_go_through_its_checks() {
    let mut bed = MsrBed::new();
    assert_eq!(
        (bed.read(EFER), bed.write(EFER, 0xd01), bed.read(EFER)),
        (Ok(0x500), Ok(()), Ok(0xd01))
    );
    assert_eq!(bed.write(EFER, 2), Err(FAULT));
    assert_eq!(
        (bed.write(PAT, 0x0007_0406_0007_0406), bed.read(PAT)),
        (Ok(()), Ok(0x0007_0406_0007_0406))
    );
    for bad in [0x02, 0x03, 0x08, 0x0300_0000_0000_0000] {
        assert_eq!(bed.write(PAT, bad), Err(FAULT), "{bad:#x}");
    }
}

#[test]
fn the_local_apic_is_reached_by_number() {
    let mut bed = MsrBed::new();
    assert_eq!(bed.read(APIC_BASE), Ok(0xfee0_0d00));
    assert_eq!(bed.write(0x80f, 0x1ff), Ok(()));
    assert_eq!(bed.write(0x832, 2 << 17 | 0xec), Ok(()));
    assert_eq!(bed.write(TSC_DEADLINE, 4711), Ok(()));
    assert_eq!(
        (bed.read(TSC_DEADLINE), bed.platform.next_deadline()),
        (Ok(4711), Some(Ticks::new(4711)))
    );
    assert_eq!(bed.read(0x831), Err(FAULT));
    assert_eq!(bed.read(0x900), Err(FAULT));
}

#[test]
fn memory_types_are_on_and_read_back() {
    let mut bed = MsrBed::new();
    assert_eq!((bed.read(MTRR_CAP), bed.read(MTRR_DEF_TYPE)), (Ok(0x508), Ok(0xc06)));
    assert_eq!((bed.write(0x20f, 0x800), bed.read(0x20f)), (Ok(()), Ok(0x800)));
    assert_eq!(bed.read(0x26f), Ok(0x0606_0606_0606_0606));
    assert_eq!(bed.write(MTRR_CAP, 0), Err(FAULT));
    assert_eq!(bed.write(MTRR_DEF_TYPE, 1 << 63), Err(FAULT));
    assert_eq!(bed.read(0x210), Err(FAULT));
}

#[test]
fn unknown_registers_fault_both_ways() {
    let mut bed = MsrBed::new();
    for msr in [
        0x0,
        0x3a,
        0x48,
        0xce,
        0xe7,
        0x10a,
        0x17b,
        0x186,
        0x480,
        0xda0,
        0xc000_0103,
        0xc001_0200,
        u32::MAX,
    ] {
        assert_eq!((bed.read(msr), bed.write(msr, 0)), (Err(FAULT), Err(FAULT)), "{msr:#x}");
    }
}

#[test]
fn there_are_no_machine_check_banks_and_time_is_the_tsc() {
    let bed = MsrBed::new();
    assert_eq!((bed.read(0x179), bed.read(TSC)), (Ok(0), Ok(77)));
}

#[test]
fn a_moved_counter_takes_deadline_and_clock_along() {
    let mut bed = MsrBed::new();
    assert_eq!(bed.write(0x80f, 0x1ff), Ok(()));
    assert_eq!(bed.write(0x832, 2 << 17 | 0xec), Ok(()));
    assert_eq!(bed.write(kvmclock::SYSTEM_TIME, 0x101), Ok(()));
    assert_eq!(bed.write(TSC, 1_000_000), Ok(()));
    assert_eq!(
        (bed.read(TSC), bed.cpu.tsc_offset, bed.read(TSC_ADJUST)),
        (Ok(1_000_000), 999_923, Ok(999_923))
    );
    assert_eq!(
        bed.memory.peek(0x108, 8),
        1_000_000_u64.to_le_bytes(),
        "the clock's page has the guest's counter"
    );
    assert_eq!(bed.memory.peek(0x110, 8), 77_u64.to_le_bytes(), "and the time as before");
    assert_eq!(bed.write(TSC_DEADLINE, 1_000_100), Ok(()));
    assert_eq!(
        (bed.platform.next_deadline(), bed.read(TSC_DEADLINE)),
        (Some(Ticks::new(177)), Ok(1_000_100))
    );
    assert_eq!(bed.write(TSC_ADJUST, 999_923 + 60), Ok(()));
    assert_eq!(
        (bed.platform.next_deadline(), bed.read(TSC_DEADLINE)),
        (Some(Ticks::new(117)), Ok(1_000_100))
    );
    bed.memory.evict(0);
    assert!(matches!(bed.write(TSC, 5), Err(MsrError::Memory(_))));
    assert_eq!(bed.read(TSC), Ok(1_000_060), "nothing has changed");
}

#[test]
fn the_apic_moves_where_nothing_is() {
    let mut bed = MsrBed::new();
    assert_eq!(bed.write(APIC_BASE, 0xfed4_0d00), Ok(()));
    assert_eq!(bed.read(APIC_BASE), Ok(0xfed4_0d00));
    for (what, base) in [
        ("RAM", 0),
        ("the I/O APIC", 0xfec0_0000),
        ("ERST", 0xfeb0_0000),
        ("beyond 40 bits", 1 << 40),
    ] {
        assert_eq!(bed.write(APIC_BASE, base | 0xd00), Err(FAULT), "{what}");
    }
    assert_eq!(bed.read(APIC_BASE), Ok(0xfed4_0d00));
}

#[test]
fn misc_enable_keeps_what_is_written_but_for_what_is_not_there() {
    let mut bed = MsrBed::new();
    assert_eq!(bed.read(MISC_ENABLE), Ok(0x1801));
    assert_eq!(
        (bed.write(MISC_ENABLE, 0x4_00c5_0089), bed.read(MISC_ENABLE)),
        (Ok(()), Ok(0x4_00c5_1889))
    );
}

#[test]
fn no_register_and_no_value_panics_us() {
    let mut bed = MsrBed::new();
    for base in [0, 0x4b56_4d00, 0xc000_0000, 0xc001_0000, 0xc001_1000] {
        for msr in base..base + 0x1000 {
            for value in [0, u64::MAX, 0x5a5a_0001, 1 << 63] {
                let _ = bed.write(msr, value);
                let _ = bed.read(msr);
            }
        }
    }
}
