//! The counters and gauges of a metrics page and of the statistics, in a form in which they can be compared.

use std::collections::BTreeMap;

use finwait::api::Stats;

/// Values by name and labels.
pub type Counts = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Returns the counters and gauges of a page in Prometheus text 0.0.4, without the infos.
pub fn counts_on(page: &str) -> Counts {
    let kinds: BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')))
        .collect();
    let mut counts = Counts::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a sample");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        if matches!(kinds.get(name), Some(&("counter" | "gauge"))) && !name.ends_with("_info") {
            let labels = labels.trim_end_matches('}').split_terminator(',').map(|label| {
                let (label, value) = label.split_once('=').expect("a label");
                (label.to_owned(), value.trim_matches('"').to_owned())
            });
            counts.insert((name.to_owned(), labels.collect()), value.parse().expect("a number"));
        }
    }
    counts
}

/// Returns the counters and gauges of the statistics.
pub fn counts_of(stats: &Stats) -> Counts {
    let samples = stats.metrics.iter().flat_map(|(name, samples)| {
        samples.iter().map(move |sample| {
            ((name.clone(), sample.labels.clone()), sample.value.as_f64().expect("a number"))
        })
    });
    samples.collect()
}
