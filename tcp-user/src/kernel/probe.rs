//! What is on an interface already, asked without touching it.

use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};

use super::attach::errno;

/// Whether this kernel has TCX (Linux 6.6), which it shows by answering who sits there on `interface`.
pub fn has_tcx(interface: &str) -> bool {
    match SchedClassifier::query_tcx(interface, TcAttachType::Ingress) {
        Ok(_) => true,
        // Only a kernel that has it gets as far as not telling who it is.
        Err(error) => !matches!(errno(&error), Some(libc::EINVAL | libc::EOPNOTSUPP)),
    }
}

/// A program by its number, in words for people; its name is told to root only.
pub fn describe_program(id: u32) -> String {
    let named = loaded_programs().flatten().find(|program| program.id() == id);
    match named.as_ref().and_then(|program| program.name_as_str()).filter(|name| !name.is_empty()) {
        Some(name) => format!("{name:?} (program {id})"),
        None => format!("program {id}"),
    }
}
