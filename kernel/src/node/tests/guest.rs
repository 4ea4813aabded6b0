//! A guest that writes pages, reads them back and checks them. It remembers the contents of each
//! incarnation at its crash.

use super::Dice;
use super::machine::SimMachine;
use crate::addr::{PAGE_SIZE, PageIndex};
use crate::crash::dumps::{self, DumpOrder, DumpProgress};
use crate::crash::record::{CrashCause, CrashRecord};
use crate::mm::layout::RamLayout;
use crate::mm::object::{MemoryObject, WaitTicket};
use crate::mm::phys::FrameMemory;
use crate::paging::{AccessOutcome, PageLossError};
use crate::pool::{AccountId, PoolTerms};
use crate::storage::spaces::SpaceId;
use crate::virt::{CpuState, PageAccess, Regs};
use std::collections::HashMap;
use std::sync::Arc;

/// Pages of a guest.
pub(super) const PAGES: u32 = 96;
/// Distance of the copies of a page's value: one at the start of each sector.
pub(super) const STEP: usize = 512;

/// Contents of the incarnations, by owner and incarnation: one value per page, 0 for zeros.
pub(super) type Truth = HashMap<(String, u64), Vec<u64>>;

pub(super) struct SimGuest {
    pub name: &'static str,
    account: u16,
    pub incarnation: u64,
    pub space: Option<SpaceId>,
    object: Option<Arc<MemoryObject>>,
    /// The pending access of its only vCPU, and the ticket that the access waits for.
    parked: Option<(PageIndex, PageAccess, WaitTicket)>,
    values: Vec<u64>,
    dice: Dice,
    /// Pages touched and found right.
    pub steps: u64,
    pub losses: Vec<PageLossError>,
}

/// Returns the page that holds `value`.
pub(super) fn page_of(value: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE as usize];
    page.chunks_mut(STEP).for_each(|sector| sector[..8].copy_from_slice(&value.to_le_bytes()));
    page
}

impl SimGuest {
    pub(super) fn new(name: &'static str, account: u16, seed: u64) -> Self {
        let dice = Dice::new(seed * 31 + u64::from(account));
        let (values, losses) = (vec![0; PAGES as usize], Vec::new());
        Self {
            name,
            account,
            incarnation: 0,
            space: None,
            object: None,
            parked: None,
            values,
            dice,
            steps: 0,
            losses,
        }
    }

    fn layout() -> RamLayout {
        RamLayout::new(u64::from(PAGES) * PAGE_SIZE).expect("some pages")
    }

    /// Returns whether it has memory.
    pub(super) fn runs(&self) -> bool {
        self.object.is_some()
    }

    /// Takes a step towards its next incarnation; returns whether the guest runs.
    pub(super) fn start(&mut self, machine: &SimMachine) -> bool {
        if self.runs() {
            return true;
        }
        let spaces = machine.node.host.spaces;
        let Some(space) = self.space else {
            self.space = spaces.acquire(self.name, &Self::layout(), self.incarnation + 1);
            return false;
        };
        match spaces.is_ready(space) {
            None => false,
            Some(Err(_)) => {
                self.space = None;
                false
            }
            Some(Ok(())) => self.begin(machine, space),
        }
    }

    fn begin(&mut self, machine: &SimMachine, space: SpaceId) -> bool {
        let Ok(object) = machine.node.host.objects.create(Self::layout()) else { return false };
        let store = machine.node.host.spaces.store(space);
        machine
            .node
            .host
            .pager
            .attach_on(
                object.clone(),
                store,
                PoolTerms { account: AccountId::new(self.account), minimum: 8 },
            )
            .expect("it fits");
        self.incarnation += 1;
        self.object = Some(object);
        self.values.fill(0);
        self.parked = None;
        true
    }

    /// Touches a page: writes a new value, or reads and checks it. Returns why a page is lost.
    ///
    /// # Panics
    /// If a page does not hold the value written last.
    pub(super) fn step(&mut self, machine: &SimMachine) -> Result<(), PageLossError> {
        let Some(object) = self.object.clone() else { return Ok(()) };
        let (index, access) = match self.parked {
            Some((_, _, ticket)) if !object.ready(ticket) => return Ok(()),
            Some((index, access, _)) => (index, access),
            None => (
                PageIndex(self.dice.below(PAGES)),
                if self.dice.one_in(2) { PageAccess::Write } else { PageAccess::Read },
            ),
        };
        self.parked = None;
        let touched = object.page(index).expect("tables enough").touch(access);
        let Ok(hfn) = touched else {
            return match machine.node.host.pager.fault_page(&object, index, access, machine.now_ns)
            {
                AccessOutcome::Lost(loss) => {
                    self.losses.push(loss);
                    Err(loss)
                }
                AccessOutcome::Wait(ticket) => {
                    self.parked = Some((index, access, ticket));
                    Ok(())
                }
                _ => Ok(()),
            };
        };
        let mut page = vec![0; PAGE_SIZE as usize];
        machine.node.host.memory.copy_out(hfn, 0, &mut page);
        let value = self.values[index.0 as usize];
        assert!(
            page == page_of(value),
            "{} {}: page {} is wrong",
            self.name,
            self.incarnation,
            index.0
        );
        if access == PageAccess::Write {
            let value = self.incarnation << 48
                | u64::from(self.dice.next()) << 8
                | (u64::from(index.0) + 1);
            self.values[index.0 as usize] = value;
            machine.node.host.memory.copy_in(hfn, 0, &page_of(value));
        }
        self.steps += 1;
        Ok(())
    }

    /// Evicts all of its pages that may be evicted.
    pub(super) fn evict(&self, machine: &SimMachine) {
        let object = self.object.as_ref().expect("a guest that runs");
        machine.node.host.pager.ask_evict(object.id(), PAGES);
    }

    /// Crashes: the guest's memory becomes a dump image, and its contents are recorded as the truth
    /// for the dump.
    pub(super) fn crash(&mut self, machine: &SimMachine, truth: &mut Truth) -> Arc<DumpProgress> {
        self.crash_with(machine, truth, DumpOrder::default())
    }

    /// As [`Self::crash`], with a dump order.
    pub(super) fn crash_with(
        &mut self,
        machine: &SimMachine,
        truth: &mut Truth,
        order: DumpOrder,
    ) -> Arc<DumpProgress> {
        let object = self.object.take().expect("a guest that runs");
        let space = self.space.take().expect("a guest that runs has a space");
        truth.insert((self.name.into(), self.incarnation), self.values.clone());
        let (regs, state) = (Regs::default(), CpuState::default());
        let (reason, incarnation, at_ns) = (CrashCause::Panic, self.incarnation, machine.now_ns);
        let record =
            CrashRecord { reason, text: reason.in_words(None), incarnation, at_ns, regs, state };
        dumps::begin(machine.node.host, self.name, record, object, space, order)
    }

    /// Stops for good: frees its memory. The space stays with the node.
    pub(super) fn stop(&mut self, machine: &SimMachine) {
        if let Some(object) = self.object.take() {
            let _ = machine.node.host.reaper.reap(object);
        }
    }
}
