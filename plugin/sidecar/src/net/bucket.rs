//! What a peer may cost: a burst, and so much a second after that (DOS-9).

use tokio::time::Instant;

/// A token bucket on tokio's clock. It starts full.
pub(super) struct Bucket {
    left: u64,
    burst: u64,
    per_second: u64,
    counted_at: Instant,
}

impl Bucket {
    /// Holds at most `burst`, and gains `per_second`.
    pub(super) fn new(burst: u64, per_second: u64) -> Self {
        Self { left: burst, burst, per_second, counted_at: Instant::now() }
    }

    /// Takes `cost` out; false, and nothing is taken, where it is not there.
    pub(super) fn spend(&mut self, cost: u64) -> bool {
        let now = Instant::now();
        let millis = u64::try_from(now.duration_since(self.counted_at).as_millis()).unwrap_or(u64::MAX);
        let earned = millis.saturating_mul(self.per_second) / 1000;
        if earned > 0 {
            self.counted_at = now;
            self.left = self.left.saturating_add(earned).min(self.burst);
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
