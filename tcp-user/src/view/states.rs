//! Names of states as people type them, and sets of states.

use tcp_common::State;

/// A set of states of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct StateSet(u16);

/// A name of no state and no group of states.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state `{0}`")]
pub struct UnknownState(pub String);

impl StateSet {
    /// No state.
    pub const EMPTY: StateSet = StateSet(0);

    /// The set of these states.
    pub const fn of(states: &[State]) -> StateSet {
        let mut bits = 0;
        let mut i = 0;
        while i < states.len() {
            bits |= 1 << states[i] as u16;
            i += 1;
        }
        StateSet(bits)
    }

    /// Whether the set has the state.
    pub const fn contains(self, state: State) -> bool {
        self.0 & (1 << state as u16) != 0
    }

    /// The RFC states of the set, in the order of a connection's life.
    pub fn iter(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |state| self.contains(*state))
    }

    /// Parses the name of a state or of a group of states. Accepts the spellings of machine output, RFC 9293,
    /// `ss` and the Linux kernel, in any case, with `-`, `_` or nothing between the words.
    pub fn parse(name: &str) -> Result<StateSet, UnknownState> {
        let wanted = squeeze(name);
        State::ALL
            .into_iter()
            .find(|state| squeeze(state.name()) == wanted)
            .map(|state| StateSet::of(&[state]))
            .or_else(|| ALIASES.iter().find(|(nickname, _)| squeeze(nickname) == wanted).map(|(_, set)| *set))
            .ok_or_else(|| UnknownState(name.to_owned()))
    }

    /// Every name that [`StateSet::parse`] takes, one spelling each: `time-wait`.
    pub fn names() -> impl Iterator<Item = String> {
        let states = State::ALL.into_iter().map(|state| state.rfc_name().to_ascii_lowercase());
        states.chain(ALIASES.iter().map(|(nickname, _)| (*nickname).to_owned()))
    }
}

fn squeeze(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// The names that `ss` has for states and groups of states (ss(8), STATE-FILTER).
const ALIASES: &[(&str, StateSet)] = {
    use State::*;
    const SYNCHRONIZED: &[State] =
        &[SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait];
    &[
        ("estab", StateSet::of(&[Established])),
        ("syn-recv", StateSet::of(&[SynReceived])),
        ("listening", StateSet::of(&[Listen])),
        ("close", StateSet::of(&[Closed])),
        ("fin-wait", StateSet::of(&[FinWait1, FinWait2])),
        ("unknown", StateSet::of(&[Unknown])),
        ("all", StateSet(u16::MAX)),
        ("connected", StateSet(StateSet::of(SYNCHRONIZED).0 | StateSet::of(&[SynSent]).0)),
        ("synchronized", StateSet::of(SYNCHRONIZED)),
        ("bucket", StateSet::of(&[SynReceived, TimeWait])),
        ("big", StateSet(!StateSet::of(&[SynReceived, TimeWait]).0)),
    ]
};
