//! Ctrl-C and its kin: whatever must not outlive the command is ended first.
//!
//! Emulators run in process groups of their own, so the terminal's Ctrl-C does not reach them; this module ends
//! them in order (they then write back what they hold of the disk images) and puts the terminal back.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::sync::{Mutex, Once};

type Cleanup = Box<dyn FnMut() + Send>;

struct Registry {
    next: u64,
    cleanups: BTreeMap<u64, Cleanup>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, cleanups: BTreeMap::new() });

/// Something to do before an interrupted command ends; dropping it takes it back.
pub struct OnInterrupt(u64);

impl OnInterrupt {
    /// Registers `cleanup`; the latest runs first.
    pub fn new(cleanup: impl FnMut() + Send + 'static) -> Self {
        let mut registry = registry();
        let id = registry.next;
        registry.next += 1;
        registry.cleanups.insert(id, Box::new(cleanup));
        Self(id)
    }
}

impl Drop for OnInterrupt {
    fn drop(&mut self) {
        registry().cleanups.remove(&self.0);
    }
}

fn registry() -> std::sync::MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Takes over SIGINT, SIGTERM and SIGHUP for the rest of the process.
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
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // The lock stays held: no new emulator registers itself while the old ones are ended.
            let mut registry = registry();
            for cleanup in registry.cleanups.values_mut().rev() {
                cleanup();
            }
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
