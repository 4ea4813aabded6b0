//! Why a command on a partition's definition is refused.

use crate::config;
use crate::node::capacity::CapacityError;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::loaders::LoadError;
use alloc::string::String;
use core::fmt;

/// Why a command on a definition is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DefinitionError {
    /// The node is still starting.
    Starting,
    /// The machine is ending.
    Ending,
    /// No partition has this name.
    Unknown(String),
    /// Another partition has the name.
    NameInUse(String),
    /// No partition may have this name.
    NameInvalid,
    /// A value of the definition is wrong: its key, and its rule.
    Value(&'static str, &'static str),
    /// The boot archive has no module of this name.
    NoModule(String),
    /// The kernel does not start with this definition.
    Load(LoadError),
    /// The machine is too small.
    Capacity(CapacityError),
    /// All of this many slots are taken.
    NoSlot(usize),
    /// The hypervisor's heap is too full.
    NoHeap,
    /// It has not stopped: its state.
    NotStopped(String, LifecycleView),
    /// It has stopped already.
    Stopped(String),
    /// It is about to start.
    AboutToStart(String),
    /// It is being undefined.
    Leaving(String),
    /// It cannot be suspended: its state.
    NotRunning(String, LifecycleView),
    /// The node has no paging device.
    NoPagingSpace,
    /// It is suspended, so it does not begin anew.
    IsSuspended(String),
    /// It is not suspended: its state.
    NotSuspended(String, LifecycleView),
    /// Several spaces hold a suspended state of it; their names.
    SuspendedTwice(String, String),
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("the node is still starting: try again in a moment"),
            Self::Ending => f.write_str("the machine is ending"),
            Self::Unknown(name) => write!(f, "no partition '{name}'; 'list' shows them"),
            Self::NameInUse(name) => {
                write!(f, "{name} is defined already: choose another name, or undefine it first")
            }
            Self::NameInvalid => {
                write!(f, "name: must be 1 to {} letters, digits, - and _", config::MAX_NAME)
            }
            Self::Value(key, rule) => write!(f, "{key}: {rule}"),
            Self::NoModule(name) => write!(f, "the boot archive has no module '{name}'"),
            Self::Load(error) => write!(f, "{error}"),
            Self::Capacity(error) => write!(f, "{error}"),
            Self::NoSlot(slots) => write!(
                f,
                "all {slots} places for partitions are taken: undefine one (`spare` in the \
                 configuration makes more)"
            ),
            Self::NoHeap => f.write_str("the hypervisor's heap is too full for another partition"),
            Self::NotStopped(name, view) => {
                write!(f, "{name} has not stopped, it is {}: stop it first", view.as_str())
            }
            Self::Stopped(name) => write!(f, "{name} has stopped already"),
            Self::AboutToStart(name) => write!(f, "{name} is about to start: stop it first"),
            Self::Leaving(name) => write!(f, "{name} is being undefined"),
            Self::NotRunning(name, view) => {
                write!(f, "{name} does not run: it is {}", view.as_str())
            }
            Self::NoPagingSpace => {
                f.write_str("there is no paging space that could hold a suspended partition")
            }
            Self::IsSuspended(name) => write!(
                f,
                "{name} is suspended: resume it, or release its suspended state ('list' shows it)"
            ),
            Self::NotSuspended(name, view) => {
                write!(f, "{name} is not suspended: it is {}", view.as_str())
            }
            Self::SuspendedTwice(name, names) => write!(
                f,
                "several spaces hold a suspended state of {name}: release all but one ({names})"
            ),
        }
    }
}

impl From<CapacityError> for DefinitionError {
    fn from(error: CapacityError) -> Self {
        Self::Capacity(error)
    }
}
