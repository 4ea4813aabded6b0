//! Reads a dump as any program would, from byte 0 as an ELF core, and verifies every
//! [`worker::WorkerPage`] in it: `checker FILE KEY`.
//!
//! ```text
//! checker: segments 12 pages 3000 wrong 0 twice 0 missing 0 generation 0 2250 1 750
//! ```
//!
//! `pages` counts the indexes found, `missing` the indexes below the highest that were not found,
//! `twice` the pages whose index was found before. The status is 0 only where there is no fault.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use worker::{PAGE_BYTES, PageIdentity, WorkerPage};

const PT_LOAD: u64 = 1;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

type CheckError = Box<dyn std::error::Error>;

#[derive(Default)]
struct Found {
    generations: BTreeMap<u64, u64>,
    wrong: u64,
    twice: u64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            println!("checker: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, CheckError> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(key)) = (arguments.next(), arguments.next()) else {
        return Err("usage: checker FILE KEY".into());
    };
    let (file, key) = (File::open(file)?, key.parse()?);
    let loads = loads(&file)?;
    let mut found = Found::default();
    for &(offset, bytes) in &loads {
        for page in 0..bytes / PAGE_BYTES as u64 {
            found.take(&page_at(&file, offset + page * PAGE_BYTES as u64)?, key);
        }
    }
    Ok(found.report(loads.len()))
}

/// Returns offset and length of the bytes of each PT_LOAD segment (System V ABI, "Program Header").
fn loads(file: &File) -> Result<Vec<(u64, u64)>, CheckError> {
    let mut head = [0; HEADER];
    file.read_exact_at(&mut head, 0)?;
    if !head.starts_with(b"\x7fELF\x02\x01") || number(&head, 16, 2) != 4 {
        return Err("no ELF64 core".into());
    }
    let mut table = vec![0; PROGRAM_HEADER * usize::try_from(number(&head, 56, 2))?];
    file.read_exact_at(&mut table, number(&head, 32, 8))?;
    let loads = table
        .as_chunks::<PROGRAM_HEADER>()
        .0
        .iter()
        .filter(|header| number(*header, 0, 4) == PT_LOAD);
    Ok(loads.map(|header| (number(header, 8, 8), number(header, 32, 8))).collect())
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn page_at(file: &File, offset: u64) -> Result<WorkerPage, CheckError> {
    let mut bytes = [0; PAGE_BYTES];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(std::array::from_fn(|n| number(&bytes, 8 * n, 8)))
}

impl Found {
    fn take(&mut self, page: &WorkerPage, key: u64) {
        let Some(identity) = PageIdentity::of(page).filter(|identity| identity.key == key) else {
            return;
        };
        if identity.check(page).is_err() || worker::check_crc(page).is_err() {
            self.wrong += 1;
        } else if self.generations.insert(identity.index, identity.generation).is_some() {
            self.twice += 1;
        }
    }

    fn report(&self, segments: usize) -> bool {
        let pages = self.generations.len() as u64;
        let missing = self.generations.keys().next_back().map_or(0, |last| last + 1 - pages);
        let mut counts = BTreeMap::new();
        self.generations
            .values()
            .for_each(|generation| *counts.entry(generation).or_insert(0) += 1);
        let counts: Vec<_> =
            counts.iter().map(|(generation, count)| format!("{generation} {count}")).collect();
        let (wrong, twice, counts) = (self.wrong, self.twice, counts.join(" "));
        println!(
            "checker: segments {segments} pages {pages} wrong {wrong} twice {twice} missing \
             {missing} generation {counts}"
        );
        pages > 0 && wrong + twice + missing == 0
    }
}
