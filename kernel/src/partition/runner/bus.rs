//! The devices on the partition's bus: their memory, their work and their interrupts.

use super::Runner;
use crate::host::Host;
use crate::partition::serving;

impl Runner {
    /// Gives the devices the memory of the incarnation, in which they may have work left.
    pub(super) fn attach_bus(&mut self, host: &'static Host) {
        let Some(object) = &self.object else { return };
        self.machine.platform.bus_devices().for_each(|device| device.attach(object.clone()));
        self.serve_bus(host);
    }

    /// Takes the memory away from the devices. What they have signalled reaches the local APIC, so
    /// that nothing of it is left outside of the machine.
    pub(super) fn cut_off_bus(&mut self) {
        self.machine.platform.bus_devices().for_each(|device| device.cut_off());
        self.machine.platform.deliver_bus();
    }

    /// Lets the devices work.
    pub(super) fn serve_bus(&mut self, host: &'static Host) {
        for device in self.machine.platform.bus_devices() {
            serving::serve(host, &self.shared, device);
        }
        self.machine.platform.deliver_bus();
    }
}
