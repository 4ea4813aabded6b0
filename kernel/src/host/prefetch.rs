//! Reads the pages that a resumed partition had used last, before the guest asks for them.
//!
//! One request is in flight at a time, and none begins while any partition waits for a page or a
//! batch is written. It ends where frames are not plentiful any more.

use super::Host;
use crate::addr::PageIndex;
use crate::arch::time;
use crate::dump::hot_list::HotList;
use crate::mm::object::{MemoryObject, ObjectState, RegionState};
use crate::paging::{HOT_WINDOW, PrefetchState};
use crate::task;
use crate::time::Ns;
use alloc::sync::Arc;

/// Longest time: the guest's own faults have brought its pages back by then.
const MOST_NS: Ns = Ns::from_secs(60);

/// Reads the pages of a list in its order.
pub async fn run(host: &'static Host, object: Arc<MemoryObject>, hot: HotList) {
    let end = time::now_ns().saturating_add(MOST_NS);
    for (window, pages) in hot.windows() {
        let Some(first) = window.checked_mul(HOT_WINDOW) else { continue };
        if first >= object.layout().pages() || !is_read(&object, PageIndex(first)).await {
            continue;
        }
        let mut left = pages;
        while left != 0 {
            match host.pager.prefetch(&object, window, &mut left, time::now_ns()) {
                PrefetchState::Begun => task::yield_now().await,
                PrefetchState::Busy if time::now_ns() < end => task::next_turn().await,
                PrefetchState::Busy | PrefetchState::Over => return,
            }
        }
    }
}

/// Waits until the region of a page is read; returns whether it is.
async fn is_read(object: &MemoryObject, first: PageIndex) -> bool {
    loop {
        match object.want(first) {
            RegionState::Read => return true,
            RegionState::Lost => return false,
            RegionState::Unread if object.state() != ObjectState::Live => return false,
            RegionState::Unread => task::next_turn().await,
        }
    }
}
