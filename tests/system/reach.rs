//! The ways in which people and programs reach a node: the screen, the keyboard, the sockets, the
//! example harness.

use crate::interrupt::AS_TIDEPOOL;
use anyhow::{Context, Result, bail, ensure};
use boot::bed::Bed;
use boot::bounded;
use boot::setup::SetupJob;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::{Case, test_kernel};

const LIMIT: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(10);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "the_example_harness_crashes_a_partition_and_checks_its_dump",
        beds: &[Bed::Qemu],
        needs: &[SetupJob::Readers],
        run: harness,
    },
    Case {
        name: "keys_belong_to_the_guest_and_the_screen_tells_of_a_crash",
        beds: &[Bed::Qemu],
        needs: &[],
        run: screen,
    },
    Case {
        name: "what_the_emulator_said_is_part_of_the_error",
        beds: &[Bed::Qemu, Bed::Bochs],
        needs: &[],
        run: wrong_model,
    },
];

/// A folder with a configuration of one partition that echoes its input.
struct EchoFolder(TempDir);

impl EchoFolder {
    fn new(device: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kernel = test_kernel("echo")?;
        let text = format!(
            "[pool]\nmemory = \"8 MiB\"\n{device}[[partition]]\nname = \"e\"\nmemory = \"4 \
             MiB\"\nkernel = \"{}\"\ncmdline = \"name=7\"\nrestart = \"immediate\"\n",
            kernel.display()
        );
        fs::write(folder.path().join("echo.toml"), text)?;
        Ok(Self(folder))
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("echo.toml")
    }
}

/// Two image files: one for the next incarnation, one for the dump.
const IMAGES: &str = "[[paging_device]]\nimage = \"a.img\"\nsize = \"6 \
                      MiB\"\n[[paging_device]]\nimage = \"b.img\"\nsize = \"6 MiB\"\n";
const MEMORY: &str = "[[paging_device]]\nmemory = \"6 MiB\"\n";

/// A little more time than the example's own limit.
const HARNESS: Duration = Duration::from_secs(660);

fn harness(_: Bed) -> Result<()> {
    let folder = EchoFolder::new(IMAGES)?;
    let script = boot::paths::workspace().join("examples/harness.py");
    let mut command = Command::new("python3");
    command
        .arg(&script)
        .arg(folder.config())
        .args(["e", "#7> "])
        .arg(std::env::current_exe()?)
        .arg(AS_TIDEPOOL);
    let output = bounded::output(&mut command, HARNESS).context("Python 3 runs the example")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.success() && said.contains("e: crashed (operator)"),
        "{}: {said}",
        output.status
    );
    Ok(())
}

fn screen(_: Bed) -> Result<()> {
    let folder = EchoFolder::new(IMAGES)?;
    let mut terminal = Terminal::start(&folder.config())?;
    terminal.wait_for("#7> ")?;
    // Interrupt, quit, stop, output off and on: the kernel receives and repeats them unchanged.
    terminal.keys(b"\x03\x1c\x1a\x13\x11\r")?;
    terminal.wait_for("heard \x03\x1c\x1a\x13\x11\r\n")?;
    // The guest crashes while a line is half typed.
    terminal.keys(b"half")?;
    terminal.wait_for("#7> half")?;
    terminal.keys(b"\x1dcrx\x1b[24;80R\x7fash e\r")?;
    terminal.wait_for("e: incarnation 1 crashed (operator)")?;
    let image = folder.0.path().join("a.img");
    terminal.wait_for(&format!("`crash vmlinux {}`", image.display()))?;
    // After a stop and a continuation the terminal is in console mode again.
    terminal.signal("TSTP")?;
    terminal.wait_until("stopped", |terminal| terminal.state() == Some('T'))?;
    ensure!(
        terminal.modes()?.contains(" icanon"),
        "the terminal is put back: {}",
        terminal.modes()?
    );
    terminal.go_on()?;
    terminal.wait_until("a console again", |terminal| {
        terminal.modes().is_ok_and(|modes| modes.contains("-icanon"))
    })?;
    terminal.keys(b"quit\r")?;
    terminal.wait_for("the machine ends")?;
    let status = bounded::finish(&mut terminal.child, LIMIT)?;
    ensure!(status.success(), "{status}: {}", terminal.text());
    ensure!(
        !terminal.text().contains("transcript"),
        "an end in order is no failure: {}",
        terminal.text()
    );
    Ok(())
}

