//! How an endpoint handles a segment that arrives (RFC 9293 3.10.7).

use tcp_common::{Flags, Segment, State};

use super::{Endpoint, FAR, WINDOW};

impl Endpoint {
    /// Handles a segment that arrives; what it sends in answer is appended to `out`.
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
        // RFC 9293 requires new bytes. Linux (`tcp_sequence`) also accepts a segment that ends where it has
        // just acknowledged.
        let acceptable = seq < window_end && end >= self.last_ack_sent;
        if has(Flags::RST) {
            if self.accepts_reset(seq) {
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
            // A simultaneous open (RFC 9293 figure 7): this SYN-ACK repeats the SYN that came before it.
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

    /// Whether a RST with this sequence number is accepted: at RCV.NXT, at the end of the highest block
    /// held, or on the FIN itself (`tcp_reset_check`). Also at the last ACK sent: a host that has
    /// received more since would not accept that, but an observer has to (R12).
    fn accepts_reset(&self, seq: u64) -> bool {
        let at_held_edge = self.held.iter().map(|held| held.1).max() == Some(seq);
        let has_fin = matches!(self.state, State::CloseWait | State::LastAck | State::Closing);
        seq == self.rcv_nxt
            || (self.state != State::TimeWait && seq == self.last_ack_sent)
            || (self.state != State::TimeWait && at_held_edge)
            || (has_fin && seq + 1 == self.rcv_nxt)
    }

    /// Handles the ACK field. Returns whether the rest of the segment is processed.
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

    /// Answers with a RST, which ends the sender's half-open connection.
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
}

/// The 64-bit number nearest to `reference` whose low 32 bits are `wire`.
fn near(reference: u64, wire: u32) -> u64 {
    let offset = wire.wrapping_sub(reference as u32) as i32;
    reference.wrapping_add_signed(i64::from(offset))
}
