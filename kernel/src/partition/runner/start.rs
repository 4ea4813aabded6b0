//! From nothing to a kernel in memory: a space, empty memory, devices after reset, the image
//! copied.

use super::{Runner, StepOutcome, VcpuResidence, WaitEvent};
use crate::addr::Gpa;
use crate::arch::{fpu, instr};
use crate::config::{DeviceSwitch, RestartPolicy};
use crate::console::event::ConsoleEvent;
use crate::console::report;
use crate::crash::record::CrashCause;
use crate::host::Host;
use crate::log::history::{self, HistoryKind};
use crate::mm::guest::GuestMemoryError;
use crate::mm::guest_bytes::GuestBytes;
use crate::partition::acpi::AcpiTables;
use crate::partition::command_line::{self, Added};
use crate::partition::devices::clock::GuestClock;
use crate::partition::devices::lapic::ApicMode;
use crate::partition::devices::map::GENERATION_ID;
use crate::partition::hang::HangWatch;
use crate::partition::identity::new_generation;
use crate::partition::last_words::PanicGrace;
use crate::partition::lengths::InsnLengthCache;
use crate::partition::lifecycle::{BackingState, Lifecycle, ParkReason};
use crate::partition::loaders::plan::{CopyContent, LoadCopy};
use crate::partition::loaders::{
    self, ImageSource, LoadError, LoadJob, LoadPlan, LoadProgress, LoadRequest,
};
use crate::partition::loading::{KernelLoading, LoadingState};
use crate::partition::stall::StallWatch;
use crate::pool::PoolTerms;
use crate::time::Ns;
use alloc::boxed::Box;
use alloc::format;

/// Bytes that the loader copies in one step.
const LOAD_BUDGET: usize = 256 << 10;

impl Runner {
    pub(super) fn find_space(&mut self, host: &'static Host) -> StepOutcome {
        if !self.needs_space {
            return self.begin(host);
        }
        // A partition that was suspended before this start of the hypervisor does not begin anew.
        if self.incarnation == 0
            && self.shared.clone_of.is_none()
            && let Some(next) = self.find_suspension(host)
        {
            return next;
        }
        let base = self.next_base(host).filter(|_| self.begins_from_base());
        if base.is_none() && self.begins_from_base() {
            return self.fail(host, "its base is gone");
        }
        match host.spaces.acquire_for(self.shared.name(), &self.layout, self.incarnation + 1, base)
        {
            Some(space) => {
                self.space = Some(space);
                if base.is_some() {
                    self.set_state(Lifecycle::Cloning);
                    return StepOutcome::Onward;
                }
                if self.shared.policy().restart == RestartPolicy::Immediate {
                    self.backing = BackingState::Awaited;
                    return self.begin(host);
                }
                self.set_state(Lifecycle::Activating);
                StepOutcome::Again
            }
            None => {
                if let Lifecycle::NeedsSpace { told: told @ false } = &mut self.state {
                    *told = true;
                    history::record_partition(
                        self.id,
                        HistoryKind::SpaceAwaited,
                        0,
                        [self.incarnation + 1, 0],
                    );
                    report(&ConsoleEvent::Waiting {
                        partition: self.shared.name(),
                        what: &host.spaces.awaited(self.shared.name()),
                    });
                }
                StepOutcome::Wait(WaitEvent::Anything, self.duties.next())
            }
        }
    }

    pub(super) fn activate(&mut self, host: &'static Host) -> StepOutcome {
        match self.space.and_then(|space| host.spaces.is_ready(space)) {
            None => StepOutcome::look_again(),
            Some(Ok(())) => self.begin(host),
            // The space's failure has been reported, and the space is out of use: look for another
            // one.
            Some(Err(_)) => {
                self.space = None;
                self.set_state(Lifecycle::NeedsSpace { told: false });
                StepOutcome::Again
            }
        }
    }

