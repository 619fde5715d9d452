//! The rules of the state machine as options.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tcp_common::Rules;

use super::{word_parser, words};
use crate::view::{State, StateSet};

/// The rules that can be chosen; `None` leaves them to the environment, the file and the defaults.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineArgs {
    /// Maximum segment lifetime: a remote end stays in TIME-WAIT twice as long [default: 30s]
    ///
    /// An end on this host stays as long as Linux keeps it, 60s, whatever this says.
    #[arg(long, value_name = "DURATION", env = "FINWAIT_MSL", value_parser = limit)]
    pub msl: Option<Duration>,

    /// Believe no RST in TIME-WAIT, as with net.ipv4.tcp_rfc1337=1.
    #[arg(
        long, value_name = "BOOL", env = "FINWAIT_RFC1337",
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub rfc1337: Option<bool>,

    /// What restarts TIME-WAIT of every end: the peer's FIN alone, or more as Linux does [default: linux for ends on
    /// this host, fin for others]
    #[arg(long, value_name = "RULE", env = "FINWAIT_TW_RESTART", value_parser = word_parser::<TwRestart>())]
    pub tw_restart: Option<TwRestart>,

    /// How long an end may be silent in a state before it is given up; repeatable: fin_wait=1h, established=never.
    #[arg(long = "timeout", value_name = "STATE=DURATION", env = "FINWAIT_TIMEOUT", value_delimiter = ',')]
    pub timeouts: Vec<Timeout>,
}

words! {
    /// What restarts 2MSL.
    pub enum TwRestart ("rule") {
        /// Only the peer's FIN (RFC 9293).
        Fin = "fin",
        /// Any segment with an ACK (Linux, `tcp_timewait_state_process`).
        Linux = "linux",
    }
}

impl MachineArgs {
    /// The agent's rules with what was chosen.
    pub fn rules(&self) -> Rules {
        let mut rules = Rules { linux_restart_local: 1, ..Rules::AGENT };
        if let Some(msl) = self.msl {
            rules.time_wait_remote_ns = nanoseconds(msl).saturating_mul(2);
        }
        if let Some(rfc1337) = self.rfc1337 {
            rules.rfc1337 = u32::from(rfc1337);
        }
        if let Some(restart) = self.tw_restart {
            rules.linux_restart_local = u32::from(restart == TwRestart::Linux);
            rules.linux_restart_remote = rules.linux_restart_local;
        }
        for timeout in &self.timeouts {
            for state in timeout.states.iter() {
                rules.silence_ns[state as usize] = timeout.limit.map_or(NEVER_NS, nanoseconds);
            }
        }
        rules
    }
}

/// What [`Rules::silence_ns`] calls no limit.
const NEVER_NS: u64 = 0;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A limit of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    states: StateSet,
    limit: Option<Duration>,
}

/// `STATE=DURATION`; the state may be a group such as `fin_wait`, the duration `never`.
impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Timeout, String> {
        let (name, limit) =
            text.split_once('=').ok_or("expected STATE=DURATION, as in close_wait=2h or fin_wait=never")?;
        Timeout::new(name.trim(), limit.trim())
    }
}

impl Timeout {
    fn new(name: &str, limit: &str) -> Result<Timeout, String> {
        let states =
            StateSet::parse(name).map_err(|error| format!("{error}, expected one of {}", known()))?;
        if let Some(state) = states.iter().find(|state| !is_limited(*state)) {
            return Err(match state {
                State::TimeWait => "TIME-WAIT does not end by silence: its length is twice --msl".to_owned(),
                state => format!("{} does not end by silence; expected one of {}", state.rfc_name(), known()),
            });
        }
        let limit = if limit.eq_ignore_ascii_case("never") { None } else { Some(self::limit(limit)?) };
        Ok(Timeout { states, limit })
    }

    /// A table of limits, as the configuration file has it.
    pub(super) fn table(table: &BTreeMap<String, String>) -> Result<Vec<Timeout>, String> {
        let timeout = |(name, limit): (&String, &String)| {
            Timeout::new(name, limit).map_err(|error| format!("{name}: {error}"))
        };
        table.iter().map(timeout).collect()
    }
}

fn is_limited(state: State) -> bool {
    Rules::AGENT.silence_ns[state as usize] != NEVER_NS
}

fn known() -> String {
    let names = State::ALL.into_iter().filter(|state| is_limited(*state)).map(State::name);
    names.chain(["fin_wait"]).collect::<Vec<_>>().join(", ")
}

/// A duration that the machine's clock and the agent's sweep can keep.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration such as 30s, 5m or 2h30m"))?;
    if duration < Duration::from_secs(1) || duration > Duration::from_secs(100 * 365 * 86_400) {
        return Err("expected a duration from 1s to 100 years".to_owned());
    }
    Ok(duration)
}
