//! Rules: the requests that go wrong, and the faults.

use super::RequestLogEntry;
use super::protocol::{NbdError, NbdRequest, RequestKind};
use std::ops::Range;
use std::time::Duration;

/// The action that replaces the normal handling of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The request is carried out and answered this much later.
    Hold(Duration),
    /// The request stays unanswered until [`super::NbdDisk::let_go`].
    Keep,
    /// The request fails.
    Fail(NbdError),
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The node; `None`: all nodes.
    pub node: Option<&'static str>,
    /// The kinds of requests; empty: all kinds.
    pub kinds: &'static [RequestKind],
    /// Bytes of the disk that a request has to touch; a flush touches every range.
    pub bytes: Range<u64>,
    /// Number of matching requests that are handled normally before the first with the action.
    pub skip: u64,
    /// Number of requests with the action.
    pub times: u64,
    /// The action.
    pub action: Action,
    /// The action for every request after the first one with `action`.
    pub afterwards: Option<Action>,
}

impl Rule {
    /// Returns a rule for every request of every node, from now on.
    pub const fn all(action: Action) -> Self {
        Self {
            node: None,
            kinds: &[],
            bytes: 0..u64::MAX,
            skip: 0,
            times: u64::MAX,
            action,
            afterwards: None,
        }
    }

    fn fits(&self, node: &str, kind: RequestKind, bytes: &Range<u64>) -> bool {
        let touches = self.bytes.start < bytes.end && bytes.start < self.bytes.end;
        self.node.is_none_or(|own| own == node)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (kind == RequestKind::Flush || touches)
    }

    /// Returns whether a logged request matches.
    pub fn fits_entry(&self, entry: &RequestLogEntry) -> bool {
        self.fits(entry.node, entry.kind, &entry.bytes)
    }
}

/// The rules in force. The first matching rule decides.
#[derive(Default, Debug)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    pub(super) fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// Returns the action for a request; `None` where it is handled normally.
    pub(super) fn decide(&mut self, node: &str, request: &NbdRequest) -> Option<Action> {
        let rule = self
            .0
            .iter_mut()
            .find(|rule| rule.times > 0 && rule.fits(node, request.kind, &request.bytes))?;
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
