//! Whether a guest handles an NMI, by the hypervisor's own record.
//!
//! ```text
//!            an NMI is injected
//!   idle ───────────────────────> handling
//!        <───────────────────────
//!          IRET: the CPU's bit is clear, and no event waits for its delivery
//! ```
//!
//! With virtual NMIs the guest's blocking begins by an injection alone, and an entry takes it from
//! the VMCS (SDM 3C "Loading Guest Non-Register State"). Bochs 2.7 sets the blocking at an entry
//! and never clears it there: a guest that is entered while another one handles an NMI appears as
//! blocked for good, and its own NMIs would wait for ever. So the CPU's bit counts only for a guest
//! that has had an NMI.
//!
//! While a vCPU stays on its CPU no other guest runs there, so the bit is right from the injection
//! on. The record is therefore brought up to date when the vCPU leaves the CPU.

/// The record of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NmiRecord {
    /// The guest handles none.
    Idle,
    /// An NMI was injected, and the guest was not seen behind its IRET.
    Handling,
}

/// Whether an event waits for the next entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum QueueState {
    /// None does.
    Empty,
    /// One does: perhaps the NMI, whose delivery an exit has interrupted.
    Occupied,
}

impl NmiRecord {
    /// Returns whether the guest's NMIs are blocked. `bit` is "blocking by NMI" in the VMCS.
    pub(super) const fn is_blocked(self, bit: bool) -> bool {
        matches!(self, Self::Handling) && bit
    }

    /// Returns the record of a vCPU that leaves its CPU.
    pub(super) const fn left(self, bit: bool, queue: QueueState) -> Self {
        match (self, queue) {
            (Self::Handling, QueueState::Empty) if !bit => Self::Idle,
            (same, _) => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_without_an_injection_is_another_guests() {
        assert!(!NmiRecord::Idle.is_blocked(true));
        assert!(!NmiRecord::Idle.is_blocked(false));
        assert_eq!(NmiRecord::Idle.left(true, QueueState::Empty), NmiRecord::Idle);
    }

    #[test]
    fn an_injected_nmi_blocks_until_the_bit_is_clear() {
        let handling = NmiRecord::Handling;
        assert!(handling.is_blocked(true));
        assert!(!handling.is_blocked(false));
        assert_eq!(handling.left(true, QueueState::Empty), handling);
        let behind = handling.left(false, QueueState::Empty);
        assert!(!behind.is_blocked(true), "set by another guest since");
    }

    #[test]
    fn an_nmi_whose_delivery_was_interrupted_is_not_over() {
        // The bit is clear until the NMI is delivered again.
        let waits = NmiRecord::Handling.left(false, QueueState::Occupied);
        assert!(waits.is_blocked(true), "and then it is set");
    }
}
