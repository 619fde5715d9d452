//! The agent with many connections: its CPU time and memory, a scrape, `finwait ls`, and the expiry of as
//! many TIME-WAITs. The agent runs as its users run it. Connections are made by running its XDP program on
//! frames.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use finwait::kernel::ProgramName;
use finwait::lab::Lab;
use serde_json::{Value, json};
use tcp_common::{End, Flags};

use crate::background::BackgroundProgram;
use crate::bpf::Program;
use crate::conversation::Conversation;
use crate::size::{Size, fitting_in_memory};

/// Measures the agent `finwait` at each number of connections, with a table for the highest number of each
/// group. At the end of the first group the TIME-WAITs of all its connections expire.
pub(crate) fn measure(finwait: &Path, size: &Size) -> Result<Value> {
    println!(
        "\nThe agent (CPU over {} s; memory of the process, the flow table in it; whole times)",
        IDLE.as_secs()
    );
    println!(
        "{:<14}{:>13}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "connections", "CPU ms/s", "memory MB", "table MB", "scrape ms", "ls s", "ls MB", "lost"
    );
    let (mut rows, mut ends) = (Vec::new(), Value::Null);
    for numbers in size.agent {
        let numbers = fitting_in_memory(numbers)?;
        let Some(&most) = numbers.last() else { continue };
        let lab = Lab::new()?;
        let agent = lab.server.run(|| Agent::start(finwait, "lo", "tc", most, size.msl, &[]))??;
        let mut opened = 0;
        for &number in &numbers {
            lab.server.run(|| (opened..number).try_for_each(|one| agent.open(one)))??;
            opened = number;
            agent.settle();
            rows.push(lab.server.run(|| agent.row(number))??);
        }
        if ends.is_null() {
            ends = lab.server.run(|| agent.expire(opened))??;
        }
    }
    Ok(json!({ "title": "The agent", "rows": rows, "time_wait": ends }))
}

pub(crate) struct Agent {
    process: BackgroundProgram,
    finwait: PathBuf,
    socket: String,
    /// The agent's XDP program.
    program: Option<Program>,
}

