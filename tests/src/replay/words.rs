//! The words of a trace: `cluster_trace` events of a node. `kernel/src/members/trace.rs` has the
//! table.

use anyhow::{Context, Result, bail, ensure};
use boot::events::Event;
use cluster::beat::BeatDetails;
use cluster::decree::{DECREE, Decree};
use cluster::id::Incarnation;
use cluster::layout::Extent;
use cluster::sector::{FieldReader, SECTOR};
use cluster::watch::TurnTimes;

/// A word between a node and its state machine.
#[derive(Clone, Debug)]
pub enum TraceWord {
    /// An incarnation begins.
    Begin {
        /// It.
        me: Incarnation,
        /// A random number.
        entropy: u64,
        /// The last decree that was known before.
        expected: u64,
    },
    /// A decree is wished for.
    Wish(Decree),
    /// The machine was asked, and wants a step.
    Ask(AskedStep),
    /// The machine was asked, and waits until nothing is in flight.
    Drain(u64),
    /// A step has read this sector.
    Read {
        /// Number of the area.
        area: u8,
        /// Offset in it.
        at: u64,
        /// The sector.
        bytes: Vec<u8>,
    },
    /// A step is done.
    Done {
        /// The areas that took part.
        areas: u8,
        /// Its times.
        times: TurnTimes,
    },
    /// A message is sent.
    Send {
        /// The time.
        now: u64,
        /// The receiver's slot.
        slot: u16,
        /// What it is about.
        kind: u16,
        /// Its text.
        text: Vec<u8>,
    },
    /// The oldest message that was read is taken.
    Take,
    /// A registration was given up.
    GaveUp,
    /// The node is asked to leave.
    Leave,
    /// Nothing is in flight any more.
    Drained(bool),
    /// What the machine has noted.
    Noted {
        /// The last decree.
        number: u64,
        /// End of the lease; 0: none.
        lease: u64,
        /// The notes.
        text: String,
    },
}

/// A step that the machine wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskedStep {
    /// The time.
    pub now: u64,
    /// Areas that may take part.
    pub areas: u8,
    /// Requests are sent again.
    pub resends: bool,
    /// Bytes to write.
    pub write: Option<Extent>,
    /// Bytes to read.
    pub read: Option<Extent>,
    /// What the beats say about the node.
    pub details: BeatDetails,
    /// Until when turns follow each other.
    pub hurry: u64,
    /// CRC32C of the bytes to write.
    pub sum: u32,
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    ensure!(hex.len().is_multiple_of(2) && hex.is_ascii(), "no bytes: {hex}");
    let pairs = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    Ok(pairs.collect::<Result<_, _>>()?)
}

fn extent(at: u64, len: u64) -> Option<Extent> {
    (len > 0).then_some(Extent { at, len: len as usize })
}

impl TraceWord {
    /// Reads the words of a node's events.
    ///
    /// # Errors
    /// Names the first word of another form, or lines that were lost.
    pub fn all<'e>(events: impl Iterator<Item = &'e Event>) -> Result<Vec<Self>> {
        let mut words = Vec::new();
        for event in events {
            ensure!(event.name() != "lost", "lines of the trace were lost: {}", event.0);
            if event.name() == "cluster_trace" {
                words.push(Self::of(event).with_context(|| event.0.to_string())?);
            }
        }
        Ok(words)
    }

    fn of(event: &Event) -> Result<Self> {
        let numbers: Vec<u64> = event.0["numbers"]
            .as_array()
            .context("numbers")?
            .iter()
            .map(|number| number.as_u64().context("a number"))
            .collect::<Result<_>>()?;
        let data = event.text("data")?;
        Ok(match (event.text("step")?, numbers.as_slice()) {
            ("begin", &[entropy, expected]) => {
                let me = bytes(data)?.try_into().ok().context("an incarnation")?;
                Self::Begin { me: Incarnation(u128::from_be_bytes(me)), entropy, expected }
            }
            ("wish", []) => {
                let bytes = bytes(data)?;
                ensure!(bytes.len() == DECREE, "{} bytes", bytes.len());
                Self::Wish(Decree::read(&mut FieldReader::new(&bytes)).context("a decree")?)
            }
            ("ask", numbers) => Self::Ask(AskedStep::of(numbers, &bytes(data)?)?),
            ("drain", &[now]) => Self::Drain(now),
            ("read", &[area, at]) => {
                let bytes = bytes(data)?;
                ensure!(bytes.len() == SECTOR, "{} bytes", bytes.len());
                Self::Read { area: area as u8, at, bytes }
            }
            ("done", &[areas, asked_ns, read_ns, seen_ns]) => {
                Self::Done { areas: areas as u8, times: TurnTimes { asked_ns, read_ns, seen_ns } }
            }
            ("send", &[now, slot, kind]) => {
                Self::Send { now, slot: slot as u16, kind: kind as u16, text: bytes(data)? }
            }
            ("take", []) => Self::Take,
            ("gave_up", []) => Self::GaveUp,
            ("leave", []) => Self::Leave,
            ("drained", &[tainted]) => Self::Drained(tainted == 1),
            ("noted", &[number, lease]) => Self::Noted { number, lease, text: data.to_owned() },
            (step, _) => bail!("a word {step}"),
        })
    }
}

impl AskedStep {
    fn of(numbers: &[u64], data: &[u8]) -> Result<Self> {
        let &[now, areas, resends, w, w_len, r, r_len, devices, free_mib, free_spaces, hurry] =
            numbers
        else {
            bail!("{} numbers", numbers.len())
        };
        let (name, sum) = data.split_first_chunk::<32>().context("a name")?;
        let (free_mib, free_spaces) = (free_mib as u32, free_spaces as u32);
        Ok(Self {
            now,
            areas: areas as u8,
            resends: resends == 1,
            write: extent(w, w_len),
            read: extent(r, r_len),
            details: BeatDetails { devices, free_mib, free_spaces, name: *name },
            hurry,
            sum: u32::from_be_bytes(sum.try_into().ok().context("a sum")?),
        })
    }
}
