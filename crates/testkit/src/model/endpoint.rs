//! One endpoint by RFC 9293 3.10, with the challenge ACKs of RFC 5961 and the resets that Linux accepts. It
//! keeps the state and sends what its user requests. The module `receive` handles the segments that arrive.

mod receive;

use tcp_common::{Flags, Segment, State};

/// A transmission control block, and what its user has asked for.
pub struct Endpoint {
    /// The state of the endpoint (RFC 9293 3.3.2).
    pub state: State,
    /// Whether it is in LISTEN whenever it has no connection.
    pub listens: bool,
    /// When TIME-WAIT began or was restarted, ns.
    pub time_wait_at_ns: u64,
    /// First sequence number that no earlier incarnation used.
    next_iss: u64,
    iss: u64,
    una: u64,
    nxt: u64,
    /// The FIN was sent; its sequence number is the one before `nxt`.
    fin_sent: bool,
    rcv_nxt: u64,
    /// Ranges received beyond a hole.
    held: Vec<(u64, u64)>,
    /// Sequence number of the peer's FIN, once it has arrived.
    peer_fin: Option<u64>,
    /// The user no longer reads: data that arrives is answered with a RST.
    deaf: bool,
    opened_actively: bool,
    ack_due: bool,
    /// The acknowledgment number it sent last.
    last_ack_sent: u64,
    /// Whether it lost its last connection without sending anything.
    pub crashed: bool,
    /// The acknowledgment number of the first copy of its FIN.
    pub first_fin_ack: Option<u32>,
    /// Whether it had received the peer's FIN when it sent its own.
    pub closed_knowing: bool,
    /// Whether it wrote something after it had received the peer's FIN.
    pub wrote_knowing: bool,
    /// Whether it never had a connection.
    pub is_fresh: bool,
}

impl Endpoint {
    /// An endpoint without a connection, in LISTEN or CLOSED.
    pub fn new(first_iss: u32, listens: bool) -> Endpoint {
        Endpoint {
            state: if listens { State::Listen } else { State::Closed },
            listens,
            time_wait_at_ns: 0,
            next_iss: FAR + u64::from(first_iss),
            iss: 0,
            una: 0,
            nxt: 0,
            fin_sent: false,
            rcv_nxt: FAR,
            held: Vec::new(),
            peer_fin: None,
            deaf: false,
            opened_actively: false,
            ack_due: false,
            last_ack_sent: FAR,
            crashed: false,
            first_fin_ack: None,
            closed_knowing: false,
            wrote_knowing: false,
            is_fresh: true,
        }
    }

    /// The user opens actively, `gap` sequence numbers after the last incarnation.
    pub fn open(&mut self, gap: u32, out: &mut Vec<Segment>) {
        if matches!(self.state, State::Closed | State::TimeWait) {
            self.begin(State::SynSent, gap);
            self.opened_actively = true;
            out.push(self.segment(self.iss, 0, Flags::SYN));
        }
    }

    /// The user writes `len` bytes; nothing is sent while half a window is unacknowledged.
    pub fn write(&mut self, len: u32, out: &mut Vec<Segment>) {
        let open = matches!(self.state, State::Established | State::CloseWait);
        if open && len > 0 && self.nxt - self.una < WINDOW / 2 {
            let seq = self.nxt;
            self.nxt += u64::from(len);
            self.wrote_knowing |= self.state == State::CloseWait;
            out.push(self.segment(seq, len, Flags::ACK | Flags::PSH));
        }
    }

