//! The local APIC of the partition's vCPU, in xAPIC (memory) and x2APIC (MSR) mode.
//!
//! ```text
//!   IOAPIC, ICR, timer ──accept──> IRR ──interrupt(), acknowledge()──> ISR ──EOI──> done
//!                                   │ only above the priority of TPR and ISR │        └─ level: broadcast to the IOAPIC
//! ```
//!
//! Both modes share one register file, numbered by offset / 16: [`register`] has the numbers. The
//! registers follow SDM 3A "Advanced Programmable Interrupt Controller (APIC)".
//!
//! Invariants: there is one vCPU, so a destination is this APIC or none. Nothing here waits,
//! allocates or panics, whatever the guest writes.

mod access;
pub mod register;
mod saved;
pub mod timer;
mod vectors;

#[cfg(test)]
mod tests;

use super::clock::TscRate;
use super::map::{BOOT_APIC_ID, LAPIC_BASE};
use crate::arch::apic_words::{InterruptCommand, LocalVector, delivery};
use crate::time::Ticks;
use timer::{ApicTimer, TimerMode};
use vectors::Vectors;

/// The mode of the APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicMode {
    /// Switched off globally.
    Disabled,
    /// Registers in memory.
    XApic,
    /// Registers are MSRs.
    X2Apic,
}

/// An access that the APIC refuses: #GP for an MSR, nothing for memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApicAccessError;

/// The delivery mode of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryMode {
    /// An interrupt with the message's vector.
    Fixed,
    /// The NMI.
    Nmi,
    /// INIT, start-up, SMI, ExtINT: nothing on a machine with one CPU and no PIC.
    Other,
}

impl DeliveryMode {
    /// Decodes the three-bit delivery mode of LVT, ICR and IOAPIC. With one CPU, lowest priority is
    /// fixed.
    pub const fn of(bits: u8) -> Self {
        match bits {
            delivery::FIXED | delivery::LOWEST_PRIORITY => DeliveryMode::Fixed,
            delivery::NMI => DeliveryMode::Nmi,
            _ => DeliveryMode::Other,
        }
    }
}

/// Edge or level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TriggerMode {
    /// The change of the line is the interrupt.
    Edge,
    /// The interrupt lasts until its cause is gone; its EOI is sent to the IOAPIC.
    Level,
}

/// An interrupt message on its way to the APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptMessage {
    /// Vector.
    pub vector: u8,
    /// Delivery mode.
    pub delivery: DeliveryMode,
    /// Edge or level.
    pub trigger: TriggerMode,
}

/// The destination of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageDestination {
    /// An APIC ID.
    Physical(u32),
    /// A set of APICs, in the format of the logical destination register.
    Logical(u32),
}

/// The effect of a register write outside the APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a level interrupt whose EOI is lost never comes again"]
pub enum ApicOutcome {
    /// Nothing.
    None,
    /// A level-triggered vector has ended.
    EndOfInterrupt(u8),
}

const LVT_MASKED: LocalVector = LocalVector::new().with_masked(true);
const SOFTWARE_ENABLE: u32 = 1 << 8;
const LVT_COUNT: usize = 6;
const LVT_TIMER: usize = 0;
const LVT_ERROR: usize = 5;

const ERROR_SEND_ILLEGAL: u32 = 1 << 5;
const ERROR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ERROR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// The APIC.
#[derive(Clone, Debug)]
pub struct LocalApic {
    rate: TscRate,
    mode: ApicMode,
    /// The address of the registers' page in xAPIC mode.
    base: u64,
    irr: Vectors,
    isr: Vectors,
    /// Vectors that were accepted as level-triggered.
    tmr: Vectors,
    nmi_pending: bool,
    /// A message has come since [`LocalApic::forget_news`].
    news: bool,
    tpr: u8,
    svr: u32,
    logical: u32,
    destination_format: u32,
    icr: InterruptCommand,
    lvt: [LocalVector; LVT_COUNT],
    timer: ApicTimer,
    /// Timer interrupts that the CPU has taken.
    ticks: u32,
    errors: u32,
    errors_latched: u32,
}

impl LocalApic {
    /// Makes the APIC as it is after power-up, in `mode`.
    pub fn new(rate: TscRate, mode: ApicMode) -> Self {
        Self {
            rate,
            mode,
            base: LAPIC_BASE,
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            nmi_pending: false,
            news: false,
            tpr: 0,
            svr: 0xff,
            logical: 0,
            destination_format: u32::MAX,
            icr: InterruptCommand::new(),
            lvt: [LVT_MASKED; LVT_COUNT],
            timer: ApicTimer::default(),
            ticks: 0,
            errors: 0,
            errors_latched: 0,
        }
    }

