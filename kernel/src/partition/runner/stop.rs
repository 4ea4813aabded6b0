//! A stop in order: the guest's power button, and the time that the guest has to end.
//!
//! ```text
//!             stop: button pressed            power off, halt, reset
//!   running ───────────────────────> shutting down ────────────────> stopped
//!                                     │    ^  │ crash
//!                                     │    │  └───> dump ───> stopped
//!                                     │    └ another stop: pressed again, the time begins anew
//!                                     └ time-out, kill ──────────> stopped hard
//! ```
//!
//! The time is the node's and no guest's: a guest that waits for pages, or for a CPU, ends within
//! it as well.

use super::{HostCpu, Runner, StepOutcome};
use crate::arch::time;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::Host;
use crate::partition::duties::RunnerDuty;
use crate::partition::ending::HARD_STOP;
use crate::partition::lifecycle::{Lifecycle, LifecycleView};

impl Runner {
    /// Presses the power button of a running guest. A partition whose guest does not run has
    /// nothing to end in order, and is stopped at once.
    pub(super) fn shut_down(&mut self, host: &'static Host) -> Option<StepOutcome> {
        if !matches!(self.state, Lifecycle::Running(_)) {
            return Some(self.stop(host, "operator", 0));
        }
        let timeout = self.shared.shutdown_timeout();
        self.duties.set_stop(Some(time::now_ns().saturating_add(timeout)));
        self.machine.platform.press_power_button();
        self.shared.publish(LifecycleView::ShuttingDown);
        report(&ConsoleEvent::Stopping {
            partition: self.shared.name(),
            incarnation: self.incarnation,
            timeout_ns: timeout.as_u64(),
        });
        None
    }

    /// Carries out the duty that is due.
    #[cold]
    pub(super) fn carry_out_duty(
        &mut self,
        host: &'static Host,
        on: &HostCpu<'_>,
    ) -> Option<StepOutcome> {
        match self.duties.due(time::now_ns())? {
            RunnerDuty::EndPromise => {
                self.end_promise(host);
                None
            }
            RunnerDuty::LookAtPrecopy => {
                self.look_at_precopy(host, on);
                None
            }
            RunnerDuty::RenewLease => self.renew_lease(host),
            RunnerDuty::StopHard => Some(self.end(host, HARD_STOP)),
        }
    }
}
