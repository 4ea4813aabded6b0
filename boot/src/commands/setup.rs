//! `tidepool setup`: everything that the demonstration and the tests need, at once.

use crate::bed::Bed;
use crate::cli::Common;
use crate::initramfs;
use crate::setup::{self, SetupJob, debian, python};
use anyhow::Result;
use std::process::ExitCode;

/// Prepares all jobs.
///
/// # Errors
/// Names the missing thing that must not or cannot be fetched.
pub fn run(common: &Common) -> Result<ExitCode> {
    let permission = common.permission();
    setup::prepare(
        &[
            SetupJob::Boot(Bed::Qemu),
            SetupJob::Boot(Bed::Bochs),
            SetupJob::Boot(Bed::Nested),
            SetupJob::Guest,
            SetupJob::Kexec,
            SetupJob::Readers,
            SetupJob::Uefi,
        ],
        permission,
    )?;
    let kernel = debian::kernel(permission)?;
    println!("kernel   {} {}: {}", kernel.package, kernel.version, kernel.vmlinuz().display());
    println!("initrd   {}", initramfs::prepare(&kernel)?.display());
    println!("symbols  {}", debian::debug_symbols(&kernel, permission)?.display());
    println!("drgn     {}", python::drgn(permission)?.display());
    Ok(ExitCode::SUCCESS)
}
