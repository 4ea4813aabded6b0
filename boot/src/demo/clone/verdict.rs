//! The verdict on the demonstration of clones: a row for each child, and the claims.

use super::CloneScale;
use super::disks::KeyCount;
use super::story::{CloneStory, FrameCount};
use crate::demo::verdict::DemoVerdict;
use crate::dump::DumpVerdict;
use crate::report::{TextTable, time};
use serde_json::Value;

/// What was read at moments of the story, and from the disks.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct CloneReading {
    /// Frames when all children had read the base's pages.
    pub read_only: FrameCount,
    /// Frames when all children had written their own.
    pub written: FrameCount,
    /// The base, as `list` tells it.
    pub base: Option<Value>,
    /// Why the base is not given back.
    pub refusal: Option<String>,
    /// The base's blocks, before any was damaged.
    pub blocks: Option<DumpVerdict>,
    /// Keys in the children's spaces.
    pub keys: Option<KeyCount>,
    /// Blocks that were damaged.
    pub damaged: u64,
    /// The blocks of the dump of the child that panicked.
    pub dump: Option<DumpVerdict>,
    /// What drgn found in it.
    pub drgn: Option<Value>,
    /// Commands that open it.
    pub commands: Vec<String>,
}

/// Returns a row for each child.
pub fn table(story: &CloneStory) -> TextTable {
    let mut table = TextTable::new(&[
        "child",
        "cloned in",
        "done at",
        "pages",
        "own",
        "wrong",
        "foreign",
        "frames",
        "shown",
        "page-ins",
        "kernel log",
        "says",
    ]);
    let mut rows: Vec<_> = story.children.iter().collect();
    rows.sort_by_key(|(name, _)| (name.len(), (*name).clone()));
    for (name, child) in rows {
        let of =
            |member: &str| story.stats.get(name).map_or(0, |s| s[member].as_u64().unwrap_or(0));
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        table.row(&[
            name.clone(),
            child.clone_ns.map_or("-".to_owned(), time),
            format!("{:.1} s", child.checked_at),
            number(child.checks.last().map(|check| check.pages)),
            number(child.own),
            child.wrong().to_string(),
            child.foreign().to_string(),
            of("resident").to_string(),
            of("shared").to_string(),
            of("page_ins").to_string(),
            if child.logs == 0 { "-".to_owned() } else { format!("{} new", child.log.len()) },
            child.said.last().cloned().unwrap_or_default(),
        ]);
    }
    table
}

/// Judges the story.
pub fn judge(scale: &CloneScale, story: &CloneStory, reading: &CloneReading) -> DemoVerdict {
    let mut verdict = DemoVerdict::default();
    of_children(&mut verdict, scale, story);
    of_frames(&mut verdict, scale, story, reading);
    of_crash(&mut verdict, scale, story, reading);
    of_damage(&mut verdict, scale, story, reading);
    verdict
}

fn of_children(verdict: &mut DemoVerdict, scale: &CloneScale, story: &CloneStory) {
    let children = || story.children.iter();
    for (name, child) in children() {
        if let Some(wrong) = &child.first_wrong {
            verdict.claim(&format!("{name}: every page right"), wrong, child.bait.is_some());
        }
    }
    if let Some(failure) = &story.failure {
        verdict.claim("no unexpected end", failure, false);
    }
    let wrong: u64 = children().map(|(_, child)| child.wrong()).sum();
    let checked: u64 =
        children().flat_map(|(_, child)| &child.checks).map(|check| check.pages).sum();
    let all_checked = children().all(|(name, child)| {
        let is_first = *name == CloneScale::name(1);
        let filled = child.checks.iter().all(|check| Some(check.pages) == story.filled);
        filled && child.has_checked(if is_first { 1 } else { 2 })
    });
    let text = format!("{checked} checks of a page, {wrong} wrong");
    verdict.claim("pages in the children", text, wrong == 0 && all_checked);
    let foreign: u64 = children().map(|(_, child)| child.foreign()).sum();
    verdict.claim("pages with the key of another child", foreign, foreign == 0);
    let own = scale.own_pages();
    let least = children().filter_map(|(_, child)| child.own).min().unwrap_or(0);
    verdict.claim("pages that each child overwrites", format!("{least} of {own}"), least >= own);
    let done = children().filter(|(_, child)| child.commands > 0).count();
    let text = format!("{done} of {}", story.children.len());
    verdict.claim("children that ran a command", text, done == story.children.len());
    let lines: Vec<_> = children().flat_map(|(_, child)| &child.log).collect();
    let text = lines.first().map_or("nothing".to_owned(), |line| (*line).clone());
    let is_shown = children().all(|(_, child)| child.logs > 0);
    verdict.claim("in the kernels' logs since", text, lines.is_empty() && is_shown);
}

