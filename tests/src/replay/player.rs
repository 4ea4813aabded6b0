//! Tells a state machine on the host what one on a real node was told, and compares its answers.

use super::words::{AskedStep, TraceWord};
use anyhow::{Context, Result, ensure};
use cluster::crc::crc32c;
use cluster::id::MemberId;
use cluster::layout::{AreaLayout, Extent};
use cluster::node::{ClusterEvent, ClusterNode, NodeAsk, StepDone};
use cluster::sector::SECTOR;
use cluster::state::ClusterState;
use cluster::superblock::Superblock;
use cluster::watch::{Sighting, TurnTimes};

/// A node's state machine on the host.
pub struct TracePlayer {
    superblock: Superblock,
    layout: AreaLayout,
    node: Option<ClusterNode<Vec<Sighting>>>,
    out: Vec<u8>,
    /// Sectors of the step that is under way: area, offset, bytes.
    reads: Vec<(u8, u64, Vec<u8>)>,
    read: Option<Extent>,
    notes: Vec<ClusterEvent>,
}

impl TracePlayer {
    /// Begins before the first word.
    ///
    /// # Errors
    /// If the superblock's numbers are not possible.
    pub fn new(superblock: Superblock) -> Result<Self> {
        let layout = superblock.layout().context("a layout")?;
        let out = vec![0; layout.longest_write()];
        let (node, reads, notes) = (None, Vec::new(), Vec::new());
        Ok(Self { superblock, layout, node, out, reads, read: None, notes })
    }

    fn node(&mut self) -> Result<&mut ClusterNode<Vec<Sighting>>> {
        self.node.as_mut().context("a word before the first incarnation")
    }

    /// Returns the member.
    ///
    /// # Errors
    /// Before the first incarnation.
    pub fn me(&mut self) -> Result<MemberId> {
        Ok(self.node()?.me())
    }

    /// Returns the state after the last decree.
    ///
    /// # Errors
    /// Before the first incarnation.
    pub fn state(&mut self) -> Result<&ClusterState> {
        Ok(self.node()?.state())
    }

    /// Tells a word; returns what the machine has noted, where the word says what the real one has.
    ///
    /// # Errors
    /// Says how the answers differ.
    pub fn tell(&mut self, word: &TraceWord) -> Result<Option<Vec<ClusterEvent>>> {
        match word {
            TraceWord::Begin { me, entropy, expected } => match &mut self.node {
                Some(node) => node.begin_anew(*me, *entropy),
                None => {
                    let seen = vec![Sighting::NEVER; usize::from(self.layout.slots())];
                    let limit = self.superblock.state_bytes as usize;
                    let timing = self.superblock.timing;
                    let mut node =
                        ClusterNode::new(*me, self.layout, timing, limit, *entropy, seen);
                    node.expect_decree(*expected);
                    self.node = Some(node);
                }
            },
            TraceWord::Wish(decree) => self.node()?.wish(*decree),
            TraceWord::Ask(step) => self.ask(step)?,
            TraceWord::Drain(now) => {
                let mut out = core::mem::take(&mut self.out);
                let ask = self.node()?.ask(*now, &mut out);
                self.out = out;
                ensure!(ask == NodeAsk::Drain, "drain, and here {ask:?}");
            }
            TraceWord::Read { area, at, bytes } => self.reads.push((*area, *at, bytes.clone())),
            TraceWord::Done { areas, times } => self.done(*areas, *times)?,
            TraceWord::Send { now, slot, kind, text } => {
                // A refusal changes nothing.
                let _ = self.node()?.send(*slot, *kind, text, *now);
            }
            TraceWord::Take => {
                let taken = self.node()?.take_mail();
                ensure!(taken.is_some(), "a message is taken, and here is none");
            }
            TraceWord::GaveUp => {
                let mut notes = Vec::new();
                self.node()?.gave_up(&mut |event| notes.push(event));
                self.notes = notes;
            }
            TraceWord::Leave => self.node()?.leave(),
            TraceWord::Drained(is_tainted) => self.node()?.drained(*is_tainted),
            TraceWord::Noted { number, lease, text } => {
                let notes = core::mem::take(&mut self.notes);
                let node = self.node()?;
                let mine = (node.state().number(), node.lease_end_ns().unwrap_or(0));
                ensure!(
                    (mine, format!("{notes:?}")) == ((*number, *lease), text.clone()),
                    "decree {number}, lease until {lease}, {text}; here {mine:?}, {notes:?}"
                );
                return Ok(Some(notes));
            }
        }
        Ok(None)
    }

    fn ask(&mut self, step: &AskedStep) -> Result<()> {
        let mut out = core::mem::take(&mut self.out);
        let node = self.node()?;
        node.describe(step.details);
        node.hurry(step.hurry);
        let ask = node.ask(step.now, &mut out);
        let AskedStep { write, read, areas, resends, .. } = *step;
        let wanted = NodeAsk::Step { write, read, areas, resends };
        ensure!(ask == wanted, "{wanted:?}, and here {ask:?}");
        let sum = crc32c(out.get(..write.map_or(0, |part| part.len)).unwrap_or_default());
        ensure!(sum == step.sum, "other bytes to write: {:#x}, and here {sum:#x}", step.sum);
        (self.out, self.read) = (out, read);
        self.reads.clear();
        Ok(())
    }

    fn done(&mut self, areas: u8, times: TurnTimes) -> Result<()> {
        let sectors = core::mem::take(&mut self.reads);
        let part = self.read.unwrap_or(Extent { at: 0, len: 0 });
        let mut buffers = Vec::new();
        for area in (0..self.superblock.areas).filter(|area| areas >> area & 1 == 1) {
            let mut buffer = vec![0; part.len];
            for (_, at, bytes) in sectors.iter().filter(|(of, ..)| *of == area) {
                let at = at.checked_sub(part.at).context("a sector before the read")? as usize;
                let room = buffer.get_mut(at..at + SECTOR).context("a sector behind the read")?;
                room.copy_from_slice(bytes);
            }
            buffers.push(buffer);
        }
        let reads: Vec<&[u8]> = match self.read {
            Some(_) => buffers.iter().map(Vec::as_slice).collect(),
            None => Vec::new(),
        };
        let mut notes = Vec::new();
        self.node()?.done(&StepDone { areas, times, reads: &reads }, &mut |event| {
            notes.push(event);
        });
        self.notes = notes;
        Ok(())
    }
}
