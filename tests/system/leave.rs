//! Every way in which a real Linux leaves ends as `docs/guest-platform.md` says: one way after the
//! other, each in an incarnation of its own.
//!
//! The whole table takes minutes for a kernel; CI runs the part in [`SHORT`]. `TIDEPOOL_WAYS=all`
//! runs the whole table, `TIDEPOOL_WAYS=sleep,mute` some of its chains. `TIDEPOOL_LINUX=FILE.deb`
//! selects another kernel: a Debian package of one, or several packages separated by colons.

use anyhow::{Context, Result, bail, ensure};
use boot::bed::{Bed, BedMachine, RunningMachine};
use boot::demo::readers::Readers;
use boot::dump::Dump;
use boot::events::Polled;
use boot::initramfs;
use boot::paths;
use boot::setup::{Permission, SetupJob, debian};
use boot::volume::VolumeAccess;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::{Case, expect_success, plan_machine};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "linux_leaves_by_every_way_as_documented",
        beds: &[Bed::Qemu, Bed::Kvm],
        needs: &[SetupJob::Guest, SetupJob::Kexec],
        run: leave,
    },
    Case {
        name: "linux_leaves_by_every_way_as_documented_on_vmx",
        beds: &[Bed::Bochs],
        needs: &[SetupJob::Guest, SetupJob::Kexec],
        run: |bed| if wanted()?.is_empty() { run(bed, ON_VMX) } else { leave(bed) },
    },
    Case {
        name: "a_dump_after_kexec_is_of_the_kernel_that_crashed",
        beds: &[Bed::Qemu, Bed::Kvm],
        needs: &[SetupJob::Guest, SetupJob::Kexec, SetupJob::Readers],
        run: after_kexec,
    },
];

/// Time limit on a busy machine.
const LIMIT: Duration = Duration::from_secs(1800);
const SHORT_LIMIT: Duration = Duration::from_secs(90);
/// Time between two checks for sleeping guests.
const TYPING: Duration = Duration::from_secs(1);

/// The outcomes of an incarnation, as named in the events.
const RESET: &str = "reset";
const PANIC: &str = "panic";
const RECORD: &str = "panic record";
const HALT: &str = "halted for good";

/// A partition: its name, words for its kernel's command line, and its ways with their outcomes.
#[derive(Clone, Copy)]
struct Chain {
    name: &'static str,
    words: &'static str,
    ways: &'static [(&'static str, &'static str)],
}

/// Memory for a crash kernel; a log of several records.
const ORDINARY: &str = "crashkernel=96M pstore.kmsg_bytes=32768";
/// As with an old kernel, or a panic early at boot: a panic is not reported. It has
/// the TSC's frequency from its command line alone.
const MUTE: &str = "erst_disable modules=no no-kvmclock";

const SHORT: &[Chain] = &[
    Chain {
        name: "linux",
        words: "crashkernel=96M pstore.kmsg_bytes=32768 crash_kexec_post_notifiers",
        ways: &[
            ("reboot", RESET),
            ("panic0", PANIC),
            ("crash-kernel", RESET),
            ("poweroff", "power off"),
        ],
    },
    Chain {
        name: "mute",
        words: MUTE,
        ways: &[("panic1", RESET), ("type-triple", RESET), ("halt", HALT)],
    },
];

