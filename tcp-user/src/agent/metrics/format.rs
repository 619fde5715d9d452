//! The two text forms of the page, and which one a scraper asks for.

/// The form of a scrape's answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The form that a scraper with this `Accept` header gets: OpenMetrics if it names it and likes it no less than plain
    /// text, otherwise plain text.
    pub fn negotiate(accept_header: Option<&str>) -> Format {
        let ranges = || accept_header.unwrap_or_default().split(',').filter_map(MediaRange::parse);
        let weight = |name: &str| {
            ranges().filter(|range| range.name == name).map(|range| range.weight).reduce(f32::max)
        };
        let open_metrics = weight("application/openmetrics-text").unwrap_or(0.0);
        // The most specific range that covers plain text decides.
        let plain = ["text/plain", "text/*", "*/*"].into_iter().find_map(weight).unwrap_or(0.0);
        if open_metrics > 0.0 && open_metrics >= plain { Format::OpenMetrics } else { Format::Text }
    }

    /// For the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One element of an `Accept` header.
struct MediaRange {
    name: String,
    weight: f32,
}

impl MediaRange {
    /// `None` where it asks for a version of OpenMetrics that is not spoken here, or makes no sense.
    fn parse(range: &str) -> Option<MediaRange> {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?.to_ascii_lowercase();
        let mut weight = 1.0;
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => weight = value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?,
                // 0.0.1 is the draft that the same text satisfies.
                "version" if name.ends_with("/openmetrics-text") && !matches!(value, "1.0.0" | "0.0.1") => {
                    return None;
                }
                _ => {}
            }
        }
        Some(MediaRange { name, weight })
    }
}
