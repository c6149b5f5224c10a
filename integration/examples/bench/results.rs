//! The table and the charts that a run leaves in `contrib/bench-results/`.

use std::fmt::Write;
use std::path::Path;

use outrigger_integration::Done;

use crate::report::{Figure, median};
use crate::scenarios::{AGES, FLIGHTS};

const HEAD: &str = "| scenario | unit | Outrigger | LDK 0.2 | times better | spread |\n|---|---|---:|---:|---:|---:|\n";

/// The table of all figures.
pub(crate) fn table(figures: &[Figure]) -> String {
    figures.iter().fold(HEAD.to_owned(), |table, figure| table + &figure.row() + "\n")
}

/// Writes everything into a directory: the table with the machine, and the charts that there are figures for.
pub(crate) fn write(directory: &Path, machine: &str, figures: &[Figure]) -> Done<()> {
    std::fs::create_dir_all(directory)?;
    let mut page = format!(
        "# What the benchmark measured\n\nWritten by `contrib/bench --results`; `contrib/adr/0010-benchmark.md` tells what is \
         measured and how it is fair.\nMedians of the rounds; the spread is how far the rounds of the side that varies more lie \
         apart, and 0 where there was one.\n\nThe machine: {machine}.\n\n{}",
        table(figures)
    );
    let relays: Vec<_> = [1, 2, 4, 8, 16]
        .iter()
        .filter_map(|many| Some((many.to_string(), found(figures, &format!("relay_{many}_native"))?)))
        .collect();
    let flights: Vec<_> = FLIGHTS
        .iter()
        .filter_map(|window| Some((window.to_string(), found(figures, &format!("flight_{window}"))?)))
        .collect();
    let ages: Vec<_> = AGES
        .iter()
        .filter_map(|updates| Some((updates.to_string(), found(figures, &format!("aged_{updates}_written"))?)))
        .collect();
    let charts = [
        ("relay.svg", "Payments a second through a hub, by senders and receivers, 32 in flight each", relays),
        ("flight.svg", "Payments a second over one channel, by payments in flight", flights),
        ("aged.svg", "Bytes written to files for each payment, by updates of the channel before it", ages),
    ];
    for (name, title, points) in charts {
        if points.len() > 1 {
            std::fs::write(directory.join(name), columns(title, &points)?)?;
            write!(page, "\n![{title}]({name})\n")?;
        }
    }
    Ok(std::fs::write(directory.join("README.md"), page)?)
}

/// Outrigger's and LDK's median; 0 where LDK has none.
fn found(figures: &[Figure], name: &str) -> Option<(f64, f64)> {
    let figure = figures.iter().find(|figure| figure.name == name)?;
    Some((median(&figure.outrigger)?, median(&figure.ldk).unwrap_or_default()))
}

/// Columns in pairs, Outrigger's beside LDK's.
fn columns(title: &str, points: &[(String, (f64, f64))]) -> Done<String> {
    let (height, base, step) = (220.0, 270.0, 100.0);
    let most = points.iter().flat_map(|(_, (ours, theirs))| [*ours, *theirs]).fold(1.0, f64::max);
    let width = 40.0 + step * points.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} 310\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"310\" fill=\"white\"/>\n<text x=\"20\" y=\"20\">{title}</text>\n"
    );
    for (place, (label, (ours, theirs))) in points.iter().enumerate() {
        let left = 30.0 + step * place as f64;
        for (offset, value, colour) in [(0.0, *ours, "#1f77b4"), (36.0, *theirs, "#b0b0b0")] {
            let tall = height * value / most;
            let (x, top) = (left + offset, base - tall);
            writeln!(svg, "<rect x=\"{x}\" y=\"{top:.1}\" width=\"32\" height=\"{tall:.1}\" fill=\"{colour}\"/>")?;
            writeln!(svg, "<text x=\"{x}\" y=\"{:.1}\">{value:.0}</text>", top - 4.0)?;
        }
        writeln!(svg, "<text x=\"{}\" y=\"286\">{label}</text>", left + 28.0)?;
    }
    svg.push_str("<text x=\"20\" y=\"304\" fill=\"#1f77b4\">Outrigger</text>\n");
    svg.push_str("<text x=\"90\" y=\"304\" fill=\"#808080\">LDK 0.2</text>\n</svg>\n");
    Ok(svg)
}
