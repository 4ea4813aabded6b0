//! The part of a partition that other CPUs may read and use while its vCPU runs.
//!
//! The runner (`partition::runner`) belongs to the CPU that runs it; all other CPUs use this part.
//! Requests are bits that the runner takes at its next stop (its CPU is kicked). The runner
//! publishes its state here.

use super::exit_counts::ExitCounts;
use super::view::LifecycleView;
use crate::config::{self, DumpPolicy, RestartPolicy};
use crate::console::ring::ByteRing;
use crate::images::define::KnownDefinition;
use crate::partition::clones::CloneOrigin;
use crate::partition_id::PartitionId;
use crate::storage::stores::StoreOrigin;
use crate::sync::{RankedLock, rank};
use crate::time::{AtomicNs, Ns};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

/// A request to a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PartitionRequest {
    /// Crash, as if the guest had panicked.
    Crash = 1 << 0,
    /// Stop until the operator starts it again.
    Stop = 1 << 1,
    /// Crash, because its pages cannot be written and other partitions starve for its frames.
    GiveUp = 1 << 2,
    /// End in order: press the power button, and stop if the guest has not ended in time.
    ShutDown = 1 << 3,
    /// Start again after a stop.
    Start = 1 << 4,
    /// Share the serial line with other partitions from now on.
    ShareLine = 1 << 5,
    /// Leave the node: its definition is gone.
    Leave = 1 << 6,
    /// Be suspended into its paging space.
    Suspend = 1 << 7,
    /// Go on from its suspended state.
    Resume = 1 << 8,
    /// Deliver the interrupts that devices on its bus have signalled.
    BusNews = 1 << 9,
}

/// What a crash leads to: the operator may change it while the partition runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CrashPolicy {
    /// The indication.
    pub dump: DumpPolicy,
    /// When it runs again.
    pub restart: RestartPolicy,
}

impl CrashPolicy {
    const DUMPS: [DumpPolicy; 2] = [DumpPolicy::Aided, DumpPolicy::Off];
    const RESTARTS: [RestartPolicy; 3] =
        [RestartPolicy::Threshold, RestartPolicy::Immediate, RestartPolicy::Never];

    /// Packs the policy into a byte.
    const fn pack(self) -> u8 {
        let dump = match self.dump {
            DumpPolicy::Aided => 0,
            DumpPolicy::Off => 1,
        };
        let restart = match self.restart {
            RestartPolicy::Threshold => 0,
            RestartPolicy::Immediate => 1,
            RestartPolicy::Never => 2,
        };
        restart << 1 | dump
    }

    fn unpack(byte: u8) -> Self {
        let (dump, restart) = (usize::from(byte & 1), usize::from(byte >> 1));
        Self { dump: Self::DUMPS[dump], restart: Self::RESTARTS[restart % Self::RESTARTS.len()] }
    }
}

/// Where a partition stands that is to go to another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MoveMark {
    /// It is not.
    None,
    /// It is on its way.
    Leaves,
    /// It could not be suspended.
    Stays,
}

/// Bytes typed at a console that the guest has not taken yet.
const TYPED: usize = 1024;
/// Keys are held back this long at most for a guest that takes none.
const HOLD_NS: Ns = Ns::from_secs(5);
/// No memory object: the partition has never started.
const NO_OBJECT: u32 = u32::MAX;

/// The shared part of a partition.
pub struct SharedPartition {
    /// Its number on the node, set by the registry.
    number: AtomicU16,
    /// Its configuration. [`Self::policy`] has the present values of `dump` and `restart`.
    pub config: config::PartitionConfig,
    policy: AtomicU8,
    /// The place of its kernel and initrd if they are in an image store, not in the boot archive.
    pub stored: Option<StoreOrigin>,
    /// The base that it is a clone of.
    pub clone_of: Option<CloneOrigin>,
    /// Exits of its vCPU so far, counted by the CPU that runs it.
    pub exits: ExitCounts,
    /// Crashes so far that left no dump, because the largest number of dumps was kept already.
    pub dumps_skipped: AtomicU64,
    /// How often it was defined in its store, as far as this node knows.
    generation: AtomicU64,
    /// Its definition is being written in its store: it neither starts nor leaves meanwhile.
    is_held: AtomicBool,
    /// A [`MoveMark`].
    moves: AtomicU8,
    requests: AtomicU32,
    /// How long the guest has for [`PartitionRequest::ShutDown`].
    shutdown_ns: AtomicNs,
    view: AtomicU8,
    incarnation: AtomicU64,
    object: AtomicU32,
    typed: RankedLock<ByteRing<TYPED>, { rank::EVENTS }>,
    /// Whether `typed` holds anything; changed under its lock.
    has_typed: AtomicBool,
    /// The time since which keys are held back; 0 if they are not.
    held_ns: AtomicNs,
}

