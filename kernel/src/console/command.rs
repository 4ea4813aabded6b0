//! Commands of an operator or a harness: one parser for the monitor's text and one for JSON lines.

use crate::space::DumpSelector;
use serde::Deserialize;

/// A command. Names are borrowed from the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MonitorCommand<'a> {
    /// Partitions, spaces and dumps.
    List,
    /// Counters.
    Stats,
    /// Crash a partition, as if it had panicked.
    Crash(&'a str),
    /// Direct the keys to a partition.
    Console(&'a str),
    /// As `Console`, and give the partition the first line in raw mode.
    Raw(&'a str),
    /// Release a dump, or all dumps of a partition.
    Release(DumpChoice<'a>),
    /// Stop a partition for good.
    Stop(&'a str),
    /// Type bytes at a partition's console: two hexadecimal digits each.
    Type(&'a str, &'a str),
    /// Evict up to this many pages of a partition now (tests, `bench`).
    Evict(&'a str, u64),
    /// Stop all partitions and the machine.
    PowerOff,
    /// The list of commands.
    Help,
}

/// The dumps that a command selects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DumpChoice<'a> {
    /// All dumps of a partition.
    All(&'a str),
    /// The dump of a partition that the selector matches.
    One(&'a str, DumpSelector),
    /// The dump whose name the selector matches, of any partition.
    Named(DumpSelector),
}

/// Why a line is not a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError<'a> {
    /// Not JSON, or not of the form `{"id":1,"command":"..."}`.
    Malformed,
    /// No such command.
    Unknown(&'a str),
    /// The command needs a further argument: a partition's name or a number.
    MissingArgument(&'static str),
    /// Neither a dump's name (at least its first eight digits) nor an incarnation.
    NoDump(&'a str),
}

impl core::fmt::Display for CommandError<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => {
                f.write_str("not a command: {\"id\":N,\"command\":\"...\",\"partition\":\"...\"}")
            }
            Self::Unknown(word) => write!(f, "unknown command '{word}'; 'help' lists them"),
            Self::MissingArgument(what) => write!(f, "needs {what}"),
            Self::NoDump(word) => {
                write!(
                    f,
                    "'{word}' is no dump: give eight digits or more of its name, or an incarnation"
                )
            }
        }
    }
}

/// One line each for `help`.
pub const HELP: &str = "\
list               partitions, paging spaces and dumps
stats              counters of the pool and of each partition
crash PARTITION    crash it, as if it had panicked
console PARTITION  type at its console from now on
raw PARTITION      the same for programs that use the whole screen: others' lines are held back \
                        until Ctrl-]
stop PARTITION     stop it for good
release DUMP       give a dump's paging space back: the first eight digits of its name, or more
release PARTITION [N]  give all its dumps' paging spaces back, or only that of incarnation N
evict PARTITION N  evict up to N of its pages now
quit, poweroff     stop everything, finish dumps, end the machine
help               this list
";

#[derive(Deserialize)]
struct JsonCommand<'a> {
    id: u64,
    command: &'a str,
    partition: Option<&'a str>,
    count: Option<u64>,
    dump: Option<&'a str>,
    bytes: Option<&'a str>,
}

/// The arguments after a command's word.
#[derive(Clone, Copy, Default)]
struct Arguments<'a> {
    name: Option<&'a str>,
    count: Option<u64>,
    dump: Option<&'a str>,
    bytes: Option<&'a str>,
}

fn release<'a>(arguments: Arguments<'a>) -> Result<MonitorCommand<'a>, CommandError<'a>> {
    let selector = |text| DumpSelector::parse(text).ok_or(CommandError::NoDump(text));
    let choice = match (arguments.name, arguments.dump, arguments.count) {
        (Some(name), Some(dump), _) => DumpChoice::One(name, selector(dump)?),
        (Some(name), None, Some(count)) => DumpChoice::One(name, DumpSelector::Incarnation(count)),
        (Some(name), None, None) => DumpChoice::All(name),
        (None, Some(dump), _) => match selector(dump)? {
            DumpSelector::Incarnation(_) => {
                return Err(CommandError::MissingArgument("a partition's name"));
            }
            name => DumpChoice::Named(name),
        },
        (None, None, _) => {
            return Err(CommandError::MissingArgument("a dump's or a partition's name"));
        }
    };
    Ok(MonitorCommand::Release(choice))
}

fn build<'a>(
    word: &'a str,
    arguments: Arguments<'a>,
) -> Result<MonitorCommand<'a>, CommandError<'a>> {
    let Arguments { name, count, .. } = arguments;
    let name = name.ok_or(CommandError::MissingArgument("a partition's name"));
    Ok(match word {
        "list" => MonitorCommand::List,
        "stats" => MonitorCommand::Stats,
        "crash" => MonitorCommand::Crash(name?),
        "console" => MonitorCommand::Console(name?),
        "raw" => MonitorCommand::Raw(name?),
        "stop" => MonitorCommand::Stop(name?),
        "release" => release(arguments)?,
        "type" => {
            let bytes =
                arguments.bytes.ok_or(CommandError::MissingArgument("bytes in hexadecimal"))?;
            MonitorCommand::Type(name?, bytes)
        }
        "evict" => MonitorCommand::Evict(
            name?,
            count.ok_or(CommandError::MissingArgument("a number of pages"))?,
        ),
        "poweroff" | "quit" => MonitorCommand::PowerOff,
        "help" => MonitorCommand::Help,
        other => return Err(CommandError::Unknown(other)),
    })
}

/// Parses a line typed at the monitor; `None` for an empty one.
pub fn parse_text(line: &str) -> Option<Result<MonitorCommand<'_>, CommandError<'_>>> {
    let mut words = line.split_ascii_whitespace();
    let word = words.next()?;
    let name = words.next();
    let last = words.next();
    let mut arguments =
        Arguments { name, count: last.and_then(|w| w.parse().ok()), dump: None, bytes: last };
    if word == "release" {
        arguments = release_words(name, last);
    }
    Some(build(word, arguments))
}

/// Parses the arguments of `release`: a first word that can only be a dump's name is one, unless a
/// second word follows.
fn release_words<'a>(first: Option<&'a str>, second: Option<&'a str>) -> Arguments<'a> {
    let is_name = |text| matches!(DumpSelector::parse(text), Some(DumpSelector::Name { .. }));
    match (first, second) {
        (Some(dump), None) if is_name(dump) => Arguments { dump: Some(dump), ..Default::default() },
        (name, dump) => Arguments { name, dump, ..Default::default() },
    }
}

/// Parses a JSON line; also returns its id, if it has one, even with an error.
pub fn parse_json(line: &[u8]) -> (Option<u64>, Result<MonitorCommand<'_>, CommandError<'_>>) {
    match serde_json_core::from_slice::<JsonCommand<'_>>(line) {
        Ok((line, _)) => {
            let JsonCommand { partition, count, dump, bytes, .. } = line;
            let arguments = Arguments { name: partition, count, dump, bytes };
            (Some(line.id), build(line.command, arguments))
        }
        Err(_) => (id_of(line), Err(CommandError::Malformed)),
    }
}

