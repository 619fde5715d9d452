//! State names as people type them, and sets of states.

use tcp_common::State;

/// Some of the states of one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct StateSet(u16);

/// A name of no state and no group of states.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown state `{0}`")]
pub struct UnknownState(pub String);

impl StateSet {
    /// No state.
    pub const EMPTY: StateSet = StateSet(0);

    /// Exactly these.
    pub const fn of(states: &[State]) -> StateSet {
        let mut bits = 0;
        let mut i = 0;
        while i < states.len() {
            bits |= 1 << states[i] as u16;
            i += 1;
        }
        StateSet(bits)
    }

    /// Whether the state is among them.
    pub const fn contains(self, state: State) -> bool {
        self.0 & (1 << state as u16) != 0
    }

    /// The RFC states among them, in the order of a connection's life.
    pub fn iter(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |state| self.contains(*state))
    }

    /// A state or a group of states by name. Takes the machine's spelling, that of RFC 9293, that of `ss` and that of
    /// the Linux kernel, in any case, with `-` or `_` or nothing between the words.
    pub fn parse(name: &str) -> Result<StateSet, UnknownState> {
        let wanted = squeeze(name);
        State::ALL
            .into_iter()
            .find(|state| squeeze(state.name()) == wanted)
            .map(|state| StateSet::of(&[state]))
            .or_else(|| {
                NICKNAMES.iter().find(|(nickname, _)| squeeze(nickname) == wanted).map(|(_, set)| *set)
            })
            .ok_or_else(|| UnknownState(name.to_owned()))
    }

    /// Every name that [`StateSet::parse`] takes, one spelling each: `time-wait`.
    pub fn names() -> impl Iterator<Item = String> {
        let states = State::ALL.into_iter().map(|state| state.rfc_name().to_ascii_lowercase());
        states.chain(NICKNAMES.iter().map(|(nickname, _)| (*nickname).to_owned()))
    }
}

fn squeeze(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// What `ss` calls its states, and its groups (ss(8), STATE-FILTER).
const NICKNAMES: &[(&str, StateSet)] = {
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
