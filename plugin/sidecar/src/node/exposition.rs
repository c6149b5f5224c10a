//! The text format of Prometheus, version 0.0.4: families of samples, each with its kind and what it means.

use std::fmt::Write;

use crate::measure::{BOUNDS_MICROS, Measured};

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises, and begins anew with the process.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// Families, one after the other.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// Names with values that tell samples of a family apart. Few, and none of a peer's making.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Exposition {
    /// Samples of one family.
    pub(super) fn family<'a>(
        &mut self,
        (name, kind, help): (&str, Kind, &str),
        samples: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, u64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.head(name, kind, help);
        for (labels, value) in samples {
            self.sample(name, &labels, &value.to_string());
        }
    }

    /// A family of one sample.
    pub(super) fn one(&mut self, of: (&str, Kind, &str), value: u64) {
        self.family(of, [(Vec::new(), value)]);
    }

    /// Histograms of one family, in seconds.
    pub(super) fn histograms<'a>(
        &mut self,
        (name, help): (&str, &str),
        all: impl IntoIterator<Item = (Vec<(&'static str, &'a str)>, Measured)>,
    ) {
        self.head(name, "histogram", help);
        for (labels, measured) in all {
            let bucket = format!("{name}_bucket");
            for (bound, no_longer) in BOUNDS_MICROS.iter().zip(measured.no_longer) {
                let bound = seconds(*bound);
                let labels = [labels.as_slice(), &[("le", bound.as_str())]].concat();
                self.sample(&bucket, &labels, &no_longer.to_string());
            }
            self.sample(&bucket, &[labels.as_slice(), &[("le", "+Inf")]].concat(), &measured.count.to_string());
            self.sample(&format!("{name}_sum"), &labels, &seconds(measured.sum_micros));
            self.sample(&format!("{name}_count"), &labels, &measured.count.to_string());
        }
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.text
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}\n", escaped(help, false));
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: &str) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", escaped(value, true));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

/// Microseconds as seconds, without a detour over floating point.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str, is_quoted: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if is_quoted { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::Histogram;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = Exposition::default();
        text.family(("a_msat", Kind::Gauge, "Back\\slash.\nLine."), [(vec![("of", "x\"y\\z\n")], 7), (Vec::new(), 8)]);
        let took = Histogram::default();
        took.observe(Duration::from_micros(101));
        text.histograms(("c_seconds", "Took."), [(vec![("method", "m")], took.measured())]);
        let text = text.finish();
        let begin = "# HELP a_msat Back\\\\slash.\\nLine.\n# TYPE a_msat gauge\na_msat{of=\"x\\\"y\\\\z\\n\"} 7\na_msat 8\n\
                     # HELP c_seconds Took.\n# TYPE c_seconds histogram\nc_seconds_bucket{method=\"m\",le=\"0.0001\"} 0\n\
                     c_seconds_bucket{method=\"m\",le=\"0.00025\"} 1\n";
        assert!(text.starts_with(begin), "{text}");
        let end = "c_seconds_bucket{method=\"m\",le=\"120\"} 1\nc_seconds_bucket{method=\"m\",le=\"+Inf\"} 1\n\
                   c_seconds_sum{method=\"m\"} 0.000101\nc_seconds_count{method=\"m\"} 1\n";
        assert!(text.ends_with(end), "{text}");
    }
}
