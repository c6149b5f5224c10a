//! The machine's clock against the chain's.

use bitcoin::Network;

use super::Follower;
use crate::clock::Clock;

impl Follower {
    /// Holds the machine's clock against the chain's (CLK-2).
    pub(super) fn compare_clocks(&mut self, median_time: u64) {
        // Header times have 32 bits, whatever bitcoind says.
        Clock::not_before(median_time.min(u64::from(u32::MAX)));
        let trouble = clock_trouble(Clock::wall_unix(), median_time, self.network);
        if std::mem::replace(&mut self.clock_trouble, trouble) == trouble {
            return;
        }
        let words = trouble.map(|what| {
            format!(
                "{what}: set the machine's clock. Nothing is lost: where it is behind, the chain's time counts in invoices and updates"
            )
        });
        if let Some(words) = &words {
            tracing::warn!(median_time, "{words}");
        }
        self.listener.clock(words);
    }
}

/// What is wrong with a clock that differs from the tip's median time by more than two hours. A regtest chain is as old as
/// its last `generate`, so there only a clock that is behind says anything.
pub(super) fn clock_trouble(wall_unix: u64, median_time: u64, network: Network) -> Option<&'static str> {
    const TOLERATED_SECS: u64 = 2 * 3600;
    if median_time > wall_unix.saturating_add(TOLERATED_SECS) {
        Some("the machine's clock is more than two hours behind the chain")
    } else if network != Network::Regtest && wall_unix > median_time.saturating_add(TOLERATED_SECS) {
        Some("the machine's clock is more than two hours ahead of the chain, or no block was found for long")
    } else {
        None
    }
}
