//! gdb on a dump, by virtual addresses.
//!
//! A dump describes physical memory. Its program headers have no virtual addresses, because a
//! kernel may map its pages in any order. So gdb reads the memory through us, as that of a stopped
//! machine:
//!
//! ```text
//!   gdb ── remote protocol on a pipe ──> protocol ──> memory: page tables ──> blocks of the dump
//!                                           └───────> notes: registers, KASLR offset
//! ```

pub mod memory;
pub mod notes;
pub mod protocol;

use super::Dump;
use anyhow::{Context, Result};
use notes::Notes;
use std::io::{stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

struct Crashed<'a> {
    dump: &'a Dump,
    notes: Notes,
}

impl protocol::DebugTarget for Crashed<'_> {
    fn registers(&self) -> &[u8] {
        &self.notes.registers
    }
    fn memory(&self, start: u64, length: usize) -> Vec<u8> {
        let bytes = self.notes.paging.read(self.dump, start, length);
        match self.notes.kernel {
            Some(kernel) if bytes.is_empty() => kernel.read(self.dump, start, length),
            _ => bytes,
        }
    }
}

fn notes(dump: &Dump) -> Result<Notes> {
    Ok(Notes::parse(&dump.notes()?))
}

/// Answers a gdb on standard input and output until gdb disconnects.
///
/// # Errors
/// Where the image cannot be read, or the connection fails.
pub fn serve(dump: &Dump) -> Result<()> {
    let target = Crashed { dump, notes: notes(dump)? };
    protocol::serve(&target, &mut stdin().lock(), &mut stdout().lock())
}

/// Replaces this process by a gdb that reads the dump; returns only where gdb cannot be started.
///
/// # Errors
/// Where the image cannot be read or gdb cannot be started.
pub fn start(dump: &Dump, symbols: Option<&Path>, further: &[String]) -> Result<()> {
    let program = std::env::current_exe().context("the path of this program")?;
    let tidepool = format!("'{}'", program.display());
    Err(command(dump, symbols, &tidepool)?.args(further).exec())
        .context("gdb cannot be started (Debian: gdb)")
}

/// Returns the command that starts gdb on the dump, with the kernel's symbols where they are given.
/// `tidepool` is the shell command of this host program, which gdb starts to have its packets
/// answered.
///
/// # Errors
/// Where the image cannot be read.
pub fn command(dump: &Dump, symbols: Option<&Path>, tidepool: &str) -> Result<Command> {
    let mut command = Command::new("gdb");
    command.args(["-q", "-iex", "set architecture i386:x86-64", "-iex", "set confirm off"]);
    if let Some(symbols) = symbols {
        let offset = notes(dump)?.kernel_offset.unwrap_or(0);
        command.args(["-ex", &format!("symbol-file -o {offset:#x} \"{}\"", symbols.display())]);
    }
    let (file, space) = (dump.image.path().canonicalize()?, dump.image.number());
    let space = if space == 0 { String::new() } else { format!(" {space}") };
    let server =
        format!("target remote | exec {tidepool} dump gdb --serve '{}'{space}", file.display());
    command.args(["-ex", &server]);
    Ok(command)
}
