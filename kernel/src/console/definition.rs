//! The command `define`: a partition in one line of text or JSON; and the options of `set`, `stop`
//! and `poweroff`.
//!
//! ```text
//!   define web memory=64M store=0 kernel=vmlinuz-6.1 initrd=3f2a90c1
//!   define web memory=64M kernel=web.kernel initrd=web.initrd cmdline="quiet console=ttyS0" dump=off
//!   {"id":1,"command":"define","definition":{"name":"web","memory_bytes":67108864,"kernel":{"image":"web.kernel"}}}
//! ```

use super::command_error::CommandError;
use super::json_text::JsonText;
use crate::config::{
    ConsoleRoute, DeviceSwitch, DumpBound, DumpPolicy, GuestDevices, KernelModules,
    PartitionConfig, RestartLimit, RestartPolicy,
};
use crate::time::Ns;
use serde::Deserialize;

/// A partition to define: the members of [`PartitionConfig`], borrowed from the line. All but the
/// first three may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in `PartitionConfig`")]
pub struct Definition<'a> {
    pub name: &'a str,
    pub memory_bytes: u64,
    #[serde(borrow)]
    pub kernel: DefinedKernel<'a>,
    #[serde(default, borrow)]
    pub cmdline: JsonText<'a>,
    #[serde(default = "aided")]
    pub dump: DumpPolicy,
    #[serde(default)]
    pub dump_bound: Option<DumpBound>,
    #[serde(default = "threshold")]
    pub restart: RestartPolicy,
    #[serde(default)]
    pub hang_timeout_ns: Option<u64>,
    #[serde(default)]
    pub restart_limit: Option<RestartLimit>,
    #[serde(default)]
    pub boot_memory_bytes: Option<u64>,
    #[serde(default)]
    pub console: ConsoleRoute,
    #[serde(default)]
    pub devices: GuestDevices,
    /// The image store that has the kernel; without it, the boot archive has it.
    #[serde(default)]
    pub store: Option<&'a str>,
    #[serde(default)]
    pub scope: DefinitionScope,
}

/// Whether a command is about a partition's definition in its store, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefinitionScope {
    /// It is, if there is a store: all nodes that see it are concerned.
    #[default]
    Store,
    /// This node alone is concerned.
    Node,
}

/// The modules of [`KernelModules`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "as in `KernelModules`")]
pub struct DefinedKernel<'a> {
    pub image: &'a str,
    #[serde(default)]
    pub initrd: Option<&'a str>,
}

/// The options of `set`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyOptions {
    /// The indication.
    pub dump: Option<DumpPolicy>,
    /// When a crashed partition restarts.
    pub restart: Option<RestartPolicy>,
}

/// The clones that a command asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClonesWanted<'a> {
    /// The base.
    pub base: &'a str,
    /// The clone's name, or what the names of several begin with.
    pub name: &'a str,
    /// How many; `None`: one, without a number in its name.
    pub count: Option<u64>,
    /// How a crashed clone begins again: by a boot, not from the base.
    pub boots: bool,
}

/// Returns whether a crashed clone boots, by the word of the option `restart_from`.
pub(super) fn boots(word: &str) -> Option<bool> {
    match word {
        "base" => Some(false),
        "boot" => Some(true),
        _ => None,
    }
}

/// Parses the arguments of `clone`.
pub(super) fn clones(rest: &str) -> Result<ClonesWanted<'_>, CommandError<'_>> {
    let mut words = rest.split_ascii_whitespace();
    let base = words.next().ok_or(CommandError::MissingArgument("a base's name"))?;
    let name = words.next().ok_or(CommandError::MissingArgument("a name for the clone"))?;
    let mut wanted = ClonesWanted { base, name, count: None, boots: false };
    for word in words {
        let wrong = CommandError::NoOption(word);
        match word.split_once('=') {
            Some(("count", text)) => wanted.count = Some(text.parse().map_err(|_| wrong)?),
            Some(("from", text)) => wanted.boots = boots(text).ok_or(wrong)?,
            _ => return Err(wrong),
        }
    }
    Ok(wanted)
}

