//! `tidepool doctor`: the features of this machine, a trial of one partition on its best bed, and
//! the text to send with a report. Takes at most half a minute, once the hypervisor is built.

use crate::bed::features::{self, Feature, Role};
use crate::bed::{Bed, BedMachine, MachineEnd, kvm};
use crate::cli::Common;
use crate::config;
use crate::kernel_build::{self, Variant};
use crate::setup::{self, SetupJob};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Time limit for the whole trial.
const LIMIT: Duration = Duration::from_secs(25);
/// Memory of the trial's partition, of which it fills a part.
const TRIAL: &str = "at_end = \"power-off\"\n[pool]\nmemory = \"24 \
                     MiB\"\n[[paging_device]]\nmemory = \"24 MiB\"\n[[partition]]\nname = \
                     \"trial\"\nmemory = \"16 MiB\"\nrestart = \"never\"\ncmdline = \"paged=500 \
                     dirty=100\"\n";

/// Examines the machine, runs the trial, and prints the text to send.
///
/// # Errors
/// Where the output cannot be written. A fault of the machine is a line of output and the status.
pub fn run(common: &Common) -> Result<ExitCode> {
    println!("tidepool {}", env!("CARGO_PKG_VERSION"));
    machine();
    virtualisation();
    beds();
    let bed = common.bed();
    let outcome = trial(bed);
    match &outcome {
        Ok(told) => {
            println!("trial     in {}: ok", bed.name());
            told.iter().for_each(|line| println!("          {line}"));
        }
        Err(error) => println!("trial     in {}: FAILED: {error:#}", bed.name()),
    }
    println!(
        "\nTo report a problem send all of the above, your configuration, and the folder of the \
         run that failed; the newest under"
    );
    println!("    {}", crate::paths::transcripts().display());
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn machine() {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let count = cpu.lines().filter(|line| line.starts_with("processor")).count();
    println!(
        "system    {}, Linux {}",
        value(&read("/etc/os-release"), "PRETTY_NAME", '='),
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("CPU       {count} x {}", value(&cpu, "model name", ':'));
    let memory = read("/proc/meminfo");
    println!(
        "memory    {}, available {}",
        mib(&value(&memory, "MemTotal", ':')),
        mib(&value(&memory, "MemAvailable", ':'))
    );
    for program in ["qemu-system-x86_64", "rustc"] {
        println!("{program:<9} {}", version(program));
    }
}

/// Returns the value of a key in such a file, without quotes.
fn value(text: &str, key: &str, separator: char) -> String {
    let line =
        text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(separator));
    line.map_or_else(|| "unknown".to_owned(), |value| value.trim().trim_matches('"').to_owned())
}

/// Converts `/proc/meminfo`'s kilobytes to MiB.
fn mib(kilobytes: &str) -> String {
    let number = kilobytes.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    number.map_or_else(|| "unknown".to_owned(), |number| format!("{} MiB", number >> 10))
}

fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "not there".to_owned())
}

fn virtualisation() {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = value(&flags, "flags", ':');
    let has = |flag: &str| flags.split(' ').any(|word| word == flag);
    let own = if has("vmx") {
        "VMX"
    } else if has("svm") {
        "SVM"
    } else {
        "neither VMX nor SVM"
    };
    let inside = if has("hypervisor") { "a virtual machine's CPU" } else { "a real CPU" };
    println!("hardware  {inside}, which shows {own}");
    println!("/dev/kvm  {}", kvm::state());
    for (module, path) in ["kvm_intel", "kvm_amd"]
        .map(|module| (module, format!("/sys/module/{module}/parameters/nested")))
    {
        if let Ok(nested) = fs::read_to_string(&path) {
            println!("          {module} nested = {}", nested.trim());
        }
    }
    match features::of_kvm() {
        None => println!(
            "          offers its guests no VMX and no SVM: Tidepool runs on emulators here"
        ),
        Some((what, features)) => features_of(what, &features),
    }
}

fn features_of(what: &str, features: &[Feature]) {
    println!("          offers its guests {what}:");
    for feature in features {
        let verdict = match (feature.offered, feature.role) {
            (true, _) => "yes",
            (false, Role::Needed) => "NO: Tidepool needs it",
            (false, Role::Useful) => "no: slower without",
        };
        println!("            {:<30} {verdict}", feature.name);
    }
}

fn beds() {
    for bed in [Bed::Kvm, Bed::Qemu, Bed::Bochs, Bed::Nested] {
        let lacking = setup::lacking(&[SetupJob::Boot(bed)]);
        let state = match (bed, lacking.is_empty()) {
            (Bed::Kvm, _) if !kvm::offers_virtualisation() => "not on this machine".to_owned(),
            (_, true) => "ready".to_owned(),
            (_, false) => format!("lacks {}; `tidepool setup` brings it", lacking.join(", ")),
        };
        println!("bed       {:<8}{state}", bed.name());
    }
}

/// Runs a partition through paging, crash and dump; returns the observations.
fn trial(bed: Bed) -> Result<Vec<String>> {
    let kernel = kernel_build::test_kernels()?.join("states");
    let text = format!("{TRIAL}kernel = \"{}\"\n", kernel.display());
    let mut machine = BedMachine::new(bed, "doctor", kernel_build::hypervisor(Variant::Ordinary)?);
    machine.apply(config::read("trial", &text, Path::new(""), bed)?);
    // Start the time limit after the build, which may take long the first time.
    let deadline = Instant::now() + LIMIT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut running = machine.start()?;
    let place = format!("transcript in {}", running.folder().display());
    let boot = running.events.wait_named(left(), "boot").with_context(|| place.clone())?;
    let filled = |event: &crate::events::Event| {
        event.name() == "guest"
            && event.0["text"].as_str().is_some_and(|text| text.starts_with("filled"))
    };
    running
        .events
        .wait_for(left(), "the partition to run", filled)
        .with_context(|| place.clone())?;
    running
        .events
        .command(left(), json!({"command": "crash", "partition": "trial"}))
        .with_context(|| place.clone())?;
    let dump = running.events.wait_named(left(), "dump_complete").with_context(|| place.clone())?;
    running.events.send(json!({"command": "poweroff"}))?;
    ensure!(
        running.wait_for_end(left())? == MachineEnd::Success,
        "the hypervisor did not stop in order; {place}"
    );
    running.passed();
    let pages = dump.number("pages_written")?;
    Ok(vec![
        format!("hypervisor: {}", boot.0),
        format!("a partition ran, crashed, and left a dump: {pages} pages written"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_files_of_both_kinds() {
        assert_eq!(
            value("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n", "PRETTY_NAME", '='),
            "Debian GNU/Linux 12"
        );
        assert_eq!(value("model name\t: A CPU\n", "model name", ':'), "A CPU");
        assert_eq!(value("", "model name", ':'), "unknown");
        assert_eq!((mib("2048 kB"), mib("?")), ("2 MiB".to_owned(), "unknown".to_owned()));
    }
}
