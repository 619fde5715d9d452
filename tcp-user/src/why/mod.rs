//! One connection explained: what its ends sent each other, what each of them waits for, and what that means.
//!
//! [`History`] records the segments while the connection is tracked. [`Explanation`] puts them in a person's
//! terms, with the sentences of `verdict`; `output` draws it.

mod history;
mod verdict;

pub use history::History;

pub(crate) use history::{Moment, Sent, SentSegment};

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tcp_common::{End, Flags, Flow, State};

use crate::clock::Clock;
use crate::view::{ByName, Connection, Role, known_state, micros, schema};

/// One connection explained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// `finwait.why/1`.
    pub schema: Cow<'static, str>,
    /// The connection as it stands.
    pub connection: Connection,
    /// The time that the explanation is of.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub as_of: Timestamp,
    /// What happened, oldest first: segments with SYN, FIN or RST, those that changed a state or had no effect,
    /// and timers that expired.
    pub steps: Vec<LadderStep>,
    /// Number of earlier steps that were not kept.
    pub forgotten: u64,
    /// Other segments after the last step.
    pub carried: CarriedSegments,
    /// What the client waits for.
    pub client_waits: String,
    /// What the server waits for.
    pub server_waits: String,
    /// What happened, in a few sentences.
    pub verdict: String,
    /// The sections of the standards that describe it.
    pub standards: Vec<Cow<'static, str>>,
}

/// One step of a connection's life.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LadderStep {
    /// Time of the segment, or time at which a timer expired.
    #[serde(with = "micros")]
    #[schemars(with = "Timestamp")]
    pub at: Timestamp,
    /// Other segments between the step before and this one.
    pub carried: CarriedSegments,
    /// The segment; `null` if a timer expired.
    pub segment: Option<LadderSegment>,
    /// What the segment did, or why it had no effect: a cause as in transitions.
    pub cause: Cow<'static, str>,
    /// Whether the step had an effect.
    pub effective: bool,
    /// State of the client after the step; `null` if nothing was seen of it.
    #[serde(with = "known_state")]
    #[schemars(with = "Option<ByName<State>>")]
    pub client: State,
    /// State of the server after the step; `null` if nothing was seen of it.
    #[serde(with = "known_state")]
    #[schemars(with = "Option<ByName<State>>")]
    pub server: State,
    /// Whether the step changed the client's state.
    pub client_changed: bool,
    /// Whether the step changed the server's state.
    pub server_changed: bool,
}

/// A segment of a [`LadderStep`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LadderSegment {
    /// The end that sent it.
    pub sender: Role,
    /// Its flags, of SYN, FIN, RST, PSH and ACK.
    #[serde(serialize_with = "flag_names", deserialize_with = "flags_of_names")]
    #[schemars(with = "Vec<String>")]
    pub flags: Flags,
    /// Sequence number, relative to that of the sender's SYN.
    pub seq: u32,
    /// Acknowledgment number, relative to the number of the receiver's SYN; `null` without ACK.
    pub ack: Option<u32>,
    /// Payload, in bytes.
    pub bytes: u32,
}

/// Segments of an open connection that changed nothing but numbers, by sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CarriedSegments {
    /// Segments of the client.
    pub client_segments: u64,
    /// Payload of these, in bytes. What was sent again counts once.
    pub client_bytes: u64,
    /// Segments of the server.
    pub server_segments: u64,
    /// Payload of these, in bytes. What was sent again counts once.
    pub server_bytes: u64,
}

impl Explanation {
    /// Explains a connection by the history of its flow, whose times are those of `clock`. `client` is the
    /// flow's end that is the client.
    pub fn new(
        connection: Connection,
        flow: &Flow,
        history: &History,
        client: End,
        clock: Clock,
        as_of: Timestamp,
    ) -> Explanation {
        let mut sent = [Sent::default(); 2];
        let mut steps: Vec<_> = history
            .moments()
            .map(|moment| {
                let before = std::mem::replace(&mut sent, moment.sent);
                LadderStep::new(moment, before, flow, client, clock)
            })
            .collect();
        hide_unheard(&mut steps);
        Explanation {
            schema: schema::WHY.into(),
            client_waits: verdict::waits(&connection, Role::Client),
            server_waits: verdict::waits(&connection, Role::Server),
            verdict: verdict::verdict(&connection, &steps),
            standards: verdict::standards(&connection),
            forgotten: history.forgotten(),
            carried: CarriedSegments::new(Sent::of(flow), sent, [Sent::default(); 2], client),
            connection,
            as_of,
            steps,
        }
    }

