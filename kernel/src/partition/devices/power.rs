//! The registers with which a guest restarts or switches itself off, and port B.
//!
//! The FADT names the sleep and reset registers. Reset control (0xcf9), the keyboard controller's
//! reset pulse and port A's reset bit exist because kernels fall back to them: without them an
//! ordinary reboot would end in a triple fault and look like a crash.

use super::effect::DeviceEffect;
use super::map::{RESET_VALUE, SLEEP_TYPE_OFF, port};
use super::saved::SavedDevice;
use crate::dump::state_note::{StateError, StatePart, StateReader, StateWriter};
use crate::time::Ticks;

/// ACPI 6.5 "Sleep Control and Status Registers".
const SLEEP_ENABLE: u8 = 1 << 5;
const WAKE_STATUS: u8 = 1 << 7;
/// Reset control: writing bit 2 resets the system.
const RESET_CPU: u8 = 1 << 2;
const KEYBOARD_RESET_PULSE: u8 = 0xfe;
/// Port A: a CPU reset on the rise of bit 0; bit 1 opens A20, which is always open.
const PORT_A_RESET: u8 = 1 << 0;
const PORT_A_A20: u8 = 1 << 1;

/// Port B: the gate and speaker bits are writable.
const PORT_B_WRITABLE: u8 = 0x0f;
const PORT_B_REFRESH: u8 = 1 << 4;
/// Timer 2's gate.
pub const PORT_B_GATE_2: u8 = 1 << 0;
/// Timer 2's output, read only.
pub const PORT_B_OUTPUT_2: u8 = 1 << 5;

/// Power management registers and port B.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerRegisters {
    wake_status: bool,
    port_b: u8,
}

impl PowerRegisters {
    /// Reads one of this device's ports; `None` for all others.
    pub const fn read(&mut self, number: u16) -> Option<u8> {
        Some(match number {
            port::SLEEP_CONTROL | port::RESET | port::RESET_CONTROL => 0,
            port::PORT_A => PORT_A_A20,
            port::SLEEP_STATUS if self.wake_status => WAKE_STATUS,
            port::SLEEP_STATUS => 0,
            port::PORT_B => {
                // The refresh bit toggles at each read; kernels wait for it to change.
                self.port_b ^= PORT_B_REFRESH;
                self.port_b
            }
            _ => return None,
        })
    }

    /// Writes one of this device's ports.
    pub fn write(&mut self, number: u16, value: u8) -> DeviceEffect {
        match number {
            port::SLEEP_CONTROL if value & SLEEP_ENABLE != 0 => {
                return self.sleep((value >> 2) & 7);
            }
            port::SLEEP_STATUS if value & WAKE_STATUS != 0 => self.wake_status = false,
            port::RESET if value == RESET_VALUE => return DeviceEffect::Reset,
            port::RESET_CONTROL if value & RESET_CPU != 0 => return DeviceEffect::Reset,
            port::KEYBOARD_COMMAND if value == KEYBOARD_RESET_PULSE => return DeviceEffect::Reset,
            port::PORT_A if value & PORT_A_RESET != 0 => return DeviceEffect::Reset,
            port::PORT_B => {
                self.port_b = (self.port_b & PORT_B_REFRESH) | (value & PORT_B_WRITABLE)
            }
            _ => {}
        }
        DeviceEffect::None
    }

    /// Enters a sleep state. Only S5 is offered; any other wakes up at once.
    const fn sleep(&mut self, kind: u8) -> DeviceEffect {
        if kind == SLEEP_TYPE_OFF {
            return DeviceEffect::PowerOff;
        }
        self.wake_status = true;
        DeviceEffect::None
    }
}

impl SavedDevice for PowerRegisters {
    const PART: StatePart = StatePart::Power;

    fn save(&self, out: &mut StateWriter, _: Ticks) {
        out.bool(self.wake_status);
        out.u8(self.port_b);
    }

    fn restore(&mut self, from: &mut StateReader<'_>, _: Ticks) -> Result<(), StateError> {
        self.wake_status = from.bool()?;
        self.port_b = from.u8()? & (PORT_B_REFRESH | PORT_B_WRITABLE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_reboot_is_a_reset() {
        let mut power = PowerRegisters::default();
        for (number, value) in [
            (port::RESET, 1),
            (port::RESET_CONTROL, 6),
            (port::RESET_CONTROL, 14),
            (port::KEYBOARD_COMMAND, 0xfe),
            (port::PORT_A, 3),
        ] {
            assert_eq!(power.write(number, value), DeviceEffect::Reset, "{number:#x}");
        }
        for (number, value) in [
            (port::RESET, 0),
            (port::RESET_CONTROL, 2),
            (port::KEYBOARD_COMMAND, 0xd1),
            (port::PORT_A, 2),
        ] {
            assert_eq!(power.write(number, value), DeviceEffect::None, "{number:#x}");
        }
    }

    #[test]
    fn s5_switches_off_and_other_sleeps_wake_at_once() {
        let mut power = PowerRegisters::default();
        assert_eq!(
            power.write(port::SLEEP_CONTROL, SLEEP_ENABLE | SLEEP_TYPE_OFF << 2),
            DeviceEffect::PowerOff
        );
        assert_eq!(power.write(port::SLEEP_CONTROL, SLEEP_ENABLE | 3 << 2), DeviceEffect::None);
        assert_eq!(power.read(port::SLEEP_STATUS), Some(WAKE_STATUS));
        assert_eq!(power.write(port::SLEEP_STATUS, WAKE_STATUS), DeviceEffect::None);
        assert_eq!(power.read(port::SLEEP_STATUS), Some(0));
    }

    #[test]
    fn port_b_reports_no_nmi_and_its_refresh_bit_toggles() {
        let mut power = PowerRegisters::default();
        assert_eq!(power.write(port::PORT_B, 0xff), DeviceEffect::None);
        let (a, b) = (power.read(port::PORT_B).unwrap(), power.read(port::PORT_B).unwrap());
        assert_eq!((a & 0xef, (a ^ b)), (PORT_B_WRITABLE, PORT_B_REFRESH));
    }
}
