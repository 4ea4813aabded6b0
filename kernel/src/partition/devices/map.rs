//! The addresses of a partition's devices: the one definition shared by the devices, the ACPI
//! tables and the loaders.
//!
//! ```text
//!  guest physical                              ports
//!                                              0x040-0x043  interval timer
//!  0x0000_0000  RAM                            0x061        port B (NMI status, speaker)
//!  0x0009_fc00  reserved for firmware          0x064        keyboard controller: only its reset pulse
//!  0x000e_0000  ACPI tables                    0x070-0x071  CMOS and RTC
//!  0x000f_f000  MP tables
//!  0x000f_fe00  generation ID
//!  0x000f_fff0  firmware's entry: a reset      0x092        port A: only its reset bit
//!  0x0010_0000  RAM                            0x0f4        debug exit (test kernels)
//!  low end-8K   ERST exchange buffer           0x3f8-0x3ff  COM1, IRQ 4
//!  0xc000_0000  device hole:                   0x505        pvpanic
//!    0xc000_0000  window of the PCI bus        0x510-0x51b  fw_cfg
//!    0xe000_0000  ECAM of the PCI bus          0x5e0-0x5e3  test port
//!    0xfeb0_0000  ERST registers               0x600-0x602  sleep control, sleep status, reset
//!    0xfec0_0000  IOAPIC                       0x608-0x60b  power management timer
//!    0xfee0_0000  local APIC                   0xcf8, 0xcfc PCI configuration
//!  0x1_0000_0000  RAM                          0xcf9        reset control
//! ```
//!
//! Addresses and ports without a device read all ones and ignore writes, as on a PC.

use crate::addr::{Gpa, PAGE_SIZE};
use crate::config::{DeviceSwitch, GuestDevices};
use crate::mm::layout::{HOLE_BASE, RamLayout};

/// First byte that belongs to firmware below 1 MiB.
pub const FIRMWARE_BASE: u64 = 0x9_fc00;
/// First byte of the ACPI tables, and of the search area for the RSDP.
pub const ACPI_BASE: u64 = 0xe_0000;
/// The MultiProcessor Specification's tables, by which kernels without ACPI find the APICs: in the
/// page of the entry below.
pub const MP_BASE: u64 = 0xf_f000;
/// The virtual machine generation ID, 16 bytes, in the same page.
pub const GENERATION_ID: u64 = 0xf_fe00;
/// The reset entry, F000:FFF0 or FFFF:0000. To restart a PC, real-mode code jumps to it; the
/// firmware there resets the machine.
pub const RESET_ENTRY: u64 = 0xf_fff0;
/// End of the first MiB.
pub const FIRST_MIB: u64 = 0x10_0000;

/// First byte of the window in which the guest places the BARs of its PCI bus.
pub const PCI_WINDOW_BASE: u64 = HOLE_BASE;
/// End of that window.
pub const PCI_WINDOW_END: u64 = 0xe000_0000;
/// Configuration spaces of the PCI bus, 4 KiB each.
pub const ECAM_BASE: u64 = PCI_WINDOW_END;
/// Bytes of that: bus 0 alone.
pub const ECAM_BYTES: u64 = 1 << 20;

/// Registers of the error record serialization device, one page.
pub const ERST_BASE: u64 = 0xfeb0_0000;
/// I/O APIC, one page.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// Local APIC, one page, unless the guest moves it.
pub const LAPIC_BASE: u64 = 0xfee0_0000;

/// Bytes of the ERST exchange buffer, and of the largest record.
pub const ERST_BUFFER_BYTES: u64 = 8192;

/// IOAPIC input of COM1.
pub const COM1_PIN: u8 = 4;
/// IOAPIC input of the power button.
pub const POWER_BUTTON_PIN: u8 = 9;
/// IOAPIC input of the notice that the generation ID has changed.
pub const GENERATION_PIN: u8 = 10;
/// APIC ID of the only vCPU.
pub const BOOT_APIC_ID: u8 = 0;
/// The I/O APIC's ID in its MADT entry.
pub const IOAPIC_ID: u8 = 0;

