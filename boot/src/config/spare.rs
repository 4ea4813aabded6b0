//! `[spare]`: room for partitions that are defined while the machine runs.

use super::document::{ConfigError, Section};
use kernel::config::SpareRoom;
use kernel::mm::layout::RamLayout;
use kernel::mm::object::ObjectTable;

/// Spare partitions without a `[spare]` section, as far as the hypervisor's limit allows.
const DEFAULT: u32 = 4;
/// Most memory of spare partitions without a `[spare]` section: its tables have 8 MiB.
const DEFAULT_MEMORY: u64 = 1 << 30;

/// Reads the section. The default memory of all spare partitions together is that of the pool, up
/// to [`DEFAULT_MEMORY`].
pub(super) fn read(
    root: &Section<'_>,
    partitions: usize,
    pool: u64,
) -> Result<SpareRoom, ConfigError> {
    let most = ObjectTable::CAPACITY.saturating_sub(partitions) as u32;
    let default =
        SpareRoom { partitions: DEFAULT.min(most), memory_bytes: pool.min(DEFAULT_MEMORY) };
    let Some(spare) = root.section("spare")? else { return Ok(default) };
    spare.only(&["partitions", "memory"])?;
    let count = match spare.number("partitions")? {
        None => default.partitions,
        Some(count) => u32::try_from(count).ok().filter(|n| *n <= most).ok_or_else(|| {
            spare.error(
                "partitions",
                &format!(
                    "must be 0 to {most}: the hypervisor runs {} partitions at most",
                    ObjectTable::CAPACITY
                ),
            )
        })?,
    };
    let memory_bytes = spare.pages("memory")?.unwrap_or(default.memory_bytes);
    if count > 0 && RamLayout::new(memory_bytes).is_none() {
        return Err(spare.error("memory", "is not between 4 KiB and 16 TiB"));
    }
    Ok(SpareRoom { partitions: count, memory_bytes })
}