    /// Returns the mode of the APIC.
    pub const fn mode(&self) -> ApicMode {
        self.mode
    }

    /// Returns IA32_APIC_BASE.
    pub const fn base_msr(&self) -> u64 {
        let enables = match self.mode {
            ApicMode::Disabled => 0,
            ApicMode::XApic => APIC_BASE_ENABLE,
            ApicMode::X2Apic => APIC_BASE_ENABLE | APIC_BASE_EXTD,
        };
        self.base | APIC_BASE_BSP | enables
    }

    /// Returns the page of the registers in xAPIC mode.
    #[inline]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Returns the page that a value of IA32_APIC_BASE names.
    pub const fn base_of(value: u64) -> u64 {
        value & !0xfff
    }

    /// Writes IA32_APIC_BASE. The caller has checked the page already.
    ///
    /// # Errors
    /// [`ApicAccessError`] for the transitions that SDM 3A "x2APIC State Transitions" forbids, and
    /// for reserved bits.
    pub fn set_base_msr(&mut self, value: u64) -> Result<(), ApicAccessError> {
        if value & 0xfff & !(APIC_BASE_BSP | APIC_BASE_ENABLE | APIC_BASE_EXTD) != 0 {
            return Err(ApicAccessError);
        }
        self.set_mode(value)?;
        self.base = Self::base_of(value);
        Ok(())
    }

    fn set_mode(&mut self, value: u64) -> Result<(), ApicAccessError> {
        let wanted = match (value & APIC_BASE_ENABLE != 0, value & APIC_BASE_EXTD != 0) {
            (false, false) => ApicMode::Disabled,
            (true, false) => ApicMode::XApic,
            (true, true) => ApicMode::X2Apic,
            (false, true) => return Err(ApicAccessError),
        };
        match (self.mode, wanted) {
            (ApicMode::X2Apic, ApicMode::XApic) | (ApicMode::Disabled, ApicMode::X2Apic) => {
                Err(ApicAccessError)
            }
            (from, to) if from == to => Ok(()),
            (_, ApicMode::Disabled) => {
                *self = Self::new(self.rate, ApicMode::Disabled);
                Ok(())
            }
            (_, to) => {
                self.mode = to;
                Ok(())
            }
        }
    }

    /// Accepts a message.
    pub fn accept(&mut self, message: InterruptMessage) {
        self.news = true;
        match message.delivery {
            DeliveryMode::Nmi => self.nmi_pending = true,
            DeliveryMode::Other => {}
            DeliveryMode::Fixed if self.mode == ApicMode::Disabled || !self.software_enabled() => {}
            DeliveryMode::Fixed if message.vector < 16 => self.raise_error(ERROR_RECEIVE_ILLEGAL),
            DeliveryMode::Fixed => {
                self.irr.insert(message.vector);
                match message.trigger {
                    TriggerMode::Edge => self.tmr.remove(message.vector),
                    TriggerMode::Level => self.tmr.insert(message.vector),
                }
            }
        }
    }

    /// Accepts a fixed, edge-triggered message that the guest sends to itself in x2APIC mode.
    #[inline(always)]
    fn accept_own(&mut self, vector: u8) {
        if vector < 16 {
            return self.raise_error(ERROR_SEND_ILLEGAL);
        }
        self.news = true;
        if self.software_enabled() {
            self.irr.insert(vector);
            self.tmr.remove(vector);
        }
    }

    /// Tells whether `destination` names this APIC.
    pub const fn is_addressed(&self, destination: MessageDestination) -> bool {
        match (destination, self.mode) {
            (MessageDestination::Physical(id), ApicMode::X2Apic) => {
                id == BOOT_APIC_ID as u32 || id == u32::MAX || id == 0xff
            }
            (MessageDestination::Physical(id), _) => {
                id & 0xff == BOOT_APIC_ID as u32 || id & 0xff == 0xff
            }
            (MessageDestination::Logical(set), ApicMode::X2Apic) => {
                (set >> 16 == 0 && set & 1 != 0) || set == u32::MAX
            }
            (MessageDestination::Logical(set), _) => set & (self.logical >> 24) & 0xff != 0,
        }
    }

    /// Returns the vector that a CPU with interrupts enabled would take now.
    #[inline]
    pub fn interrupt(&self) -> Option<u8> {
        if self.mode == ApicMode::Disabled {
            return None;
        }
        self.irr.highest().filter(|vector| vector >> 4 > self.processor_priority() >> 4)
    }

    /// Returns whether any interrupt is requested, whatever its priority. Mostly there is none;
    /// this test is quick.
    #[inline(always)]
    pub const fn has_requests(&self) -> bool {
        !self.irr.is_empty()
    }

