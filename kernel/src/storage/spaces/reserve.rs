//! Reserves free spaces for the partitions, by the rule of [`crate::space::reserve`].

use super::{SpaceId, SpacePhase, Spaces};
use crate::block::Disk;
use crate::space::Uuid;
use crate::space::reserve::{SpaceNeed, meets};
use alloc::vec::Vec;

/// A partition for which spaces are reserved.
#[derive(Clone, Copy, Debug)]
pub struct SpaceTenant {
    name: Uuid,
    need: SpaceNeed,
    /// The partition has stopped and needs no space.
    has_stopped: bool,
}

/// The partitions for which spaces are reserved.
#[derive(Debug, Default)]
pub(super) struct SpaceTenants {
    list: Vec<SpaceTenant>,
    /// Whether there are enough spaces for all of them; otherwise none are reserved.
    is_enough: bool,
}

impl SpaceTenant {
    /// Makes a tenant with this need.
    pub fn new(name: &str, need: SpaceNeed) -> Self {
        Self { name: Uuid::from_name(name), need, has_stopped: false }
    }

    /// The same, of a partition that has stopped.
    #[must_use]
    pub const fn stopped(self) -> Self {
        Self { has_stopped: true, ..self }
    }
}

impl SpaceTenants {
    fn of(&mut self, name: &str) -> Option<&mut SpaceTenant> {
        let name = Uuid::from_name(name);
        self.list.iter_mut().find(|tenant| tenant.name == name)
    }

    /// Compares the needs with the spaces again, after a change.
    fn weigh(&mut self, spaces: &[u32]) -> bool {
        let needs: Vec<_> = self.list.iter().map(|tenant| tenant.need).collect();
        self.is_enough = meets(&needs, spaces);
        self.is_enough
    }
}

impl Spaces {
    /// Reserves spaces for these partitions from now on, if there are enough for all; returns
    /// whether there are.
    pub fn reserve(&self, tenants: Vec<SpaceTenant>) -> bool {
        let sizes = self.sizes();
        let mut known = self.tenants.lock();
        known.list = tenants;
        known.weigh(&sizes)
    }

    /// Reserves spaces for one more partition, or for one whose need has changed; returns whether
    /// there are enough for all.
    pub fn reserve_for(&self, tenant: SpaceTenant) -> bool {
        let sizes = self.sizes();
        let mut known = self.tenants.lock();
        match known.list.iter_mut().find(|other| other.name == tenant.name) {
            Some(other) => *other = SpaceTenant { has_stopped: other.has_stopped, ..tenant },
            None => known.list.push(tenant),
        }
        known.weigh(&sizes)
    }

    /// Forgets a partition whose definition is gone.
    pub fn forget_tenant(&self, name: &str) {
        let (sizes, name) = (self.sizes(), Uuid::from_name(name));
        let mut known = self.tenants.lock();
        known.list.retain(|tenant| tenant.name != name);
        known.weigh(&sizes);
    }

    /// Suspends the reservation for a partition that has stopped.
    pub fn end_reserve(&self, name: &str) {
        if let Some(tenant) = self.tenants.lock().of(name) {
            tenant.has_stopped = true;
        }
    }

    /// Resumes the reservation for a partition that starts again.
    pub fn resume_reserve(&self, name: &str) {
        if let Some(tenant) = self.tenants.lock().of(name) {
            tenant.has_stopped = false;
        }
    }

    /// Returns whether the partition has stopped, or is unknown on this node.
    pub(super) fn has_stopped(&self, user: Uuid) -> bool {
        let known = self.tenants.lock();
        known.list.iter().find(|tenant| tenant.name == user).is_none_or(|one| one.has_stopped)
    }

    /// Returns whether `owner` may take the free space `id`.
    pub(super) fn is_for(&self, id: SpaceId, owner: &str) -> bool {
        let owner = Uuid::from_name(owner);
        let Some(tenants) = self.reserved_for() else { return true };
        let lack = |tenant: &SpaceTenant| {
            tenant.need.count.saturating_sub(self.dumps_of_user(tenant.name, None).all() as usize)
        };
        if tenants.iter().any(|tenant| tenant.name == owner && lack(tenant) > 0) {
            return true;
        }
        let others = tenants.iter().filter(|tenant| tenant.name != owner && !tenant.has_stopped);
        let needs: Vec<_> =
            others.map(|tenant| SpaceNeed { count: lack(tenant), ..tenant.need }).collect();
        meets(&needs, &self.free_beside(id))
    }

    /// Returns the partitions for which spaces are reserved, if any are.
    fn reserved_for(&self) -> Option<Vec<SpaceTenant>> {
        let known = self.tenants.lock();
        known.is_enough.then(|| known.list.clone())
    }

    /// Returns the number of pages of each other free space.
    fn free_beside(&self, id: SpaceId) -> Vec<u32> {
        let others = (0..self.spaces.len()).map(SpaceId).filter(|other| *other != id);
        let free = others.filter(|&other| {
            self.space(other).inner.lock().phase == SpacePhase::Free && !self.disk(other).is_dead()
        });
        free.map(|other| self.place(other).area.most_pages()).collect()
    }
}
