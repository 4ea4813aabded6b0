//! The identity of this CPU, and per-CPU data.
//!
//! ```text
//! GS base ─> AREAS[cpu] { index }        loaded first on every CPU
//!
//! PerCpu<T>     every CPU may read every copy: atomics                    of(cpu), this()
//! CpuLocal<T>   only its own CPU accesses a copy, mutably                 with(|value| ..)
//! ```
//!
//! Invariant: while this CPU runs the hypervisor's code, GS base points to its area; the world
//! switches restore it before any Rust runs.
// UNSAFETY: GS-relative addressing; the cell that lends this CPU's copy.
#![expect(unsafe_code)]

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Most CPUs that are used.
pub const MAX_CPUS: usize = 8;
#[cfg(target_os = "none")]
const _: () = assert!(MAX_CPUS == stub::stacks::MAX_CPUS);

/// A CPU, numbered from 0 in the order of starting: 0 is the boot CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CpuId(u8);

impl CpuId {
    /// The boot CPU.
    pub const BOOT: Self = Self(0);

    /// Wraps an index.
    ///
    /// # Panics
    /// If it is not below [`MAX_CPUS`] (our bug).
    pub const fn new(index: usize) -> Self {
        assert!(index < MAX_CPUS, "CPU number below MAX_CPUS");
        Self(index as u8)
    }

    /// Returns the index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

static ONLINE: AtomicUsize = AtomicUsize::new(1);

/// Returns the number of running CPUs; they are numbered from 0. Constant after start-up.
pub fn count() -> usize {
    ONLINE.load(Ordering::Acquire)
}

/// Returns all CPUs that run.
pub fn online() -> impl Iterator<Item = CpuId> {
    (0..count()).map(CpuId::new)
}

/// Returns all running CPUs except this one.
pub fn others() -> impl Iterator<Item = CpuId> {
    let this = current();
    online().filter(move |&cpu| cpu != this)
}

/// Records that one more CPU runs.
#[cfg(target_os = "none")]
pub(super) fn came_online() {
    ONLINE.fetch_add(1, Ordering::AcqRel);
}

#[cfg(target_os = "none")]
mod area {
    use super::{CpuId, MAX_CPUS};
    use crate::arch::instr;

    /// The target of GS base. `gs:[0]` reads the index.
    #[repr(C, align(64))]
    struct GsArea {
        index: u64,
    }

    static AREAS: [GsArea; MAX_CPUS] = {
        let mut areas = [const { GsArea { index: 0 } }; MAX_CPUS];
        let mut cpu = 0;
        while cpu < MAX_CPUS {
            areas[cpu].index = cpu as u64;
            cpu += 1;
        }
        areas
    };

    const IA32_GS_BASE: u32 = 0xc000_0101;

    /// Makes this CPU `cpu`; must be the first call on a CPU.
    pub fn init(cpu: CpuId) {
        // SAFETY: every 64-bit CPU has the register; nothing else uses GS.
        unsafe { instr::wrmsr(IA32_GS_BASE, &raw const AREAS[cpu.index()] as u64) };
    }

    /// Returns the CPU that runs this code.
    pub fn current() -> CpuId {
        // SAFETY: GS base points to an `GsArea` (see the module's invariant).
        CpuId::new(unsafe { instr::gs_word() } as usize)
    }

    /// Returns the CPU that runs this code, or `None` before [`init`]: for a panic at the very
    /// start.
    pub fn current_if_known() -> Option<CpuId> {
        // SAFETY: every 64-bit CPU has the register.
        let base = unsafe { instr::rdmsr(IA32_GS_BASE) };
        let areas = &raw const AREAS as u64;
        (areas..areas + size_of_val(&AREAS) as u64).contains(&base).then(current)
    }
}

#[cfg(target_os = "none")]
pub use area::{current, current_if_known, init};

/// Returns the CPU that runs this code; on the host there is only one.
#[cfg(not(target_os = "none"))]
pub fn current() -> CpuId {
    CpuId::BOOT
}

/// A copy for each CPU, which every CPU may read.
#[derive(Default, Debug)]
pub struct PerCpu<T>([T; MAX_CPUS]);

impl<T> PerCpu<T> {
    /// Wraps the copies.
    pub const fn new(copies: [T; MAX_CPUS]) -> Self {
        Self(copies)
    }

    /// Returns a CPU's copy.
    pub const fn of(&self, cpu: CpuId) -> &T {
        &self.0[cpu.index()]
    }

    /// Returns this CPU's copy.
    pub fn this(&self) -> &T {
        self.of(current())
    }
}

/// A copy for each CPU, which only that CPU accesses.
#[derive(Default)]
pub struct CpuLocal<T>(PerCpu<LocalCell<T>>);

#[derive(Default)]
struct LocalCell<T> {
    entered: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a copy is accessed through `with` on its CPU only, and `entered` admits one borrower at a
// time even if CPUs are not distinguished (on the host).
unsafe impl<T: Send> Sync for CpuLocal<T> {}

impl<T> CpuLocal<T> {
    /// Wraps the copies.
    pub const fn new(copies: [T; MAX_CPUS]) -> Self {
        let mut cells = [const { core::mem::MaybeUninit::<LocalCell<T>>::uninit() }; MAX_CPUS];
        let copies = core::mem::ManuallyDrop::new(copies);
        let source = (&raw const copies).cast::<T>();
        let mut cpu = 0;
        while cpu < MAX_CPUS {
            // SAFETY: in bounds of `copies`, which is never dropped, and each element is moved
            // once.
            let value = unsafe { source.add(cpu).read() };
            cells[cpu].write(LocalCell {
                entered: AtomicBool::new(false),
                value: UnsafeCell::new(value),
            });
            cpu += 1;
        }
        // SAFETY: all elements have been written; `MaybeUninit<T>` has the layout of `T`.
        Self(PerCpu(unsafe { (&raw const cells).cast::<[LocalCell<T>; MAX_CPUS]>().read() }))
    }

    /// Calls `f` with this CPU's copy.
    ///
    /// # Panics
    /// If `f` calls this again for the same data (our bug).
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let cell = self.0.this();
        assert!(
            !cell.entered.swap(true, Ordering::Acquire),
            "CPU-local data is entered once at a time"
        );
        // SAFETY: `entered` was false: there is no other borrower until it is false again.
        let result = f(unsafe { &mut *cell.value.get() });
        cell.entered.store(false, Ordering::Release);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_data_keeps_its_value() {
        let local = CpuLocal::new([7; MAX_CPUS]);
        local.with(|value| *value += 1);
        assert_eq!(local.with(|value| *value), 8);
    }

    #[test]
    #[should_panic(expected = "entered once at a time")]
    fn entering_local_data_twice_is_our_bug() {
        let local = CpuLocal::new([0; MAX_CPUS]);
        local.with(|_| local.with(|_| ()));
    }

    #[test]
    #[should_panic(expected = "below MAX_CPUS")]
    fn a_cpu_number_beyond_the_limit_is_our_bug() {
        CpuId::new(MAX_CPUS);
    }
}