const ALL: &[Chain] = &[
    Chain {
        name: "ways",
        words: ORDINARY,
        ways: &[
            ("reboot", RESET),
            ("sysrq-b", RESET),
            ("kexec", RESET),
            ("panic0", PANIC),
            ("panic1", PANIC),
            ("panic-1", PANIC),
            // Its crash kernel starts before the panic is reported.
            ("crash-kernel", RESET),
            ("sysrq-o", "power off"),
        ],
    },
    Chain {
        name: "post",
        words: "crashkernel=96M pstore.kmsg_bytes=32768 crash_kexec_post_notifiers",
        ways: &[("crash-kernel", RESET), ("poweroff", "power off")],
    },
    Chain {
        name: "record",
        words: "crashkernel=96M pstore.kmsg_bytes=32768 crash_kexec_post_notifiers modules=no",
        ways: &[("panic0", RECORD), ("crash-kernel", RESET), ("poweroff", "power off")],
    },
    Chain {
        name: "mute",
        words: MUTE,
        ways: &[("panic1", RESET), ("panic-1", RESET), ("halt", HALT)],
    },
    Chain {
        name: "nopv",
        words: "nopv",
        ways: &[("reboot", RESET), ("panic0", PANIC), ("poweroff", "power off")],
    },
    // Without a timer the kernel waits before the first process can do anything.
    Chain { name: "nolapic", words: "nolapic", ways: &[("reboot", HALT)] },
    // With the MP table, where the kernel reads one. A panic is not reported: pvpanic and the error
    // records belong to ACPI.
    Chain {
        name: "noacpi",
        words: "acpi=off",
        ways: &[("reboot", RESET), ("panic1", RESET), ("read", RESET), ("poweroff", HALT)],
    },
    Chain {
        name: "sleep",
        words: "",
        ways: &[
            ("suspend-freeze", RESET),
            ("suspend-mem", RESET),
            ("suspend-standby", RESET),
            ("poweroff", "power off"),
        ],
    },
    Chain { name: "w", words: "reboot=w", ways: &[("reboot", RESET), ("poweroff", "power off")] },
    Chain { name: "a", words: "reboot=a", ways: &[("reboot", RESET), ("poweroff", "power off")] },
    Chain { name: "b", words: "reboot=b", ways: &[("reboot", RESET), ("poweroff", "power off")] },
    Chain { name: "e", words: "reboot=e", ways: &[("reboot", RESET), ("poweroff", "power off")] },
    Chain { name: "k", words: "reboot=k", ways: &[("reboot", RESET), ("poweroff", "power off")] },
    Chain { name: "p", words: "reboot=p", ways: &[("reboot", RESET), ("poweroff", "power off")] },
    Chain { name: "t", words: "reboot=t", ways: &[("reboot", RESET), ("poweroff", "power off")] },
];

/// A boot takes half a minute of CPU time on this bed.
const ON_VMX: &[Chain] = &[Chain { name: "linux", words: MUTE, ways: &[("reboot", RESET)] }];

/// Returns the selected chains of the whole table: all, or some by name.
fn wanted() -> Result<Vec<Chain>> {
    let Ok(names) = std::env::var("TIDEPOOL_WAYS") else { return Ok(Vec::new()) };
    if names == "all" {
        return Ok(ALL.iter().map(of_this_linux).collect());
    }
    let chain = |name| {
        ALL.iter()
            .find(|chain| chain.name == name)
            .with_context(|| format!("TIDEPOOL_WAYS: {name}"))
    };
    names.split(',').map(|name| chain(name).map(of_this_linux)).collect()
}

/// Returns the chain with the outcomes of this Linux. Debian's cloud kernels, which are the
/// default, are built without MP tables: without ACPI they have no timer.
fn of_this_linux(chain: &Chain) -> Chain {
    let is_cloud = std::env::var("TIDEPOOL_LINUX").map_or(true, |files| files.contains("-cloud-"));
    match chain.name {
        "noacpi" if is_cloud => Chain { ways: &[("reboot", HALT)], ..*chain },
        _ => *chain,
    }
}

fn leave(bed: Bed) -> Result<()> {
    let wanted = wanted()?;
    if wanted.is_empty() {
        return run(bed, SHORT);
    }
    // A few at a time, so that the machine needs no more memory than in other tests.
    wanted.chunks(4).try_for_each(|chains| run(bed, chains))
}

/// Returns the kernel of the test: bzImage and modules.
fn kernel(folder: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    match std::env::var_os("TIDEPOOL_LINUX") {
        Some(packages) => {
            debian::unpack_other(&std::env::split_paths(&packages).collect::<Vec<_>>(), folder)
        }
        None => {
            let kernel = debian::kernel(Permission::Refuse)?;
            Ok((kernel.vmlinuz(), kernel.modules()))
        }
    }
}

fn run(bed: Bed, chains: &[Chain]) -> Result<()> {
    let stage = Stage::set(bed, chains[0].name, chains, "off")?;
    let mut running = stage.machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    follow(&mut running, chains).with_context(|| place.clone())?;
    judge(&running, chains).with_context(|| place.clone())?;
    // A partition whose last way leads to another incarnation still runs.
    if chains.iter().any(|chain| chain.ways.last().is_some_and(|(_, outcome)| *outcome == RESET)) {
        running.events.send(json!({"command": "poweroff"}))?;
    }
    expect_success(running, SHORT_LIMIT)?;
    std::fs::remove_dir_all(&stage.folder)?;
    Ok(())
}

/// A machine, and the folder with its files.
struct Stage {
    machine: BedMachine,
    folder: PathBuf,
}

