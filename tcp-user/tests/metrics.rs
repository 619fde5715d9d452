//! The scraped page: golden text, the bound on its size, and promtool's opinion.
//!
//! `FINWAIT_BLESS=1 cargo test -p tcp-user --test metrics` rewrites the golden file.

use std::array;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use finwait::agent::metrics::{Format, encode};
use finwait::agent::totals::{Snapshot, Totals};
use finwait::kernel::ProgramRuns;
use tcp_common::State;
use tcp_common::record::Counters;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/metrics.golden.txt");

/// A snapshot with a number of its own in every place that can count.
fn busy() -> Snapshot {
    let mut last = 100;
    let snapshot = snapshot(|| {
        last += 1;
        last
    });
    for (index, seconds) in [0.0005, 0.25, 2.0, 700.0].into_iter().enumerate() {
        for histogram in [&snapshot.totals.handshake, &snapshot.totals.connection, &snapshot.totals.close] {
            histogram.observe(seconds);
        }
        snapshot.totals.observe_state_duration(index % 2 == 0, State::CloseWait, (seconds * 1e9) as u64);
        if index < 2 {
            snapshot.totals.lateness.observe(seconds);
            snapshot.totals.sweep_pause.observe(seconds);
        }
    }
    snapshot
}

/// The agent has just started.
fn idle() -> Snapshot {
    snapshot(|| 0)
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
        // No `..`: whoever adds a counter decides here whether it is scraped.
        counters: Counters {
            predicted: [[0; 2]; 2],
            merged: [[0; 2]; 2],
            seen: next(),
            tracked: next(),
            ignored: row(next),
            transitions: transitions(next),
            segments: rows(next),
            events: next(),
            events_lost: next(),
            deferred: next(),
            evicted: row(next),
            claims_yielded: next(),
            causes: row(next),
            time_wait_restarted: next(),
        },
        totals: Totals {
            opened: rows(next),
            closed: rows(next),
            resets: rows(next),
            time_wait_expired: next(),
            transitions: transitions(next),
            delivered: next(),
            deferred: row(next),
            resyncs: next(),
            audit_looks: next(),
            audit_repairs: row(next),
            audit_adopted: next(),
            ..Totals::default()
        },
        endpoints: rows(next),
        table_used: rows(next),
        table_capacity: row(next),
        programs: vec![ProgramRuns {
            program: "finwait_xdp",
            runs: next(),
            duration: Duration::from_nanos(next()),
        }],
    }
}

fn page(snapshot: &Snapshot, format: Format) -> String {
    encode(snapshot, format).expect("a String takes everything")
}

fn samples(page: &str) -> Vec<&str> {
    page.lines().filter(|line| !line.starts_with('#')).collect()
}

/// Names and labels without the numbers.
fn series(snapshot: &Snapshot) -> BTreeSet<String> {
    let page = page(snapshot, Format::Text);
    let names: Vec<_> = samples(&page).into_iter().filter_map(|line| line.rsplit_once(' ')).collect();
    let set: BTreeSet<_> = names.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(set.len(), names.len(), "a series twice");
    set
}

#[test]
fn the_page_is_as_agreed() {
    let page = page(&busy(), Format::Text);
    if std::env::var_os("FINWAIT_BLESS").is_some() {
        std::fs::write(GOLDEN, &page).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("read the golden file");
    for (number, (line, agreed)) in page.lines().zip(golden.lines()).enumerate() {
        assert_eq!(line, agreed, "line {} of {GOLDEN}", number + 1);
    }
    assert_eq!(page.lines().count(), golden.lines().count(), "lines of {GOLDEN}");
}

#[test]
fn the_number_of_series_is_bounded() {
    let (at_first, at_most) = (series(&idle()), series(&busy()));
    assert!(at_most.is_superset(&at_first));
    let joined: Vec<_> = at_most.difference(&at_first).collect();
    assert!(joined.iter().all(|series| series.starts_with("finwait_transitions_total{")), "{joined:?}");
    let transitions =
        at_most.iter().filter(|series| series.starts_with("finwait_transitions_total{")).count();
    assert_eq!(transitions, 2 * 11 * 10, "every pair of states, each side");
    assert!(at_most.len() <= 720, "{} series", at_most.len());
}

#[test]
fn promtool_has_nothing_to_say() {
    for snapshot in [idle(), busy()] {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool of the Debian package prometheus");
        let mut stdin = promtool.stdin.take().expect("piped");
        stdin.write_all(page(&snapshot, Format::Text).as_bytes()).expect("promtool reads");
        drop(stdin);
        let output = promtool.wait_with_output().expect("promtool ends");
        let words =
            [output.stdout, output.stderr].map(|words| String::from_utf8_lossy(&words).into_owned()).concat();
        assert!(output.status.success() && words.is_empty(), "{}: {words}", output.status);
    }
}

#[test]
fn plain_text_has_no_word_of_openmetrics() {
    let page = page(&busy(), Format::Text);
    assert!(!page.contains("# EOF") && !page.contains("# UNIT") && !page.contains("_total_total"));
    for line in page.lines().filter(|line| line.starts_with("# TYPE ")) {
        let [name, kind] = line.split(' ').skip(2).collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
    }
}

#[test]
fn openmetrics_is_the_same_samples_under_its_own_heads() {
    let snapshot = busy();
    let (text, open) = (page(&snapshot, Format::Text), page(&snapshot, Format::OpenMetrics));
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
fn a_scraper_gets_the_form_it_asks_for() {
    for (accept, format) in [
        (None, Format::Text),
        (Some(""), Format::Text),
        (Some("*/*"), Format::Text),
        (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Format::Text),
        // Prometheus 2.42.
        (
            Some(
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            ),
            Format::OpenMetrics,
        ),
        // Prometheus 3.
        (
            Some(
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            ),
            Format::OpenMetrics,
        ),
        (Some("Application/OpenMetrics-Text; Version=\"1.0.0\""), Format::OpenMetrics),
        (Some("application/openmetrics-text, text/plain"), Format::OpenMetrics),
        (Some("application/openmetrics-text;q=0.5, text/plain"), Format::Text),
        (Some("application/openmetrics-text;q=0.5, */*;q=0.8, text/plain;q=0.4"), Format::OpenMetrics),
        (Some("application/openmetrics-text;q=0"), Format::Text),
        (Some("application/openmetrics-text;q=nan"), Format::Text),
        (Some("application/openmetrics-text;version=2.0.0, */*;q=0.1"), Format::Text),
        (Some(";;,=,q=1"), Format::Text),
    ] {
        assert_eq!(Format::negotiate(accept), format, "{accept:?}");
    }
    assert!(Format::Text.content_type().starts_with("text/plain; version=0.0.4"));
    assert!(Format::OpenMetrics.content_type().starts_with("application/openmetrics-text; version=1.0.0"));
}
