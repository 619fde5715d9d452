//! The words of the records, explained for people.

/// A word and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlossaryEntry {
    /// Where the word is used.
    pub group: &'static str,
    /// The word as it is printed.
    pub word: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// Every word that needs an explanation, group by group.
pub fn glossary() -> impl Iterator<Item = GlossaryEntry> {
    GROUPS.iter().flat_map(|(group, words)| {
        words.iter().map(|&(word, meaning)| GlossaryEntry { group, word, meaning })
    })
}

type Words = &'static [(&'static str, &'static str)];

const GROUPS: &[(&str, Words)] = &[
    ("ends of a connection", ENDS),
    ("close kinds", CLOSE_KINDS),
    ("confidence", CONFIDENCE),
    ("tunnels", TUNNELS),
    ("states", STATES),
    ("classes of a reset", RESET_CLASSES),
    ("causes of a transition", CAUSES),
    ("ends of a TIME-WAIT", TIME_WAIT_ENDINGS),
    ("reasons to take a close back", REOPEN_REASONS),
    ("causes of a segment without effect", WITHOUT_EFFECT),
    ("reasons to ignore a packet", IGNORED),
];

const ENDS: Words = &[
    ("client", "The end that sent the first SYN. If that SYN was not seen, the end with the higher port."),
    ("server", "The end that is not the client."),
    ("local", "An end in the agent's network namespace."),
    ("remote", "An end elsewhere: on another host, or in another network namespace."),
    ("on_host", "An end on this host, local or in another network namespace (a container, a pod)."),
    (
        "nat",
        "The host translates the connection. The client and server have the addresses of the original direction, \
         `reply` those that the server's packets have. Tables show both: ADDRESS=>TRANSLATED.",
    ),
    ("opener", "The end that sent the first SYN, both after a simultaneous open, or unknown."),
    ("closer", "The end that closed first: it sent its FIN before it had received one."),
    ("aborter", "The end whose RST ended the connection."),
    ("holder", "The end in TIME-WAIT. It keeps the port until TIME-WAIT expires."),
    (
        "incarnation",
        "One use of the same addresses and ports, from SYN to the end of TIME-WAIT, counted from 1.",
    ),
    ("id", "16 hexadecimal digits that name one connection in all of its records."),
    ("scope", "The interface whose link the link-local addresses (fe80::/10) belong to."),
    (
        "unconfirmed",
        "A state that follows from segments sent to this end. Its own segments have not confirmed it yet.",
    ),
];

const CLOSE_KINDS: Words = &[
    ("open", "Not closed, or not completely. In a filter: neither end has begun to close."),
    ("closing", "Only in a filter and in tables: the close has begun and is not complete."),
    ("fin_4seg", "Closed in four segments: FIN, ACK, FIN, ACK."),
    ("fin_3seg", "Closed in three segments: FIN, FIN with the ACK of the first, ACK."),
    ("simultaneous", "Both ends sent a FIN before they received the other's."),
    ("half_close", "One end sent a FIN, and the other one went on sending data before it closed too."),
    ("rst_abort", "Ended by an RST without any FIN."),
    ("rst_after_fin", "Ended by an RST after a FIN."),
    (
        "refused",
        "The SYN was answered by an RST, because nothing listens on that port, or by an ICMP error: port or protocol \
         unreachable, or prohibited by a firewall.",
    ),
    ("unreachable", "The SYN was answered by another ICMP error: the network does not reach the host."),
    ("syn_abort", "Ended by an RST before the handshake was complete."),
    ("syn_timeout", "The handshake was never completed."),
    (
        "timeout",
        "Ended without FIN or RST: no packets for longer than the idle timeout, or the socket is gone.",
    ),
    ("superseded", "A new connection with the same addresses and ports began before this one was closed."),
    ("unseen", "The connection was already closing when finwait started, so the kind is unknown."),
];

const CONFIDENCE: Words = &[
    ("exact", "Every segment was seen."),
    ("gap", "Segments are missing from what was seen."),
    ("midstream", "The handshake was not seen, so client and server are guesses."),
    ("one_way", "Only one direction was seen."),
];

