//! Feerates: bitcoind's estimates between a floor and the operator's cap.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use outrigger_bolt::amount::FeeratePerKw;

use super::ChainSource;
use super::fault::RpcFault;
use super::stop::StopFlag;
use crate::lock::Mutex;

/// Blocks within which a commitment transaction with anchors should confirm by itself; its anchor can hurry it.
const COMMITMENT_TARGET: u16 = 12;
/// Blocks within which an ordinary transaction, such as a funding transaction, should confirm.
const NORMAL_TARGET: u16 = 6;
/// What is used where bitcoind never had an estimate: four satoshi per vbyte.
const FALLBACK: FeeratePerKw = FeeratePerKw::new(1000);
const REFRESH: Duration = Duration::from_secs(60);

/// The feerates of the moment, each between [`FeeratePerKw::FLOOR`] and the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimates {
    /// For commitment transactions.
    pub commitment: FeeratePerKw,
    /// For transactions that should confirm within an hour.
    pub normal: FeeratePerKw,
    /// The least that bitcoind's mempool takes now.
    pub floor: FeeratePerKw,
    /// Whether `commitment` is what bitcoind estimates, now or the last time it could. On regtest, whose blocks say
    /// nothing about fees, the floor is all there is to go by.
    pub is_estimate: bool,
}

/// Keeps the last usable estimates. They only ever serve to choose our own fees: no channel is closed because of one.
pub struct FeeEstimator {
    source: Arc<dyn ChainSource>,
    network: Network,
    cap: FeeratePerKw,
    state: Mutex<State>,
}

struct State {
    current: Estimates,
    /// The trouble that was last logged, so that it is logged once.
    trouble: Option<String>,
}

impl FeeEstimator {
    /// An estimator that holds the fallback until its first [`refresh`](Self::refresh).
    /// `cap` is the most that is ever given; it is not taken below [`FeeratePerKw::FLOOR`].
    pub fn new(source: Arc<dyn ChainSource>, network: Network, cap: FeeratePerKw) -> Self {
        let cap = cap.max(FeeratePerKw::FLOOR);
        let start = FALLBACK.min(cap);
        let floor = FeeratePerKw::FLOOR;
        let current = Estimates { commitment: start, normal: start, floor, is_estimate: false };
        Self { source, network, cap, state: Mutex::new(State { current, trouble: None }) }
    }

    /// The estimates of the last successful refresh.
    pub fn current(&self) -> Estimates {
        self.state.lock().current
    }

    /// Asks bitcoind. What it cannot say stays as it was.
    pub fn refresh(&self) {
        let before = self.current();
        let result = self.ask(before);
        let mut state = self.state.lock();
        match result {
            Ok(estimates) => {
                state.current = estimates;
                state.trouble = None;
            }
            Err(fault) => {
                let trouble = fault.to_string();
                if state.trouble.as_ref() != Some(&trouble) {
                    tracing::warn!(%fault, hint = fault.hint(), "feerates stay as they were");
                    state.trouble = Some(trouble);
                }
            }
        }
    }

    /// Refreshes each minute until `stop` is raised, and tells what came of it. Blocks the thread.
    pub fn run(&self, stop: &StopFlag, told: impl Fn(Estimates)) {
        while !stop.is_raised() {
            self.refresh();
            told(self.current());
            stop.sleep(REFRESH);
        }
    }

    fn ask(&self, before: Estimates) -> Result<Estimates, RpcFault> {
        let floor = self.clamp(self.source.mempool_min_fee()?, FeeratePerKw::FLOOR);
        let estimate = |target, before: FeeratePerKw| -> Result<(FeeratePerKw, bool), RpcFault> {
            // The blocks of regtest say nothing about fees, so nothing but the floor moves what is used there.
            let (asked, before) = match self.network {
                Network::Regtest => (None, FALLBACK.min(self.cap)),
                _ => (self.source.estimate_fee(target)?, before),
            };
            let asked = asked.filter(|rate| *rate > 0);
            Ok((asked.map_or(before.max(floor), |rate| self.clamp(rate, floor)), asked.is_some()))
        };
        let (commitment, is_estimated) = estimate(COMMITMENT_TARGET, before.commitment)?;
        let (normal, _) = estimate(NORMAL_TARGET, before.normal)?;
        let is_estimate = before.is_estimate || is_estimated || self.network == Network::Regtest;
        Ok(Estimates { commitment, normal, floor, is_estimate })
    }