impl Stage {
    fn set(bed: Bed, name: &str, chains: &[Chain], dump: &str) -> Result<Self> {
        let name = format!("{}-leave-{name}", bed.name());
        let folder = paths::tidepool().join(&name);
        // Remove the files of an earlier, failed run.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let (vmlinuz, modules) = kernel(&folder)?;
        let initrd = folder.join("initramfs.cpio");
        initramfs::leave::make(&vmlinuz, &modules, &initrd)?;
        let text = configuration(bed, chains, &vmlinuz, &initrd)
            .replace("dump = \"off\"", &format!("dump = \"{dump}\""));
        Ok(Self { machine: plan_machine(bed, &name, &text, &folder)?, folder })
    }
}

fn configuration(bed: Bed, chains: &[Chain], kernel: &Path, initrd: &Path) -> String {
    // Linux 7.3 with its initramfs needs more than 112 MiB.
    let memory = |chain: &Chain| if chain.words.contains("crashkernel") { 288 } else { 144 };
    let pool: u64 = chains.iter().map(memory).sum();
    let mut text = format!("at_end = \"power-off\"\n[pool]\nmemory = \"{pool} MiB\"\n");
    for (number, chain) in chains.iter().enumerate() {
        let mib = memory(chain) + 16;
        text += &match bed {
            Bed::Bochs => format!("[[paging_device]]\nmemory = \"{mib} MiB\"\n"),
            _ => format!("[[paging_device]]\nimage = \"{number}.img\"\nsize = \"{mib} MiB\"\n"),
        };
        let Chain { name, words, ways } = chain;
        let ways: Vec<_> = ways.iter().map(|(way, _)| *way).collect();
        text += &format!(
            "[[partition]]\nname = \"{name}\"\nmemory = \"{} MiB\"\nkernel = \"{}\"\ninitrd = \
             \"{}\"\ndump = \"off\"\ncmdline = \"console=ttyS0 quiet {words} ways={}\"\n",
            memory(chain),
            kernel.display(),
            initrd.display(),
            ways.join(",")
        );
    }
    text
}

/// Waits until every partition has gone all its ways.
fn follow(running: &mut RunningMachine, chains: &[Chain]) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while chains.iter().any(|chain| outcomes(running, chain.name).len() < chain.ways.len()) {
        match running.events.poll(TYPING) {
            Polled::Event(event) if event.name() == "error" => bail!("{}", event.0),
            Polled::Event(_) => {}
            Polled::Nothing => wake_sleepers(running, chains)?,
            Polled::Ended => bail!("the machine stopped"),
        }
        ensure!(
            Instant::now() < deadline,
            "after {} s: {:?}",
            LIMIT.as_secs(),
            running.events.all().last()
        );
    }
    catch_up(running, chains);
    Ok(())
}

/// Waits until the console shows each partition's last way: its text comes on another line than the
/// events, and may be later.
fn catch_up(running: &mut RunningMachine, chains: &[Chain]) {
    let deadline = Instant::now() + SHORT_LIMIT;
    while chains.iter().any(|chain| !has_told(running, chains, chain)) && Instant::now() < deadline
    {
        if matches!(running.events.poll(TYPING), Polled::Ended) {
            return;
        }
    }
}

fn has_told(running: &RunningMachine, chains: &[Chain], chain: &Chain) -> bool {
    let Some((way, outcome)) = chain.ways.last() else { return true };
    let told = format!(" way {way}");
    is_without_timer(way, outcome)
        || lines_of(&running.console.text(), chains, chain.name).any(|line| line.contains(&told))
}

/// Returns whether a kernel halts before its first process can do anything.
fn is_without_timer(way: &str, outcome: &str) -> bool {
    way == "reboot" && outcome == HALT
}

/// Types at the console of sleeping or waiting guests until they go on: a byte that comes too early
/// is lost.
fn wake_sleepers(running: &mut RunningMachine, chains: &[Chain]) -> Result<()> {
    let console = running.console.text();
    for Chain { name, .. } in chains {
        let count = |text: &str| {
            lines_of(&console, chains, name).filter(|line| line.contains(text)).count()
        };
        if count("leave: sleeps") > count("leave: woke")
            || count("leave: reads") > count("leave: has read")
        {
            running.events.send(json!({"command": "type", "partition": name, "bytes": "0a"}))?;
        }
    }
    Ok(())
}

