//! Two nodes on one disk: a partition moves there and back, at every mishap, and nothing is lost.

use super::suspend::{PAGES, reads, writes, written};
use super::*;
use crate::images::fake_store;
use crate::members::{MemberStanding, RollStatus};
use crate::node::tests::area_disk::{AreaPort, CommonBytes};
use crate::node::tests::cluster::{in_sized_spaces, superblock};
use crate::node::tests::machine::{SimMachine, number};

const DEFINE: &str = "define d memory=2M store=0 kernel=vmlinuz";

/// Nodes on common disks: one with spaces and a cluster's area, one with a store.
pub(super) struct Nodes {
    pub(super) lives: Vec<Life>,
    ports: Vec<Vec<&'static AreaPort>>,
}

fn store() -> CommonBytes {
    Arc::new(Mutex::new(fake_store::store(&[("vmlinuz", &kernel())])))
}

/// Makes a node without partitions; its spaces are not open yet.
fn life(disks: &[CommonBytes], seed: u64) -> (Life, Vec<&'static AreaPort>) {
    let ram: &'static SimRam = Box::leak(Box::new(SimRam::new(PLENTY)));
    let ports: Vec<_> =
        (0..).zip(disks).map(|(n, bytes)| AreaPort::beside(n, bytes, Some(ram.map()))).collect();
    let disks = ports.iter().map(|port| *port as &'static (dyn crate::block::Disk + Send));
    let machine = SimMachine::of_disks(ram, disks.collect(), seed);
    let host = machine.node.host;
    let vcpus: &'static ScriptedVcpus = Box::leak(Box::new(ScriptedVcpus {
        host,
        scripts: Mutex::default(),
        out: AtomicUsize::new(0),
    }));
    machine.node.registry.open(vcpus);
    let enabled = EnabledCpu::Fake(ScriptedCpu);
    let scripts = Vec::new();
    (Life { machine, vcpus, enabled, scripts, heard: 0, printed: String::new() }, ports)
}

impl Nodes {
    /// Starts nodes on one disk with this many spaces.
    pub(super) fn new(count: u64, spaces: usize) -> Self {
        let disks = [in_sized_spaces(&superblock(5), spaces, DISK_BYTES), store()];
        let mut nodes = Self { lives: Vec::new(), ports: Vec::new() };
        for seed in 1..=count {
            let (life, ports) = life(&disks, seed);
            nodes.lives.push(life);
            nodes.ports.push(ports);
        }
        for life in &mut nodes.lives {
            let members = life.machine.node.members.expect("an area");
            life.machine.block_on("joined", 20, members.joined());
            life.machine.block_on("open", 30, life.machine.node.host.spaces.open());
        }
        nodes.until("all members", |nodes| {
            let is_up = |life: &Life| {
                let members = life.machine.node.members.expect("an area");
                let rows = members.rows();
                rows.len() == count as usize
                    && rows.iter().all(|row| row.status == RollStatus::Up && row.beat.is_some())
                    && members.view().standing == MemberStanding::Member
            };
            nodes.lives.iter().all(is_up).then_some(())
        });
        nodes
    }

    pub(super) fn slot(&self, node: usize) -> u16 {
        let members = self.lives[node].machine.node.members.expect("an area");
        members.view().slot.expect("a member")
    }

    fn turn(&mut self) {
        self.lives.iter_mut().for_each(Life::turn);
    }

