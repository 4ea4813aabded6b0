//! Loads a kernel on trial, as the host command does it for the partitions of its file: a plan is
//! made, and nothing is copied.

use super::error::DefinitionError;
use crate::config::PartitionConfig;
use crate::mm::layout::RamLayout;
use crate::node::Node;
use crate::partition::acpi::AcpiTables;
use crate::partition::command_line::{self, Added};
use crate::partition::loaders::staged::StagedImages;
use crate::partition::loaders::{self, ImageSource, LoadError, LoadRequest};
use crate::storage::stores::{FoundImages, StoreId};

/// Makes a plan with the longest command line that any incarnation gets.
///
/// # Errors
/// Why the kernel does not start, or which of its bytes have to be read first.
pub(super) fn plan(
    source: &dyn ImageSource,
    config: &PartitionConfig,
    layout: &RamLayout,
) -> Result<(), LoadError> {
    let request = LoadRequest {
        kernel: &config.kernel,
        cmdline: &command_line::with_added(&config.cmdline, Added::LONGEST),
        layout,
        acpi: &AcpiTables::new(config.devices.bus()),
    };
    loaders::plan(source, &request).map(|_| ())
}

/// As [`plan`], with images in a store.
///
/// # Errors
/// Why the kernel does not start, or the chunk that cannot be read.
pub(super) async fn plan_stored(
    node: &'static Node,
    store: StoreId,
    mut images: FoundImages,
    config: &PartitionConfig,
    layout: &RamLayout,
) -> Result<(), DefinitionError> {
    let mut staged = StagedImages::default();
    for reader in [Some(&images.kernel), images.initrd.as_ref()].into_iter().flatten() {
        staged.add(reader.image().digest, reader.image().length);
    }
    let stores = node.host.stores;
    loop {
        match plan(&staged, config, layout) {
            Ok(()) => return Ok(()),
            Err(LoadError::Unread { offset, bytes }) => {
                let reader = &mut images.kernel;
                let bytes = stores.read_image(store, reader, offset, bytes as usize).await;
                let digest = images.kernel.image().digest;
                staged.put(digest, offset, bytes.map_err(DefinitionError::Image)?);
            }
            Err(error) => return Err(DefinitionError::Load(error)),
        }
    }
}
