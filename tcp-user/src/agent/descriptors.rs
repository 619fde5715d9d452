//! File descriptors: each watched interface holds two, and clients need some as well.

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors of a watched interface: one link a direction.
pub(super) const PER_INTERFACE: u64 = 2;

/// Raises the limit of open files to its hard limit (`getrlimit(2)`). Needs no privilege.
///
/// # Errors
///
/// If the kernel refuses.
pub(super) fn raise_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// The limit of open files of this process.
pub(super) fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Number of descriptors that attachments may take, [`RESERVE`] left out.
pub(super) fn available() -> u64 {
    let open = fs::read_dir("/proc/self/fd").map_or(ASSUMED_OPEN, |entries| entries.count() as u64);
    limit().saturating_sub(open + RESERVE)
}

/// Descriptors for clients of the query socket, scrapes, and reading `/proc`.
const RESERVE: u64 = 64;
/// Number of open descriptors if `/proc` does not show them.
const ASSUMED_OPEN: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_leave_fewer_descriptors() {
        raise_limit().expect("raising the soft limit");
        let before = available();
        let files: Vec<_> = (0..40).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
        // Other tests of this process open and close files as well.
        assert!(available() < before, "{} files are open", files.len());
        assert!(before < limit());
    }
}
