//! The hypervisor's binary: only the hand-over from the boot stub to the library.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
stub::entry!(kernel::init::kmain);

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "tidepool-kernel runs on the bare machine: use `cargo run`, which builds and boots it"
    );
}
