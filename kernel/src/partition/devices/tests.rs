use super::clock::TscRate;
use super::map::*;
use super::*;
use crate::addr::Gpa;
use crate::partition::fake::FakeGuestMemory;
use crate::time::Ticks;
use crate::virt::AccessWidth;

const NOW: Ticks = Ticks::ZERO;

fn platform() -> (Platform, FakeGuestMemory) {
    let clock =
        GuestClock { rate: TscRate::new(1_000_000_000), start: Ticks::ZERO, unix_ns_at_start: 0 };
    let layout = RamLayout::new(64 << 20).unwrap();
    (Platform::new(clock, &layout, ApicMode::XApic), FakeGuestMemory::new(0x1_0000))
}

fn mmio(p: &mut Platform, m: &FakeGuestMemory, gpa: u64, value: u32) {
    assert_eq!(
        p.mmio_write(Gpa::new(gpa), AccessWidth::Dword, value.into(), NOW, m),
        Ok(DeviceEffect::None)
    );
}

#[test]
fn nobodys_ports_and_memory_read_all_ones_and_swallow_writes() {
    let (mut p, m) = platform();
    for port in [0x20, 0xa0, 0xcf8, 0xcfc, 0x2f8, 0x1234, 0xffff] {
        assert_eq!(p.pio_read(port, AccessWidth::Dword, || NOW), u32::MAX, "{port:#x}");
        assert_eq!(
            p.pio_write(port, AccessWidth::Dword, 0, &m, &|| Ticks::ZERO),
            Ok(DeviceEffect::None)
        );
    }
    assert_eq!(p.mmio_read(Gpa::new(0xfed0_0000), AccessWidth::Qword, NOW), u64::MAX);
    assert_eq!(
        p.mmio_write(Gpa::new(0xc000_0000), AccessWidth::Byte, 1, NOW, &m),
        Ok(DeviceEffect::None)
    );
}

#[test]
fn a_typed_key_becomes_an_interrupt_through_both_apics() {
    let (mut p, m) = platform();
    mmio(&mut p, &m, LAPIC_BASE + 0xf0, 0x1ff);
    mmio(&mut p, &m, IOAPIC_BASE, 0x10 + 2 * u32::from(COM1_PIN));
    mmio(&mut p, &m, IOAPIC_BASE + 0x10, 0x31);
    assert_eq!(
        p.pio_write(port::COM1 + 1, AccessWidth::Byte, 1, &m, &|| Ticks::ZERO),
        Ok(DeviceEffect::None)
    );
    p.console_input(b"y");
    assert_eq!(p.interrupt(), Some(0x31));
    p.acknowledge(0x31);
    assert_eq!(p.interrupt(), None);
    assert_eq!(p.pio_read(port::COM1, AccessWidth::Byte, || NOW), u32::from(b'y'));
    mmio(&mut p, &m, LAPIC_BASE + 0xb0, 0);
    p.console_input(b"z");
    assert_eq!(p.interrupt(), Some(0x31));
}

/// Writes an entry of the I/O APIC: its lower half.
fn route_button(p: &mut Platform, m: &FakeGuestMemory, low: u32) {
    mmio(p, m, IOAPIC_BASE, 0x10 + 2 * u32::from(POWER_BUTTON_PIN));
    mmio(p, m, IOAPIC_BASE + 0x10, low);
}

#[test]
fn each_press_of_the_power_button_is_one_interrupt() {
    let (mut p, m) = platform();
    mmio(&mut p, &m, LAPIC_BASE + 0xf0, 0x1ff);
    assert!(!p.can_interrupt());
    route_button(&mut p, &m, 0x31);
    assert!(p.can_interrupt(), "a halted guest may wait for the button");
    for _ in 0..2 {
        assert_eq!(p.interrupt(), None);
        p.press_power_button();
        assert_eq!(p.interrupt(), Some(0x31));
        p.acknowledge(0x31);
        mmio(&mut p, &m, LAPIC_BASE + 0xb0, 0);
    }
}

#[test]
fn a_press_at_a_masked_input_waits_until_it_is_opened() {
    const MASKED: u32 = 1 << 16;
    let (mut p, m) = platform();
    mmio(&mut p, &m, LAPIC_BASE + 0xf0, 0x1ff);
    p.press_power_button();
    p.press_power_button();
    route_button(&mut p, &m, 0x31 | MASKED);
    assert_eq!((p.interrupt(), p.can_interrupt()), (None, false));
    route_button(&mut p, &m, 0x31);
    assert_eq!(p.interrupt(), Some(0x31));
    p.acknowledge(0x31);
    mmio(&mut p, &m, LAPIC_BASE + 0xb0, 0);
    route_button(&mut p, &m, 0x31);
    assert_eq!(p.interrupt(), None, "two presses that nothing has seen are one");
    route_button(&mut p, &m, 0x31 | MASKED);
    p.press_power_button();
    p.restart(*p.clock(), ApicMode::XApic);
    mmio(&mut p, &m, LAPIC_BASE + 0xf0, 0x1ff);
    route_button(&mut p, &m, 0x31);
    assert_eq!(p.interrupt(), None, "a press is for one incarnation");
}

