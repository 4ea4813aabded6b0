//! The identity of a machine that may be there twice: a clone, or a state that runs once more.

use super::devices::Platform;
use super::devices::map::GENERATION_ID;
use crate::addr::Gpa;
use crate::arch::instr;
use crate::host::Host;
use crate::mm::guest::{GuestMemory, GuestMemoryError};
use crate::space::Uuid;

/// Returns a generation ID that no other machine has: from the CPU's random numbers, or at least
/// from its clocks.
pub fn new_generation(host: &Host, name: &str) -> [u8; 16] {
    let random = || instr::random().unwrap_or(0);
    let numbers = [random(), random(), instr::rdtsc().as_u64(), host.unix_ns()];
    Uuid::of_start(name.as_bytes(), &numbers).0
}

/// Tells a guest that its identity was doubled: it gets another generation ID, and the notice of
/// that. To be called before the guest goes on.
///
/// # Errors
/// [`GuestMemoryError`]: the page of the ID is not resident, or cannot be had. Nothing has changed
/// then.
pub fn was_doubled(
    platform: &mut Platform,
    memory: &impl GuestMemory,
    id: &[u8; 16],
) -> Result<(), GuestMemoryError> {
    memory.write(Gpa::new(GENERATION_ID), id)?;
    platform.change_generation();
    Ok(())
}
