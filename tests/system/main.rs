//! System tests: the hypervisor on emulators, driven through the library of the host command.
//!
//! `cargo test --test system -- qemu::` runs one bed's cases; the transcript of a failed one is kept under
//! `target/tidepool/transcripts`.

mod bench;
mod debian;
mod dumps;
mod flush;
mod fpu;
mod gpt;
mod hostile;
mod interrupt;
mod lacking;
mod nested;
mod partition;
mod selftests;
mod several;
mod sharing;
mod soak;
mod spaces;
mod start;
mod story;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Tests of the command as a process start this very program again.
    if std::env::args().nth(1).as_deref() == Some(interrupt::AS_TIDEPOOL) {
        return boot::cli::main_from(std::env::args_os().skip(1));
    }
    tests::run(
        &[
            bench::CASES,
            interrupt::CASES,
            start::CASES,
            selftests::CASES,
            partition::CASES,
            lacking::CASES,
            story::CASES,
            debian::CASES,
            dumps::CASES,
            spaces::CASES,
            gpt::CASES,
            sharing::CASES,
            several::CASES,
            fpu::CASES,
            soak::CASES,
            flush::CASES,
            hostile::CASES,
            nested::CASES,
        ]
        .concat(),
    )
    .exit_code()
}