const TUNNELS: Words = &[
    ("ipip", "IPv4 in IPv4."),
    ("6in4", "IPv6 in IPv4."),
    ("4in6", "IPv4 in IPv6."),
    ("6in6", "IPv6 in IPv6."),
    ("gre", "GRE with IP, Ethernet or PPP inside."),
    ("erspan", "Mirrored frames in GRE."),
    ("mpls", "MPLS labels with IP or Ethernet behind them."),
    ("pppoe", "A PPPoE session."),
    ("vxlan", "VXLAN: Ethernet in UDP, to port 4789 or 8472."),
    ("geneve", "GENEVE: Ethernet or IP in UDP, to port 6081."),
    ("gtp_u", "User data of a mobile network: IP in UDP, to port 2152."),
    ("teredo", "Teredo: IPv6 in UDP, at port 3544."),
];

const STATES: Words = &[
    ("closed", "There is no connection (any more)."),
    ("listen", "Waits for a SYN."),
    ("syn_sent", "Sent a SYN, waits for the SYN-ACK."),
    ("syn_received", "Received a SYN, waits for the ACK of its SYN-ACK."),
    ("established", "Data can flow."),
    ("fin_wait_1", "Sent a FIN, waits for its ACK."),
    ("fin_wait_2", "Its FIN was acknowledged. Waits for the peer's FIN."),
    ("close_wait", "Received a FIN. The application has not closed the socket yet."),
    ("closing", "Both FINs crossed. Waits for the ACK of its own."),
    ("last_ack", "Received a FIN, sent its own, waits for the ACK."),
    ("time_wait", "Both FINs were acknowledged. Waits for 2MSL so that late segments die out."),
    ("unknown", "Nothing was seen of the end, so its state is not known. null in JSON, - in tables."),
];

const RESET_CLASSES: Words = &[
    (
        "refused_icmp",
        "An ICMP error answered the SYN: port or protocol unreachable, or prohibited by a firewall. refused: an RST did.",
    ),
    (
        "queue_full",
        "The listener had no room for the connection: tcp_abort_on_overflow is set, and its accept queue was full.",
    ),
    (
        "queue_full_or_half_open",
        "The last ACK of the handshake was answered by an RST. Segments do not show which of the two it is.",
    ),
    (
        "abort",
        "The program gave the connection up (SO_LINGER with 0 s), or its host did, such as after keepalives without answer.",
    ),
    (
        "abort_unread",
        "The program closed the socket, or ended, and had not read all of the data that had arrived.",
    ),
    (
        "abort_or_unread",
        "abort or abort_unread: there was data to read, and segments do not show whether the program had read it.",
    ),
    ("after_fin", "The sender of the RST had closed its socket. What the other end sent then had no reader."),
    (
        "half_open",
        "The sender of the RST did not know the connection any more: its host was started again, or a firewall in between \
         had lost it.",
    ),
    ("time_wait_assassination", "An RST of the peer ended TIME-WAIT (RFC 1337)."),
    ("refuted", "The receiver ignored an RST that looked acceptable, and the connection went on."),
    ("ignored", "Only in a filter: an RST was not accepted, because it was late, blind or forged."),
];

const CAUSES: Words = &[
    ("syn", "A SYN opened the connection."),
    ("syn_again", "The SYN was retransmitted."),
    ("syn_ack", "A SYN-ACK answered the SYN."),
    ("syn_ack_again", "The SYN-ACK was retransmitted."),
    ("ack", "An ACK acknowledged a SYN or a FIN."),
    ("data", "A segment with data arrived."),
    ("fin", "A FIN closed one direction."),
    ("fin_again", "The FIN was retransmitted: the ACK of it was lost or late."),
    ("rst", "An RST ended the connection."),
    ("time_wait_expired", "2MSL passed in TIME-WAIT."),
    ("silence", "No packets for longer than the idle timeout, or the socket is gone."),
    ("mid_stream", "The connection is older than what was seen."),
    ("reuse", "A SYN reused addresses and ports that were in TIME-WAIT."),
    ("fin_voided", "An ACK beyond a presumed FIN showed that there was none."),
    ("resync", "Both ends agreed on sequence numbers that were not seen."),
    ("reopened", "The ends went on after a RST that had been accepted."),
    (
        "socket_check",
        "A check found the local socket in another state: the host's firewall has dropped a FIN.",
    ),
    ("nothing", "The segment changed nothing."),
];

const TIME_WAIT_ENDINGS: Words = &[
    ("expired", "2MSL passed."),
    ("reused", "A new connection with the same addresses and ports began."),
    ("assassinated", "An RST of the peer ended it (RFC 1337)."),
    ("state_lost", "The holder answered a FIN by an RST: its host had dropped the TIME-WAIT."),
    (
        "socket_gone",
        "The kernel had no socket for it any more, such as after tcp_max_tw_buckets was exceeded.",
    ),
    ("evicted", "The flow table needed the space. finwait does not follow this TIME-WAIT any more."),
];