    /// The user has nothing more to send: the FIN goes out with the last `len` bytes.
    pub fn shut_down(&mut self, len: u32, out: &mut Vec<Segment>) {
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            _ => return,
        };
        let seq = self.nxt;
        self.nxt += u64::from(len) + 1;
        self.fin_sent = true;
        self.first_fin_ack = Some(self.rcv_nxt as u32);
        self.closed_knowing = self.state == State::LastAck;
        self.wrote_knowing |= self.closed_knowing && len > 0;
        out.push(self.segment(seq, len, Flags::ACK | Flags::FIN));
    }

    /// The user closes and stops reading; the FIN goes out with the last `len` bytes.
    pub fn close(&mut self, len: u32, out: &mut Vec<Segment>) {
        self.shut_down(len, out);
        self.deaf = matches!(self.state, State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck);
    }

    /// The user aborts.
    pub fn abort(&mut self, out: &mut Vec<Segment>) {
        if self.is_synchronized() && self.state != State::TimeWait {
            out.push(self.segment(self.nxt, 0, Flags::RST | Flags::ACK));
            self.forget();
        }
    }

    /// The host forgets the connection and sends nothing.
    pub fn crash(&mut self) {
        if self.is_synchronized() && self.state != State::TimeWait {
            self.forget();
            self.crashed = true;
        }
    }

    /// The retransmission timer fires: the oldest bytes go out again, `len` of them at most.
    pub fn retransmit(&mut self, len: u32, out: &mut Vec<Segment>) {
        match self.state {
            State::SynSent => out.push(self.segment(self.iss, 0, Flags::SYN)),
            State::SynReceived => out.push(self.segment(self.iss, 0, Flags::SYN | Flags::ACK)),
            _ if self.is_synchronized() && self.una < self.nxt => {
                let data = self.nxt - self.una - u64::from(self.fin_sent);
                let len = data.min(u64::from(len.max(1)));
                let fin = if self.fin_sent && len == data { Flags::FIN } else { 0 };
                out.push(self.segment(self.una, len as u32, Flags::ACK | fin));
            }
            _ => {}
        }
    }

    /// Sends a keepalive of `len` bytes if nothing is outstanding.
    pub fn probe(&mut self, len: u32, out: &mut Vec<Segment>) {
        let idle = matches!(self.state, State::Established | State::CloseWait | State::FinWait2);
        if idle && self.una == self.nxt {
            out.push(self.segment(self.nxt - 1, len, Flags::ACK));
        }
    }

    /// Sends the delayed ACK if one is due.
    pub fn acknowledge(&mut self, out: &mut Vec<Segment>) {
        if self.ack_due {
            out.push(self.segment(self.nxt, 0, Flags::ACK));
        }
    }

    /// Advances the clock: TIME-WAIT ends after 2MSL.
    pub fn tick(&mut self, now_ns: u64, two_msl_ns: u64) {
        if self.state == State::TimeWait && now_ns >= self.time_wait_at_ns + two_msl_ns {
            self.forget();
        }
    }

    /// Whether it still has something to send or waits for an acknowledgment.
    pub fn is_busy(&self) -> bool {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        opening || self.ack_due || (self.is_synchronized() && self.una < self.nxt)
    }

    /// The number of sequence numbers in flight.
    pub fn unacknowledged(&self) -> u64 {
        self.nxt - self.una
    }

    /// Whether it waits for the answer to a SYN with this sequence number.
    pub fn opens_with(&self, seq: u32) -> bool {
        self.state == State::SynSent && self.iss as u32 == seq
    }

    /// The number of separate blocks it holds beyond holes.
    pub fn blocks_held(&self) -> usize {
        let mut held = self.held.clone();
        held.sort_unstable();
        let mut end = 0;
        let begins_one = |&&(start, block_end): &&(u64, u64)| {
            let apart = start > end;
            end = end.max(block_end);
            apart
        };
        held.iter().filter(begins_one).count()
    }

    fn begin(&mut self, state: State, gap: u32) {
        self.forget();
        self.crashed = false;
        self.first_fin_ack = None;
        self.closed_knowing = false;
        self.wrote_knowing = false;
        self.is_fresh = false;
        self.state = state;
        self.iss = self.next_iss.max(self.nxt) + u64::from(gap);
        self.una = self.iss;
        self.nxt = self.iss + 1;
        self.next_iss = self.nxt;
    }

    fn forget(&mut self) {
        self.state = if self.listens { State::Listen } else { State::Closed };
        self.next_iss = self.next_iss.max(self.nxt);
        self.fin_sent = false;
        self.held.clear();
        self.peer_fin = None;
        self.deaf = false;
        self.opened_actively = false;
        self.ack_due = false;
    }

    /// Enters TIME-WAIT, which never delays an ACK.
    fn wait(&mut self, now_ns: u64, out: &mut Vec<Segment>) {
        self.state = State::TimeWait;
        self.time_wait_at_ns = now_ns;
        self.acknowledge(out);
    }

    fn is_synchronized(&self) -> bool {
        !matches!(self.state, State::Closed | State::Listen | State::SynSent | State::SynReceived)
    }

    fn segment(&mut self, seq: u64, payload_len: u32, flags: u8) -> Segment {
        let ack = if flags & Flags::ACK != 0 { self.rcv_nxt as u32 } else { 0 };
        if flags & Flags::ACK != 0 {
            self.ack_due = false;
            self.last_ack_sent = self.rcv_nxt;
        }
        let flags = Flags(flags);
        Segment {
            seq: seq as u32,
            ack,
            payload_len,
            window: WINDOW as u16,
            flags,
            wire_segments: 1,
            ..Segment::default()
        }
    }
}

/// Receive window of both ends, bytes.
const WINDOW: u64 = 65_535;
/// An offset that keeps every 64-bit sequence number above 0.
const FAR: u64 = 1 << 40;