/// Returns the id of a line whose other members are wrong: the sender still waits for an answer.
fn id_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Id {
        id: u64,
    }
    serde_json_core::from_slice::<Id>(line).ok().map(|(line, _)| line.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_mean_the_same() {
        assert_eq!(parse_text(" crash web "), Some(Ok(MonitorCommand::Crash("web"))));
        assert_eq!(
            parse_json(br#"{"id":7,"command":"crash","partition":"web"}"#),
            (Some(7), Ok(MonitorCommand::Crash("web")))
        );
        assert_eq!(
            parse_json(br#"{"id":8,"command":"evict","partition":"a","count":64}"#),
            (Some(8), Ok(MonitorCommand::Evict("a", 64)))
        );
        assert_eq!(parse_text("console db"), Some(Ok(MonitorCommand::Console("db"))));
        assert_eq!(parse_text("quit"), Some(Ok(MonitorCommand::PowerOff)));
        assert_eq!(parse_text(""), None);
    }

    #[test]
    fn a_dump_is_released_by_its_name_or_with_its_partition() {
        let release = |choice| Ok(MonitorCommand::Release(choice));
        let name = DumpSelector::parse("3f2a90c1").unwrap();
        assert_eq!(parse_text("release web"), Some(release(DumpChoice::All("web"))));
        assert_eq!(
            parse_text("release web 2"),
            Some(release(DumpChoice::One("web", DumpSelector::Incarnation(2))))
        );
        assert_eq!(parse_text("release web 3f2a90c1"), Some(release(DumpChoice::One("web", name))));
        assert_eq!(parse_text("release 3f2a90c1"), Some(release(DumpChoice::Named(name))));
        assert_eq!(parse_text("release web x"), Some(Err(CommandError::NoDump("x"))));
        let json = |rest: &str| format!(r#"{{"id":1,"command":"release",{rest}}}"#);
        let of = |text: &str, wanted| assert_eq!(parse_json(json(text).as_bytes()).1, wanted);
        of(r#""partition":"web""#, release(DumpChoice::All("web")));
        of(
            r#""partition":"web","count":2"#,
            release(DumpChoice::One("web", DumpSelector::Incarnation(2))),
        );
        of(r#""dump":"3f2a90c1""#, release(DumpChoice::Named(name)));
        of(r#""dump":"2""#, Err(CommandError::MissingArgument("a partition's name")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse_text("fly"), Some(Err(CommandError::Unknown("fly"))));
        assert_eq!(
            parse_text("crash"),
            Some(Err(CommandError::MissingArgument("a partition's name")))
        );
        assert_eq!(parse_json(b"crash web"), (None, Err(CommandError::Malformed)));
        let negative = br#"{"id":4,"command":"evict","partition":"a","count":-1}"#;
        assert_eq!(parse_json(negative), (Some(4), Err(CommandError::Malformed)));
        assert_eq!(parse_json(br#"{"id":5,"command":7}"#), (Some(5), Err(CommandError::Malformed)));
        assert_eq!(
            parse_json(br#"{"id":3,"command":"fly"}"#),
            (Some(3), Err(CommandError::Unknown("fly")))
        );
    }
}
