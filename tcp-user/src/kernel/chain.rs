//! The place of finwait's programs among those of others on a TC hook (TCX, `kernel/bpf/mprog.c`).
//!
//! finwait sees packets as they are on the wire: first on ingress and last on egress, so that both directions
//! show the same addresses even if another program translates them. If a program before it ends the chain on
//! egress, finwait's is never reached there; then it takes the first place.

use std::io;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use aya::programs::links::LinkOrder;

use super::attach::{Attachment, Hook, IngressLink, Mode};
use super::error::{chain as causes, failed};
use super::{AttachError, Kernel, KernelError, ProgramName, open};

/// Place of the egress program in its chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Place {
    /// No other program is on the hook.
    #[default]
    Alone,
    /// Behind all others: it gets packets as they leave.
    Last,
    /// Before all others, because one of them ends the chain: it gets packets before any translation.
    First,
}

/// What is known of the chain on the egress hook of an interface.
#[derive(Debug)]
pub(super) struct EgressChain {
    pub(super) place: Place,
    /// The other programs, when one of them was found to end the chain.
    ended_by: Vec<u32>,
    /// Packets that the interface had sent when they were last judged; 0 before.
    sent: u64,
    /// Number of looks in a row at which the interface had sent packets, none of which reached the last place.
    unreached: u8,
    /// How often the programs of this interface may still be moved.
    moves_left: u8,
}

impl Default for EgressChain {
    fn default() -> EgressChain {
        EgressChain { place: Place::Alone, ended_by: Vec::new(), sent: 0, unreached: 0, moves_left: MOVES }
    }
}

/// The map in which the programs in the last place say that they were reached.
pub(super) struct Reached(HashMap<MapData, u32, u32>);

impl Reached {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Reached, KernelError> {
        Ok(Reached(open(ebpf, REACHED)?))
    }

    /// Whether a packet of the interface has reached the last place since the last call.
    fn take(&mut self, index: u32) -> Result<bool, KernelError> {
        let reached = match self.0.get(&index, 0) {
            Ok(reached) => reached == 1,
            Err(MapError::KeyNotFound) => false,
            Err(error) => return Err(failed(format!("reading map {REACHED}"), error)),
        };
        self.0.insert(index, 0, 0).map_err(|error| failed(format!("writing map {REACHED}"), error))?;
        Ok(reached)
    }
}

impl Kernel {
    /// Keeps the programs of an interface first on ingress and last on egress, or first there too if a program
    /// before them ends the chain. `sent` is the number of packets that the interface has sent, which is judged only
    /// if it is given: half a second or more after the last time. Returns whether
    /// their place has changed.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses to list or attach programs. The interface may then be watched on one hook
    /// only.
    pub fn keep_places(
        &mut self,
        attachment: &mut Attachment,
        sent: Option<u64>,
    ) -> Result<bool, AttachError> {
        let ingress = attachment.ingress == Mode::Tcx && self.keep_first(attachment)?;
        let egress = attachment.egress == Mode::Tcx && self.keep_last(attachment, sent)?;
        Ok(ingress || egress)
    }

    /// Ingress: before all others.
    fn keep_first(&mut self, attachment: &mut Attachment) -> Result<bool, AttachError> {
        let name = attachment.link_layer.ingress();
        let own = self.id(name)?;
        let programs = query(attachment, Hook::Ingress)?;
        if programs.first() == Some(&own) || !attachment.chain.may_move(&attachment.interface) {
            return Ok(false);
        }
        // A program can be only once in a chain, so it leaves its place before it takes the other one.
        attachment.inbound = None;
        let (link, _) = self.attach_tc(&attachment.interface, name, Hook::Ingress, LinkOrder::first())?;
        attachment.inbound = Some(IngressLink::Tc(link));
        Ok(true)
    }

