//! Port budgets in every format.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::str::FromStr;

use super::arrange::{FactValue, Sorted, direction};
use super::cell::{self, Cell, duration, none};
use super::palette::Palette;
use super::table::TextTable;
use super::{Format, csv, json_line};
use crate::view::{PortBudget, Ports};

/// A fact of a port budget by which a list can be sorted, and the direction of the order.
#[derive(Clone, Copy)]
pub struct PortSortKey {
    fact: &'static PortFact,
    descending: bool,
}

struct PortFact {
    name: &'static str,
    value: fn(&PortBudget) -> FactValue,
}

/// A name that is no fact of a port budget.
#[derive(Debug, thiserror::Error)]
#[error("unknown key {name:?}; the keys are {}", FACTS.iter().map(|fact| fact.name).collect::<Vec<_>>().join(", "))]
pub struct UnknownPortFact {
    name: String,
}

impl std::fmt::Debug for PortSortKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.descending { "-" } else { "" }, self.fact.name)
    }
}

impl FromStr for PortSortKey {
    type Err = UnknownPortFact;

    fn from_str(text: &str) -> Result<PortSortKey, UnknownPortFact> {
        let (name, descending) = direction(text);
        let fact = FACTS.iter().find(|fact| fact.name == name);
        let fact = fact.ok_or_else(|| UnknownPortFact { name: name.to_owned() })?;
        Ok(PortSortKey { fact, descending })
    }
}

/// Sorts port budgets by some keys, the first one above all. Those that do not run out come last by `left`.
pub fn sort_ports(budgets: &mut [PortBudget], keys: &[PortSortKey]) {
    budgets.sort_by_cached_key(|budget| {
        Sorted(keys.iter().map(|key| ((key.fact.value)(budget), key.descending)).collect())
    });
}

/// Writes port budgets in one of the formats. `titles` says whether a table has its line about the range and its
/// titles.
pub fn write_ports(
    ports: &Ports,
    out: &mut impl Write,
    format: Format,
    titles: bool,
    palette: Palette,
) -> io::Result<()> {
    match format {
        Format::Table | Format::Wide => {
            if titles {
                writeln!(out, "{}", summary(ports))?;
            }
            let columns = COLUMNS.iter().filter(|column| !column.wide || format == Format::Wide);
            let shown = columns.clone().map(|column| (column.title, column.number));
            let mut table =
                if titles { TextTable::with_columns(shown) } else { TextTable::without_titles(shown) };
            for budget in &ports.destinations {
                table.row(columns.clone().map(|column| (column.cell)(budget)));
            }
            table.write(out, palette)?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, ports)?;
            writeln!(out)?;
        }
        Format::Ndjson => {
            ports.destinations.iter().try_for_each(|budget| json_line(out, budget))?;
        }
        Format::Csv => {
            let mut lines = csv::Lines::default();
            lines.write(out, csv::PORT_BUDGET.iter().map(|(name, _)| *name))?;
            for budget in &ports.destinations {
                lines.write(out, csv::PORT_BUDGET.iter().map(|(_, field)| field(budget)))?;
            }
        }
    }
    out.flush()
}

/// `ports 32768-60999: 28232, 0 reserved, 2 bound, 28230 for each destination`.
fn summary(ports: &Ports) -> String {
    let Ports { first, last, reserved, bound, available, .. } = ports;
    let all = reserved + bound + available;
    let (at_least, at_most) = if ports.bound_complete { ("", "") } else { ("at least ", "at most ") };
    format!(
        "ports {first}-{last}: {all}, {reserved} reserved, {at_least}{bound} bound, {at_most}{available} for each destination"
    )
}

struct PortColumn {
    title: &'static str,
    wide: bool,
    number: bool,
    cell: fn(&PortBudget) -> Cell,
}

const COLUMNS: &[PortColumn] = &[
    text("Local", |b| host(b.local_address, b.scope.as_deref())),
    text("Destination", |b| cell::address(b.remote(), b.scope.as_deref(), false)),
    number("Live", |b| b.live.to_string().into()),
    number("TimeWait", |b| b.time_wait.to_string().into()),
    wide("Reusable", |b| b.reusable.to_string().into()),
    number("Free", |b| b.free.to_string().into()),
    wide("Capacity", |b| b.capacity().to_string().into()),
    number("Opening/s", |b| rate(b.opening_per_second)),
    wide("Releasing/s", |b| rate(b.releasing_per_second)),
    number("Expiring/s", |b| rate(b.expiring_per_second)),
    number("Left", |b| b.exhausted_in_ms.map_or_else(none, left)),
];

