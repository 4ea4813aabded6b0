//! System tests: the hypervisor on emulators, driven through the library of the host command.
//!
//! `cargo test --test system -- qemu::` runs one bed's cases; the transcript of a failed one is kept under
//! `target/tidepool/transcripts`.

mod selftests;
mod start;

fn main() -> std::process::ExitCode {
    let cases = [start::CASES, selftests::CASES].concat();
    tests::run(&cases).exit_code()
}
