//! What rows must fulfil to be a channel, whoever wrote them.

use crate::changes::{ChannelRows, Totals};
use crate::commitments::htlc::{HtlcState, Offerer, Side, Stage};
use crate::row::CorruptRows;

impl ChannelRows {
    /// What any rows must fulfil to be a channel.
    pub(crate) fn check(&self) -> Result<(), CorruptRows> {
        let Self { params, head, htlcs, .. } = self;
        let total = params.capacity.to_msat().ok_or(CorruptRows("the capacity is beyond all bitcoin"))?;
        for (owner, totals) in [(Side::Local, &head.local_commitment), (Side::Remote, &head.remote_commitment)] {
            let mut found = Totals { to_local: totals.to_local, to_remote: totals.to_remote, ..Totals::default() };
            for (key, row) in htlcs.iter().filter(|(key, row)| row.state.in_commitment(key.offerer, owner)) {
                found = found
                    .counting(key.offerer, row.amount, params.dust_limit(owner))
                    .ok_or(CorruptRows("a commitment holds more than can be counted"))?;
            }
            if found != *totals {
                return Err(CorruptRows("the HTLCs of a commitment are not those of its running totals"));
            }
            if found.sum() != total {
                return Err(CorruptRows("a commitment does not add up to the capacity"));
            }
        }
        check_progress(self)
    }
}

/// No row is ahead of the head: ids are given out, and what waits for a revocation waits for one that is due.
fn check_progress(ChannelRows { head, htlcs, .. }: &ChannelRows) -> Result<(), CorruptRows> {
    let waits = |stage: Stage| matches!(stage, Stage::Signed | Stage::Acknowledged);
    for (key, row) in htlcs {
        let next_id = match key.offerer {
            Offerer::Local => head.next_local_htlc_id,
            Offerer::Remote => head.next_remote_htlc_id,
        };
        let (_, stage) = row.state.update(key.offerer);
        if key.id >= next_id {
            return Err(CorruptRows("an HTLC has an id that was never given out"));
        }
        if stage == Stage::Proposed || (waits(stage) && !head.awaiting_revocation()) {
            return Err(CorruptRows("an HTLC waits for what is not on its way"));
        }
        if matches!(row.state, HtlcState::Removing(_)) != row.removal.is_some() {
            return Err(CorruptRows("an HTLC leaves without a reason, or has one and stays"));
        }
    }
    match head.fee.change {
        Some((_, stage)) if waits(stage) && !head.awaiting_revocation() => {
            Err(CorruptRows("a feerate waits for what is not on its way"))
        }
        Some(_) | None => Ok(()),
    }
}