/// Returns the lines of a partition's console.
fn lines_of<'t>(console: &'t str, chains: &[Chain], name: &str) -> impl Iterator<Item = &'t str> {
    let tag = (chains.len() > 1).then(|| format!("[{name}] "));
    console.lines().filter(move |line| tag.as_ref().is_none_or(|tag| line.contains(tag)))
}

/// Checks that every crash is reported with the kernel's own message.
fn judge_words(running: &RunningMachine) -> Result<()> {
    for crash in running.events.all().iter().filter(|event| event.name() == "crash") {
        ensure!(crash.text("text")?.starts_with("Kernel panic - not syncing: "), "{}", crash.0);
    }
    Ok(())
}

fn judge(running: &RunningMachine, chains: &[Chain]) -> Result<()> {
    judge_words(running)?;
    let console = running.console.text();
    for Chain { name, ways, words } in chains {
        let expected: Vec<&str> = ways.iter().map(|(_, outcome)| *outcome).collect();
        let found = outcomes(running, name);
        ensure!(found == expected, "{name}: {found:?} instead of {expected:?}");
        let says = |text: &str| lines_of(&console, chains, name).any(|line| line.contains(text));
        for (way, outcome) in *ways {
            let has_begun = says(&format!(" way {way}"));
            ensure!(
                has_begun != is_without_timer(way, outcome),
                "{name}: {way}: begun is {has_begun}"
            );
            match *way {
                "kexec" => ensure!(says("leave: after kexec"), "{name}: no second kernel"),
                // ACPI offers only S5: "mem" is then suspend-to-idle, and standby does not exist.
                "suspend-freeze" | "suspend-mem" => {
                    ensure!(
                        says(&format!("leave: woke from {}, status 0", &way[8..])),
                        "{name}: {way} did not sleep"
                    );
                }
                "suspend-standby" => ensure!(
                    says("leave: woke from standby, status 1"),
                    "{name}: there is a standby"
                ),
                "crash-kernel" => {
                    ensure!(says("leave: a crash kernel runs"), "{name}: no crash kernel")
                }
                way if way.starts_with("panic") && *outcome != RESET => {
                    let parts = ["Part1", "Part2", "Part3"];
                    let lacking =
                        parts.iter().find(|part| !says(&format!("leave: record Panic#1 {part}")));
                    ensure!(
                        lacking.is_none() || !words.contains("kmsg_bytes"),
                        "{name}: {lacking:?} of the log is lost"
                    );
                }
                _ => {}
            }
        }
        ensure!(!says("leave: still here"), "{name}: a way led nowhere");
    }
    Ok(())
}

/// The note of the kernel before the kexec is still in memory too; a reader that took it would
/// fail.
fn after_kexec(bed: Bed) -> Result<()> {
    const CHAIN: &[Chain] = &[Chain {
        name: "linux",
        words: "crashkernel=96M",
        ways: &[("kexec-panic", PANIC), ("poweroff", "power off")],
    }];
    let stage = Stage::set(bed, "after-kexec", CHAIN, "aided")?;
    let image = stage.folder.join("0.img");
    let mut running = stage.machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let complete =
        running.events.wait_named(LIMIT, "dump_complete").with_context(|| place.clone())?;
    ensure!(complete.0["vmcoreinfo"] == true, "{}; {place}", complete.0);
    running.events.send(json!({"command": "poweroff"}))?;
    judge_words(&running)?;
    expect_success(running, SHORT_LIMIT)?;
    let recorded = Dump::open(&image, VolumeAccess::Read)?
        .record()
        .crash
        .clone()
        .context("no crash is recorded")?;
    ensure!(&*recorded.text == "Kernel panic - not syncing: sysrq triggered crash", "{recorded:?}");
    let readers = Readers { vmlinux: PathBuf::new(), python: PathBuf::new() };
    let log = readers.kernel_log(&image)?;
    ensure!(
        log.contains("ways.kexec-panic") && log.contains("sysrq triggered crash"),
        "another kernel's log"
    );
    std::fs::remove_dir_all(&stage.folder)?;
    Ok(())
}

/// Returns the outcome of each incarnation of a partition.
fn outcomes<'a>(running: &'a RunningMachine, partition: &'a str) -> Vec<&'a str> {
    let of_it = running.events.all().iter().filter(|event| event.0["partition"] == partition);
    of_it
        .filter_map(|event| match event.name() {
            "stopped" => event.0["how"].as_str(),
            "crash" => event.0["reason"].as_str(),
            _ => None,
        })
        .collect()
}