    /// Egress: behind all others, as long as they let packets through.
    fn keep_last(&mut self, attachment: &mut Attachment, sent: Option<u64>) -> Result<bool, AttachError> {
        let [alone, last] = attachment.link_layer.egress();
        let (alone_id, last_id) = (self.id(alone)?, self.id(last)?);
        let programs = query(attachment, Hook::Egress)?;
        let others: Vec<u32> =
            programs.iter().copied().filter(|&id| id != alone_id && id != last_id).collect();
        if let (Place::Last, Some(sent)) = (attachment.chain.place, sent) {
            let reached = self.reached.take(attachment.index)?;
            if attachment.chain.is_ended(reached, sent) {
                attachment.chain.ended_by.clone_from(&others);
            }
        }
        let chain = &attachment.chain;
        let wanted = match others.as_slice() {
            [] => Place::Alone,
            others if others == chain.ended_by => Place::First,
            _ => Place::Last,
        };
        let is_there = match wanted {
            Place::Alone => chain.place != Place::Last,
            Place::First => chain.place == Place::First,
            Place::Last => programs.last() == Some(&last_id),
        };
        if is_there {
            return Ok(std::mem::replace(&mut attachment.chain.place, wanted) != wanted);
        }
        if !attachment.chain.may_move(&attachment.interface) {
            return Ok(false);
        }
        let interface = attachment.interface.clone();
        // Attached before the other one goes, so that no packet is missed.
        match wanted {
            Place::Alone | Place::First => {
                attachment.outbound = self.attach_tc(&interface, alone, Hook::Egress, LinkOrder::first())?.0;
            }
            Place::Last => {
                if attachment.chain.place == Place::Last {
                    attachment.outbound =
                        self.attach_tc(&interface, alone, Hook::Egress, LinkOrder::last())?.0;
                }
                attachment.outbound = self.attach_tc(&interface, last, Hook::Egress, LinkOrder::last())?.0;
                self.reached.take(attachment.index)?;
            }
        }
        attachment.chain =
            EgressChain { place: wanted, sent: 0, unreached: 0, ..std::mem::take(&mut attachment.chain) };
        Ok(true)
    }

    fn id(&self, name: ProgramName) -> Result<u32, KernelError> {
        let reading = || format!("reading the number of program {}", name.name());
        let program = self.ebpf.program(name.name()).ok_or_else(|| super::missing(name))?;
        Ok(program.info().map_err(|error| failed(reading(), error))?.id())
    }
}

impl EgressChain {
    /// Whether a program before finwait's ends the chain: at two looks in a row, the interface had sent packets
    /// of which none reached the last place. One look could see packets that waited in the queue.
    fn is_ended(&mut self, reached: bool, sent: u64) -> bool {
        let before = std::mem::replace(&mut self.sent, sent);
        let sends = before != 0 && before < sent;
        self.unreached = match (reached, sends) {
            (true, _) => 0,
            (false, true) => self.unreached + 1,
            (false, false) => self.unreached,
        };
        self.unreached >= 2
    }

    /// Takes one of the moves that are left, so that two programs that both want a place do not move forever.
    fn may_move(&mut self, interface: &str) -> bool {
        let Some(left) = self.moves_left.checked_sub(1) else { return false };
        self.moves_left = left;
        if left == 0 {
            tracing::warn!(
                "{interface}: the order of its TC programs changed {MOVES} times; finwait keeps its present place"
            );
        }
        true
    }
}

/// The programs on a TCX hook in the order in which they run (`BPF_PROG_QUERY`). Needs CAP_NET_ADMIN.
fn query(attachment: &Attachment, hook: Hook) -> Result<Vec<u32>, AttachError> {
    let mut programs = [0u32; MAX_PROGRAMS];
    let mut attributes = ProgQuery {
        interface: attachment.index,
        attach_type: match hook {
            Hook::Ingress => BPF_TCX_INGRESS,
            Hook::Egress => BPF_TCX_EGRESS,
        },
        program_ids: programs.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..ProgQuery::default()
    };
    // SAFETY: the kernel reads and writes `attributes`, and writes at most `count` numbers to `programs`. Both
    // outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attributes, size_of::<ProgQuery>()) };
    if result == 0 {
        return Ok(programs[..attributes.count as usize].to_vec());
    }
    let error = io::Error::last_os_error();
    let interface = attachment.interface.clone();
    Err(match error.raw_os_error() {
        Some(libc::ENODEV) => AttachError::Gone { interface },
        _ => AttachError::Failed { interface, hook, reason: causes(&error) },
    })
}

/// The fields of `union bpf_attr` for BPF_PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    interface: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    _pad: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// The longest chain (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;
/// How often the programs of an interface are moved at most.
const MOVES: u8 = 32;
const REACHED: &str = "REACHED";