    /// Returns whether a message has come since [`Self::forget_news`]. If so, the answer of
    /// [`Self::interrupt`] may have changed.
    #[inline]
    pub const fn has_news(&self) -> bool {
        self.news
    }

    /// Clears the mark of new messages: the caller looks at the pending interrupts now.
    pub const fn forget_news(&mut self) {
        self.news = false;
    }

    /// Moves `vector` from IRR to ISR: the CPU takes it.
    pub fn acknowledge(&mut self, vector: u8) {
        self.irr.remove(vector);
        self.isr.insert(vector);
        self.ticks = self.ticks.wrapping_add(u32::from(vector == self.lvt[LVT_TIMER].vector()));
    }

    /// Returns how many timer interrupts the CPU has taken.
    pub const fn ticks(&self) -> u32 {
        self.ticks
    }

    /// Returns whether a message with `vector`, sent now, would interrupt a CPU with interrupts
    /// enabled.
    pub fn would_take(&self, vector: u8) -> bool {
        let accepts = self.mode != ApicMode::Disabled && self.software_enabled() && vector >= 16;
        accepts && vector >> 4 > self.processor_priority() >> 4
    }

    /// Returns whether the timer runs and will interrupt the CPU.
    pub fn awaits_timer(&self) -> bool {
        self.deadline().is_some() && self.would_take(self.lvt[LVT_TIMER].vector())
    }

    /// Tells whether an NMI is pending.
    pub const fn nmi_pending(&self) -> bool {
        self.nmi_pending
    }

    /// Clears the pending NMI, and returns whether there was one.
    pub const fn take_nmi(&mut self) -> bool {
        core::mem::replace(&mut self.nmi_pending, false)
    }

    /// Returns when the timer expires; `None` while it is stopped or masked.
    pub const fn deadline(&self) -> Option<Ticks> {
        if self.lvt[LVT_TIMER].masked() { None } else { self.timer.deadline() }
    }

    /// Lets the timer expire if its time has come.
    pub fn advance(&mut self, now: Ticks) {
        if self.timer.expire(self.timer_mode(), now, self.rate) {
            self.local_interrupt(LVT_TIMER);
        }
    }

    /// Reads IA32_TSC_DEADLINE.
    pub fn tsc_deadline(&self) -> Ticks {
        self.timer.tsc_deadline(self.timer_mode())
    }

    /// Writes IA32_TSC_DEADLINE.
    pub fn set_tsc_deadline(&mut self, deadline: Ticks) {
        self.timer.set_tsc_deadline(deadline, self.timer_mode());
    }

    /// Returns the task priority in the format of CR8.
    pub const fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Sets the task priority from CR8.
    pub const fn set_cr8(&mut self, priority: u8) {
        self.tpr = (priority & 0xf) << 4;
    }

    const fn timer_mode(&self) -> TimerMode {
        TimerMode::of(self.lvt[LVT_TIMER].timer_mode())
    }

    const fn software_enabled(&self) -> bool {
        self.svr & SOFTWARE_ENABLE != 0
    }

    /// Returns the PPR. SDM 3A "Task and Processor Priorities".
    #[inline]
    fn processor_priority(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 { self.tpr } else { in_service & 0xf0 }
    }

    fn local_interrupt(&mut self, entry: usize) {
        let lvt = self.lvt[entry];
        if !lvt.masked() {
            // The entries of timer and error have no delivery mode: those bits read zero, which
            // means fixed.
            self.accept(InterruptMessage {
                vector: lvt.vector(),
                delivery: DeliveryMode::of(lvt.delivery_mode()),
                trigger: TriggerMode::Edge,
            });
        }
    }

    fn raise_error(&mut self, error: u32) {
        let news = self.errors & error == 0;
        self.errors |= error;
        // An error entry with an illegal vector would raise an error of its own, and so on for
        // ever.
        if news && self.lvt[LVT_ERROR].vector() >= 16 {
            self.local_interrupt(LVT_ERROR);
        }
    }

    #[inline(always)]
    fn end_of_interrupt(&mut self) -> ApicOutcome {
        if self.isr.is_empty() {
            return ApicOutcome::None;
        }
        let Some(vector) = self.isr.highest() else { return ApicOutcome::None };
        self.isr.remove(vector);
        if self.tmr.contains(vector) {
            ApicOutcome::EndOfInterrupt(vector)
        } else {
            ApicOutcome::None
        }
    }
}

const APIC_BASE_BSP: u64 = 1 << 8;
const APIC_BASE_EXTD: u64 = 1 << 10;
const APIC_BASE_ENABLE: u64 = 1 << 11;
