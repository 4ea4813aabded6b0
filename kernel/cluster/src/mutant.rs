//! Rules that a test can switch off one by one, to see that the simulation misses them. Programs
//! have no switch: `mutant!` is `false` there.

/// A rule that is switched off.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Mutant {
    /// Splitter: Y is not read after the write of X.
    SkipY,
    /// Splitter: X is not read again after the write of Y.
    SkipX,
    /// A write that was sent several times counts from the first completion on.
    FirstCopyCounts,
    /// A registration ends although its decree may still be decided.
    GiveUpLate,
    /// A slot is cleared and given out again while nodes run.
    ReuseSlot,
    /// Log: the second phase does not read the other blocks.
    BlindSecondPhase,
    /// Log: the value of the highest ballot is not taken over.
    OwnValue,
    /// A fence is proposed without a second read after the suspicion.
    NoSecondRead,
    /// A suspect does not look.
    SuspectBlind,
    /// A lease counts from the completion of the beat.
    LeaseFromCompletion,
    /// The watch is a beat shorter than the lease.
    ShortWatch,
    /// The watch begins at the submission of the read that saw the beat.
    WatchFromSubmission,
    /// A suspicion is withdrawn while its proposal is open.
    WithdrawOpen,
    /// A lease is extended although another member knows a later decree.
    ExtendBehind,
    /// The heir goes on in the space of the dead member.
    InPlace,
    /// Time alone counts as proof of quiet.
    QuietByAge,
    /// A member signs off, and gives spaces away, although a request was abandoned.
    AbandonedRequest,
    /// A space is taken back by its record alone.
    TakeBackByRecord,
    /// SUSPENDED is written before the pages have completed.
    EarlySuspended,
    /// A space is given away by a message instead of a decree.
    Gift,
    /// A record of an older epoch than the log's is believed.
    OldRecord,
    /// A space that comes back is taken for a space that was never away.
    KeepMemory,
    /// A joiner recovers spaces that the log does not give to it.
    JoinerRecovers,
    /// A space is given away before its record has completed.
    LateRecord,
    /// A beat that cannot be read shows no life although its bytes change.
    TornStandsStill,
    /// A beat that cannot be read is answered by a decree, which ends nothing.
    TornNamesAll,
    /// A decree is carried out although the owner is another one than it says.
    StaleOwner,
    /// Something is given to a member that is not up.
    GiveToDown,
    /// A partition changes hands without the space that its living owner has for it.
    OwnWithoutSpace,
    /// A space that is bound to a partition is taken for another one.
    TakeBound,
    /// A partition goes along with a space that is not bound to it.
    HandOverUnbound,
    /// A fenced member's space is released before it is quiet.
    ReleaseEarly,
    /// A partition without owner and space keeps its row.
    KeepUnowned,
    /// Standing: a space counts as taken although it is bound to another partition.
    DoneUnbound,
    /// Standing: a space may be taken for another member's partition.
    TakeForOthers,
    /// Standing: a quarantined space may be released.
    OpenQuarantine,
    /// Local copy: a decree counts before a beat has announced it.
    CountsDecided,
    /// Local copy: an area that knows less is joined.
    JoinsOld,
    /// Local copy: what was announced is forgotten when a node registers anew.
    ForgetsAnnounced,
    /// A message is read although it was read before.
    DeliverTwice,
    /// A message for which there is no room is acknowledged.
    AckUnread,
    /// An earlier version of a block of mail is believed.
    OldBlock,
}

#[cfg(test)]
std::thread_local! {
    static ACTIVE: core::cell::Cell<Option<Mutant>> = const { core::cell::Cell::new(None) };
    static FIRED: core::cell::RefCell<std::collections::BTreeMap<Mutant, u64>> =
        const { core::cell::RefCell::new(std::collections::BTreeMap::new()) };
}

/// Returns whether a rule is switched off, and counts that it was asked.
#[cfg(test)]
pub(crate) fn is_off(mutant: Mutant) -> bool {
    FIRED.with_borrow_mut(|all| *all.entry(mutant).or_default() += 1);
    active() == Some(mutant)
}

/// Returns how often this thread has asked for a rule. Rules that forbid something are asked only
/// where it would be done.
#[cfg(test)]
pub(crate) fn fired(mutant: Mutant) -> u64 {
    FIRED.with_borrow(|all| all.get(&mutant).copied().unwrap_or(0))
}

/// Switches a rule off in this thread.
#[cfg(test)]
pub(crate) fn set(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// Returns the rule that is switched off in this thread.
#[cfg(test)]
pub(crate) fn active() -> Option<Mutant> {
    ACTIVE.get()
}

/// Tells whether a rule is switched off.
#[cfg(test)]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::is_off($crate::mutant::Mutant::$name)
    };
}

/// Tells whether a rule is switched off: never.
#[cfg(not(test))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}
