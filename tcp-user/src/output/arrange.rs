//! Lists in an order, and counted by what connections have in common.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::str::FromStr;

use jiff::Timestamp;

use super::cell::{self, Cell, none};
use super::palette::Palette;
use super::table::TextTable;
use crate::view::{Connection, ConnectionEnd, Role, State};

/// A fact of a connection by which a list can be sorted or counted.
#[derive(Clone, Copy)]
pub struct Fact {
    name: &'static str,
    value: fn(&Connection, Timestamp) -> FactValue,
}

/// The value of a [`Fact`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FactValue {
    Unknown,
    Number(f64),
    Address(SocketAddr),
    Word(String),
}

/// A [`Fact`] and the direction of the order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SortKey {
    fact: Fact,
    descending: bool,
}

/// A name that is no [`Fact`].
#[derive(Debug, thiserror::Error)]
#[error("unknown key {name:?}; the keys are {}", FACTS.iter().map(|fact| fact.name).collect::<Vec<_>>().join(", "))]
pub struct UnknownFact {
    name: String,
}

impl std::fmt::Debug for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Fact {
    fn eq(&self, other: &Fact) -> bool {
        self.name == other.name
    }
}

impl FromStr for Fact {
    type Err = UnknownFact;

    fn from_str(name: &str) -> Result<Fact, UnknownFact> {
        let found = FACTS.iter().copied().find(|fact| fact.name == name);
        found.ok_or_else(|| UnknownFact { name: name.to_owned() })
    }
}

impl FromStr for SortKey {
    type Err = UnknownFact;

    fn from_str(text: &str) -> Result<SortKey, UnknownFact> {
        let (name, descending) = direction(text);
        Ok(SortKey { fact: name.parse()?, descending })
    }
}

/// Splits a key into its name and whether the order is descending.
pub(super) fn direction(key: &str) -> (&str, bool) {
    key.strip_prefix('-').map_or((key, false), |name| (name, true))
}

/// Sorts a list by some keys, the first one above all. Connections of which a fact is unknown come last.
pub fn sort(connections: &mut [Connection], keys: &[SortKey], now: Timestamp) {
    connections.sort_by_cached_key(|connection| {
        Sorted(keys.iter().map(|key| ((key.fact.value)(connection, now), key.descending)).collect())
    });
}

/// The values by which a record is sorted, and whether the order is descending.
pub(super) struct Sorted(pub(super) Vec<(FactValue, bool)>);

