//! Kernel programs of other programs on an interface, and a list of the programs attached there.

#![allow(
    unreachable_pub,
    dead_code,
    reason = "several test programs include this file, each uses what it needs"
)]

use std::ffi::CString;
use std::io;
use std::mem::offset_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use aya::Ebpf;
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{SchedClassifier, TcAttachType};
use finwait::kernel::has_tcx;
use finwait::lab::Host;
use nix::net::if_::if_nametoindex;

use crate::common::call;

/// An XDP program of another program, attached natively to the host's interface. Dropping it detaches it.
#[derive(Debug)]
pub struct Foreign {
    _link: OwnedFd,
}

impl Foreign {
    /// Loads `return XDP_PASS` under the name `foreign` and attaches it.
    pub fn attach(host: &Host) -> Foreign {
        host.run(|| {
            let index = if_nametoindex(host.interface).expect("the interface");
            let program =
                load(BPF_PROG_TYPE_XDP, &returning(XDP_PASS), b"foreign").expect("loading a program");
            // The fields of `union bpf_attr` for BPF_LINK_CREATE.
            let attributes: [u32; 4] = [program.as_raw_fd() as u32, index, BPF_XDP, XDP_FLAGS_DRV_MODE];
            let link = bpf(BPF_LINK_CREATE, &attributes).expect("attaching it");
            Foreign { _link: link }
        })
        .expect("entering the namespace")
    }
}

/// A TC program of another program, behind all others on its hook. Dropping it detaches it.
#[derive(Debug)]
pub struct ForeignTc<'a> {
    host: &'a Host,
    program: Option<SchedClassifier>,
}

impl Drop for ForeignTc<'_> {
    /// Detaches the program in the host's namespace, because a filter can be removed only there.
    fn drop(&mut self) {
        let program = self.program.take();
        self.host.run(|| drop(program)).expect("entering the namespace");
    }
}

impl ForeignTc<'_> {
    /// Drops every packet: as a TCX program, or as a filter of clsact.
    pub fn wall(host: &Host, hook: TcAttachType, tcx: bool) -> ForeignTc<'_> {
        let place = if tcx {
            TcAttachOptions::TcxOrder(LinkOrder::last())
        } else {
            TcAttachOptions::Netlink(NlOptions { priority: 0xff00, ..NlOptions::default() })
        };
        ForeignTc::attach(host, hook, &returning(TC_ACT_SHOT), place)
    }

    /// Lets every packet pass and ends the chain (`TC_ACT_OK`), as a TCX program.
    pub fn end_of_chain(host: &Host, hook: TcAttachType) -> ForeignTc<'_> {
        ForeignTc::attach(host, hook, &returning(TC_ACT_OK), TcAttachOptions::TcxOrder(LinkOrder::last()))
    }

    /// Rewrites the source of what the host sends, or the destination of what it gets, from one address to
    /// another, and hands on, as a TCX program.
    pub fn translator(
        host: &Host,
        hook: TcAttachType,
        [from, to]: [Ipv4Addr; 2],
        place: LinkOrder,
    ) -> ForeignTc<'_> {
        let offset = if matches!(hook, TcAttachType::Egress) { IPV4_SOURCE } else { IPV4_DESTINATION };
        ForeignTc::attach(host, hook, &translating(offset, from, to), TcAttachOptions::TcxOrder(place))
    }

    fn attach<'a>(
        host: &'a Host,
        hook: TcAttachType,
        instructions: &[[u8; 8]],
        place: TcAttachOptions,
    ) -> ForeignTc<'a> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        // Tests run in parallel, and the program is found by its name.
        let name = format!("foreign{}_{}", std::process::id(), BUILT.fetch_add(1, Ordering::Relaxed));
        let loaded = load(BPF_PROG_TYPE_SCHED_CLS, instructions, name.as_bytes()).expect("loading a program");
        let mut infos = aya::programs::loaded_programs().flatten();
        let info = infos.find(|info| info.name_as_str() == Some(&name)).expect("the program's number");
        let mut program = SchedClassifier::from_program_info(info, name.into()).expect("of TC");
        drop(loaded);
        host.run(|| {
            if matches!(place, TcAttachOptions::Netlink(_)) {
                // The qdisc may exist already.
                let _ = qdisc_add_clsact(host.interface);
            }
            program.attach_with_options(host.interface, hook, place)
        })
        .expect("entering the namespace")
        .expect("attaching the program");
        ForeignTc { host, program: Some(program) }
    }
}

/// The program that returns `verdict`, as `struct bpf_insn`.
fn returning(verdict: u8) -> [[u8; 8]; 2] {
    [instruction(MOV_VALUE, 0, 0, 0, verdict.into()), EXIT]
}

