//! The scraped page: its golden file, the reference made from it, the bound on its size, and promtool's lint.
//!
//! `cargo xtask bless` rewrites the golden file and `docs/METRICS.md`.

#[allow(unreachable_pub, reason = "several test programs include this file")]
#[path = "common/counts.rs"]
mod counts;

use std::array;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use counts::{counts_of, counts_on};
use finwait::agent::exemplar::Exemplar;
use finwait::agent::history::DiskCounts;
use finwait::agent::metrics::{Exposition, encode};
use finwait::agent::ports::PortGauges;
use finwait::agent::totals::{Snapshot, Totals};
use finwait::api::Stats;
use finwait::kernel::{ProgramName, ProgramRuns};
use finwait::view::{PortBudget, Ports, schema};
use jiff::Timestamp;
use tcp_common::State;
use tcp_common::record::Counters;
use testkit::golden::assert_golden;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics.golden.txt");
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/METRICS.md");

/// Makes a snapshot in which every counter has a different value.
fn busy() -> Snapshot {
    let mut last = 100;
    let mut snapshot = snapshot(|| {
        last += 1;
        last
    });
    snapshot.ports = PortGauges::from(&ports());
    for (index, seconds) in [0.0005, 0.25, 2.0, 700.0].into_iter().enumerate() {
        let at = Timestamp::from_millisecond(1_700_000_000_250).expect("a time");
        let exemplar = Exemplar { id: format!("{:016x}", 0xbeef + index).parse().expect("an id"), at };
        for histogram in [&snapshot.totals.handshake, &snapshot.totals.connection, &snapshot.totals.close] {
            exemplar.observe(histogram, seconds);
        }
        snapshot.totals.observe_state_duration(index % 2 == 0, State::CloseWait, (seconds * 1e9) as u64);
        if index < 2 {
            snapshot.totals.lateness.observe(seconds);
            snapshot.totals.sweep_pause.observe(seconds);
        }
    }
    snapshot
}

/// A range with one bound port, and one destination that is about to hold all others.
fn ports() -> Ports {
    let budget = PortBudget {
        schema: schema::PORT_BUDGET.into(),
        local_address: Ipv4Addr::new(192, 0, 2, 10).into(),
        remote_address: Ipv4Addr::new(192, 0, 2, 80).into(),
        remote_port: 443,
        scope: None,
        live: 12_000,
        time_wait: 15_000,
        reusable: 0,
        free: 1_231,
        opening_per_second: 500.0,
        releasing_per_second: 0.0,
        expiring_per_second: 0.0,
        exhausted_in_ms: Some(2_462),
    };
    Ports {
        schema: schema::PORTS.into(),
        as_of: Timestamp::UNIX_EPOCH,
        first: 32_768,
        last: 60_999,
        reserved: 0,
        bound: 1,
        bound_complete: true,
        available: 28_231,
        destinations: vec![budget],
    }
}

/// Makes the snapshot of an agent that has just started.
/// Ports are counted, and no connection holds any.
fn idle() -> Snapshot {
    let mut snapshot = snapshot(|| 0);
    snapshot.ports = PortGauges::from(&Ports { destinations: Vec::new(), ..ports() });
    snapshot
}

#[test]
fn ports_that_could_not_be_counted_have_no_series() {
    assert!(!series(&snapshot(|| 0)).iter().any(|series| series.starts_with("finwait_ports_")));
}

