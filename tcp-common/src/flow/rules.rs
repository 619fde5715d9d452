//! The rules that an operator may change.

use crate::state::State;

/// Timers and switches of the state machine. Fixed layout: the kernel programs read them from their settings.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// 2MSL of an end on this host, ns; Linux: `TCP_TIMEWAIT_LEN`, 60 s.
    pub time_wait_local_ns: u64,
    /// 2MSL of any other end, ns.
    pub time_wait_remote_ns: u64,
    /// Silence, in ns, after which an end in this state is given up; 0 = never. Indexed by [`State`].
    pub silence_ns: [u64; State::COUNT],
    /// 1: RSTs are ignored in TIME-WAIT (RFC 1337, `net.ipv4.tcp_rfc1337`).
    pub rfc1337: u32,
    /// 1: any segment with an ACK restarts TIME-WAIT of an end on this host (`tcp_timewait_state_process`).
    pub linux_restart_local: u32,
    /// 1: any segment with an ACK restarts TIME-WAIT of an end on another host.
    pub linux_restart_remote: u32,
    /// Padding, always 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Rules>() == 128);

/// One second, in ns.
const SECOND_NS: u64 = 1_000_000_000;

impl Rules {
    /// The rules of RFC 9293: 2MSL 60 s, only a FIN restarts TIME-WAIT, RSTs accepted in TIME-WAIT, no
    /// limit of silence.
    pub const RFC: Rules = Rules {
        time_wait_local_ns: 60 * SECOND_NS,
        time_wait_remote_ns: 60 * SECOND_NS,
        silence_ns: [0; State::COUNT],
        rfc1337: 0,
        linux_restart_local: 0,
        linux_restart_remote: 0,
        reserved: 0,
    };

    /// The shortest limit of silence of the states whose segments are predicted, ns; `i64::MAX` if there is
    /// none.
    pub fn steady_silence_ns(&self) -> u64 {
        [State::Established, State::FinWait2, State::CloseWait]
            .map(|state| self.silence_ns[state as usize])
            .into_iter()
            .filter(|&limit| limit != 0)
            .min()
            .unwrap_or(i64::MAX as u64)
    }

    /// [`Rules::RFC`] with the agent's limits of silence, so that no entry stays for ever. They are longer
    /// than what a Linux host itself waits: `tcp_syn_retries` 6 (127 s), `tcp_synack_retries` 5 (63 s),
    /// `tcp_orphan_retries` 8 (about 100 s), keepalive 2 h.
    pub const AGENT: Rules = {
        let mut rules = Rules::RFC;
        rules.silence_ns[State::SynSent as usize] = 130 * SECOND_NS;
        rules.silence_ns[State::SynReceived as usize] = 65 * SECOND_NS;
        rules.silence_ns[State::Established as usize] = 5 * 86_400 * SECOND_NS;
        rules.silence_ns[State::FinWait1 as usize] = 1_000 * SECOND_NS;
        rules.silence_ns[State::FinWait2 as usize] = 5 * 86_400 * SECOND_NS;
        rules.silence_ns[State::CloseWait as usize] = 5 * 86_400 * SECOND_NS;
        rules.silence_ns[State::Closing as usize] = 1_000 * SECOND_NS;
        rules.silence_ns[State::LastAck as usize] = 1_000 * SECOND_NS;
        rules
    };
}
