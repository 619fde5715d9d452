//! Streams of transitions, closes and what follows them.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::cell::{self, duration, escape_word};
use super::palette::Palette;
use super::{Format, JsonDocument, csv, json_line};
use crate::view::{
    Close, EndAddress, EventRecord, IgnoredRst, Lost, Reopened, Role, State, TimeWaitEnd, Transition, schema,
};

/// Writes events in one of the formats, one line each, as they come.
pub struct EventWriter<W> {
    out: W,
    layout: EventLayout,
    palette: Palette,
    count: usize,
}

enum EventLayout {
    Lines { wide: bool },
    Json(JsonDocument),
    Ndjson,
    Csv(csv::Lines),
}

impl<W: Write> EventWriter<W> {
    /// Starts a stream.
    pub fn new(mut out: W, format: Format, palette: Palette) -> io::Result<EventWriter<W>> {
        let layout = match format {
            Format::Table => EventLayout::Lines { wide: false },
            Format::Wide => EventLayout::Lines { wide: true },
            Format::Json => EventLayout::Json(JsonDocument::new(schema::EVENTS, "events")),
            Format::Ndjson => EventLayout::Ndjson,
            Format::Csv => {
                let mut lines = csv::Lines::default();
                lines.write(&mut out, csv::EVENT.iter().map(|(name, _)| *name))?;
                EventLayout::Csv(lines)
            }
        };
        Ok(EventWriter { out, layout, palette, count: 0 })
    }

    /// Writes one event.
    pub fn push(&mut self, event: &EventRecord) -> io::Result<()> {
        self.count += 1;
        match &mut self.layout {
            EventLayout::Lines { wide } => {
                let line = match event {
                    EventRecord::Transition(transition) => transition_line(transition, self.palette),
                    EventRecord::Close(close) => close_line(close, *wide, self.palette),
                    EventRecord::Reopened(reopened) => reopened_line(reopened, self.palette),
                    EventRecord::RstIgnored(ignored) => ignored_line(ignored, self.palette),
                    EventRecord::TimeWaitEnd(end) => time_wait_end_line(end, self.palette),
                    EventRecord::Lost(Lost { events }) => format!("lost {events} events"),
                };
                writeln!(self.out, "{line}")
            }
            EventLayout::Json(document) => document.push(&mut self.out, event),
            EventLayout::Ndjson => json_line(&mut self.out, event),
            EventLayout::Csv(lines) => {
                lines.write(&mut self.out, csv::EVENT.iter().map(|(_, field)| field(event)))
            }
        }
    }

    /// Flushes the output; a live stream does so after each event.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the stream, flushes it and returns the number of events.
    pub fn finish(mut self) -> io::Result<usize> {
        if let EventLayout::Json(document) = &mut self.layout {
            document.finish(&mut self.out)?;
        }
        self.out.flush()?;
        Ok(self.count)
    }
}

fn transition_line(transition: &Transition, palette: Palette) -> String {
    let Transition { at, scope, client, server, incarnation, id: _, side, from, to, cause } = transition;
    let state = |state: State| cell::state(state, true).painted(palette);
    format!(
        "{at:.6} {} #{incarnation} {side} {} -> {} {}",
        addresses(scope, client, server, palette),
        state(*from),
        state(*to),
        escape_word(cause),
    )
}

fn reopened_line(reopened: &Reopened, palette: Palette) -> String {
    let Reopened { at, scope, client, server, incarnation, id: _, reason } = reopened;
    format!("{at:.6} {} #{incarnation} reopened {reason}", addresses(scope, client, server, palette))
}

fn ignored_line(ignored: &IgnoredRst, palette: Palette) -> String {
    let IgnoredRst { at, scope, client, server, incarnation, id: _, sender, cause } = ignored;
    let addresses = addresses(scope, client, server, palette);
    format!("{at:.6} {addresses} #{incarnation} {sender} RST ignored {}", escape_word(cause))
}

fn time_wait_end_line(end: &TimeWaitEnd, palette: Palette) -> String {
    let TimeWaitEnd { at, scope, client, server, incarnation, id: _, holder, ending, duration_ms, restarts } =
        end;
    let mut line = format!(
        "{at:.6} {} #{incarnation} {holder} {} over {ending} time_wait={}",
        addresses(scope, client, server, palette),
        cell::state(State::TimeWait, true).painted(palette),
        duration(*duration_ms)
    );
    if *restarts > 0 {
        let _infallible = write!(line, " restarts={restarts}");
    }
    line
}

fn addresses(scope: &Option<String>, client: &EndAddress, server: &EndAddress, palette: Palette) -> String {
    let scope = scope.as_deref();
    let address = |end: &EndAddress| cell::address(end.socket_address(), scope, end.local).painted(palette);
    format!("{} -> {}", address(client), address(server))
}

fn close_line(close: &Close, wide: bool, palette: Palette) -> String {
    let connection = &close.connection;
    let mut line = format!(
        "{:.6} {} -> {} #{} closed {}",
        close.closed_at.unwrap_or(connection.last_seen_at),
        cell::end(connection, Role::Client).painted(palette),
        cell::end(connection, Role::Server).painted(palette),
        connection.incarnation,
        connection.close.as_ref().map_or_else(cell::none, cell::close).painted(palette),
    );
    let durations = &close.durations_ms;
    for (name, part) in [
        ("handshake", durations.handshake),
        ("established", durations.established),
        ("closing", durations.closing),
    ] {
        if let Some(ms) = part {
            let _infallible = write!(line, " {name}={}", duration(ms));
        }
    }
    if let Some(reset) = &connection.reset {
        let _infallible = write!(line, " reset={}", reset.class);
    }
    if close.revision > 1 {
        let _infallible = write!(line, " revision={}", close.revision);
    }
    if wide {
        let (client, server) = (&connection.client, &connection.server);
        let _infallible = write!(
            line,
            " segments={}/{} bytes={}/{} confidence={} id={}",
            client.segments,
            server.segments,
            client.bytes,
            server.bytes,
            connection.confidence,
            connection.id
        );
        if let Some(interface) = &connection.interface {
            let _infallible = write!(line, " interface={}", escape_word(interface));
        }
        if let Some(process) = &connection.process {
            let _infallible = write!(line, " process={}", cell::process(process).text);
        }
    }
    line
}
