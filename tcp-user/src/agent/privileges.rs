//! What the agent may do: all it was given while it loads, and afterwards no more than later interfaces need.
//!
//! Capabilities belong to threads, so they are given away while there is only one.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{self, Gid, Uid, User};

use crate::kernel::KernelError;

/// What loading the programs takes. The verifier of a process without CAP_PERFMON refuses some pointer arithmetic.
const LOADING: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// What attaching loaded programs to an interface takes.
const KEPT: [Capability; 1] = [Capability::CAP_NET_ADMIN];

/// A user to become.
#[derive(Clone, Debug)]
pub struct Account {
    name: String,
    /// The user's id.
    pub uid: Uid,
    /// The id of the user's own group.
    pub gid: Gid,
}

/// Why privileges could not be given away. The agent does not run with more than it should have.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Nobody has this name.
    #[error(
        "no user is named {0:?} here: make one (`adduser --system --group {0}`), or choose another with --user"
    )]
    NoSuchUser(String),
    /// Only root becomes somebody else.
    #[error("becoming user {0:?} is not permitted: start finwait as root, or as that user without --user")]
    NotRoot(String),
    /// The kernel refuses.
    #[error("giving privileges away: {what}: {source}")]
    Refused {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Account {
    /// Looks a user up by name.
    pub fn named(name: &str) -> Result<Account, PrivilegeError> {
        let user = User::from_name(name).map_err(refused("looking the user up"))?;
        let user = user.ok_or_else(|| PrivilegeError::NoSuchUser(name.into()))?;
        let account = Account { name: user.name, uid: user.uid, gid: user.gid };
        if account.is_other() && !has(Capability::CAP_SETUID) {
            return Err(PrivilegeError::NotRoot(account.name));
        }
        Ok(account)
    }

    fn is_other(&self) -> bool {
        self.uid != unistd::geteuid()
    }
}

/// A refusal to load, with what is missing if that is the reason.
pub fn explain(error: KernelError) -> KernelError {
    let missing = missing();
    match error {
        KernelError::NotPermitted(_) | KernelError::Refused { .. } if !missing.is_empty() => {
            KernelError::NotPermitted(format!("{} missing", missing.join(", ")))
        }
        error => error,
    }
}

/// The names of what loading takes and this process lacks.
fn missing() -> Vec<String> {
    LOADING
        .into_iter()
        .filter(|&capability| !has(capability))
        .map(|capability| capability.to_string())
        .collect()
}

/// Keeps [`KEPT`] of what this process has, gives everything else away for good, and becomes `account`.
/// To be called while the process has one thread.
pub fn give_away(account: Option<&Account>) -> Result<(), PrivilegeError> {
    let kept: CapsHashSet = KEPT.into_iter().filter(|&capability| has(capability)).collect();
    // The bounding set can be changed by CAP_SETPCAP only; without it no_new_privs alone bars the way back.
    if has(Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(uncapped("leaving the bounding set"))?;
        }
    }
    if let Some(account) = account.filter(|account| account.is_other()) {
        prctl::set_keepcaps(true).map_err(refused("keeping capabilities"))?;
        unistd::setgroups(&[]).map_err(refused("leaving the groups"))?;
        unistd::setresgid(account.gid, account.gid, account.gid).map_err(refused("changing the group"))?;
        unistd::setresuid(account.uid, account.uid, account.uid).map_err(refused("changing the user"))?;
    }
    caps::clear(None, CapSet::Ambient).map_err(uncapped("clearing the ambient set"))?;
    caps::clear(None, CapSet::Inheritable).map_err(uncapped("clearing the inheritable set"))?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        // From permitted to effective after a change of user, then nothing else in either.
        caps::set(None, set, &kept).map_err(uncapped("keeping only what is needed"))?;
    }
    prctl::set_no_new_privs().map_err(refused("setting no_new_privs"))
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

fn refused(what: &'static str) -> impl FnOnce(nix::Error) -> PrivilegeError {
    move |errno| PrivilegeError::Refused { what, source: errno.into() }
}

fn uncapped(what: &'static str) -> impl FnOnce(caps::errors::CapsError) -> PrivilegeError {
    move |error| PrivilegeError::Refused { what, source: io::Error::other(error) }
}
