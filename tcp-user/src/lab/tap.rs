//! TAP devices: Ethernet interfaces whose frames are read from and written to a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::libc;

use super::LabError;

/// The network side of a TAP interface. Dropping it removes the interface.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Creates an interface of this name in the calling thread's namespace. Frames are as on hardware
    /// without offloads: no larger than the MTU, with complete checksums.
    pub fn create(name: &str) -> Result<Tap, LabError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(LabError::of(ACTION, "access to /dev/net/tun", NEEDS))?;
        // SAFETY: all zero is an interface request without a name.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        // SAFETY: TUNSETIFF reads and writes one interface request, which outlives the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        if result < 0 {
            return Err(LabError::of(ACTION, "CAP_NET_ADMIN", NEEDS)(io::Error::last_os_error()));
        }
        Ok(Tap(file))
    }

    /// Reads the next frame that the host has sent. Returns its length, or `None` if there is no frame.
    pub fn receive(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.0).read(frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Delivers a frame to the host. The kernel has processed it when this returns.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write(frame).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const DEVICE: &str = "/dev/net/tun";
const ACTION: &str = "create a TAP interface";
const NEEDS: &str = "it has no TUN/TAP driver (CONFIG_TUN)";
