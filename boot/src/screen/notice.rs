//! Events as lines for people: what happened, in which partition, and which command helps.

use crate::events::Event;
use crate::size;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Seconds between two lines about one drain.
const DRAIN_INTERVAL: f64 = 10.0;
/// Events that people need not see, and answers to commands.
const SILENT: &[&str] = &[
    "boot",
    "disk",
    "space",
    "start",
    "entered",
    "guest",
    "stats",
    "pool",
    "bench",
    "self_test",
    "reply",
    "output",
    "console",
];

/// A line for the screen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The line, without its end.
    pub text: String,
    /// Whether the partition on the screen has ended, and with it a program that used the full
    /// screen.
    pub ends_screen: bool,
}

impl Notice {
    /// Makes a notice that concerns no partition's console.
    pub fn new(text: String) -> Self {
        Self { text, ends_screen: false }
    }
}

/// Turns events into notices; knows which image belongs to which disk.
#[derive(Debug, Default)]
pub struct NoticeWriter {
    images: Vec<PathBuf>,
    /// Image of each disk by its number in events; none for a memory-backed one.
    disks: BTreeMap<u64, Option<PathBuf>>,
    /// Time in seconds of the last notice about each partition's drain.
    drains: BTreeMap<String, f64>,
    /// The partition that has the console to itself, if there is one.
    raw: Option<String>,
    /// Whether the end was reported. It comes twice: as an event, and as the last bytes that the
    /// hypervisor writes at any end.
    has_ended: bool,
}

impl NoticeWriter {
    /// Makes a writer for these images of virtio disks, in order; `only` is the partition that has
    /// the console to itself.
    pub fn new(images: &[PathBuf], only: Option<String>) -> Self {
        Self { images: images.to_vec(), raw: only, ..Self::default() }
    }

    /// Takes an event; returns its line for the screen, if there is one.
    pub fn event(&mut self, event: &Event) -> Option<Notice> {
        self.learn(event);
        let partition = text(event, "partition");
        let told = self.told(event)?;
        if event.name() == "end" && std::mem::replace(&mut self.has_ended, true) {
            return None;
        }
        let subject = if partition.is_empty() { told } else { format!("{partition}: {told}") };
        let seconds = number(event, "t") as f64 / 1e9;
        let ended =
            matches!(event.name(), "crash" | "stopped") && self.raw.as_deref() == Some(partition);
        Some(Notice {
            text: format!("{seconds:.1} s  {subject}"),
            ends_screen: ended || event.name() == "end",
        })
    }

    fn learn(&mut self, event: &Event) {
        match event.name() {
            "disk" => {
                let place = text(event, "serial")
                    .strip_prefix("disk")
                    .and_then(|n| n.parse::<usize>().ok());
                let image = place
                    .filter(|_| event.0["base"].is_null())
                    .and_then(|n| self.images.get(n))
                    .cloned();
                self.disks.insert(number(event, "index"), image);
            }
            "console" => {
                self.raw =
                    (text(event, "mode") == "raw").then(|| text(event, "partition").to_owned())
            }
            _ => {}
        }
    }

    fn told(&mut self, event: &Event) -> Option<String> {
        let number = |member| number(event, member);
        Some(match event.name() {
            name if SILENT.contains(&name) => return None,
            "crash" => crashed(event),
            "restart" => format!(
                "restarts as incarnation {}{}",
                number("incarnation"),
                to_go(number("drain_remaining"))
            ),
            "restart_limit" => limited(event),
            "drain" => return self.drain(event),
            "dump_complete" => {
                let written = size::readable(number("bytes_written"));
                format!(
                    "the dump of incarnation {} is complete, {written} written: {}",
                    number("incarnation"),
                    self.opener(event)
                )
            }
            "dump_failed" => {
                let (message, opener) = (text(event, "message"), self.opener(event));
                format!(
                    "the dump of incarnation {} failed ({message}); the written part is a partial \
                     dump: {opener}",
                    number("incarnation")
                )
            }
            "dump_skipped" => skipped(event),
            "dump_dropped" => format!(
                "the dump {} of incarnation {} on {} is dropped for the newer one {}",
                text(event, "dump"),
                number("incarnation"),
                self.place(event),
                text(event, "newer")
            ),
            "released" => format!(
                "{} is free again, incarnation {} was there",
                self.place(event),
                number("incarnation")
            ),
            "waiting" => format!("waits for {}", text(event, "what")),
            "watching" => format!(
                "{} is claimed by node {}: watched before it is used",
                self.place(event),
                text(event, "node")
            ),
            "stopping" => format!(
                "incarnation {} is asked to end, and has {} s for it",
                number("incarnation"),
                number("timeout_ns") as f64 / 1e9
            ),
            "stopped" => stopped(event),
            "error" => format!("error: {}: {}", text(event, "place"), text(event, "message")),
            "panic" => format!("the hypervisor panicked: {}", text(event, "message")),
            "lost" => {
                format!("{} events were lost: the hypervisor had no room for them", number("lines"))
            }
            "end" if number("status") == 0 => "nothing runs any more: the machine ends".to_owned(),
            "end" => "the hypervisor ends with a failure".to_owned(),
            name => other(name, event),
        })
    }

