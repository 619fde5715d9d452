//! The kinds of findings: what each means, what to do, and what not to do.

use crate::view::string_enum;

string_enum! {
    /// Kind of a finding, the most serious first.
    pub enum FindingKind ("finding") {
        /// The agent itself lost events, packets or interfaces.
        AgentLosses = "agent_losses",
        /// Local ports run out.
        PortExhaustion = "port_exhaustion",
        /// nf_conntrack's table fills.
        ConntrackFull = "conntrack_full",
        /// A listener's queue overflowed.
        ListenOverflow = "listen_overflow",
        /// Sockets in CLOSE-WAIT that their program does not close.
        CloseWaitLeak = "close_wait_leak",
        /// SYNs without an answer.
        UnansweredSyns = "unanswered_syns",
        /// Handshakes that lack the client's last ACK.
        HalfOpen = "half_open",
        /// FINs that the peer does not acknowledge.
        UnacknowledgedFins = "unacknowledged_fins",
        /// Peers that do not close their end.
        PeersDoNotClose = "peers_do_not_close",
        /// Many connections of one service end by RST.
        ResetStorm = "reset_storm",
        /// SYNs or FINs are retransmitted.
        RetransmittedHandshakes = "retransmitted_handshakes",
        /// Short connections that one long one would replace.
        Churn = "churn",
        /// The table of TIME-WAIT sockets overflows.
        TimeWaitOverflow = "time_wait_overflow",
        /// `tcp_tw_reuse` without timestamps.
        TwReuseWithoutTimestamps = "tw_reuse_without_timestamps",
        /// `tcp_fin_timeout` was changed.
        FinTimeoutChanged = "fin_timeout_changed",
        /// nf_conntrack forgets connections before their sockets do.
        ConntrackTimeoutShort = "conntrack_timeout_short",
    }
}

string_enum! {
    /// How sure a finding is.
    pub enum Likelihood ("confidence") {
        /// The evidence allows no other explanation.
        High = "high",
        /// There are other explanations, which are less likely.
        Medium = "medium",
        /// It may be nothing.
        Low = "low",
    }
}