#[test]
fn console_output_is_told_and_taken() {
    let (mut p, m) = platform();
    assert_eq!(
        p.pio_write(port::COM1, AccessWidth::Byte, b'A'.into(), &m, &|| Ticks::ZERO),
        Ok(DeviceEffect::Console)
    );
    let mut buf = [0; 4];
    assert_eq!((p.console_output().take(&mut buf), buf[0]), (1, b'A'));
}

#[test]
fn pvpanic_and_the_test_ports_have_their_effects() {
    let (mut p, m) = platform();
    for (port, value, effect) in [
        (port::PVPANIC, 1, DeviceEffect::Panicked(PanicKind::Panicked)),
        (port::PVPANIC, 2, DeviceEffect::Panicked(PanicKind::CrashKernel)),
        (port::PVPANIC, 4, DeviceEffect::Panicked(PanicKind::Shutdown)),
        (port::PVPANIC, 0, DeviceEffect::None),
        (port::TEST_PASS, 0, DeviceEffect::TestPassed),
        (port::TEST_LOG, u32::from(b'\n'), DeviceEffect::TestLine),
        (port::RESET_CONTROL, 6, DeviceEffect::Reset),
    ] {
        assert_eq!(
            p.pio_write(port, AccessWidth::Byte, value, &m, &|| Ticks::ZERO),
            Ok(effect),
            "{port:#x}"
        );
    }
    assert_eq!(
        p.pio_write(port::TEST_FAIL, AccessWidth::Dword, 0x1234_5678, &m, &|| Ticks::ZERO),
        Ok(DeviceEffect::TestFailed(0x1234_5678))
    );
    assert_eq!(
        p.pio_write(port::DEBUG_EXIT, AccessWidth::Dword, 0x10, &m, &|| Ticks::ZERO),
        Ok(DeviceEffect::ExitCode(0x10))
    );
    assert_eq!(p.pio_read(port::PVPANIC, AccessWidth::Byte, || NOW), 3);
}

#[test]
fn a_pci_probe_does_not_reset_the_machine() {
    let (mut p, m) = platform();
    assert_eq!(
        p.pio_write(0xcf8, AccessWidth::Dword, 0x8000_0600, &m, &|| Ticks::ZERO),
        Ok(DeviceEffect::None)
    );
    assert_eq!(p.pio_read(0xcf8, AccessWidth::Dword, || NOW), u32::MAX);
}

#[test]
fn a_wide_access_to_byte_devices_is_several_accesses() {
    let (mut p, m) = platform();
    assert_eq!(
        p.pio_write(port::CMOS_INDEX, AccessWidth::Word, 0x5a7f, &m, &|| Ticks::ZERO),
        Ok(DeviceEffect::None)
    );
    assert_eq!(p.pio_read(port::CMOS_DATA, AccessWidth::Byte, || NOW), 0x5a);
    assert_eq!(p.pio_read(port::CMOS_DATA, AccessWidth::Word, || NOW), 0xff5a);
}

#[test]
fn erst_registers_can_be_reached_in_halves() {
    let (mut p, m) = platform();
    let at = |offset| Gpa::new(ERST_BASE + offset);
    for (offset, value) in [(0x10, 0x5566_7788), (0x14, 0x1122_3344)] {
        assert_eq!(
            p.mmio_write(at(offset), AccessWidth::Dword, value, NOW, &m),
            Ok(DeviceEffect::None)
        );
    }
    assert_eq!(p.mmio_read(at(0x10), AccessWidth::Qword, NOW), 0x1122_3344_5566_7788);
    assert_eq!(p.mmio_read(at(0x38), AccessWidth::Qword, NOW), (64 << 20) - 8192);
}

#[test]
fn a_restart_forgets_interrupts_and_keeps_output() {
    let (mut p, m) = platform();
    mmio(&mut p, &m, LAPIC_BASE + 0xf0, 0x1ff);
    assert_eq!(
        p.pio_write(port::COM1, AccessWidth::Byte, b'A'.into(), &m, &|| Ticks::ZERO),
        Ok(DeviceEffect::Console)
    );
    p.raise_nmi();
    p.restart(*p.clock(), ApicMode::X2Apic);
    assert_eq!(
        (p.lapic().nmi_pending(), p.lapic().mode(), p.interrupt()),
        (false, ApicMode::X2Apic, None)
    );
    assert_eq!(p.console_output().pop(), Some(b'A'));
}

#[test]
fn a_guest_that_writes_everything_everywhere_does_not_panic_us() {
    let (mut p, m) = platform();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    for step in 0..200_000u64 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let width = [AccessWidth::Byte, AccessWidth::Word, AccessWidth::Dword, AccessWidth::Qword]
            [(x >> 62) as usize];
        let (port, value, now) = ((x >> 20) as u16 & 0xfff, x >> 13, Ticks::new(step * 1000));
        let page = [LAPIC_BASE, IOAPIC_BASE, ERST_BASE, HOLE][(x >> 60) as usize & 3];
        let gpa = Gpa::new(page + ((x >> 40) & 0xfff));
        let _ = p.pio_write(port, width, value as u32, &m, &|| Ticks::ZERO);
        let _ = p.pio_read(port, width, || now);
        let _ = p.mmio_write(gpa, width, value, now, &m);
        let _ = p.mmio_read(gpa, width, now);
        p.advance(now);
        if let Some(vector) = p.interrupt() {
            p.acknowledge(vector);
        }
    }
}

const HOLE: u64 = crate::mm::layout::HOLE_BASE;