    /// Returns the notice of a drain: at its first step, then at most every ten seconds.
    fn drain(&mut self, event: &Event) -> Option<String> {
        let seconds = number(event, "t") as f64 / 1e9;
        let partition = text(event, "partition").to_owned();
        let is_due = self.drains.get(&partition).is_none_or(|at| seconds - at >= DRAIN_INTERVAL);
        if !is_due {
            return None;
        }
        self.drains.insert(partition, seconds);
        Some(format!(
            "the dump of incarnation {} is being written{}",
            number(event, "incarnation"),
            to_go(number(event, "remaining"))
        ))
    }

    /// Names the space of an event by its image.
    fn place(&self, event: &Event) -> String {
        let (disk, space) = (number(event, "disk"), number(event, "space"));
        let disk = match self.disks.get(&disk) {
            Some(Some(image)) => image.display().to_string(),
            _ => format!("memory-backed disk {disk}"),
        };
        if space == 0 { disk } else { format!("space {space} of {disk}") }
    }

    /// Returns the command that opens the dump in the space of an event.
    fn opener(&self, event: &Event) -> String {
        let Some(Some(image)) = self.disks.get(&number(event, "disk")) else {
            return format!("{}, gone when the machine ends", self.place(event));
        };
        let image = quoted(image);
        match number(event, "space") {
            0 => format!("`crash vmlinux {image}`"),
            space => format!(
                "when the machine is off, `tidepool dump select {image} {space} && crash vmlinux \
                 {image}`"
            ),
        }
    }
}

fn text<'e>(event: &'e Event, member: &str) -> &'e str {
    event.0[member].as_str().unwrap_or("")
}

fn number(event: &Event, member: &str) -> u64 {
    event.0[member].as_u64().unwrap_or(0)
}

fn to_go(pages: u64) -> String {
    if pages == 0 { String::new() } else { format!(", {pages} pages of its dump to go") }
}

fn crashed(event: &Event) -> String {
    let detail = match number(event, "detail") {
        0 => String::new(),
        detail => format!(" {detail:#x}"),
    };
    let (reason, resident, paged) =
        (text(event, "reason"), number(event, "resident"), number(event, "paged"));
    let incarnation = number(event, "incarnation");
    let words = match text(event, "text") {
        "" => String::new(),
        words if words == reason => String::new(),
        words => format!(", “{words}”"),
    };
    format!(
        "incarnation {incarnation} crashed ({reason}{detail}){words}: {resident} pages in memory, \
         {paged} on disk"
    )
}

fn skipped(event: &Event) -> String {
    let (incarnation, kept, bound) =
        (number(event, "incarnation"), number(event, "kept"), number(event, "bound"));
    format!(
        "the crash of incarnation {incarnation} leaves no dump: {kept} are kept, and `dumps` \
         allows {bound}"
    )
}

fn limited(event: &Event) -> String {
    let (restarts, seconds) = (number(event, "restarts"), number(event, "time_ns") as f64 / 1e9);
    format!(
        "has reached its `restart_limit` of {restarts} restarts within {seconds} s: it stops now"
    )
}

fn stopped(event: &Event) -> String {
    let incarnation = number(event, "incarnation");
    match (text(event, "how"), number(event, "code")) {
        ("reset", _) => format!("incarnation {incarnation} was reset and starts again"),
        (how, 0) => format!("incarnation {incarnation} stopped for good ({how})"),
        (how, code) => {
            format!("incarnation {incarnation} stopped for good ({how}, code {code:#x})")
        }
    }
}

/// Returns the line of an unknown event: its name and its members.
fn other(name: &str, event: &Event) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let members = event.0.as_object().into_iter().flatten();
    let members = members.filter(|(key, _)| !["t", "event", "partition"].contains(&key.as_str()));
    let members: Vec<_> =
        members.map(|(key, value)| format!("{} {}", key.replace('_', " "), shown(value))).collect();
    format!("{}: {}", name.replace('_', " "), members.join(", "))
}