    /// Gives the memory its store once the space is ready. If the space fails, looks for another
    /// one.
    pub(super) fn look_for_store(&mut self, host: &'static Host) {
        let ready = match self.space {
            Some(space) => host.spaces.is_ready(space),
            // The memory of a retiring partition has nothing to lose any more.
            None if matches!(self.state, Lifecycle::Retiring { .. }) => Some(Ok(())),
            None => {
                let base = self.present_base(host);
                let name = self.shared.name();
                self.space = host.spaces.acquire_for(name, &self.layout, self.incarnation, base);
                None
            }
        };
        match ready {
            None => {}
            Some(Err(_)) => self.space = None,
            Some(Ok(())) => {
                self.backing = BackingState::Settled;
                self.watch_lease(host);
                let store = self.space.and_then(|space| host.spaces.store(space));
                if let (Some(object), Some(store)) = (&self.object, store)
                    && host.pager.give_store(object.id(), store).is_err()
                {
                    let message = "the paging space does not fit the partition";
                    report(&ConsoleEvent::Error { place: self.shared.name(), message });
                }
            }
        }
        self.tell_of_store(host);
    }

    /// Tells the pager whether the memory is going to have a store.
    fn tell_of_store(&self, host: &'static Host) {
        if let Some(object) = &self.object {
            host.pager.expect_store(
                object.id(),
                self.backing == BackingState::Awaited && self.space.is_some(),
            );
        }
    }

    /// Begins an incarnation: empty memory, and the images of its kernel.
    pub(super) fn begin(&mut self, host: &'static Host) -> StepOutcome {
        let wants_numbers = self.shared.config.devices.rng == DeviceSwitch::On;
        if wants_numbers && instr::random().is_none() {
            return self.fail(host, "rng: this machine's CPU has no random numbers");
        }
        let object = match host.objects.create(self.layout) {
            Ok(object) => object,
            // Tables are freed when memory that is being taken apart or drained is gone.
            Err(_) if !host.reaper.is_empty() || !host.tasks.is_empty() => {
                if !matches!(self.state, Lifecycle::NeedsTables(_)) {
                    self.record(HistoryKind::TablesAwaited, 0, 0);
                }
                self.set_state(Lifecycle::NeedsTables(self.backing));
                return StepOutcome::look_again();
            }
            Err(_) => return self.fail(host, "no memory for another second-level table"),
        };
        self.object = Some(object.clone());
        self.incarnation += 1;
        self.record(HistoryKind::IncarnationStarted, 0, object.id().as_u16().into());
        report(&ConsoleEvent::Start {
            partition: self.shared.name(),
            incarnation: self.incarnation,
        });
        let ready = self.space.filter(|space| host.spaces.is_ready(*space) == Some(Ok(())));
        let store = ready.and_then(|space| host.spaces.store(space));
        self.backing = if self.needs_space && store.is_none() {
            BackingState::Awaited
        } else {
            BackingState::Settled
        };
        if host.pager.attach_on(object.clone(), store, PoolTerms::of_partition(self.id)).is_err() {
            return self.fail(host, "the paging space does not fit the partition");
        }
        self.tell_of_store(host);
        self.shared.publish_incarnation(self.incarnation, object.id().as_u16());
        self.last_words = PanicGrace::None;
        self.entered = false;
        let loading = KernelLoading::begin(host, self.shared.stored);
        self.set_state(Lifecycle::Loading(Box::new(loading)));
        StepOutcome::Onward
    }

    /// Makes the plan to load the kernel, and resets the machine for it; asks for parts of the
    /// kernel that are not in memory.
    fn make_plan(&mut self, host: &'static Host) -> StepOutcome {
        let Lifecycle::Loading(loading) = &self.state else { return StepOutcome::Again };
        let plan = self.plan(host, loading.source(&host.archive));
        match plan {
            Ok(plan) => {
                self.reset_machine(host, plan.apic);
                if let Some(object) = &self.object {
                    self.machine.vcpu.set_memory(object.root().base(), self.tag);
                }
                let hang_ns = self.shared.config.hang_timeout_ns;
                self.hang = hang_ns.map(|ns| HangWatch::new(Ns::new(ns)));
                self.stall = StallWatch::new();
                if let Lifecycle::Loading(loading) = &mut self.state {
                    loading.job = Some(LoadJob::new(plan, &self.shared.config.kernel));
                }
                StepOutcome::Onward
            }
            Err(LoadError::Unread { offset, bytes }) => {
                if let Lifecycle::Loading(loading) = &mut self.state {
                    loading.read_for_plan(host, offset, bytes);
                }
                StepOutcome::look_again()
            }
            Err(error) => self.fail(host, &format!("{error}")),
        }
    }