/// Port numbers.
pub mod port {
    /// The interval timer: three counters and their control register.
    pub const PIT: u16 = 0x40;
    /// NMI status and speaker control ("port B").
    pub const PORT_B: u16 = 0x61;
    /// Keyboard controller command: only the reset pulse is emulated.
    pub const KEYBOARD_COMMAND: u16 = 0x64;
    /// System control port A: only its reset bit is emulated.
    pub const PORT_A: u16 = 0x92;
    /// CMOS index.
    pub const CMOS_INDEX: u16 = 0x70;
    /// CMOS data.
    pub const CMOS_DATA: u16 = 0x71;
    /// Debug exit of test kernels.
    pub const DEBUG_EXIT: u16 = 0xf4;
    /// COM1, eight ports.
    pub const COM1: u16 = 0x3f8;
    /// pvpanic's only register.
    pub const PVPANIC: u16 = 0x505;
    /// fw_cfg selector (word), data (byte, the port after it), DMA address (two big-endian dwords
    /// from +4 on).
    pub const FW_CFG: u16 = 0x510;
    /// Test port: log a byte.
    pub const TEST_LOG: u16 = 0x5e0;
    /// Test port: fail with a code (up to a dword).
    pub const TEST_FAIL: u16 = 0x5e1;
    /// Test port: pass.
    pub const TEST_PASS: u16 = 0x5e2;
    /// Test port: reads [`TEST_PRESENT_VALUE`].
    pub const TEST_PRESENT: u16 = 0x5e3;
    /// The value that [`TEST_PRESENT`] reads if there is a test port.
    pub const TEST_PRESENT_VALUE: u8 = 0x7d;
    /// ACPI sleep control register.
    pub const SLEEP_CONTROL: u16 = 0x600;
    /// ACPI sleep status register.
    pub const SLEEP_STATUS: u16 = 0x601;
    /// ACPI reset register.
    pub const RESET: u16 = 0x602;
    /// ACPI power management timer, a dword.
    pub const PM_TIMER: u16 = 0x608;
    /// PCI configuration address, a dword.
    pub const PCI_ADDRESS: u16 = 0xcf8;
    /// PCI configuration data, four ports.
    pub const PCI_DATA: u16 = 0xcfc;
    /// The chipset's reset control register.
    pub const RESET_CONTROL: u16 = 0xcf9;
}

/// A guest writes this value to [`port::RESET`] to be restarted.
pub const RESET_VALUE: u8 = 0x01;
/// SLP_TYP of S5, as in the DSDT's `\_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// Whether a partition has a PCI bus: only one with devices on it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusPresence {
    /// It has none.
    Absent,
    /// It has.
    Present,
}

impl GuestDevices {
    /// Returns whether a partition with these devices has a bus.
    pub const fn bus(self) -> BusPresence {
        match self.rng {
            DeviceSwitch::On => BusPresence::Present,
            DeviceSwitch::Off => BusPresence::Absent,
        }
    }
}

/// Returns whether a page belongs to a device other than the local APIC.
pub const fn is_at_device(page: u64) -> bool {
    page == IOAPIC_BASE
        || page == ERST_BASE
        || PCI_WINDOW_BASE <= page && page < ECAM_BASE + ECAM_BYTES
}

/// Returns the address of the ERST exchange buffer: the last pages of the RAM below the hole.
///
/// The buffer is RAM, so that writing a record does not trap at each byte; the memory map calls it
/// reserved.
pub fn erst_buffer(layout: &RamLayout) -> Gpa {
    let ram_end = u64::from(layout.pages()).saturating_mul(PAGE_SIZE).min(HOLE_BASE);
    Gpa::new(ram_end.saturating_sub(ERST_BUFFER_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exchange_buffer_is_the_end_of_low_ram() {
        let at = |bytes| erst_buffer(&RamLayout::new(bytes).unwrap()).as_u64();
        assert_eq!(at(256 << 20), (256 << 20) - 8192);
        assert_eq!(at(5 << 30), HOLE_BASE - 8192);
    }
}
