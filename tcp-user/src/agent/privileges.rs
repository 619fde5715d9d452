//! Privileges of the agent: once the programs are attached it keeps only what attaching to later interfaces
//! takes.
//!
//! Capabilities belong to threads, so they are dropped while the process has one thread.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{self, Gid, Uid, User};

use crate::kernel::KernelError;

/// Capabilities that loading the programs takes. Without CAP_PERFMON the verifier refuses some pointer
/// arithmetic.
const LOADING: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// Capabilities that attaching loaded programs to an interface takes.
const KEPT: [Capability; 1] = [Capability::CAP_NET_ADMIN];

/// A user account to run as.
#[derive(Clone, Debug)]
pub struct Account {
    name: String,
    /// User id.
    pub uid: Uid,
    /// Id of the user's primary group.
    pub gid: Gid,
}

/// Why privileges could not be dropped. The agent does not run with more than it needs.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// There is no user of this name.
    #[error(
        "no user is named {0:?} here: create one (`adduser --system --group {0}`), or choose another with --user"
    )]
    NoSuchUser(String),
    /// The process may not change its user.
    #[error("not permitted to become user {0:?}: start finwait as root, or as that user without --user")]
    NotRoot(String),
    /// The kernel refused an operation.
    #[error("dropping privileges: {action}")]
    Refused {
        /// The operation that failed.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Account {
    /// Looks up a user by name. Fails if the process could not become that user.
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

/// Names the missing capabilities in an error of loading, if any are missing.
pub fn explain(error: KernelError) -> KernelError {
    let missing = missing();
    match error {
        KernelError::NotPermitted(_) | KernelError::Refused { .. } if !missing.is_empty() => {
            KernelError::NotPermitted(format!("{} missing", missing.join(", ")))
        }
        error => error,
    }
}

/// Names of the capabilities that loading takes and this process lacks.
fn missing() -> Vec<String> {
    LOADING
        .into_iter()
        .filter(|&capability| !has(capability))
        .map(|capability| capability.to_string())
        .collect()
}

/// Drops all capabilities but CAP_NET_ADMIN for good, and becomes `account`.
/// Must be called while the process has one thread.
pub fn drop_privileges(account: Option<&Account>) -> Result<(), PrivilegeError> {
    let kept: CapsHashSet = KEPT.into_iter().filter(|&capability| has(capability)).collect();
    // Only CAP_SETPCAP permits a change of the bounding set. Without it no_new_privs alone bars the way back.
    if has(Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(uncapped("clearing the bounding set"))?;
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
        caps::set(None, set, &kept).map_err(uncapped("setting the permitted capabilities"))?;
    }
    prctl::set_no_new_privs().map_err(refused("setting no_new_privs"))
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

fn refused(action: &'static str) -> impl FnOnce(nix::Error) -> PrivilegeError {
    move |errno| PrivilegeError::Refused { action, source: errno.into() }
}

fn uncapped(action: &'static str) -> impl FnOnce(caps::errors::CapsError) -> PrivilegeError {
    move |error| PrivilegeError::Refused { action, source: io::Error::other(error) }
}
