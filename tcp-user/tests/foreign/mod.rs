//! Somebody else's kernel programs on an interface, and a look at what sits there.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "several test programs include this file, each uses what it needs"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};
use finwait::lab::Host;
use nix::net::if_::if_nametoindex;

use crate::common::call;

/// An XDP program that is not finwait's, natively on the host's interface until it is dropped.
#[derive(Debug)]
pub struct Foreign {
    _link: OwnedFd,
}

impl Foreign {
    /// Loads `return XDP_PASS` under the name `foreign` and attaches it.
    pub fn attach(host: &Host) -> Foreign {
        host.run(|| {
            let index = if_nametoindex(host.interface).expect("the interface");
            let program = load_pass().expect("loading a program");
            // `struct bpf_attr`, the part of BPF_LINK_CREATE.
            let attributes: [u32; 4] = [program.as_raw_fd() as u32, index, BPF_XDP, XDP_FLAGS_DRV_MODE];
            let link = bpf(BPF_LINK_CREATE, &attributes).expect("attaching it");
            Foreign { _link: link }
        })
        .expect("entering the namespace")
    }
}

fn load_pass() -> io::Result<OwnedFd> {
    // `r0 = XDP_PASS; exit`, as `struct bpf_insn`.
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let license = CString::new("GPL").expect("a license");
    /// `struct bpf_attr`, the part of BPF_PROG_LOAD up to the name.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        kernel_and_flags: [u32; 2],
        name: [u8; 16],
    }
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        kernel_and_flags: [0; 2],
        name: *b"foreign\0\0\0\0\0\0\0\0\0",
    };
    bpf(BPF_PROG_LOAD, &load)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many octets as it is told, and what they point to lives in the caller.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match i32::try_from(fd) {
        // SAFETY: a new descriptor that nobody else has.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The names of the programs on an interface of a host: XDP, TCX and clsact, each after its hook.
pub fn attached(host: &Host, interface: &str) -> Vec<String> {
    let mut names = Vec::new();
    let links = call(host, "ip", &["-j", "-d", "link", "show", "dev", interface]);
    let links: serde_json::Value = serde_json::from_str(&links).expect("what ip says");
    if let Some(id) = links[0]["xdp"]["prog"]["id"].as_u64() {
        names.push(format!("xdp {}", program_name(id)));
    }
    for (hook, kind) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
        let (_, programs) = host
            .run(|| SchedClassifier::query_tcx(interface, kind))
            .expect("entering the namespace")
            .expect("asking for TCX");
        names.extend(
            programs.iter().map(|program| format!("tcx {hook} {}", program.name_as_str().unwrap_or("?"))),
        );
        // Without clsact there are none, and tc calls that an error.
        if !call(host, "tc", &["qdisc", "show", "dev", interface]).contains("clsact") {
            continue;
        }
        let filters = call(host, "tc", &["filter", "show", "dev", interface, hook]);
        names.extend(
            filters.lines().filter(|line| line.contains("handle")).map(|line| format!("{hook} {line}")),
        );
    }
    names
}

fn program_name(id: u64) -> String {
    let mut programs = aya::programs::loaded_programs().flatten();
    let found = programs.find(|program| u64::from(program.id()) == id);
    found.and_then(|program| program.name_as_str().map(str::to_owned)).unwrap_or_else(|| format!("#{id}"))
}

/// Leaves finwait's own ingress filter on clsact, as an agent that was killed on a kernel without TCX does.
pub fn leave_stale_filter(host: &Host) {
    static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/finwait.bpf.o");
    let mut object = Ebpf::load(OBJECT).expect("loading the object");
    let program: &mut SchedClassifier =
        object.program_mut("finwait_in").expect("a program").try_into().expect("of TC");
    program.load().expect("loading the program");
    let place = NlOptions { priority: 0xf19, handle: TcHandle::new(0, 0xf19), classid: None };
    host.run(|| {
        program.attach_with_options(host.interface, TcAttachType::Ingress, TcAttachOptions::Netlink(place))
    })
    .expect("entering the namespace")
    .expect("attaching");
    // Dropped, it would detach itself.
    std::mem::forget(object);
}

/// Makes every `bpf()` of this process fail with `errno`: a seccomp filter. For `pre_exec`.
pub fn without_bpf(errno: i32) -> io::Result<()> {
    const fn step(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_bpf as u32, 0, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the four steps.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
