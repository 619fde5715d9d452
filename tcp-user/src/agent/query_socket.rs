//! The file of the query socket: it replaces a stale socket, never anything else, and is removed at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::privileges::Account;
use crate::api::DEFAULT_SOCKET;

/// The bound query socket. Dropping it removes the file, unless another agent has replaced it.
#[derive(Debug)]
pub struct QuerySocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

/// Why the query socket cannot be bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuerySocketError {
    /// The directory of the socket cannot be created.
    #[error("creating directory {} for the query socket: create it, or choose another path with --socket", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// The socket or its directory cannot be given to the user that the agent runs as.
    #[error("setting owner and mode of {}", .0.display())]
    Owner(PathBuf, #[source] io::Error),
    /// The socket cannot be created.
    #[error("binding the query socket {}: choose another path with --socket", .0.display())]
    Bind(PathBuf, #[source] io::Error),
    /// The path cannot be inspected.
    #[error("inspecting {}: choose another path with --socket", .0.display())]
    Inspect(PathBuf, #[source] io::Error),
    /// The path is a file of another kind.
    #[error("{} exists and is not a socket: choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// A stale socket cannot be removed.
    #[error("removing the stale socket {}", .0.display())]
    Stale(PathBuf, #[source] io::Error),
    /// An agent listens on the socket.
    #[error("another agent answers on {}: stop it first, or choose another path with --socket", .0.display())]
    InUse(PathBuf),
}

impl QuerySocket {
    /// Binds the socket with mode 0660. `account` becomes its owner, and the owner of its directory if the
    /// agent created the directory or if it is the default one.
    pub fn bind(path: &Path, account: Option<&Account>) -> Result<QuerySocket, QuerySocketError> {
        let give = |path: &Path| match account {
            Some(account) => chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())),
            None => Ok(()),
        };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            let created =
                create(directory).map_err(|source| QuerySocketError::Directory(directory.into(), source))?;
            if created || Some(directory) == Path::new(DEFAULT_SOCKET).parent() {
                give(directory).map_err(|source| QuerySocketError::Owner(directory.into(), source))?;
            }
        }
        remove_stale(path)?;
        let listener =
            UnixListener::bind(path).map_err(|source| QuerySocketError::Bind(path.into(), source))?;
        let metadata =
            path.symlink_metadata().map_err(|source| QuerySocketError::Inspect(path.into(), source))?;
        let socket = QuerySocket { listener, path: path.into(), file: (metadata.dev(), metadata.ino()) };
        fs::set_permissions(path, Permissions::from_mode(0o660))
            .and_then(|()| give(path))
            .map_err(|source| QuerySocketError::Owner(path.into(), source))?;
        Ok(socket)
    }

    /// Path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A listener for the runtime inside which this is called.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        self.listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for QuerySocket {
    fn drop(&mut self) {
        let ours = self.path.symlink_metadata().is_ok_and(|now| (now.dev(), now.ino()) == self.file);
        if ours {
            // The user that the agent runs as may lack the permission; a stale socket does no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates a directory, but not its parents: a mistyped path fails. Returns whether it was created.
fn create(directory: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a socket on which no agent listens.
fn remove_stale(path: &Path) -> Result<(), QuerySocketError> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(QuerySocketError::Inspect(path.into(), error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(QuerySocketError::NotASocket(path.into()));
    }
    match connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| QuerySocketError::Stale(path.into(), source))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(QuerySocketError::Inspect(path.into(), error))
        }
        // Also if its queue is full: an agent listens.
        _ => Err(QuerySocketError::InUse(path.into())),
    }
}

fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}
