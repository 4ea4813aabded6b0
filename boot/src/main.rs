//! The host command `tidepool`; everything it does is in the library, where the tests reach it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    boot::cli::main()
}
