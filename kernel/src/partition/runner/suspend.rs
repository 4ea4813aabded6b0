//! Suspension and resume, as far as the vCPU and the state of the partition are concerned.

use super::{HostCpu, LOOK_NS, Runner, StepOutcome, WaitEvent};
use crate::arch::{instr, time};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::crash::record::CrashCause;
use crate::crash::suspend::precopy::{self, FEW_PAGES};
use crate::crash::suspend::{self, SuspensionEnd, SuspensionOrder, SuspensionProgress};
use crate::host::Host;
use crate::log::history::HistoryKind;
use crate::mm::object::MemoryObject;
use crate::partition::hang::HangWatch;
use crate::partition::last_words::PanicGrace;
use crate::partition::lifecycle::{AfterTeardown, BackingState, Lifecycle, ParkReason};
use crate::partition::resume::{self, ResumeProgress, ResumedPartition};
use crate::partition::saved::{GuestActivity, SavedMachine};
use crate::partition::shared::MoveMark;
use crate::partition::stall::StallWatch;
use crate::pool::PoolTerms;
use crate::space::CrashReason;
use crate::storage::spaces::{SpaceLocation, Suspension};
use crate::time::Ns;
use alloc::sync::Arc;
use arrayvec::ArrayString;

impl Runner {
    /// Begins to suspend the partition. Where much is dirty that is written first, while the guest
    /// runs; a second request stops the guest at once.
    pub(super) fn suspend(&mut self, host: &'static Host, on: &HostCpu<'_>) {
        let resident = self.object.as_ref().map_or(0, |object| object.counts().resident);
        if self.precopy.is_some() || resident <= FEW_PAGES || self.refuses_suspension().is_some() {
            return self.stop_and_suspend(host, on);
        }
        let Some(object) = self.object.clone() else { return };
        self.record(HistoryKind::PrecopyBegun, 0, resident.into());
        self.precopy = Some(precopy::begin(host, self.shared.name(), self.incarnation, object));
        self.look_again_at_precopy();
    }

    /// Looks whether the dirty pages are written, and goes on with the suspension then.
    pub(super) fn look_at_precopy(&mut self, host: &'static Host, on: &HostCpu<'_>) {
        match &self.precopy {
            // It has crashed or ends: that withdraws the suspension.
            Some(_) if !self.may_be_suspended() => self.end_precopy(),
            Some(precopy) if precopy.is_over() => self.stop_and_suspend(host, on),
            Some(_) => self.look_again_at_precopy(),
            None => self.duties.set_precopy_look(None),
        }
    }

    fn look_again_at_precopy(&mut self) {
        self.duties.set_precopy_look(Some(time::now_ns().saturating_add(LOOK_NS)));
    }

    /// Gives a pre-copy up; its task ends by itself.
    pub(super) fn end_precopy(&mut self) {
        self.precopy = None;
        self.duties.set_precopy_look(None);
    }

    fn may_be_suspended(&self) -> bool {
        matches!(self.state, Lifecycle::Running(_)) && !self.duties.is_stopping()
    }

    /// Stops the vCPU and suspends the partition; reports why not, if it cannot be suspended now.
    fn stop_and_suspend(&mut self, host: &'static Host, on: &HostCpu<'_>) {
        if let Err(message) = self.try_suspend(host, on) {
            let (partition, incarnation) = (self.shared.name(), self.incarnation);
            report(&ConsoleEvent::SuspendFailed { partition, incarnation, message });
            self.shared.note_stay();
        }
        self.end_precopy();
    }

