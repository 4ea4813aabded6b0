//! Partitions from their first start to their last stop, by the product's own runners: on a
//! simulated node, with vCPUs that execute scripts.

mod clone;
mod crash;
mod definitions;
mod ends;
mod guest;
mod heirs;
mod lease;
mod moves;
mod operator;
mod panic;
mod precopy;
mod regions;
mod start;
mod stop;
mod stored;
mod suspend;

use super::disk::SimDisk;
use super::machine::{SimMachine, SimRam};
use crate::addr::{Gpa, Hfn, Hpa, PAGE_SIZE};
use crate::arch::percpu::CpuId;
use crate::arch::time;
use crate::archive::BootArchive;
use crate::archive::fake::tar;
use crate::config::{
    ConsoleRoute, DumpPolicy, GuestDevices, KernelModules, PartitionConfig, RestartPolicy,
};
use crate::console::fake as events;
use crate::host::Host;
use crate::mm::layout::RamLayout;
use crate::mm::phys::FrameMemory;
use crate::node::monitor::{commands, stores};
use crate::node::registry::VcpuSource;
use crate::node::services::IdleLimit;
use crate::node::{cpu, define};
use crate::partition::lifecycle::LifecycleView;
use crate::partition::loaders::fake::pvh_elf;
use crate::partition::runner::HostCpu;
use crate::partition::shared::SharedPartition;
use crate::partition_id::PartitionId;
use crate::time::Ns;
use crate::virt::fake::{
    GuestScript, GuestStep, ScriptRecord, ScriptedCpu, ScriptedMemory, ScriptedVcpu,
};
use crate::virt::{EnabledCpu, PageAccess, Vcpu, VmExit};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SECOND_NS: Ns = Ns::from_secs(1);
const MS: Ns = Ns::from_ms(1);
/// Bytes of a partition's memory.
const MEMORY: u64 = 2 << 20;
/// Bytes of a disk: one space for a partition, and little more.
const DISK_BYTES: usize = MEMORY as usize + (2 << 20);
/// Frames that are enough for two partitions.
const PLENTY: u32 = 1200;
/// Where the kernel begins.
const ENTRY: u64 = 0x10_0010;
/// Where the kernel has the instruction INT3.
const INT3: u64 = 0x10_0030;
/// A page that the loader does not touch; more follow.
const FREE: u64 = 0x14_0000;

/// Bytes of the initrd: it is loaded in several steps.
const INITRD_BYTES: usize = 600 << 10;
/// COM1's data register.
const COM1: u16 = 0x3f8;
/// pvpanic's register, and the report of a panic.
const PVPANIC: u16 = 0x505;
const PANICKED: GuestStep = GuestStep::Out(PVPANIC, 1);
/// The guest resets the machine.
const RESET: GuestStep = GuestStep::Out(0x602, 1);
/// The guest switches itself off.
const POWER_OFF: GuestStep = GuestStep::Out(0x600, 1 << 5 | 5 << 2);
/// All tables lost.
const TRIPLE_FAULT: GuestStep = GuestStep::Exit(VmExit::TripleFault);
/// MSR of KVM's system time.
const SYSTEM_TIME: u32 = 0x4b56_4d01;

/// The free page with this number.
fn page(n: u64) -> Gpa {
    Gpa::new(FREE + n * PAGE_SIZE)
}

/// A kernel with a few instructions at known addresses.
fn kernel() -> Vec<u8> {
    let mut image = pvh_elf();
    // File offset 0x200 is at 1 MiB.
    image[0x210..0x230].fill(0x90);
    image[0x220..][..2].copy_from_slice(&GuestScript::MOV_BYTES);
    image
}

fn config(name: &str) -> PartitionConfig {
    PartitionConfig {
        name: name.into(),
        memory_bytes: MEMORY,
        kernel: KernelModules { image: "kernel".into(), initrd: None },
        cmdline: String::new(),
        dump: DumpPolicy::Aided,
        dump_bound: None,
        restart: RestartPolicy::Threshold,
        hang_timeout_ns: None,
        restart_limit: None,
        boot_memory_bytes: None,
        console: ConsoleRoute::Screen,
        devices: GuestDevices::default(),
    }
}

/// Guest memory as the CPU sees it: resident pages, whose A and D bits the accesses set.
struct NodeMemory {
    host: &'static Host,
    shared: Arc<SharedPartition>,
}

