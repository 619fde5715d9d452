//! The query socket's file: put in place of a stale one, never of anything else, and taken away at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, SockAddr, Socket, Type};

use super::privileges::Account;
use crate::api::DEFAULT_SOCKET;

/// The bound socket. Dropping it removes the file, if it is still ours.
#[derive(Debug)]
pub struct QuerySocket {
    listener: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl QuerySocket {
    /// Binds the socket, mode 0660. `account` becomes its owner, and that of the folder if the folder is the agent's own.
    pub fn bind(path: &Path, account: Option<&Account>) -> Result<QuerySocket> {
        let give = |path: &Path| match account {
            Some(account) => chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())),
            None => Ok(()),
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            let made = make(folder).with_context(|| {
                format!(
                    "making {} for the query socket: make it, or choose another place with --socket",
                    folder.display()
                )
            })?;
            if made || Some(folder) == Path::new(DEFAULT_SOCKET).parent() {
                give(folder).with_context(|| format!("changing the owner of {}", folder.display()))?;
            }
        }
        make_room(path)?;
        let listener = UnixListener::bind(path).with_context(|| {
            format!("binding the query socket {}: choose another place with --socket", path.display())
        })?;
        let metadata = path.symlink_metadata().context("looking at the query socket")?;
        let query = QuerySocket { listener, path: path.into(), file: (metadata.dev(), metadata.ino()) };
        fs::set_permissions(path, Permissions::from_mode(0o660))
            .and_then(|()| give(path))
            .with_context(|| format!("setting owner and mode of {}", path.display()))?;
        Ok(query)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, for the runtime it is called in.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        self.listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for QuerySocket {
    fn drop(&mut self) {
        let ours = self.path.symlink_metadata().is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if ours {
            // Whom we have become may not be allowed to; a stale socket is in nobody's way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a folder, not those above it: a path with a typo is no wish. Returns whether it was made.
fn make(folder: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o750).create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a socket on which nobody answers.
fn make_room(path: &Path) -> Result<()> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
    };
    if !metadata.file_type().is_socket() {
        bail!(
            "{} is there and is no socket, so finwait leaves it alone: choose another --socket",
            path.display()
        );
    }
    match connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("removing the stale socket {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error)
            .with_context(|| format!("asking who answers on {}: choose another --socket", path.display())),
        // Also where the queue is full: somebody lives there.
        _ => bail!("another agent answers on {}: stop it first, or choose another --socket", path.display()),
    }
}

fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}
