//! The two ways to apply segments and the clock to flows: in this process, or by the kernel programs with
//! their own table.

use tcp_common::record::event_kind;
use tcp_common::wire::{FirstHeader, IcmpError, Packet};
use tcp_common::{Cause, Flow, FlowKey, Ignored, Outcome, Previous, Rules, State};

use super::link::Bare;
use crate::kernel::{Events, Kernel, KernelError, LoadOptions, ProgramName, SlotGuard};
use crate::options::KeyBy;

/// The way in which a replay applies segments.
pub(super) enum Machine {
    /// `Flow::on_segment` in this process.
    Pure,
    /// `Flow::on_segment` in the XDP program, run over every frame by `BPF_PROG_TEST_RUN`.
    Kernel(Box<InKernel>),
}

impl Machine {
    /// Applies a segment to its flow.
    pub(super) fn segment(
        &mut self,
        now_ns: u64,
        bare: &Bare<'_>,
        packet: &Packet,
        flow: &mut Flow,
        rules: &Rules,
    ) -> Result<Outcome, Ignored> {
        match self {
            Machine::Pure => Ok(flow.on_segment(now_ns, packet.sender, &packet.segment, rules)),
            Machine::Kernel(kernel) => kernel.segment(now_ns, bare, packet, flow),
        }
    }

    /// Applies an ICMP error to the flow that it is about.
    pub(super) fn icmp(
        &mut self,
        now_ns: u64,
        bare: &Bare<'_>,
        (packet, error): (&Packet, IcmpError),
        flow: &mut Flow,
        rules: &Rules,
    ) -> Result<Outcome, Ignored> {
        let Packet { key, sender, segment, .. } = packet;
        match self {
            Machine::Pure => Ok(flow.on_icmp_error(now_ns, *sender, segment.seq, error, key.family, rules)),
            Machine::Kernel(kernel) => kernel.segment(now_ns, bare, packet, flow),
        }
    }

    /// Applies the clock to a flow.
    pub(super) fn tick(&mut self, now_ns: u64, key: &FlowKey, flow: &mut Flow, rules: &Rules) -> Outcome {
        match self {
            Machine::Pure => flow.tick(now_ns, rules),
            Machine::Kernel(kernel) => kernel.tick(now_ns, key, flow),
        }
    }

    /// Removes a flow from the kernel's table, if that is in use.
    pub(super) fn forget(&mut self, key: &FlowKey) {
        if let Machine::Kernel(kernel) = self
            && let Some(slot) = kernel.lock(key)
        {
            slot.remove();
        }
    }
}

/// The loaded kernel programs, not attached to any interface: they see the frames of the capture only.
pub struct InKernel {
    kernel: Kernel,
    events: Events,
    rules: Rules,
    clock_ns: u64,
    /// The counter of tracked packets when the capture began.
    tracked: u64,
    frame: Vec<u8>,
    fault: Option<KernelError>,
}

impl InKernel {
    /// Loads the programs, which takes seconds.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to load them.
    pub fn load(key: KeyBy) -> Result<InKernel, KernelError> {
        let mut kernel = Kernel::load(&LoadOptions {
            max_flows: MAX_FLOWS,
            max_flows_v6: MAX_FLOWS,
            key_by_vlan: key == KeyBy::Vlan,
            ..LoadOptions::default()
        })?;
        let events = kernel
            .take_events()
            .ok_or_else(|| KernelError::NotSupported("the rings of events are in use already".to_owned()))?;
        let rules = *kernel.rules();
        Ok(InKernel { kernel, events, rules, clock_ns: 0, tracked: 0, frame: Vec::new(), fault: None })
    }

    /// Clears the table and prepares for a capture with these rules.
    pub(super) fn begin(&mut self, rules: Rules) -> Result<(), KernelError> {
        // No end of a capture belongs to this host, whatever the hook says.
        self.rules = Rules {
            time_wait_local_ns: rules.time_wait_remote_ns,
            linux_restart_local: rules.linux_restart_remote,
            ..rules
        };
        self.kernel.table().clear();
        self.tracked = self.kernel.counters()?.packets_tracked();
        self.kernel.set_rules(self.rules)
    }

    /// Removes and returns the first error of running the programs.
    pub(super) fn take_fault(&mut self) -> Option<KernelError> {
        self.fault.take()
    }

