//! The table and the charts that a run leaves in `contrib/bench-results/`.

use std::fmt::Write;
use std::path::Path;

use outrigger_integration::Done;

use crate::bounds;
use crate::report::{Figure, median};
use crate::scenarios::{AGES, CONSOLIDATED, FLIGHTS};

const HEAD: &str = "| scenario | unit | Outrigger | LDK 0.2 | times better | spread |\n|---|---|---:|---:|---:|---:|\n";

/// The table of all figures, and below it those that have a bound.
pub(crate) fn table(figures: &[Figure]) -> String {
    let all = figures.iter().fold(HEAD.to_owned(), |table, figure| table + &figure.row() + "\n");
    match bounds::table(figures) {
        bounds if bounds.is_empty() => all,
        bounds => format!("{all}\n{bounds}"),
    }
}

/// Which page of the directory a run writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Whole,
    /// Of the run that `--sinks` asks for: it leaves the other alone.
    Sinks,
}

impl Page {
    const fn file(self) -> &'static str {
        match self {
            Self::Whole => "README.md",
            Self::Sinks => "sinks.md",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Whole => "What the benchmark measured",
            Self::Sinks => "What backups cost, and a start after a kill",
        }
    }

    const fn written_by(self) -> &'static str {
        match self {
            Self::Whole => "contrib/bench --results",
            Self::Sinks => "contrib/bench --sinks --results",
        }
    }
}

/// Columns that stand together, one for each series.
struct Chart {
    file: &'static str,
    title: &'static str,
    series: Vec<(String, &'static str)>,
    /// Label and one value for each series.
    points: Vec<(String, Vec<f64>)>,
    /// Each gridline is ten times the one below it.
    is_logarithmic: bool,
}

/// Writes everything into a directory: the table with the machine, and the charts that there are figures for.
pub(crate) fn write(directory: &Path, page: Page, machine: &str, figures: &[Figure]) -> Done<()> {
    std::fs::create_dir_all(directory)?;
    let (title, by) = (page.title(), page.written_by());
    let mut text = format!(
        "# {title}\n\nWritten by `{by}`; `contrib/adr/0010-benchmark.md` tells what is \
         measured and how it is fair.\nMedians of the rounds; the spread is how far the rounds of the side that varies more lie \
         apart, and 0 where there was one.\n\nThe machine: {machine}.\n\n{}",
        table(figures)
    );
    for chart in charts(figures) {
        if chart.points.len() > 1 {
            std::fs::write(directory.join(chart.file), chart.drawn()?)?;
            write!(text, "\n![{}]({})\n", chart.title, chart.file)?;
        }
    }
    Ok(std::fs::write(directory.join(page.file()), text)?)
}

fn charts(figures: &[Figure]) -> Vec<Chart> {
    let beside_ldk = |file, title, points: Vec<(String, String)>| Chart {
        file,
        title,
        series: vec![("Outrigger".to_owned(), "#1f77b4"), ("LDK 0.2".to_owned(), "#b0b0b0")],
        points: points.into_iter().filter_map(|(label, name)| Some((label, found(figures, &name)?.to_vec()))).collect(),
        is_logarithmic: false,
    };
    let relays = [1, 2, 4, 8, 16].map(|many| (many.to_string(), format!("relay_{many}_native")));
    let flights = FLIGHTS.map(|window| (window.to_string(), format!("flight_{window}")));
    let ages = AGES.map(|updates| (updates.to_string(), format!("aged_{updates}_written")));
    vec![
        beside_ldk(
            "relay.svg",
            "Payments a second through a hub, by senders and receivers, 32 in flight each",
            relays.into(),
        ),
        beside_ldk("flight.svg", "Payments a second over one channel, by payments in flight", flights.into()),
        beside_ldk(
            "aged.svg",
            "Bytes written to files for each payment, by updates of the channel before it",
            ages.into(),
        ),
        by_consolidation(
            figures,
            "sinks-written.svg",
            "Bytes of a directory for each write, by updates of the channel before it",
            "written",
        ),
        by_consolidation(
            figures,
            "sinks-time.svg",
            "Microseconds of a directory for each write, by updates of the channel before it",
            "time",
        ),
    ]
}

/// What a directory costs, by the writes after which it makes a full one.
fn by_consolidation(figures: &[Figure], file: &'static str, title: &'static str, what: &str) -> Chart {
    let scale = if what == "time" { 1e3 } else { 1.0 };
    let value = |updates, every| {
        let name = format!("sinks_aged_{updates}_every_{every}_{what}");
        let figure = figures.iter().find(|figure| figure.name == name)?;
        Some(median(&figure.outrigger)? * scale)
    };
    let point = |updates: &usize| {
        let values: Option<Vec<_>> = CONSOLIDATED.iter().map(|every| value(*updates, *every)).collect();
        Some((updates.to_string(), values?))
    };
    let colours = ["#d62728", "#ff7f0e", "#2ca02c", "#1f77b4"];
    let series = CONSOLIDATED.iter().zip(colours).map(|(every, colour)| (format!("full each {every}"), colour));
    Chart {
        file,
        title,
        series: series.collect(),
        points: AGES.iter().filter_map(point).collect(),
        is_logarithmic: true,
    }
}

/// Outrigger's and LDK's median; 0 where LDK has none.
fn found(figures: &[Figure], name: &str) -> Option<[f64; 2]> {
    let figure = figures.iter().find(|figure| figure.name == name)?;
    Some([median(&figure.outrigger)?, median(&figure.ldk).unwrap_or_default()])
}

const HEIGHT: f64 = 220.0;
const BASE: f64 = 270.0;
const COLUMN: f64 = 36.0;

impl Chart {
    /// How tall a value is, where this one is the tallest.
    fn tall(&self, value: f64, most: f64) -> f64 {
        let share = if self.is_logarithmic { value.max(1.0).log10() / most.max(10.0).log10() } else { value / most };
        HEIGHT * share
    }