impl SharedPartition {
    /// Makes the shared part of a partition that starts as soon as it can.
    pub fn new(config: config::PartitionConfig) -> Self {
        Self::with_view(config, None, LifecycleView::Waiting)
    }

    /// Makes the shared part of a partition that starts only when it is told to, with images from
    /// the boot archive or from a store.
    pub fn stopped(config: config::PartitionConfig, stored: Option<StoreOrigin>) -> Self {
        Self::with_view(config, stored, LifecycleView::Stopped)
    }

    /// Makes the shared part of a clone, which starts when it is told to.
    pub fn cloned(
        config: config::PartitionConfig,
        stored: Option<StoreOrigin>,
        origin: CloneOrigin,
    ) -> Self {
        Self { clone_of: Some(origin), ..Self::stopped(config, stored) }
    }

    fn with_view(
        config: config::PartitionConfig,
        stored: Option<StoreOrigin>,
        view: LifecycleView,
    ) -> Self {
        let policy = CrashPolicy { dump: config.dump, restart: config.restart };
        Self {
            number: AtomicU16::new(0),
            config,
            policy: AtomicU8::new(policy.pack()),
            stored,
            clone_of: None,
            exits: ExitCounts::default(),
            dumps_skipped: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
            moves: AtomicU8::new(MoveMark::None as u8),
            requests: AtomicU32::new(0),
            shutdown_ns: AtomicNs::new(Ns::ZERO),
            view: AtomicU8::new(view as u8),
            incarnation: AtomicU64::new(0),
            object: AtomicU32::new(NO_OBJECT),
            typed: RankedLock::new(ByteRing::new()),
            has_typed: AtomicBool::new(false),
            held_ns: AtomicNs::new(Ns::ZERO),
        }
    }

    /// Returns what the next crash leads to.
    pub fn policy(&self) -> CrashPolicy {
        CrashPolicy::unpack(self.policy.load(Ordering::Relaxed))
    }

    /// Changes what the next crash leads to.
    pub fn set_policy(&self, policy: CrashPolicy) {
        self.policy.store(policy.pack(), Ordering::Relaxed);
    }

    /// Packs what the next crash leads to, for a message.
    pub fn packed_policy(&self) -> u8 {
        self.policy.load(Ordering::Relaxed)
    }

    /// Takes over what [`Self::packed_policy`] has packed.
    pub fn set_packed_policy(&self, byte: u8) {
        self.set_policy(CrashPolicy::unpack(byte));
    }

    /// Returns where it stands on its way to another node.
    pub fn move_mark(&self) -> MoveMark {
        let byte = self.moves.load(Ordering::Acquire);
        let marks = [MoveMark::Leaves, MoveMark::Stays];
        marks.into_iter().find(|mark| *mark as u8 == byte).unwrap_or(MoveMark::None)
    }

