//! Inspects what is attached to an interface, without changing it.

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};

use super::error::errno;

/// Returns whether this kernel has TCX (Linux 6.6 and later). Asks for the TCX programs on `interface`.
pub fn has_tcx(interface: &str) -> bool {
    match SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        Ok(_) => true,
        // A kernel with TCX fails with another error if the process may not list the programs.
        Err(error) => !matches!(errno(&error), Some(libc::EINVAL | libc::EOPNOTSUPP)),
    }
}

/// Describes a program by name and id. The kernel reveals the name to root only.
pub fn describe_program(id: u32) -> String {
    let named = loaded_programs().flatten().find(|program| program.id() == id);
    match named.as_ref().and_then(|program| program.name_as_str()).filter(|name| !name.is_empty()) {
        Some(name) => format!("{name:?} (program {id})"),
        None => format!("program {id}"),
    }
}
