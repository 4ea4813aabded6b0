//! The bus through ports, ECAM and BARs of a whole platform.

use super::*;
use crate::config::{DeviceSwitch, GuestDevices};
use crate::dump::state_note::StateWriter;
use crate::mm::layout::RamLayout;
use crate::partition::devices::clock::{GuestClock, TscRate};
use crate::partition::devices::lapic::ApicMode;
use crate::partition::devices::map::{LAPIC_BASE, PCI_WINDOW_BASE, port};
use crate::partition::devices::state::ResumeMoment;
use crate::partition::devices::virtio::layout;
use crate::partition::devices::virtio::registers::field;
use crate::partition::devices::{DeviceEffect, Platform};
use crate::partition::fake::FakeGuestMemory;
use crate::virt::AccessWidth::{Byte, Dword, Qword, Word};

const NOW: Ticks = Ticks::ZERO;
const DEVICES: GuestDevices = GuestDevices { rng: DeviceSwitch::On };
/// Configuration space of the first device, in ECAM.
const DEVICE: u64 = ECAM_BASE + 0x8000;
const BAR: u64 = PCI_WINDOW_BASE + 0x10_0000;

fn layout() -> RamLayout {
    RamLayout::new(64 << 20).unwrap()
}

struct Board(Platform, FakeGuestMemory);

impl Board {
    fn new() -> Self {
        let rate = TscRate::new(1_000_000_000);
        let clock = GuestClock { rate, start: Ticks::ZERO, unix_ns_at_start: 0 };
        let mut platform = Platform::new(clock, &layout(), ApicMode::XApic);
        platform.plug(DEVICES);
        let mut board = Self(platform, FakeGuestMemory::new(0x1_0000));
        assert_eq!(board.write(LAPIC_BASE + 0xf0, Dword, 0x1ff), DeviceEffect::None);
        board
    }
    fn read(&mut self, at: u64, width: AccessWidth) -> u64 {
        self.0.mmio_read(crate::addr::Gpa::new(at), width, NOW)
    }
    fn write(&mut self, at: u64, width: AccessWidth, value: u64) -> DeviceEffect {
        self.0.mmio_write(crate::addr::Gpa::new(at), width, value, NOW, &self.1).unwrap()
    }
    fn input(&mut self, port: u16, width: AccessWidth) -> u32 {
        self.0.pio_read(port, width, || NOW)
    }
    fn output(&mut self, port: u16, width: AccessWidth, value: u32) -> DeviceEffect {
        self.0.pio_write(port, width, value, &self.1, &|| NOW).unwrap()
    }
    /// Places the BAR, and opens vector 1 of MSI-X as vector 0x51.
    fn open(&mut self) {
        let _ = self.write(DEVICE + 0x10, Dword, BAR);
        let _ = self.write(DEVICE + 4, Word, 6);
        let table = BAR + u64::from(layout::TABLE) + 16;
        let _ = self.write(table, Dword, 0xfee0_0000);
        let _ = self.write(table + 8, Dword, 0x51);
        let _ = self.write(table + 12, Dword, 0);
        let msix = self.capability(0x11);
        let _ = self.write(msix + 2, Word, 0x8000);
    }
    /// Returns the address of a capability: by its identifier, and for virtio its kind.
    fn capability(&mut self, wanted: u64) -> u64 {
        let mut at = self.read(DEVICE + 0x34, Byte);
        while at != 0 {
            let (id, kind) = (self.read(DEVICE + at, Byte), self.read(DEVICE + at + 3, Byte));
            if id == wanted || id == 9 && 0x900 + kind == wanted {
                return DEVICE + at;
            }
            at = self.read(DEVICE + at + 1, Byte);
        }
        panic!("no capability {wanted:#x}")
    }
}

