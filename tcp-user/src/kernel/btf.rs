//! The kernel's own description of its types (BTF), as far as offsets, the names of an enumeration and the arguments of a
//! tracepoint go.
//!
//! aya reads BTF too, but not for its users; the other reader of it has a licence that this project does not link.

use std::collections::HashMap;
use std::io;

/// The types of the running kernel.
pub(super) struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Position of each type, by its number less 1.
    types: Vec<usize>,
}

/// Why the kernel's description could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BtfError {
    #[error("reading {PATH}")]
    Read(#[from] io::Error),
    #[error("{PATH} is not BTF of a version that finwait reads")]
    Malformed,
}

/// A kind of type, by its number in BTF.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TypeKind(u32);

impl Btf {
    /// Reads the types of the running kernel: some 5 MiB.
    pub(super) fn of_kernel() -> Result<Btf, BtfError> {
        Btf::parse(std::fs::read(PATH)?).ok_or(BtfError::Malformed)
    }

    fn parse(bytes: Vec<u8>) -> Option<Btf> {
        let header_len = word(&bytes, 4)? as usize;
        if bytes.first_chunk() != Some(&MAGIC.to_ne_bytes()) {
            return None;
        }
        let [start, len, strings] = [8, 12, 16].map(|at| word(&bytes, at).map(|value| value as usize));
        let (mut at, strings) = (header_len + start?, header_len + strings?);
        let end = at + len?;
        let mut types = Vec::new();
        while at < end {
            types.push(at);
            let info = word(&bytes, at + 4)?;
            at += HEADER + TypeKind::of(info).extra(info & 0xffff)?;
        }
        Some(Btf { bytes, strings, types })
    }

    /// Offset of a member of a structure, in bytes; also one in a structure or union without a name.
    pub(super) fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        self.member_bits(self.find(TypeKind::STRUCT, structure)?, member).map(|bits| bits / 8)
    }

    /// The names of an enumeration by their numbers.
    pub(super) fn names(&self, enumeration: &str) -> Option<HashMap<u32, String>> {
        let at = self.find(TypeKind::ENUM, enumeration)?;
        let value = |n: usize| {
            let at = at + HEADER + n * 8;
            Some((self.word(at + 4)?, self.string(self.word(at)?)?.to_owned()))
        };
        (0..self.count(at)?).map(value).collect()
    }

    /// Number of arguments of a tracepoint.
    pub(super) fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = self.find(TypeKind::TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.referred(typedef)?;
        // The first one is the program's own data.
        self.count(self.referred(pointer)?)?.checked_sub(1)
    }

    fn member_bits(&self, at: usize, wanted: &str) -> Option<u32> {
        let info = self.word(at + 4)?;
        (0..self.count(at)?).find_map(|n| {
            let member = at + HEADER + n * 12;
            let bits = self.word(member + 8)? & if info >> 31 == 1 { 0xff_ffff } else { u32::MAX };
            match self.string(self.word(member)?)? {
                "" => {
                    let inner = self.position(self.word(member + 4)?)?;
                    let nests = [TypeKind::STRUCT, TypeKind::UNION].contains(&self.kind(inner)?);
                    self.member_bits(inner, wanted).filter(|_| nests).map(|inside| bits + inside)
                }
                name => (name == wanted).then_some(bits),
            }
        })
    }

    fn find(&self, kind: TypeKind, name: &str) -> Option<usize> {
        let is_it = |&at: &usize| {
            self.kind(at) == Some(kind) && self.word(at).and_then(|at| self.string(at)) == Some(name)
        };
        self.types.iter().copied().find(is_it)
    }

    /// The type that a pointer, typedef or other modifier refers to.
    fn referred(&self, at: usize) -> Option<usize> {
        self.position(self.word(at + 8)?)
    }

    fn position(&self, number: u32) -> Option<usize> {
        self.types.get((number as usize).checked_sub(1)?).copied()
    }

    fn kind(&self, at: usize) -> Option<TypeKind> {
        self.word(at + 4).map(TypeKind::of)
    }

    /// Number of members, values or parameters.
    fn count(&self, at: usize) -> Option<usize> {
        self.word(at + 4).map(|info| (info & 0xffff) as usize)
    }

    fn word(&self, at: usize) -> Option<u32> {
        word(&self.bytes, at)
    }

    fn string(&self, at: u32) -> Option<&str> {
        let bytes = self.bytes.get(self.strings + at as usize..)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        str::from_utf8(&bytes[..end]).ok()
    }
}

impl TypeKind {
    const STRUCT: TypeKind = TypeKind(4);
    const UNION: TypeKind = TypeKind(5);
    const ENUM: TypeKind = TypeKind(6);
    const TYPEDEF: TypeKind = TypeKind(8);

    const fn of(info: u32) -> TypeKind {
        TypeKind(info >> 24 & 0x1f)
    }

    /// Number of bytes behind a type's header; `None` for a kind that is not known, behind which nothing can be read.
    const fn extra(self, count: u32) -> Option<usize> {
        let count = count as usize;
        Some(match self.0 {
            // Integer, variable, tag of a declaration.
            1 | 14 | 17 => 4,
            // Array.
            3 => 12,
            // Structure, union, data section, enumeration of 64 bits.
            4 | 5 | 15 | 19 => count * 12,
            // Enumeration, parameters of a function.
            6 | 13 => count * 8,
            // Pointer, declarations, modifiers, function, floating-point number.
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

const PATH: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
/// Name, information, and size or number of another type.
const HEADER: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_of_this_kernel_can_be_read() {
        let btf = match Btf::of_kernel() {
            Err(BtfError::Read(_)) => return,
            other => other.expect("BTF"),
        };
        // As they have been since BTF exists.
        assert_eq!(btf.offset("sock_common", "skc_daddr"), Some(0));
        assert_eq!(btf.offset("sock_common", "skc_dport"), Some(12));
        assert!(btf.offset("sk_buff", "transport_header").is_some_and(|offset| offset > 0));
        assert_eq!(btf.offset("sk_buff", "no such member"), None);
        assert!(btf.tracepoint_arguments("tcp_send_reset").is_some_and(|count| count >= 2));
    }
}
