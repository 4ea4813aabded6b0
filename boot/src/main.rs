//! The host command `tidepool`. All its code is in the library, where the tests use it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    boot::cli::main()
}
