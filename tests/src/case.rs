//! Cases become trials of libtest-mimic: one for each bed, ignored with its reason where the bed is not there.

use anyhow::Result;
use boot::bed::{Bed, kvm};
use boot::setup::{self, Job, Permission};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};

/// A system test.
#[derive(Clone, Copy)]
pub struct Case {
    /// What, and with which outcome.
    pub name: &'static str,
    /// Where it runs.
    pub beds: &'static [Bed],
    /// What it needs beside the bed.
    pub needs: &'static [Job],
    /// The test.
    pub run: fn(Bed) -> Result<()>,
}

/// Runs `cases` as the command line says.
pub fn run(cases: &[Case]) -> Conclusion {
    // Ctrl-C ends what the tests started.
    boot::interrupt::install().expect("signal handlers can be installed");
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        // As cargo would, if it knew that a test needs another target.
        setup::toolchain(Permission::Install).expect("the Rust target can be added");
    }
    // Each machine keeps two CPUs busy: more than two machines at a time only make each other late.
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(2));
    let mut all: Vec<_> = cases.iter().flat_map(|case| case.beds.iter().map(move |&bed| (case, bed))).collect();
    // Those in bed C share one Linux and wait for each other; in the middle they would keep others from running.
    all.sort_by_key(|(_, bed)| *bed == Bed::Nested);
    let trials = all.into_iter().map(|(case, bed)| trial(case, bed)).collect();
    libtest_mimic::run(&arguments, trials)
}

fn trial(case: &Case, bed: Bed) -> Trial {
    let (name, test) = (format!("{}::{}", bed.name(), case.name), case.run);
    match obstacle(bed, case.needs) {
        None => Trial::test(name, move || test(bed).map_err(|error| Failed::from(format!("{error:#}")))),
        Some(Obstacle::SetUp(reason)) if std::env::var_os("CI").is_some() => Trial::test(name, move || Err(Failed::from(reason))),
        // The reason stands in front of the name in the list.
        Some(Obstacle::SetUp(reason) | Obstacle::Machine(reason)) => {
            Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
        }
    }
}

/// Why nothing can run on a bed here.
enum Obstacle {
    /// The set-up would bring what is missing: a failure where CI is set.
    SetUp(String),
    /// No set-up can bring it. The same cases run on the other beds, so nothing goes untested for it.
    Machine(String),
}

/// Returns why nothing can run on `bed` here, if so.
fn obstacle(bed: Bed, needs: &[Job]) -> Option<Obstacle> {
    if bed == Bed::Kvm && !kvm::offers_virtualisation() {
        return Some(Obstacle::Machine("KVM offers no VMX or SVM here".to_owned()));
    }
    let jobs = [&[Job::Boot(bed)], needs].concat();
    let lacking = setup::lacking(&jobs);
    (!lacking.is_empty()).then(|| Obstacle::SetUp(format!("`tidepool setup` brings {}", lacking.join(", "))))
}
