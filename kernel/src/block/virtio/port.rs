//! The device as the driver sees it: virtio-drivers' transport, and what that lacks.

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
pub trait Port: Transport + Send {
    /// Ties `queue` to its interrupt and finds its doorbell, before the queue is enabled; again after each reset.
    ///
    /// # Errors
    /// [`PortError`] where the device refuses.
    fn prepare_queue(&mut self, queue: u16) -> Result<(), PortError>;

    /// Takes the device's access to memory away for good: it has not obeyed a reset.
    fn cut_off(&mut self);
}
