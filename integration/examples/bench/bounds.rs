//! What figures have to reach that are compared with no rival, but with the same node without what is measured.

use crate::report::{Figure, median, shown};

/// A figure to reach, of its median.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) figure: &'static str,
    asks: Asks,
}

#[derive(Clone, Copy, Debug)]
enum Asks {
    AtLeast(f64),
    AtMost(f64),
}

/// What issue 5 asks for under "Figures to reach", and issue 6 of a start.
pub(crate) const BOUNDS: [Bound; 5] = [
    Bound { figure: "sinks_relay_8_sync4ms_mirror_kept", asks: Asks::AtLeast(0.7) },
    Bound { figure: "sinks_relay_8_syncs_sync4ms_mirror_times", asks: Asks::AtMost(2.2) },
    Bound { figure: "sinks_stalled_growth", asks: Asks::AtMost(1.2) },
    Bound { figure: "start_killed_growth", asks: Asks::AtMost(1.5) },
    Bound { figure: "start_status_share", asks: Asks::AtMost(1.0) },
];

impl Asks {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!("at least {least}"),
            Self::AtMost(most) => format!("at most {most}"),
        }
    }
}

impl Bound {
    fn row(&self, values: &[f64]) -> Option<String> {
        let median = median(values)?;
        let met = values.iter().filter(|value| self.asks.is_met(**value)).count();
        let is_met = if self.asks.is_met(median) { "yes" } else { "**no**" };
        let (figure, asks, rounds) = (self.figure, self.asks.words(), values.len());
        Some(format!("| {figure} | {asks} | {} | {is_met} | {met} of {rounds} |\n", shown(median)))
    }
}

/// Those of the figures that have a bound, beside it, and in how many rounds it was met; nothing where none has.
pub(crate) fn table(figures: &[Figure]) -> String {
    let row = |bound: &Bound| {
        let figure = figures.iter().find(|figure| figure.name == bound.figure)?;
        bound.row(&figure.outrigger)
    };
    let rows: String = BOUNDS.iter().filter_map(row).collect();
    if rows.is_empty() {
        return rows;
    }
    format!("| figure to reach | bound | median | reached | rounds that did |\n|---|---:|---:|---|---:|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, outrigger: &[f64]) -> Figure {
        let (unit, ldk) = ("times", Vec::new());
        Figure { name: name.to_owned(), unit, outrigger: outrigger.to_vec(), ldk, more_is_better: false }
    }

    #[test]
    fn a_figure_stands_beside_its_bound_and_one_without_is_left_out() {
        let figures = [
            figure("sinks_stalled_growth", &[0.9, 1.3, 1.2]),
            figure("sinks_stalled", &[27.0]),
            figure("sinks_relay_8_sync4ms_mirror_kept", &[0.69, 0.71, 0.5]),
        ];
        let rows: Vec<_> = table(&figures).lines().skip(2).map(str::to_owned).collect();
        let wanted = [
            "| sinks_relay_8_sync4ms_mirror_kept | at least 0.7 | 0.69 | **no** | 1 of 3 |",
            "| sinks_stalled_growth | at most 1.2 | 1.2 | yes | 2 of 3 |",
        ];
        assert_eq!(rows, wanted);
        assert_eq!(table(&[figure("floor_sync", &[1.0])]), "");
    }
}
