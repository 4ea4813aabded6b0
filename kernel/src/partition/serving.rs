//! Serves the devices on a partition's bus.
//!
//! ```text
//!   notification ──> the vCPU's CPU, once ── not done: a page, a flush, more ──> a task, on any CPU
//!                          │ done                                                      │ done
//!                          └──────────> vectors raised ──> the runner delivers them <──┘
//! ```
//!
//! A request that waits for a page waits in its task; the vCPU goes on. A turn of a device is
//! bounded, and takes place under the device's lock. So a device that was cut off from its memory
//! accesses no page of it any more, whatever task serves it.

use super::device_memory::{DeviceMemory, DeviceWait};
use super::devices::virtio::device::{ServeEnd, VirtioDevice};
use super::shared::{PartitionRequest, SharedPartition};
use crate::arch::instr;
use crate::host::Host;
use crate::mm::object::MemoryObject;
use crate::task;
use alloc::sync::Arc;

/// Serves a device that may have work: at once, and by a task if that was not enough.
pub(super) fn serve(
    host: &'static Host,
    shared: &Arc<SharedPartition>,
    device: &Arc<VirtioDevice>,
) {
    let Some((epoch, object)) = device.begin() else { return };
    let memory = DeviceMemory::new(host, &object);
    let end = device.serve(epoch, &memory, &mut instr::random);
    if let ServeEnd::Again | ServeEnd::Waits = end {
        let wait = (end == ServeEnd::Waits).then(|| memory.wait());
        let turn = DeviceTurn { epoch, object, wait };
        host.tasks.start(go_on(host, shared.clone(), device.clone(), turn));
    }
    give_up_if_lost(shared, end);
}

/// A turn of a device that has not ended its work.
struct DeviceTurn {
    epoch: u64,
    object: Arc<MemoryObject>,
    /// `None`: there is more to do at once.
    wait: Option<DeviceWait>,
}

async fn go_on(
    host: &'static Host,
    shared: Arc<SharedPartition>,
    device: Arc<VirtioDevice>,
    first: DeviceTurn,
) {
    let mut turn = first;
    loop {
        turn.over(host, &device).await;
        let Some((epoch, object)) = device.go_on() else { return };
        let memory = DeviceMemory::new(host, &object);
        let end = device.serve(epoch, &memory, &mut instr::random);
        let wait = (end == ServeEnd::Waits).then(|| memory.wait());
        give_up_if_lost(&shared, end);
        if device.has_raised() || matches!(end, ServeEnd::Lost(_)) {
            shared.ask(PartitionRequest::BusNews);
            host.poke(shared.id());
        }
        match end {
            ServeEnd::Idle | ServeEnd::Lost(_) => return,
            ServeEnd::Again | ServeEnd::Waits => turn = DeviceTurn { epoch, object, wait },
        }
    }
}

impl DeviceTurn {
    /// Waits until the device can go on, or has lost its memory.
    async fn over(mut self, host: &'static Host, device: &VirtioDevice) {
        match &mut self.wait {
            None => task::yield_now().await,
            // It passes within microseconds, and no interrupt says so.
            Some(DeviceWait::Flush(flush)) => {
                while flush.poll(host.words).is_none() {
                    task::yield_now().await;
                }
            }
            Some(DeviceWait::Page(ticket)) => {
                let (epoch, object, ticket) = (self.epoch, &self.object, *ticket);
                let is_over = || device.epoch() != epoch || object.ready(ticket);
                task::until(|| is_over().then_some(())).await;
            }
        }
    }
}

/// Ends a partition whose device needs a page that cannot be had.
fn give_up_if_lost(shared: &SharedPartition, end: ServeEnd) {
    if let ServeEnd::Lost(_) = end {
        shared.ask(PartitionRequest::GiveUp);
    }
}
