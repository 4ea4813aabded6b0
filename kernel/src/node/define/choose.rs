//! Which store, and which of its images, the words of a command stand for.

use super::error::DefinitionError;
use crate::images::{ImageDigest, OpenStore, StoredImage};
use crate::node::Node;
use crate::space::Uuid;
use crate::storage::stores::StoreId;
use alloc::string::{String, ToString};
use core::fmt::Write;

/// Fewest digits that stand for a store or an image.
const LEAST_DIGITS: usize = 4;

/// Returns whether `digits` are the first digits of a name.
fn begins(uuid: Uuid, digits: &str) -> bool {
    let mut all = String::new();
    let _ = write!(all, "{uuid}");
    let mut name = all.bytes().filter(|byte| *byte != b'-');
    digits.len() >= LEAST_DIGITS
        && digits.bytes().filter(|byte| *byte != b'-').all(|digit| name.next() == Some(digit))
}

/// Opens the store that `word` stands for: its number, or the first digits of its name.
///
/// # Errors
/// There is none, or it cannot be opened.
pub(super) async fn store(
    node: &'static Node,
    word: &str,
) -> Result<(StoreId, OpenStore), DefinitionError> {
    let stores = node.host.stores;
    if word.len() < LEAST_DIGITS {
        let number = word.parse().ok().map(StoreId);
        let id = stores.all().find(|id| Some(*id) == number);
        let id = id.ok_or_else(|| DefinitionError::NoStore(word.into()))?;
        return Ok((id, stores.open(id).await?));
    }
    let mut failure = None;
    for id in stores.all() {
        match stores.open(id).await {
            Ok(open) if begins(open.uuid(), word) => return Ok((id, open)),
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    // The store that cannot be opened may be the one.
    Err(failure.map_or_else(|| DefinitionError::NoStore(word.into()), Into::into))
}

/// Returns the digest of the image that `word` stands for: its label, or the first digits of its
/// digest.
///
/// # Errors
/// There is none, or several.
pub(super) fn image(
    id: StoreId,
    open: &OpenStore,
    word: &str,
) -> Result<ImageDigest, DefinitionError> {
    let stands = |image: &&StoredImage| {
        image.label.as_str() == word
            || word.len() >= LEAST_DIGITS && image.digest.text().starts_with(word)
    };
    let mut found = open.directory().images.iter().filter(stands);
    match (found.next(), found.next()) {
        (Some(image), None) => Ok(image.digest),
        (None, _) => Err(DefinitionError::NoImage(word.into(), id)),
        (Some(one), Some(other)) => Err(DefinitionError::SeveralImages(
            word.into(),
            [one, other].map(|image| image.digest.short().to_string()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_has_the_first_digits_of_its_name_with_or_without_dashes() {
        let uuid = Uuid::from_entropy(0x1234_5678_9abc_def0, 7);
        for digits in ["1234", "12345678", "123456789abc", "12345678-9abc-8ef0"] {
            assert!(begins(uuid, digits), "{digits}");
        }
        for digits in ["", "123", "1235", "12345678-9abd"] {
            assert!(!begins(uuid, digits), "{digits}");
        }
        assert!(!begins(uuid, &"1234".repeat(20)));
    }
}
