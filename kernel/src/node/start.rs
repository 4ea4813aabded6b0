//! From a started machine to running partitions.
//!
//! ```text
//!   config ─> back end ─> node ─> spaces opened ─> CPU 0: runners ─┬─> CPU 0: the loop, until everything has ended
//!                                                                  └─> other CPUs: released into the same loop
//! ```

use super::build::{self, NodeStartError};
use super::measure::{self, bench};
use super::monitor::stores;
use super::registry::VcpuSource;
use super::{Node, cpu, services};
use crate::arch::percpu::CpuId;
use crate::arch::physmem::PhysicalMemory;
use crate::arch::{instr, percpu, smp, time};
use crate::archive::BootArchive;
use crate::config::{self, Config};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::log::exit::ExitCode;
use crate::log::history::{self, HistoryKind};
use crate::mm::crc;
use crate::partition::shared::SharedPartition;
use crate::sync::{Once, RankedLock, rank};
use crate::virt::face::{EnabledCpu, Vcpu};
use crate::virt::frame::ControlFrame;
use crate::virt::{AccessedDirty, Backend};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::pin;
use core::task::{Context, Waker};

/// The node that the other CPUs find when they are released.
static STARTED: Once<&'static Node> = Once::new();
/// Pages for the control structures of CPUs and vCPUs.
static FRAMES: RankedLock<Vec<ControlFrame>, { rank::FRAMES }> = RankedLock::new(Vec::new());

/// Makes vCPUs in pages of [`FRAMES`].
struct MachineVcpus(Backend);

impl VcpuSource for MachineVcpus {
    fn make(&self, _: &Arc<SharedPartition>) -> Option<Vcpu> {
        let frame = FRAMES.lock().pop()?;
        Some(self.0.new_vcpu(frame))
    }

    fn take_back(&self, vcpu: Vcpu) {
        // The list had room for this page at the start.
        FRAMES.lock().extend(vcpu.into_frame());
    }
}

/// Runs the partitions of the boot archive; returns when everything has ended.
pub fn run(memory: &mut PhysicalMemory, archive: BootArchive) -> ExitCode {
    let result = start(memory, archive).and_then(|node| {
        let result = on_boot_cpu(node);
        assert!(node.host.pager.are_zeros_intact(), "nothing writes to the shared frame of zeros");
        leave(node);
        result
    });
    if let Err(trouble) = &result {
        log::error!("{}: {}", trouble.place, trouble.message);
        report(&ConsoleEvent::Error { place: &trouble.place, message: &trouble.message });
    }
    report(&ConsoleEvent::End { status: u32::from(result.is_err()) });
    services::drain_output();
    if result.is_ok() { ExitCode::Success } else { ExitCode::Failure }
}

fn trouble(place: &str, message: String) -> NodeStartError {
    NodeStartError { place: place.into(), message }
}

fn start(
    memory: &mut PhysicalMemory,
    archive: BootArchive,
) -> Result<&'static Node, NodeStartError> {
    let module = archive
        .module(config::MODULE)
        .ok_or_else(|| trouble("boot archive", "has no configuration".into()))?;
    let config = Config::from_module(module)
        .map_err(|error| trouble("configuration", format!("{error}")))?;
    let backend = Backend::detect().map_err(|missing| trouble("CPU", format!("{missing}")))?;
    if backend.capabilities().accessed_dirty == AccessedDirty::Absent {
        log::info!(
            "this CPU keeps no accessed and dirty bits of guests' pages: faults show accesses and \
             writes instead"
        );
    }
    let frames = percpu::count() * Backend::FRAMES_PER_CPU + build::slots(&config);
    for _ in 0..frames {
        let frame = build::control_frame(memory)
            .ok_or_else(|| trouble("machine", "no memory for the back end".into()))?;
        FRAMES.lock().push(frame);
    }
    crc::choose(time::now_ns);
    let node = build::node(memory, archive, &config, backend)?;
    report(&ConsoleEvent::Boot {
        version: env!("CARGO_PKG_VERSION"),
        backend: backend.name(),
        accessed_dirty: backend.capabilities().accessed_dirty.name(),
        cpus: percpu::count() as u32,
        guest_cpus: node.host.run_queue.lock().cpus_of(percpu::count() as u32),
        memory_bytes: memory.usable_total(),
        pool_pages: u64::from(node.host.frames.total()),
        tsc_hz: time::tsc_hz(),
    });
    let pool = u64::from(node.host.frames.total());
    history::record_machine(HistoryKind::NodeStarted, 0, [config.partitions.len() as u64, pool]);
    build::report_disks(node);
    build::check_heap(node)?;
    if let Some(members) = node.members.filter(|members| members.holds_spaces()) {
        block_on(node, members.joined());
    }
    block_on(node, node.host.spaces.open());
    node.host.spaces.resume();
    stores::tell_all(node);
    match prepare(node, &config) {
        Ok(()) => Ok(node),
        Err(trouble) => {
            leave(node);
            Err(trouble)
        }
    }
}