    #[track_caller]
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let end = time::now_ns() + 240 * SECOND_NS;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            let told = || -> Vec<_> { self.lives.iter().map(|life| &life.machine.told).collect() };
            assert!(time::now_ns() < end, "{what} does not come; told: {:#?}", told());
            self.turn();
        }
    }

    /// Runs until a node tells an event that was not heard yet, and returns it.
    #[track_caller]
    pub(super) fn hear(&mut self, node: usize, start: &str, parts: &[&str]) -> String {
        self.until(&format!("{start} {parts:?} of node {node}"), |nodes| {
            let life = &mut nodes.lives[node];
            let rest = life.machine.told.iter().enumerate().skip(life.heard);
            let is_it = |event: &&String| {
                event.starts_with(start) && parts.iter().all(|part| event.contains(part))
            };
            let (at, event) = rest.into_iter().find(|(_, event)| is_it(event))?;
            life.heard = at + 1;
            Some(event.clone())
        })
    }

    /// Gives a command and returns its answer, which may come later.
    #[track_caller]
    pub(super) fn answer(&mut self, node: usize, line: &str) -> String {
        let at = self.lives[node].printed.len();
        let now = self.lives[node].command(line);
        if !now.is_empty() {
            return now;
        }
        self.until(line, |nodes| {
            let text = nodes.lives[node].printed[at..].trim_start();
            text.ends_with('\n').then(|| text.to_owned())
        })
    }

    /// Starts `d` at the first node: its guest writes its pages.
    fn start(&mut self) -> GuestScript {
        let script = self.lives[0].script("d", &[&writes()]);
        assert_eq!(self.answer(0, DEFINE), "d: defined\r\n");
        self.lives[0].command("start d");
        self.hear(0, "Entered", &["\"d\""]);
        self.until("the writes", |_| script.is_done().then_some(()));
        script
    }

    /// Lets the guest of `d` read its pages at a node, and checks them.
    #[track_caller]
    fn check(&mut self, script: &GuestScript) {
        let before = script.record().values.len();
        script.go_on(&reads());
        self.until("the reads", |_| {
            (script.record().values.len() == before + PAGES as usize).then_some(())
        });
        assert_eq!(script.record().values[before..], written());
    }

    fn has(&self, node: usize) -> bool {
        self.lives[node].machine.node.partitions().any(|(_, shared)| shared.name() == "d")
    }

    #[track_caller]
    fn no_errors(&self) {
        for life in &self.lives {
            let told = life.machine.told.iter().find(|event| event.starts_with("Error"));
            assert_eq!(told, None);
        }
    }
}

#[test]
fn messages_go_both_ways_and_their_latency_is_told() {
    let mut nodes = Nodes::new(3, 1);
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            let (there, here) = (nodes.slot(to), nodes.slot(from));
            assert_eq!(nodes.lives[from].command(&format!("message {there} from {from}")), "");
            let told = nodes.hear(to, "Mail ", &[&format!("text: \"from {from}\"")]);
            assert_eq!(number(&told, "slot: "), Some(here.into()), "{told}");
            let told = nodes.hear(from, "MailRead", &[&format!("slot: {there},")]);
            let ms = number(&told, "latency_ms: ").expect("a latency");
            assert!(ms <= 2500, "{told}");
        }
    }
    let slot = nodes.slot(0);
    assert!(nodes.lives[0].command(&format!("message {slot} x")).contains("is this node"));
    assert!(nodes.lives[0].command("message nobody x").contains("no member has this name"));
    let shown = nodes.lives[0].command("nodes");
    assert_eq!(shown.matches("mail took").count(), 2, "{shown}");
    nodes.no_errors();
}

#[test]
fn a_guest_moves_there_and_back_with_every_page() {
    let mut nodes = Nodes::new(2, 2);
    let first = nodes.start();
    let there = nodes.lives[1].script("d", &[]);
    let (one, two) = (nodes.slot(0), nodes.slot(1));
    let said = nodes.answer(0, &format!("move d to {two}"));
    assert_eq!(said, format!("d: moves to {two}\r\n"));
    nodes.hear(0, "MoveBegun", &["\"d\"", &format!("slot: {two}")]);
    let told = nodes.hear(1, "Arrived", &["\"d\"", "incarnation: 1"]);
    assert!(told.contains(&format!("from: Some({one})")), "{told}");
    nodes.hear(0, "Moved", &["confirmed: true"]);
    nodes.hear(0, "Undefined", &["\"d\""]);
    nodes.check(&there);
    assert_eq!((there.record().boots.len(), there.record().resumes), (0, 1));
    assert!(!nodes.has(0));
    // It crashes there, restarts there with a dump there, and comes back.
    let back = nodes.lives[0].script("d", &[]);
    nodes.answer(1, &format!("move d to {one}"));
    nodes.hear(0, "Arrived", &["\"d\""]);
    nodes.hear(1, "Undefined", &["\"d\""]);
    nodes.check(&back);
    assert_eq!(first.record().values.len(), 0);
    nodes.no_errors();
}

