//! Why a command on a partition's definition is refused.

use crate::config::{self, ConfigError};
use crate::node::capacity::CapacityError;
use crate::partition::lifecycle::LifecycleView;
use crate::partition::loaders::LoadError;
use crate::storage::log_desk::OwnError;
use crate::storage::stores::{ImageReadError, StoreAtError, StoreId};
use alloc::boxed::Box;
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
    /// Its definition is being written in its image store.
    Held(String),
    /// It is being undefined.
    Leaving(String),
    /// The cluster's log gives this partition to the member in this slot.
    OfMember(String, u16),
    /// This node gives its partitions away.
    Draining,
    /// It is on its way to another node.
    IsMoving(String),
    /// It is suspended, and the disk of its paging space is out of reach here.
    OutOfReach(String),
    /// The log does not give it to this node.
    NotOwned(String, OwnError),
    /// No store has this number, or a name that begins with these digits.
    NoStore(String),
    /// As many commands on stores as can be are under way.
    StoresBusy,
    /// No image of a store has this label, or a digest that begins with these digits.
    NoImage(String, StoreId),
    /// Several images have the label or the digits; two of their digests.
    SeveralImages(String, [String; 2]),
    /// A store has a definition of this name already.
    NameInStore(String, StoreId),
    /// Two stores have a definition of this name.
    SeveralStores(String, StoreId, StoreId),
    /// The definition in a store cannot be decoded.
    Undecodable(String, StoreId, ConfigError),
    /// The definition in a store has another partition, or other images, than its slot says.
    OtherDefinition(String, StoreId),
    /// Another store lies where a partition's store was.
    OtherStore(String, StoreId),
    /// A store cannot be used.
    Store(Box<StoreAtError>),
    /// The kernel cannot be read from its store.
    Image(Box<ImageReadError>),
    /// The store has the definition, and this node refuses it.
    OnlyInStore(String, Box<DefinitionError>),
    /// It cannot be suspended: its state.
    NotRunning(String, LifecycleView),
    /// The node has no paging device.
    NoPagingSpace,
    /// It is suspended, so it does not begin anew.
    IsSuspended(String),
    /// It is not suspended: its state.
    NotSuspended(String, LifecycleView),
    /// It is a base, so it can only be cloned or given back.
    IsSealed(String),
    /// It is no base: its state.
    NotSealed(String, LifecycleView),
    /// It is a base, and others depend on it; their names.
    HasChildren(String, String),
    /// More clones than there is room for: how many were asked for, and how many can be made.
    CloneCount(u64, usize),
    /// It is a clone, whose pages are in part the base's.
    IsClone(String),
    /// Its space is on a cluster's disk, whose log does not know who holds a base.
    BaseInCluster(String),
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
            Self::Held(name) => {
                write!(f, "{name}: its definition in the image store is being written; try again")
            }
            Self::Leaving(name) => write!(f, "{name} is being undefined"),
            Self::OfMember(name, slot) => {
                write!(f, "{name} belongs to the member in slot {slot}; 'nodes' shows it")
            }
            Self::Draining => f.write_str(
                "this node gives its partitions away: `drain NODE end` lets it take some again",
            ),
            Self::IsMoving(name) => write!(f, "{name} is on its way to another node"),
            Self::OutOfReach(name) => {
                write!(f, "{name} is suspended on a disk that this node does not reach")
            }
            Self::NotOwned(name, error) => write!(f, "{name}: {error}"),
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
            Self::IsSealed(name) => {
                write!(f, "{name} is sealed: clone it, or release it ('list' shows it)")
            }
            Self::NotSealed(name, view) => {
                write!(f, "{name} is not sealed: it is {}", view.as_str())
            }
            Self::HasChildren(name, children) => {
                write!(f, "{name} is the base of others, which need it: {children}")
            }
            Self::CloneCount(wanted, limit) => {
                write!(f, "{wanted} clones: this node has room for {limit} more")
            }
            Self::BaseInCluster(name) => {
                write!(
                    f,
                    "{name}: its space is on a cluster's disk; a base needs a disk of this node's \
                     own"
                )
            }
            Self::IsClone(name) => {
                write!(f, "{name} is a clone, and a clone cannot be suspended")
            }
            Self::SuspendedTwice(name, names) => write!(
                f,
                "several spaces hold a suspended state of {name}: release all but one ({names})"
            ),
            _ => self.of_store(f),
        }
    }
}

impl DefinitionError {
    /// Writes an error that concerns a store.
    fn of_store(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore(word) => write!(f, "no image store '{word}'; 'store' lists them"),
            Self::StoresBusy => {
                f.write_str("other commands on image stores are under way: try again in a moment")
            }
            Self::NoImage(word, store) => {
                write!(f, "image store {} has no image '{word}'; 'store' lists them", store.0)
            }
            Self::SeveralImages(word, [one, other]) => {
                write!(f, "'{word}' stands for several images, give more digits: {one}, {other}")
            }
            Self::NameInStore(name, store) => write!(
                f,
                "image store {} has a partition {name}: start it, or choose another name",
                store.0
            ),
            Self::SeveralStores(name, one, other) => {
                write!(f, "{name} is in the image stores {} and {}: remove one", one.0, other.0)
            }
            Self::Undecodable(name, store, error) => {
                write!(f, "the definition of {name} in image store {}: {error}", store.0)
            }
            Self::OtherDefinition(name, store) => write!(
                f,
                "the definition of {name} in image store {} contradicts its slot",
                store.0
            ),
            Self::OtherStore(name, store) => write!(
                f,
                "another store lies at the place of image store {}, which had {name}",
                store.0
            ),
            Self::Store(error) => write!(f, "{error}"),
            Self::Image(error) => write!(f, "{error}"),
            Self::OnlyInStore(name, error) => {
                write!(f, "{name} is in the image store now, but not on this node: {error}")
            }
            _ => Ok(()),
        }
    }
}

impl From<StoreAtError> for DefinitionError {
    fn from(error: StoreAtError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<CapacityError> for DefinitionError {
    fn from(error: CapacityError) -> Self {
        Self::Capacity(error)
    }
}