/// Runs the measurements, and checks that the partitions can run, each alone and all together.
fn prepare(node: &'static Node, config: &Config) -> Result<(), NodeStartError> {
    measure(node, config)?;
    node.partitions().try_for_each(|(_, shared)| build::check(node, &shared).map(|_| ()))?;
    build::check_together(node)
}

/// Releases the disks for other nodes.
fn leave(node: &'static Node) {
    node.host.hurry_disks();
    block_on(node, node.host.spaces.give_up_claims());
    if let Some(members) = node.members {
        block_on(node, members.leave());
    }
}

/// Runs the measurements that the configuration asks for.
fn measure(node: &'static Node, config: &Config) -> Result<(), NodeStartError> {
    for name in &config.self_tests {
        match name.as_str() {
            measure::RAW_DISK => block_on(node, measure::raw_disks(node)),
            bench::NAME => {
                bench::pager(node, CpuId::BOOT)
                    .map_err(|why| trouble("self_tests", format!("{name}: {why}")))?;
            }
            _ => {
                let known =
                    format!("unknown: {name} (known: {}, {})", bench::NAME, measure::RAW_DISK);
                return Err(trouble("self_tests", known));
            }
        }
    }
    Ok(())
}

/// Waits for a task at start-up, while nothing else runs; requests time out by themselves.
fn block_on(node: &'static Node, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    while future.as_mut().poll(&mut context).is_pending() {
        services::turn(node, CpuId::BOOT);
    }
}

/// Makes the runners, releases the other CPUs and runs until everything has ended.
fn on_boot_cpu(node: &'static Node) -> Result<(), NodeStartError> {
    let enabled = enable(node, CpuId::BOOT)?;
    let source: &'static MachineVcpus = Box::leak(Box::new(MachineVcpus(node.host.backend)));
    build::runners(node, source)?;
    node.registry.open(source);
    STARTED.call_once(|| node);
    smp::release(other_cpu);
    cpu::run(node, CpuId::BOOT, &enabled, || node.has_ended());
    Ok(())
}

/// Runs another CPU's loop. A CPU that cannot run guests is reported, and the others go on without
/// it.
fn other_cpu(cpu: CpuId) -> ! {
    if let Some(node) = STARTED.get() {
        match enable(node, cpu) {
            Ok(enabled) => cpu::run(node, cpu, &enabled, || false),
            Err(trouble) => {
                report(&ConsoleEvent::Error { place: &trouble.place, message: &trouble.message })
            }
        }
    }
    instr::stop()
}

fn enable(node: &Node, cpu: CpuId) -> Result<EnabledCpu, NodeStartError> {
    let enabled = node.host.backend.enable_cpu([frame()?, frame()?]);
    enabled.map_err(|missing| trouble(&format!("CPU {}", cpu.index()), format!("{missing}")))
}

fn frame() -> Result<ControlFrame, NodeStartError> {
    FRAMES.lock().pop().ok_or_else(|| trouble("CPU", "no memory for the back end".into()))
}
