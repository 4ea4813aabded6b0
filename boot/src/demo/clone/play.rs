//! Drives the machine through the story, one step after the other.

use super::story::{CloneStory, FrameCount};
use super::verdict::CloneReading;
use super::{BASE, BASE_IMAGE, CHILDREN_IMAGE, CloneScale, disks};
use crate::bed::RunningMachine;
use crate::demo::counters::CounterPoll;
use crate::demo::readers::Readers;
use crate::dump::Dump;
use crate::events::{Event, Polled};
use crate::volume::VolumeAccess;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time limit of one poll for events, and so the delay of a console line.
const LOOK: Duration = Duration::from_millis(20);
/// Time between two requests for counters.
const STATS: Duration = Duration::from_secs(1);
/// Time between two lines that tell the frames.
const TELL: Duration = Duration::from_secs(5);
/// Time limit for an answer.
const ANSWER: Duration = Duration::from_secs(120);
/// Most bytes that are typed at a time.
const TYPED: usize = 64;
/// The child that panics, and its panic.
const PANICS: &str = "echo c > /proc/sysrq-trigger";

/// A machine in the middle of its story.
pub struct ClonePlay<'m> {
    running: &'m mut RunningMachine,
    scale: CloneScale,
    folder: PathBuf,
    counters: CounterPoll,
    started: Instant,
    told: Instant,
    /// The story so far.
    pub story: CloneStory,
}

impl<'m> ClonePlay<'m> {
    /// Begins with a machine that has just started; its images are in `folder`.
    pub fn new(running: &'m mut RunningMachine, scale: CloneScale, folder: &Path) -> Self {
        Self {
            running,
            scale,
            folder: folder.to_owned(),
            counters: CounterPoll::new(),
            started: Instant::now(),
            told: Instant::now(),
            story: CloneStory::new(&scale),
        }
    }

    /// Plays the whole story. The reading lacks what was not reached when damage ended it.
    ///
    /// # Errors
    /// Names the step that did not end in time, or the machine's failure.
    pub fn play(&mut self) -> Result<CloneReading> {
        let mut reading = CloneReading::default();
        self.make_base()?;
        if !self.make_children(&mut reading)? || !self.write_own(&mut reading)? {
            return Ok(reading);
        }
        if self.panic_first(&mut reading)? {
            self.read_disks(&mut reading)?;
            self.damage_base(&mut reading)?;
        }
        Ok(reading)
    }

    fn make_base(&mut self) -> Result<()> {
        self.until("the base's pages", |story| story.filled.is_some())?;
        self.type_at(BASE, "mark")?;
        self.until("the mark in the base's log", |story| story.is_marked)?;
        self.ask(json!({"command": "suspend", "partition": BASE}))?;
        self.await_event("suspended")?;
        self.ask(json!({"command": "seal", "partition": BASE}))?;
        self.await_event("sealed")
    }

    /// All children check the base's pages; returns false if damage has ended the story.
    fn make_children(&mut self, reading: &mut CloneReading) -> Result<bool> {
        let count = self.scale.children;
        self.ask(json!({"command": "clone", "partition": BASE, "name": "child", "count": count}))?;
        self.until("the children", |story| {
            story.children.values().all(|child| child.clone_ns.is_some())
        })?;
        self.type_at_all(|_| "check".to_owned())?;
        self.all_have("the check of the base's pages", 1)?;
        reading.read_only = self.settled_frames()?;
        Ok(self.goes_on())
    }

    fn write_own(&mut self, reading: &mut CloneReading) -> Result<bool> {
        self.type_at_all(|n| format!("key={:#x}", CloneScale::key(n, 1)))?;
        self.all_have("the check after the children's writes", 2)?;
        if !self.goes_on() {
            return Ok(false);
        }
        reading.written = self.settled_frames()?;
        self.type_at_all(|n| {
            format!("hostname c{n}; echo in\"\"it: says $(hostname) $(date +%s)")
        })?;
        self.type_at_all(|_| "log".to_owned())?;
        self.until("a command of each child", |story| {
            story.children.values().all(|child| child.commands > 0 && child.logs > 0)
        })?;
        Ok(self.goes_on())
    }

