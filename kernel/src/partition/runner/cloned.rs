//! The beginning of a clone's incarnation: the base's machine, and memory whose pages are all
//! inherited. Its space is made ready meanwhile, so no I/O lies before the first instruction.

use super::{HostCpu, Runner, StepOutcome};
use crate::arch::time;
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::host::Host;
use crate::log::history::HistoryKind;
use crate::mm::object::ObjectError;
use crate::partition::clones::CloneRestart;
use crate::partition::identity::new_generation;
use crate::partition::lifecycle::BackingState;
use crate::partition::resume::saved_machine;
use crate::pool::PoolTerms;
use crate::space::SpaceBase;
use alloc::format;

impl Runner {
    /// Returns whether the next incarnation begins from a base.
    pub(super) fn begins_from_base(&self) -> bool {
        let origin = self.shared.clone_of.as_ref();
        origin.is_some_and(|origin| self.incarnation == 0 || origin.restart == CloneRestart::Base)
    }

    /// Returns its base, as its space's record names it.
    pub(super) fn next_base(&self, host: &Host) -> Option<SpaceBase> {
        let origin = self.shared.clone_of.as_ref()?;
        host.bases.get(&origin.base).map(|base| base.sealed)
    }

    /// Returns the base that the present memory inherits from, likewise.
    pub(super) fn present_base(&self, host: &Host) -> Option<SpaceBase> {
        let of = self.object.as_ref()?.base()?;
        let origin = self.shared.clone_of.as_ref()?;
        let base = host.bases.get(&origin.base)?;
        (base.object.id() == of.id()).then_some(base.sealed)
    }

    /// Begins an incarnation from the base.
    pub(super) fn begin_clone(&mut self, host: &'static Host, on: &HostCpu<'_>) -> StepOutcome {
        let since_ns = time::now_ns();
        let origin = self.shared.clone_of.as_ref();
        let Some(base) = origin.and_then(|origin| host.bases.get(&origin.base)) else {
            return self.fail_clone(host, "its base is gone");
        };
        let fits = (&self.layout, self.shared.config.devices);
        let machine = match saved_machine(host, &base.notes, fits) {
            Ok(machine) => machine,
            Err(error) => return self.fail_clone(host, &format!("{error}")),
        };
        let object = match host.objects.create_child(&base.object) {
            Ok(object) => object,
            // Numbers and tables are freed when memory that is being taken apart or drained is
            // gone.
            Err(_) if !host.reaper.is_empty() || !host.tasks.is_empty() => {
                return StepOutcome::look_again();
            }
            Err(ObjectError::OutOfTables) => {
                return self.fail_clone(host, "no memory for another second-level table");
            }
            Err(ObjectError::Full) => return self.fail_clone(host, "too many memories"),
        };
        if host.pager.attach_on(object.clone(), None, PoolTerms::of_partition(self.id)).is_err() {
            let _ = host.reaper.reap(object);
            return self.fail_clone(host, "the base does not fit the partition");
        }
        self.incarnation += 1;
        self.record(HistoryKind::IncarnationStarted, 0, object.id().as_u16().into());
        self.doubled = Some(new_generation(host, self.shared.name()));
        self.put_back(host, on, object, machine);
        self.backing = BackingState::Awaited;
        self.look_for_store(host);
        report(&ConsoleEvent::Cloned {
            partition: self.shared.name(),
            incarnation: self.incarnation,
            base: &base.name,
            dump: base.sealed.dump,
            clone_ns: time::now_ns().saturating_sub(since_ns).as_u64(),
        });
        StepOutcome::Onward
    }

    /// Gives up, once no task works on the space any more.
    fn fail_clone(&mut self, host: &'static Host, message: &str) -> StepOutcome {
        match self.space {
            Some(space) if host.spaces.is_ready(space).is_none() => StepOutcome::look_again(),
            _ => self.fail(host, message),
        }
    }

    /// Gives a base's memory back when its space no longer holds it.
    pub(super) fn unload_base(&self, host: &'static Host) {
        if let Some(base) = host.bases.take(self.shared.name()) {
            let _ = host.reaper.reap(base.object.clone());
        }
    }
}
