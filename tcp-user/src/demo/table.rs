//! The table of `finwait demo`: one row for each close.

use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use tcp_common::State;

use crate::lab::{Family, Scenario};
use crate::output::state_style;

/// One close: finwait's view and the kernels' view.
pub(super) struct Row {
    pub(super) scenario: &'static Scenario,
    /// Finwait's view of the connection. `None` if finwait did not see it.
    pub(super) observed: Option<Observation>,
    /// The states of the client and the server by their own kernels.
    pub(super) kernel: (State, State),
}

/// Finwait's view of a connection.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) client: State,
    pub(super) server: State,
    pub(super) kind: &'static str,
    pub(super) closer: &'static str,
    pub(super) incarnation: u32,
}

impl Row {
    /// Whether finwait's view matches the kernels and the scenario.
    pub(super) fn agrees(&self) -> bool {
        self.observed.as_ref().is_some_and(|observed| {
            socket_state(observed.client) == self.kernel.0
                && socket_state(observed.server) == self.kernel.1
                && observed.kind == self.scenario.kind
                && observed.closer == self.scenario.closer
                && observed.incarnation == self.scenario.incarnation
        })
    }

    fn cells(&self) -> [String; 8] {
        let agrees = self.agrees();
        let mark = if agrees { paint(GOOD, "ok") } else { paint(BAD, "NO") };
        let kernels = [self.kernel.0, self.kernel.1]
            .map(|state| paint(if agrees { FAINT } else { BAD }, state.rfc_name()));
        let [kernel_client, kernel_server] = kernels;
        let state = |state: State| paint(state_style(state, true), state.rfc_name());
        let (kind, closer, client, server) = match &self.observed {
            Some(seen) => (seen.kind, seen.closer, state(seen.client), state(seen.server)),
            None => ("-", "-", paint(BAD, "not seen"), paint(BAD, "not seen")),
        };
        let what = self.scenario.summary.to_owned();
        [mark, kind.into(), closer.into(), client, kernel_client, server, kernel_server, what]
    }
}

/// Prints the closes of one family. `source` says where they were observed.
pub(super) fn print(family: Family, source: &str, rows: &[Row]) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let titles = ["", "CLOSE", "CLOSER", "CLIENT", "(KERNEL)", "SERVER", "(KERNEL)", "DESCRIPTION"];
    table.set_header(titles.map(|title| paint(TITLE, title)));
    table.add_rows(rows.iter().map(Row::cells));
    // On a terminal that is wide enough, the description is wrapped within its column.
    let width = terminal_size::terminal_size().map(|(width, _)| width.0);
    if let Some(width) = width.filter(|width| *width >= WRAP_WIDTH) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        for column in table.column_iter_mut().take(titles.len() - 1) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}, {source}\n\n{table}\n", paint(TITLE, name(family)))
}

/// The family's name for people.
pub(super) fn name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

/// The state that the kernel's socket table shows for `state`. An unanswered open has no socket at the
/// listener's end.
fn socket_state(state: State) -> State {
    if matches!(state, State::Listen | State::Unknown) { State::Closed } else { state }
}

/// Applies a style. `anstream` strips it where the output shows no colours.
pub(super) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

pub(super) const TITLE: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const FAINT: Style = Style::new().dimmed();
/// Terminal width, in columns, from which descriptions are wrapped.
const WRAP_WIDTH: u16 = 116;
