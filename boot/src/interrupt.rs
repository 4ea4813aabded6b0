//! Signals: child processes are ended first, and the terminal is restored before the command stops.
//!
//! Emulators run in process groups of their own, so no signal of the terminal reaches them. This
//! module ends them in order, so that they write back their cached data of the disk images, and
//! restores the terminal.
//!
//! ```text
//!   SIGINT SIGTERM SIGHUP SIGQUIT ──> End actions, the latest first ──> exit 128 + signal
//!   SIGTSTP ──> Stop actions ──> the process stops
//!   SIGCONT ──> Continue actions
//! ```

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

/// The request that a signal makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signalled {
    /// To end.
    End,
    /// To stop until it is told to continue.
    Stop,
    /// To continue.
    Continue,
}

type SignalAction = Box<dyn FnMut() + Send>;

struct Registry {
    next: u64,
    actions: BTreeMap<u64, (Signalled, SignalAction)>,
}

impl Registry {
    fn run(&mut self, signalled: Signalled) {
        self.actions
            .values_mut()
            .rev()
            .filter(|(when, _)| *when == signalled)
            .for_each(|(_, action)| action());
    }
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, actions: BTreeMap::new() });
static ENDING: AtomicBool = AtomicBool::new(false);

/// An action to run at a signal; dropping it removes it.
pub struct OnSignal(u64);

impl OnSignal {
    /// Registers `action`; the latest action runs first.
    pub fn new(when: Signalled, action: impl FnMut() + Send + 'static) -> Self {
        let mut registry = registry();
        let id = registry.next;
        registry.next += 1;
        registry.actions.insert(id, (when, Box::new(action)));
        Self(id)
    }
}

impl Drop for OnSignal {
    fn drop(&mut self) {
        registry().actions.remove(&self.0);
    }
}

fn registry() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Blocks for ever if a signal is ending the command. The failures that this causes elsewhere are
/// then not reported.
pub fn yield_to_end() {
    while ENDING.load(Ordering::Acquire) {
        std::thread::park();
    }
}

/// Ends the command as Ctrl-C would.
pub fn end() {
    // Without a handler the raised signal ends the process directly, which is as intended.
    let _ = low_level::raise(SIGINT);
}

/// Installs the signal handlers for the rest of the process.
///
/// # Errors
/// Where the system refuses the handlers.
pub fn install() -> std::io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = start());
    result
}

fn start() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT])?;
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGTSTP => {
                    registry().run(Signalled::Stop);
                    let _ = low_level::emulate_default_handler(SIGTSTP);
                }
                SIGCONT => registry().run(Signalled::Continue),
                _ => end_by(signal),
            }
        }
    })?;
    Ok(())
}

fn end_by(signal: i32) {
    ENDING.store(true, Ordering::Release);
    // The lock stays held: no new emulator can register while the old ones are ended.
    let mut registry = registry();
    registry.run(Signalled::End);
    let name = low_level::signal_name(signal).unwrap_or("a signal");
    // Standard error may be gone with its terminal.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("tidepool: ended by {name}\n").as_bytes(),
    );
    std::process::exit(128 + signal);
}
