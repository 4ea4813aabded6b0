//! What the spaces of a cluster's disks say about their cluster.

use super::{ClusterSite, DiskSpace};
use crate::volume::describe;
use anyhow::Result;
use kernel::space::{DeviceContent, Uuid};

/// The spaces of a cluster's disks.
#[derive(Default)]
pub struct SpaceReport {
    /// For each space its place, its state and its cluster.
    pub rows: Vec<[String; 3]>,
    /// Remarks: a space that is not closed, a damaged copy whose other copy counts.
    pub notes: Vec<String>,
    /// Faults: a space of another cluster, or none that can be read.
    pub faults: Vec<String>,
}

impl SpaceReport {
    /// Looks at all spaces. Nodes may run meanwhile.
    ///
    /// # Errors
    /// Where an image cannot be read.
    pub fn of(site: &ClusterSite) -> Result<Self> {
        let mut report = Self::default();
        for space in site.spaces()? {
            report.look(&space, site.cluster())?;
        }
        Ok(report)
    }

    fn look(&mut self, space: &DiskSpace, ours: Uuid) -> Result<()> {
        let (name, class) = (space.image.name(), space.image.class()?);
        let (state, cluster) = match &class {
            DeviceContent::Space(record) => (record.state.name(), record.cluster),
            DeviceContent::Blank => ("blank", None),
            other => {
                self.faults.push(format!("{name}: {}", describe(other)));
                ("?", None)
            }
        };
        let word = match cluster {
            Some(cluster) if cluster == ours => "this",
            Some(other) => {
                self.faults.push(format!("{name}: belongs to cluster {other}"));
                "another"
            }
            None => "none",
        };
        if matches!(class, DeviceContent::Blank | DeviceContent::Space(_)) && cluster.is_none() {
            self.notes.push(format!(
                "{name}: is open to programs outside the cluster until a node takes it; `tidepool \
                 cluster add` closes it"
            ));
        }
        if let Some((side, fault)) = space.image.damaged_copy()? {
            self.notes
                .push(format!("{name}: copy {side} of its record: {fault}; the other counts"));
        }
        self.rows.push([name, state.to_owned(), word.to_owned()]);
        Ok(())
    }
}