    fn drawn(&self) -> Done<String> {
        let most = self.points.iter().flat_map(|(_, values)| values).copied().fold(1.0, f64::max);
        let step = COLUMN * self.series.len() as f64 + 28.0;
        let width = (40.0 + step * self.points.len() as f64).max(20.0 + 110.0 * self.series.len() as f64);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 310\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"310\" fill=\"white\"/>\n<text x=\"20\" y=\"20\">{}</text>\n",
            self.title
        );
        let mut gridline = 10.0;
        while self.is_logarithmic && gridline < most {
            let y = BASE - self.tall(gridline, most);
            writeln!(svg, "<path d=\"M20 {y:.1}H{width}\" stroke=\"#e0e0e0\"/>")?;
            gridline *= 10.0;
        }
        for (place, (label, values)) in self.points.iter().enumerate() {
            let left = 30.0 + step * place as f64;
            for (column, (value, (_, colour))) in values.iter().zip(&self.series).enumerate() {
                let tall = self.tall(*value, most);
                let (x, top) = (left + COLUMN * column as f64, BASE - tall);
                writeln!(svg, "<rect x=\"{x}\" y=\"{top:.1}\" width=\"32\" height=\"{tall:.1}\" fill=\"{colour}\"/>")?;
                writeln!(svg, "<text x=\"{x}\" y=\"{:.1}\">{}</text>", top - 4.0, short(*value))?;
            }
            writeln!(svg, "<text x=\"{}\" y=\"286\">{label}</text>", left + step / 2.0 - 22.0)?;
        }
        for (place, (name, colour)) in self.series.iter().enumerate() {
            writeln!(svg, "<text x=\"{}\" y=\"304\" fill=\"{colour}\">{name}</text>", 20 + 110 * place)?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

/// As many figures as have room above a column.
fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{:.1}M", value / 1e6),
        _ if value >= 1e5 => format!("{:.0}k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: String, value: f64) -> Figure {
        Figure { name, unit: "bytes", outrigger: vec![value], ldk: Vec::new(), more_is_better: false }
    }

    #[test]
    fn a_run_of_the_sinks_leaves_the_page_of_the_whole_run_alone_and_draws_its_own_charts() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("README.md"), "as it was").unwrap();
        let names =
            AGES.iter().flat_map(|age| CONSOLIDATED.map(|every| format!("sinks_aged_{age}_every_{every}_written")));
        let figures: Vec<_> = names.enumerate().map(|(at, name)| figure(name, 10_f64.powi(at as i32 % 7))).collect();
        write(directory.path(), Page::Sinks, "a machine", &figures).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("README.md"), "as it was");
        assert!(read("sinks.md").contains("![Bytes of a directory") && !read("sinks.md").contains("sinks-time.svg"));
        assert_eq!(read("sinks-written.svg").matches("<rect").count(), 1 + figures.len());
    }
}
