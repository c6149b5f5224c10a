//! Ways to a payee: over a channel with it, over the channels that its invoice names (BOLT 11, field `r`), or over the hops
//! that a caller gives.

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, ShortChannelId};
use outrigger_bolt::invoice::HintHop;
use outrigger_bolt::onion::ForwardPayload;

use crate::store::part::PartHop;

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
    /// When the first HTLC expires, and the last one.
    pub(super) cltv_expiry: u32,
    pub(super) final_cltv_expiry: u32,
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
        let final_cltv_expiry = cltv_expiry;
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
        Some(Self { forwards, payee, sends: amount, cltv_expiry, final_cltv_expiry })
    }

    /// The way over these hops from this height on. `None` where there is no hop, one behind the first names no channel, or
    /// a height does not fit.
    pub(super) fn given(hops: &[GivenHop], height: u32) -> Option<Self> {
        let (first, last) = (hops.first()?, hops.last()?);
        let forward = |(hop, next): (&GivenHop, &GivenHop)| {
            let payload = ForwardPayload {
                amt_to_forward: next.amount,
                outgoing_cltv_value: height.checked_add(next.blocks)?,
                short_channel_id: next.channel?,
            };
            Some((hop.node, payload))
        };
        Some(Self {
            forwards: hops.iter().zip(hops.iter().skip(1)).map(forward).collect::<Option<_>>()?,
            payee: last.node,
            sends: first.amount,
            cltv_expiry: height.checked_add(first.blocks)?,
            final_cltv_expiry: height.checked_add(last.blocks)?,
        })
    }

    /// What it costs to have this much arrive.
    pub(super) fn fee(&self, amount: Msat) -> Msat {
        self.sends.saturating_sub(amount)
    }

    /// The peer that the first HTLC goes to.
    pub(super) fn first(&self) -> NodeId {
        self.forwards.first().map_or(self.payee, |(node, _)| *node)
    }

    /// Every node with the channel that leads to it, the payee last.
    pub(super) fn hops(&self) -> Vec<PartHop> {
        let channels = [None].into_iter().chain(self.forwards.iter().map(|(_, told)| Some(told.short_channel_id)));
        let nodes = self.forwards.iter().map(|(node, _)| *node).chain([self.payee]);
        nodes.zip(channels).map(|(node, channel)| PartHop { node, channel }).collect()
    }
}

/// A hop of a route that the caller gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenHop {
    /// The node that the hop leads to.
    pub node: NodeId,
    /// The channel that leads there, as the node before calls it. The first is ours, and need not be named.
    pub channel: Option<ShortChannelId>,
    /// What the HTLC over that channel brings.
    pub amount: Msat,
    /// Blocks from now until that HTLC expires.
    pub blocks: u32,
}

/// What a given route has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) us: NodeId,
    pub(super) payee: NodeId,
    pub(super) amount: Msat,
    /// Blocks that the payee wants to be left.
    pub(super) blocks: u32,
    /// Blocks that an HTLC of ours may be held.
    pub(super) most: u32,
}

/// What is wrong with a given route. Hops are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRoute {
    #[error("names no hop")]
    Empty,
    #[error("has more than {MAX_NODES} hops")]
    TooLong,
    #[error("does not end at the receiver {0}")]
    ElsewhereThan(NodeId),
    #[error("hop {0} leads to this node itself")]
    OverUs(usize),
    #[error("hop {0} leads to a node that an earlier hop leads to")]
    Twice(usize),
    #[error("hop {0} needs a short_channel_id: only the first channel is ours to choose")]
    NoChannel(usize),
    #[error("hop {hop} brings {amount}, more than the hop before it")]
    Rises { hop: usize, amount: Msat },
    #[error("hop {hop} leaves {blocks} blocks, more than the hop before it")]
    Lengthens { hop: usize, blocks: u32 },
    #[error("the last hop brings {found}, and the receiver is to have {wanted}")]
    Amount { found: Msat, wanted: Msat },
    #[error("the last hop leaves {found} blocks, and the receiver wants {wanted}")]
    TooFewBlocks { found: u32, wanted: u32 },
    #[error("the first hop leaves {found} blocks, and no more than {most} are lent")]
    TooManyBlocks { found: u32, most: u32 },
    #[error("hop 1 names channel {0}, which is none of this node's with that peer")]
    NotOurs(ShortChannelId),
}

