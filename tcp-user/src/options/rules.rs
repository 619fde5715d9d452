//! Options of the state machine.

use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use tcp_common::Rules;

use crate::view::{State, StateSet};

/// Options of the state machine, shared by `run` and `replay`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RuleOptions {
    /// Maximum segment lifetime; a remote end stays in TIME-WAIT twice as long
    ///
    /// A local end stays in TIME-WAIT for 60s, as in Linux, whatever this option says.
    #[arg(long, value_name = "DURATION", env = "FINWAIT_MSL", default_value = "30s", value_parser = limit)]
    pub msl: Duration,

    /// Ignore RSTs in TIME-WAIT, as with net.ipv4.tcp_rfc1337=1 [default: false]
    #[arg(
        long, value_name = "BOOL", env = "FINWAIT_RFC1337", default_value = "false", hide_default_value = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set
    )]
    pub rfc1337: bool,

    /// Segments that restart TIME-WAIT of every end [default: linux for local ends, fin for remote ends]
    #[arg(long, value_name = "RULE", env = "FINWAIT_TW_RESTART", value_enum)]
    pub tw_restart: Option<TwRestart>,

    /// Idle timeout per state, repeatable: fin_wait=1h, established=never
    #[arg(long = "timeout", value_name = "STATE=DURATION", env = "FINWAIT_TIMEOUT", value_delimiter = ',')]
    pub timeouts: Vec<Timeout>,
}

/// The segments that restart 2MSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TwRestart {
    /// Only the peer's FIN (RFC 9293).
    Fin,
    /// Any segment with an ACK (Linux, tcp_timewait_state_process).
    Linux,
}

impl RuleOptions {
    /// The agent's rules with the chosen options.
    pub fn rules(&self) -> Rules {
        let mut rules = Rules { linux_restart_local: 1, ..Rules::AGENT };
        rules.time_wait_remote_ns = nanoseconds(self.msl).saturating_mul(2);
        rules.rfc1337 = u32::from(self.rfc1337);
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

/// The value of [`Rules::silence_ns`] for "no limit".
const NEVER_NS: u64 = 0;

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The idle timeout of one state, or of a group of states such as `fin_wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    states: StateSet,
    limit: Option<Duration>,
}

/// Parses `STATE=DURATION`; the duration may be `never`.
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
                State::TimeWait => "TIME-WAIT has no idle timeout: its length is twice --msl".to_owned(),
                state => format!("{} has no idle timeout; expected one of {}", state.rfc_name(), known()),
            });
        }
        let limit = if limit.eq_ignore_ascii_case("never") { None } else { Some(self::limit(limit)?) };
        Ok(Timeout { states, limit })
    }
}

fn is_limited(state: State) -> bool {
    Rules::AGENT.silence_ns[state as usize] != NEVER_NS
}

fn known() -> String {
    let names = State::ALL.into_iter().filter(|state| is_limited(*state)).map(State::name);
    names.chain(["fin_wait"]).collect::<Vec<_>>().join(", ")
}

/// Parses a duration that the state machine's clock can hold.
fn limit(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration such as 30s, 5m or 2h30m"))?;
    if duration < Duration::from_secs(1) || duration > Duration::from_secs(100 * 365 * 86_400) {
        return Err("expected a duration from 1s to 100 years".to_owned());
    }
    Ok(duration)
}