const fn aided() -> DumpPolicy {
    DumpPolicy::Aided
}

const fn threshold() -> RestartPolicy {
    RestartPolicy::Threshold
}

impl Definition<'_> {
    /// Returns the configuration.
    pub fn to_config(&self) -> PartitionConfig {
        PartitionConfig {
            name: self.name.into(),
            memory_bytes: self.memory_bytes,
            kernel: KernelModules {
                image: self.kernel.image.into(),
                initrd: self.kernel.initrd.map(Into::into),
            },
            cmdline: self.cmdline.to_text(),
            dump: self.dump,
            dump_bound: self.dump_bound,
            restart: self.restart,
            hang_timeout_ns: self.hang_timeout_ns,
            restart_limit: self.restart_limit,
            boot_memory_bytes: self.boot_memory_bytes,
            console: self.console,
            devices: self.devices,
        }
    }
}

/// Splits the first word from `text`. A part in quotation marks belongs to its word, with blanks.
/// `None` if nothing is left.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let mut is_quoted = false;
    let end = text.find(|c: char| {
        is_quoted ^= c == '"';
        c.is_ascii_whitespace() && !is_quoted
    });
    let at = end.unwrap_or(text.len());
    (at > 0).then(|| text.split_at(at))
}

/// Splits `key=value` or `key="value"`.
fn option(word: &str) -> Result<(&str, &str), CommandError<'_>> {
    let (key, value) = word.split_once('=').ok_or(CommandError::NoOption(word))?;
    let plain = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or(CommandError::NoOption(word))?,
        None => value,
    };
    if plain.contains('"') { Err(CommandError::NoOption(word)) } else { Ok((key, plain)) }
}

/// Reads a size: a number, and K, M, G, T, KiB, MiB, GiB, TiB, or nothing for bytes.
fn size(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Reads a time: a number, and ms, s or min, or nothing for zero.
fn duration(text: &str) -> Option<Ns> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u64>().ok()?;
    let one = match unit.trim_start() {
        "" if number == 0 => 0,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "min" => 60_000_000_000,
        _ => return None,
    };
    number.checked_mul(one).map(Ns::new)
}

/// Reads the word of an indication.
pub(super) fn dump(word: &str) -> Option<DumpPolicy> {
    match word {
        "aided" => Some(DumpPolicy::Aided),
        "off" => Some(DumpPolicy::Off),
        _ => None,
    }
}

/// Reads the word of a restart policy.
pub(super) fn restart(word: &str) -> Option<RestartPolicy> {
    match word {
        "threshold" => Some(RestartPolicy::Threshold),
        "immediate" => Some(RestartPolicy::Immediate),
        "never" => Some(RestartPolicy::Never),
        _ => None,
    }
}

/// Reads the word of a device that a partition has or has not.
fn switch(word: &str) -> Option<DeviceSwitch> {
    match word {
        "on" => Some(DeviceSwitch::On),
        "off" => Some(DeviceSwitch::Off),
        _ => None,
    }
}

/// Reads the word of a scope.
pub(super) fn scope(word: &str) -> Option<DefinitionScope> {
    match word {
        "store" => Some(DefinitionScope::Store),
        "node" => Some(DefinitionScope::Node),
        _ => None,
    }
}

/// Parses the arguments of `undefine`.
pub(super) fn scoped(text: &str) -> Result<(&str, DefinitionScope), CommandError<'_>> {
    let (name, rest) = word(text).ok_or(CommandError::MissingArgument("a partition's name"))?;
    let Some((next, behind)) = word(rest) else { return Ok((name, DefinitionScope::Store)) };
    let wrong = CommandError::NoOption(next);
    match option(next)? {
        ("scope", value) if word(behind).is_none() => Ok((name, scope(value).ok_or(wrong)?)),
        _ => Err(wrong),
    }
}