    /// Returns why the partition cannot be suspended now.
    fn refuses_suspension(&self) -> Option<&'static str> {
        if !matches!(self.state, Lifecycle::Running(_)) || self.object.is_none() {
            return Some("it does not run");
        }
        if self.backing != BackingState::Settled || self.space.is_none() {
            return Some("it has no paging space yet: try again when it has one");
        }
        (self.last_words != PanicGrace::None).then_some("it has reported a panic")
    }

    fn try_suspend(&mut self, host: &'static Host, on: &HostCpu<'_>) -> Result<(), &'static str> {
        if let Some(message) = self.refuses_suspension() {
            return Err(message);
        }
        let (Lifecycle::Running(parked), Some(object), Some(space)) =
            (&self.state, &self.object, self.space)
        else {
            return Err("it does not run");
        };
        let (parked, object) = (*parked, object.clone());
        let activity = match parked {
            ParkReason::Halted => GuestActivity::Halts,
            _ => GuestActivity::Runs,
        };
        self.move_out(on);
        self.cut_off_bus();
        let saved = self.machine.save(host.backend, &self.fpu, activity, instr::rdtsc());
        let machine = saved.map_err(|_| {
            self.attach_bus(host);
            "the hypervisor's heap is too full"
        })?;
        let order = SuspensionOrder {
            id: self.id,
            name: ArrayString::from(self.shared.name()).unwrap_or_default(),
            incarnation: self.incarnation,
            at_ns: time::now_ns(),
            reason: match self.shared.move_mark() {
                MoveMark::None => CrashReason::SUSPENDED,
                MoveMark::Leaves | MoveMark::Stays => CrashReason::MOVED,
            },
            regs: self.machine.vcpu.saved_regs(),
            state: self.machine.vcpu.state(),
            machine,
            note_page: self.note_page(),
            precopied: self.precopy.take(),
        };
        self.end_promise(host);
        let job = suspend::begin(host, order, object, space);
        self.set_state(Lifecycle::Suspending { job, parked });
        Ok(())
    }

    /// Looks whether the suspension has ended.
    pub(super) fn look_at_suspension(
        &mut self,
        host: &'static Host,
        job: &Arc<SuspensionProgress>,
        parked: ParkReason,
    ) -> StepOutcome {
        match job.end() {
            SuspensionEnd::Pending => return StepOutcome::look_again(),
            SuspensionEnd::Suspended => {
                self.give_line_back(host);
                return self.retire(host, AfterTeardown::Suspend);
            }
            SuspensionEnd::GoesOn | SuspensionEnd::Unknown => self.shared.note_stay(),
        }
        if let Some(object) = &self.object {
            object.become_live();
            // A ticket of a page is of the time before: the guest repeats its access.
            let parked =
                if matches!(parked, ParkReason::Page(_)) { ParkReason::No } else { parked };
            self.halted_ns = time::now_ns();
            self.attach_bus(host);
            self.set_state(Lifecycle::Running(parked));
        }
        if job.end() == SuspensionEnd::Unknown {
            return self.crash(host, CrashCause::Unwritable(0));
        }
        StepOutcome::Again
    }

    /// Notes that the memory of a suspended partition is gone.
    pub(super) fn suspended(&mut self, host: &'static Host) -> StepOutcome {
        if let Some(space) = self.space.take() {
            host.spaces.end_reserve(self.shared.name());
            host.wake();
            self.set_state(Lifecycle::Suspended { space });
        }
        StepOutcome::Again
    }

    /// Waits while the partition is suspended; when its state was released it has stopped.
    pub(super) fn wait_suspended(&mut self, host: &'static Host) -> StepOutcome {
        let (Lifecycle::Suspended { space } | Lifecycle::Sealed { space }) = self.state else {
            return StepOutcome::Again;
        };
        if host.spaces.is_sealed(space) && matches!(self.state, Lifecycle::Suspended { .. }) {
            self.set_state(Lifecycle::Sealed { space });
        }
        if host.spaces.is_whole_machine(space) {
            return StepOutcome::Wait(WaitEvent::Anything, None);
        }
        self.unload_base(host);
        let (partition, incarnation) = (self.shared.name(), self.incarnation);
        let how = match self.shared.move_mark() {
            MoveMark::None => "released",
            MoveMark::Leaves | MoveMark::Stays => "moved",
        };
        report(&ConsoleEvent::Stopped { partition, incarnation, how, code: 0 });
        self.set_state(Lifecycle::Stopped);
        StepOutcome::Again
    }

    /// Looks for a suspended state of an earlier start; `None` if there is none.
    pub(super) fn find_suspension(&mut self, host: &'static Host) -> Option<StepOutcome> {
        if let Some(space) = host.spaces.base_of(self.shared.name()) {
            host.spaces.end_reserve(self.shared.name());
            self.set_state(Lifecycle::Sealed { space });
            return Some(StepOutcome::Again);
        }
        let state = match host.spaces.suspension_of(self.shared.name()) {
            Suspension::None => return None,
            Suspension::One(space) => Lifecycle::Suspended { space },
            Suspension::Several(names) => {
                let message = &alloc::format!("is suspended in several spaces: {names}");
                report(&ConsoleEvent::Error { place: self.shared.name(), message });
                Lifecycle::Stopped
            }
        };
        host.spaces.end_reserve(self.shared.name());
        self.set_state(state);
        Some(StepOutcome::Again)
    }

    /// Gives the space of a suspended partition back.
    pub(super) fn give_suspension_back(&mut self, host: &'static Host) {
        if let Lifecycle::Suspended { space } | Lifecycle::Sealed { space } = self.state {
            self.unload_base(host);
            host.spaces.release(space);
        }
    }

    /// Begins to resume the partition, or reports why it cannot.
    pub(super) fn resume(&mut self, host: &'static Host) {
        let space = match (&self.state, host.spaces.suspension_of(self.shared.name())) {
            (Lifecycle::Suspended { space }, _) => Some(*space),
            (_, Suspension::One(space)) => Some(space),
            (_, Suspension::None | Suspension::Several(_)) => None,
        };
        let Some(space) = space.filter(|space| host.spaces.begin_resume(*space)) else {
            let message = "its suspended state is gone";
            report(&ConsoleEvent::ResumeFailed { partition: self.shared.name(), message });
            return;
        };
        let terms = PoolTerms::of_partition(self.id);
        let fits = (self.layout, self.shared.config.devices);
        let job = resume::begin(host, self.shared.name(), fits, terms, space);
        self.set_state(Lifecycle::Resuming(job));
    }

    /// Looks whether the resume has ended.
    pub(super) fn look_at_resume(
        &mut self,
        host: &'static Host,
        on: &HostCpu<'_>,
        job: &Arc<ResumeProgress>,
    ) -> StepOutcome {
        let resumed = match job.take() {
            None => return StepOutcome::look_again(),
            Some(Ok(resumed)) => resumed,
            Some(Err(error)) => {
                let message = alloc::format!("{error}");
                let partition = self.shared.name();
                report(&ConsoleEvent::ResumeFailed { partition, message: &message });
                self.set_state(Lifecycle::Suspended { space: job.space });
                return StepOutcome::Again;
            }
        };
        self.announce_resume(host, job, &resumed);
        self.go_on(host, on, job, resumed);
        StepOutcome::Again
    }

    /// Puts the saved machine back, and lets the guest run.
    fn go_on(
        &mut self,
        host: &'static Host,
        on: &HostCpu<'_>,
        job: &ResumeProgress,
        resumed: ResumedPartition,
    ) {
        host.spaces.resume_reserve(self.shared.name());
        let ResumedPartition { object, machine, incarnation, .. } = resumed;
        (self.space, self.backing, self.incarnation) =
            (Some(job.space), BackingState::Settled, incarnation);
        self.record(HistoryKind::Resumed, 0, object.id().as_u16().into());
        self.put_back(host, on, object, machine);
    }

    /// Puts a saved machine on this memory, and lets the guest of this incarnation run.
    pub(super) fn put_back(
        &mut self,
        host: &'static Host,
        on: &HostCpu<'_>,
        object: Arc<MemoryObject>,
        machine: SavedMachine,
    ) {
        self.move_out(on);
        self.renew_tag(host);
        self.machine.vcpu.set_memory(object.root().base(), self.tag);
        let (fpu, activity) = self.machine.take_over(machine);
        self.fpu = fpu;
        self.shared.publish_incarnation(self.incarnation, object.id().as_u16());
        self.object = Some(object);
        self.last_words = PanicGrace::None;
        self.hang = self.shared.config.hang_timeout_ns.map(|ns| HangWatch::new(Ns::new(ns)));
        self.stall = StallWatch::new();
        self.watch_lease(host);
        self.attach_bus(host);
        (self.entered, self.was_away, self.halted_ns) = (false, true, time::now_ns());
        // A guest that has filled its console waits for room again.
        let parked = match activity {
            _ if !self.machine.platform.console_taken() => ParkReason::Console,
            GuestActivity::Halts => ParkReason::Halted,
            GuestActivity::Runs => ParkReason::No,
        };
        self.set_state(Lifecycle::Running(parked));
    }

    fn announce_resume(&self, host: &Host, job: &ResumeProgress, resumed: &ResumedPartition) {
        let SpaceLocation { disk, number, .. } = host.spaces.place(job.space);
        report(&ConsoleEvent::Resumed {
            partition: self.shared.name(),
            incarnation: resumed.incarnation,
            disk: disk as u8,
            space: number,
            paged: resumed.paged,
            resume_ns: time::now_ns().saturating_sub(job.since_ns).as_u64(),
            away_ns: host.unix_ns().saturating_sub(resumed.suspended_unix_ns),
        });
    }
}
