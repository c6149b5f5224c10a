//! Blocks that are to be seen again.

use super::{Follower, Halt};
use crate::chain::ChainInfo;
use crate::chain::fault::{FaultKind, RpcFault};

/// The most older blocks seen between two looks at bitcoind's tip.
const AGAIN_AT_ONCE: u32 = 20;

impl Follower {
    /// Some of the older blocks that the listener wants; the tip is looked for in between. Says whether there were any.
    pub(super) fn look_again(&self, info: &ChainInfo) -> Result<bool, Halt> {
        for seen in 0..AGAIN_AT_ONCE {
            let Some(height) = self.listener.wants_again() else { return Ok(seen > 0) };
            if info.prune_height.is_some_and(|kept| kept > height) {
                self.listener.pruned(info.prune_height);
                return Ok(true);
            }
            let Some(hash) = self.source.block_hash(height)? else { return Ok(false) };
            match self.verified_block(hash) {
                Ok(block) => self.listener.again(height, &block),
                // Deleted since. Nothing but what was asked for depends on it.
                Err(Halt::Fault(RpcFault { kind: FaultKind::Pruned, .. })) => self.listener.pruned(None),
                Err(halt) => return Err(halt),
            }
        }
        Ok(true)
    }
}