impl FindingKind {
    /// What it means.
    pub const fn meaning(self) -> &'static str {
        use FindingKind as Kind;
        match self {
            Kind::AgentLosses => {
                "finwait did not see everything. Counts may be too low, and states of some connections are those before \
                 the loss until their next packet."
            }
            Kind::PortExhaustion => {
                "connect() fails with EADDRNOTAVAIL when no port of ip_local_port_range is free for its destination. A \
                 TIME-WAIT holds its port for 60 s."
            }
            Kind::ConntrackFull => {
                "When the table is full, nf_conntrack drops the packets of new connections: their SYNs are lost without \
                 an answer."
            }
            Kind::ListenOverflow => {
                "The program does not accept as fast as clients connect. The kernel drops the last ACK of handshakes, or \
                 SYNs; clients wait for retransmissions of a second and more."
            }
            Kind::CloseWaitLeak => {
                "The peer has closed, and the program on this end has not closed its socket. No timer ends CLOSE-WAIT: \
                 each such socket takes a file descriptor and a port until the program closes it or exits."
            }
            Kind::UnansweredSyns => {
                "SYNs go out and nothing comes back: a firewall drops them, the host is gone, or its listener's queue is \
                 full. A closed port would answer with a RST."
            }
            Kind::HalfOpen => {
                "The server has answered, and the client's ACK does not arrive: a SYN flood with forged addresses, an \
                 answer that takes another path, or a listener that holds the handshake back."
            }
            Kind::UnacknowledgedFins => {
                "This end has sent its FIN and the peer does not acknowledge it: the peer or the path to it is gone. The \
                 kernel retransmits the FIN and gives up after tcp_orphan_retries."
            }
            Kind::PeersDoNotClose => {
                "This end has closed and waits for the peer's FIN. Where the program has closed its socket, the kernel \
                 forgets the connection after tcp_fin_timeout and answers a later segment with a RST; a half-closed \
                 socket (shutdown) waits for ever."
            }
            Kind::ResetStorm => {
                "Connections are aborted instead of closed. Data that was not read is lost, and the peer's program gets \
                 ECONNRESET, or ECONNREFUSED if it was refused."
            }
            Kind::RetransmittedHandshakes => {
                "Segments of the handshake or the close are lost, or not answered in time. Each lost SYN costs a client a \
                 second or more."
            }
            Kind::Churn => {
                "Each request opens a connection of its own. Every one of them costs a round trip and leaves its port in \
                 TIME-WAIT for 2MSL at the end that closes first."
            }
            Kind::TimeWaitOverflow => {
                "There were more TIME-WAIT sockets than tcp_max_tw_buckets allows, so the kernel closed connections \
                 without TIME-WAIT: a retransmitted FIN gets a RST, and old duplicates may reach a new connection."
            }
            Kind::TwReuseWithoutTimestamps => {
                "tcp_tw_reuse needs TCP timestamps on both ends. Without them it changes nothing."
            }
            Kind::FinTimeoutChanged => {
                "tcp_fin_timeout is how long an orphaned FIN-WAIT-2 lasts. It is not TIME-WAIT, which is 60 s in Linux \
                 and cannot be set."
            }
            Kind::ConntrackTimeoutShort => {
                "nf_conntrack forgets a connection while its sockets still keep it. Behind NAT the next segment is \
                 not translated any more, and the peer answers it with a RST."
            }
        }
    }

    /// What to do.
    pub const fn remedy(self) -> &'static str {
        use FindingKind as Kind;
        match self {
            Kind::AgentLosses => {
                "Read `finwait status`: which interfaces are not watched and why, and whether the table is full \
                 (--max-flows)."
            }
            Kind::PortExhaustion => {
                "Keep connections open (keep-alive, a pool). Then: widen net.ipv4.ip_local_port_range, connect to several \
                 addresses or ports of the service or from several local addresses, or set net.ipv4.tcp_tw_reuse=1, \
                 which needs timestamps on both ends. `finwait ports` shows each destination."
            }
            Kind::ConntrackFull => {
                "Raise net.netfilter.nf_conntrack_max, or exempt the largest service from tracking (nft notrack). \
                 `finwait ls --by dst_host` shows whose connections they are."
            }
            Kind::ListenOverflow => {
                "Let the program accept faster. Raise its listen() backlog together with net.core.somaxconn if the load \
                 comes in bursts. `finwait why` shows a retransmitted SYN with ACK of each such client."
            }
            Kind::CloseWaitLeak => {
                "Look in the program for the path on which it reads the end of file and does not close, often an error \
                 path of a connection pool. Restarting it frees the sockets."
            }
            Kind::UnansweredSyns => {
                "Check the firewalls on the way and the server's listener. `finwait why` shows when each SYN was sent."
            }
            Kind::HalfOpen => {
                "Compare the clients' addresses: many that never connect are a flood (net.ipv4.tcp_syncookies), a few real \
                 ones point to the way back."
            }
            Kind::UnacknowledgedFins => "Check the path to the peer and whether the host is alive.",
            Kind::PeersDoNotClose => {
                "Check the program of the peer: it has not closed after it read the end of file."
            }
            Kind::ResetStorm => {
                "`finwait ls --closed reset CLASS` shows the connections, `finwait why` what came before the RST, `finwait \
                 glossary` what the class means. A program \
                 that closes with unread data sends a RST; so does SO_LINGER of 0."
            }
            Kind::RetransmittedHandshakes => {
                "`finwait why` shows which segment was sent again. Look for losses on the interface and the path, and for \
                 full listener queues at the server."
            }
            Kind::Churn => {
                "Let the client keep connections open (HTTP keep-alive, a connection pool), and let the client close \
                 first only where it has ports to spare."
            }
            Kind::TimeWaitOverflow => {
                "Raise net.ipv4.tcp_max_tw_buckets: a TIME-WAIT socket takes less than 300 bytes."
            }
            Kind::TwReuseWithoutTimestamps => "Set net.ipv4.tcp_timestamps=1, the default.",
            Kind::FinTimeoutChanged => {
                "Set it back to 60 unless orphaned FIN-WAIT-2 is what you want to shorten. Against many TIME-WAITs: fewer \
                 connections, more ports, or net.ipv4.tcp_tw_reuse on the host that connects."
            }
            Kind::ConntrackTimeoutShort => {
                "Let the programs send keepalives more often than the timeout (net.ipv4.tcp_keepalive_time with \
                 SO_KEEPALIVE), or raise the timeout."
            }
        }
    }

    /// What not to do.
    pub const fn avoid(self) -> &'static str {
        use FindingKind as Kind;
        match self {
            Kind::AgentLosses => "Do not read a missing connection as proof that there was none.",
            Kind::PortExhaustion => {
                "Do not lower tcp_fin_timeout: it does not shorten TIME-WAIT. Do not bind() before connect() without \
                 IP_BIND_ADDRESS_NO_PORT: such a port is taken for every destination."
            }
            Kind::ConntrackFull => {
                "Do not shorten nf_conntrack_tcp_timeout_established below the idle time of real connections."
            }
            Kind::ListenOverflow => {
                "Do not set tcp_abort_on_overflow: it turns a wait into a failure. A larger backlog alone only hides a \
                 program that is too slow."
            }
            Kind::CloseWaitLeak => {
                "Do not change tcp_fin_timeout or tcp_keepalive_time: neither has an effect on a socket that its program \
                 holds while its peer waits."
            }
            Kind::UnansweredSyns => {
                "Do not lower tcp_syn_retries for all programs: use a timeout of the program."
            }
            Kind::HalfOpen => "Do not raise tcp_synack_retries: it keeps forged connections longer.",
            Kind::UnacknowledgedFins => {
                "Do not raise tcp_max_orphans before you know why the peers are silent."
            }
            Kind::PeersDoNotClose => {
                "Do not lower tcp_fin_timeout to speed up TIME-WAIT: it is another state."
            }
            Kind::ResetStorm => "Do not let a firewall drop the RSTs: both ends would keep dead connections.",
            Kind::RetransmittedHandshakes => "Do not shorten the programs' timeouts: it adds more SYNs.",
            Kind::Churn => {
                "Do not use SO_LINGER of 0 to avoid TIME-WAIT: it sends a RST, and data in flight is lost. tcp_tw_reuse \
                 helps only the end that connects."
            }
            Kind::TimeWaitOverflow => "Do not lower it to get rid of TIME-WAIT.",
            Kind::TwReuseWithoutTimestamps => {
                "Do not expect tcp_tw_reuse to help a server: it is for the end that connects."
            }
            Kind::FinTimeoutChanged => "Do not expect fewer TIME-WAITs from it.",
            Kind::ConntrackTimeoutShort => "Do not rely on keepalive's default of two hours behind NAT.",
        }
    }
}
