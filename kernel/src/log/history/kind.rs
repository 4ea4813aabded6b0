//! The kinds of entries: number, name, and the meaning of an entry's three numbers.
//!
//! A number is never used again for another kind: a dump keeps entries for years. A reader that
//! does not know a kind shows its numbers.

use super::words::{
    ACCESSES, BATCHES, CRASHES, DISK_ERRORS, LOSSES, REPORTS, REQUESTS, SEALS, SELF_TESTS, SPACES,
};

/// Which of a subject's rings an entry goes to. So frequent events never displace rare ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryLane {
    /// Life-cycle, errors, state changes: a few in an incarnation.
    Rare,
    /// Batches, and events that a guest can cause at will: up to thousands in a second.
    Frequent,
}

/// The meaning of an entry's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeMeaning {
    /// It has none.
    None,
    /// A number with this label.
    Number(&'static str),
    /// A label, and the words for the codes from 0 on.
    Words(&'static str, &'static [&'static str]),
}

/// Name and meaning of a kind of entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KindShape {
    /// Its name for people.
    pub name: &'static str,
    /// The meaning of the code.
    pub code: CodeMeaning,
    /// Labels of the two numbers; empty for a number without a meaning. A label that ends in `:x`
    /// stands before a hexadecimal number.
    pub numbers: [&'static str; 2],
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $number:literal $kind:ident $lane:ident $name:literal
        ($code:expr, $first:literal, $second:literal);)*) => {
        /// The kind of an entry. The number is the one in a dump's note.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u16)]
        pub enum HistoryKind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl HistoryKind {
            /// All kinds, in ascending order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Returns the ring.
            pub const fn lane(self) -> HistoryLane {
                match self {
                    $(Self::$kind => HistoryLane::$lane,)*
                }
            }

            /// Returns name and meaning.
            pub const fn shape(self) -> KindShape {
                match self {
                    $(Self::$kind => KindShape {
                        name: $name,
                        code: $code,
                        numbers: [$first, $second],
                    },)*
                }
            }
        }
    };
}

use CodeMeaning::{None as Nothing, Number, Words};

const ERROR: CodeMeaning = Words("error", DISK_ERRORS);
const DISK: CodeMeaning = Number("disk");

