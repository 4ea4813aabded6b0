//! Many runs by seed, several at a time. A failed run prints its seed, and all runs complete before
//! the result counts.

use crate::seeds;
use anyhow::{Result, bail};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of runs with consecutive seeds.
#[derive(Clone, Copy, Debug)]
pub struct SeededRuns {
    /// The first seed.
    pub seed: u64,
    /// Number of runs.
    pub count: u64,
    /// Number of runs at a time.
    pub at_a_time: usize,
}

impl SeededRuns {
    /// Plans `usual` runs, or the number in the variable. The first seed is `TIDEPOOL_SEED`, else
    /// from the clock.
    pub fn plan(variable: &str, usual: u64) -> Self {
        let seed = seeds::announced();
        let count = seeds::number_from(variable).unwrap_or(usual);
        println!("{count} runs");
        Self { seed, count, at_a_time: 3 }
    }

    /// Runs `run` with each seed. It returns a word for its outcome; equal words are counted.
    ///
    /// # Errors
    /// Names the seed of each failed run, with its error.
    pub fn each(&self, run: impl Fn(u64) -> Result<String> + Sync) -> Result<()> {
        let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        let work = || loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return;
            }
            let seed = self.seed.wrapping_add(index);
            let outcome = run(seed);
            if let Err(error) = &outcome {
                eprintln!("TIDEPOOL_SEED={seed}: {error:#}");
            }
            outcomes
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push((seed, outcome));
        };
        // An emulator ends with the thread that started it, so each thread does whole runs.
        std::thread::scope(|scope| (0..self.at_a_time).for_each(|_| drop(scope.spawn(work))));
        sum_up(outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn sum_up(outcomes: Vec<(u64, Result<String>)>) -> Result<()> {
    let (mut words, mut failed) = (std::collections::BTreeMap::new(), Vec::new());
    let count = outcomes.len();
    for (seed, outcome) in outcomes {
        match outcome {
            Ok(word) => *words.entry(word).or_insert(0) += 1,
            Err(error) => failed.push(format!("TIDEPOOL_SEED={seed}: {error:#}")),
        }
    }
    println!("{count} runs, {} failed: {words:?}", failed.len());
    if !failed.is_empty() {
        bail!("{} of {count} runs failed:\n{}", failed.len(), failed.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_run_and_a_failure_names_its_own() {
        let runs = SeededRuns { seed: 5, count: 9, at_a_time: 3 };
        let seen = Mutex::new(Vec::new());
        let note = |seed| {
            seen.lock().unwrap().push(seed);
            if seed == 8 { bail!("why") } else { Ok("well".to_owned()) }
        };
        let error = runs.each(note).unwrap_err().to_string();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (5..14).collect::<Vec<_>>());
        assert!(error.contains("1 of 9") && error.contains("TIDEPOOL_SEED=8: why"), "{error}");
    }
}
