//! The two text formats of the page, and which one a scraper gets.

use mediatype::names::{_STAR, APPLICATION, PLAIN, TEXT};
use mediatype::{MediaType, MediaTypeList, Name, ReadParams as _};

/// The format of the answer to a scrape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exposition {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// Chooses the format by the request's `Accept` header (RFC 9110, 12.5.1): OpenMetrics if the scraper
    /// names it and prefers it to plain text or likes both equally, otherwise plain text.
    pub fn negotiate(accept_header: Option<&str>) -> Exposition {
        let ranges: Vec<_> = MediaTypeList::new(accept_header.unwrap_or_default()).flatten().collect();
        let weight = |(main, sub)| {
            let same = ranges.iter().filter(|range| range.ty == main && range.subty == sub);
            same.filter_map(weight_of).reduce(f32::max)
        };
        let open_metrics = weight((APPLICATION, OPENMETRICS_TEXT)).unwrap_or(0.0);
        // The most specific range that covers plain text decides.
        let plain =
            [(TEXT, PLAIN), (TEXT, _STAR), (_STAR, _STAR)].into_iter().find_map(weight).unwrap_or(0.0);
        if open_metrics > 0.0 && open_metrics >= plain { Exposition::OpenMetrics } else { Exposition::Text }
    }

    /// The value of the `Content-Type` header.
    pub const fn content_type(self) -> &'static str {
        match self {
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The weight of a media range, from 0 to 1. `None` if it is out of range, or if the range asks for a version
/// of OpenMetrics other than 1.0.0 and its draft 0.0.1, which the same text satisfies.
fn weight_of(range: &MediaType<'_>) -> Option<f32> {
    if let Some(version) = range.get_param(VERSION)
        && range.subty == OPENMETRICS_TEXT
        && !["1.0.0", "0.0.1"].contains(&&*version.unquoted_str())
    {
        return None;
    }
    let weight = range.get_param(Q).map_or(Ok(1.0), |weight| weight.as_str().parse());
    weight.ok().filter(|weight| (0.0..=1.0).contains(weight))
}

const OPENMETRICS_TEXT: Name<'_> = Name::new_unchecked("openmetrics-text");
const VERSION: Name<'_> = Name::new_unchecked("version");
const Q: Name<'_> = Name::new_unchecked("q");