kinds! {
    /// The hypervisor has started; the machine's CPUs are there.
    1 HypervisorStarted Rare "hypervisor started" (Nothing, "cpus", "tsc_hz");
    /// A self-test was asked for on the command line.
    2 SelfTestAsked Rare "self-test asked" (Words("test", SELF_TESTS), "", "");
    /// The node is built and partitions can start.
    3 NodeStarted Rare "node started" (Nothing, "partitions", "pool_pages");

    /// A partition waits for a free paging space.
    16 SpaceAwaited Rare "waits for a space" (Nothing, "incarnation", "");
    /// An incarnation begins.
    17 IncarnationStarted Rare "incarnation started" (Nothing, "incarnation", "object");
    /// The incarnation's first entry into the guest.
    18 GuestEntered Rare "guest entered" (Nothing, "incarnation", "");
    /// A partition waits for second-level tables.
    19 TablesAwaited Rare "waits for tables" (Nothing, "incarnation", "");
    /// A request of an operator or of the node is carried out.
    20 RequestTaken Rare "request taken" (Words("request", REQUESTS), "incarnation", "");
    /// The guest has reported a panic.
    21 PanicReported Frequent "panic reported" (Words("by", REPORTS), "incarnation", "");
    /// The guest starts its own crash kernel.
    22 CrashKernelStarted Frequent "crash kernel started" (Nothing, "incarnation", "");
    /// The guest shows no sign of life and gets an NMI.
    23 HangSuspected Rare "hang suspected" (Nothing, "incarnation", "rip:x");
    /// An exit, or a page that cannot be had, after which the guest cannot go on.
    24 GuestEnded Rare "guest ended" (Words("reason", CRASHES), "rip:x", "detail:x");
    /// The incarnation has crashed.
    28 Crashed Rare "crashed" (Words("reason", CRASHES), "incarnation", "detail:x");
    /// The guest has reset the machine.
    29 MachineReset Rare "machine reset" (Nothing, "incarnation", "");
    /// The partition stops for good.
    30 PartitionStopped Rare "partition stopped" (Nothing, "incarnation", "code:x");
    /// The restart gate is open.
    31 RestartAllowed Rare "restart allowed" (Nothing, "incarnation", "drain_pages");
    /// The limit of restarts is reached.
    32 RestartsExhausted Rare "restarts exhausted" (Nothing, "incarnation", "restarts");
    /// The crash leaves no dump, because the limit of dumps is reached.
    33 DumpSkipped Rare "dump skipped" (Nothing, "incarnation", "kept");
    /// The memory of an incarnation is taken apart.
    34 TeardownBegun Rare "teardown begun" (Nothing, "incarnation", "object");
    /// The memory is gone.
    35 TeardownEnded Rare "teardown ended" (Nothing, "incarnation", "");

    /// The partition is suspended.
    36 Suspended Rare "suspended" (Nothing, "incarnation", "written");
    /// A suspension failed.
    37 SuspensionFailed Rare "suspension failed" (Nothing, "incarnation", "end");
    /// A suspended partition goes on.
    38 Resumed Rare "resumed" (Nothing, "incarnation", "object");
    /// The dirty pages of a partition are written, because it is about to be suspended.
    39 PrecopyBegun Rare "pre-copy begun" (Nothing, "incarnation", "resident");

    /// The drain of a dump image begins.
    48 DrainBegun Rare "drain begun" (Nothing, "incarnation", "resident");
    /// The record says DRAINING on the disk.
    49 DumpPromised Rare "dump promised" (Nothing, "incarnation", "");
    /// The sweep over the image has ended.
    50 DrainEnded Rare "drain ended" (Nothing, "written", "remaining");
    /// The dump is sealed.
    51 DumpSealed Rare "dump sealed" (Words("as", SEALS), "incarnation", "missing");
    /// The dump could not be sealed for now.
    52 DumpUnsealed Rare "dump not sealed" (ERROR, "incarnation", "");

    /// Frames of a dump image are promised to its partition.
    64 FramesPromised Rare "frames promised" (Nothing, "frames", "");
    /// The promise has ended.
    65 PromiseEnded Rare "promise ended" (Nothing, "unused", "");
    /// A page could not be written, for the first time after a success.
    66 WriteFailed Rare "write failed" (ERROR, "page", "pages");
    /// A block did not match its checksum, or could not be read; it is read again.
    67 ReadFailed Rare "read failed" (Words("loss", LOSSES), "page", "failures");
    /// A page is lost.
    68 PageLost Rare "page lost" (Words("loss", LOSSES), "page", "");
    /// The disk of a memory object takes no requests.
    69 StoreDown Rare "store down" (DISK, "object", "");
    /// The disk of a memory object takes requests again.
    70 StoreUp Rare "store up" (DISK, "object", "");
    /// A partition has to crash: its pages cannot be written, and others starve.
    71 Unwritable Rare "unwritable" (ERROR, "object", "");
    /// The disk answers no writes of an object's pages, which is held to its share from now on.
    72 WritesStuck Rare "writes stuck" (DISK, "object", "");
    /// A batch waits long for other CPUs to pass its flush.
    73 FlushLate Rare "flush late" (Number("batch"), "waiting_cpus:x", "since_ns");
    /// The flush of that batch has passed.
    74 FlushPassed Rare "flush passed" (Number("batch"), "after_ns", "");
    /// An operator or a test asks for the eviction of pages.
    75 EvictionAsked Rare "eviction asked" (Nothing, "pages", "");

    /// Too few frames are free: reclaim begins.
    80 PoolScarce Frequent "pool scarce" (Nothing, "free", "promised");
    /// No frame can come free while faulters wait.
    81 PoolExhausted Rare "pool exhausted" (Nothing, "promised", "");
    /// All promises are broken, because a faulter would hang.
    82 PromisesBroken Rare "promises broken" (Nothing, "promised", "");

    /// Pages leave, or are cleaned, together.
    96 BatchLaunched Frequent "batch launched" (Words("to", BATCHES), "pages", "object");
    /// The disk refuses a batch's next request while it has none in flight.
    97 BatchRefused Frequent "batch refused" (DISK, "page", "left");
    /// The hypervisor injects an exception into the guest.
    98 ExceptionInjected Frequent "exception injected" (Number("vector"), "rip:x", "error:x");
    /// The guest halts for longer than a turn.
    99 HaltedLong Frequent "halts long" (Nothing, "rip:x", "until_ns");

    /// A disk did not answer in time: it gets no request until it has.
    112 DiskWrittenOff Rare "disk written off" (DISK, "unanswered", "");
    /// The disk has answered everything.
    113 DiskBack Rare "disk back" (DISK, "away_ns", "");
    /// The device broke its protocol or asked for a reset.
    114 DiskBroken Rare "disk broken" (DISK, "", "");
    /// The device is reset.
    115 DiskReset Rare "disk reset" (DISK, "resets", "");
    /// The capacity in sectors has changed.
    116 DiskResized Rare "disk resized" (DISK, "from", "to");
    /// The device is not used any more.
    117 DiskDead Rare "disk dead" (DISK, "", "");
    /// Another node has taken the disk.
    118 DiskGivenUp Rare "disk given up" (DISK, "", "");
    /// A paging space has another state.
    119 SpaceChanged Rare "space changed" (Words("state", SPACES), "disk", "space");
    /// A request around the blocks was refused, for the first time or for good.
    120 SpaceRefused Rare "space refused" (Words("access", ACCESSES), "disk", "space");
}

impl HistoryKind {
    /// Returns the kind with this number.
    pub fn of(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u16 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_lead_back_to_their_kinds() {
        assert!(HistoryKind::ALL.windows(2).all(|pair| (pair[0] as u16) < pair[1] as u16));
        for kind in HistoryKind::ALL {
            assert_eq!(HistoryKind::of(*kind as u16), Some(*kind));
        }
        let known = (0..=u16::MAX).filter(|number| HistoryKind::of(*number).is_some()).count();
        assert_eq!(known, HistoryKind::ALL.len());
    }

    #[test]
    fn names_differ_and_are_short() {
        let mut names: Vec<_> = HistoryKind::ALL.iter().map(|kind| kind.shape().name).collect();
        assert!(names.iter().all(|name| !name.is_empty() && name.len() <= 20), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), HistoryKind::ALL.len());
    }
}
