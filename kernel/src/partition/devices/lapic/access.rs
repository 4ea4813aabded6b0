//! Register accesses to the local APIC: the value that each register reads and the effect of a
//! write, in both modes.

use super::register::*;
use super::*;
use crate::arch::apic_words::shorthand;
use crate::time::Ticks;

/// The value of the version register: version 0x14, six local vector table entries.
const VERSION_VALUE: u32 = 0x14 | ((LVT_COUNT as u32 - 1) << 16);
/// The fields of each LVT entry that a guest may set: timer, thermal sensor, performance counters,
/// LINT0, LINT1, error.
const LVT_WRITABLE: [u32; LVT_COUNT] = {
    let all = LocalVector::new().with_vector(0xff).with_masked(true);
    let message = all.with_delivery_mode(7);
    let pin = message.with_active_low(true).with_level(true);
    let timer = all.with_timer_mode(3);
    [
        timer.into_bits(),
        message.into_bits(),
        message.into_bits(),
        pin.into_bits(),
        pin.into_bits(),
        all.into_bits(),
    ]
};

impl LocalApic {
    /// Reads the dword at byte `offset` of the APIC page.
    pub fn mmio_read(&mut self, offset: u16, now: Ticks) -> u32 {
        if self.mode != ApicMode::XApic {
            return u32::MAX;
        }
        match self.read((offset >> 4) as u8, now) {
            Ok(value) => value,
            Err(ApicAccessError) => {
                self.raise_error(ERROR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes the dword at byte `offset` of the APIC page.
    pub fn mmio_write(&mut self, offset: u16, value: u32, now: Ticks) -> ApicOutcome {
        if self.mode != ApicMode::XApic {
            return ApicOutcome::None;
        }
        let register = (offset >> 4) as u8;
        match register {
            COMMAND_HIGH => {
                self.icr.set_destination(value & 0xff00_0000);
                ApicOutcome::None
            }
            COMMAND => {
                let low = InterruptCommand::from_bits(u64::from(value));
                self.send(low.with_destination(self.icr.destination()));
                ApicOutcome::None
            }
            END_OF_INTERRUPT => self.end_of_interrupt(),
            LOGICAL_DESTINATION => {
                self.logical = value & 0xff00_0000;
                ApicOutcome::None
            }
            DESTINATION_FORMAT => {
                self.destination_format = value | 0x0fff_ffff;
                ApicOutcome::None
            }
            // The ID is fixed, as on current CPUs, and SELF IPI exists in x2APIC mode alone.
            ID => ApicOutcome::None,
            _ => {
                if self.write(register, value, now).is_err() {
                    self.raise_error(ERROR_ILLEGAL_REGISTER);
                }
                ApicOutcome::None
            }
        }
    }

    /// Reads an MSR of the x2APIC range.
    ///
    /// # Errors
    /// [`ApicAccessError`] outside x2APIC mode and for registers that x2APIC mode lacks.
    pub fn msr_read(&self, register: u8, now: Ticks) -> Result<u64, ApicAccessError> {
        if self.mode != ApicMode::X2Apic {
            return Err(ApicAccessError);
        }
        match register {
            COMMAND => Ok(self.icr.into_bits()),
            COMMAND_HIGH | DESTINATION_FORMAT | ARBITRATION_PRIORITY => Err(ApicAccessError),
            _ => self.read(register, now).map(u64::from),
        }
    }

    /// Writes an MSR of the x2APIC range.
    ///
    /// # Errors
    /// [`ApicAccessError`] outside x2APIC mode, for read-only registers and for reserved bits.
    #[inline]
    pub fn msr_write(
        &mut self,
        register: u8,
        value: u64,
        now: Ticks,
    ) -> Result<ApicOutcome, ApicAccessError> {
        match register {
            END_OF_INTERRUPT => self.write_end_of_interrupt(value),
            TASK_PRIORITY => self.write_task_priority(value).map(|()| ApicOutcome::None),
            SELF_IPI => self.write_self_ipi(value).map(|()| ApicOutcome::None),
            _ if self.mode != ApicMode::X2Apic => Err(ApicAccessError),
            _ => self.msr_write_rest(register, value, now),
        }
    }

    /// Writes x2APIC's task priority.
    ///
    /// # Errors
    /// [`ApicAccessError`] as for [`Self::msr_write`].
    #[inline(always)]
    pub fn write_task_priority(&mut self, value: u64) -> Result<(), ApicAccessError> {
        if self.mode != ApicMode::X2Apic || value > 0xff {
            return Err(ApicAccessError);
        }
        self.tpr = value as u8;
        Ok(())
    }

    /// Writes x2APIC's end of interrupt.
    ///
    /// # Errors
    /// [`ApicAccessError`] as for [`Self::msr_write`].
    #[inline(always)]
    pub fn write_end_of_interrupt(&mut self, value: u64) -> Result<ApicOutcome, ApicAccessError> {
        if self.mode != ApicMode::X2Apic || value != 0 {
            return Err(ApicAccessError);
        }
        Ok(self.end_of_interrupt())
    }

    fn msr_write_rest(
        &mut self,
        register: u8,
        value: u64,
        now: Ticks,
    ) -> Result<ApicOutcome, ApicAccessError> {
        if register == COMMAND {
            self.send(InterruptCommand::from_bits(value));
            return Ok(ApicOutcome::None);
        }
        let value = u32::try_from(value).map_err(|_| ApicAccessError)?;
        match register {
            ERROR_STATUS if value != 0 => Err(ApicAccessError),
            ID | LOGICAL_DESTINATION | DESTINATION_FORMAT | COMMAND_HIGH => Err(ApicAccessError),
            _ => self.write(register, value, now).map(|()| ApicOutcome::None),
        }
    }

    /// Writes x2APIC's SELF IPI: sends a message to this APIC without the interrupt command
    /// register. SDM 3A "SELF IPI Register".
    ///
    /// # Errors
    /// [`ApicAccessError`] as for [`Self::msr_write`].
    #[inline(always)]
    pub fn write_self_ipi(&mut self, value: u64) -> Result<(), ApicAccessError> {
        if self.mode != ApicMode::X2Apic || value > 0xff {
            return Err(ApicAccessError);
        }
        self.accept_own(value as u8);
        Ok(())
    }

    /// Reads a register that exists in both modes.
    fn read(&self, register: u8, now: Ticks) -> Result<u32, ApicAccessError> {
        let x2apic = self.mode == ApicMode::X2Apic;
        Ok(match register {
            ID if x2apic => u32::from(BOOT_APIC_ID),
            ID => u32::from(BOOT_APIC_ID) << 24,
            VERSION => VERSION_VALUE,
            TASK_PRIORITY => u32::from(self.tpr),
            ARBITRATION_PRIORITY | PROCESSOR_PRIORITY => u32::from(self.processor_priority()),
            // Cluster 0, member 0: SDM 3A "Deriving Logical x2APIC ID from the Local x2APIC ID".
            LOGICAL_DESTINATION if x2apic => 1 << BOOT_APIC_ID,
            LOGICAL_DESTINATION => self.logical,
            DESTINATION_FORMAT => self.destination_format,
            SPURIOUS => self.svr,
            IN_SERVICE..TRIGGER_MODE => self.isr.register(register - IN_SERVICE),
            TRIGGER_MODE..REQUEST => self.tmr.register(register - TRIGGER_MODE),
            REQUEST..ERROR_STATUS => self.irr.register(register - REQUEST),
            ERROR_STATUS => self.errors_latched,
            COMMAND => self.icr.into_bits() as u32,
            COMMAND_HIGH => self.icr.destination(),
            LOCAL_VECTOR..INITIAL_COUNT => {
                self.lvt[usize::from(register - LOCAL_VECTOR)].into_bits()
            }
            INITIAL_COUNT => self.timer.initial(),
            CURRENT_COUNT => self.timer.current(self.timer_mode(), now, self.rate),
            DIVIDE => self.timer.divide_config(),
            _ => return Err(ApicAccessError),
        })
    }

    /// Writes a register that works alike in both modes.
    fn write(&mut self, register: u8, value: u32, now: Ticks) -> Result<(), ApicAccessError> {
        match register {
            TASK_PRIORITY => self.tpr = value as u8,
            SPURIOUS => self.set_spurious(value),
            ERROR_STATUS => self.errors_latched = core::mem::take(&mut self.errors),
            LOCAL_VECTOR..INITIAL_COUNT => {
                self.set_local_vector(usize::from(register - LOCAL_VECTOR), value)
            }
            INITIAL_COUNT => self.timer.set_initial(value, self.timer_mode(), now, self.rate),
            DIVIDE => self.timer.set_divide_config(value),
            _ => return Err(ApicAccessError),
        }
        Ok(())
    }

    fn set_spurious(&mut self, value: u32) {
        self.svr = value & 0x1ff;
        if !self.software_enabled() {
            self.lvt.iter_mut().for_each(|lvt| lvt.set_masked(true));
        }
    }

    fn set_local_vector(&mut self, entry: usize, value: u32) {
        let before = self.timer_mode();
        self.lvt[entry] = LocalVector::from_bits(value & LVT_WRITABLE[entry]);
        if !self.software_enabled() {
            self.lvt[entry].set_masked(true);
        }
        // A switch into or out of TSC-deadline mode disarms the timer: SDM 3A "TSC-Deadline Mode".
        let after = self.timer_mode();
        if before != after && (before == TimerMode::TscDeadline || after == TimerMode::TscDeadline)
        {
            self.timer.disarm();
        }
    }

    /// Carries out an interrupt command. There is one CPU: a message reaches this APIC or none.
    fn send(&mut self, command: InterruptCommand) {
        self.icr = command.with_pending(false);
        let destination = self.command_destination(command);
        let reaches_us = match command.shorthand() {
            shorthand::NONE => self.is_addressed(destination),
            shorthand::SELF | shorthand::ALL => true,
            _ => false,
        };
        let delivery = DeliveryMode::of(command.delivery_mode());
        if delivery == DeliveryMode::Fixed && command.vector() < 16 {
            self.raise_error(ERROR_SEND_ILLEGAL);
        } else if reaches_us {
            self.accept(InterruptMessage {
                vector: command.vector(),
                delivery,
                trigger: TriggerMode::Edge,
            });
        }
    }

    fn command_destination(&self, command: InterruptCommand) -> MessageDestination {
        let field = command.destination();
        let set = if self.mode == ApicMode::X2Apic { field } else { field >> 24 };
        if command.logical() {
            MessageDestination::Logical(set)
        } else {
            MessageDestination::Physical(set)
        }
    }
}
