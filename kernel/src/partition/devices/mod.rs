//! The emulated devices of a partition: a minimal PC.
//!
//! ```text
//!              port access            memory access          MSR access
//!                  │                       │                      │
//!   Platform ──────┼───────────┬───────────┼──────┬───────────────┤
//!     Uart   Rtc   FwCfg  Power  TestPort  Erst   IoApic ──> LocalApic ──> interrupt()
//!                                          PciBus ──│───────────^
//!                                     operator ── PowerButton
//! ```
//!
//! [`Platform`] routes accesses, delivers interrupt messages, and returns an [`DeviceEffect`] where
//! an access concerns more than a device. It is pure: the time is an argument, guest memory a
//! trait. Neighbours: `partition::exits` and `partition::emulate` call it, `partition::msr` reaches
//! the local APIC through it, `acpi` describes it to the guest, [`map`] has all its addresses.
//!
//! Invariants: an access that returns an error has changed nothing and is repeated. No action of a
//! guest causes a panic here. A device never acts on the partition.

pub mod button;
pub mod clock;
pub mod effect;
pub mod erst;
pub mod fw_cfg;
pub mod generation;
pub mod ioapic;
pub mod lapic;
pub mod map;
pub mod panic_line;
pub mod pci;
pub mod pit;
pub mod pm_timer;
pub mod power;
pub mod queue;
pub mod rtc;
pub mod saved;
pub mod test_port;
pub mod uart;
pub mod virtio;

mod mmio;
mod ports;
pub mod state;

#[cfg(test)]
mod tests;

use crate::addr::Gpa;
use crate::config::{DeviceSwitch, GuestDevices};
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::mm::layout::RamLayout;
use crate::space::CrashText;
use crate::time::Ticks;
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use button::PowerButton;
use clock::GuestClock;
pub use effect::{DeviceEffect, PanicKind};
use erst::Erst;
use fw_cfg::{FwCfg, VmcoreinfoNote};
use generation::GenerationNotice;
use ioapic::{IoApic, RoutedMessage};
use lapic::{ApicAccessError, ApicMode, ApicOutcome, DeliveryMode, LocalApic};
use pci::PciBus;
use pci::function::FunctionNews;
use pci::vectors::MOST_VECTORS;
use pit::Pit;
use power::PowerRegisters;
use queue::ByteQueue;
use rtc::Rtc;
use test_port::TestPort;
use uart::GuestUart;
use virtio::device::VirtioDevice;

/// All devices of a partition.
#[derive(Debug)]
pub struct Platform {
    clock: GuestClock,
    lapic: LocalApic,
    ioapic: IoApic,
    uart: GuestUart,
    rtc: Rtc,
    fw_cfg: FwCfg,
    power: PowerRegisters,
    button: PowerButton,
    generation: GenerationNotice,
    pit: Pit,
    erst: Erst,
    test_port: TestPort,
    /// Only of a partition with devices on it.
    bus: Option<PciBus>,
}

impl Platform {
    /// Makes the devices for the first incarnation; `apic` is the local APIC's mode at the kernel's
    /// start.
    pub fn new(clock: GuestClock, layout: &RamLayout, apic: ApicMode) -> Self {
        Self {
            clock,
            lapic: LocalApic::new(clock.rate, apic),
            ioapic: IoApic::new(),
            uart: GuestUart::new(),
            rtc: Rtc::new(),
            fw_cfg: FwCfg::new(),
            power: PowerRegisters::default(),
            button: PowerButton::default(),
            generation: GenerationNotice::default(),
            pit: Pit::new(clock.rate),
            erst: Erst::new(map::erst_buffer(layout)),
            test_port: TestPort::default(),
            bus: None,
        }
    }

    /// Gives the partition a bus with these devices; none without any.
    pub fn plug(&mut self, devices: GuestDevices) {
        let random = (devices.rng == DeviceSwitch::On).then(|| Arc::new(VirtioDevice::random()));
        self.bus = random.is_some().then(|| PciBus::new(random));
    }