/// Quotes a path for a shell where it needs that.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:=@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn writer() -> NoticeWriter {
        let mut writer =
            NoticeWriter::new(&["a.img".into(), "my b.img".into()], Some("web".into()));
        for (index, serial, base) in [(0, "disk1", None), (1, "disk0", None), (2, "", Some(4096))] {
            let disk = json!({"event": "disk", "index": index, "serial": serial, "base": base});
            assert_eq!(writer.event(&Event(disk)), None);
        }
        writer
    }

    fn told(event: Value) -> String {
        writer().event(&Event(event)).map(|notice| notice.text).unwrap_or_default()
    }

    fn complete(disk: u64, space: u64) -> Value {
        json!({
            "t": 1_500_000_000u64, "event": "dump_complete", "partition": "web", "incarnation": 3,
            "disk": disk, "space": space, "bytes_written": 8192
        })
    }

    #[test]
    fn a_dump_is_told_with_the_command_that_opens_it() {
        let head = "1.5 s  web: the dump of incarnation 3 is complete, 8 KiB written: ";
        assert_eq!(told(complete(1, 0)), format!("{head}`crash vmlinux a.img`"));
        assert_eq!(told(complete(0, 0)), format!("{head}`crash vmlinux 'my b.img'`"));
        let select =
            "when the machine is off, `tidepool dump select a.img 2 && crash vmlinux a.img`";
        assert_eq!(told(complete(1, 2)), format!("{head}{select}"));
        assert_eq!(
            told(complete(2, 0)),
            format!("{head}memory-backed disk 2, gone when the machine ends")
        );
    }

    #[test]
    fn a_crash_is_told_with_its_reason_and_ends_the_full_screen_of_its_own_console_only() {
        let crash = |partition: &str| {
            json!({
                "t": 0, "event": "crash", "partition": partition, "incarnation": 1,
                "reason": "page lost", "detail": 4096, "resident": 5, "paged": 7
            })
        };
        let mut writer = writer();
        let mut own = crash("web");
        own["text"] = "Kernel panic - not syncing: x".into();
        let told = writer.event(&Event(own)).unwrap().text;
        assert!(
            told.contains("crashed (page lost 0x1000), “Kernel panic - not syncing: x”: 5 pages"),
            "{told}"
        );
        let notice = writer.event(&Event(crash("web"))).unwrap();
        assert_eq!(
            notice.text,
            "0.0 s  web: incarnation 1 crashed (page lost 0x1000): 5 pages in memory, 7 on disk"
        );
        assert!(notice.ends_screen && !writer.event(&Event(crash("db"))).unwrap().ends_screen);
    }

    #[test]
    fn a_drain_is_told_at_first_and_then_every_ten_seconds() {
        let mut writer = writer();
        let mut at = |seconds: u64| {
            let drain = json!({
                "t": seconds * 1_000_000_000, "event": "drain", "partition": "web",
                "incarnation": 1, "remaining": 9
            });
            writer.event(&Event(drain)).is_some()
        };
        assert_eq!([1, 2, 10, 11, 12].map(&mut at), [true, false, false, true, false]);
    }

    #[test]
    fn what_went_wrong_is_told() {
        let error =
            json!({"t": 0, "event": "error", "place": "web", "message": "kernel: too large"});
        assert_eq!(told(error), "0.0 s  error: web: kernel: too large");
    }

    #[test]
    fn a_guest_that_is_asked_to_end_is_told_with_its_time() {
        let event = json!({
            "t": 0, "event": "stopping", "partition": "web", "incarnation": 4,
            "timeout_ns": 1_500_000_000u64
        });
        assert_eq!(told(event), "0.0 s  web: incarnation 4 is asked to end, and has 1.5 s for it");
        let event = json!({
            "t": 0, "event": "stopped", "partition": "web", "incarnation": 4,
            "how": "reset while stopping", "code": 0
        });
        let text = "0.0 s  web: incarnation 4 stopped for good (reset while stopping)";
        assert_eq!(told(event), text);
    }

    #[test]
    fn a_partition_that_stops_at_its_limit_is_told_with_the_key() {
        let event = json!({
            "t": 0, "event": "restart_limit", "partition": "web", "incarnation": 4, "restarts": 3,
            "time_ns": 60_000_000_000u64
        });
        let text =
            "0.0 s  web: has reached its `restart_limit` of 3 restarts within 60 s: it stops now";
        assert_eq!(told(event), text);
    }

    #[test]
    fn a_dump_that_is_skipped_is_told_with_the_key() {
        let event = json!({
            "t": 0, "event": "dump_skipped", "partition": "web", "incarnation": 4, "kept": 2,
            "bound": 2
        });
        let text = "0.0 s  web: the crash of incarnation 4 leaves no dump: 2 are kept, and \
                    `dumps` allows 2";
        assert_eq!(told(event), text);
    }

    #[test]
    fn a_dump_that_is_dropped_is_named_with_the_newer_one() {
        let event = json!({
            "t": 0, "event": "dump_dropped", "partition": "web", "incarnation": 1, "dump": "aa",
            "newer": "bb", "disk": 1, "space": 0
        });
        assert_eq!(
            told(event),
            "0.0 s  web: the dump aa of incarnation 1 on a.img is dropped for the newer one bb"
        );
    }

    #[test]
    fn an_event_of_a_later_version_is_told_by_its_members() {
        let event = json!({
            "t": 0, "event": "page_moved", "partition": "web", "incarnation": 2, "reason": "bound"
        });
        assert_eq!(told(event), "0.0 s  web: page moved: incarnation 2, reason bound");
    }

    #[test]
    fn the_end_is_told_once() {
        let mut writer = writer();
        let end = Event(json!({"t": 0, "event": "end", "status": 0}));
        assert_eq!(writer.event(&end).map(|notice| notice.ends_screen), Some(true));
        assert_eq!(writer.event(&Event(json!({"event": "end", "status": 0}))), None);
    }

    #[test]
    fn answers_to_commands_are_nothing_for_the_screen() {
        for name in SILENT {
            assert_eq!(told(json!({"t": 0, "event": name})), "", "{name}");
        }
    }
}