fn snapshot(mut next: impl FnMut() -> u64) -> Snapshot {
    fn row<const N: usize>(next: &mut impl FnMut() -> u64) -> [u64; N] {
        array::from_fn(|_| next())
    }
    fn rows<const N: usize, const M: usize>(next: &mut impl FnMut() -> u64) -> [[u64; M]; N] {
        array::from_fn(|_| row(next))
    }
    type Matrix = [[u64; State::COUNT]; State::COUNT];
    fn transitions(next: &mut impl FnMut() -> u64) -> [Matrix; 2] {
        let mut places = [[[0; State::COUNT]; State::COUNT]; 2];
        for matrix in &mut places {
            for (from, to) in State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to))) {
                if from != to {
                    matrix[from as usize][to as usize] = next();
                }
            }
        }
        places
    }
    let next = &mut next;
    Snapshot {
        // No `..`: a new counter must be added here.
        counters: Counters {
            predicted: [[0; 2]; 2],
            merged: [[0; 2]; 2],
            seen: next(),
            tracked: next(),
            ignored: row(next),
            fragments_held: 1_000_000,
            fragments_released: 999_997,
            transitions: transitions(next),
            segments: rows(next),
            events: next(),
            events_lost: next(),
            events_withheld: next(),
            deferred: next(),
            evicted: row(next),
            insert_retries: next(),
            causes: row(next),
            time_wait_visits: rows(next),
        },
        totals: Totals {
            opened: rows(next),
            closed: rows(next),
            reopened: row(next),
            resets: rows(next),
            time_wait_ended: rows(next),
            time_wait_adopted: next(),
            transitions: transitions(next),
            delivered: next(),
            watch_events_lost: next(),
            deferred: row(next),
            resyncs: next(),
            audit_looks: next(),
            audit_repairs: row(next),
            audit_adopted: next(),
            attempts_unanswered: [5, 6],
            ..Totals::default()
        },
        own: [7, 8],
        disk: DiskCounts { outcomes: row(next), bytes: next(), set_aside: next() },
        endpoints: rows(next),
        table_used: rows(next),
        table_capacity: row(next),
        host_time_wait_overflows: Some(next()),
        programs: ProgramName::ALL
            .map(|program| ProgramRuns {
                program: program.name(),
                runs: next(),
                duration: Duration::from_nanos(next()),
            })
            .into(),
        ports: PortGauges::default(),
    }
}

fn page(snapshot: &Snapshot, format: Exposition) -> String {
    encode(snapshot, format).expect("a String takes everything")
}

/// Returns the samples without their exemplars.
fn samples(page: &str) -> Vec<&str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split_once(" # ").map_or(line, |(sample, _)| sample)).collect()
}

/// Returns the names and labels without the values.
fn series(snapshot: &Snapshot) -> BTreeSet<String> {
    let page = page(snapshot, Exposition::Text);
    let names: Vec<_> = samples(&page).into_iter().filter_map(|line| line.rsplit_once(' ')).collect();
    let set: BTreeSet<_> = names.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(set.len(), names.len(), "a series twice");
    set
}

/// The statistics are another view of the page: every counter and gauge, with its labels and its value.
#[test]
fn the_statistics_have_every_count_of_the_page() {
    let snapshot = busy();
    let page = page(&snapshot, Exposition::Text);
    assert_eq!(counts_of(&Stats::from(&snapshot)), counts_on(&page));
}

#[test]
fn the_page_matches_its_golden_file() {
    assert_golden(GOLDEN, &page(&busy(), Exposition::Text));
}

#[test]
fn the_reference_matches_the_page() {
    assert_golden(REFERENCE, &reference(&page(&busy(), Exposition::OpenMetrics)));
}

/// Makes the text of `docs/METRICS.md`. All but the introduction comes from an OpenMetrics page: each
/// family's name, type, unit and HELP, and every label with its values in the order of the page.
fn reference(open_metrics: &str) -> String {
    let mut text = INTRODUCTION.to_owned();
    let (heads, body): (Vec<_>, Vec<_>) = open_metrics.lines().partition(|line| line.starts_with("# "));
    for head in heads {
        let words: Vec<_> = head.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", family, help] => {
                let kind = value_of(open_metrics, "TYPE", family).expect("a type");
                let samples: Vec<_> = body.iter().filter_map(|line| Sample::of(line, family, kind)).collect();
                let name = samples.first().expect("a sample").name;
                let unit = value_of(open_metrics, "UNIT", family);
                let unit = unit.map(|unit| format!(" of {unit}")).unwrap_or_default();
                writeln!(text, "\n## {name}\n\n{help}\n\nType: {kind}{unit}").expect("a String");
                let labels = labels(&samples);
                text.push_str(if labels.is_empty() { "" } else { "\n" });
                labels.iter().for_each(|(label, values)| {
                    let values = match *label {
                        "version" => "such as `0.1.0`".into(),
                        "local" | "destination" => format!("such as {}, or `other`", values.join(", ")),
                        _ => values.join(", "),
                    };
                    writeln!(text, "- `{label}`: {values}").expect("a String");
                });
            }
            ["#", "TYPE" | "UNIT", ..] | ["#", "EOF"] => {}
            _ => panic!("{head}"),
        }
    }
    text
}

