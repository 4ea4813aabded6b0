//! The terminal as a partition's console: every key goes to the guest as it is typed, including
//! Ctrl-C, Ctrl-Z and Ctrl-S. The only echo is the guest's own.
//!
//! `stty` changes the modes: it is installed everywhere and knows all terminals.

use crate::interrupt::{OnSignal, Signalled};
use std::io::IsTerminal;
use std::process::{Command, Stdio};

/// `raw` does not switch off the echo and the extended input characters (`iexten`).
const CONSOLE: [&str; 3] = ["raw", "-echo", "-iexten"];

/// The terminal in console mode. Dropping it restores the terminal; so do signals that end or stop
/// the command.
pub struct Terminal {
    before: String,
    _on_signals: [OnSignal; 3],
}

impl Terminal {
    /// Puts the terminal into console mode. Returns `None` where standard input is no terminal, or
    /// `stty` is missing.
    pub fn console() -> Option<Self> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let output = Command::new("stty").arg("-g").stdin(Stdio::inherit()).output().ok()?;
        let before = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        let restore = |when| {
            let before = before.clone();
            OnSignal::new(when, move || stty(&[&before]))
        };
        let again = OnSignal::new(Signalled::Continue, || stty(&CONSOLE));
        let on_signals = [restore(Signalled::End), restore(Signalled::Stop), again];
        restore_at_panic(before.clone());
        stty(&CONSOLE);
        Some(Self { before, _on_signals: on_signals })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        stty(&[&self.before]);
    }
}

/// Restores the terminal at a panic, which ends the process without dropping anything.
fn restore_at_panic(before: String) {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        stty(&[&before]);
        hook(info);
    }));
}

/// Runs `stty` if this process is in the foreground. In the background the system would stop it for
/// that, or it would change the shell's terminal.
fn stty(arguments: &[&str]) {
    if in_foreground() {
        // A terminal that no longer exists needs no restoring.
        let _ = Command::new("stty").args(arguments).stderr(Stdio::null()).status();
    }
}

/// Returns whether this process group is the terminal's foreground group. `proc(5)`,
/// `/proc/PID/stat`: the fields behind the name in parentheses are state, parent, process group,
/// session, terminal, and the terminal's foreground process group.
fn in_foreground() -> bool {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    matches!((fields.get(2), fields.get(5)), (Some(own), Some(foreground)) if own == foreground)
}
