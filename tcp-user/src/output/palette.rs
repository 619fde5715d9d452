//! Colours.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::view::State;

/// Whether text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Palette {
    coloured: bool,
}

impl Palette {
    /// No escape sequences.
    pub const PLAIN: Palette = Palette { coloured: false };
    /// ANSI colours.
    pub const COLOURED: Palette = Palette { coloured: true };

    /// Colours if standard output is a terminal that has them, unless `NO_COLOR` or `TERM=dumb` is set.
    pub fn for_stdout() -> Palette {
        let choice = anstream::AutoStream::choice(&std::io::stdout());
        Palette { coloured: choice != anstream::ColorChoice::Never }
    }

    /// Writes a text in a style.
    pub(super) fn write(self, out: &mut impl Write, style: Style, text: &str) -> io::Result<()> {
        if self.coloured && style != Style::new() {
            write!(out, "{style}{text}{style:#}")
        } else {
            out.write_all(text.as_bytes())
        }
    }

    /// Returns a text in a style.
    pub(super) fn paint(self, style: Style, text: String) -> String {
        if self.coloured && style != Style::new() { format!("{style}{text}{style:#}") } else { text }
    }
}

/// Column titles.
pub(super) const TITLE: Style = Style::new().bold();
/// An end on this host.
pub(super) const LOCAL: Style = Style::new().bold();
/// A reset.
pub(super) const ABORTED: Style = AnsiColor::Red.on_default();

/// Style of a state. Green: data flows; yellow: closing; red: waits for an application to close; cyan: waits
/// for a timer.
pub(crate) const fn state_style(state: State, confirmed: bool) -> Style {
    let style = match state {
        State::Established => AnsiColor::Green.on_default(),
        State::SynSent | State::SynReceived => AnsiColor::Blue.on_default(),
        State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => AnsiColor::Yellow.on_default(),
        State::CloseWait => AnsiColor::Red.on_default(),
        State::TimeWait => AnsiColor::Cyan.on_default(),
        State::Unknown | State::Closed | State::Listen => Style::new(),
    };
    if confirmed { style } else { style.dimmed() }
}