impl NodeMemory {
    /// Returns the frame and the offset of a word, if the second-level table has it.
    fn touch(&self, root: Hpa, gpa: Gpa, access: PageAccess) -> Option<(Hfn, usize)> {
        let object = self.host.objects.by_number(self.shared.object()?)?;
        assert_eq!(object.root().base(), root, "the vCPU has the table of the live memory");
        let index = object.layout().index_of(gpa.number())?;
        let hfn = object.existing(index)?.touch(access).ok()?;
        Some((hfn, (gpa.as_u64() % PAGE_SIZE) as usize))
    }
}

impl ScriptedMemory for NodeMemory {
    fn read(&mut self, root: Hpa, gpa: Gpa) -> Option<u64> {
        let (hfn, offset) = self.touch(root, gpa, PageAccess::Read)?;
        let mut word = [0; 8];
        self.host.memory.copy_out(hfn, offset, &mut word);
        Some(u64::from_le_bytes(word))
    }

    fn write(&mut self, root: Hpa, gpa: Gpa, value: u64) -> Option<()> {
        let (hfn, offset) = self.touch(root, gpa, PageAccess::Write)?;
        self.host.memory.copy_in(hfn, offset, &value.to_le_bytes());
        Some(())
    }
}

/// A node with its partitions, and one CPU that runs them.
struct Life {
    machine: SimMachine,
    vcpus: &'static ScriptedVcpus,
    enabled: EnabledCpu,
    scripts: Vec<GuestScript>,
    /// Events before this one have been looked at.
    heard: usize,
    printed: String,
}

impl Life {
    /// Makes a node with `disks` disks, whose spaces are open, and with partitions that are about
    /// to start.
    fn new(disks: u8, partitions: &[(PartitionConfig, &GuestScript)]) -> Self {
        Self::with(disks, PLENTY, partitions)
    }

    /// As [`Self::new`], with a pool of `frames` frames.
    fn with(disks: u8, frames: u32, partitions: &[(PartitionConfig, &GuestScript)]) -> Self {
        Self::beside_stores(disks, frames, partitions, &[])
    }

    /// As [`Self::with`], with further disks that have these contents.
    fn beside_stores(
        disks: u8,
        frames: u32,
        partitions: &[(PartitionConfig, &GuestScript)],
        stores: &[Vec<u8>],
    ) -> Self {
        let spaces = vec![vec![0; DISK_BYTES]; disks.into()];
        Self::over(&[&spaces, stores].concat(), frames, partitions)
    }

