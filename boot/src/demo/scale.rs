//! The size of the demonstration in each bed.

use crate::bed::Bed;

/// Percentage of the raw disk's speed that a drain reaches where only the disk limits it.
const DRAIN_PERCENT: u64 = 80;

/// The clock for the worker's pace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PaceClock {
    /// The host's.
    Host,
    /// The machine's own, from its events. Where it counts instructions, the load of the host does
    /// not matter.
    Machine,
}

/// The size of a demonstration. The first partition crashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DemoScale {
    /// Number of partitions that share the pool.
    pub partitions: u64,
    /// CPUs of the machine.
    pub cpus: u64,
    /// Logical memory of each partition.
    pub memory: u64,
    /// Size of the pool.
    pub pool: u64,
    /// MiB that a worker fills; `None`: the available memory less a reserve.
    pub worker_mib: Option<u64>,
    /// Passes of the first worker before its panic.
    pub passes: u64,
    /// MiB that it rewrites right before the panic, which the drain then has to write.
    pub dirty_mib: u64,
    /// Bandwidth limit of each disk of an emulated machine, in bytes a second.
    ///
    /// Under TCG a CPU takes 20 to 50 times as long as a real one for its part of writing a page,
    /// while the emulated disk's part takes next to no time. So this limit makes the disk slower by
    /// the same factor than an NVMe drive of 2 to 5 GB/s. CPU and disk are then in the same
    /// proportion as in a real machine, and the drain's percentage of the disk's speed shows
    /// whether the disk or the hypervisor limits it.
    pub disk_bandwidth: Option<u64>,
    /// Percentage of the raw disk's speed that the drain reaches on a quiet machine. A slower drain
    /// is remarked; one with less than a quarter of it breaks the claim. `None`: it is only
    /// reported.
    pub drain_percent: Option<u64>,
    /// Passes of the first worker after the restart until the story is over; 0: do not wait for its
    /// kernel to boot.
    pub successor_passes: u64,
    /// The clock for the workers' pace.
    pub clock: PaceClock,
    /// Time limit from the machine's start to the end of the story, in seconds of the host.
    pub limit_s: u64,
}

impl DemoScale {
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
            clock: PaceClock::Host,
            limit_s: 420,
        };
        match bed {
            Bed::Kvm | Bed::Nested => full,
            Bed::Qemu => Self { disk_bandwidth: Some(100 << 20), ..full },
            // Its disks are memory-backed. One CPU: Bochs emulates two CPUs in turn, a few
            // instructions each, and the two together do half the work of one.
            Bed::Bochs => Self {
                partitions: 2,
                cpus: 1,
                memory: 128 << 20,
                pool: 128 << 20,
                worker_mib: Some(32),
                passes: 1,
                dirty_mib: 12,
                drain_percent: None,
                clock: PaceClock::Machine,
                limit_s: 1500,
                ..full
            },
        }
    }

    /// Returns the same story without speed requirements, for a test: other tests may load the
    /// host.
    pub fn untimed(self) -> Self {
        Self { drain_percent: None, ..self }
    }

    /// Returns the story up to the complete dump only, for beds where the successor takes minutes
    /// to boot.
    pub fn to_the_dump(self) -> Self {
        Self { successor_passes: 0, ..self }
    }

    /// Returns the size of each paging device: the memory, its tables, and the records.
    pub fn device(&self) -> u64 {
        self.memory + (16 << 20)
    }

    /// Returns the number of paging devices: one for each partition, and one for the successor of
    /// the crashed one.
    pub fn devices(&self) -> u64 {
        self.partitions + 1
    }

    /// Returns the logical memory in percent of the pool.
    pub fn overcommit_percent(&self) -> u64 {
        self.partitions * self.memory * 100 / self.pool
    }

    /// Returns the name of partition number `index`.
    pub fn name(index: u64) -> String {
        format!("debian-{}", index + 1)
    }
}
