//! Reserves free spaces for the partitions, by the rule of [`crate::space::reserve`].

use super::{SpaceId, SpacePhase, Spaces};
use crate::block::Disk;
use crate::space::Uuid;
use crate::space::reserve::{SpaceNeed, meets};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// A partition for which spaces are reserved.
#[derive(Debug)]
pub struct SpaceTenant {
    name: Uuid,
    need: SpaceNeed,
    /// The partition will not run again and needs no space.
    has_stopped: AtomicBool,
}

impl SpaceTenant {
    /// Makes a tenant with this need.
    pub fn new(name: &str, need: SpaceNeed) -> Self {
        Self { name: Uuid::from_name(name), need, has_stopped: AtomicBool::new(false) }
    }
}

impl Spaces {
    /// Reserves spaces for these partitions from now on, if there are enough for all; returns
    /// whether it does.
    pub fn reserve(&self, tenants: Vec<SpaceTenant>) -> bool {
        let needs: Vec<_> = tenants.iter().map(|tenant| tenant.need).collect();
        let is_enough = meets(&needs, &self.sizes());
        if is_enough {
            self.tenants.call_once(|| tenants);
        }
        is_enough
    }

    /// Ends the reservation for a partition that has stopped.
    pub fn end_reserve(&self, name: &str) {
        let name = Uuid::from_name(name);
        let tenants = self.tenants.get().into_iter().flatten();
        tenants
            .filter(|tenant| tenant.name == name)
            .for_each(|tenant| tenant.has_stopped.store(true, Ordering::Release));
    }

    /// Returns whether `owner` may take the free space `id`.
    pub(super) fn is_for(&self, id: SpaceId, owner: &str) -> bool {
        let (Some(tenants), owner) = (self.tenants.get(), Uuid::from_name(owner)) else {
            return true;
        };
        let lack = |tenant: &SpaceTenant| {
            tenant.need.count.saturating_sub(self.dumps_of_user(tenant.name, None).all() as usize)
        };
        if tenants.iter().any(|tenant| tenant.name == owner && lack(tenant) > 0) {
            return true;
        }
        let others = tenants
            .iter()
            .filter(|tenant| tenant.name != owner && !tenant.has_stopped.load(Ordering::Acquire));
        let needs: Vec<_> =
            others.map(|tenant| SpaceNeed { count: lack(tenant), ..tenant.need }).collect();
        meets(&needs, &self.free_beside(id))
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