    /// Begins a move; returns false if one is under way.
    pub fn begin_move(&self) -> bool {
        let (none, leaves) = (MoveMark::None as u8, MoveMark::Leaves as u8);
        self.moves.compare_exchange(none, leaves, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Notes that it could not be suspended.
    pub fn note_stay(&self) {
        let (leaves, stays) = (MoveMark::Leaves as u8, MoveMark::Stays as u8);
        let _ = self.moves.compare_exchange(leaves, stays, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Ends a move.
    pub fn end_move(&self) {
        self.moves.store(MoveMark::None as u8, Ordering::Release);
    }

    /// Returns its number on the node.
    pub fn id(&self) -> PartitionId {
        PartitionId::new(self.number.load(Ordering::Relaxed))
    }

    /// Sets its number on the node, before any other CPU knows it.
    pub fn set_id(&self, id: PartitionId) {
        self.number.store(id.as_u16(), Ordering::Relaxed);
    }

    /// Returns the partition's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Returns its definition in an image store, as this node has read or written it last.
    pub fn known_definition(&self) -> Option<(StoreOrigin, KnownDefinition)> {
        let origin = self.stored?;
        let generation = self.generation.load(Ordering::Acquire);
        Some((origin, KnownDefinition { partition: origin.definition?, generation }))
    }

    /// Sets how often it was defined in its store.
    pub fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Keeps it from starting and from leaving; returns whether it was free to.
    pub fn hold(&self) -> bool {
        !self.is_held.swap(true, Ordering::AcqRel)
    }

    /// Ends [`Self::hold`].
    pub fn let_go(&self) {
        self.is_held.store(false, Ordering::Release);
    }

    /// Returns whether it is kept from starting and from leaving.
    pub fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    /// Sends a request. The caller must then kick the partition's CPU.
    pub fn ask(&self, request: PartitionRequest) {
        self.requests.fetch_or(request as u32, Ordering::AcqRel);
    }

    /// Requests the end of the partition: in order within `timeout`, or at once without one. The
    /// caller must then kick the partition's CPU.
    pub fn ask_to_stop(&self, timeout: Ns) {
        if timeout == Ns::ZERO {
            return self.ask(PartitionRequest::Stop);
        }
        self.shutdown_ns.store(timeout, Ordering::Relaxed);
        // After the time, which the runner reads when it takes the request.
        self.ask(PartitionRequest::ShutDown);
    }

    /// Returns how long the guest has to end in order.
    pub fn shutdown_timeout(&self) -> Ns {
        self.shutdown_ns.load(Ordering::Relaxed)
    }

    /// Returns whether there is any request: cheap enough for every stop.
    pub fn is_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) != 0
    }

    /// Returns whether `request` was asked and has not been taken.
    pub fn is_asked_to(&self, request: PartitionRequest) -> bool {
        self.requests.load(Ordering::Acquire) & request as u32 != 0
    }

    /// Takes `request` if it was asked.
    pub fn take(&self, request: PartitionRequest) -> bool {
        self.requests.fetch_and(!(request as u32), Ordering::AcqRel) & request as u32 != 0
    }

    /// Types a byte at the partition's console. A byte that does not fit is lost, so the caller
    /// checks [`Self::takes_keys`] first.
    pub fn type_byte(&self, byte: u8) {
        let mut typed = self.typed.lock();
        typed.push(&[byte]);
        self.has_typed.store(true, Ordering::Release);
    }

    /// Returns whether a typed byte is taken at `now_ns`: there is room, or the guest has taken
    /// nothing for so long that keys are not held back for it any more. Keys held back would hold
    /// back the escape key behind them, too.
    pub fn takes_keys(&self, now_ns: Ns) -> bool {
        if self.typed.lock().room() > 0 {
            self.held_ns.store(Ns::ZERO, Ordering::Relaxed);
            return true;
        }
        match self.held_ns.load(Ordering::Relaxed) {
            Ns::ZERO => self.held_ns.store(now_ns.max(Ns::new(1)), Ordering::Relaxed),
            since => return now_ns.saturating_sub(since) >= HOLD_NS,
        }
        false
    }

    /// Types all of `bytes`, or none of them if they do not fit; returns whether it did.
    pub fn type_all(&self, bytes: &[u8]) -> bool {
        let mut typed = self.typed.lock();
        let fits = typed.push(bytes);
        self.has_typed.store(!typed.is_empty(), Ordering::Release);
        fits
    }

    /// Returns whether [`Self::take_typed`] may return any bytes: cheap enough for every stop.
    #[inline]
    pub fn has_typed(&self) -> bool {
        self.has_typed.load(Ordering::Acquire)
    }

    /// Takes up to 16 typed bytes, and no more than `room`.
    pub fn take_typed(&self, room: usize) -> ArrayVec<u8, 16> {
        let mut bytes = ArrayVec::new();
        let mut typed = self.typed.lock();
        typed.peek_into(&mut bytes);
        bytes.truncate(room);
        typed.discard(bytes.len());
        self.has_typed.store(!typed.is_empty(), Ordering::Relaxed);
        bytes
    }

    /// Returns where the partition is in its life.
    pub fn view(&self) -> LifecycleView {
        LifecycleView::ALL
            [usize::from(self.view.load(Ordering::Acquire)) % LifecycleView::ALL.len()]
    }

    /// Returns the number of its incarnation; 0 before the first.
    pub fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Returns the number of its live memory object.
    pub fn object(&self) -> Option<u16> {
        u16::try_from(self.object.load(Ordering::Acquire)).ok()
    }

    pub(super) fn publish(&self, view: LifecycleView) {
        self.view.store(view as u8, Ordering::Release);
    }

    pub(super) fn publish_incarnation(&self, number: u64, object: u16) {
        self.object.store(u32::from(object), Ordering::Release);
        self.incarnation.store(number, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KernelModules, PartitionConfig};

    fn shared() -> SharedPartition {
        let config = PartitionConfig {
            name: "a".into(),
            memory_bytes: 4096,
            kernel: KernelModules { image: "k".into(), initrd: None },
            cmdline: "".into(),
            dump: DumpPolicy::Aided,
            dump_bound: None,
            restart: RestartPolicy::Immediate,
            boot_memory_bytes: None,
            hang_timeout_ns: None,
            restart_limit: None,
            console: config::ConsoleRoute::Screen,
            devices: config::GuestDevices::default(),
        };
        SharedPartition::new(config)
    }

    #[test]
    fn requests_have_the_words_of_the_history() {
        let words = crate::log::history::words::REQUESTS;
        for (request, word) in [
            (PartitionRequest::Crash, "crash"),
            (PartitionRequest::Stop, "stop"),
            (PartitionRequest::GiveUp, "give up"),
            (PartitionRequest::ShutDown, "shut down"),
        ] {
            assert_eq!(words[request as usize], word);
        }
    }

    #[test]
    fn every_policy_is_kept_as_it_is_set() {
        let shared = shared();
        let first = CrashPolicy { dump: DumpPolicy::Aided, restart: RestartPolicy::Immediate };
        assert_eq!(shared.policy(), first);
        for dump in CrashPolicy::DUMPS {
            for restart in CrashPolicy::RESTARTS {
                shared.set_policy(CrashPolicy { dump, restart });
                assert_eq!(shared.policy(), CrashPolicy { dump, restart });
            }
        }
    }

    #[test]
    fn a_request_is_taken_once() {
        let shared = shared();
        shared.ask(PartitionRequest::Crash);
        assert!(shared.is_asked() && !shared.take(PartitionRequest::Stop));
        assert!(
            shared.take(PartitionRequest::Crash)
                && !shared.take(PartitionRequest::Crash)
                && !shared.is_asked()
        );
    }

    #[test]
    fn a_stop_without_time_is_a_stop_at_once() {
        let shared = shared();
        shared.ask_to_stop(Ns::ZERO);
        assert!(shared.take(PartitionRequest::Stop) && !shared.is_asked());
        shared.ask_to_stop(Ns::new(7));
        assert_eq!(
            (shared.take(PartitionRequest::ShutDown), shared.shutdown_timeout(), shared.is_asked()),
            (true, Ns::new(7), false)
        );
    }

    #[test]
    fn typed_bytes_are_announced_until_the_last_is_taken() {
        let shared = shared();
        assert!(!shared.has_typed());
        (0..20).for_each(|byte| shared.type_byte(byte));
        assert_eq!((shared.has_typed(), shared.take_typed(99).len()), (true, 16));
        assert_eq!((shared.has_typed(), shared.take_typed(0).len()), (true, 0));
        assert_eq!((shared.has_typed(), shared.take_typed(3).len()), (true, 3));
        assert_eq!((shared.has_typed(), shared.take_typed(99).len()), (true, 1));
        assert!(!shared.has_typed());
    }

    #[test]
    fn keys_are_held_back_while_there_is_no_room_but_not_for_ever() {
        let shared = shared();
        (0..TYPED).for_each(|_| {
            assert!(shared.takes_keys(Ns::new(7)));
            shared.type_byte(b'x');
        });
        assert!(
            !shared.takes_keys(Ns::new(10))
                && !shared.takes_keys(Ns::new(9) + HOLD_NS)
                && shared.takes_keys(Ns::new(10) + HOLD_NS)
        );
        shared.take_typed(1);
        assert!(shared.takes_keys(Ns::new(11) + HOLD_NS));
        shared.type_byte(b'x');
        assert!(!shared.takes_keys(Ns::new(12) + HOLD_NS), "held back anew");
    }

    #[test]
    fn what_does_not_fit_is_not_typed_in_part() {
        let shared = shared();
        assert!(
            shared.type_all(&[1; TYPED - 1]) && !shared.type_all(&[2, 3]) && shared.type_all(&[4])
        );
        let typed: Vec<u8> =
            std::iter::from_fn(|| Some(shared.take_typed(16)).filter(|bytes| !bytes.is_empty()))
                .flatten()
                .collect();
        assert_eq!((typed.len(), typed[TYPED - 1]), (TYPED, 4));
    }

    #[test]
    fn what_is_published_is_seen() {
        let shared = shared();
        assert_eq!(
            (shared.view(), shared.incarnation(), shared.object()),
            (LifecycleView::Waiting, 0, None)
        );
        shared.publish(LifecycleView::Crashed);
        shared.publish_incarnation(3, 7);
        assert_eq!(
            (shared.view(), shared.incarnation(), shared.object()),
            (LifecycleView::Crashed, 3, Some(7))
        );
    }
}