/// Returns the rest of the line `# WORD FAMILY REST`.
fn value_of<'a>(page: &'a str, word: &str, family: &str) -> Option<&'a str> {
    let begin = format!("# {word} {family} ");
    page.lines().find_map(|line| line.strip_prefix(begin.as_str()))
}

/// One line of a page without its value.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
}

impl<'a> Sample<'a> {
    /// Reads a line that belongs to a family of this type. Of a histogram only the buckets are read.
    fn of(line: &'a str, family: &'a str, kind: &str) -> Option<Sample<'a>> {
        let (series, _) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            "histogram" => "_bucket",
            _ => "",
        };
        (name.strip_prefix(family)? == suffix).then(|| Sample {
            name: if kind == "histogram" { family } else { name },
            labels: labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('=')).collect(),
        })
    }
}

/// Returns every label with its values, each once, in the order of the page.
fn labels<'a>(samples: &[Sample<'a>]) -> Vec<(&'a str, Vec<String>)> {
    let mut labels: Vec<(&str, Vec<String>)> = Vec::new();
    for &(label, value) in samples.iter().flat_map(|sample| &sample.labels) {
        let value = format!("`{}`", value.trim_matches('"'));
        match labels.iter_mut().find(|(known, _)| *known == label) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => labels.push((label, vec![value])),
        }
    }
    labels
}

const INTRODUCTION: &str = "\
# Metrics

The agent (`finwait run`) serves these metrics at `http://127.0.0.1:9817/metrics`; `--listen` changes the address. The
format is Prometheus text 0.0.4, or OpenMetrics 1.0.0 for a scraper that asks for it in its `Accept` header.

- Counters start at 0 when the agent starts and count IPv4 and IPv6 together unless a label separates them.
- Every series is exported from the start, at 0, except state transitions that RFC 9293 does not have, and
  destinations.
- Labels have only the values listed here: no address and no port becomes a label. Two families have destinations as
  labels, at most ten at a time and `other` for the rest.
- `side` and `origin` say whether an endpoint is on this host. Causes, close kinds and reasons are explained in
  [RECORDS.md](RECORDS.md).
- Each histogram has the series `_bucket` (label `le`: the upper bound), `_sum` and `_count`.
- In OpenMetrics, the buckets of the durations of handshakes, connections and closes have an exemplar: the `id` of the
  connection that was counted in the bucket last. `finwait ls --all id ID` shows it, as long as it is in the table.

A test generates this file from the table that declares the families (`tcp-user/src/agent/metrics/families.rs`).
`cargo xtask bless` rewrites it.
";

#[test]
fn the_number_of_series_is_bounded() {
    let (at_first, at_most) = (series(&idle()), series(&busy()));
    assert!(at_most.is_superset(&at_first));
    let joined: Vec<_> = at_most.difference(&at_first).collect();
    let varies =
        ["finwait_transitions_total{", "finwait_ports_used_ratio{", "finwait_ports_exhaustion_seconds{"];
    let may_join = |series: &str| varies.iter().any(|family| series.starts_with(family));
    assert!(joined.iter().all(|series| may_join(series)), "{joined:?}");
    let transitions =
        at_most.iter().filter(|series| series.starts_with("finwait_transitions_total{")).count();
    assert_eq!(transitions, 2 * 11 * 10, "every pair of states, each side");
    assert!(at_most.len() <= 850, "{} series", at_most.len());
}

