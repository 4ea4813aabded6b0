//! Why a line is not a command.

/// Why a line is not a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError<'a> {
    /// Not JSON, or not of the form `{"id":1,"command":"..."}`.
    Malformed,
    /// No such command.
    Unknown(&'a str),
    /// The command needs a further argument: a partition's name or a number.
    MissingArgument(&'static str),
    /// An option that the command does not know, or whose value is wrong.
    NoOption(&'a str),
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
            Self::NoOption(word) => {
                write!(f, "'{word}' is no option of this command, or has no valid value")
            }
            Self::NoDump(word) => {
                write!(
                    f,
                    "'{word}' is no dump: give eight digits or more of its name, or an incarnation"
                )
            }
        }
    }
}
