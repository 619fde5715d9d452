//! A real Prometheus scrapes the agent, and its queries return what finwait reports.

mod common;

use std::collections::BTreeMap;
use std::process::Command;

use common::{Agent, Daemon, fresh_folder, http_get, oracle, until};
use finwait::lab::{Family, Lab, Scenario};
use finwait::view::Connection;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[test]
#[ignore = "needs root"]
fn prometheus_stores_what_finwait_reports() {
    let lab = Lab::new().expect("making namespaces (root needed)");
    let agent = Agent::start(&lab, "prometheus", &["-i", lab.server.interface]);
    // The sockets stay open, so the states stay too.
    let played: Vec<_> = Scenario::perform_all(&lab, Family::Ipv4)
        .into_iter()
        .map(|result| result.expect("a scenario"))
        .collect();
    let _prometheus = start(&lab);

    until("Prometheus has scraped the agent", || {
        query(&lab, "up").iter().any(|series| series.value() == 1.0)
    });
    until("Prometheus has the ends that finwait has", || {
        let told = agent.stats().endpoints;
        assert!(told["local"]["time_wait"] > 0 && told["remote"]["established"] > 0, "{told:?}");
        let mut scraped: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for series in query(&lab, "finwait_endpoints") {
            let [side, state] = ["side", "state"].map(|label| series.metric[label].clone());
            scraped.entry(side).or_default().insert(state, series.value() as u64);
        }
        scraped == told
    });
    until("Prometheus has the opens that finwait has", || {
        let opened: u64 = agent.stats().opened.values().flat_map(|families| families.values()).sum();
        assert!(opened > 0 && opened <= played.len() as u64, "{opened} of {}", played.len());
        let scraped = query(&lab, "sum(finwait_connections_opened_total)");
        scraped.iter().any(|series| series.value() == opened as f64)
    });
    // Those that have closed may have left the table.
    let listed = [["ls", "--all", "-o", "ndjson"], ["ls", "--closed", "-o", "ndjson"]].map(|arguments| {
        let output = agent.cli(&arguments);
        String::from_utf8(output.stdout).expect("text")
    });
    let id = |line: &str| serde_json::from_str::<Connection>(line).expect("a connection").id.to_string();
    let ids: Vec<_> = listed.iter().flat_map(|list| list.lines().map(id)).collect();
    until("Prometheus has a connection of each duration of a close", || {
        let exemplars = exemplars(&lab, "finwait_close_duration_seconds_bucket");
        assert!(exemplars.iter().all(|exemplar| ids.contains(&exemplar.labels["id"])), "{exemplars:?}");
        !exemplars.is_empty()
    });
}

/// Starts Prometheus with one scrape a second. It keeps all data in a temporary folder.
fn start(lab: &Lab) -> Daemon {
    let folder = fresh_folder("prometheus");
    let configuration = folder.join("prometheus.yml");
    std::fs::write(&configuration, CONFIGURATION).expect("writing Prometheus' configuration");
    let mut command = Command::new("prometheus");
    command.args(["--web.listen-address", ADDRESS, "--log.level", "warn"]);
    command.arg("--enable-feature=exemplar-storage");
    command.arg("--config.file").arg(&configuration).arg("--storage.tsdb.path").arg(folder.join("data"));
    let prometheus = Daemon::start(&lab.server, &mut command);
    until("Prometheus listens", || oracle::listeners(&lab.server, 9090) == 1);
    // It listens before it answers queries.
    until("Prometheus is ready", || http_get(lab.server.namespace(), ADDRESS, "/-/ready").contains("Ready"));
    prometheus
}

/// Sends an instant query: <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>.
fn query(lab: &Lab, expression: &str) -> Vec<Series> {
    let data: Data = ask(lab, &format!("/api/v1/query?query={expression}"));
    data.result
}

/// Queries the exemplars of a series: <https://prometheus.io/docs/prometheus/latest/querying/api/#querying-exemplars>.
fn exemplars(lab: &Lab, series: &str) -> Vec<Exemplar> {
    let all: Vec<Exemplars> = ask(lab, &format!("/api/v1/query_exemplars?query={series}"));
    all.into_iter().flat_map(|of_series| of_series.exemplars).collect()
}

fn ask<T: DeserializeOwned>(lab: &Lab, path: &str) -> T {
    let body = http_get(lab.server.namespace(), ADDRESS, path);
    let answer: Answer<T> = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    answer.data
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Exemplars {
    exemplars: Vec<Exemplar>,
}

#[derive(Debug, Deserialize)]
struct Exemplar {
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    /// Time in seconds since the epoch, and the sample as text.
    value: (f64, String),
}

impl Series {
    fn value(&self) -> f64 {
        self.value.1.parse().expect("a number")
    }
}

const ADDRESS: &str = "127.0.0.1:9090";
const CONFIGURATION: &str = "\
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: finwait
    static_configs:
      - targets: ['127.0.0.1:9817']
";
