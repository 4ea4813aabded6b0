//! How large the demonstration is in each bed.

use crate::bed::Bed;

/// Share of the raw disk's speed that a drain reaches where nothing but the disk holds it up, in percent.
const DRAIN_PERCENT: u64 = 80;

/// The clock by which a worker's pace is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// The host's.
    Host,
    /// The machine's own, as its events tell it: where that counts instructions, it is no matter who else uses the host.
    Machine,
}

/// The size of a demonstration. The first partition is the one that crashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// How many partitions share the pool.
    pub partitions: u64,
    /// CPUs of the machine.
    pub cpus: u64,
    /// What each of them is promised.
    pub memory: u64,
    /// What they share.
    pub pool: u64,
    /// MiB that a worker fills; what is available less a reserve where none is given.
    pub worker_mib: Option<u64>,
    /// Passes of the first worker before its panic.
    pub passes: u64,
    /// MiB that it writes anew right before the panic: what the drain has to write.
    pub dirty_mib: u64,
    /// Bytes a second that each disk of an emulated machine can do.
    ///
    /// Under TCG a CPU takes 20 to 50 times as long as a real one for its part of a page's way to the disk, while the disk's part costs
    /// the emulator next to nothing. This disk is as much slower than an NVMe drive of 2 to 5 GB/s, so that the two stand to each other
    /// as in a real machine, and the drain's share of the disk's speed says whether the disk or the hypervisor holds it up.
    pub disk_bandwidth: Option<u64>,
    /// Share of the raw disk's speed that the drain has to reach, in percent; none where that is only looked at.
    pub drain_percent: Option<u64>,
    /// Passes of the first worker behind the restart before the story is over; none where nobody waits for its kernel to boot.
    pub successor_passes: u64,
    /// What the workers' pace is measured with.
    pub clock: Clock,
    /// Seconds of the host, from the machine's start to the end of the story.
    pub limit_s: u64,
}

impl Scale {
    /// Returns the size for a bed.
    pub fn of(bed: Bed) -> Self {
        let full = Self {
            partitions: 3,
            cpus: 2,
            memory: 256 << 20,
            pool: 384 << 20,
            worker_mib: None,
            passes: 3,
            dirty_mib: 80,
            disk_bandwidth: None,
            drain_percent: Some(DRAIN_PERCENT),
            successor_passes: 2,
            clock: Clock::Host,
            limit_s: 420,
        };
        match bed {
            Bed::Kvm | Bed::Nested => full,
            Bed::Qemu => Self { disk_bandwidth: Some(100 << 20), ..full },
            // Its disks are memory. One CPU: Bochs does two in turn, a few instructions each, and both together then get through half
            // of what one does.
            Bed::Bochs => Self {
                partitions: 2,
                cpus: 1,
                memory: 128 << 20,
                pool: 128 << 20,
                worker_mib: Some(32),
                passes: 1,
                dirty_mib: 12,
                drain_percent: None,
                clock: Clock::Machine,
                limit_s: 1500,
                ..full
            },
        }
    }

    /// The same story for a test, which times nothing: who runs beside it is none of its business.
    pub fn untimed(self) -> Self {
        Self { drain_percent: None, ..self }
    }

    /// The story up to the complete dump, with the successor about to boot: where a boot takes minutes.
    pub fn to_the_dump(self) -> Self {
        Self { successor_passes: 0, ..self }
    }

    /// Size of each paging device: the memory, what describes it, and the records.
    pub fn device(&self) -> u64 {
        self.memory + (16 << 20)
    }

    /// Paging devices: one for each partition, and one for the successor of the one that crashes.
    pub fn devices(&self) -> u64 {
        self.partitions + 1
    }

    /// Logical memory for each hundred bytes of the pool.
    pub fn overcommit_percent(&self) -> u64 {
        self.partitions * self.memory * 100 / self.pool
    }

    /// Returns the name of partition number `index`.
    pub fn name(index: u64) -> String {
        format!("debian-{}", index + 1)
    }
}
