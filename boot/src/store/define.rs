//! Definitions of partitions: from a configuration file into the store.

use super::add::NewImage;
use super::{ImageStore, now};
use crate::config::BootPlan;
use anyhow::{Context, Result, bail};
use kernel::config::{DEFINITION_VERSION, KernelModules, PartitionConfig};
use kernel::images::find;
use kernel::images::slot::DefinitionName;
use kernel::images::{ImageDigest, ImageKind, StoredDefinition};
use kernel::space::Uuid;
use std::path::Path;

/// What became of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefineOutcome {
    /// The store had the same definition.
    Unchanged,
    /// It is defined, for the time with this number.
    Generation(u64),
}

/// A partition that is in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefinedPartition {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: DefineOutcome,
}

impl ImageStore {
    /// Defines partitions of a configuration: all, or those with these names. Each is reported to
    /// `done` when it is in the store.
    ///
    /// # Errors
    /// Names the partition that is unknown or whose images cannot be used, before anything is
    /// written; or why the store cannot take one. The earlier ones are defined then.
    pub fn define(
        &mut self,
        plan: &BootPlan,
        names: &[String],
        mut done: impl FnMut(&DefinedPartition),
    ) -> Result<()> {
        let all = &plan.config.partitions;
        if let Some(unknown) = names.iter().find(|name| all.iter().all(|p| p.name != **name)) {
            let known: Vec<_> = all.iter().map(|partition| partition.name.as_str()).collect();
            bail!("{unknown}: no such partition (there are: {})", known.join(", "));
        }
        let chosen: Vec<_> =
            all.iter().filter(|p| names.is_empty() || names.contains(&p.name)).collect();
        for partition in &chosen {
            Images::of(plan, partition)?;
        }
        self.give_back_left_behind()?;
        for partition in chosen {
            let outcome = self.define_one(plan, partition)?;
            done(&DefinedPartition { name: partition.name.clone(), outcome });
        }
        Ok(())
    }

    fn define_one(
        &mut self,
        plan: &BootPlan,
        partition: &PartitionConfig,
    ) -> Result<DefineOutcome> {
        let images = Images::of(plan, partition)?;
        let kernel = self.image(images.kernel, ImageKind::Kernel)?;
        let initrd =
            images.initrd.map(|initrd| self.image(initrd, ImageKind::Initrd)).transpose()?;
        let name = DefinitionName::from(&partition.name)
            .map_err(|_| anyhow::anyhow!("{}: the name is too long", partition.name))?;
        let text = |digest: ImageDigest| digest.text().to_string();
        let stored = PartitionConfig {
            kernel: KernelModules { image: text(kernel), initrd: initrd.map(text) },
            ..partition.clone()
        };
        let wanted = StoredDefinition {
            name,
            partition: Uuid::from_name(&partition.name),
            generation: 0,
            kernel,
            initrd,
            encoding: DEFINITION_VERSION,
            bytes: stored.to_definition(),
        };
        let path = self.file.path().to_owned();
        let superblock = self.store.superblock;
        let there = now(&path, find::definition(&mut self.file, &superblock, &name))?;
        if there.is_some_and(|there| StoredDefinition { generation: 0, ..there } == wanted) {
            return Ok(DefineOutcome::Unchanged);
        }
        let definer = self.definer();
        let defined = now(&path, definer.define(&mut self.file, wanted))
            .with_context(|| partition.name.clone())?;
        Ok(DefineOutcome::Generation(defined.generation))
    }

    fn image(&mut self, file: &Path, kind: ImageKind) -> Result<ImageDigest> {
        let label = file.file_name().unwrap_or_default().to_string_lossy();
        Ok(self.add(NewImage { file, label: &label, kind, is_kept: false })?.0)
    }

    /// Takes a definition away; returns whether there was one.
    ///
    /// # Errors
    /// Names the store.
    pub fn undefine(&mut self, name: &str) -> Result<bool> {
        let path = self.file.path().to_owned();
        let superblock = self.store.superblock;
        if now(&path, find::definition(&mut self.file, &superblock, name))?.is_none() {
            return Ok(false);
        }
        let definer = self.definer();
        now(&path, definer.undefine(&mut self.file, name, None))?;
        Ok(true)
    }

    /// Gives slots back that a program has reserved and left. Takes four seconds if there are any.
    fn give_back_left_behind(&mut self) -> Result<()> {
        let path = self.file.path().to_owned();
        let definer = self.definer();
        now(&path, definer.give_back_left_behind(&mut self.file)).map(|_| ())
    }
}

/// The files that a partition starts from.
struct Images<'p> {
    kernel: &'p Path,
    initrd: Option<&'p Path>,
}

impl<'p> Images<'p> {
    fn of(plan: &'p BootPlan, partition: &PartitionConfig) -> Result<Self> {
        let file = |module: &str| {
            plan.archive.file(module).with_context(|| {
                let why = plan.warnings.join("; ");
                format!("{}: its kernel or initrd cannot be used: {why}", partition.name)
            })
        };
        let KernelModules { image, initrd } = &partition.kernel;
        Ok(Self { kernel: file(image)?, initrd: initrd.as_deref().map(file).transpose()? })
    }
}