    /// Resets the devices for the next incarnation. Error records and unread console output stay.
    pub fn restart(&mut self, clock: GuestClock, apic: ApicMode) {
        self.clock = clock;
        self.lapic = LocalApic::new(clock.rate, apic);
        self.ioapic = IoApic::new();
        self.rtc = Rtc::new();
        self.fw_cfg = FwCfg::new();
        self.power = PowerRegisters::default();
        self.button = PowerButton::default();
        self.generation = GenerationNotice::default();
        self.pit = Pit::new(clock.rate);
        self.uart.reset();
        self.erst.reset();
        self.bus.iter_mut().for_each(PciBus::reset);
    }

    /// Returns the clock of the incarnation.
    pub const fn clock(&self) -> &GuestClock {
        &self.clock
    }

    /// Returns the local APIC.
    pub const fn lapic(&self) -> &LocalApic {
        &self.lapic
    }

    /// Returns the local APIC, for changes that concern no other device (APIC base, TSC deadline,
    /// CR8, NMI).
    pub const fn lapic_mut(&mut self) -> &mut LocalApic {
        &mut self.lapic
    }

    /// Returns when [`Platform::advance`] must be called next, unless an access comes before.
    pub const fn next_deadline(&self) -> Option<Ticks> {
        self.lapic.deadline()
    }

    /// Lets the timers expire that are due.
    pub fn advance(&mut self, now: Ticks) {
        self.lapic.advance(now);
    }

    /// Returns the vector that a vCPU with interrupts enabled would take now.
    #[inline]
    pub fn interrupt(&self) -> Option<u8> {
        self.lapic.interrupt()
    }

    /// Returns whether an interrupt can still reach a CPU that halts with interrupts enabled: a
    /// pending one, the timer's, a key's, or the power button's.
    pub fn can_interrupt(&self) -> bool {
        let would_arrive = |pin| {
            self.ioapic.would_send(pin).is_some_and(|(destination, message)| {
                let arrives =
                    message.delivery == DeliveryMode::Nmi || self.lapic.would_take(message.vector);
                arrives && self.lapic.is_addressed(destination)
            })
        };
        self.lapic.interrupt().is_some()
            || self.lapic.awaits_timer()
            || would_arrive(map::COM1_PIN)
            || would_arrive(map::POWER_BUTTON_PIN)
            || self.bus.as_ref().is_some_and(PciBus::can_interrupt)
    }

    /// Returns the devices on the bus.
    pub fn bus_devices(&self) -> impl Iterator<Item = &Arc<VirtioDevice>> {
        self.bus.iter().flat_map(PciBus::devices)
    }

    /// Delivers the interrupts that devices on the bus have signalled.
    pub fn deliver_bus(&mut self) {
        let released: ArrayVec<_, { 2 * MOST_VECTORS }> =
            self.bus.iter_mut().flat_map(PciBus::deliver).flatten().collect();
        released.into_iter().for_each(|message| self.route(Some(message)));
    }

    /// Delivers the interrupts that an access to the bus has released; returns its effect.
    fn finish_bus_access(&mut self, news: FunctionNews) -> DeviceEffect {
        news.messages.into_iter().for_each(|message| self.route(Some(message)));
        if news.has_work { DeviceEffect::BusWork } else { DeviceEffect::None }
    }

    /// Notes that the vCPU takes `vector`, the answer of [`Platform::interrupt`].
    pub fn acknowledge(&mut self, vector: u8) {
        self.lapic.acknowledge(vector);
    }

    /// Makes the operator's NMI pending.
    pub fn raise_nmi(&mut self) {
        let nmi = lapic::InterruptMessage {
            vector: 2,
            delivery: lapic::DeliveryMode::Nmi,
            trigger: lapic::TriggerMode::Edge,
        };
        self.lapic.accept(nmi);
    }

    /// Presses the power button.
    pub fn press_power_button(&mut self) {
        self.button.press();
        self.pulse_power_button();
    }