const fn text(title: &'static str, cell: fn(&PortBudget) -> Cell) -> PortColumn {
    PortColumn { title, wide: false, number: false, cell }
}

const fn number(title: &'static str, cell: fn(&PortBudget) -> Cell) -> PortColumn {
    PortColumn { title, wide: false, number: true, cell }
}

const fn wide(title: &'static str, cell: fn(&PortBudget) -> Cell) -> PortColumn {
    PortColumn { title, wide: true, number: true, cell }
}

fn rate(per_second: f64) -> Cell {
    format!("{per_second:.1}").into()
}

fn left(ms: u64) -> Cell {
    if ms == 0 { "0s".into() } else { duration(ms as f64).into() }
}

/// An address without a port.
fn host(address: std::net::IpAddr, scope: Option<&str>) -> Cell {
    match scope {
        Some(scope) => format!("{address}%{}", cell::escape_word(scope)).into(),
        None => address.to_string().into(),
    }
}

const FACTS: &[PortFact] = &[
    fact("local", |b| FactValue::Address(SocketAddr::new(b.local_address, 0))),
    fact("remote", |b| FactValue::Address(b.remote())),
    fact("live", |b| FactValue::Number(b.live.into())),
    fact("time_wait", |b| FactValue::Number(b.time_wait.into())),
    fact("free", |b| FactValue::Number(b.free.into())),
    fact("opening", |b| FactValue::Number(b.opening_per_second)),
    fact("expiring", |b| FactValue::Number(b.expiring_per_second)),
    fact("left", |b| b.exhausted_in_ms.map_or(FactValue::Unknown, |ms| FactValue::Number(ms as f64))),
];

const fn fact(name: &'static str, value: fn(&PortBudget) -> FactValue) -> PortFact {
    PortFact { name, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    fn ports() -> Ports {
        samples::ports()
    }

    fn written(ports: &Ports, format: Format, titles: bool) -> String {
        let mut out = Vec::new();
        write_ports(ports, &mut out, format, titles, Palette::PLAIN).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_says_what_the_range_has() {
        insta::assert_snapshot!(written(&ports(), Format::Table, true));
        insta::assert_snapshot!(written(&ports(), Format::Wide, true));
        assert_eq!(written(&ports(), Format::Table, false).lines().count(), 2);
        let incomplete = Ports { bound_complete: false, ..ports() };
        let text = written(&incomplete, Format::Table, true);
        assert!(text.contains("at least 2 bound, at most 98 for each destination"), "{text}");
    }

    #[test]
    fn programs_get_every_key() {
        insta::assert_snapshot!(written(&ports(), Format::Csv, true));
        let json: Ports = serde_json::from_str(&written(&ports(), Format::Json, true)).unwrap();
        assert_eq!(json, ports());
        let line = written(&ports(), Format::Ndjson, true);
        let first: PortBudget = serde_json::from_str(line.lines().next().unwrap()).unwrap();
        assert_eq!(first, ports().destinations[0]);
    }

    #[test]
    fn budgets_are_sorted_and_those_that_suffice_are_last() {
        let sorted = |keys: &[&str]| {
            let mut budgets = ports().destinations;
            let keys: Vec<PortSortKey> = keys.iter().map(|key| key.parse().unwrap()).collect();
            sort_ports(&mut budgets, &keys);
            budgets.iter().map(|budget| budget.remote_port).collect::<Vec<_>>()
        };
        assert_eq!((sorted(&["free"]), sorted(&["-free"])), (vec![443, 80], vec![80, 443]));
        assert_eq!((sorted(&["left"]), sorted(&["-left"])), (vec![443, 80], vec![443, 80]));
        assert_eq!(sorted(&["local", "-remote"]), [443, 80]);
        let error = "port".parse::<PortSortKey>().unwrap_err().to_string();
        assert!(error.starts_with("unknown key \"port\"; the keys are local, remote, live"), "{error}");
    }
}
