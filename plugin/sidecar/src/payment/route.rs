//! Ways to a payee: over a channel with it, or over the channels that its invoice names (BOLT 11, field `r`).

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::NodeId;
use outrigger_bolt::invoice::HintHop;
use outrigger_bolt::onion::ForwardPayload;

/// The most nodes on a way: what fits an onion, with room for the last payload (BOLT 4).
const MAX_NODES: usize = 20;

/// The most ways that are taken from one invoice: whoever wrote it decides how many it names.
const MAX_WAYS: usize = 20;

/// A way to a payee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// What each node before the payee is told, in their order. The first is a peer of ours.
    pub(super) forwards: Vec<(NodeId, ForwardPayload)>,
    pub(super) payee: NodeId,
    /// What the first HTLC brings, fees included.
    pub(super) sends: Msat,
    /// When the first HTLC expires.
    pub(super) cltv_expiry: u32,
}

/// What arrives at the end of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrives {
    pub(super) amount: Msat,
    pub(super) cltv_expiry: u32,
}

impl Route {
    /// The way over these channels, each from its node to the next one's or to the payee, for what arrives. `None` where
    /// sums do not fit or it is too long.
    pub(super) fn over(channels: &[HintHop], payee: NodeId, arrives: Arrives) -> Option<Self> {
        let Arrives { mut amount, mut cltv_expiry } = arrives;
        if channels.len() >= MAX_NODES {
            return None;
        }
        let mut forwards = Vec::with_capacity(channels.len());
        // From the payee back: each node before it wants its fee on top of what it sends on (BOLT 7, "HTLC Fees").
        for channel in channels.iter().rev() {
            let payload = ForwardPayload {
                amt_to_forward: amount,
                outgoing_cltv_value: cltv_expiry,
                short_channel_id: channel.short_channel_id,
            };
            forwards.push((channel.node, payload));
            let fee = amount.forwarding_fee(channel.fee_base_msat, channel.fee_proportional_millionths)?;
            amount = amount.checked_add(fee)?;
            cltv_expiry = cltv_expiry.checked_add(u32::from(channel.cltv_expiry_delta))?;
        }
        forwards.reverse();
        Some(Self { forwards, payee, sends: amount, cltv_expiry })
    }

    /// The peer that the first HTLC goes to.
    pub(super) fn first(&self) -> NodeId {
        self.forwards.first().map_or(self.payee, |(node, _)| *node)
    }

    /// Every node, the payee last.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.forwards.iter().map(|(node, _)| *node).chain([self.payee]).collect()
    }
}

/// The ways that an invoice names, each as its channels, seen from `us`: a hint that leads over us begins behind us, and
/// one that leads over the payee is of no use. No more than [`MAX_WAYS`] are looked at. A channel of ours with the payee comes first, as the way without any, and
/// none comes twice.
pub(super) fn ways(us: &NodeId, payee: NodeId, hints: &[Vec<HintHop>]) -> Vec<Vec<HintHop>> {
    let mut found: Vec<Vec<HintHop>> = vec![Vec::new()];
    for hint in hints.iter().take(MAX_WAYS) {
        let behind_us = hint.iter().rposition(|hop| hop.node == *us).map_or(0, |place| place.saturating_add(1));
        let channels: Vec<_> = hint.iter().skip(behind_us).copied().collect();
        if !channels.iter().any(|hop| hop.node == payee) && !found.contains(&channels) {
            found.push(channels);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
    use outrigger_bolt::id::ShortChannelId;

    use super::*;

    fn node(byte: u8) -> NodeId {
        let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
        NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
    }

    fn hop(byte: u8, fee_base_msat: u32, fee_proportional_millionths: u32, cltv_expiry_delta: u16) -> HintHop {
        HintHop {
            node: node(byte),
            short_channel_id: ShortChannelId::from_u64(u64::from(byte)),
            fee_base_msat,
            fee_proportional_millionths,
            cltv_expiry_delta,
        }
    }

    const ARRIVES: Arrives = Arrives { amount: Msat::new(1_000_000), cltv_expiry: 700 };

    fn told(amount: u64, outgoing_cltv_value: u32, scid: u64) -> ForwardPayload {
        let short_channel_id = ShortChannelId::from_u64(scid);
        ForwardPayload { amt_to_forward: Msat::new(amount), outgoing_cltv_value, short_channel_id }
    }

    #[test]
    fn fees_and_deltas_add_up_from_the_payee_back() {
        let way = Route::over(&[hop(1, 1000, 100, 80), hop(2, 500, 1000, 40)], node(9), ARRIVES).unwrap();
        assert_eq!(way.forwards[1], (node(2), told(1_000_000, 700, 2)));
        assert_eq!(way.forwards[0], (node(1), told(1_001_500, 740, 1)));
        assert_eq!((way.sends, way.cltv_expiry), (Msat::new(1_001_500 + 1000 + 100), 820));
        assert_eq!((way.first(), way.nodes()), (node(1), vec![node(1), node(2), node(9)]));
        let direct = Route::over(&[], node(9), ARRIVES).unwrap();
        assert_eq!((direct.first(), direct.sends, direct.cltv_expiry), (node(9), ARRIVES.amount, 700));
    }

    #[test]
    fn ways_that_lead_over_us_begin_behind_us_and_none_comes_twice() {
        let (us, payee) = (node(5), node(9));
        let over_us = vec![hop(1, 0, 0, 40), hop(5, 0, 0, 40), hop(2, 7, 0, 40)];
        let loops = vec![hop(9, 0, 0, 40), hop(2, 0, 0, 40)];
        let hints = [over_us, vec![hop(2, 7, 0, 40)], vec![hop(5, 9, 9, 9)], loops];
        assert_eq!(ways(&us, payee, &hints), [vec![], vec![hop(2, 7, 0, 40)]]);
    }

    #[test]
    fn hints_whose_sums_do_not_fit_or_that_are_too_long_are_no_ways() {
        let late = Arrives { cltv_expiry: u32::MAX - 10, ..ARRIVES };
        assert_eq!(Route::over(&[hop(1, 0, 0, 40)], node(9), late), None);
        let large = Arrives { amount: Msat::new(u64::MAX - 5), ..ARRIVES };
        assert_eq!(Route::over(&[hop(1, 10, 0, 40)], node(9), large), None);
        assert_eq!(Route::over(&[hop(1, 0, u32::MAX, 40)], node(9), large), None);
        assert_eq!(Route::over(&vec![hop(1, 0, 0, 1); 20], node(9), ARRIVES), None);
        assert!(Route::over(&vec![hop(1, 0, 0, 1); 19], node(9), ARRIVES).is_some());
    }

    #[test]
    fn an_invoice_that_names_ways_without_end_is_read_so_far() {
        let hints: Vec<_> = (0..1000).map(|fee| vec![hop(1, fee, 0, 40)]).collect();
        assert_eq!(ways(&node(5), node(9), &hints).len(), 1 + MAX_WAYS);
    }
}
