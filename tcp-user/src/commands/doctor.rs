//! `finwait doctor`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};

use super::live::owners;
use super::{NOT_UNDERSTOOD, found};
use crate::api::{Stats, Status, client};
use crate::cli::{DoctorArgs, ReportFormat, SocketArgs};
use crate::doctor::{Diagnosis, DoctorFinding, Examination, HostReading, Thresholds};
use crate::filter::Filter;
use crate::output::{Format, ListWriter, Palette};
use crate::replay::{self, Output};
use crate::sockets::namespace;
use crate::view::{Connection, Ports};

/// Prints the faults that it finds. Exit status 1 if there are any.
pub(super) async fn run(agent: &SocketArgs, args: &DoctorArgs) -> Result<ExitCode> {
    let thresholds = Thresholds {
        lasting: SignedDuration::try_from(args.lasting).unwrap_or(SignedDuration::MAX),
        count: args.count,
    };
    let diagnosis = match &args.file {
        Some(file) => of_capture(file, thresholds)?,
        None => of_host(agent, thresholds).await?,
    };
    let mut out = io::stdout().lock();
    match args.output {
        ReportFormat::Json => {
            serde_json::to_writer_pretty(&mut out, &diagnosis)?;
            writeln!(out)?;
        }
        ReportFormat::Table => write_diagnosis(&diagnosis, &mut out)?,
    }
    out.flush()?;
    Ok(found(diagnosis.findings.is_empty()))
}

/// What the agent knows, and the host that it runs on.
async fn of_host(agent: &SocketArgs, thresholds: Thresholds) -> Result<Diagnosis> {
    let mut examination = Examination::new(thresholds, true);
    let status: Status =
        serde_json::from_slice(&document(agent, "/status").await?).context(NOT_UNDERSTOOD)?;
    let here = status.namespace.is_some() && status.namespace == namespace();
    let before = here.then(HostReading::read);
    let owners = owners(agent, Format::Wide, true, &Filter::default()).await?;
    let now = Timestamp::now();
    for query in ["all=false&own=false&closed=false&filter=", "all=false&own=false&closed=true&filter="] {
        let mut answer = client::get(agent.path(), &format!("/connections?{query}")).await?;
        while let Some(line) = answer.line().await? {
            let mut connection: Connection = serde_json::from_slice(&line).context(NOT_UNDERSTOOD)?;
            connection.process = owners.as_ref().and_then(|owners| owners.of(&connection));
            examination.connection(&connection, now);
        }
    }
    let stats: Stats = serde_json::from_slice(&document(agent, "/stats").await?).context(NOT_UNDERSTOOD)?;
    examination.agent(&status, &stats);
    match ports(agent).await {
        Ok(ports) => examination.ports(&ports),
        Err(error) => examination.leave_out(format!("local ports: {error:#}")),
    }
    match before {
        Some(before) => {
            tokio::time::sleep(BETWEEN_READINGS).await;
            examination.host(&before, &HostReading::read());
        }
        None => examination.leave_out(
            "the kernel's counters and settings: finwait doctor does not run in the agent's network namespace",
        ),
    }
    if status.history.as_ref().is_none_or(|history| history.bytes == 0) {
        examination.leave_out("connections that have ended: the agent remembers none (--history-memory)");
    }
    Ok(examination.finish(now))
}

/// What a capture can show: its connections, of whichever host.
fn of_capture(file: &Path, thresholds: Thresholds) -> Result<Diagnosis> {
    let mut examination = Examination::new(thresholds, false);
    let mut as_of = Timestamp::UNIX_EPOCH;
    let report = replay::run(file, &replay::Options::default(), &mut |output| {
        match output {
            Output::Connection(listed) => {
                as_of = as_of.max(listed.as_of);
                examination.connection(&listed.connection, listed.as_of);
            }
            Output::Warning(warning) => eprintln!("finwait: {warning}"),
            Output::Event(_) => {}
        }
        Ok(())
    })?;
    if let Some(fault) = report.fault {
        return Err(fault.into());
    }
    examination.leave_out(
        "the kernel's counters and settings, and who owns the sockets: a capture does not have them",
    );
    Ok(examination.finish(as_of))
}

/// The budgets of local ports, which an agent of an earlier version does not have.
async fn ports(agent: &SocketArgs) -> Result<Ports> {
    serde_json::from_slice(&document(agent, "/ports").await?).context(NOT_UNDERSTOOD)
}

async fn document(agent: &SocketArgs, path: &str) -> Result<Vec<u8>> {
    Ok(client::get(agent.path(), path).await?.whole().await?)
}

fn write_diagnosis(diagnosis: &Diagnosis, out: &mut impl Write) -> Result<()> {
    for finding in &diagnosis.findings {
        write_finding(finding, diagnosis.as_of, out)?;
    }
    let count = diagnosis.findings.len();
    let findings = if count == 1 { "1 finding".to_owned() } else { format!("{count} findings") };
    writeln!(out, "{findings} in {} connections", diagnosis.connections)?;
    for what in &diagnosis.unchecked {
        writeln!(out, "not checked: {what}")?;
    }
    Ok(())
}

fn write_finding(finding: &DoctorFinding, now: Timestamp, out: &mut impl Write) -> Result<()> {
    writeln!(out, "{} (confidence {})", finding.summary, finding.confidence)?;
    for line in &finding.evidence {
        writeln!(out, "  - {line}")?;
    }
    if let Some(since) = finding.since {
        writeln!(out, "  - since {since:.0}")?;
    }
    for (title, text) in [("meaning", finding.meaning), ("do", finding.remedy), ("avoid", finding.avoid)] {
        let indent = " ".repeat(TITLE_WIDTH);
        let options = textwrap::Options::new(LINE_WIDTH).subsequent_indent(&indent);
        writeln!(out, "{}", textwrap::fill(&format!("  {title:<10}{text}"), options))?;
    }
    if !finding.examples.is_empty() {
        let mut examples = Vec::new();
        let mut list = ListWriter::new(&mut examples, Format::Table, Palette::PLAIN, now)?;
        for connection in &finding.examples {
            list.push(connection)?;
        }
        list.finish()?;
        for line in String::from_utf8_lossy(&examples).lines() {
            writeln!(out, "    {line}")?;
        }
    }
    writeln!(out)?;
    Ok(())
}

/// Time between the two readings of the kernel's counters.
const BETWEEN_READINGS: Duration = Duration::from_secs(1);
const LINE_WIDTH: usize = 110;
const TITLE_WIDTH: usize = 12;