    /// Resets everything but the vCPU's registers, and allocates a tag of its own for the new
    /// memory.
    fn reset_machine(&mut self, host: &'static Host, apic: ApicMode) {
        self.renew_tag(host);
        let clock = GuestClock {
            rate: self.machine.rate,
            start: instr::rdtsc(),
            unix_ns_at_start: host.unix_ns(),
        };
        self.machine.platform.restart(clock, apic);
        self.machine.msrs = self.machine.msrs.after_reset();
        self.machine.vcpu.set_tsc_offset(0);
        self.machine.lengths = InsnLengthCache::new();
    }

    /// Allocates another tag, for other memory.
    pub(super) fn renew_tag(&mut self, host: &Host) {
        let mut tags = host.tags.lock();
        tags.release(self.tag);
        self.tag = tags.allocate();
    }

    fn plan(&self, host: &Host, source: &dyn ImageSource) -> Result<LoadPlan, LoadError> {
        let added = Added { incarnation: self.incarnation, tsc_khz: self.machine.rate.khz() };
        let cmdline = command_line::with_added(&self.shared.config.cmdline, added);
        let acpi = AcpiTables::new(self.shared.config.devices.bus());
        let request = LoadRequest {
            kernel: &self.shared.config.kernel,
            cmdline: &cmdline,
            layout: &self.layout,
            acpi: &acpi,
        };
        let mut plan = loaders::plan(source, &request)?;
        plan.copies.push(LoadCopy {
            to: Gpa::new(GENERATION_ID),
            content: CopyContent::Made(new_generation(host, self.shared.name()).to_vec()),
        });
        Ok(plan)
    }

    pub(super) fn load(&mut self, host: &'static Host) -> StepOutcome {
        let (Lifecycle::Loading(loading), Some(object)) = (&mut self.state, &self.object) else {
            return StepOutcome::Again;
        };
        match loading.look() {
            LoadingState::Ready => {}
            LoadingState::Waits => return StepOutcome::look_again(),
            LoadingState::Failed(message) => return self.fail(host, &message),
        }
        let ticket = object.wait_ticket();
        let memory = GuestBytes { object, memory: host.memory, faulter: &host.pager };
        let stepped =
            loading.with_job(&host.archive, |job, source| job.step(source, &memory, LOAD_BUDGET));
        let Some(stepped) = stepped else { return self.make_plan(host) };
        match stepped {
            Ok(LoadProgress::More) => StepOutcome::Again,
            Ok(LoadProgress::Unread(role, offset)) => {
                loading.read_chunk(host, role, offset);
                StepOutcome::look_again()
            }
            Ok(LoadProgress::Done) => self.enter_kernel(host),
            Err(GuestMemoryError::NotResident(_)) if object.ready(ticket) => StepOutcome::Again,
            Err(GuestMemoryError::NotResident(_)) => {
                StepOutcome::Wait(WaitEvent::Page(object.clone(), ticket), self.next_duty())
            }
            Err(GuestMemoryError::Lost(gpa)) => {
                self.crash(host, CrashCause::PageLost(gpa.as_u64()))
            }
            Err(GuestMemoryError::Unwritable(gpa)) => {
                self.crash(host, CrashCause::Unwritable(gpa.as_u64()))
            }
            Err(GuestMemoryError::NotRam(gpa)) => self.fail(
                host,
                &format!("the loader wants to write at {:#x}, where no RAM is", gpa.as_u64()),
            ),
        }
    }

    /// Gives the vCPU the state in which its kernel starts.
    fn enter_kernel(&mut self, host: &'static Host) -> StepOutcome {
        if let Lifecycle::Loading(loading) = &self.state
            && let Some(job) = &loading.job
        {
            *self.machine.vcpu.regs_mut() = job.plan().regs;
            self.machine.vcpu.set_state(&job.plan().state);
        }
        self.reset_fpu();
        self.watch_lease(host);
        self.attach_bus(host);
        self.set_state(Lifecycle::Running(ParkReason::No));
        StepOutcome::Onward
    }

    fn reset_fpu(&mut self) {
        self.fpu = fpu::GuestFpu::new();
        if let VcpuResidence::Cpu(_) = self.residence {
            self.fpu.load();
        }
    }

    pub(super) fn fail(&mut self, host: &'static Host, message: &str) -> StepOutcome {
        report(&ConsoleEvent::Error { place: self.shared.name(), message });
        self.stop(host, "cannot start", 0)
    }
}
