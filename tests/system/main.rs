//! System tests: the hypervisor on emulators, driven through the library of the host command.
//!
//! `cargo test --test system -- qemu::` runs one bed's cases; the transcript of a failed case is
//! kept under `target/tidepool/transcripts`.

mod bad_disk;
mod bench;
mod bounds;
mod button;
mod clones;
mod closed;
mod cluster;
mod console;
mod cpu;
mod cuts;
mod debian;
mod definitions;
mod device;
mod dumps;
mod faults;
mod firmware;
mod flush;
mod fpu;
mod gpt;
mod hang;
mod heirs;
mod hostile;
mod interrupt;
mod lacking;
mod leave;
mod moves;
mod moves_between;
mod nested;
mod partition;
mod prefixes;
mod reach;
mod readers;
mod selftests;
mod server;
mod several;
mod sharing;
mod sizes;
mod soak;
mod spaces;
mod start;
mod store;
mod stored;
mod story;
mod trials;
mod two_nodes;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Tests of the command as a process start this program again.
    if std::env::args().nth(1).as_deref() == Some(interrupt::AS_TIDEPOOL) {
        return boot::cli::main_from(std::env::args_os().skip(1));
    }
    let conclusion = tests::run(
        &[
            bench::CASES,
            interrupt::CASES,
            reach::CASES,
            start::CASES,
            store::CASES,
            stored::CASES,
            selftests::CASES,
            partition::CASES,
            cpu::CASES,
            cuts::CASES,
            prefixes::CASES,
            lacking::CASES,
            leave::CASES,
            story::CASES,
            two_nodes::CASES,
            console::CASES,
            debian::CASES,
            definitions::CASES,
            device::CASES,
            clones::CASES,
            moves::CASES,
            moves_between::CASES,
            dumps::CASES,
            readers::CASES,
            spaces::CASES,
            bounds::CASES,
            button::CASES,
            gpt::CASES,
            closed::CASES,
            cluster::CASES,
            heirs::CASES,
            sharing::CASES,
            trials::CASES,
            several::CASES,
            server::cases(),
            fpu::CASES,
            sizes::CASES,
            soak::CASES,
            bad_disk::CASES,
            faults::CASES,
            firmware::CASES,
            flush::CASES,
            hang::CASES,
            hostile::CASES,
            nested::CASES,
        ]
        .concat(),
    );
    match conclusion {
        Ok(conclusion) => conclusion.exit_code(),
        Err(error) => {
            eprintln!("tests: {error:#}");
            ExitCode::FAILURE
        }
    }
}
