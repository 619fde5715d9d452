//! The report as a self-contained HTML page, with a plot for each measurement that grows.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use plotters::prelude::{ChartBuilder, IntoDrawingArea as _, IntoLogRange as _, LineSeries, SVGBackend};
use plotters::style::{Color as _, RGBColor, WHITE};
use serde_json::Value;

/// The page of a report.
pub(crate) fn page(report: &Value) -> Result<String> {
    let mut page = String::from(HEAD);
    let word = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
    writeln!(
        page,
        "<p>{}, {} CPUs, Linux {}, load {}. Times in ns. Cases take turns in every round; <i>added</i> and <i>ratio</i> are medians against the first line of a table or the \
         one it is named after, <i>of ref.</i> is what nf_conntrack adds.</p>",
        word("cpu"),
        report["cpus"],
        word("kernel"),
        word("load"),
    )?;
    if let Some(steps) = report["growth"]["steps"].as_array() {
        for (kind, title, least) in PLOTS {
            writeln!(page, "<h2>{title}</h2>{}", plot(steps, kind, least)?)?;
        }
    }
    tables(report, &mut page)?;
    page.push_str("</body></html>\n");
    Ok(page)
}

/// All series in the report.
fn tables(value: &Value, page: &mut String) -> Result<()> {
    if let (Some(title), Some(cases)) = (value["title"].as_str(), value["cases"].as_array()) {
        writeln!(
            page,
            "<table><caption>{title}</caption><tr><th>case<th>median<th>quartiles<th>added<th>ratio<th>of ref.</tr>"
        )?;
        for case in cases {
            let number = |value: &Value, digits: usize| {
                value.as_f64().map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
            };
            let quartiles = &case["quartiles_ns"];
            writeln!(
                page,
                "<tr><td>{}<td>{}<td>{} to {}<td>{}<td>{}<td>{}</tr>",
                case["case"].as_str().unwrap_or_default(),
                number(&case["median_ns"], 1),
                number(&quartiles[0], 1),
                number(&quartiles[1], 1),
                number(&case["added_ns"], 1),
                number(&case["ratio"], 2),
                number(&case["part_of_reference"], 2),
            )?;
        }
        page.push_str("</table>\n");
        return Ok(());
    }
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| tables(value, page)),
        Value::Object(values) => values.values().try_for_each(|value| tables(value, page)),
        _ => Ok(()),
    }
}

/// What each case adds by the number of connections, with a cache miss for comparison.
fn plot(steps: &[Value], kind: &str, base: &str) -> Result<String> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for step in steps {
        let flows = step["flows"].as_f64().context("a number of connections")?;
        let cases = [&step[kind], &step["miss"]].map(|series| series["cases"].as_array());
        for (case, column) in cases
            .into_iter()
            .flatten()
            .zip(["added_ns", "median_ns"])
            .flat_map(|(cases, column)| cases.iter().map(move |case| (case, column)))
        {
            let name = case["case"].as_str().unwrap_or_default();
            let Some(ns) = case[column].as_f64().filter(|_| name != base) else { continue };
            match lines.iter_mut().find(|(known, _)| known == name) {
                Some((_, points)) => points.push((flows, ns)),
                None => lines.push((name.to_owned(), vec![(flows, ns)])),
            }
        }
    }
    draw(&lines)
}

fn draw(lines: &[(String, Vec<(f64, f64)>)]) -> Result<String> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let most = points().map(|(flows, _)| flows).fold(10.0, f64::max);
    let highest = points().map(|(_, ns)| ns).fold(1.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (860, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((1.0..most * 1.1).log_scale(), 0.0..highest * 1.05)?;
        chart
            .configure_mesh()
            .x_desc("connections")
            .y_desc("ns")
            .x_label_formatter(&|flows| count(*flows))
            .draw()?;
        for ((name, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
                .label(name)
                .legend(move |(x, y)| {
                    plotters::element::PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(plotters::chart::SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

fn count(flows: f64) -> String {
    match flows {
        flows if flows >= 1e6 => format!("{} M", flows / 1e6),
        flows if flows >= 1e3 => format!("{} k", flows / 1e3),
        flows => flows.to_string(),
    }
}

/// For each plot: the series of a step, the title, and the case to compare with.
const PLOTS: [(&str, &str, &str); 2] = [
    ("live", "Added to a packet in the network stack, established connections in random order", "stack only"),
    ("alone", "Added to a bare parse, the programs alone", "bare parse"),
];
const COLORS: [RGBColor; 5] = [
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0x3f, 0xa3, 0x4d),
    RGBColor(0xd9, 0x82, 0x1e),
    RGBColor(0xb0, 0x2e, 0x2e),
    RGBColor(0x77, 0x77, 0x77),
];
const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>finwait bench</title><style>
body { font: 15px/1.4 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1.5em 0; width: 100% } caption { text-align: left; font-weight: bold }
td, th { text-align: right; padding: .1em .6em; border-bottom: 1px solid #ddd } td:first-child, th:first-child { text-align: left }
svg { width: 100%; height: auto }
</style></head><body><h1>finwait bench</h1>
";
