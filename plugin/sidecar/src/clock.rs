//! The only reader of time and randomness in the daemon.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix seconds before which it cannot be: the chain says so.
static FLOOR: AtomicU64 = AtomicU64::new(0);

/// The operating system gave no random bytes. Nothing may be derived or opened without them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness: {0}")]
pub struct NoEntropy(pub String);

/// The machine's clock and its source of randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Seconds since 1970: the machine's clock, or the chain's where that is ahead (CLK-2). May go back (CLK-1). Never
    /// enters a key (KEY-2).
    pub fn now_unix() -> u64 {
        Self::wall_unix().max(FLOOR.load(Ordering::Relaxed))
    }

    /// What the machine's clock says, in seconds since 1970; 0 where it stands before that.
    pub fn wall_unix() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// It is this time or later, whatever the machine's clock says: the tip's median time past.
    pub fn not_before(unix: u64) {
        FLOOR.fetch_max(unix, Ordering::Relaxed);
    }

    /// A point on a clock that never goes back, for time limits.
    pub fn monotonic() -> Instant {
        Instant::now()
    }

    /// `N` bytes fit for keys, from the operating system.
    pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoEntropy> {
        let mut bytes = [0; N];
        Self::fill_random(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with bytes fit for keys, from the operating system.
    pub fn fill_random(bytes: &mut [u8]) -> Result<(), NoEntropy> {
        getrandom::fill(bytes).map_err(|error| NoEntropy(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ_and_time_has_begun() {
        assert_ne!(Clock::random_bytes::<32>().unwrap(), Clock::random_bytes::<32>().unwrap());
        assert!(Clock::now_unix() > 1_700_000_000);
    }

    #[test]
    fn clk_2_the_chain_sets_a_clock_that_is_behind() {
        let wall = Clock::wall_unix();
        Clock::not_before(1_231_006_505);
        assert!(Clock::now_unix() >= wall, "a chain that is behind sets nothing");
        // As for a clock that stands at 1970: the chain is ahead of it.
        Clock::not_before(wall + 7 * 24 * 3600);
        Clock::not_before(wall);
        assert!(Clock::now_unix() >= wall + 7 * 24 * 3600, "and never back");
    }
}