fn wrong_model(bed: Bed) -> Result<()> {
    let folder = EchoFolder::new(MEMORY)?;
    let config = folder.config();
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("[machine]\ncpu = \"nosuchcpu\"\n{text}"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([AS_TIDEPOOL, "boot", "--bed", bed.name(), "--no-install"]).arg(&config);
    let output = bounded::output(&mut command, LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = if bed == Bed::Bochs { "cpu directive malformed" } else { "nosuchcpu" };
    ensure!(output.status.code() == Some(1) && said.contains(words), "{}: {said}", output.status);
    Ok(())
}

/// The command on a pseudo-terminal, created by `script` of util-linux.
struct Terminal {
    child: Child,
    heard: Arc<Mutex<String>>,
    /// Process number of the command itself, and its terminal.
    command: u32,
    device: PathBuf,
}

impl Terminal {
    fn start(config: &Path) -> Result<Self> {
        let program = std::env::current_exe()?;
        let line = format!(
            "exec {} {AS_TIDEPOOL} boot --bed qemu --no-install {}",
            program.display(),
            config.display()
        );
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"])
            .env("SHELL", "/bin/sh");
        let mut child = script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("script of util-linux")?;
        let mut output = child.stdout.take().context("the output is piped")?;
        let heard = Arc::new(Mutex::new(String::new()));
        let theirs = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                theirs
                    .lock()
                    .expect("no holder panics")
                    .push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        let mut terminal = Self { child, heard, command: 0, device: PathBuf::new() };
        terminal
            .wait_until("the command", |terminal| first_child(terminal.child.id()).is_some())?;
        terminal.command = first_child(terminal.child.id()).context("the command runs")?;
        terminal.wait_for("#7> ")?;
        terminal.device = fs::read_link(format!("/proc/{}/fd/0", terminal.command))?;
        Ok(terminal)
    }

    fn text(&self) -> String {
        self.heard.lock().expect("no holder panics").clone()
    }

    fn wait_for(&mut self, text: &str) -> Result<()> {
        self.wait_until(text, |terminal| terminal.text().contains(text))
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !holds(self) {
            if Instant::now() >= deadline {
                bail!("{what:?} did not come within {} s: {}", LIMIT.as_secs(), self.text());
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn keys(&mut self, keys: &[u8]) -> Result<()> {
        let input = self.child.stdin.as_mut().context("the input is piped")?;
        input.write_all(keys)?;
        Ok(input.flush()?)
    }

    fn signal(&self, name: &str) -> Result<()> {
        let sent =
            Command::new("kill").arg(format!("-{name}")).arg(self.command.to_string()).status()?;
        ensure!(sent.success(), "no signal {name}");
        Ok(())
    }

    /// Continues the command; `script` stops with its command.
    fn go_on(&self) -> Result<()> {
        self.signal("CONT")?;
        ensure!(
            Command::new("kill").arg("-CONT").arg(self.child.id().to_string()).status()?.success(),
            "script goes on"
        );
        Ok(())
    }

    /// Returns the state letter of `proc(5)`.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.command)).ok()?;
        stat.rsplit(')').next()?.trim_start().chars().next()
    }

    fn modes(&self) -> Result<String> {
        let output =
            Command::new("stty").arg("-a").stdin(fs::File::open(&self.device)?).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_child(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().find_map(|child| child.parse().ok())
}
