//! The terminal while it is a partition's console: each key goes out at once, and what comes back is the only echo.
//!
//! Ctrl-C stays what it is, so that it ends the command. `stty` does the work: it is everywhere, and knows all terminals.

use crate::interrupt::OnInterrupt;
use std::io::IsTerminal;
use std::process::{Command, Stdio};

/// The terminal in console mode; dropping it puts it back, and so does an interrupt.
pub struct Terminal {
    before: String,
    _on_interrupt: OnInterrupt,
}

impl Terminal {
    /// Puts the terminal into console mode; `None` where standard input is none, or `stty` is missing.
    pub fn console() -> Option<Self> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let output = Command::new("stty").arg("-g").stdin(Stdio::inherit()).output().ok()?;
        let before = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        let theirs = before.clone();
        let on_interrupt = OnInterrupt::new(move || stty(&[&theirs]));
        stty(&["-icanon", "-echo", "-icrnl"]);
        Some(Self { before, _on_interrupt: on_interrupt })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        stty(&[&self.before]);
    }
}

fn stty(arguments: &[&str]) {
    // A terminal that is gone needs no restoring.
    let _ = Command::new("stty").args(arguments).status();
}
