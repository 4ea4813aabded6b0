//! Accesses to I/O ports.
//!
//! A few registers are wider than a byte. Every other port is a byte device: a wider access is
//! split into byte accesses to consecutive ports, as on the bus of a PC.

use super::fw_cfg::DmaHalf;
use super::map::port::*;
use super::pci::PciBus;
use super::power::{PORT_B_GATE_2, PORT_B_OUTPUT_2};
use super::{DeviceEffect, PanicKind, Platform, pm_timer};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::time::Ticks;
use crate::virt::AccessWidth;

const FW_CFG_DATA: u16 = FW_CFG + 1;
const FW_CFG_DMA_HIGH: u16 = FW_CFG + 4;
const FW_CFG_DMA_LOW: u16 = FW_CFG + 8;
const COM1_LAST: u16 = COM1 + 7;
const PIT_LAST: u16 = PIT + 3;
const PM_TIMER_LAST: u16 = PM_TIMER + 3;
const PCI_DATA_LAST: u16 = PCI_DATA + 3;

const PANICKED: u8 = 1 << 0;
const CRASH_KERNEL: u8 = 1 << 1;
const SHUTDOWN: u8 = 1 << 2;

impl Platform {
    /// Reads a port. A port without a device reads all ones.
    ///
    /// `now` is called only where a device needs the time: reading the TSC waits for all
    /// instructions before it.
    #[inline(always)]
    pub fn pio_read(&mut self, port: u16, width: AccessWidth, now: impl FnOnce() -> Ticks) -> u32 {
        match (port, width) {
            (COM1..=COM1_LAST, AccessWidth::Byte) => u32::from(self.read_uart(port - COM1)),
            (_, AccessWidth::Byte) => u32::from(self.read_byte(port, now())),
            _ => self.read_wide(port, width, now()),
        }
    }

    fn read_wide(&mut self, port: u16, width: AccessWidth, now: Ticks) -> u32 {
        match (port, width) {
            (FW_CFG_DMA_HIGH, AccessWidth::Dword) => self.fw_cfg.read_dma(DmaHalf::High),
            (FW_CFG_DMA_LOW, AccessWidth::Dword) => self.fw_cfg.read_dma(DmaHalf::Low),
            // It does not reach RESET_CONTROL.
            (PCI_ADDRESS, AccessWidth::Dword) => {
                self.bus.as_ref().map_or(u32::MAX, PciBus::address)
            }
            (PCI_DATA..=PCI_DATA_LAST, _) => self.read_bus_port(port, width),
            (PM_TIMER, AccessWidth::Dword) => {
                pm_timer::read(self.clock.elapsed(now), self.clock.rate)
            }
            _ => (0..width.bytes().min(4)).fold(0, |value, i| {
                let byte = self.read_byte(port.wrapping_add(i as u16), now);
                value | (u32::from(byte) << (8 * i))
            }),
        }
    }

    /// Writes a port. A port without a device ignores the write.
    ///
    /// # Errors
    /// The error of the access to guest memory; then nothing has happened.
    pub fn pio_write(
        &mut self,
        port: u16,
        width: AccessWidth,
        value: u32,
        memory: &dyn GuestMemory,
        now: &dyn Fn() -> Ticks,
    ) -> Result<DeviceEffect, GuestMemoryError> {
        if let Some(effect) = self.pio_write_alone(port, width, value, now) {
            return Ok(effect);
        }
        let half = if port == FW_CFG_DMA_HIGH { DmaHalf::High } else { DmaHalf::Low };
        self.fw_cfg.write_dma(half, value, memory)?;
        Ok(DeviceEffect::None)
    }

    /// Writes a port whose device needs no guest memory for the write. For the others it returns
    /// `None` and nothing has happened.
    #[inline]
    pub fn pio_write_alone(
        &mut self,
        port: u16,
        width: AccessWidth,
        value: u32,
        now: &dyn Fn() -> Ticks,
    ) -> Option<DeviceEffect> {
        match width {
            AccessWidth::Byte => Some(self.write_byte(port, value as u8, now)),
            _ => self.write_wide(port, width, value, now),
        }
    }

    fn write_wide(
        &mut self,
        port: u16,
        width: AccessWidth,
        value: u32,
        now: &dyn Fn() -> Ticks,
    ) -> Option<DeviceEffect> {
        let value = value & width.mask() as u32;
        Some(match (port, width) {
            (FW_CFG_DMA_HIGH | FW_CFG_DMA_LOW, AccessWidth::Dword) => return None,
            (PCI_ADDRESS, AccessWidth::Dword) => {
                self.bus.iter_mut().for_each(|bus| bus.set_address(value));
                DeviceEffect::None
            }
            (PCI_DATA..=PCI_DATA_LAST, _) => self.write_bus_port(port, width, value),
            (FW_CFG, AccessWidth::Word) => {
                self.fw_cfg.select(value as u16);
                DeviceEffect::None
            }
            (TEST_FAIL, _) => DeviceEffect::TestFailed(value),
            (TEST_PASS, _) => DeviceEffect::TestPassed,
            (DEBUG_EXIT, _) => DeviceEffect::ExitCode(value),
            _ => self.write_bytes(port, width, value, now),
        })
    }

