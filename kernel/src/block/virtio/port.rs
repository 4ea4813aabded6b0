//! The driver's interface to the device: virtio-drivers' transport, plus the parts missing there.

use virtio_drivers::transport::Transport;

/// Why a port cannot serve the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortError {
    /// The device has no resources for the vector.
    Vector,
    /// The doorbell lies outside the notification registers.
    Doorbell,
}

impl core::fmt::Display for PortError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Vector => f.write_str("the device has no resources for an interrupt vector"),
            Self::Doorbell => f.write_str("the device's doorbell lies outside its registers"),
        }
    }
}

/// A transport with a vector, a doorbell, and a way to cut the device off.
pub trait VirtioPort: Transport + Send {
    /// Connects `queue` to its interrupt and finds its doorbell. Called before the queue is
    /// enabled, and again after each reset.
    ///
    /// # Errors
    /// [`PortError`] if the device refuses.
    fn prepare_queue(&mut self, queue: u16) -> Result<(), PortError>;

    /// Disables the device's access to memory for good, after it has not completed a reset.
    fn cut_off(&mut self);
}