fn of_frames(
    verdict: &mut DemoVerdict,
    scale: &CloneScale,
    story: &CloneStory,
    reading: &CloneReading,
) {
    let mib = |pages: u64| pages / 256;
    let pool_in_bases = scale.pool as f64 / scale.memory as f64;
    let promised = (scale.memory * scale.children) >> 20;
    verdict.facts_mut().add("promised", format!("{promised} MiB, a pool of {pool_in_bases} bases"));
    for (when, frames) in [("read", reading.read_only), ("written", reading.written)] {
        let used = frames.pool.saturating_sub(frames.free);
        let text = format!(
            "{} MiB = base {} + own {} + images {}; children show {} MiB of the base",
            mib(used),
            mib(frames.base),
            mib(frames.own),
            mib(frames.image),
            mib(frames.shown)
        );
        // Pages in flight belong to none of the three.
        let is_counted = used.abs_diff(frames.accounted()) <= frames.pool / 100;
        verdict.claim(&format!("frames in use, all have {when}"), text, is_counted && used > 0);
    }
    // Pages of the base that all children have read have one frame.
    let shown = reading.read_only;
    let copies = shown.shown as f64 / shown.base.max(1) as f64;
    let filled = story.filled.unwrap_or(u64::MAX);
    let is_one = shown.base >= filled / 2 && shown.base <= scale.memory / 4096;
    let is_shared = copies * 2.0 >= scale.children as f64;
    let text = format!("{copies:.1} children see each frame of the base");
    verdict.claim("one copy of what is shared", text, is_one && is_shared);
    if let Some(blocks) = reading.blocks {
        let text = format!("{} right, {} wrong", blocks.right, blocks.wrong);
        let holds = blocks.wrong == 0 && blocks.missing == 0 && blocks.header_current;
        verdict.claim("the base's sealed checksums", text, holds);
    }
    if let Some(keys) = reading.keys {
        let text = format!("{} own, {} of another child", keys.own, keys.foreign);
        verdict.claim("keys in the children's spaces", text, keys.own > 0 && keys.foreign == 0);
    }
}

fn of_crash(
    verdict: &mut DemoVerdict,
    scale: &CloneScale,
    story: &CloneStory,
    reading: &CloneReading,
) {
    if story.dumps.is_empty() {
        return;
    }
    if let Some(refusal) = &reading.refusal {
        verdict.claim("the base is not given back", refusal, refusal.contains("base of others"));
    }
    if let Some(dump) = reading.dump {
        let text = format!("{} right, {} wrong, {} missing", dump.right, dump.wrong, dump.missing);
        let holds = dump.wrong == 0 && dump.missing == 0 && dump.header_current;
        verdict.claim("blocks of the child's dump", text, holds);
    }
    let Some(drgn) = &reading.drgn else { return };
    let keys: Vec<u64> =
        drgn["keys"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let mut wanted = [0x5eed, CloneScale::key(1, 1)];
    wanted.sort_unstable();
    let text = format!(
        "{} tasks, {} panicked; {} pages, {} wrong",
        drgn["tasks"], drgn["panicked"], drgn["pages"], drgn["wrong"]
    );
    let holds = drgn["pages"].as_u64() == story.filled && drgn["wrong"] == 0 && keys == wanted;
    verdict.claim("drgn reads the child's dump", text, holds && scale.children > 0);
}

fn of_damage(
    verdict: &mut DemoVerdict,
    scale: &CloneScale,
    story: &CloneStory,
    reading: &CloneReading,
) {
    if reading.damaged == 0 {
        return;
    }
    let last = CloneScale::name(scale.children);
    let stopped = story.crashes.iter().find(|(who, ..)| *who == last);
    let seen = story.children.get(&last).and_then(|child| child.bait);
    let text = match (stopped, seen) {
        (Some((_, reason, _)), _) => format!("{last} is stopped: {reason}"),
        (None, Some(wrong)) => format!("{last} reads {wrong} wrong pages and goes on"),
        (None, None) => "nothing came of it".to_owned(),
    };
    let holds = stopped.is_some_and(|(_, reason, _)| reason == "page lost") && seen.is_none();
    verdict.claim("damaged blocks of the base", text, holds);
}
