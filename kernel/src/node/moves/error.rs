//! Why a partition does not move.

use crate::members::TargetError;
use crate::node::define::DefinitionError;
use crate::partition::lifecycle::LifecycleView;
use crate::storage::spaces::GiveError;
use alloc::boxed::Box;
use alloc::string::String;
use arrayvec::ArrayString;
use cluster::post::MailError;
use core::fmt;

/// Why a partition does not move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MoveError {
    /// This node is in no cluster.
    NoCluster,
    /// This node is no member now.
    NotMember,
    /// The partition cannot be moved, as for other commands.
    Partition(Box<DefinitionError>),
    /// The target: its word in the command, and the fault.
    Target(String, TargetError),
    /// The target is this node.
    Here(String),
    /// Its definition is in no image store that others see.
    NotStored(String),
    /// It is a clone.
    IsClone(String),
    /// Its paging space is on no disk of the cluster.
    Alone(String),
    /// It does not run: its state.
    NotRunning(String, LifecycleView),
    /// It moves already.
    Moves(String),
    /// The message was not sent.
    Mail(String, MailError),
    /// The target has not answered in time.
    Silent(String),
    /// The target cannot take it: why.
    Refused(String, Box<ArrayString<256>>),
    /// The target has given it back: it goes on here.
    GivenBack(String),
    /// It was not suspended, as another event tells.
    NotSuspended(String),
    /// It has crashed, restarted or ended meanwhile.
    Ended(String),
    /// The log, or its disk, has refused the hand-over.
    NotGiven(String, GiveError),
    /// No other member takes part.
    NoOther,
}

impl fmt::Display for MoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCluster => f.write_str("there is no cluster area on this node's disks"),
            Self::NotMember => f.write_str("this node is no member of the cluster now"),
            Self::Partition(error) => write!(f, "{error}"),
            Self::Target(node, error) => write!(f, "{node}: {error}"),
            Self::Here(name) => write!(f, "{name} is on this node already"),
            Self::NotStored(name) => write!(
                f,
                "{name} has no definition in an image store, so no other node could start it again"
            ),
            Self::IsClone(name) => write!(f, "{name} is a clone, and a clone cannot be moved"),
            Self::Alone(name) => {
                write!(f, "the paging space of {name} is on no disk of the cluster")
            }
            Self::NotRunning(name, view) => {
                write!(f, "{name} does not run: it is {}", view.as_str())
            }
            Self::Moves(name) => write!(f, "{name} is on its way to another node"),
            Self::Mail(node, error) => write!(f, "{node}: {error}"),
            Self::Silent(node) => write!(f, "{node} does not answer"),
            Self::Refused(node, reason) => write!(f, "{node} cannot take it: {reason}"),
            Self::GivenBack(node) => write!(f, "{node} has given it back"),
            Self::NotSuspended(name) => write!(f, "{name} could not be suspended"),
            Self::Ended(name) => write!(f, "{name} has ended or restarted meanwhile"),
            Self::NotGiven(name, error) => write!(f, "{name} stays here: {error}"),
            Self::NoOther => f.write_str("no other member of the cluster takes part"),
        }
    }
}

impl From<DefinitionError> for MoveError {
    fn from(error: DefinitionError) -> Self {
        Self::Partition(Box::new(error))
    }
}
