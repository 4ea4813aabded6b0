//! Rules: which requests go wrong, and how.

use super::Entry;
use super::protocol::{Failure, Kind, Request};
use std::ops::Range;
use std::time::Duration;

/// What happens to a request instead of what it asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is carried out and answered so much later.
    Hold(Duration),
    /// It is kept, unanswered, until [`super::NbdDisk::let_go`].
    Keep,
    /// It fails.
    Fail(Failure),
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The node, or all.
    pub node: Option<&'static str>,
    /// The kinds; none are all.
    pub kinds: &'static [Kind],
    /// Bytes of the disk that a request has to touch; a flush touches all.
    pub bytes: Range<u64>,
    /// How many requests that fit pass before the first one that does not.
    pub skip: u64,
    /// How many do not pass.
    pub times: u64,
    /// What happens to them.
    pub action: Action,
    /// What happens to every request behind the first of them.
    pub afterwards: Option<Action>,
}

impl Rule {
    /// Every request of every node, from now on.
    pub const fn all(action: Action) -> Self {
        Self { node: None, kinds: &[], bytes: 0..u64::MAX, skip: 0, times: u64::MAX, action, afterwards: None }
    }

    fn fits(&self, node: &str, kind: Kind, bytes: &Range<u64>) -> bool {
        let touches = self.bytes.start < bytes.end && bytes.start < self.bytes.end;
        self.node.is_none_or(|own| own == node)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (kind == Kind::Flush || touches)
    }

    /// Returns whether a request of a log fits.
    pub fn fits_entry(&self, entry: &Entry) -> bool {
        self.fits(entry.node, entry.kind, &entry.bytes)
    }
}

/// The rules in force. The first that fits decides.
#[derive(Default, Debug)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    pub(super) fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// Returns what happens to a request; `None` where it is carried out.
    pub(super) fn decide(&mut self, node: &str, request: &Request) -> Option<Action> {
        let rule = self.0.iter_mut().find(|rule| rule.times > 0 && rule.fits(node, request.kind, &request.bytes))?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times -= 1;
        let action = rule.action;
        if let Some(afterwards) = rule.afterwards {
            self.0 = vec![Rule::all(afterwards)];
        }
        Some(action)
    }
}
