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

fn shown(value: f64) -> String {
    rounded(value).to_string()
}
