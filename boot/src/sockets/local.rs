//! A Unix socket for programs: created before the machine starts, removed when the command ends.

use crate::interrupt::{OnSignal, Signalled};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// `unix(7)`: `sun_path` has 108 bytes, the last of them zero.
const LONGEST_PATH: usize = 107;

/// A listening socket; dropping it removes its file.
pub(super) struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    _on_signal: OnSignal,
}

impl LocalSocket {
    /// Listens at `path`, for this user only. A stale socket of an ended process is replaced.
    ///
    /// # Errors
    /// Names the path: it is too long, a file of another kind is there, another process listens
    /// there, or the system refuses it.
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let name = path.display();
        let length = path.as_os_str().len();
        if length > LONGEST_PATH {
            bail!("{name}: {length} bytes, but the path of a socket has at most {LONGEST_PATH}");
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path)
            .with_context(|| format!("{name}: no socket can be made there"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("{name}"))?;
        let theirs = path.to_owned();
        let on_signal = OnSignal::new(Signalled::End, move || drop(fs::remove_file(&theirs)));
        Ok(Self { listener, path: path.to_owned(), _on_signal: on_signal })
    }

    /// Passes every connection to `take`, on a thread that lives as long as the process.
    ///
    /// # Errors
    /// Where the system refuses a thread.
    pub(super) fn serve(&self, mut take: impl FnMut(UnixStream) + Send + 'static) -> Result<()> {
        let listener = self.listener.try_clone()?;
        std::thread::Builder::new().name("socket".into()).spawn(move || {
            loop {
                match listener.accept() {
                    Ok((stream, _)) => take(stream),
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                        ) => {}
                    Err(_) => break,
                }
            }
        })?;
        Ok(())
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes a socket on which no process listens any more.
fn remove_stale(path: &Path) -> Result<()> {
    let name = path.display();
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{name}")),
    };
    if !file.file_type().is_socket() {
        bail!("{name}: is there already and is no socket; nothing touches it");
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("{name}: another process listens there already"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)
            .with_context(|| format!("{name}: a socket that an ended process has left")),
        Err(error) => Err(error).with_context(|| format!("{name}: is there already")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        format!("{:#}", LocalSocket::bind(path).err().expect("it is refused"))
    }

    #[test]
    fn a_stale_file_is_replaced_and_the_socket_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = LocalSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_in_the_way_is_named_and_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _living = LocalSocket::bind(&path).unwrap();
        assert!(refusal(&path).ends_with("another process listens there already"));
        assert!(path.exists());
        let file = folder.path().join("file");
        fs::write(&file, "data").unwrap();
        assert!(refusal(&file).contains("is no socket"));
        assert_eq!(fs::read(&file).unwrap(), b"data");
        assert!(refusal(&folder.path().join("missing/s")).contains("No such file"));
        let long = folder.path().join("x".repeat(LONGEST_PATH));
        assert!(refusal(&long).contains("at most 107"), "{}", refusal(&long));
    }
}