/// Parses the arguments of `define`.
pub(super) fn definition(text: &str) -> Result<Definition<'_>, CommandError<'_>> {
    let missing = CommandError::MissingArgument;
    let (name, mut rest) = word(text).ok_or(missing("a partition's name"))?;
    let (mut memory, mut image) = (None, None);
    let mut definition = Definition {
        name,
        memory_bytes: 0,
        kernel: DefinedKernel { image: "", initrd: None },
        cmdline: JsonText::plain(""),
        dump: aided(),
        dump_bound: None,
        restart: threshold(),
        hang_timeout_ns: None,
        restart_limit: None,
        boot_memory_bytes: None,
        console: ConsoleRoute::Screen,
        devices: GuestDevices::default(),
        store: None,
        scope: DefinitionScope::Store,
    };
    while let Some((next, behind)) = word(rest) {
        rest = behind;
        let wrong = CommandError::NoOption(next);
        match option(next)? {
            ("memory", value) => memory = Some(size(value).ok_or(wrong)?),
            ("kernel", value) => image = Some(value),
            ("initrd", value) => definition.kernel.initrd = Some(value),
            ("store", value) => definition.store = Some(value),
            ("scope", value) => definition.scope = scope(value).ok_or(wrong)?,
            ("cmdline", value) => definition.cmdline = JsonText::plain(value),
            ("dump", value) => definition.dump = dump(value).ok_or(wrong)?,
            ("restart", value) => definition.restart = restart(value).ok_or(wrong)?,
            ("rng", value) => definition.devices.rng = switch(value).ok_or(wrong)?,
            _ => return Err(wrong),
        }
    }
    definition.memory_bytes = memory.ok_or(missing("memory=SIZE"))?;
    definition.kernel.image = image.ok_or(missing("kernel=NAME"))?;
    Ok(definition)
}

/// Parses the arguments of `set`.
pub(super) fn policy(
    text: &str,
) -> Result<(&str, PolicyOptions, DefinitionScope), CommandError<'_>> {
    let missing = CommandError::MissingArgument;
    let (name, mut rest) = word(text).ok_or(missing("a partition's name"))?;
    let (mut options, mut concerned) = (PolicyOptions::default(), DefinitionScope::Store);
    while let Some((next, behind)) = word(rest) {
        rest = behind;
        let wrong = CommandError::NoOption(next);
        match option(next)? {
            ("dump", value) => options.dump = Some(dump(value).ok_or(wrong)?),
            ("restart", value) => options.restart = Some(restart(value).ok_or(wrong)?),
            ("scope", value) => concerned = scope(value).ok_or(wrong)?,
            _ => return Err(wrong),
        }
    }
    Ok((name, some(options)?, concerned))
}

/// Parses the arguments of `stop` and `poweroff`: a partition's name, and the time that the guest
/// has.
pub(super) fn stop(mut rest: &str) -> Result<(Option<&str>, Option<Ns>), CommandError<'_>> {
    let (mut name, mut timeout) = (None, None);
    while let Some((next, behind)) = word(rest) {
        rest = behind;
        let wrong = CommandError::NoOption(next);
        match option(next) {
            Ok(("timeout", value)) => timeout = Some(duration(value).ok_or(wrong)?),
            Err(_) if name.is_none() && !next.contains('=') => name = Some(next),
            _ => return Err(wrong),
        }
    }
    Ok((name, timeout))
}