#[test]
fn a_kernel_finds_the_bus_by_its_ports() {
    let mut board = Board::new();
    // As Linux does: a byte beside the register, then the enable bit alone.
    assert_eq!(board.output(0xcfb, Byte, 1), DeviceEffect::None);
    let _ = board.output(port::PCI_ADDRESS, Dword, 0x8000_0000);
    assert_eq!(board.input(port::PCI_ADDRESS, Dword), 0x8000_0000);
    assert_eq!(board.input(port::PCI_DATA + 2, Word), 0x0008);
    let _ = board.output(port::PCI_ADDRESS, Dword, 0x8000_0008);
    assert_eq!(board.input(port::PCI_DATA, Dword), 0x0600_0000, "a host bridge");
    let _ = board.output(port::PCI_ADDRESS, Dword, 0x8000_0800);
    assert_eq!(board.input(port::PCI_DATA, Dword), 0x1044_1af4);
    // Other slots, functions and buses, and all of it while the enable bit is clear.
    for address in [0x8000_1000, 0x8000_0900, 0x8001_0000, 0x0000_0800] {
        let _ = board.output(port::PCI_ADDRESS, Dword, address);
        assert_eq!(board.input(port::PCI_DATA, Dword), u32::MAX, "{address:#x}");
        assert_eq!(board.output(port::PCI_DATA, Dword, 0), DeviceEffect::None);
    }
    assert_eq!(board.output(0xcf9, Byte, 6), DeviceEffect::Reset, "still the reset register");
}

#[test]
fn ports_and_ecam_show_the_same_space() {
    let mut board = Board::new();
    for slot in 0..3_u64 {
        for at in 0..64 {
            let address = 0x8000_0000 | (slot as u32) << 11 | (at * 4);
            let _ = board.output(port::PCI_ADDRESS, Dword, address);
            let by_port = u64::from(board.input(port::PCI_DATA, Dword));
            let by_memory = board.read(ECAM_BASE + (slot << 15) + u64::from(at) * 4, Dword);
            assert_eq!(by_port, by_memory, "{slot} {at}");
        }
    }
    assert_eq!(board.read(DEVICE + 0x100, Dword), 0, "no extended capability");
    assert_eq!(board.read(DEVICE + 0x1000, Qword), u64::MAX, "no other function");
    assert_eq!(board.read(ECAM_BASE + 0xf_8000, Word), 0xffff, "no other slot");
    assert_eq!(board.read(DEVICE + 0x3d, Byte), 0, "no interrupt pin");
    assert_eq!(board.read(ECAM_BASE + ECAM_BYTES, Dword), 0xffff_ffff);
}

#[test]
fn every_structure_of_virtio_is_told_and_lies_in_the_bar() {
    let mut board = Board::new();
    for kind in [1, 2, 3, 5] {
        let at = board.capability(0x900 + kind);
        let (offset, bytes) = (board.read(at + 8, Dword), board.read(at + 12, Dword));
        assert!(offset + bytes <= u64::from(layout::BAR_BYTES));
        assert_eq!(board.read(at + 4, Byte), 0, "BAR 0");
    }
    let msix = board.capability(0x11);
    assert_eq!(board.read(msix + 2, Word), 1, "two vectors");
}

#[test]
fn the_bar_answers_where_it_was_placed_and_nowhere_else() {
    let mut board = Board::new();
    assert_eq!(board.read(BAR + u64::from(field::RING_COUNT), Word), 0xffff);
    board.open();
    assert_eq!(board.read(BAR + u64::from(field::RING_COUNT), Word), 1);
    assert_eq!(board.read(BAR + u64::from(layout::BAR_BYTES), Word), 0xffff);
    // The local APIC and the I/O APIC keep their pages.
    let _ = board.write(DEVICE + 0x10, Dword, LAPIC_BASE & !0x3fff);
    assert_eq!(board.read(LAPIC_BASE + 0xf0, Dword), 0x1ff);
}

