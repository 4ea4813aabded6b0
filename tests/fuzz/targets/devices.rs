//! A guest at its devices and model-specific registers: any sequence of accesses, keys and time.
#![no_main]

use fuzz::{GuestRam, Input};
use kernel::addr::Gpa;
use kernel::config::{DeviceSwitch, GuestDevices};
use kernel::mm::layout::RamLayout;
use kernel::partition::cpuid::Vendor;
use kernel::partition::devices::Platform;
use kernel::partition::devices::clock::{GuestClock, TscRate};
use kernel::partition::devices::lapic::ApicMode;
use kernel::partition::devices::map::{
    ECAM_BASE, ERST_BASE, IOAPIC_BASE, LAPIC_BASE, PCI_WINDOW_BASE, port,
};
use kernel::partition::msr::{CpuMsrs, MsrWrite, Msrs};
use kernel::time::Ticks;
use kernel::virt::{AccessWidth, InjectedEvent};
use libfuzzer_sys::fuzz_target;

/// The registers that a CPU holds; all values are allowed.
#[derive(Default)]
struct AnyCpu([u64; 3]);

impl CpuMsrs for AnyCpu {
    fn efer(&self) -> u64 {
        self.0[0]
    }
    fn set_efer(&mut self, value: u64) -> Result<(), InjectedEvent> {
        self.0[0] = value;
        Ok(())
    }
    fn pat(&self) -> u64 {
        self.0[1]
    }
    fn set_pat(&mut self, value: u64) {
        self.0[1] = value;
    }
    fn set_tsc_offset(&mut self, offset: u64) {
        self.0[2] = offset;
    }
}

const WIDTHS: [AccessWidth; 4] =
    [AccessWidth::Byte, AccessWidth::Word, AccessWidth::Dword, AccessWidth::Qword];
/// Ports where devices begin.
const PORTS: [u16; 17] = [
    port::PIT,
    port::PORT_B,
    port::KEYBOARD_COMMAND,
    port::PORT_A,
    port::CMOS_INDEX,
    port::COM1,
    port::PVPANIC,
    port::FW_CFG,
    port::FW_CFG + 4,
    port::TEST_LOG,
    port::SLEEP_CONTROL,
    port::PM_TIMER,
    port::RESET_CONTROL,
    port::DEBUG_EXIT,
    port::PCI_ADDRESS,
    port::PCI_DATA,
    u16::MAX - 2,
];
/// Pages of devices; the BAR of the first device on the bus is at the window's second page once it
/// was placed there.
const BASES: [u64; 9] = [
    ERST_BASE,
    IOAPIC_BASE,
    LAPIC_BASE,
    ECAM_BASE,
    ECAM_BASE + 0x8000,
    PCI_WINDOW_BASE + 0x4000,
    PCI_WINDOW_BASE + 0x5000,
    PCI_WINDOW_BASE + 0x6000,
    PCI_WINDOW_BASE + 0x7000,
];
/// Registers where kinds of registers begin.
const MSRS: [u32; 12] =
    [0x10, 0x1b, 0x3b, 0xfe, 0x1a0, 0x200, 0x277, 0x6e0, 0x800, 0x830, 0x4b56_4d00, 0xc000_0080];

/// Places the BAR of the first device, and switches it on.
fn place_bar(platform: &mut Platform) {
    let memory = GuestRam::new(&[]);
    let place = PCI_WINDOW_BASE + 0x4000;
    for (at, width, value) in [(0x10, AccessWidth::Dword, place), (4, AccessWidth::Word, 6)] {
        let gpa = Gpa::new(ECAM_BASE + 0x8000 + at);
        let _ = platform.mmio_write(gpa, width, value, Ticks::ZERO, &memory);
    }
}

/// Lets the devices work on the memory.
fn work(platform: &mut Platform, memory: &GuestRam) {
    for device in platform.bus_devices() {
        let _ = device.serve(device.epoch(), memory, &mut || Some(0x5a));
    }
    platform.deliver_bus();
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input::new(bytes);
    let rate = TscRate::new(u64::from(input.u32()) + 1_000_000);
    let unix_ns_at_start = input.u64();
    let clock = GuestClock { rate, start: Ticks::ZERO, unix_ns_at_start };
    let mode = input.one_of(&[ApicMode::XApic, ApicMode::X2Apic]);
    let layout = RamLayout::new(fuzz::RAM_BYTES as u64).expect("whole pages");
    let mut platform = Platform::new(clock, &layout, mode);
    platform.plug(GuestDevices { rng: DeviceSwitch::On });
    let mut msrs = Msrs::new(input.one_of(&[Vendor::Amd, Vendor::Intel]), 40);
    let (mut cpu, mut now) = (AnyCpu::default(), 0_u64);
    let mut memory = GuestRam::new(&[]);
    while !input.is_empty() {
        let (step, width) = (input.u8(), input.one_of(&WIDTHS));
        let narrow = if width == AccessWidth::Qword { AccessWidth::Dword } else { width };
        let place = u64::from(input.u16() & 0xfff);
        let mut port = || input.one_of(&PORTS).wrapping_add((place & 7) as u16);
        match step % 10 {
            0 => _ = platform.pio_read(port(), narrow, || Ticks::new(now)),
            1 => {
                let (port, value) = (port(), input.u32());
                let _ = platform.pio_write(port, narrow, value, &memory, &|| Ticks::new(now));
            }
            n @ (2 | 3) => {
                let base = input.one_of(&BASES);
                let gpa = Gpa::new(base + place);
                if n == 2 {
                    platform.mmio_read(gpa, width, Ticks::new(now));
                } else {
                    let _ = platform.mmio_write(gpa, width, input.u64(), Ticks::new(now), &memory);
                }
            }
            n @ (4 | 5) => {
                let msr = input.one_of(&MSRS) + (place as u32 & 0x3f);
                let value = input.u64();
                if n == 4 {
                    let _ = msrs.read(msr, &cpu, &platform, Ticks::new(now));
                } else {
                    let write = MsrWrite { msr, value };
                    let now = Ticks::new(now);
                    let _ = msrs.write(write, &mut cpu, &mut platform, &memory, now);
                }
            }
            6 => {
                now = now.saturating_add(input.u64() >> (place & 63));
                platform.advance(Ticks::new(now));
                let next = platform.next_deadline();
                let now = Ticks::new(now);
                assert!(next.is_none_or(|next| next > now || now == Ticks::MAX), "{next:?}");
            }
            7 => platform.console_input(input.bytes(usize::from(place as u8 & 31))),
            8 => {
                let mut out = [0; 64];
                platform.console_output().take(&mut out);
                platform.console_taken();
            }
            _ => memory.absent = input.u16(),
        }
        if step & 0x40 != 0 {
            place_bar(&mut platform);
            work(&mut platform, &memory);
        }
        if let Some(vector) = platform.interrupt().filter(|_| step >= 0x80) {
            platform.acknowledge(vector);
            assert_ne!(platform.interrupt(), Some(vector), "it is in service now");
        }
        platform.can_interrupt();
    }
    let text = platform.panic_text();
    assert!(text.is_none_or(|text| text.bytes().all(|b| (b' '..=b'~').contains(&b))));
});
