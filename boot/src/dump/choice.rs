//! The choice of a dump on an image by its space's number, its name, or the beginning of its name.

use crate::volume::{SpaceImage, VolumeDisk};
use anyhow::{Result, bail};
use kernel::space::{DeviceContent, DumpSelector, Uuid};
use std::str::FromStr;

/// The choice as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DumpChoice {
    /// The number of a GPT entry, up to 128.
    Space(u32),
    /// At least eight digits of a dump's name, with or without hyphens.
    Named(DumpSelector),
}

impl FromStr for DumpChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match DumpSelector::parse(text) {
            Some(named @ DumpSelector::Name { .. }) => Ok(Self::Named(named)),
            Some(DumpSelector::Incarnation(_)) | None => {
                text.parse().map(Self::Space).map_err(|_| {
                    format!(
                        "“{text}” is neither a space's number nor the first eight digits of a \
                         dump's name"
                    )
                })
            }
        }
    }
}

impl DumpChoice {
    /// Returns the chosen space of `disk`; without a choice the only space.
    ///
    /// # Errors
    /// Lists the spaces or dumps that exist.
    pub fn find(choice: Option<Self>, disk: &VolumeDisk) -> Result<SpaceImage> {
        match choice {
            Some(Self::Named(selector)) => named(disk, selector),
            Some(Self::Space(number)) => disk.space(Some(number)),
            None => disk.space(None),
        }
    }
}

fn named(disk: &VolumeDisk, selector: DumpSelector) -> Result<SpaceImage> {
    let (mut found, mut names) = (Vec::new(), Vec::new());
    for image in disk.usable()? {
        let Some(name) = name_of(&image)? else { continue };
        names.push(name.to_string());
        // A dump's name does not contain the number of its incarnation.
        if selector.selects(name, u64::MAX) {
            found.push(image);
        }
    }
    match found.len() {
        1 => Ok(found.swap_remove(0)),
        0 if names.is_empty() => bail!("{}: holds no dump", disk.path().display()),
        0 => bail!(
            "{}: has no dump of this name (there are: {})",
            disk.path().display(),
            names.join(", ")
        ),
        _ => {
            bail!("{}: several dumps' names begin so: {}", disk.path().display(), names.join(", "))
        }
    }
}

/// Returns the name of the dump on a space.
fn name_of(image: &SpaceImage) -> Result<Option<Uuid>> {
    Ok(match image.class()? {
        DeviceContent::Space(record) if record.state.is_kept() => {
            record.crash.map(|crash| crash.name)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_are_spaces_and_eight_digits_are_names() {
        assert_eq!("2".parse(), Ok(DumpChoice::Space(2)));
        assert_eq!("128".parse(), Ok(DumpChoice::Space(128)));
        assert!(matches!(
            "12345678".parse(),
            Ok(DumpChoice::Named(DumpSelector::Name { digits: 8, .. }))
        ));
        assert!(matches!(
            "3f2a90c1-77b0".parse(),
            Ok(DumpChoice::Named(DumpSelector::Name { digits: 12, .. }))
        ));
        for text in ["", "web", "-1", "3f2a", "3f2a90c1x"] {
            assert!(text.parse::<DumpChoice>().unwrap_err().contains("neither"), "{text}");
        }
    }
}
