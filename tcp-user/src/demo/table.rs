//! The table that a newcomer sees first.

use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use tcp_common::State;

use crate::lab::{Family, Scenario};
use crate::output::state_style;

/// One close: what finwait says of it, and what the kernels said.
pub(super) struct Row {
    pub(super) scenario: &'static Scenario,
    /// `None`: finwait has not seen it.
    pub(super) ours: Option<Seen>,
    /// The client's and the server's state by their own kernel.
    pub(super) kernel: (State, State),
}

/// What finwait says of a connection.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) client: State,
    pub(super) server: State,
    pub(super) kind: &'static str,
    pub(super) closer: &'static str,
    pub(super) incarnation: u32,
}

impl Row {
    /// Whether finwait is right about everything.
    pub(super) fn agrees(&self) -> bool {
        self.ours.as_ref().is_some_and(|ours| {
            socket_state(ours.client) == self.kernel.0
                && socket_state(ours.server) == self.kernel.1
                && ours.kind == self.scenario.kind
                && ours.closer == self.scenario.closer
                && ours.incarnation == self.scenario.incarnation
        })
    }

    fn cells(&self) -> [String; 8] {
        let agrees = self.agrees();
        let mark = if agrees { paint(GOOD, "ok") } else { paint(BAD, "NO") };
        let kernels = [self.kernel.0, self.kernel.1]
            .map(|state| paint(if agrees { FAINT } else { BAD }, state.rfc_name()));
        let [their_client, their_server] = kernels;
        let ours = |state: State| paint(state_style(state, true), state.rfc_name());
        let (kind, closer, client, server) = match &self.ours {
            Some(seen) => (seen.kind, seen.closer, ours(seen.client), ours(seen.server)),
            None => ("-", "-", paint(BAD, "not seen"), paint(BAD, "not seen")),
        };
        let what = self.scenario.summary.to_owned();
        [mark, kind.into(), closer.into(), client, their_client, server, their_server, what]
    }
}

/// Prints the closes of one family; `place` says where they were seen.
pub(super) fn print(family: Family, place: &str, rows: &[Row]) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let titles = ["", "CLOSE", "CLOSER", "CLIENT", "ITS KERNEL", "SERVER", "ITS KERNEL", "WHAT HAPPENED"];
    table.set_header(titles.map(|title| paint(TITLE, title)));
    table.add_rows(rows.iter().map(Row::cells));
    // On a terminal that has room for it, the story is folded within its column.
    let width = terminal_size::terminal_size().map(|(width, _)| width.0);
    if let Some(width) = width.filter(|width| *width >= ROOM) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        for column in table.column_iter_mut().take(titles.len() - 1) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}, {place}\n\n{table}\n", paint(TITLE, name(family)))
}

/// As people call it.
pub(super) fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

/// What a kernel's socket table shows for this state: a listener's part in an open that nobody answered is no socket of
/// the connection.
fn socket_state(state: State) -> State {
    if state == State::Listen { State::Closed } else { state }
}

/// Stripped again where nobody sees colours.
pub(super) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

pub(super) const TITLE: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();
/// Columns that the table takes with a story of some words a line.
const ROOM: u16 = 116;