/// The program that replaces the IPv4 address at `offset` of an Ethernet frame with TCP, and hands on.
fn translating(offset: i32, from: Ipv4Addr, to: Ipv4Addr) -> Vec<[u8; 8]> {
    // As a program loads it.
    let [from, to] = [from, to].map(|address| i32::from_ne_bytes(address.octets()));
    let context = 6;
    let call = |helper, arguments: &[[u8; 8]]| {
        [&[instruction(MOV, 1, context, 0, 0)], arguments, &[instruction(CALL, 0, 0, 0, helper)]].concat()
    };
    let value = |register, value| instruction(MOV_VALUE, register, 0, 0, value);
    // The address is kept in the last four bytes of the stack.
    let on_stack =
        |register| [instruction(MOV, register, STACK, 0, 0), instruction(ADD_VALUE, register, 0, 0, -4)];
    let copy = [&[value(2, offset)][..], &on_stack(3), &[value(4, 4)]].concat();
    let replace = [
        call(
            L4_CSUM_REPLACE,
            &[value(2, TCP_CHECKSUM), value(3, from), value(4, to), value(5, PSEUDO_HEADER | 4)],
        ),
        call(L3_CSUM_REPLACE, &[value(2, IPV4_CHECKSUM), value(3, from), value(4, to), value(5, 4)]),
        vec![instruction(STORE_VALUE, STACK, 0, -4, to)],
        call(SKB_STORE_BYTES, &[&copy[..], &[value(5, 0)]].concat()),
    ]
    .concat();
    let skip = replace.len() as i16;
    [
        &[instruction(MOV, context, 1, 0, 0)][..],
        &call(SKB_LOAD_BYTES, &copy),
        &[instruction(JUMP_UNLESS, 0, 0, skip + 2, 0)],
        &[instruction(LOAD, 1, STACK, -4, 0), instruction(JUMP_UNLESS_WORD, 1, 0, skip, from)],
        &replace,
        &[value(0, TCX_NEXT), EXIT],
    ]
    .concat()
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> [u8; 8] {
    let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    [code, from << 4 | to, o0, o1, v0, v1, v2, v3]
}

/// Loads a program.
fn load(kind: u32, instructions: &[[u8; 8]], name: &[u8]) -> io::Result<OwnedFd> {
    let license = CString::new("GPL").expect("a license");
    /// The fields of `union bpf_attr` for BPF_PROG_LOAD, up to the name.
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
    let mut load = Load {
        kind,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        kernel_and_flags: [0; 2],
        name: [0; 16],
    };
    load.name[..name.len()].copy_from_slice(name);
    bpf(BPF_PROG_LOAD, &load)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads only the given number of bytes, and the caller keeps what their pointers refer
    // to.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just created this descriptor, and it has no other owner.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the names of the programs on an interface of a host: XDP, TCX and clsact, each after its hook.
pub fn attached(host: &Host, interface: &str) -> Vec<String> {
    let mut names = Vec::new();
    let links = call(host, "ip", &["-j", "-d", "link", "show", "dev", interface]);
    let links: serde_json::Value = serde_json::from_str(&links).expect("what ip says");
    if let Some(id) = links[0]["xdp"]["prog"]["id"].as_u64() {
        names.push(format!("xdp {}", program_name(id)));
    }
    for (hook, kind) in [("ingress", TcAttachType::Ingress), ("egress", TcAttachType::Egress)] {
        let programs = host
            .run(|| has_tcx(interface).then(|| SchedClassifier::query_tcx(interface, kind)))
            .expect("entering the namespace")
            .map_or_else(Vec::new, |answer| answer.expect("asking for TCX").1);
        names.extend(
            programs.iter().map(|program| format!("tcx {hook} {}", program.name_as_str().unwrap_or("?"))),
        );
        // Without clsact there are no filters, which tc reports as an error.
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

/// Leaves finwait's ingress filter on clsact, like an agent that was killed on a kernel without TCX.
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
    // Dropping the link would detach the filter.
    std::mem::forget(object);
}

/// Installs a seccomp filter that makes every `bpf()` call of this process fail with `errno`. For `pre_exec`.
pub fn without_bpf(errno: i32) -> io::Result<()> {
    refuse(&mut [
        load_word(offset_of!(libc::seccomp_data, nr)),
        skip_unless(libc::SYS_bpf as u32, 1),
        answer(libc::SECCOMP_RET_ERRNO | errno as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

/// Installs a seccomp filter that answers TCX calls like a kernel older than 6.6: links and queries of TCX
/// fail. Needs a little-endian machine.
pub fn without_tcx() -> io::Result<()> {
    refuse(&mut [
        load_word(offset_of!(libc::seccomp_data, nr)),
        skip_unless(libc::SYS_bpf as u32, 4),
        load_word(offset_of!(libc::seccomp_data, args)),
        skip_if(BPF_LINK_CREATE as u32, 1),
        skip_unless(BPF_PROG_QUERY as u32, 1),
        answer(libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

fn load_word(at: usize) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: at as u32,
    }
}

fn skip_if(word: u32, steps: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: steps,
        jf: 0,
        k: word,
    }
}

fn skip_unless(word: u32, steps: u8) -> libc::sock_filter {
    libc::sock_filter { jt: 0, jf: steps, ..skip_if(word, 0) }
}

fn answer(action: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: action }
}

fn refuse(steps: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the steps.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const TC_ACT_OK: u8 = 0;
const TC_ACT_SHOT: u8 = 2;
const TCX_NEXT: i32 = -1;
/// Codes of instructions.
const MOV: u8 = 0xbf;
const MOV_VALUE: u8 = 0xb7;
const ADD_VALUE: u8 = 0x07;
const LOAD: u8 = 0x61;
const STORE_VALUE: u8 = 0x62;
const JUMP_UNLESS: u8 = 0x55;
const JUMP_UNLESS_WORD: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: [u8; 8] = instruction(0x95, 0, 0, 0, 0);
/// The register with the end of the stack.
const STACK: u8 = 10;
/// Numbers of helpers.
const SKB_STORE_BYTES: i32 = 9;
const L3_CSUM_REPLACE: i32 = 10;
const L4_CSUM_REPLACE: i32 = 11;
const SKB_LOAD_BYTES: i32 = 26;
/// `BPF_F_PSEUDO_HDR`.
const PSEUDO_HEADER: i32 = 1 << 4;
/// Places in an Ethernet frame with IPv4 without options.
const IPV4_CHECKSUM: i32 = 14 + 10;
const IPV4_SOURCE: i32 = 14 + 12;
const IPV4_DESTINATION: i32 = 14 + 16;
const TCP_CHECKSUM: i32 = 14 + 20 + 16;
const XDP_PASS: u8 = 2;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