    fn read_bus_port(&mut self, port: u16, width: AccessWidth) -> u32 {
        self.bus.as_mut().map_or(u32::MAX, |bus| bus.read_data(port - PCI_DATA, width))
    }

    fn write_bus_port(&mut self, port: u16, width: AccessWidth, value: u32) -> DeviceEffect {
        let Some(bus) = &mut self.bus else { return DeviceEffect::None };
        let news = bus.write_data(port - PCI_DATA, width, value);
        self.finish_bus_access(news)
    }

    /// Writes byte by byte; the first byte's effect other than none is returned.
    fn write_bytes(
        &mut self,
        port: u16,
        width: AccessWidth,
        value: u32,
        now: &dyn Fn() -> Ticks,
    ) -> DeviceEffect {
        let mut effect = DeviceEffect::None;
        for i in 0..width.bytes().min(4) {
            let next = self.write_byte(port.wrapping_add(i as u16), (value >> (8 * i)) as u8, now);
            if effect == DeviceEffect::None {
                effect = next;
            }
        }
        effect
    }

    fn read_byte(&mut self, port: u16, now: Ticks) -> u8 {
        match port {
            COM1..=COM1_LAST => self.read_uart(port - COM1),
            CMOS_DATA => self.rtc.read(&self.clock, now),
            PIT..=PIT_LAST => self.pit.read(port - PIT, now),
            PM_TIMER..=PM_TIMER_LAST => {
                (pm_timer::read(self.clock.elapsed(now), self.clock.rate)
                    >> (8 * (port - PM_TIMER))) as u8
            }
            PORT_B => {
                self.power.read(port).unwrap_or(0xff)
                    | if self.pit.output(now) { PORT_B_OUTPUT_2 } else { 0 }
            }
            PVPANIC => PANICKED | CRASH_KERNEL,
            PCI_DATA..=PCI_DATA_LAST => self.read_bus_port(port, AccessWidth::Byte) as u8,
            FW_CFG_DATA => self.fw_cfg.read_data(),
            TEST_PRESENT => TEST_PRESENT_VALUE,
            _ => self.power.read(port).unwrap_or(0xff),
        }
    }

    #[inline(always)]
    fn read_uart(&mut self, register: u16) -> u8 {
        if let Some(value) = self.uart.look(register) {
            return value;
        }
        let value = self.uart.read(register);
        self.update_uart_line();
        value
    }

    fn write_byte(&mut self, port: u16, value: u8, now: &dyn Fn() -> Ticks) -> DeviceEffect {
        match port {
            COM1..=COM1_LAST => {
                self.uart.write(port - COM1, value);
                self.update_uart_line();
                if self.uart.output().is_empty() {
                    DeviceEffect::None
                } else if self.uart.is_full() {
                    DeviceEffect::ConsoleFull
                } else {
                    DeviceEffect::Console
                }
            }
            CMOS_INDEX => {
                self.rtc.select(value);
                DeviceEffect::None
            }
            CMOS_DATA => {
                self.rtc.write(value);
                DeviceEffect::None
            }
            PVPANIC => panic_effect(value),
            PCI_DATA..=PCI_DATA_LAST => self.write_bus_port(port, AccessWidth::Byte, value.into()),
            TEST_LOG => self.test_port.log(value),
            TEST_FAIL => DeviceEffect::TestFailed(value.into()),
            TEST_PASS => DeviceEffect::TestPassed,
            DEBUG_EXIT => DeviceEffect::ExitCode(value.into()),
            PIT..=PIT_LAST => {
                self.pit.write(port - PIT, value, now());
                DeviceEffect::None
            }
            PORT_B => {
                self.pit.set_gate(value & PORT_B_GATE_2 != 0, now());
                self.power.write(port, value)
            }
            _ => self.power.write(port, value),
        }
    }
}

/// A guest that has loaded its own crash kernel sets that bit instead of the panic bit, or beside
/// it.
const fn panic_effect(value: u8) -> DeviceEffect {
    if value & CRASH_KERNEL != 0 {
        DeviceEffect::Panicked(PanicKind::CrashKernel)
    } else if value & PANICKED != 0 {
        DeviceEffect::Panicked(PanicKind::Panicked)
    } else if value & SHUTDOWN != 0 {
        DeviceEffect::Panicked(PanicKind::Shutdown)
    } else {
        DeviceEffect::None
    }
}
