//! The only reader of time and randomness in the daemon.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The operating system gave no random bytes. Nothing may be derived or opened without them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness: {0}")]
pub struct NoEntropy(pub String);

/// The machine's clock and its source of randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Seconds since 1970; 0 where the machine's clock stands before that. Never enters a key (KEY-2).
    pub fn now_unix() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
}
