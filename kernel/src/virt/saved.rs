//! What a vCPU holds beside [`Regs`](super::Regs) and [`CpuState`](super::CpuState), while its
//! partition is suspended.
//!
//! The queued event is in the back end's own words, because vendors differ in the deliveries that
//! an exit can interrupt. So a vCPU is restored by the back end that saved it.

/// Pending events, blocking, and registers that no field of a state holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SavedEvents {
    /// The event for the next entry: injected, or interrupted in its delivery.
    pub queued: Option<SavedEvent>,
    /// An interrupt that waits in the virtual interrupt of SVM.
    pub virtual_interrupt: Option<u8>,
    /// Shadows: bit 0 of STI (on SVM of either), bit 1 of MOV SS.
    pub shadow: u8,
    /// An NMI is being handled.
    pub blocks_nmis: bool,
    /// Debug exceptions that are due, in DR6's layout (VMX).
    pub pending_debug: u64,
    /// CR8.
    pub task_priority: u8,
    /// DR0 to DR3.
    pub debug_addresses: [u64; 4],
    /// The page-directory pointers of 32-bit PAE paging, which only the CPU loads (VMX).
    pub directory_pointers: [u64; 4],
}

/// An event in the back end's own words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SavedEvent {
    /// VMX: the interruption information. SVM: EVENTINJ.
    pub word: u64,
    /// Its error code (VMX).
    pub error_code: u32,
    /// The length of its instruction (VMX).
    pub length: u32,
}
