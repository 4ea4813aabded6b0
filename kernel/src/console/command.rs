//! Commands of an operator or a harness: one parser for the monitor's text and one for JSON lines.

pub use super::command_error::CommandError;
use super::definition::{self, ClonesWanted, Definition, DefinitionScope, PolicyOptions};
use crate::space::DumpSelector;
use crate::time::Ns;
use serde::Deserialize;

/// A command. Names are borrowed from the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MonitorCommand<'a> {
    /// Partitions, spaces and dumps.
    List,
    /// Counters.
    Stats,
    /// The members of the cluster.
    Nodes,
    /// A fenced member's machine is off: the operator says so.
    FenceConfirm(&'a str),
    /// Send a text to the operator of another member.
    Message(&'a str, &'a str),
    /// Move a partition to another member.
    Move(&'a str, &'a str),
    /// Have a member give all its partitions away, or take some again.
    Drain(&'a str, DrainOrder),
    /// Crash a partition, as if it had panicked.
    Crash(&'a str),
    /// Direct the keys to a partition.
    Console(&'a str),
    /// As `Console`, and give the partition the first line in raw mode.
    Raw(&'a str),
    /// Release a dump, or all dumps of a partition.
    Release(DumpChoice<'a>),
    /// Define a partition, stopped.
    Define(Definition<'a>),
    /// Start a partition that has stopped.
    Start(&'a str),
    /// Stop a partition: its guest has this time to end in order; none ends it at once.
    Stop(&'a str, Ns),
    /// Suspend a partition into its paging space.
    Suspend(&'a str),
    /// Let a suspended partition go on.
    Resume(&'a str),
    /// Make a suspended partition a base.
    Seal(&'a str),
    /// Make clones of a base, and start them.
    Clone(ClonesWanted<'a>),
    /// Change what the next crash of a partition leads to.
    Set(&'a str, PolicyOptions, DefinitionScope),
    /// Remove the definition of a partition that has stopped.
    Undefine(&'a str, DefinitionScope),
    /// Image stores, their images and definitions.
    Store,
    /// Type bytes at a partition's console: two hexadecimal digits each.
    Type(&'a str, &'a str),
    /// Evict up to this many pages of a partition now (tests, `bench`).
    Evict(&'a str, u64),
    /// Stop all partitions and the machine: the guests have this time to end in order.
    PowerOff(Ns),
    /// The list of commands.
    Help,
}

/// The order to a node that drains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DrainOrder {
    /// The node takes partitions again.
    End = 0,
    /// The node gives its partitions away.
    Begin = 1,
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

/// How long a guest has to end in order if a command names no time.
pub const STOP_TIMEOUT: Ns = Ns::from_secs(60);
/// The command of two words.
const FENCE_CONFIRM: &str = "fence confirm";

/// One line each for `help`.
pub const HELP: &str = "\
list               partitions, paging spaces and dumps
stats              counters of the pool and of each partition
nodes              the members of the cluster, with their last beats
fence confirm NODE the machine of a fenced member is off: nothing of it lands any more
message NODE [TEXT]  send a text to another member; the event or `nodes` tells how long it took
move PARTITION to NODE  let it go on at another member; it stops for a moment
drain NODE [end]   move all its partitions to others, or suspend them; end: it takes some again
crash PARTITION    crash it, as if it had panicked
console PARTITION  type at its console from now on
raw PARTITION      the same for programs that use the whole screen: others' lines are held back \
                        until Ctrl-]
stop PARTITION [timeout=60s]  press its power button; stop it hard if it has not ended in time
kill PARTITION     stop it at once, without asking the guest
start PARTITION    start it again after a stop, or from its definition in an image store
suspend PARTITION  stop it and keep all of it in its paging space
resume PARTITION   let it go on from there, also after a new start of the hypervisor
seal PARTITION     make a suspended partition a base, which is cloned and never resumed
clone BASE NAME [count=N] [from=base|boot]  start a copy of it, or N copies NAME-1, NAME-2, ...
set PARTITION [dump=aided|off] [restart=threshold|immediate|never] [scope=node]
                   from its next crash on, in its store too or for this node alone
define PARTITION memory=64M kernel=MODULE [initrd=MODULE] [cmdline=\"...\"] [dump=] [restart=]
define PARTITION memory=64M store=STORE kernel=IMAGE [initrd=IMAGE] ... [scope=node]
                   with images of a store, for all nodes that see it, or for this node alone
undefine PARTITION [scope=node]  remove it after a stop, from its store too; its dumps stay
store              image stores, their images and definitions
release DUMP       give a dump's paging space back: the first eight digits of its name, or more
release PARTITION [N]  give all its dumps' paging spaces back, or only that of incarnation N
evict PARTITION N  evict up to N of its pages now
quit, poweroff     stop everything at once, finish dumps, end the machine
poweroff timeout=60s  the same, but press all power buttons first
help               this list
";

#[derive(Deserialize)]
struct JsonCommand<'a> {
    id: u64,
    command: &'a str,
    partition: Option<&'a str>,
    node: Option<&'a str>,
    count: Option<u64>,
    dump: Option<&'a str>,
    bytes: Option<&'a str>,
    #[serde(borrow)]
    definition: Option<Definition<'a>>,
    restart: Option<&'a str>,
    timeout_ns: Option<u64>,
    name: Option<&'a str>,
    text: Option<&'a str>,
    from: Option<&'a str>,
    #[serde(default)]
    scope: DefinitionScope,
}

/// The arguments after a command's word.
#[derive(Clone, Copy, Default)]
struct Arguments<'a> {
    name: Option<&'a str>,
    node: Option<&'a str>,
    count: Option<u64>,
    dump: Option<&'a str>,
    bytes: Option<&'a str>,
    timeout: Option<Ns>,
    text: Option<&'a str>,
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
        "nodes" => MonitorCommand::Nodes,
        FENCE_CONFIRM => MonitorCommand::FenceConfirm(
            arguments.node.ok_or(CommandError::MissingArgument("a node's name"))?,
        ),
        "message" => MonitorCommand::Message(
            arguments.node.ok_or(CommandError::MissingArgument("a node's name"))?,
            arguments.text.unwrap_or(""),
        ),
        "move" => MonitorCommand::Move(
            name?,
            arguments.node.ok_or(CommandError::MissingArgument("the name of the target node"))?,
        ),
        "drain" => {
            let node = arguments.node.ok_or(CommandError::MissingArgument("a node's name"))?;
            match arguments.text {
                None | Some("begin") => MonitorCommand::Drain(node, DrainOrder::Begin),
                Some("end") => MonitorCommand::Drain(node, DrainOrder::End),
                Some(other) => return Err(CommandError::NoOption(other)),
            }
        }
        "crash" => MonitorCommand::Crash(name?),
        "console" => MonitorCommand::Console(name?),
        "raw" => MonitorCommand::Raw(name?),
        "stop" => MonitorCommand::Stop(name?, arguments.timeout.unwrap_or(STOP_TIMEOUT)),
        "kill" => MonitorCommand::Stop(name?, Ns::ZERO),
        "start" => MonitorCommand::Start(name?),
        "suspend" => MonitorCommand::Suspend(name?),
        "resume" => MonitorCommand::Resume(name?),
        "seal" => MonitorCommand::Seal(name?),
        "store" => MonitorCommand::Store,
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
        "poweroff" | "quit" => MonitorCommand::PowerOff(arguments.timeout.unwrap_or(Ns::ZERO)),
        "help" => MonitorCommand::Help,
        other => return Err(CommandError::Unknown(other)),
    })
}

/// Parses a line typed at the monitor; `None` for an empty one.
pub fn parse_text(line: &str) -> Option<Result<MonitorCommand<'_>, CommandError<'_>>> {
    let mut words = line.split_ascii_whitespace();
    let word = words.next()?;
    let rest = line.trim_start().strip_prefix(word).unwrap_or("");
    match word {
        "define" => return Some(definition::definition(rest).map(MonitorCommand::Define)),
        "undefine" => {
            let parsed = definition::scoped(rest);
            return Some(parsed.map(|(name, scope)| MonitorCommand::Undefine(name, scope)));
        }
        "clone" => return Some(definition::clones(rest).map(MonitorCommand::Clone)),
        "set" => {
            let parsed = definition::policy(rest);
            return Some(
                parsed.map(|(name, options, scope)| MonitorCommand::Set(name, options, scope)),
            );
        }
        "message" => {
            let rest = rest.trim();
            let (node, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let node = Some(node).filter(|node| !node.is_empty());
            return Some(build(word, Arguments { node, text: Some(text), ..Default::default() }));
        }
        "stop" | "poweroff" | "quit" => {
            return Some(definition::stop(rest).and_then(|(name, timeout)| match name {
                Some(other) if word != "stop" => Err(CommandError::NoOption(other)),
                _ => build(word, Arguments { name, timeout, ..Default::default() }),
            }));
        }
        _ => {}
    }
    let name = words.next();
    let last = words.next();
    let count = last.and_then(|w| w.parse().ok());
    let mut arguments = Arguments { name, count, bytes: last, ..Default::default() };
    if word == "release" {
        arguments = release_words(name, last);
    }
    if word == "drain" {
        return Some(build(word, Arguments { node: name, text: last, ..Default::default() }));
    }
    if word == "move" {
        let node = match last {
            Some("to") => words.next(),
            other => other,
        };
        return Some(build(word, Arguments { name, node, ..Default::default() }));
    }
    if (word, name) == ("fence", Some("confirm")) {
        return Some(build(FENCE_CONFIRM, Arguments { node: last, ..arguments }));
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
        Ok((line, _)) => (Some(line.id), of_json(line)),
        Err(_) => (id_of(line), Err(CommandError::Malformed)),
    }
}

fn of_json(line: JsonCommand<'_>) -> Result<MonitorCommand<'_>, CommandError<'_>> {
    let JsonCommand { partition, node, count, dump, bytes, .. } = line;
    match line.command {
        "define" => {
            let found = line.definition.ok_or(CommandError::MissingArgument("a definition"))?;
            // The parser leaves escapes in texts as they are; no name of ours needs one.
            let names = [found.name, found.kernel.image].into_iter();
            let more = found.kernel.initrd.into_iter().chain(found.store);
            match names.chain(more).find(|text| text.contains('\\')) {
                Some(text) => Err(CommandError::NoOption(text)),
                None => Ok(MonitorCommand::Define(found)),
            }
        }
        "clone" => {
            let wrong = CommandError::NoOption;
            let from = line.from.map(|w| definition::boots(w).ok_or(wrong(w))).transpose()?;
            Ok(MonitorCommand::Clone(ClonesWanted {
                base: partition.ok_or(CommandError::MissingArgument("a base's name"))?,
                name: line.name.ok_or(CommandError::MissingArgument("a name for the clone"))?,
                count,
                boots: from.unwrap_or(false),
            }))
        }
        "undefine" => {
            let name = partition.ok_or(CommandError::MissingArgument("a partition's name"))?;
            Ok(MonitorCommand::Undefine(name, line.scope))
        }
        "set" => {
            let name = partition.ok_or(CommandError::MissingArgument("a partition's name"))?;
            let wrong = CommandError::NoOption;
            let dump = dump.map(|word| definition::dump(word).ok_or(wrong(word))).transpose()?;
            let restart = line
                .restart
                .map(|word| definition::restart(word).ok_or(wrong(word)))
                .transpose()?;
            let options = definition::some(PolicyOptions { dump, restart })?;
            Ok(MonitorCommand::Set(name, options, line.scope))
        }
        word => {
            let timeout = line.timeout_ns.map(Ns::new);
            let text = line.text;
            build(word, Arguments { name: partition, node, count, dump, bytes, timeout, text })
        }
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
    use crate::config::{ConsoleRoute, DumpBound, DumpOverflow, DumpPolicy, RestartPolicy};

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
        assert_eq!(parse_text("quit"), Some(Ok(MonitorCommand::PowerOff(Ns::ZERO))));
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
    fn a_definition_in_json_has_the_members_of_a_configuration() {
        let line =
            br#"{"id":9,"command":"define","definition":{"name":"web","memory_bytes":8388608,
            "kernel":{"image":"k","initrd":"i"},"cmdline":"a b","dump":"off","restart":"immediate",
            "dump_bound":{"most":2,"when_full":"drop-oldest"},"hang_timeout_ns":5000000000,
            "restart_limit":{"restarts":3,"time_ns":60000000000},"boot_memory_bytes":4096,
            "console":"programs"}}"#;
        let (id, Ok(MonitorCommand::Define(web))) = parse_json(line) else { panic!() };
        let config = web.to_config();
        assert_eq!((id, &*config.name, config.memory_bytes), (Some(9), "web", 8 << 20));
        assert_eq!((&*config.kernel.image, config.kernel.initrd.as_deref()), ("k", Some("i")));
        assert_eq!((config.dump, config.restart), (DumpPolicy::Off, RestartPolicy::Immediate));
        let bound = DumpBound { most: 2, when_full: DumpOverflow::DropOldest };
        assert_eq!((config.dump_bound, config.console), (Some(bound), ConsoleRoute::Programs));
        assert_eq!(
            (config.restart_limit.unwrap().restarts, config.boot_memory_bytes),
            (3, Some(4096))
        );
        let short = br#"{"id":1,"command":"define",
            "definition":{"name":"w","memory_bytes":4096,"kernel":{"image":"k"}}}"#;
        let (_, Ok(MonitorCommand::Define(short))) = parse_json(short) else { panic!() };
        assert_eq!(Ok(short), definition::definition("w memory=4096 kernel=k"));
    }

    #[test]
    fn a_definition_in_json_with_a_mistake_is_refused() {
        let of = |definition: &str| {
            let line = format!(r#"{{"id":4,"command":"define","definition":{definition}}}"#);
            let (id, parsed) = parse_json(line.as_bytes());
            assert_eq!(id, Some(4));
            parsed.unwrap_err().to_string()
        };
        for malformed in [
            "{}",
            r#"{"name":"w","memory_bytes":4096}"#,
            r#"{"name":"w","memory_bytes":-1,"kernel":{"image":"k"}}"#,
            r#"{"name":"w","memory_bytes":4096,"kernel":{"image":"k"},"colour":"red"}"#,
            r#"{"name":"w","memory_bytes":4096,"kernel":{"image":"k"},"dump":"maybe"}"#,
        ] {
            assert!(of(malformed).starts_with("not a command"), "{malformed}");
        }
        let escaped = r#"{"name":"a\"b","memory_bytes":4096,"kernel":{"image":"k"}}"#;
        assert!(of(escaped).contains("no option"), "{}", of(escaped));
        for wrong in [r"a\qb", r"a\u12", r"\ud800", "a\\"] {
            let kernel = r#""kernel":{"image":"k"}"#;
            let line = format!(r#"{{"name":"w","memory_bytes":1,{kernel},"cmdline":"{wrong} "}}"#);
            assert!(of(&line).starts_with("not a command"), "{line}");
        }
        let none = parse_json(br#"{"id":5,"command":"define","partition":"w"}"#);
        assert_eq!(none, (Some(5), Err(CommandError::MissingArgument("a definition"))));
    }

    #[test]
    fn a_fenced_member_is_confirmed_by_two_words() {
        let confirm = Ok(MonitorCommand::FenceConfirm("node-a"));
        assert_eq!(parse_text(" fence confirm node-a "), Some(confirm));
        let json = br#"{"id":3,"command":"fence confirm","node":"node-a"}"#;
        assert_eq!(parse_json(json), (Some(3), confirm));
        assert_eq!(parse_text("nodes"), Some(Ok(MonitorCommand::Nodes)));
        let none = Err(CommandError::MissingArgument("a node's name"));
        assert_eq!(parse_text("fence confirm"), Some(none));
        assert_eq!(parse_text("fence node-a"), Some(Err(CommandError::Unknown("fence"))));
    }

    #[test]
    fn partitions_are_started_stopped_and_changed() {
        assert_eq!(parse_text("start web"), Some(Ok(MonitorCommand::Start("web"))));
        let undefine = |scope| Ok(MonitorCommand::Undefine("web", scope));
        assert_eq!(parse_text("undefine web"), Some(undefine(DefinitionScope::Store)));
        let text = "undefine web scope=node";
        assert_eq!(parse_text(text), Some(undefine(DefinitionScope::Node)));
        let json = br#"{"id":1,"command":"undefine","partition":"web","scope":"node"}"#;
        assert_eq!(parse_json(json), (Some(1), undefine(DefinitionScope::Node)));
        let json = br#"{"id":1,"command":"undefine","partition":"web","scope":"all"}"#;
        assert_eq!(parse_json(json), (Some(1), Err(CommandError::Malformed)));
        assert_eq!(parse_text("store"), Some(Ok(MonitorCommand::Store)));
        assert_eq!(parse_text("suspend web"), Some(Ok(MonitorCommand::Suspend("web"))));
        let json = br#"{"id":2,"command":"resume","partition":"web"}"#;
        assert_eq!(parse_json(json), (Some(2), Ok(MonitorCommand::Resume("web"))));
        let off = PolicyOptions { dump: Some(DumpPolicy::Off), restart: None };
        let set = |scope| Ok(MonitorCommand::Set("web", off, scope));
        assert_eq!(parse_text("set web dump=off"), Some(set(DefinitionScope::Store)));
        let text = "set web scope=node dump=off";
        assert_eq!(parse_text(text), Some(set(DefinitionScope::Node)));
        let json = br#"{"id":1,"command":"set","partition":"web","dump":"off","scope":"node"}"#;
        assert_eq!(parse_json(json), (Some(1), set(DefinitionScope::Node)));
        let json = br#"{"id":1,"command":"set","partition":"web","dump":"off"}"#;
        assert_eq!(parse_json(json), (Some(1), set(DefinitionScope::Store)));
        let json = br#"{"id":1,"command":"set","partition":"web","restart":"soon"}"#;
        assert_eq!(parse_json(json), (Some(1), Err(CommandError::NoOption("soon"))));
    }

    #[test]
    fn guests_have_time_to_end_unless_the_command_says_at_once() {
        let stop = |timeout| Ok(MonitorCommand::Stop("web", timeout));
        let off = |timeout| Ok(MonitorCommand::PowerOff(timeout));
        let second = Ns::from_secs(1);
        for (text, json, wanted) in [
            ("stop web", r#""stop","partition":"web""#, stop(STOP_TIMEOUT)),
            (
                "stop web timeout=10s",
                r#""stop","partition":"web","timeout_ns":10000000000"#,
                stop(10 * second),
            ),
            ("stop web timeout=0", r#""stop","partition":"web","timeout_ns":0"#, stop(Ns::ZERO)),
            ("kill web", r#""kill","partition":"web""#, stop(Ns::ZERO)),
            ("poweroff", r#""poweroff""#, off(Ns::ZERO)),
            ("quit timeout=1s", r#""quit","timeout_ns":1000000000"#, off(second)),
        ] {
            assert_eq!(parse_text(text), Some(wanted), "{text}");
            let json = format!(r#"{{"id":1,"command":{json}}}"#);
            assert_eq!(parse_json(json.as_bytes()), (Some(1), wanted), "{json}");
        }
        let odd = |word| Some(Err(CommandError::NoOption(word)));
        assert_eq!(parse_text("stop web db"), odd("db"));
        assert_eq!(parse_text("stop web timeout=1h"), odd("timeout=1h"));
        // A word that is no option must not end the machine at once.
        assert_eq!(parse_text("poweroff orderly"), odd("orderly"));
        let missing = CommandError::MissingArgument("a partition's name");
        assert_eq!(parse_text("stop timeout=1s"), Some(Err(missing)));
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