impl Nodes {
    /// Lets a node stand still for good: it is fenced by another one.
    fn die(&mut self, node: usize) {
        let slot = self.slot(node);
        self.lives.remove(node);
        self.ports.remove(node);
        self.until("the fence", |nodes| {
            let is_fenced = |life: &Life| {
                let rows = life.machine.node.members.expect("an area").rows();
                rows.iter().all(|row| row.id.slot != slot || row.status == RollStatus::Fenced)
            };
            nodes.lives.iter().all(is_fenced).then_some(())
        });
    }

    fn view(&self, node: usize) -> Option<LifecycleView> {
        let all = self.lives[node].machine.node.partitions();
        all.into_iter().find(|(_, one)| one.name() == "d").map(|(_, one)| one.view())
    }
}

#[test]
fn a_move_that_makes_no_sense_is_refused_and_nothing_changes() {
    let mut nodes = Nodes::new(2, 2);
    nodes.start();
    let (one, two) = (nodes.slot(0), nodes.slot(1));
    for (line, said) in [
        ("move x to 1".into(), "no partition 'x'"),
        ("move d to nobody".into(), "no member has this name"),
        (format!("move d to {one}"), "d is on this node already"),
        ("move d".into(), "target node"),
        ("drain nobody".into(), "no member has this name"),
    ] {
        let told = nodes.answer(0, &line);
        assert!(told.contains(said), "{line}: {told}");
    }
    // The target gives its partitions away.
    nodes.lives[1].command(&format!("drain {two}"));
    nodes.hear(1, "Drained", &["done"]);
    let told = nodes.answer(0, &format!("move d to {two}"));
    assert!(told.contains("cannot take it: it gives its own partitions away"), "{told}");
    assert!(nodes.answer(1, "start d").contains("gives its partitions away"));
    nodes.lives[1].command(&format!("drain {two} end"));
    assert_eq!(nodes.view(0), Some(LifecycleView::Running));
    // A partition that is not in a store of all nodes stays.
    let told = nodes.answer(0, "define e memory=2M store=0 kernel=vmlinuz scope=node");
    assert!(told.contains("defined"), "{told}");
    assert!(nodes.answer(0, &format!("move e to {two}")).contains("no definition"));
    nodes.no_errors();
}

#[test]
fn a_partition_that_crashes_or_is_killed_meanwhile_stays_here() {
    for (what, event) in [("crash d", "DumpComplete"), ("kill d", "Stopped")] {
        let mut nodes = Nodes::new(2, 3);
        nodes.start();
        let two = nodes.slot(1);
        nodes.lives[0].ports_stall(&nodes.ports[0], 2 * SECOND_NS);
        nodes.lives[0].command(&format!("move d to {two}"));
        nodes.lives[0].command(what);
        nodes.hear(0, event, &["\"d\""]);
        nodes.until("the end of the move", |nodes| {
            let all = &nodes.lives[0];
            (all.has_heard("MoveFailed") || all.printed.contains("error")).then_some(())
        });
        assert!(!nodes.lives[1].has_heard("Arrived") && !nodes.has(1), "{what}");
    }
}