impl Ord for Sorted {
    fn cmp(&self, other: &Sorted) -> Ordering {
        let orders = self.0.iter().zip(&other.0).map(|((a, descending), (b, _))| match (a, b) {
            (FactValue::Unknown, FactValue::Unknown) => Ordering::Equal,
            (FactValue::Unknown, _) => Ordering::Greater,
            (_, FactValue::Unknown) => Ordering::Less,
            _ if *descending => b.compare(a),
            _ => a.compare(b),
        });
        orders.fold(Ordering::Equal, Ordering::then)
    }
}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Sorted) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sorted {
    fn eq(&self, other: &Sorted) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Sorted {}

impl FactValue {
    /// Compares two known values of one fact.
    fn compare(&self, other: &FactValue) -> Ordering {
        match (self, other) {
            (FactValue::Number(a), FactValue::Number(b)) => a.total_cmp(b),
            (FactValue::Address(a), FactValue::Address(b)) => a.cmp(b),
            (FactValue::Word(a), FactValue::Word(b)) => a.cmp(b),
            _ => Ordering::Equal,
        }
    }

    fn text(&self) -> String {
        match self {
            FactValue::Unknown => none().text,
            FactValue::Number(number) => number.to_string(),
            FactValue::Address(address) => address.to_string(),
            FactValue::Word(word) => cell::escape_word(word),
        }
    }
}

/// Connections counted by some facts.
pub struct Groups {
    facts: Vec<Fact>,
    now: Timestamp,
    counts: HashMap<Vec<String>, u64>,
}

impl Groups {
    /// No connections yet; ages are as of `now`.
    pub fn new(facts: Vec<Fact>, now: Timestamp) -> Groups {
        Groups { facts, now, counts: HashMap::new() }
    }

    /// Counts one connection.
    pub fn push(&mut self, connection: &Connection) {
        let values = self.facts.iter().map(|fact| (fact.value)(connection, self.now).text()).collect();
        *self.counts.entry(values).or_default() += 1;
    }

    /// Writes at most `limit` groups, the largest first. Returns the number of connections.
    pub fn write(
        self,
        out: &mut impl Write,
        titles: bool,
        limit: Option<usize>,
        palette: Palette,
    ) -> io::Result<u64> {
        let total = self.counts.values().sum();
        let mut groups: Vec<_> = self.counts.into_iter().collect();
        groups.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        let columns = [("count", true)].into_iter().chain(self.facts.iter().map(|fact| (fact.name, false)));
        let columns: Vec<_> = columns.map(|(name, number)| (name.to_uppercase(), number)).collect();
        let columns = columns.iter().map(|(title, number)| (title.as_str(), *number));
        let mut table =
            if titles { TextTable::with_columns(columns) } else { TextTable::without_titles(columns) };
        for (values, count) in groups.into_iter().take(limit.unwrap_or(usize::MAX)) {
            table.row([Cell::from(count.to_string())].into_iter().chain(values.into_iter().map(Cell::from)));
        }
        table.write(out, palette)?;
        out.flush()?;
        Ok(total)
    }
}

fn end(connection: &Connection, side: fn(Role) -> Role) -> &ConnectionEnd {
    connection.end(side(connection.source()))
}

fn address(end: &ConnectionEnd) -> FactValue {
    FactValue::Address(end.socket_address())
}

fn host(end: &ConnectionEnd) -> FactValue {
    FactValue::Word(end.address.to_string())
}

fn state(end: &ConnectionEnd) -> FactValue {
    if end.state == State::Unknown { FactValue::Unknown } else { word(end.state.rfc_name()) }
}

fn word(text: impl Into<String>) -> FactValue {
    FactValue::Word(text.into())
}

fn known<T>(value: Option<T>, as_value: impl FnOnce(T) -> FactValue) -> FactValue {
    value.map_or(FactValue::Unknown, as_value)
}

fn since(at: Timestamp, now: Timestamp) -> FactValue {
    FactValue::Number(now.duration_since(at).as_secs_f64().max(0.0))
}

fn number(value: u64) -> FactValue {
    FactValue::Number(value as f64)
}

/// Every fact. `src` and `dst` are the local and the remote end, as in filters.
const FACTS: &[Fact] = &[
    fact("client", |c, _| address(&c.client)),
    fact("server", |c, _| address(&c.server)),
    fact("src", |c, _| address(end(c, |source| source))),
    fact("dst", |c, _| address(end(c, Role::peer))),
    fact("src_host", |c, _| host(end(c, |source| source))),
    fact("dst_host", |c, _| host(end(c, Role::peer))),
    fact("sport", |c, _| number(end(c, |source| source).port.into())),
    fact("dport", |c, _| number(end(c, Role::peer).port.into())),
    fact("state", |c, _| state(end(c, |source| source))),
    fact("peer_state", |c, _| state(end(c, Role::peer))),
    fact("client_state", |c, _| state(&c.client)),
    fact("server_state", |c, _| state(&c.server)),
    fact("kind", |c, _| word(if c.is_closing() { "closing" } else { c.close_word() })),
    fact("closer", |c, _| {
        known(c.close.as_ref().and_then(|close| close.closer), |closer| word(closer.name()))
    }),
    fact("aborter", |c, _| known(c.close.as_ref().and_then(|close| close.aborter), |side| word(side.name()))),
    fact("process", |c, _| known(c.process.as_ref(), |process| word(process.comm.as_str()))),
    fact("unit", |c, _| known(c.process.as_ref().and_then(|process| process.unit.as_deref()), word)),
    fact("interface", |c, _| known(c.interface.as_deref(), word)),
    fact("family", |c, _| word(c.family.name())),
    fact("confidence", |c, _| word(c.confidence.name())),
    fact("age", |c, now| known(c.opened_at, |at| since(at, now))),
    fact("idle", |c, now| since(c.last_seen_at, now)),
    fact("handshake", |c, _| known(c.handshake_ms, FactValue::Number)),
    fact("expires", |c, _| known(c.time_wait.as_ref(), |time_wait| number(time_wait.expires_in_ms))),
    fact("bytes", |c, _| number(c.client.bytes + c.server.bytes)),
    fact("segments", |c, _| number(c.client.segments + c.server.segments)),
];

const fn fact(name: &'static str, value: fn(&Connection, Timestamp) -> FactValue) -> Fact {
    Fact { name, value }
}

impl Fact {
    /// Every name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FACTS.iter().map(|fact| fact.name)
    }

    /// Whether it is known only with the owners of sockets.
    pub fn asks_for_process(&self) -> bool {
        matches!(self.name, "process" | "unit")
    }
}

impl SortKey {
    /// The fact.
    pub fn fact(&self) -> Fact {
        self.fact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    fn sorted(keys: &[&str]) -> Vec<u16> {
        let mut list =
            [samples::time_wait(), samples::established(), samples::close_wait(), samples::older()];
        let keys: Vec<SortKey> = keys.iter().map(|key| key.parse().unwrap()).collect();
        for (port, connection) in (1..).zip(&mut list) {
            connection.client.port = port;
        }
        sort(&mut list, &keys, samples::at(47, 0.0));
        list.iter().map(|connection| connection.client.port).collect()
    }

    #[test]
    fn a_descending_order_is_the_reverse_and_unknown_facts_are_last() {
        let (up, mut down) = (sorted(&["client"]), sorted(&["-client"]));
        down.reverse();
        assert_eq!(up, down);
        // One connection alone is in TIME-WAIT.
        assert_eq!((sorted(&["expires"])[0], sorted(&["-expires"])[0]), (1, 1));
    }

    #[test]
    fn a_second_key_decides_between_equal_ones() {
        let mut list = [(1, 10), (2, 20), (3, 10)].map(|(port, bytes)| {
            let mut connection = samples::established();
            (connection.client.port, connection.client.bytes, connection.server.bytes) = (port, bytes, 0);
            connection
        });
        let keys = ["bytes", "-client"].map(|key| key.parse().unwrap());
        sort(&mut list, &keys, samples::at(47, 0.0));
        assert_eq!(list.map(|connection| connection.client.port), [3, 1, 2]);
    }

    #[test]
    fn groups_are_counted_the_largest_first() {
        let mut groups = Groups::new(vec!["state".parse().unwrap()], samples::at(47, 0.0));
        for connection in [samples::time_wait(), samples::established(), samples::established()] {
            groups.push(&connection);
        }
        let mut out = Vec::new();
        assert_eq!(groups.write(&mut out, true, Some(1), Palette::PLAIN).unwrap(), 3);
        assert_eq!(String::from_utf8(out).unwrap(), "COUNT  STATE\n    2  ESTABLISHED\n");
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_known_ones() {
        let error = "bits".parse::<SortKey>().unwrap_err().to_string();
        assert!(error.starts_with("unknown key \"bits\"; the keys are client, server, src"), "{error}");
    }
}
