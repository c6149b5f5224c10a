//! How long things take, counted by size: what `chain.status` and `/metrics` tell of. Counting costs three additions and no lock,
//! and what is counted takes the same room however long the process lives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper end of each bucket, in microseconds; what is longer than the last has one more.
pub const BOUNDS_MICROS: [u64; 15] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

/// How often something took how long, since the start of the process.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_MICROS.len()],
    longer: AtomicU64,
    sum_micros: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How many were no longer than each of [`BOUNDS_MICROS`], those of all buckets before included.
    pub no_longer: [u64; BOUNDS_MICROS.len()],
    /// How many there were.
    pub count: u64,
    /// How long all of them took together, in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Counts something that took so long.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.iter().zip(&self.buckets).find(|(bound, _)| micros <= **bound);
        bucket.map_or(&self.longer, |(_, bucket)| bucket).fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn measured(&self) -> Measured {
        let mut measured = Measured { sum_micros: self.sum_micros.load(Ordering::Relaxed), ..Measured::default() };
        for (bucket, no_longer) in self.buckets.iter().zip(&mut measured.no_longer) {
            measured.count = measured.count.saturating_add(bucket.load(Ordering::Relaxed));
            *no_longer = measured.count;
        }
        measured.count = measured.count.saturating_add(self.longer.load(Ordering::Relaxed));
        measured
    }
}

impl Measured {
    /// The mean, in microseconds; 0 where there is nothing.
    pub fn mean_micros(&self) -> u64 {
        self.sum_micros.checked_div(self.count).unwrap_or(0)
    }

    /// The end of the bucket below which so many of a thousand lie, in microseconds; the last bound for what is longer, and 0 where
    /// there is nothing.
    pub fn within_micros(&self, per_mille: u64) -> u64 {
        if self.count == 0 {
            return 0;
        }
        let wanted = self.count.saturating_mul(per_mille).div_ceil(1000);
        let found = BOUNDS_MICROS.iter().zip(&self.no_longer).find(|(_, no_longer)| **no_longer >= wanted);
        found.map_or(BOUNDS_MICROS[BOUNDS_MICROS.len() - 1], |(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_lies_in_its_bucket_and_in_all_above() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 1_000_000, 120_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let measured = histogram.measured();
        assert_eq!((measured.count, measured.sum_micros), (5, 121_000_202));
        assert_eq!(measured.no_longer, [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4]);
        assert_eq!(measured.mean_micros(), 24_200_040);
        assert_eq!(
            [400, 500, 600, 800, 990].map(|part| measured.within_micros(part)),
            [100, 250, 250, 1_000_000, 120_000_000]
        );
        assert_eq!(Measured::default().within_micros(500), 0);
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.measured().count, 6);
    }
}