/// Refuses a `set` without options.
pub(super) fn some(options: PolicyOptions) -> Result<PolicyOptions, CommandError<'static>> {
    if options == PolicyOptions::default() {
        return Err(CommandError::MissingArgument("dump=… or restart=…"));
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_in_text_has_its_options() {
        let text = " web memory=64M kernel=k initrd=i cmdline=\"a b=c\" dump=off restart=never";
        let web = definition(text).unwrap();
        assert_eq!((web.name, web.memory_bytes, web.kernel.image), ("web", 64 << 20, "k"));
        assert_eq!((web.kernel.initrd, &*web.cmdline.to_text()), (Some("i"), "a b=c"));
        assert_eq!((web.dump, web.restart), (DumpPolicy::Off, RestartPolicy::Never));
        let short = definition("db memory=\"8 MiB\" kernel=k").unwrap().to_config();
        assert_eq!((short.memory_bytes, short.dump), (8 << 20, DumpPolicy::Aided));
        assert_eq!((&*short.cmdline, short.restart), ("", RestartPolicy::Threshold));
        let rng = |text| definition(text).unwrap().to_config().devices.rng;
        assert_eq!(rng("db memory=8M kernel=k"), DeviceSwitch::Off);
        assert_eq!(rng("db memory=8M kernel=k rng=on"), DeviceSwitch::On);
    }

    #[test]
    fn a_store_and_a_scope_can_be_named() {
        let web = definition("web memory=1M store=0 kernel=1a2b scope=node").unwrap();
        assert_eq!((web.store, web.scope), (Some("0"), DefinitionScope::Node));
        assert_eq!(definition("web memory=1M kernel=k").unwrap().store, None);
        assert_eq!(scoped(" web"), Ok(("web", DefinitionScope::Store)));
        assert_eq!(scoped("web scope=node"), Ok(("web", DefinitionScope::Node)));
        for wrong in ["scope=all", "memory=1M"] {
            assert_eq!(scoped(&format!("web {wrong}")), Err(CommandError::NoOption(wrong)));
        }
        assert_eq!(scoped("web scope=node x"), Err(CommandError::NoOption("scope=node")));
    }

    #[test]
    fn what_is_wrong_in_a_definition_is_named() {
        let missing = |what| Err(CommandError::MissingArgument(what));
        assert_eq!(definition(""), missing("a partition's name"));
        assert_eq!(definition("web kernel=k"), missing("memory=SIZE"));
        assert_eq!(definition("web memory=1M"), missing("kernel=NAME"));
        let odd = [
            "memory=1Q",
            "memory=",
            "memory=-1M",
            "memory=99999999T",
            "memory",
            "colour=red",
            "dump=maybe",
            "restart=later",
            "rng=yes",
            "cmdline=\"a",
            "cmdline=a\"b\"",
            "cmdline=\"a b",
        ];
        for word in odd {
            let text = format!("web memory=1M kernel=k {word}");
            assert_eq!(definition(&text), Err(CommandError::NoOption(word)), "{word}");
        }
    }

    #[test]
    fn a_size_has_a_unit_or_is_bytes() {
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(
            ["1K", "1KiB", "2 M", "3GiB", "1T"].map(size),
            [Some(1 << 10), Some(1 << 10), Some(2 << 20), Some(3 << 30), Some(1 << 40)]
        );
        assert_eq!(["", "M", "1m", "18446744073709551616", "16777216T"].map(size), [None; 5]);
    }

    #[test]
    fn a_time_has_a_unit_or_is_zero() {
        let read = |text| duration(text).map(Ns::as_u64);
        assert_eq!(
            ["0", "0s", "5ms", "10 s", "2min"].map(read),
            [Some(0), Some(0), Some(5_000_000), Some(10_000_000_000), Some(120_000_000_000)]
        );
        assert_eq!(["", "s", "10", "1h", "-1s", "18446744073709551615s"].map(read), [None; 6]);
    }

    #[test]
    fn set_has_at_least_one_option() {
        let off = PolicyOptions { dump: Some(DumpPolicy::Off), restart: None };
        assert_eq!(policy("web dump=off"), Ok(("web", off, DefinitionScope::Store)));
        let both = PolicyOptions { restart: Some(RestartPolicy::Immediate), ..off };
        assert_eq!(
            policy("web restart=immediate dump=off"),
            Ok(("web", both, DefinitionScope::Store))
        );
        assert_eq!(policy("web"), Err(CommandError::MissingArgument("dump=… or restart=…")));
        assert_eq!(policy("web memory=1M"), Err(CommandError::NoOption("memory=1M")));
    }
}