impl Life {
    /// Lets the requests to the disk with the spaces wait.
    fn ports_stall(&self, ports: &[&'static AreaPort], ns: Ns) {
        ports[0].with(|port| port.stalled_until = time::now_ns() + ns);
    }
}

#[test]
fn a_target_that_dies_after_the_decree_leaves_the_partition_to_its_heir() {
    let mut nodes = Nodes::new(2, 3);
    nodes.start();
    let two = nodes.slot(1);
    nodes.lives[0].command(&format!("move d to {two}"));
    // The decree is known at the source; the target has not acted yet.
    nodes.hear(0, "Stopped", &["\"d\"", "moved"]);
    if nodes.lives[1].has_heard("Arrived") {
        return;
    }
    nodes.die(1);
    nodes.hear(0, "Inherited", &["\"d\""]);
    nodes.hear(0, "Entered", &["\"d\""]);
    assert_eq!(nodes.view(0), Some(LifecycleView::Running));
}

#[test]
fn what_a_dead_node_has_suspended_is_inherited_in_place() {
    let mut nodes = Nodes::new(2, 1);
    nodes.start();
    nodes.lives[0].command("suspend d");
    nodes.hear(0, "Suspended", &["\"d\""]);
    nodes.until("it", |nodes| (nodes.view(0) == Some(LifecycleView::Suspended)).then_some(()));
    let there = nodes.lives[1].script("d", &[]);
    nodes.die(0);
    nodes.hear(0, "Cold", &["\"d\""]);
    assert!(nodes.answer(0, "start d").contains("d is suspended"));
    assert_eq!(nodes.answer(0, "resume d"), "d: goes on here\r\n");
    nodes.hear(0, "Arrived", &["\"d\"", "incarnation: 1"]);
    nodes.check(&there);
    nodes.no_errors();
}

#[test]
fn a_drain_moves_what_it_can_and_leaves_the_rest_cold() {
    let mut nodes = Nodes::new(2, 3);
    nodes.start();
    let (one, two) = (nodes.slot(0), nodes.slot(1));
    let there = nodes.lives[1].script("d", &[]);
    // By mail from the other node.
    assert_eq!(nodes.lives[1].command(&format!("drain {one}")), "");
    nodes.hear(0, "Drained", &["begun", "left: 1"]);
    nodes.hear(1, "Arrived", &["\"d\""]);
    nodes.hear(0, "Drained", &["done", "left: 0"]);
    nodes.check(&there);
    // The first one takes nothing now, so it is suspended, and anyone may resume it.
    nodes.lives[1].command(&format!("drain {two}"));
    nodes.hear(1, "Cold", &["\"d\""]);
    nodes.hear(1, "Drained", &["done", "left: 0"]);
    assert!(nodes.answer(0, "resume d").contains("gives its partitions away"));
    nodes.lives[0].command(&format!("drain {one} end"));
    let back = nodes.lives[0].script("d", &[]);
    // The first node has to hear of the decree.
    let told = nodes.until("the cold space", |nodes| {
        let told = nodes.answer(0, "resume d");
        (!told.contains("no partition")).then_some(told)
    });
    assert_eq!(told, "d: goes on here\r\n");
    nodes.hear(0, "Arrived", &["\"d\"", "from: None"]);
    nodes.check(&back);
    nodes.no_errors();
}

#[test]
fn a_partition_that_cannot_go_on_there_comes_back_and_goes_on() {
    let mut nodes = Nodes::new(2, 2);
    let script = nodes.start();
    let two = nodes.slot(1);
    // Between the yes and the decree its room is gone.
    nodes.lives[0].command(&format!("move d to {two}"));
    nodes.hear(0, "MoveBegun", &["\"d\""]);
    nodes.lives[1].machine.node.registry.close();
    nodes.hear(1, "MoveRefused", &["\"d\"", "ending"]);
    nodes.hear(0, "MoveFailed", &["\"d\""]);
    nodes.hear(0, "Arrived", &["\"d\"", "incarnation: 1"]);
    assert_eq!(nodes.view(0), Some(LifecycleView::Running));
    nodes.check(&script);
    assert!(!nodes.has(1));
    nodes.no_errors();
}