    #[cold]
    fn pulse_power_button(&mut self) {
        let routed = self.button.pulse(&mut self.ioapic);
        self.route(routed);
    }

    /// Tells the guest that its generation ID has changed.
    pub fn change_generation(&mut self) {
        self.generation.raise();
        self.pulse_generation();
    }

    #[cold]
    fn pulse_generation(&mut self) {
        let routed = self.generation.pulse(&mut self.ioapic);
        self.route(routed);
    }

    /// Writes an MSR of the x2APIC range.
    ///
    /// # Errors
    /// [`ApicAccessError`]: #GP.
    #[inline]
    pub fn x2apic_write(
        &mut self,
        register: u8,
        value: u64,
        now: Ticks,
    ) -> Result<(), ApicAccessError> {
        let outcome = self.lapic.msr_write(register, value, now)?;
        self.finish_apic_write(outcome);
        Ok(())
    }

    /// Writes x2APIC's end-of-interrupt register.
    ///
    /// # Errors
    /// [`ApicAccessError`]: #GP.
    #[inline(always)]
    pub fn end_of_interrupt(&mut self, value: u64) -> Result<(), ApicAccessError> {
        let outcome = self.lapic.write_end_of_interrupt(value)?;
        self.finish_apic_write(outcome);
        Ok(())
    }

    /// Writes IA32_APIC_BASE. The registers' page must not lie in RAM or at another device.
    ///
    /// # Errors
    /// [`ApicAccessError`]: #GP.
    pub fn set_apic_base(
        &mut self,
        value: u64,
        memory: &dyn GuestMemory,
    ) -> Result<(), ApicAccessError> {
        let base = LocalApic::base_of(value);
        let moves = base != self.lapic.base();
        let is_ram =
            || !matches!(memory.read(Gpa::new(base), &mut [0]), Err(GuestMemoryError::NotRam(_)));
        if moves && (map::is_at_device(base) || is_ram()) {
            return Err(ApicAccessError);
        }
        self.lapic.set_base_msr(value)
    }

    /// Returns the number of typed bytes that the console still takes.
    pub fn console_room(&self) -> usize {
        self.uart.input_room()
    }

    /// Notes that output was taken; returns whether the guest can write again.
    pub fn console_taken(&mut self) -> bool {
        self.uart.output_taken();
        self.update_uart_line();
        !self.uart.is_full()
    }

    /// Types `bytes` on the partition's console.
    pub fn console_input(&mut self, bytes: &[u8]) {
        self.uart.type_in(bytes);
        self.update_uart_line();
    }

    /// Returns the console's output that has not been read yet.
    pub const fn console_output(&mut self) -> &mut ByteQueue {
        self.uart.output()
    }

    /// Returns the guest kernel's own words for its panic: from its console, else from a stored
    /// log.
    pub fn panic_text(&self) -> Option<CrashText> {
        self.uart.panic_text().or(self.erst.panic_text())
    }

    /// Returns the test port with its waiting lines.
    pub const fn test_port(&mut self) -> &mut TestPort {
        &mut self.test_port
    }

    /// Returns the VMCOREINFO note that the guest has reported.
    pub fn vmcoreinfo(&self) -> Option<VmcoreinfoNote> {
        self.fw_cfg.vmcoreinfo()
    }

    fn update_uart_line(&mut self) {
        let routed = self.ioapic.set_line(map::COM1_PIN, self.uart.line());
        self.route(routed);
    }

    #[inline(always)]
    fn finish_apic_write(&mut self, outcome: ApicOutcome) {
        if let ApicOutcome::EndOfInterrupt(vector) = outcome {
            self.end_level(vector);
        }
    }

    #[cold]
    fn end_level(&mut self, vector: u8) {
        let routed = self.ioapic.end_of_interrupt(vector);
        self.route(routed);
    }

    fn route(&mut self, routed: Option<RoutedMessage>) {
        if let Some((destination, message)) = routed
            && self.lapic.is_addressed(destination)
        {
            self.lapic.accept(message);
        }
    }
}