#[test]
fn the_window_of_the_configuration_space_reaches_the_bar() {
    let mut board = Board::new();
    let window = board.capability(0x905);
    let reach = |board: &mut Board, offset: u64, length: u64| {
        let _ = board.write(window + 8, Dword, offset);
        let _ = board.write(window + 12, Dword, length);
    };
    reach(&mut board, field::RING_COUNT.into(), 2);
    assert_eq!(board.read(window + 16, Dword), 1);
    reach(&mut board, field::CONFIG_VECTOR.into(), 2);
    let _ = board.write(window + 16, Word, 1);
    assert_eq!(board.read(window + 16, Word), 1);
    reach(&mut board, layout::NOTIFY.into(), 2);
    assert_eq!(board.write(window + 16, Word, 0), DeviceEffect::BusWork);
    let far = u64::from(layout::BAR_BYTES);
    for (offset, length) in [(far, 4), (0x1_0000, 1), (1, 2), (0, 3), (0, 8), (0, 0)] {
        reach(&mut board, offset, length);
        assert_eq!(board.read(window + 16, Dword), 0, "{offset:#x} {length}");
        assert_eq!(board.write(window + 16, Dword, 1), DeviceEffect::None);
    }
}

#[test]
fn a_signalled_vector_reaches_the_local_apic_once_the_masks_are_open() {
    let mut board = Board::new();
    board.open();
    let signal = |board: &mut Board| {
        let device = board.0.bus_devices().next().unwrap().clone();
        device.raise(1);
        board.0.deliver_bus();
    };
    signal(&mut board);
    assert_eq!(board.0.interrupt(), Some(0x51));
    board.0.acknowledge(0x51);
    let _ = board.write(LAPIC_BASE + 0xb0, Dword, 0);
    let msix = board.capability(0x11);
    let _ = board.write(msix + 2, Word, 0xc000);
    signal(&mut board);
    assert_eq!(board.0.interrupt(), None);
    assert_eq!(board.read(BAR + u64::from(layout::PENDING), Dword), 2);
    let _ = board.write(msix + 2, Word, 0x8000);
    assert_eq!(board.0.interrupt(), Some(0x51));
    board.0.acknowledge(0x51);
    // A function that may not access memory sends no message.
    let _ = board.write(DEVICE + 4, Word, 2);
    signal(&mut board);
    assert_eq!(board.0.interrupt(), None);
}

#[test]
fn a_restart_finds_the_bus_as_after_power_on() {
    let mut board = Board::new();
    board.open();
    let _ = board.write(BAR + u64::from(field::CONFIG_VECTOR), Word, 1);
    let fresh = saved(&Board::new().0);
    assert_ne!(saved(&board.0), fresh);
    let clock = *board.0.clock();
    board.0.restart(clock, ApicMode::XApic);
    let _ = board.write(LAPIC_BASE + 0xf0, Dword, 0x1ff);
    assert_eq!(saved(&board.0), fresh);
}

fn saved(platform: &Platform) -> Vec<u8> {
    let mut out = StateWriter::default();
    platform.save(&mut out, NOW);
    out.finish().unwrap()
}

#[test]
fn the_bus_goes_on_where_it_was_and_only_with_the_same_devices() {
    let mut board = Board::new();
    board.open();
    let _ = board.write(BAR + u64::from(field::CONFIG_VECTOR), Word, 1);
    let _ = board.output(port::PCI_ADDRESS, Dword, 0x8000_0810);
    let notes = saved(&board.0);
    let descriptor = &notes[24..];
    let at = ResumeMoment { now: NOW, rate: TscRate::new(1_000_000_000), unix_ns: 0 };
    let restored = |devices| Platform::restored(descriptor, &layout(), devices, at);
    let mut again = Board(restored(DEVICES).unwrap().0, FakeGuestMemory::new(0x1000));
    assert_eq!(saved(&again.0), notes);
    assert_eq!(again.input(port::PCI_DATA, Dword), BAR as u32);
    assert_eq!(again.read(BAR + u64::from(field::CONFIG_VECTOR), Word), 1);
    let without = restored(GuestDevices::default()).unwrap_err();
    assert_eq!(without, StateError::Devices);
    let clock = *board.0.clock();
    let bare = saved(&Platform::new(clock, &layout(), ApicMode::XApic));
    let missing = Platform::restored(&bare[24..], &layout(), DEVICES, at).unwrap_err();
    assert_eq!(missing, StateError::Missing("PCI bus"));
}
