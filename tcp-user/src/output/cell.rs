//! Facts as text for people. A cell of a list has no blanks, so that `awk` can count columns; an empty one is
//! `-`.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anstyle::Style;

use super::palette::{self, Palette};
use crate::view::{CloseInfo, CloseKind, Connection, ConnectionEnd, Process, Role, State, TimeWait, UNSEEN};

/// The text of a table's cell, and its style where there are colours.
pub struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Cell {
    /// The text with its escape sequences.
    pub(super) fn painted(self, palette: Palette) -> String {
        palette.paint(self.style, self.text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::from(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, style: Style::new() }
    }
}

/// The mark of the end on this host.
const LOCAL_MARK: char = '*';
/// The mark of a state that the end's own segments do not prove.
const UNCONFIRMED_MARK: char = '?';

pub(super) fn none() -> Cell {
    Cell::from(NOTHING.to_owned())
}

const NOTHING: &str = "-";

/// `scope` is the interface of a link-local address.
pub(super) fn address(address: SocketAddr, scope: Option<&str>, local: bool) -> Cell {
    marked(scoped(address, scope), local)
}

fn scoped(address: SocketAddr, scope: Option<&str>) -> String {
    match (address, scope) {
        (SocketAddr::V6(v6), Some(scope)) if v6.ip().is_unicast_link_local() => {
            format!("[{}%{}]:{}", v6.ip(), escape_word(scope), v6.port())
        }
        _ => address.to_string(),
    }
}

fn marked(text: String, local: bool) -> Cell {
    match local {
        true => Cell { text: format!("{text}{LOCAL_MARK}"), style: palette::LOCAL },
        false => Cell::from(text),
    }
}

/// Address and port of an end. With NAT, that of the original direction, followed by that of the reply
/// direction if it is another one.
pub(super) fn end(connection: &Connection, side: Role) -> Cell {
    let scope = connection.scope.as_deref();
    let addresses: Vec<_> = connection.addresses_of(side).map(|address| scoped(address, scope)).collect();
    marked(addresses.join(TRANSLATED), connection.end(side).local)
}

/// The VLANs of both directions, the client's first, once if they are equal.
pub(super) fn vlans(client: &ConnectionEnd, server: &ConnectionEnd) -> Cell {
    let [from_client, from_server] =
        [client, server].map(|end| vlan_ids(end).unwrap_or_else(|| NOTHING.to_owned()));
    if from_client == from_server {
        from_client.into()
    } else {
        format!("{from_client}/{from_server}").into()
    }
}

/// The VLAN ids of an end as Linux names devices: `100.10`, outermost first.
pub(super) fn vlan_ids(end: &ConnectionEnd) -> Option<String> {
    let ids = end.vlan.as_ref()?;
    Some(ids.iter().map(u16::to_string).collect::<Vec<_>>().join("."))
}

/// Between the addresses of an end in both tuples.
const TRANSLATED: &str = "=>";

pub(super) fn state(state: State, confirmed: bool) -> Cell {
    if state == State::Unknown {
        return none();
    }
    let mut text = state.rfc_name().to_owned();
    if !confirmed {
        text.push(UNCONFIRMED_MARK);
    }
    Cell { text, style: palette::state_style(state, confirmed) }
}

pub(super) fn timer(time_wait: &TimeWait) -> Cell {
    let mut text = format!("2msl:{}", duration(time_wait.expires_in_ms as f64));
    if time_wait.restarts > 0 {
        let _infallible = write!(text, ",restarts={}", time_wait.restarts);
    }
    Cell::from(text)
}

pub(super) fn close(close: &CloseInfo) -> Cell {
    let mut text = match close.kind {
        // The close has begun, and its kind is not known yet.
        Some(CloseKind::Open) => "closing".to_owned(),
        Some(kind) => kind.name().to_owned(),
        None => UNSEEN.to_owned(),
    };
    if let Some(closer) = close.closer {
        let _infallible = write!(text, ",closer={closer}");
    }
    match (close.aborter, close.icmp) {
        (Some(aborter), _) => {
            let _infallible = write!(text, ",rst={aborter}");
        }
        (None, Some(icmp)) => {
            let _infallible = write!(text, ",icmp={icmp}");
        }
        (None, None) => return Cell::from(text),
    }
    Cell { text, style: palette::ABORTED }
}

/// The class of the RST that ended it, or else why a RST did not.
pub(super) fn reset(connection: &Connection) -> Cell {
    match (&connection.reset, &connection.ignored_rst) {
        (Some(reset), _) => Cell { text: reset.class.to_string(), style: palette::ABORTED },
        (None, Some(cause)) => Cell::from(format!("ignored:{}", escape_word(cause))),
        (None, None) => none(),
    }
}

pub(super) fn process(process: &Process) -> Cell {
    Cell::from(format!("{}/{}", escape_word(&process.comm), process.pid))
}

/// Formats a duration in milliseconds for people: `310us`, `9.9ms`, `59.2s`, `5m12s`, `3h20m`, `5d4h`.
pub fn duration(ms: f64) -> String {
    if !ms.is_finite() || ms < 0.0 {
        return NOTHING.to_owned();
    }
    let seconds = (ms / 1000.0).round() as u64;
    match () {
        () if ms < 0.9995 => format!("{:.0}us", ms * 1000.0),
        () if ms < 99.95 => format!("{}ms", short(ms)),
        () if ms < 999.5 => format!("{ms:.0}ms"),
        () if ms < 59_950.0 => format!("{}s", short(ms / 1000.0)),
        () if seconds < HOUR => two(seconds, MINUTE, "m", 1, "s"),
        () if seconds < DAY => two(seconds, HOUR, "h", MINUTE, "m"),
        () => two(seconds, DAY, "d", HOUR, "h"),
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn two(seconds: u64, big: u64, big_unit: &str, small: u64, small_unit: &str) -> String {
    match (seconds / big, seconds % big / small) {
        (whole, 0) => format!("{whole}{big_unit}"),
        (whole, rest) => format!("{whole}{big_unit}{rest}{small_unit}"),
    }
}

/// Makes text from outside (interface and command names) safe for a terminal. Control characters and those
/// that change the direction of writing become `\u{1b}`.
pub fn escape(text: &str) -> String {
    escape_if(text, |c| c.is_control() || is_bidi(c))
}

/// Makes text from outside safe for a terminal and free of white space, for a column.
pub(super) fn escape_word(text: &str) -> String {
    if text.is_empty() {
        NOTHING.to_owned()
    } else {
        escape_if(text, |c| c.is_control() || c.is_whitespace() || is_bidi(c))
    }
}

fn escape_if(text: &str, bad: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if bad(c) { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    safe
}

/// Unicode's explicit directional formatting (UAX 9).
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