    /// Number of packets of this capture that the programs gave to a flow.
    pub(super) fn tracked(&self) -> Result<u64, KernelError> {
        Ok(self.kernel.counters()?.packets_tracked() - self.tracked)
    }

    fn segment(
        &mut self,
        now_ns: u64,
        bare: &Bare<'_>,
        packet: &Packet,
        flow: &mut Flow,
    ) -> Result<Outcome, Ignored> {
        ethernet(bare, packet, &mut self.frame)?;
        if let Err(error) = self.run(now_ns) {
            self.fault.get_or_insert(error);
        }
        let (mut cause, mut previous) = (Cause::Nothing, Previous::None);
        self.events.drain(usize::MAX, |event| {
            match event.kind {
                event_kind::SEGMENT => cause = Cause::from_repr(event.cause).unwrap_or(cause),
                event_kind::PREVIOUS => {
                    cause = Cause::from_repr(event.cause).unwrap_or(cause);
                    previous = Previous::from_repr(event.previous).unwrap_or_default();
                }
                // An evicted flow is another one, and nothing defers a segment here.
                _ => {}
            }
        });
        let before = std::mem::replace(flow, self.read(&packet.key).ok_or(Ignored::TableFull)?);
        if cause == Cause::Nothing && before.states() != flow.states() {
            // A SYN without an answer makes no event.
            cause = Cause::Syn;
        }
        let begun = before.is_empty() || previous != Previous::None;
        // What the replay has reported, not the programs.
        flow.set_reported(if begun { 0 } else { before.reported() });
        let from = if begun { [State::Closed; 2] } else { before.states() };
        Ok(Outcome { to: flow.states(), cause, previous, ..Outcome::unchanged(from) })
    }

    fn run(&mut self, now_ns: u64) -> Result<(), KernelError> {
        if self.clock_ns != now_ns {
            self.kernel.set_clock_ns(now_ns)?;
            self.clock_ns = now_ns;
        }
        self.kernel.test_run(ProgramName::Xdp, &self.frame, 1).map(|_| ())
    }

    fn tick(&mut self, now_ns: u64, key: &FlowKey, flow: &mut Flow) -> Outcome {
        let rules = self.rules;
        if let Some(mut slot) = self.lock(key) {
            let outcome = slot.tick(now_ns, &rules);
            let reported = flow.reported();
            *flow = slot.without_locality();
            flow.set_reported(reported);
            return outcome;
        }
        // It was evicted from the kernel's table.
        flow.tick(now_ns, &rules)
    }

    fn read(&self, key: &FlowKey) -> Option<Flow> {
        let table = self.kernel.table();
        table.read(table.find(key)?).map(|entry| entry.flow.without_locality())
    }

    fn lock(&self, key: &FlowKey) -> Option<SlotGuard<'_>> {
        let table = self.kernel.table();
        table.try_lock(table.find(key)?)
    }
}

/// Writes the packet as an Ethernet frame, as far as the programs read it.
fn ethernet(bare: &Bare<'_>, packet: &Packet, frame: &mut Vec<u8>) -> Result<(), Ignored> {
    frame.clear();
    let bytes = bare.packet.bytes;
    let ip_offset = match bare.link {
        FirstHeader::Ethernet => 14 + 4 * usize::from(packet.vlan_count),
        FirstHeader::Ip => {
            frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
            if let Some(id) = bare.vlan {
                frame.extend([0x81, 0x00]);
                frame.extend(id.to_be_bytes());
            }
            frame.extend(if packet.key.family == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
            0
        }
    };
    let length_at = ip_offset + if packet.key.family == 4 { 2 } else { 4 };
    if bytes.get(length_at..length_at + 2) == Some(&[0, 0]) {
        // BIG TCP: the frame's own length counts, and a test run takes no frame of that length.
        return Err(Ignored::Unsupported);
    }
    let captured = bytes.len().min(READ);
    frame.extend(&bytes[..captured]);
    // Options that the capture has cut become padding.
    let tcp = packet.datagram.tcp_offset as usize;
    let headers_end = tcp + bytes.get(tcp + 12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    frame.resize(frame.len() + headers_end.saturating_sub(captured), 0);
    Ok(())
}

/// Bytes of a packet that are passed to the programs: all that they read, in the one page that a test run
/// has for a frame.
const READ: usize = 2_048;
/// Capacity of each table, the agent's default.
const MAX_FLOWS: u32 = 262_144;