/// Checks a route that the caller gave, as far as that is no question of channels.
pub(super) fn check_given(hops: &[GivenHop], wanted: &Wanted) -> Result<(), BadRoute> {
    let (Some(first), Some(last)) = (hops.first(), hops.last()) else { return Err(BadRoute::Empty) };
    if hops.len() > MAX_NODES {
        return Err(BadRoute::TooLong);
    }
    for (index, hop) in hops.iter().enumerate() {
        let number = index.saturating_add(1);
        if hop.node == wanted.us {
            return Err(BadRoute::OverUs(number));
        }
        if hops.iter().take(index).any(|earlier| earlier.node == hop.node) {
            return Err(BadRoute::Twice(number));
        }
        let Some(before) = index.checked_sub(1).and_then(|before| hops.get(before)) else { continue };
        if hop.channel.is_none() {
            return Err(BadRoute::NoChannel(number));
        }
        if hop.amount > before.amount {
            return Err(BadRoute::Rises { hop: number, amount: hop.amount });
        }
        if hop.blocks > before.blocks {
            return Err(BadRoute::Lengthens { hop: number, blocks: hop.blocks });
        }
    }
    if last.node != wanted.payee {
        return Err(BadRoute::ElsewhereThan(wanted.payee));
    }
    if last.amount != wanted.amount {
        return Err(BadRoute::Amount { found: last.amount, wanted: wanted.amount });
    }
    if last.blocks < wanted.blocks {
        return Err(BadRoute::TooFewBlocks { found: last.blocks, wanted: wanted.blocks });
    }
    if first.blocks > wanted.most {
        return Err(BadRoute::TooManyBlocks { found: first.blocks, most: wanted.most });
    }
    Ok(())
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
    use super::*;
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

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
        let hop_to =
            |byte, channel: Option<u64>| PartHop { node: node(byte), channel: channel.map(ShortChannelId::from_u64) };
        assert_eq!(way.hops(), [hop_to(1, None), hop_to(2, Some(1)), hop_to(9, Some(2))]);
        assert_eq!((way.first(), way.final_cltv_expiry), (node(1), 700));
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

    fn given_hop(byte: u8, channel: Option<u64>, amount: u64, blocks: u32) -> GivenHop {
        let channel = channel.map(ShortChannelId::from_u64);
        GivenHop { node: node(byte), channel, amount: Msat::new(amount), blocks }
    }

    #[test]
    fn bad_input_82_each_fault_of_a_given_route_has_its_own_words() {
        let good = [given_hop(1, None, 1010, 120), given_hop(2, Some(7), 1005, 80), given_hop(9, Some(8), 1000, 40)];
        let wanted = Wanted { us: node(5), payee: node(9), amount: Msat::new(1000), blocks: 40, most: 2016 };
        assert_eq!(check_given(&good, &wanted), Ok(()));
        assert_eq!(check_given(&good[2..], &wanted), Ok(()), "a peer of ours, over a channel that is named");
        type Bend = fn(&mut Vec<GivenHop>);
        let bends: [(Bend, &str); 12] = [
            (|hops| hops.clear(), "names no hop"),
            (|hops| *hops = vec![hops[2]; 21], "has more than 20 hops"),
            (|hops| hops.truncate(2), "does not end at the receiver"),
            (|hops| hops[1].node = node(5), "hop 2 leads to this node itself"),
            (|hops| hops[1].node = node(1), "hop 2 leads to a node that an earlier hop leads to"),
            (|hops| hops[2].channel = None, "hop 3 needs a short_channel_id"),
            (|hops| hops[1].amount = Msat::new(1011), "hop 2 brings 1011 msat, more than the hop before it"),
            (|hops| hops[2].blocks = 81, "hop 3 leaves 81 blocks, more than the hop before it"),
            (
                |hops| hops[2].amount = Msat::new(999),
                "the last hop brings 999 msat, and the receiver is to have 1000 msat",
            ),
            (|hops| hops[2].blocks = 39, "the last hop leaves 39 blocks, and the receiver wants 40"),
            (|hops| hops[0].blocks = 2017, "the first hop leaves 2017 blocks, and no more than 2016 are lent"),
            (|hops| hops[0].blocks = u32::MAX, "the first hop leaves 4294967295 blocks"),
        ];
        for (bend, words) in bends {
            let mut hops = good.to_vec();
            bend(&mut hops);
            let said = check_given(&hops, &wanted).unwrap_err().to_string();
            assert!(said.starts_with(words), "{said}");
        }
        let route = Route::given(&good, 600).unwrap();
        assert_eq!(route.forwards, [(node(1), told(1005, 680, 7)), (node(2), told(1000, 640, 8))]);
        assert_eq!((route.sends, route.cltv_expiry, route.final_cltv_expiry), (Msat::new(1010), 720, 640));
        assert_eq!(Route::given(&good, u32::MAX - 100), None, "no such height");
    }

    #[test]
    fn an_invoice_that_names_ways_without_end_is_read_so_far() {
        let hints: Vec<_> = (0..1000).map(|fee| vec![hop(1, fee, 0, 40)]).collect();
        assert_eq!(ways(&node(5), node(9), &hints).len(), 1 + MAX_WAYS);
    }
}