impl Agent {
    /// Starts the agent with more options in this thread's namespace and waits until it answers.
    pub(crate) fn start(
        finwait: &Path,
        interface: &str,
        ingress: &str,
        max_flows: u32,
        msl: &str,
        more: &[&str],
    ) -> Result<Agent> {
        let (temporary, id) = (std::env::temp_dir(), std::process::id());
        let socket = format!("{}/finwait-bench-{id}-{ingress}.sock", temporary.display());
        let program = finwait.to_str().context("the path of finwait")?;
        let max_flows = max_flows.to_string();
        let options = [
            program,
            "run",
            "-i",
            interface,
            "--ingress",
            ingress,
            "--audit-interval",
            "0",
            "--socket",
            &socket,
            "--listen",
            LISTEN,
            "--max-flows",
            &max_flows,
            "--msl",
            msl,
        ];
        let process = BackgroundProgram::start(&[&options, more].concat())?;
        let mut agent = Agent { process, finwait: finwait.into(), socket, program: None };
        let deadline = Instant::now() + Duration::from_secs(60);
        while agent.scrape().is_err() {
            ensure!(Instant::now() < deadline, "the agent does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        agent.program = Some(Program::find(agent.process.id(), ProgramName::Xdp)?);
        Ok(agent)
    }

    /// Runs the agent's XDP program on a frame.
    fn take(&self, frame: &[u8]) -> Result<()> {
        self.program.as_ref().context("the agent's XDP program")?.run(frame, 1).map(drop)
    }

    fn open(&self, number: u32) -> Result<()> {
        let flow = Conversation { ipv6: false, number };
        flow.opening().iter().try_for_each(|frame| self.take(frame))
    }

    /// Closes a connection by four segments. A closes first and is in TIME-WAIT afterwards.
    fn close(&self, number: u32) -> Result<()> {
        let flow = Conversation { ipv6: false, number };
        let fin = Flags::FIN | Flags::ACK;
        [
            flow.frame(End::A, fin, (1101, 5001, 0)),
            flow.frame(End::B, Flags::ACK, (5001, 1102, 0)),
            flow.frame(End::B, fin, (5001, 1102, 0)),
            flow.frame(End::A, Flags::ACK, (1102, 5002, 0)),
        ]
        .iter()
        .try_for_each(|frame| self.take(frame))
    }

    /// Gives the agent time to read its ring and to scan its table.
    fn settle(&self) {
        std::thread::sleep(Duration::from_secs(3));
    }

    fn row(&self, number: u32) -> Result<Value> {
        let cpu = self.cpu_over(IDLE)?;
        let mut scrapes: Vec<f64> = (0..9).map(|_| self.scrape().map(|(_, ms)| ms)).collect::<Result<_>>()?;
        scrapes.sort_unstable_by(f64::total_cmp);
        let (seconds, listed, ls_mb) = self.list()?;
        ensure!(listed >= u64::from(number), "ls lists {listed} of {number}");
        let (page, _) = self.scrape()?;
        let lost = sum(&page, "finwait_events_lost_total");
        let status = self.status()?;
        let table_mb = status["table_bytes"].as_f64().unwrap_or(0.0) / 1e6;
        let memory = self.memory_mb()?;
        println!(
            "{number:<14}{:>13.1}{memory:>12.1}{table_mb:>12.1}{:>12.2}{seconds:>12.2}{ls_mb:>12.1}{lost:>12}",
            cpu * 1e3,
            scrapes[4],
        );
        Ok(json!({
            "connections": number, "cpu_seconds_per_second": cpu, "memory_mb": memory, "table_mb": table_mb,
            "scrapes_ms": scrapes, "ls_seconds": seconds, "ls_memory_mb": ls_mb, "events_lost": lost,
        }))
    }

    /// Closes every connection and waits until every TIME-WAIT has expired.
    fn expire(&self, number: u32) -> Result<Value> {
        (0..number).try_for_each(|one| self.close(one))?;
        self.settle();
        let waiting = self.cpu_over(IDLE)?;
        let entered = sum(&self.scrape()?.0, "finwait_time_wait_events_total{event=\"entered\"");
        ensure!(entered >= u64::from(number), "{entered} of {number} are in TIME-WAIT");
        let (deadline, begun, before) =
            (Instant::now() + Duration::from_secs(150), Instant::now(), self.cpu()?);
        let page = loop {
            let (page, _) = self.scrape()?;
            if sum(&page, "finwait_time_wait_events_total{event=\"expired\"") >= u64::from(number) {
                break page;
            }
            ensure!(Instant::now() < deadline, "TIME-WAITs have not expired");
            std::thread::sleep(Duration::from_millis(500));
        };
        let cpu = (self.cpu()? - before) / begun.elapsed().as_secs_f64();
        let within = |metric: &str, bound: &str| sum(&page, &format!("{metric}_bucket{{le=\"{bound}\"}}"));
        let all = sum(&page, "finwait_expiry_lateness_seconds_count");
        let late = |bound: &str| within("finwait_expiry_lateness_seconds", bound);
        let turns = sum(&page, "finwait_sweep_pause_seconds_count");
        let longer = |bound: &str| turns - within("finwait_sweep_pause_seconds", bound);
        println!(
            "\n{number} TIME-WAITs: CPU {:.1} ms/s while they last, {:.1} ms/s until all have expired",
            waiting * 1e3,
            cpu * 1e3
        );
        println!(
            "expired: {all}; at most 0.1 s late: {}, 0.5 s: {}, 1 s: {}",
            late("0.1"),
            late("0.5"),
            late("1.0")
        );
        println!(
            "scan steps: {turns}; longer than 0.5 ms: {}, 1 ms: {}, 5 ms: {}",
            longer("0.0005"),
            longer("0.001"),
            longer("0.005")
        );
        Ok(json!({
            "time_waits": number, "cpu_waiting": waiting, "cpu_running_out": cpu, "ended": all,
            "within_0.1_s": late("0.1"), "within_0.5_s": late("0.5"), "within_1_s": late("1.0"),
            "sweep_turns": turns, "beyond_0.5_ms": longer("0.0005"), "beyond_1_ms": longer("0.001"),
            "beyond_5_ms": longer("0.005"),
        }))
    }

    /// CPU seconds per second.
    fn cpu_over(&self, time: Duration) -> Result<f64> {
        let (before, begun) = (self.cpu()?, Instant::now());
        std::thread::sleep(time);
        Ok((self.cpu()? - before) / begun.elapsed().as_secs_f64())
    }

    /// The agent's process.
    pub(crate) fn process(&self) -> &BackgroundProgram {
        &self.process
    }

    /// CPU seconds of all threads so far.
    pub(crate) fn cpu(&self) -> Result<f64> {
        Ok(self.process.cpu_ns()? / 1e9)
    }

    /// Resident memory, including mapped memory.
    fn memory_mb(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kb: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS")?;
        Ok(kb * 1024.0 / 1e6)
    }

    /// The metrics page, and the time of the scrape in ms.
    pub(crate) fn scrape(&self) -> Result<(String, f64)> {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(LISTEN).context("connecting to the metrics")?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok((page, begun.elapsed().as_secs_f64() * 1e3))
    }

    fn status(&self) -> Result<Value> {
        let output =
            Command::new(&self.finwait).args(["status", "-o", "json", "--socket", &self.socket]).output()?;
        serde_json::from_slice(&output.stdout).context("finwait status")
    }

    /// Runs `finwait ls -o ndjson`: seconds, lines, and memory of the command in MB.
    fn list(&self) -> Result<(f64, u64, f64)> {
        let begun = Instant::now();
        let mut ls = Command::new(&self.finwait)
            .args(["ls", "-o", "ndjson", "--socket", &self.socket])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = ls.stdout.take().context("its output")?;
        let (mut lines, mut chunk, mut memory) = (0, vec![0; 1 << 16], 0.0);
        loop {
            let count = output.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            lines += chunk[..count].iter().filter(|&&byte| byte == b'\n').count() as u64;
            if memory == 0.0 || lines % 50 == 0 {
                memory = peak_mb(ls.id()).unwrap_or(memory);
            }
        }
        ls.wait()?;
        Ok((begun.elapsed().as_secs_f64(), lines, memory))
    }
}

/// Peak resident memory of a running process in MB.
fn peak_mb(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0 / 1e6)
}

/// The sum of a metric's samples.
pub(crate) fn sum(page: &str, name: &str) -> u64 {
    let samples = page.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
}

const LISTEN: &str = "127.0.0.1:9817";
const IDLE: Duration = Duration::from_secs(5);