    /// As [`Self::with`], over disks with these contents.
    fn over(
        contents: &[Vec<u8>],
        frames: u32,
        partitions: &[(PartitionConfig, &GuestScript)],
    ) -> Self {
        let ram = SimRam::new(frames);
        let disk = |(n, content): (usize, &Vec<u8>)| {
            let disk = &*Box::leak(Box::new(SimDisk::new(n as u8, DISK_BYTES, ram.map(), 1)));
            disk.state().content.clone_from(content);
            disk
        };
        let archive =
            BootArchive::new(tar(&[("kernel", &kernel()), ("initrd", &[0x5a; INITRD_BYTES])]))
                .expect("an archive");
        let configs: Vec<_> = partitions.iter().map(|(config, _)| config.clone()).collect();
        let disks = contents.iter().enumerate().map(disk).collect();
        let mut machine = SimMachine::with(&ram, disks, 1, archive, &configs);
        let host = machine.node.host;
        machine.block_on("open", 60, host.spaces.open());
        host.spaces.resume();
        stores::tell_all(machine.node);
        let scripts: Vec<_> = partitions.iter().map(|(_, script)| (*script).clone()).collect();
        let named = configs.iter().map(|config| config.name.clone()).zip(scripts.clone());
        let vcpus: &'static ScriptedVcpus = Box::leak(Box::new(ScriptedVcpus {
            host,
            scripts: named.collect::<Vec<_>>().into(),
            out: AtomicUsize::new(0),
        }));
        for (id, shared) in machine.node.partitions() {
            let layout = RamLayout::new(shared.config.memory_bytes).expect("whole pages");
            let vcpu = vcpus.make(&shared).expect("a vCPU");
            let runner = define::runner(host, &shared, layout, vcpu);
            machine.node.registry.install(host, id, runner);
        }
        machine.node.registry.open(vcpus);
        let enabled = EnabledCpu::Fake(ScriptedCpu);
        Self { machine, vcpus, enabled, scripts, heard: 0, printed: String::new() }
    }

    /// Makes a node with one partition and enough disks for its dumps.
    fn alone(config: PartitionConfig, programs: &[&[GuestStep]]) -> Self {
        Self::new(2, &[(config, &GuestScript::of(programs))])
    }

    fn host(&self) -> &'static Host {
        self.machine.node.host
    }

    fn shared(&self) -> Arc<SharedPartition> {
        self.partition(0)
    }

    fn partition(&self, number: u16) -> Arc<SharedPartition> {
        self.machine.node.partition(PartitionId::new(number)).expect("a partition")
    }

    /// Returns the record of the first partition's guest.
    fn record(&self) -> ScriptRecord {
        self.scripts[0].record()
    }

    /// Runs a turn of the node's services, and one of a vCPU.
    fn turn(&mut self) {
        self.machine.now_ns = self.machine.now_ns.max(time::now_ns());
        self.machine.turn();
        let (node, host) = (self.machine.node, self.host());
        let on = HostCpu { cpu: CpuId::BOOT, enabled: &self.enabled };
        host.words.quiesce(CpuId::BOOT);
        cpu::give_turn(node, &on, IdleLimit::Long);
        self.machine.listen();
        self.printed += &events::take_printed();
    }

    /// Runs turns until `ready` returns a value.
    ///
    /// # Panics
    /// If that takes more than a minute of the node's time.
    #[track_caller]
    fn until<T>(&mut self, what: &str, mut ready: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = time::now_ns() + 60 * SECOND_NS;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            assert!(time::now_ns() < end, "{what} does not come; told: {:#?}", self.machine.told);
            self.turn();
        }
    }

    /// Runs for some of the node's time.
    fn pass(&mut self, ns: Ns) {
        let end = time::now_ns() + ns;
        while time::now_ns() < end {
            self.turn();
        }
    }

    /// Runs until the next event of a kind whose text has all of `words`, and returns its text.
    #[track_caller]
    fn hear(&mut self, kind: &str, words: &[&str]) -> String {
        self.until(&format!("{kind} {words:?}"), |life| {
            let told = life.machine.told.iter().enumerate().skip(life.heard);
            let is_it = |event: &str| {
                event.starts_with(&format!("{kind} {{"))
                    && words.iter().all(|word| event.contains(word))
            };
            let (at, event) = told.into_iter().find(|(_, event)| is_it(event))?;
            let event = event.clone();
            life.heard = at + 1;
            Some(event)
        })
    }

    /// Returns the operator's view of the spaces: states and owners.
    fn spaces(&self) -> Vec<(&'static str, Option<(String, u64)>)> {
        let spaces = self.host().spaces.summaries().into_iter();
        spaces.map(|space| (space.state, space.owner.map(|(n, e)| (n.to_string(), e)))).collect()
    }

    /// Returns whether an event of this kind has been reported at any time.
    fn has_heard(&self, kind: &str) -> bool {
        self.machine.has_told(&format!("{kind} {{"))
    }

    /// Runs until a guest's program has ended.
    #[track_caller]
    fn finish(&mut self) {
        self.until("the end of the program", |life| {
            (!life.record().boots.is_empty() && life.scripts[0].is_done()).then_some(())
        });
    }

    /// Runs until the first partition has this phase.
    #[track_caller]
    fn reach(&mut self, phase: LifecycleView) {
        self.until(phase.as_str(), |life| (life.shared().view() == phase).then_some(()));
    }

    /// Gives the guest of a partition that is defined later its programs.
    fn script(&self, name: &str, programs: &[&[GuestStep]]) -> GuestScript {
        let script = GuestScript::of(programs);
        let mut scripts = self.vcpus.scripts.lock().expect("no test has failed with it");
        scripts.push((name.into(), script.clone()));
        script
    }

    /// Gives the operator's command; returns the monitor's answer.
    fn command(&mut self, line: &str) -> String {
        let _ = commands::text(self.machine.node, line);
        events::take_printed()
    }
}

/// Makes vCPUs that execute the scripts of their partitions.
struct ScriptedVcpus {
    host: &'static Host,
    /// Scripts by the names of partitions; the newest of a name counts.
    scripts: Mutex<Vec<(String, GuestScript)>>,
    /// vCPUs that have not been taken back.
    out: AtomicUsize,
}

impl VcpuSource for ScriptedVcpus {
    fn make(&self, shared: &Arc<SharedPartition>) -> Option<Vcpu> {
        let scripts = self.scripts.lock().expect("no test has failed with it");
        let script = scripts.iter().rev().find(|(name, _)| name == shared.name());
        let script = script.map(|(_, script)| script.clone()).unwrap_or_default();
        self.out.fetch_add(1, Ordering::Relaxed);
        let memory = NodeMemory { host: self.host, shared: shared.clone() };
        Some(Vcpu::Fake(ScriptedVcpu::new(script, Box::new(memory))))
    }

    fn take_back(&self, vcpu: Vcpu) {
        drop(vcpu);
        self.out.fetch_sub(1, Ordering::Relaxed);
    }
}
