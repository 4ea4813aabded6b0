//! What an operator or a harness asks for: one parser for the monitor's text and one for JSON lines.

use serde::Deserialize;

/// A request. Names are borrowed from the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Partitions, spaces and dumps.
    List,
    /// Counters.
    Stats,
    /// Crash a partition, as if it had panicked.
    Crash(&'a str),
    /// Send the keys to a partition.
    Console(&'a str),
    /// Give a partition's dumps back, or only that of one incarnation.
    Release(&'a str, Option<u64>),
    /// Stop a partition for good.
    Stop(&'a str),
    /// Evict up to this many pages of a partition now (tests, `bench`).
    Evict(&'a str, u64),
    /// Stop everything and the machine.
    PowerOff,
    /// What there is.
    Help,
}

/// Why a line is no command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError<'a> {
    /// Not JSON, or not of the form `{"id":1,"command":"..."}`.
    Malformed,
    /// No such command.
    Unknown(&'a str),
    /// The command needs a partition's name or a number behind it.
    MissingArgument(&'static str),
}

impl core::fmt::Display for CommandError<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("not a command: {\"id\":N,\"command\":\"...\",\"partition\":\"...\"}"),
            Self::Unknown(word) => write!(f, "unknown command '{word}'; 'help' lists them"),
            Self::MissingArgument(what) => write!(f, "needs {what}"),
        }
    }
}

/// One line each for `help`.
pub const HELP: &str = "\
list               partitions, paging spaces and dumps
stats              counters of the pool and of each partition
crash PARTITION    crash it, as if it had panicked
console PARTITION  type at its console from now on
stop PARTITION     stop it for good
release PARTITION [N]  give its dumps' paging spaces back, or only that of incarnation N
evict PARTITION N  evict up to N of its pages now
poweroff           stop everything
help               this
";

#[derive(Deserialize)]
struct Line<'a> {
    id: u64,
    command: &'a str,
    partition: Option<&'a str>,
    count: Option<u64>,
}

fn build<'a>(word: &'a str, name: Option<&'a str>, count: Option<u64>) -> Result<Command<'a>, CommandError<'a>> {
    let name = name.ok_or(CommandError::MissingArgument("a partition's name"));
    Ok(match word {
        "list" => Command::List,
        "stats" => Command::Stats,
        "crash" => Command::Crash(name?),
        "console" => Command::Console(name?),
        "stop" => Command::Stop(name?),
        "release" => Command::Release(name?, count),
        "evict" => Command::Evict(name?, count.ok_or(CommandError::MissingArgument("a number of pages"))?),
        "poweroff" => Command::PowerOff,
        "help" => Command::Help,
        other => return Err(CommandError::Unknown(other)),
    })
}

/// Parses a line typed at the monitor; `None` for an empty one.
pub fn parse_text(line: &str) -> Option<Result<Command<'_>, CommandError<'_>>> {
    let mut words = line.split_ascii_whitespace();
    let word = words.next()?;
    let name = words.next();
    let count = words.next().and_then(|w| w.parse().ok());
    Some(build(word, name, count))
}

/// Parses a JSON line; the id comes back even with an error, where there is one.
pub fn parse_json(line: &[u8]) -> (Option<u64>, Result<Command<'_>, CommandError<'_>>) {
    match serde_json_core::from_slice::<Line<'_>>(line) {
        Ok((line, _)) => (Some(line.id), build(line.command, line.partition, line.count)),
        Err(_) => (None, Err(CommandError::Malformed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_mean_the_same() {
        assert_eq!(parse_text(" crash web "), Some(Ok(Command::Crash("web"))));
        assert_eq!(parse_json(br#"{"id":7,"command":"crash","partition":"web"}"#), (Some(7), Ok(Command::Crash("web"))));
        assert_eq!(
            parse_json(br#"{"id":8,"command":"evict","partition":"a","count":64}"#),
            (Some(8), Ok(Command::Evict("a", 64)))
        );
        assert_eq!(parse_text("console db"), Some(Ok(Command::Console("db"))));
        assert_eq!(parse_text(""), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse_text("fly"), Some(Err(CommandError::Unknown("fly"))));
        assert_eq!(parse_text("crash"), Some(Err(CommandError::MissingArgument("a partition's name"))));
        assert_eq!(parse_json(b"crash web"), (None, Err(CommandError::Malformed)));
        assert_eq!(parse_json(br#"{"id":3,"command":"fly"}"#), (Some(3), Err(CommandError::Unknown("fly"))));
    }
}
