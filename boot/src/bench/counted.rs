//! Instruction counts on machines of several CPUs, where the machine has no counter for them: a
//! QEMU plugin counts.
//!
//! The plugin (`count.c`) is built by the C compiler that Rust needs as its linker.

use crate::paths;
use anyhow::{Context, Result, bail};
use kernel::log::symbols::{self, KernelSymbols};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("count.c");
/// The function in which a CPU waits for a lock of the hypervisor: two parts of its demangled name.
const WAIT: (&str, &str) = ("sync::ranked::RankedLock<", "::wait");

/// The instructions that a run has executed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Instructions {
    /// The hypervisor's, without lock waits.
    pub hypervisor: u64,
    /// The hypervisor's in lock waits.
    pub waits: u64,
    /// The guests' (and the boot code's).
    pub guests: u64,
    /// The hypervisor's by function.
    pub functions: BTreeMap<String, u64>,
}

/// Builds the plugin; returns its file.
///
/// # Errors
/// Where there is no C compiler, or it fails.
pub(super) fn plugin() -> Result<PathBuf> {
    let folder = paths::tidepool().join("plugin");
    std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let (source, built) = (folder.join("count.c"), folder.join("count.so"));
    std::fs::write(&source, SOURCE).with_context(|| format!("{}", source.display()))?;
    let mut command = Command::new("cc");
    command
        .args(["-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-fvisibility=hidden", "-o"])
        .arg(&built)
        .arg(&source);
    let output = command.output().context("no C compiler (`cc`), which builds QEMU's plugin")?;
    if !output.status.success() {
        bail!("cc ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(built)
}

/// Returns QEMU's argument that loads `plugin` with the output file `out`.
pub(super) fn argument(plugin: &Path, out: &Path) -> String {
    format!("{},out={}", plugin.display(), out.display())
}

/// Reads the plugin's output, with the symbols of `hypervisor`.
///
/// # Errors
/// Where a file is missing, has no symbols, or is incomplete.
pub(super) fn read(out: &Path, hypervisor: &Path) -> Result<Instructions> {
    let text = std::fs::read_to_string(out)
        .with_context(|| format!("{}: no count of the plugin", out.display()))?;
    let elf = std::fs::read(hypervisor).with_context(|| format!("{}", hypervisor.display()))?;
    let module = symbols::from_elf(&elf).context("the hypervisor has no symbols")?;
    let symbols = KernelSymbols::parse(&module).context("the hypervisor's symbols are no table")?;
    parse(&text, |address| symbols.lookup(address).map(|(name, _)| name.to_owned()))
        .with_context(|| format!("{} is cut off", out.display()))
}

/// Parses the plugin's lines; `None` where the end is missing or a line is malformed.
fn parse(text: &str, name_of: impl Fn(u64) -> Option<String>) -> Option<Instructions> {
    let mut lines = text.strip_suffix("end\n")?.lines();
    let guests = lines.next()?.strip_prefix("guests ")?.parse().ok()?;
    let mut all = Instructions { guests, ..Instructions::default() };
    for line in lines {
        let (address, count) = line.split_once(' ')?;
        let (address, count) = (u64::from_str_radix(address, 16).ok()?, count.parse::<u64>().ok()?);
        let name = name_of(address).unwrap_or_else(|| "?".to_owned());
        let is_wait = name.contains(WAIT.0) && name.ends_with(WAIT.1);
        *if is_wait { &mut all.waits } else { &mut all.hypervisor } += count;
        *all.functions.entry(name).or_default() += count;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(address: u64) -> Option<String> {
        let name = match address {
            0x10 => {
                "<kernel::sync::ranked::RankedLock<kernel::paging::state::PagerState, 4>>::wait"
            }
            0x20 | 0x28 => "kernel::paging::poll",
            _ => return None,
        };
        Some(name.to_owned())
    }

    #[test]
    fn waits_are_told_from_work() {
        let all = parse("guests 7\n10 100\n20 30\n28 5\n99 1\nend\n", name_of).unwrap();
        assert_eq!((all.guests, all.waits, all.hypervisor), (7, 100, 36));
        assert_eq!(all.functions["kernel::paging::poll"], 35);
    }

    #[test]
    fn a_count_that_was_cut_off_is_none() {
        assert_eq!(parse("guests 7\n10 100\n", name_of), None);
        assert_eq!(parse("guests 7\n10\nend\n", name_of), None);
        assert_eq!(parse("", name_of), None);
    }

    #[test]
    fn the_hypervisors_waits_have_the_name_that_is_looked_for() {
        // The compiler's own name of this lock's type.
        let name = std::any::type_name::<kernel::sync::RankedLock<(), 1>>();
        assert!(format!("{name}>").contains(WAIT.0), "{name}");
    }

    #[test]
    fn the_plugin_compiles_without_a_warning() {
        plugin().unwrap();
    }
}