    /// Since when an end has its state; `None` if the step that changed it is not remembered.
    pub fn since(&self, side: Role) -> Option<Timestamp> {
        let changed = |step: &&LadderStep| match side {
            Role::Client => step.client_changed,
            Role::Server => step.server_changed,
        };
        self.steps.iter().rfind(changed).map(|step| step.at)
    }
}

/// An end that a SYN was sent to is taken to listen. That it did is known only once it has answered.
fn hide_unheard(steps: &mut [LadderStep]) {
    let answered =
        |state: fn(&LadderStep) -> State| steps.iter().any(|step| state(step) == State::SynReceived);
    let answered = [answered(|step| step.client), answered(|step| step.server)];
    for step in steps {
        for (state, answered) in [&mut step.client, &mut step.server].into_iter().zip(answered) {
            if *state == State::Listen && !answered {
                *state = State::Unknown;
            }
        }
    }
}

impl LadderStep {
    /// A step for a moment. `before` is what the ends had sent at the moment before.
    fn new(moment: &Moment, before: [Sent; 2], flow: &Flow, client: End, clock: Clock) -> LadderStep {
        let role = |end: End| if end == client { Role::Client } else { Role::Server };
        let segment = moment.segment.map(|segment| LadderSegment {
            sender: role(segment.sender),
            flags: segment.flags,
            seq: segment.seq.wrapping_sub(flow.end(segment.sender).isn()),
            ack: (segment.flags.has(Flags::ACK))
                .then(|| segment.ack.wrapping_sub(flow.end(segment.sender.peer()).isn())),
            bytes: segment.bytes,
        });
        let [ours, theirs] = [client, client.peer()].map(|end| end as usize);
        LadderStep {
            at: clock.wall(moment.at_ns),
            carried: CarriedSegments::new(moment.sent, before, moment.own(), client),
            segment,
            cause: moment.cause.name().into(),
            effective: moment.cause.has_effect(),
            client: moment.to[ours],
            server: moment.to[theirs],
            client_changed: moment.from[ours] != moment.to[ours],
            server_changed: moment.from[theirs] != moment.to[theirs],
        }
    }

    /// Whether a segment with these flags, of SYN, FIN, RST and ACK, was sent by this end.
    fn is(&self, sender: Role, flags: u8) -> bool {
        let kind = Flags::SYN | Flags::FIN | Flags::RST;
        let compared = if flags & Flags::SYN != 0 { kind | Flags::ACK } else { kind };
        let segment = self.segment.as_ref().filter(|segment| segment.sender == sender);
        segment.is_some_and(|segment| segment.flags.0 & compared == flags & compared)
    }
}

impl CarriedSegments {
    /// What the ends had sent by `after` and not by `before`, without what was their `own` in a step.
    fn new(after: [Sent; 2], before: [Sent; 2], own: [Sent; 2], client: End) -> CarriedSegments {
        let [ours, theirs] = [client, client.peer()].map(|end| {
            let end = end as usize;
            after[end].since(before[end], own[end])
        });
        CarriedSegments {
            client_segments: ours.segments,
            client_bytes: ours.bytes,
            server_segments: theirs.segments,
            server_bytes: theirs.bytes,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == CarriedSegments::default()
    }
}

impl LadderSegment {
    /// Names of the flags, in the order of RFC 9293.
    pub fn flag_names(&self) -> Vec<&'static str> {
        NAMES.into_iter().filter(|&(bit, _)| self.flags.has(bit)).map(|(_, name)| name).collect()
    }
}

fn flags_of_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Flags, D::Error> {
    let names: Vec<Cow<'de, str>> = Vec::deserialize(deserializer)?;
    let bit = |name: &str| NAMES.iter().find(|&&(_, known)| known == name).map_or(0, |&(bit, _)| bit);
    Ok(Flags(names.iter().fold(0, |bits, name| bits | bit(name))))
}

fn flag_names<S: Serializer>(flags: &Flags, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(NAMES.into_iter().filter(|&(bit, _)| flags.has(bit)).map(|(_, name)| name))
}

const NAMES: [(u8, &str); 5] =
    [(Flags::SYN, "SYN"), (Flags::FIN, "FIN"), (Flags::RST, "RST"), (Flags::PSH, "PSH"), (Flags::ACK, "ACK")];
