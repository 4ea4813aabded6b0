//! Turns cases into trials of libtest-mimic, one for each bed. Requirements are installed first.
//! Only KVM can be missing; its cases are then ignored.
//!
//! A case that does not end fails, with the backtraces of its threads; the other cases go on.

use crate::hung;
use crate::lanes::CaseLanes;
use anyhow::{Context, Result, bail};
use boot::bed::{Bed, kvm};
use boot::setup::{self, Permission, SetupJob};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// The longest case takes four minutes on an idle machine. Each wait within a case has a limit of
/// its own; this limit is for waits that lack one.
const CASE_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Our variables that do not make a run longer. Any other one asks for a run of any length.
const USUAL: [&str; 2] = ["TIDEPOOL_SEED", "TIDEPOOL_NO_INSTALL"];

/// A system test.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: the subject and the outcome.
    pub name: &'static str,
    /// The beds that it runs on.
    pub beds: &'static [Bed],
    /// Its requirements besides the bed.
    pub needs: &'static [SetupJob],
    /// The test.
    pub run: fn(Bed) -> Result<()>,
}

/// Runs `cases` as the command line selects them, after installing their requirements.
///
/// # Errors
/// Names the requirement that cannot be installed here, and the command that installs it.
pub fn run(cases: &[Case]) -> Result<Conclusion> {
    // Ctrl-C must end the processes that the tests started.
    boot::interrupt::install().expect("signal handlers can be installed");
    let mut arguments = Arguments::from_args();
    // Each machine keeps two CPUs busy: more than two machines at a time only slow each other down.
    let places = arguments.test_threads.unwrap_or(2);
    let mut all: Vec<_> =
        cases.iter().flat_map(|case| case.beds.iter().map(move |&bed| (case, bed))).collect();
    let sharing = all.iter().filter(|(_, bed)| *bed == Bed::Nested).count();
    arguments.test_threads = Some(CaseLanes::threads(places, sharing));
    // The longest row of cases that wait for each other comes first.
    all.sort_by_key(|(_, bed)| *bed != Bed::Nested);
    if !arguments.list {
        let wanted = all
            .iter()
            .filter(|(case, bed)| is_chosen(&arguments, &name(case, *bed)) && !is_machines(*bed));
        setup::bring(&jobs(wanted.copied()), permission())
            .context("the tests need what is not here")?;
    }
    let lanes = Arc::new(CaseLanes::new(places));
    let trials = all.into_iter().map(|(case, bed)| trial(case, bed, Arc::clone(&lanes))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    eprint!("{}", lanes.summary());
    Ok(conclusion)
}

/// Returns whether missing things may be fetched: not where `TIDEPOOL_NO_INSTALL` is set.
fn permission() -> Permission {
    if std::env::var_os("TIDEPOOL_NO_INSTALL").is_some() {
        Permission::Refuse
    } else {
        Permission::Install
    }
}

fn name(case: &Case, bed: Bed) -> String {
    format!("{}::{}", bed.name(), case.name)
}

/// Returns whether the command line selects a case, by the rules of libtest-mimic.
fn is_chosen(arguments: &Arguments, name: &str) -> bool {
    let matches = |filter: &String| {
        if arguments.exact { name == filter } else { name.contains(filter.as_str()) }
    };
    arguments.filter.as_ref().is_none_or(matches) && !arguments.skip.iter().any(matches)
}

/// Returns the requirements of all these cases, each once.
fn jobs<'c>(cases: impl Iterator<Item = (&'c Case, Bed)>) -> Vec<SetupJob> {
    let mut jobs = Vec::new();
    for (case, bed) in cases {
        for job in [&[SetupJob::Boot(bed)], case.needs].concat() {
            if !jobs.contains(&job) {
                jobs.push(job);
            }
        }
    }
    jobs
}

/// Returns whether a bed depends on the hardware and is not available: no set-up can provide it.
fn is_machines(bed: Bed) -> bool {
    bed == Bed::Kvm && !kvm::offers_virtualisation()
}

