//! One endpoint after RFC 9293 3.10, with RFC 5961's challenge ACKs and Linux's choice of believable resets.

use tcp_common::{Flags, Segment, State};

/// A transmission control block, and what its user has asked for.
pub struct Endpoint {
    pub state: State,
    /// Waits for a SYN whenever it has no connection.
    pub listens: bool,
    /// When TIME-WAIT began or was restarted, ns.
    pub time_wait_at_ns: u64,
    /// First number that was not used by an earlier incarnation.
    next_iss: u64,
    iss: u64,
    una: u64,
    nxt: u64,
    /// The FIN was sent; it is the octet before `nxt`.
    fin_sent: bool,
    rcv_nxt: u64,
    /// Ranges beyond a hole.
    held: Vec<(u64, u64)>,
    /// Number of the peer's FIN, once it has arrived.
    peer_fin: Option<u64>,
    /// The user has gone: data that arrives is answered with a RST.
    deaf: bool,
    opened_actively: bool,
    ack_due: bool,
    /// The acknowledgment number it sent last.
    told: u64,
    /// It lost its last connection without a word.
    pub crashed: bool,
    /// What the first copy of its FIN acknowledged.
    pub first_fin_ack: Option<u32>,
    /// Whether it had the peer's FIN when it sent its own.
    pub closed_knowing: bool,
    /// Whether it wrote something after it had the peer's FIN.
    pub wrote_knowing: bool,
    /// Whether it never had a connection.
    pub is_fresh: bool,
}

