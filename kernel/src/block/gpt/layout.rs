//! Where a table lies on its disk: its entries, and the sectors that they may name.

use super::GptCopy;

/// The layout that a header describes.
pub(super) struct GptLayout {
    /// First sector of the entries.
    pub entries_at: u64,
    pub entry_sectors: u64,
    /// First usable sector.
    pub first: u64,
    /// Last usable sector.
    pub last: u64,
}

impl GptLayout {
    /// Returns whether the entries lie outside the usable sectors, on their own side, and the
    /// usable sectors lie between the two headers.
    pub(super) fn is_sound(&self, copy: GptCopy, sectors: u64) -> bool {
        let Some(end) = self.entries_at.checked_add(self.entry_sectors) else { return false };
        let entries_are_outside = match copy {
            GptCopy::Primary => self.entries_at >= 2 && end <= self.first,
            GptCopy::Backup => self.entries_at > self.last && end < sectors,
        };
        entries_are_outside && self.first >= 2 && self.first <= self.last && self.last < sectors - 1
    }
}