    /// Satoshi per 1000 vbytes as satoshi per 1000 weight units, rounded up and kept within the limits.
    fn clamp(&self, sat_per_kvb: u64, floor: FeeratePerKw) -> FeeratePerKw {
        let per_kw = u32::try_from(sat_per_kvb.div_ceil(4)).unwrap_or(u32::MAX);
        FeeratePerKw::new(per_kw).max(floor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};

    use super::*;
    use crate::chain::fault::FaultKind;
    use crate::chain::{ChainInfo, HeaderInfo, PackageAnswer};

    /// Answers for the mempool's minimum and for every target.
    struct Fees(Mutex<(Result<u64, FaultKind>, Option<u64>)>);

    fn unused<T>() -> Result<T, RpcFault> {
        Err(RpcFault::new(FaultKind::NoSuchCall, "not scripted"))
    }

    impl ChainSource for Fees {
        fn chain_info(&self) -> Result<ChainInfo, RpcFault> {
            unused()
        }
        fn block_hash(&self, _: u32) -> Result<Option<BlockHash>, RpcFault> {
            unused()
        }
        fn header(&self, _: BlockHash) -> Result<Option<HeaderInfo>, RpcFault> {
            unused()
        }
        fn block(&self, _: BlockHash) -> Result<Block, RpcFault> {
            unused()
        }
        fn wait_for_new_block(&self, _: BlockHash, _: Duration, _: &StopFlag) -> Result<(), RpcFault> {
            unused()
        }
        fn submit_package(&self, _: &[Transaction]) -> Result<PackageAnswer, RpcFault> {
            unused()
        }
        fn mempool_spender(&self, _: OutPoint) -> Result<Option<Txid>, RpcFault> {
            unused()
        }
        fn mempool_transaction(&self, _: Txid) -> Result<Option<Transaction>, RpcFault> {
            unused()
        }
        fn broadcast(&self, _: &Transaction) -> Result<Txid, RpcFault> {
            unused()
        }
        fn estimate_fee(&self, _: u16) -> Result<Option<u64>, RpcFault> {
            Ok(self.0.lock().1)
        }
        fn mempool_min_fee(&self) -> Result<u64, RpcFault> {
            self.0.lock().0.map_err(|kind| RpcFault::new(kind, "scripted"))
        }
    }

    fn estimates(source: &Arc<Fees>, estimator: &FeeEstimator, min: u64, estimate: Option<u64>) -> (u32, u32, u32) {
        *source.0.lock() = (Ok(min), estimate);
        estimator.refresh();
        let current = estimator.current();
        (current.commitment.get(), current.normal.get(), current.floor.get())
    }

    #[test]
    fn fee_4_bad_input_102_estimates_are_clamped_and_missing_ones_change_nothing() {
        let source = Arc::new(Fees(Mutex::new((Ok(1000), None))));
        let estimator = FeeEstimator::new(source.clone(), Network::Signet, FeeratePerKw::new(50_000));
        let cases = [
            ((1000, None), (1000, 1000, 253)),
            ((1000, Some(0)), (1000, 1000, 253)),
            ((1000, Some(10_001)), (2501, 2501, 253)),
            ((1000, Some(1)), (253, 253, 253)),
            ((20_000, Some(1)), (5000, 5000, 5000)),
            ((1000, Some(100_000_000)), (50_000, 50_000, 253)),
            ((1000, Some(u64::MAX)), (50_000, 50_000, 253)),
            ((u64::MAX, None), (50_000, 50_000, 50_000)),
        ];
        for ((min, estimate), expected) in cases {
            assert_eq!(estimates(&source, &estimator, min, estimate), expected, "{min} {estimate:?}");
        }
        let before = estimator.current();
        *source.0.lock() = (Err(FaultKind::Unreachable), Some(4000));
        estimator.refresh();
        assert_eq!(estimator.current(), before);
    }

    #[test]
    fn regtest_has_a_fixed_feerate_above_the_floor() {
        let source = Arc::new(Fees(Mutex::new((Ok(1000), None))));
        let estimator = FeeEstimator::new(source.clone(), Network::Regtest, FeeratePerKw::new(50_000));
        assert_eq!(estimates(&source, &estimator, 1000, Some(400_000)), (1000, 1000, 253));
        assert_eq!(estimates(&source, &estimator, 10_000, Some(400_000)), (2500, 2500, 2500));
        assert_eq!(estimates(&source, &estimator, 1000, Some(400_000)), (1000, 1000, 253));
    }

    #[test]
    fn a_cap_below_the_relay_floor_is_the_floor() {
        let source = Arc::new(Fees(Mutex::new((Ok(1000), None))));
        let estimator = FeeEstimator::new(source.clone(), Network::Signet, FeeratePerKw::new(1));
        assert_eq!(estimates(&source, &estimator, 1000, Some(400_000)), (253, 253, 253));
    }
}
