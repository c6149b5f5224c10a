//! What a run tells: for machines, and for people.

use serde_json::{Value, json};

/// One scenario's figures, side by side.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    /// One value for each round.
    pub(crate) outrigger: Vec<f64>,
    /// The same of LDK, round by round beside it; empty where there is nothing to compare with.
    pub(crate) ldk: Vec<f64>,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted.get(middle).copied()
    } else {
        Some((sorted.get(middle)? + sorted.get(middle.checked_sub(1)?)?) / 2.0)
    }
}

/// How far values lie apart, as a share of their median.
fn apart(values: &[f64]) -> Option<f64> {
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    Some((most - least) / median(values)?)
}

impl Figure {
    /// How many times better Outrigger is.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (median(&self.outrigger)?, median(&self.ldk)?);
        Some(if self.more_is_better { ours / theirs } else { theirs / ours })
    }

    /// How far the rounds of the side that varies more lie apart, as a share of its median.
    pub(crate) fn spread(&self) -> Option<f64> {
        let (ours, theirs) = (apart(&self.outrigger), apart(&self.ldk));
        ours.into_iter().chain(theirs).max_by(f64::total_cmp)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "outrigger": median(&self.outrigger).map(rounded),
            "ldk": median(&self.ldk).map(rounded),
            "ratio": self.ratio().map(rounded),
            "spread": self.spread().map(rounded),
        })
    }

    pub(crate) fn row(&self) -> String {
        let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), shown);
        let times = self.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        let spread = self.spread().map_or_else(|| "–".to_owned(), |spread| format!("{:.0} %", spread * 100.0));
        format!(
            "| {} | {} | {} | {} | {times} | {spread} |",
            self.name,
            self.unit,
            show(median(&self.outrigger)),
            show(median(&self.ldk)),
        )
    }
}

/// Four figures are more than a benchmark knows.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// What a run prints for machines.
pub(crate) fn document(figures: &[Figure]) -> Value {
    json!({ "scenarios": figures.iter().map(Figure::json).collect::<Vec<_>>() })
}

pub(crate) fn shown(value: f64) -> String {
    rounded(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(outrigger: &[f64], ldk: &[f64], more_is_better: bool) -> Figure {
        let (outrigger, ldk) = (outrigger.to_vec(), ldk.to_vec());
        Figure { name: "relay_8_native".to_owned(), unit: "payments/s", outrigger, ldk, more_is_better }
    }

    #[test]
    fn the_document_has_exactly_the_fields_of_the_issue() {
        let figures = [figure(&[800.0, 1000.0, 900.0], &[100.0, 50.0, 90.0], true)];
        let wanted = json!({ "scenarios": [{
            "name": "relay_8_native",
            "unit": "payments/s",
            "outrigger": 900.0,
            "ldk": 90.0,
            "ratio": 10.0,
            "spread": 0.5556,
        }] });
        assert_eq!(document(&figures), wanted);
    }

    #[test]
    fn the_ratio_says_how_many_times_better_outrigger_is_whichever_way_is_better() {
        assert_eq!(figure(&[900.0], &[90.0], true).ratio(), Some(10.0));
        assert_eq!(figure(&[2.0], &[10.0], false).ratio(), Some(5.0));
    }

    #[test]
    fn where_nothing_is_compared_with_the_fields_are_null() {
        let told = figure(&[3.0], &[], false).json();
        assert_eq!((&told["outrigger"], &told["ldk"], &told["ratio"]), (&json!(3.0), &Value::Null, &Value::Null));
    }
}