    /// The first child panics, and begins again from the base.
    fn panic_first(&mut self, reading: &mut CloneReading) -> Result<bool> {
        let first = CloneScale::name(1);
        self.story.expect_crash(&first);
        self.type_at(&first, PANICS)?;
        self.until("the dump of the child that panics", |story| !story.dumps.is_empty())?;
        self.until("the child that panicked, from the base", |story| {
            story.children.get(&CloneScale::name(1)).is_some_and(|child| child.incarnation > 1)
        })?;
        self.type_at(&first, &format!("key={:#x}", CloneScale::key(1, 2)))?;
        self.until("the pages of its next incarnation", |story| {
            story.children.get(&CloneScale::name(1)).is_some_and(|child| child.has_checked(1))
        })?;
        self.ask(json!({"command": "list"}))?;
        reading.base = self.running.events.newest("base").map(|event| event.0.clone());
        let refused = json!({"command": "undefine", "partition": BASE});
        let reply = self.running.events.command(ANSWER, refused)?;
        reading.refusal = reply.0["error"].as_str().map(str::to_owned);
        Ok(self.goes_on())
    }

    fn read_disks(&mut self, reading: &mut CloneReading) -> Result<()> {
        let base = Dump::open(&self.folder.join(BASE_IMAGE), VolumeAccess::Read)?;
        reading.blocks = Some(base.verify()?);
        let children = self.folder.join(CHILDREN_IMAGE);
        reading.keys = Some(disks::count_keys(&children, &self.scale)?);
        Ok(())
    }

    /// Damages blocks that nothing has looked at; the last child then looks at them.
    fn damage_base(&mut self, reading: &mut CloneReading) -> Result<()> {
        reading.damaged = disks::damage_bait(&self.folder.join(BASE_IMAGE))?;
        let last = CloneScale::name(self.scale.children);
        self.tell(&format!("{} blocks of the base are damaged on its disk", reading.damaged));
        self.story.expect_damage(&last);
        self.type_at(&last, "bait")?;
        self.until("what becomes of the child that reads them", |story| {
            let looked = story.children.get(&last).is_some_and(|child| child.bait.is_some());
            looked || story.crashes.iter().any(|(who, ..)| *who == last)
        })
    }

    /// Copies the dump of the child that panicked out of the image, and has drgn read it.
    ///
    /// # Errors
    /// Where there is no dump, or drgn cannot read it.
    pub fn read_dump(&self, readers: &Readers, reading: &mut CloneReading) -> Result<()> {
        let Some(dump) = self.story.dumps.first() else { return Ok(()) };
        let (file, space) = (self.folder.join("child.img"), u32::try_from(dump.number("space")?)?);
        disks::bring_out(&self.folder.join(CHILDREN_IMAGE), space, &file)?;
        reading.dump = Some(Dump::open(&file, VolumeAccess::Read)?.verify()?);
        reading.drgn = Some(readers.inspect(&file)?);
        reading.commands = readers.commands(&file);
        Ok(())
    }

    fn goes_on(&self) -> bool {
        self.story.failure.is_none() && self.story.children.values().all(|child| child.wrong() == 0)
    }

    fn type_at_all(&mut self, line: impl Fn(u64) -> String) -> Result<()> {
        (1..=self.scale.children).try_for_each(|n| self.type_at(&CloneScale::name(n), &line(n)))
    }

    fn all_have(&mut self, what: &str, checks: usize) -> Result<()> {
        self.until(what, |story| story.children.values().all(|child| child.has_checked(checks)))
    }

    /// Types a line; a console that has no room for it now is tried again.
    fn type_at(&mut self, partition: &str, line: &str) -> Result<()> {
        let bytes: String = format!("{line}\n").bytes().map(|byte| format!("{byte:02x}")).collect();
        ensure!(line.len() < TYPED, "“{line}” is too long to be typed at once");
        let command = json!({"command": "type", "partition": partition, "bytes": bytes});
        let end = Instant::now() + ANSWER;
        loop {
            let reply = self.reply(command.clone())?;
            match reply.0["error"].as_str() {
                None => return Ok(()),
                Some(error) if Instant::now() > end => bail!("{partition}: {error}"),
                Some(_) if self.story.failure.is_some() => return Ok(()),
                Some(_) => self.look()?,
            }
        }
    }