fn trial(case: &Case, bed: Bed, lanes: Arc<CaseLanes>) -> Trial {
    let (name, test) = (name(case, bed), case.run);
    if is_machines(bed) {
        // The reason appears before the name in the list. The same cases run on the other beds, so
        // no code goes untested.
        return Trial::test(name, || Ok(()))
            .with_kind("KVM offers no VMX or SVM here")
            .with_ignored_flag(true);
    }
    let limit = limit(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()));
    Trial::test(name.clone(), move || {
        let case = || within(limit, move || test(bed));
        lanes.run(&name, bed == Bed::Nested, case).map_err(|e| Failed::from(format!("{e:#}")))
    })
}

/// Returns the time limit of a case in a run with these variables.
fn limit(mut variables: impl Iterator<Item = String>) -> Option<Duration> {
    let is_longer = |name: String| name.starts_with("TIDEPOOL_") && !USUAL.contains(&name.as_str());
    (!variables.any(is_longer)).then_some(CASE_LIMIT)
}

/// Runs `test` on a thread of its own. A thread that does not end within `limit` is left behind.
fn within(
    limit: Option<Duration>,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<()> {
    let (teller, outcome) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("case".to_owned())
        .spawn(move || _ = teller.send(test()))?;
    let told = match limit {
        Some(limit) => outcome.recv_timeout(limit),
        None => outcome.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match (told, limit) {
        (Ok(outcome), _) => outcome,
        (Err(RecvTimeoutError::Timeout), Some(limit)) => {
            bail!("no end within {limit:?}\n{}", hung::describe())
        }
        (Err(_), _) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => bail!("the case has no outcome"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case {
        name: "a_case",
        beds: &[Bed::Qemu],
        needs: &[SetupJob::Guest, SetupJob::Readers],
        run: |_| Ok(()),
    };

    fn chosen(words: &[&str]) -> bool {
        is_chosen(&Arguments::from_iter([&["system"], words].concat()), &name(&CASE, Bed::Qemu))
    }

    #[test]
    fn only_what_is_chosen_has_to_be_there() {
        assert!(chosen(&[]) && chosen(&["qemu::"]) && chosen(&["--exact", "qemu::a_case"]));
        assert!(
            !chosen(&["bochs::"]) && !chosen(&["--exact", "a_case"]) && !chosen(&["--skip", "a_"])
        );
    }

    #[test]
    fn a_case_that_does_not_end_fails_and_names_its_place() {
        let (_held, never) = mpsc::channel::<()>();
        let error = within(Some(Duration::from_millis(200)), move || Ok(never.recv()?))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("no end within 200ms\nprocesses:"), "{error}");
        assert!(
            within(Some(Duration::from_secs(60)), || Ok(())).is_ok()
                && within(None, || bail!("wrong")).is_err()
        );
        assert!(std::panic::catch_unwind(|| within(None, || panic!("as asked"))).is_err());
    }

    #[test]
    fn a_run_that_a_person_makes_longer_has_no_limit() {
        let of = |names: &[&str]| limit(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(of(&["PATH", "CI", "TIDEPOOL_SEED", "TIDEPOOL_NO_INSTALL"]), Some(CASE_LIMIT));
        for longer in
            ["TIDEPOOL_FAULTS", "TIDEPOOL_KILLS", "TIDEPOOL_SERVER_SECONDS", "TIDEPOOL_WAYS"]
        {
            assert_eq!(of(&["TIDEPOOL_SEED", longer]), None, "{longer}");
        }
    }

    #[test]
    fn each_job_is_done_once() {
        let jobs = jobs([(&CASE, Bed::Qemu), (&CASE, Bed::Bochs)].into_iter());
        assert_eq!(
            jobs,
            [
                SetupJob::Boot(Bed::Qemu),
                SetupJob::Guest,
                SetupJob::Readers,
                SetupJob::Boot(Bed::Bochs)
            ]
        );
    }
}
