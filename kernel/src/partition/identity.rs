//! The identity of a machine that may be there twice: a clone, or a state that runs once more.

use super::devices::map::GENERATION_ID;
use super::saved::SavedMachine;
use crate::addr::Gpa;
use crate::arch::instr;
use crate::host::Host;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::mm::guest_bytes::GuestBytes;
use crate::mm::object::MemoryObject;
use crate::space::Uuid;
use crate::task;

/// Returns a generation ID that no other machine has: from the CPU's random numbers, or at least
/// from its clocks.
pub fn new_generation(host: &Host, name: &str) -> [u8; 16] {
    let random = || instr::random().unwrap_or(0);
    let numbers = [random(), random(), instr::rdtsc().as_u64(), host.unix_ns()];
    Uuid::of_start(name.as_bytes(), &numbers).0
}

/// Tells a guest that its identity or its time was doubled: it gets another generation ID, and the
/// notice of that. To be called before the guest goes on, with its memory attached.
///
/// # Errors
/// [`GuestMemoryError`]: the page of the ID cannot be had.
pub async fn was_doubled(
    host: &'static Host,
    name: &str,
    object: &MemoryObject,
    machine: &mut SavedMachine,
) -> Result<(), GuestMemoryError> {
    let id = new_generation(host, name);
    loop {
        let memory = GuestBytes { object, memory: host.memory, faulter: &host.pager };
        match memory.write(Gpa::new(GENERATION_ID), &id) {
            Ok(()) => break,
            Err(GuestMemoryError::NotResident(_)) => task::next_turn().await,
            Err(error) => return Err(error),
        }
    }
    machine.change_generation();
    Ok(())
}