    fn ask(&mut self, command: Value) -> Result<()> {
        let reply = self.reply(command.clone())?;
        ensure!(reply.0["ok"] == true, "{command}: {}", reply.0["error"]);
        Ok(())
    }

    /// Sends a command; events before its answer belong to the story, too.
    fn reply(&mut self, command: Value) -> Result<Event> {
        let id = self.running.events.send(command.clone())?;
        let is_it = |event: &Event| event.name() == "reply" && event.0["id"].as_u64() == Some(id);
        let (seen, end) = (self.running.events.all().len(), Instant::now() + ANSWER);
        while Instant::now() < end {
            self.look()?;
            if let Some(reply) = self.running.events.all()[seen..].iter().find(|e| is_it(e)) {
                return Ok(reply.clone());
            }
        }
        bail!("no answer to {command}")
    }

    fn await_event(&mut self, name: &str) -> Result<()> {
        self.until_machine(name, |events| {
            events.iter().any(|event| event.name() == name && event.0["partition"] == BASE)
        })
    }

    fn until(&mut self, what: &str, is_over: impl Fn(&CloneStory) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(self.scale.step_s);
        while !is_over(&self.story) && self.story.failure.is_none() {
            ensure!(Instant::now() < end, "{what}: not within {} s", self.scale.step_s);
            self.look()?;
        }
        Ok(())
    }

    fn until_machine(&mut self, what: &str, is_over: impl Fn(&[Event]) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(self.scale.step_s);
        while !is_over(self.running.events.all()) {
            if let Some(failure) = &self.story.failure {
                bail!("{failure}");
            }
            ensure!(Instant::now() < end, "{what}: not within {} s", self.scale.step_s);
            self.look()?;
        }
        Ok(())
    }

    /// Takes what has come, and asks for counters if it is time.
    fn look(&mut self) -> Result<()> {
        let mut lines = Vec::new();
        match self.running.events.poll(LOOK) {
            Polled::Event(event) => {
                self.counters.event(&event);
                lines.extend(self.story.event(&event));
            }
            Polled::Nothing => {}
            Polled::Ended => bail!("the machine stopped too early"),
        }
        let at = self.started.elapsed().as_secs_f64();
        while let Ok(line) = self.running.console.next_line(Instant::now()) {
            lines.extend(self.story.line(at, &line));
        }
        lines.iter().for_each(|line| self.tell(line));
        self.counters.ask(&mut self.running.events, STATS)?;
        if self.told.elapsed() >= TELL {
            self.tell_frames();
        }
        Ok(())
    }

    fn tell(&self, line: &str) {
        println!("{:7.1} s  {line}", self.started.elapsed().as_secs_f64());
    }

    fn tell_frames(&mut self) {
        self.told = Instant::now();
        let frames = self.story.frames();
        if frames.own > 0 {
            let mib = |pages: u64| pages / 256;
            self.tell(&format!(
                "the pool's {} MiB: base {}, shown {} times as much; own {}, images {}, free {}",
                mib(frames.pool),
                mib(frames.base),
                frames.shown.checked_div(frames.base).unwrap_or(0),
                mib(frames.own),
                mib(frames.image),
                mib(frames.free)
            ));
        }
    }

    /// Returns counters of a moment when no child works.
    fn settled_frames(&mut self) -> Result<FrameCount> {
        let mut last = None;
        let end = Instant::now() + ANSWER;
        loop {
            self.ask(json!({"command": "stats"}))?;
            let frames = self.story.frames();
            if last == Some(frames) || Instant::now() > end || !self.goes_on() {
                return Ok(frames);
            }
            last = Some(frames);
        }
    }

    /// Ends the machine at once, and draws the picture: the dump of the last child is no part of
    /// the story.
    ///
    /// # Errors
    /// Where the picture cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        self.running.cut_power();
        self.story.series.draw(&self.folder, super::story::OWN_FRAMES).context("the picture")
    }
}
