//! Older blocks for the wallet: `wallet.start_height` may be given, or lowered, when the wallet has begun already.

use bitcoin::{Block, BlockHash};

use super::chain_side::StoredWallet;
use crate::lock::Mutex;

/// Blocks between two words of how far it is.
const TOLD_EVERY: u32 = 100;

/// The blocks that the wallet has yet to look at. How far it came is not stored: a start begins again.
pub(super) struct Older {
    going: Mutex<Option<Going>>,
    /// Tells callers how far it is, or what is wrong.
    tell: Box<dyn Fn(Option<String>) + Send + Sync>,
}

struct Going {
    from: u32,
    next: u32,
    /// The block below the next.
    below: Option<BlockHash>,
}

impl Older {
    /// What there is to do for a wallet that is to have looked at every block from this one on. One that has not begun begins
    /// there.
    pub(super) fn of(
        wallet: &StoredWallet,
        start_height: Option<u32>,
        tell: impl Fn(Option<String>) + Send + Sync + 'static,
    ) -> Self {
        let (has_begun, looked_from) = wallet.looked_from();
        let from = start_height.filter(|from| has_begun && looked_from.is_none_or(|known| *from < known));
        if let Some(from) = from {
            tracing::info!(from, "the wallet looks at older blocks: coins of before wallet.start_height was given");
        }
        let going = from.map(|from| Going { from, next: from, below: None });
        Self { going: Mutex::new(going), tell: Box::new(tell) }
    }

    /// The block that is looked at next. Ends the work where that is above the tip.
    pub(super) fn wanted(&self, wallet: &StoredWallet, tip: u32) -> Option<u32> {
        let mut going = self.going.lock();
        let Going { from, next, .. } = going.as_ref()?;
        if *next <= tip {
            return Some(*next);
        }
        wallet.looked_again(*from);
        tracing::info!(from, to = tip, "the wallet has looked at every block from here on");
        *going = None;
        (self.tell)(None);
        None
    }

    /// The block that was wanted. Where it does not stand on the one before, or is not in the wallet's chain, all begins again.
    pub(super) fn take(&self, wallet: &StoredWallet, (height, block): (u32, &Block), tip: u32) {
        let mut going = self.going.lock();
        let Some(Going { from, next, below }) = going.as_mut() else { return };
        let stands = height == *next && below.is_none_or(|below| below == block.header.prev_blockhash);
        let taken = if stands { wallet.look_again(height, block) } else { Ok(false) };
        match taken {
            Ok(true) => (*next, *below) = (next.saturating_add(1), Some(block.block_hash())),
            Ok(false) => (*next, *below) = (*from, None),
            Err(fault) => {
                tracing::error!(height, %fault, "the wallet did not take in what an older block says");
                let words =
                    format!("the wallet did not look at the blocks from wallet.start_height {from} on: {fault}");
                *going = None;
                return (self.tell)(Some(words));
            }
        }
        if next.is_multiple_of(TOLD_EVERY) || height == *from {
            let words = format!(
                "older blocks are looked at since wallet.start_height is {from}: block {height} of {tip}; coins of before may be \
                 missing until then"
            );
            (self.tell)(Some(words));
        }
    }

    /// bitcoind does not have the wanted block any more, but those from `kept` on.
    pub(super) fn pruned(&self, kept: Option<u32>) {
        let Some(Going { from, next, .. }) = self.going.lock().take() else { return };
        let kept = kept.map_or_else(String::new, |kept| format!(", and has blocks from {kept} on"));
        let words = format!(
            "wallet.start_height is {from}, and bitcoind pruned block {next}{kept}: coins of before may be missing. Nothing else depends \
             on it. Give a height from there on, or run bitcoind with -reindex and less pruning, and start again"
        );
        tracing::warn!("{words}");
        (self.tell)(Some(words));
    }
}