impl Endpoint {
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
            told: FAR,
            crashed: false,
            first_fin_ack: None,
            closed_knowing: false,
            wrote_knowing: false,
            is_fresh: true,
        }
    }

    /// The user opens actively, `gap` numbers after the last incarnation.
    pub fn open(&mut self, gap: u32, out: &mut Vec<Segment>) {
        if matches!(self.state, State::Closed | State::TimeWait) {
            self.begin(State::SynSent, gap);
            self.opened_actively = true;
            out.push(self.segment(self.iss, 0, Flags::SYN));
        }
    }

    /// The user writes; what does not fit into half a window is left.
    pub fn write(&mut self, len: u32, out: &mut Vec<Segment>) {
        let open = matches!(self.state, State::Established | State::CloseWait);
        if open && len > 0 && self.nxt - self.una < WINDOW / 2 {
            let seq = self.nxt;
            self.nxt += u64::from(len);
            self.wrote_knowing |= self.state == State::CloseWait;
            out.push(self.segment(seq, len, Flags::ACK | Flags::PSH));
        }
    }

    /// The user has nothing more to send: the FIN goes out, on `len` last octets.
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

    /// The user closes and reads no more.
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

    /// The host loses its memory and says nothing.
    pub fn crash(&mut self) {
        if self.is_synchronized() && self.state != State::TimeWait {
            self.forget();
            self.crashed = true;
        }
    }

    /// The retransmission timer: the oldest octets again, at most `len` of them at once.
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

    /// A keepalive, where nothing is outstanding.
    pub fn probe(&mut self, len: u32, out: &mut Vec<Segment>) {
        let idle = matches!(self.state, State::Established | State::CloseWait | State::FinWait2);
        if idle && self.una == self.nxt {
            out.push(self.segment(self.nxt - 1, len, Flags::ACK));
        }
    }

    /// The delayed ACK.
    pub fn acknowledge(&mut self, out: &mut Vec<Segment>) {
        if self.ack_due {
            out.push(self.segment(self.nxt, 0, Flags::ACK));
        }
    }

    pub fn tick(&mut self, now_ns: u64, two_msl_ns: u64) {
        if self.state == State::TimeWait && now_ns >= self.time_wait_at_ns + two_msl_ns {
            self.forget();
        }
    }

    /// Whether something is still to be said or heard.
    pub fn is_busy(&self) -> bool {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        opening || self.ack_due || (self.is_synchronized() && self.una < self.nxt)
    }

    /// How many numbers it has used that are not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.nxt - self.una
    }

    /// Whether it waits for the answer to a SYN of this number.
    pub fn opens_with(&self, seq: u32) -> bool {
        self.state == State::SynSent && self.iss as u32 == seq
    }

    /// How many separate blocks it holds beyond holes.
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

    /// A segment arrives (RFC 9293 3.10.7).
    pub fn receive(&mut self, segment: &Segment, now_ns: u64, out: &mut Vec<Segment>) {
        match self.state {
            State::Closed => self.refuse(segment, out),
            State::Listen => self.receive_in_listen(segment, out),
            State::SynSent => self.receive_in_syn_sent(segment, out),
            _ => self.receive_synchronized(segment, now_ns, out),
        }
    }

    fn receive_in_listen(&mut self, segment: &Segment, out: &mut Vec<Segment>) {
        let has = |bit| segment.flags.has(bit);
        if has(Flags::RST) {
        } else if has(Flags::ACK) {
            self.refuse(segment, out);
        } else if has(Flags::SYN) && !has(Flags::FIN) {
            self.accept(segment, out);
        }
    }

    fn accept(&mut self, segment: &Segment, out: &mut Vec<Segment>) {
        self.begin(State::SynReceived, 70_000);
        self.rcv_nxt = FAR + u64::from(segment.seq) + 1;
        out.push(self.segment(self.iss, 0, Flags::SYN | Flags::ACK));
    }

    fn receive_in_syn_sent(&mut self, segment: &Segment, out: &mut Vec<Segment>) {
        let has = |bit| segment.flags.has(bit);
        let ack = has(Flags::ACK).then(|| near(self.una, segment.ack));
        if ack.is_some_and(|ack| ack <= self.iss || ack > self.nxt) {
            if !has(Flags::RST) {
                self.refuse(segment, out);
            }
            return;
        }
        if has(Flags::RST) {
            if ack.is_some() {
                self.forget();
            }
            return;
        }
        if !has(Flags::SYN) || has(Flags::FIN) {
            return;
        }
        self.rcv_nxt = FAR + u64::from(segment.seq) + 1;
        match ack {
            Some(ack) => {
                self.una = ack;
                self.state = State::Established;
                out.push(self.segment(self.nxt, 0, Flags::ACK));
            }
            None => {
                self.state = State::SynReceived;
                out.push(self.segment(self.iss, 0, Flags::SYN | Flags::ACK));
            }
        }
    }

    fn receive_synchronized(&mut self, segment: &Segment, now_ns: u64, out: &mut Vec<Segment>) {
        let has = |bit| segment.flags.has(bit);
        let seq = near(self.rcv_nxt, segment.seq);
        let fin = has(Flags::FIN) && has(Flags::ACK) && !has(Flags::SYN);
        let bare_syn = has(Flags::SYN) && !has(Flags::ACK) && !has(Flags::RST) && !has(Flags::FIN);
        if self.state == State::TimeWait && bare_syn && self.listens && seq > self.rcv_nxt {
            return self.accept(segment, out);
        }
        let data_end = seq + u64::from(segment.payload_len);
        let end = data_end + u64::from(fin) + u64::from(has(Flags::SYN));
        let window_end = self.rcv_nxt + WINDOW;
        // Linux (`tcp_sequence`) is content with an end that it has acknowledged just now, RFC 9293 wants new octets.
        let acceptable = seq < window_end && end >= self.told;
        if has(Flags::RST) {
            if self.believes_reset(seq) {
                self.forget();
            } else if acceptable {
                out.push(self.segment(self.nxt, 0, Flags::ACK));
            }
            return;
        }
        if self.state == State::TimeWait && fin && self.peer_fin == Some(data_end) {
            self.time_wait_at_ns = now_ns;
        }
        if self.state == State::SynReceived && bare_syn && seq + 1 == self.rcv_nxt {
            // As Linux does (`tcp_check_req`); RFC 9293 has an ACK here.
            out.push(self.segment(self.iss, 0, Flags::SYN | Flags::ACK));
            return;
        }
        if self.state == State::SynReceived && self.opened_actively && has(Flags::SYN) && !bare_syn {
            // A simultaneous open (RFC 9293 figure 7): this SYN-ACK has the SYN that came before it.
            if seq + 1 == self.rcv_nxt && self.take_ack(segment, now_ns, out) {
                out.push(self.segment(self.nxt, 0, Flags::ACK));
            }
            return;
        }
        if !acceptable || has(Flags::SYN) {
            out.push(self.segment(self.nxt, 0, Flags::ACK));
            return;
        }
        if !has(Flags::ACK) || !self.take_ack(segment, now_ns, out) {
            return;
        }
        if matches!(self.state, State::Established | State::FinWait1 | State::FinWait2) {
            self.take_text(seq.max(self.rcv_nxt), data_end, fin, now_ns, out);
        } else if end > seq {
            out.push(self.segment(self.nxt, 0, Flags::ACK));
        }
    }

    /// Exactly where the next octet goes, or where the highest held one ended, or on the FIN itself (`tcp_reset_check`).
    /// Where this end's last ACK pointed: no host does that if it has got more since, but an observer has to (R12).
    fn believes_reset(&self, seq: u64) -> bool {
        let at_held_edge = self.held.iter().map(|held| held.1).max() == Some(seq);
        let has_fin = matches!(self.state, State::CloseWait | State::LastAck | State::Closing);
        seq == self.rcv_nxt
            || (self.state != State::TimeWait && seq == self.told)
            || (self.state != State::TimeWait && at_held_edge)
            || (has_fin && seq + 1 == self.rcv_nxt)
    }

    /// The ACK field. Returns whether the rest of the segment counts.
    fn take_ack(&mut self, segment: &Segment, now_ns: u64, out: &mut Vec<Segment>) -> bool {
        let ack = near(self.una, segment.ack);
        if self.state == State::SynReceived {
            if ack <= self.una || ack > self.nxt {
                self.refuse(segment, out);
                return false;
            }
            self.state = State::Established;
        }
        if ack > self.nxt {
            out.push(self.segment(self.nxt, 0, Flags::ACK));
            return false;
        }
        if ack + WINDOW < self.una {
            out.push(self.segment(self.nxt, 0, Flags::ACK));
            return false;
        }
        self.una = self.una.max(ack);
        if self.fin_sent && self.una == self.nxt {
            match self.state {
                State::FinWait1 => self.state = State::FinWait2,
                State::Closing => self.wait(now_ns, out),
                State::LastAck => {
                    self.forget();
                    return false;
                }
                _ => {}
            }
        }
        true
    }

    fn take_text(&mut self, seq: u64, data_end: u64, fin: bool, now_ns: u64, out: &mut Vec<Segment>) {
        if data_end > seq {
            if self.deaf {
                out.push(self.segment(self.nxt, 0, Flags::RST | Flags::ACK));
                self.forget();
                return;
            }
            self.held.push((seq, data_end));
            self.ack_due = true;
        }
        if fin {
            self.held.push((data_end, data_end + 1));
            self.peer_fin = Some(data_end);
            self.ack_due = true;
        }
        if data_end + u64::from(fin) <= self.rcv_nxt {
            self.ack_due = true;
        }
        self.held.sort_unstable();
        for &(start, end) in &self.held {
            if start <= self.rcv_nxt {
                self.rcv_nxt = self.rcv_nxt.max(end);
            }
        }
        let rcv_nxt = self.rcv_nxt;
        self.held.retain(|held| held.1 > rcv_nxt);
        if !self.held.is_empty() {
            out.push(self.segment(self.nxt, 0, Flags::ACK));
        }
        if self.peer_fin.is_some_and(|at| self.rcv_nxt == at + 1) {
            match self.state {
                State::Established => self.state = State::CloseWait,
                State::FinWait1 => self.state = State::Closing,
                State::FinWait2 => self.wait(now_ns, out),
                _ => {}
            }
        }
    }

    /// RST, so that the sender's half-open connection ends.
    fn refuse(&mut self, segment: &Segment, out: &mut Vec<Segment>) {
        if segment.flags.has(Flags::RST) {
            return;
        }
        out.push(if segment.flags.has(Flags::ACK) {
            Segment { seq: segment.ack, flags: Flags(Flags::RST), wire_segments: 1, ..Segment::default() }
        } else {
            let flags = Flags(Flags::RST | Flags::ACK);
            Segment { ack: segment.end(), flags, wire_segments: 1, ..Segment::default() }
        });
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

    /// TIME-WAIT delays no ACK: nobody is left to do it.
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
            self.told = self.rcv_nxt;
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

/// The 64-bit number nearest to `reference` that looks like `wire` on the wire.
fn near(reference: u64, wire: u32) -> u64 {
    let offset = wire.wrapping_sub(reference as u32) as i32;
    reference.wrapping_add_signed(i64::from(offset))
}

/// Receive window of both ends, octets.
const WINDOW: u64 = 65_535;
/// Far from 0, so that no 64-bit number goes below it.
const FAR: u64 = 1 << 40;
