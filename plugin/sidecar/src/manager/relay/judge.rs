//! Whether an HTLC may go on to the next peer, by what it brings and what the operator asks (BOLT 7, "HTLC Fees"; BOLT 2,
//! "`cltv_expiry_delta` Selection").

use outrigger_bolt::amount::Msat;
use outrigger_bolt::onion::{Failure, ForwardPayload};

use super::onions::MAX_EXPIRY_BLOCKS;
use crate::manager::terms::ForwardingPolicy;

/// Blocks that an outgoing HTLC must have left: what expires sooner may be on its way to the chain already.
const GRACE_BLOCKS: u32 = 3;

/// What is wrong with a forward; each is told to the origin with the `channel_update` that says what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    BelowMinimum,
    AboveMaximum,
    FeeInsufficient,
    ExpiryTooClose,
    ExpiryTooSoon,
    ExpiryTooFar,
}

/// Judges a forward: what the HTLC brings, what its onion wants to be sent on, at this height.
pub(super) fn judge(
    policy: &ForwardingPolicy,
    (amount, cltv_expiry): (Msat, u32),
    forward: &ForwardPayload,
    height: u32,
) -> Result<(), Objection> {
    let outgoing = forward.amt_to_forward;
    if outgoing < policy.htlc_minimum {
        return Err(Objection::BelowMinimum);
    }
    if policy.htlc_maximum.is_some_and(|maximum| outgoing > maximum) {
        return Err(Objection::AboveMaximum);
    }
    let fee = outgoing.forwarding_fee(policy.fee_base_msat, policy.fee_proportional_millionths);
    let needed = fee.and_then(|fee| outgoing.checked_add(fee));
    if needed.is_none_or(|needed| amount < needed) {
        return Err(Objection::FeeInsufficient);
    }
    // FWD-11, FWD-12: sums that do not fit name heights that no block has.
    let needed = forward.outgoing_cltv_value.checked_add(u32::from(policy.cltv_expiry_delta));
    if needed.is_none_or(|needed| cltv_expiry < needed) {
        return Err(Objection::ExpiryTooClose);
    }
    if forward.outgoing_cltv_value <= height.saturating_add(GRACE_BLOCKS) {
        return Err(Objection::ExpiryTooSoon);
    }
    if forward.outgoing_cltv_value > height.saturating_add(MAX_EXPIRY_BLOCKS) {
        return Err(Objection::ExpiryTooFar);
    }
    Ok(())
}

impl Objection {
    /// The failure that tells it to the origin (BOLT 4, "Failure Messages").
    pub(super) fn into_failure(self, incoming: Msat, forward: &ForwardPayload, channel_update: Vec<u8>) -> Failure {
        match self {
            Self::BelowMinimum => Failure::AmountBelowMinimum { htlc_msat: forward.amt_to_forward, channel_update },
            Self::AboveMaximum => Failure::TemporaryChannelFailure { channel_update },
            Self::FeeInsufficient => Failure::FeeInsufficient { htlc_msat: incoming, channel_update },
            Self::ExpiryTooClose => {
                Failure::IncorrectCltvExpiry { cltv_expiry: forward.outgoing_cltv_value, channel_update }
            }
            Self::ExpiryTooSoon => Failure::ExpiryTooSoon { channel_update },
            Self::ExpiryTooFar => Failure::ExpiryTooFar,
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_bolt::id::ShortChannelId;

    use super::*;

    const HEIGHT: u32 = 1000;

    fn policy(fee_base_msat: u32, fee_proportional_millionths: u32) -> ForwardingPolicy {
        ForwardingPolicy {
            cltv_expiry_delta: 80,
            fee_base_msat,
            fee_proportional_millionths,
            htlc_minimum: Msat::new(10),
            htlc_maximum: Some(Msat::new(1_000_000)),
        }
    }

    fn forward(amount: u64, outgoing_cltv_value: u32) -> ForwardPayload {
        let short_channel_id = ShortChannelId::from_u64(1);
        ForwardPayload { amt_to_forward: Msat::new(amount), outgoing_cltv_value, short_channel_id }
    }

    fn judged(amount: u64, cltv_expiry: u32, forward: &ForwardPayload) -> Result<(), Objection> {
        judge(&policy(100, 1000), (Msat::new(amount), cltv_expiry), forward, HEIGHT)
    }

    #[test]
    fn one_millisatoshi_or_one_block_decides() {
        let good = forward(100_000, HEIGHT + 100);
        assert_eq!(judged(100_200, HEIGHT + 180, &good), Ok(()));
        assert_eq!(judged(100_199, HEIGHT + 180, &good), Err(Objection::FeeInsufficient));
        assert_eq!(judged(100_200, HEIGHT + 179, &good), Err(Objection::ExpiryTooClose));
        assert_eq!(judged(u64::MAX, HEIGHT + 180, &forward(10, HEIGHT + 100)), Ok(()), "overpaying is welcome");
        assert_eq!(judged(u64::MAX, HEIGHT + 180, &forward(9, HEIGHT + 100)), Err(Objection::BelowMinimum));
        let (largest, larger) = (forward(1_000_000, HEIGHT + 100), forward(1_000_001, HEIGHT + 100));
        assert_eq!(judged(u64::MAX, HEIGHT + 180, &largest), Ok(()));
        assert_eq!(judged(u64::MAX, HEIGHT + 180, &larger), Err(Objection::AboveMaximum));
    }

    #[test]
    fn fwd_11_fwd_12_expiries_at_their_limits() {
        for (outgoing, expected) in [
            (0, Err(Objection::ExpiryTooSoon)),
            (HEIGHT, Err(Objection::ExpiryTooSoon)),
            (HEIGHT + 1, Err(Objection::ExpiryTooSoon)),
            (HEIGHT + 3, Err(Objection::ExpiryTooSoon)),
            (HEIGHT + 4, Ok(())),
            (HEIGHT + 2016, Ok(())),
            (HEIGHT + 2017, Err(Objection::ExpiryTooFar)),
            (499_999_999, Err(Objection::ExpiryTooFar)),
            (500_000_000, Err(Objection::ExpiryTooFar)),
            (u32::MAX, Err(Objection::ExpiryTooClose)),
        ] {
            assert_eq!(judged(1_000_000, u32::MAX, &forward(1000, outgoing)), expected, "{outgoing}");
        }
    }
}