const REOPEN_REASONS: Words = &[
    ("data_acknowledged", "An end acknowledged data that the other had sent after the RST."),
    ("socket_alive", "The socket of an end still exists."),
];

const WITHOUT_EFFECT: Words = &[
    ("bad_flags", "A combination of flags that no TCP sends."),
    ("pending_syn", "A SYN that may begin the next incarnation. Only its answer decides."),
    ("old_dup_syn", "A late copy of an old SYN."),
    ("bad_syn_ack", "A SYN-ACK that acknowledges no SYN that was sent."),
    ("dup_syn_ack", "A SYN-ACK after the handshake."),
    ("old_dup_seq", "A late copy: its sequence numbers are below the window."),
    ("seq_above_window", "Its sequence numbers are above the window."),
    ("ack_unsent", "It acknowledges data that was never sent."),
    ("data_after_fin", "New data from an end that has sent its FIN."),
    ("late", "A segment of a connection that is closed."),
    ("rst_no_flow", "An RST for a connection that is not known."),
    ("rst_closed", "An RST for a connection that is closed."),
    ("rst_syn_sent", "An RST that does not acknowledge the SYN (RFC 9293, 3.10.7.3)."),
    ("rst_inexact", "An RST in the window, but not at the expected number (RFC 5961)."),
    ("rst_out_of_window", "An RST outside the window."),
    ("rst_rfc1337", "An RST in TIME-WAIT, ignored because of --rfc1337."),
];

const IGNORED: Words = &[
    ("not_tcp", "Not IPv4 or IPv6 with TCP inside."),
    (
        "fragment",
        "A fragment from the middle of a datagram, or one whose datagram did not become whole in 2 s.",
    ),
    ("icmp", "An ICMP error about a TCP segment that ended no connection attempt."),
    ("truncated", "The packet ends before its headers do."),
    ("malformed", "Lengths or versions in the headers contradict each other."),
    ("unsupported", "More VLAN tags, IPv6 extension headers or tunnels in each other than finwait follows."),
    ("bad_flags", "A combination of flags that every TCP drops."),
    ("no_flow", "It belongs to no tracked connection and opens none, such as a late RST or ACK."),
    (
        "duplicate",
        "The same packet was counted on another interface or hook, or a mirror port showed it twice.",
    ),
    ("self_connect", "A socket connected to itself: both ends have the same address and port."),
    ("table_full", "The flow table has no free slot, and no connection that may be evicted."),
    ("contended", "The connection was locked for too long, and the ring buffer was full."),
    (
        "other_network",
        "Numbers of another connection with the same addresses and ports, in another VLAN or on another interface.",
    ),
    (
        "too_many_vlans",
        "With --key vlan: as many combinations of VLAN tags as can be distinguished have been seen before.",
    ),
    ("no_program", "The rest of the kernel programs was missing behind the first. This is a bug of finwait."),
];

#[cfg(test)]
mod tests {
    use tcp_common::{Cause, CloseKind, Ignored, State};

    use super::*;

    #[test]
    fn every_word_of_the_records_is_explained() {
        let words: Vec<_> = glossary().map(|entry| entry.word).collect();
        let kinds = CloseKind::ALL.map(CloseKind::name);
        let states = State::ALL.map(State::name);
        let causes = (0..=u8::MAX).filter_map(Cause::from_repr).map(Cause::name);
        let reasons = Ignored::ALL.map(Ignored::name);
        let confidence = crate::view::Confidence::ALL.iter().map(|value| value.name());
        let tunnels = crate::view::Tunnel::ALL.iter().map(|value| value.name());
        let endings = crate::view::TimeWaitEnding::ALL.iter().map(|value| value.name());
        let resets = crate::view::ResetClass::ALL.iter().map(|value| value.name());
        let reasons_to_reopen = crate::view::ReopenReason::ALL.iter().map(|value| value.name());
        let needed = kinds
            .into_iter()
            .chain(states)
            .chain(causes)
            .chain(reasons)
            .chain(confidence)
            .chain(tunnels)
            .chain(endings)
            .chain(reasons_to_reopen)
            .chain(resets)
            .chain([crate::view::UNSEEN]);
        for word in needed {
            assert!(words.contains(&word), "{word}");
        }
    }
}
