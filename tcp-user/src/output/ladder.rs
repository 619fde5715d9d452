//! One connection as a person reads it: its segments between both ends, in the manner of RFC 9293's figures.

use std::io::{self, Write};

use super::cell;
use super::palette::{Palette, TITLE};
use crate::view::{Role, State};
use crate::why::{CarriedSegments, Explanation, LadderSegment, LadderStep};

/// Writes the explanation as text.
pub fn write_ladder(explanation: &Explanation, out: &mut impl Write, palette: Palette) -> io::Result<()> {
    let connection = &explanation.connection;
    let [client, server] = [Role::Client, Role::Server].map(|side| cell::end(connection, side).text);
    writeln!(out, "{client} -> {server} #{} id={}", connection.incarnation, connection.id)?;
    writeln!(out)?;
    if explanation.steps.is_empty() {
        writeln!(out, "No segment of it is remembered.")?;
    } else {
        write_steps(explanation, out, palette)?;
    }
    writeln!(out)?;
    if let Some(opened_at) = connection.opened_at {
        writeln!(out, "opened    {opened_at:.6}")?;
    }
    for (side, waits) in
        [(Role::Client, &explanation.client_waits), (Role::Server, &explanation.server_waits)]
    {
        writeln!(out, "{side}    {}", standing(explanation, side, waits))?;
    }
    if let Some(process) = &connection.process {
        writeln!(out, "process   {}", cell::process(process).text)?;
    }
    writeln!(out, "standard  {}", explanation.standards.join(", "))?;
    writeln!(out)?;
    writeln!(out, "{}", explanation.verdict)
}

fn write_steps(explanation: &Explanation, out: &mut impl Write, palette: Palette) -> io::Result<()> {
    let titles = format!("{:>TIME$}  {:STATE$}{:ARROW$}  {:STATE$}", "TIME", "CLIENT", "", "SERVER");
    writeln!(out, "{}", palette.paint(TITLE, titles.trim_end().into()))?;
    if explanation.forgotten > 0 {
        writeln!(out, "{:>TIME$}  {} earlier steps were not kept", "", explanation.forgotten)?;
    }
    let start = explanation.steps.first().map(|step| step.at);
    for step in &explanation.steps {
        carried(&step.carried, out)?;
        let since = start.map_or(0.0, |start| step.at.duration_since(start).as_secs_f64() * 1000.0);
        let time = if since == 0.0 { "0".into() } else { format!("+{}", cell::duration(since)) };
        let line = format!(
            "{time:>TIME$}  {}{:ARROW$}  {}{}",
            state(step.client, step.client_changed, palette),
            step.segment.as_ref().map_or_else(String::new, arrow),
            state(step.server, step.server_changed, palette),
            note(step)
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    carried(&explanation.carried, out)
}

/// The state of an end, for how long it has been in it, and what it waits for.
fn standing(explanation: &Explanation, side: Role, waits: &str) -> String {
    let state = explanation.connection.end(side).state;
    if state == State::Unknown {
        return waits.into();
    }
    let since = explanation.since(side).map_or_else(String::new, |since| {
        let age = explanation.as_of.duration_since(since).as_secs_f64() * 1000.0;
        format!(" for {}", cell::duration(age))
    });
    format!("{}{since}, waits for {waits}", state.rfc_name())
}

/// Writes the explanation as a sequence diagram of Mermaid.
pub fn write_mermaid(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    let connection = &explanation.connection;
    writeln!(out, "sequenceDiagram")?;
    for (name, side) in [("client", Role::Client), ("server", Role::Server)] {
        writeln!(out, "    participant {name} as {}", connection.end(side).socket_address())?;
    }
    for step in &explanation.steps {
        note_carried(&step.carried, out)?;
        match &step.segment {
            Some(segment) => {
                let (from, to) = match segment.sender {
                    Role::Client => ("client", "server"),
                    Role::Server => ("server", "client"),
                };
                writeln!(out, "    {from}->>{to}: {}{}", label(segment), note(step))?;
            }
            None => writeln!(out, "    Note over client,server: {}", step.cause)?,
        }
        for (name, state, changed) in
            [("client", step.client, step.client_changed), ("server", step.server, step.server_changed)]
        {
            if changed && state != State::Unknown {
                writeln!(out, "    Note over {name}: {}", state.rfc_name())?;
            }
        }
    }
    note_carried(&explanation.carried, out)
}

fn note_carried(carried: &CarriedSegments, out: &mut impl Write) -> io::Result<()> {
    match carried.is_empty() {
        true => Ok(()),
        false => writeln!(out, "    Note over client,server: {}", in_words(carried)),
    }
}

/// The state after a step, or a line where it stays as it was.
fn state(state: State, changed: bool, palette: Palette) -> String {
    let cell = if changed { cell::state(state, true) } else { cell::Cell::from("  |") };
    let padding = " ".repeat(STATE.saturating_sub(cell.text.len()));
    cell.painted(palette) + &padding
}

fn arrow(segment: &LadderSegment) -> String {
    let label = label(segment);
    let fill = "-".repeat((ARROW - 4).saturating_sub(label.len()).max(2));
    match segment.sender {
        Role::Client => format!(" {label} {fill}>"),
        Role::Server => format!("<{fill} {label} "),
    }
}

/// `FIN,ACK 1:313(312) ack 20`, as `tcpdump -S` writes numbers.
fn label(segment: &LadderSegment) -> String {
    let LadderSegment { seq, ack, bytes, .. } = segment;
    let numbers = match bytes {
        0 => format!("{seq}"),
        bytes => format!("{seq}:{}({bytes})", seq.wrapping_add(*bytes)),
    };
    let ack = ack.map_or_else(String::new, |ack| format!(" ack {ack}"));
    format!("{} {numbers}{ack}", segment.flag_names().join(","))
}

/// What the reader should know of a step beyond its states.
fn note(step: &LadderStep) -> String {
    if !step.effective {
        return format!("  no effect: {}", step.cause);
    }
    match (&step.segment, step.cause.as_ref()) {
        (None, cause) => format!("  {cause}"),
        (Some(_), "syn_again" | "syn_ack_again" | "fin_again") => "  sent again".into(),
        (
            Some(_),
            cause @ ("resync" | "fin_voided" | "reopened" | "reuse" | "mid_stream" | "refused"
            | "unreachable"),
        ) => {
            format!("  {cause}")
        }
        (Some(_), _) => String::new(),
    }
}

fn carried(carried: &CarriedSegments, out: &mut impl Write) -> io::Result<()> {
    if carried.is_empty() {
        return Ok(());
    }
    let middle = format!("... {} ...", in_words(carried));
    writeln!(out, "{:>TIME$}  {:STATE$}{middle}", "", "  |")
}

/// `client 12 segments, 3000 bytes; server 7 segments, 120 bytes`.
fn in_words(carried: &CarriedSegments) -> String {
    let CarriedSegments { client_segments, client_bytes, server_segments, server_bytes } = *carried;
    let ends = [("client", client_segments, client_bytes), ("server", server_segments, server_bytes)];
    let ends = ends.into_iter().filter(|&(_, segments, _)| segments > 0);
    let words = ends.map(|(name, segments, bytes)| match bytes {
        0 => format!("{name} {segments} segments"),
        bytes => format!("{name} {segments} segments, {bytes} bytes"),
    });
    words.collect::<Vec<_>>().join("; ")
}

/// Widths of the columns.
const TIME: usize = 9;
const STATE: usize = 14;
const ARROW: usize = 40;