#[test]
fn promtool_finds_no_fault() {
    for snapshot in [idle(), busy()] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool of the Debian package prometheus");
        let mut stdin = promtool.stdin.take().expect("piped");
        stdin.write_all(page(&snapshot, Exposition::Text).as_bytes()).expect("promtool reads");
        drop(stdin);
        let output = promtool.wait_with_output().expect("promtool ends");
        let words =
            [output.stdout, output.stderr].map(|words| String::from_utf8_lossy(&words).into_owned()).concat();
        assert!(output.status.success() && words.is_empty(), "{}: {words}", output.status);
    }
}

#[test]
fn plain_text_has_no_openmetrics_syntax() {
    let page = page(&busy(), Exposition::Text);
    assert!(!page.contains("# EOF") && !page.contains("# UNIT") && !page.contains("_total_total"));
    for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
        let [name, kind] = line.split(' ').skip(2).collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
}

#[test]
fn openmetrics_has_the_same_samples() {
    let snapshot = busy();
    let (text, open) = (page(&snapshot, Exposition::Text), page(&snapshot, Exposition::OpenMetrics));
    assert_eq!(samples(&open), samples(&text));
    assert!(open.ends_with("\n# EOF\n"));
    assert_eq!(open.matches("# EOF").count(), 1);
    for head in [
        "# TYPE finwait_packets counter\nfinwait_packets_total ",
        "# TYPE finwait_handshake_duration_seconds histogram\n# UNIT finwait_handshake_duration_seconds seconds\n",
        "# TYPE finwait_build info\nfinwait_build_info{version=",
        "# TYPE finwait_endpoints gauge\nfinwait_endpoints{side=",
    ] {
        assert!(open.contains(head), "{head}");
    }
}

#[test]
fn openmetrics_names_a_connection_of_each_bucket() {
    let (text, open) = (page(&busy(), Exposition::Text), page(&busy(), Exposition::OpenMetrics));
    for (family, bound, exemplar) in [
        ("handshake_duration", "0.3", "id=\"000000000000bef0\"} 0.25"),
        ("connection_duration", "1.0", "id=\"000000000000bef0\"} 0.25"),
        ("close_duration", "+Inf", "id=\"000000000000bef2\"} 700.0"),
    ] {
        let bucket = format!("finwait_{family}_seconds_bucket{{le=\"{bound}\"}} ");
        let samples: Vec<_> = open.lines().filter(|line| line.starts_with(&bucket)).collect();
        let [sample] = samples[..] else { panic!("{bucket}: {samples:?}") };
        assert!(sample.ends_with(&format!(" # {{{exemplar} 1700000000.25")), "{sample}");
    }
    assert_eq!(open.matches(" # {").count(), 12, "each bucket with a connection, of three histograms");
    assert!(!text.contains(" # {"));
}

#[test]
fn a_scraper_gets_the_format_it_asks_for() {
    for (accept, format) in [
        (None, Exposition::Text),
        (Some(""), Exposition::Text),
        (Some("*/*"), Exposition::Text),
        (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Exposition::Text),
        // Prometheus 2.42.
        (
            Some(
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            Exposition::OpenMetrics,
        ),
        // Prometheus 3.
        (
            Some(
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            ),
            Exposition::OpenMetrics,
        ),
        (Some("Application/OpenMetrics-Text; Version=\"1.0.0\""), Exposition::OpenMetrics),
        (Some("application/openmetrics-text, text/plain"), Exposition::OpenMetrics),
        (Some("application/openmetrics-text;q=0.5, text/plain"), Exposition::Text),
        (Some("application/openmetrics-text;q=0.5, */*;q=0.8, text/plain;q=0.4"), Exposition::OpenMetrics),
        (Some("application/openmetrics-text;q=0"), Exposition::Text),
        (Some("application/openmetrics-text;q=nan"), Exposition::Text),
        (Some("application/openmetrics-text;version=2.0.0, */*;q=0.1"), Exposition::Text),
        (Some(";;,=,q=1"), Exposition::Text),
    ] {
        assert_eq!(Exposition::negotiate(accept), format, "{accept:?}");
    }
    assert!(Exposition::Text.content_type().starts_with("text/plain; version=0.0.4"));
    assert!(
        Exposition::OpenMetrics.content_type().starts_with("application/openmetrics-text; version=1.0.0")
    );
}
