//! Files of finite size: reading a FIFO or a character device would never end.

use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Checks that `path` is a regular file or a block device. Call it before opening the file: opening
/// a FIFO waits for its writer.
///
/// # Errors
/// Names the file type found, or the reason why the type cannot be read.
pub fn check(path: &Path) -> Result<()> {
    let kind = fs::metadata(path).with_context(|| format!("{}", path.display()))?.file_type();
    let what = match kind {
        _ if kind.is_file() || kind.is_block_device() => return Ok(()),
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_char_device() => "a character device",
        _ if kind.is_socket() => "a socket",
        _ => "something else",
    };
    bail!("{}: is {what}; a file or a block device is wanted", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_refused_by_name() {
        let error = |path: &str| check(Path::new(path)).unwrap_err().to_string();
        assert_eq!(
            error("/dev/zero"),
            "/dev/zero: is a character device; a file or a block device is wanted"
        );
        assert!(error("/").contains("is a folder"));
        assert!(error("/nonexistent/file").contains("/nonexistent/file"));
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(check(&fifo).unwrap_err().to_string().contains("is a FIFO"));
        check(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).unwrap();
    }
}
