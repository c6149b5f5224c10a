use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::ShortChannelId;

use super::*;

fn node(byte: u8) -> NodeId {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

const PAYEE: u8 = 9;
const HEIGHT: u32 = 1000;

fn over(byte: u8, fee_base_msat: u32, fee_proportional_millionths: u32) -> Way {
    let short_channel_id = ShortChannelId::from_u64(byte.into());
    let hop = HintHop {
        node: node(byte),
        short_channel_id,
        fee_base_msat,
        fee_proportional_millionths,
        cltv_expiry_delta: 40,
    };
    Way::untried(vec![hop])
}

fn task(amount: u64, max_fee: u64, max_parts: usize) -> Task {
    let arrives = Arrives { amount: Msat::new(amount), cltv_expiry: HEIGHT + 43 };
    Task { payee: node(PAYEE), arrives, height: HEIGHT, max_fee: Msat::new(max_fee), max_parts }
}

/// Peers with what their channels can send; the channel's id is the peer's byte and its place.
fn world(peers: &[(u8, &[u64])]) -> impl Fn(&NodeId, Msat) -> Outlets {
    let peers: Vec<_> = peers.iter().map(|(byte, channels)| (*byte, channels.to_vec())).collect();
    move |peer, amount| {
        let Some((byte, channels)) = peers.iter().find(|(byte, _)| node(*byte) == *peer) else {
            return Outlets::default();
        };
        let mut largest: Vec<_> =
            (1..).zip(channels).map(|(place, msat)| (Msat::new(*msat), id(*byte, place))).collect();
        largest.sort_unstable();
        let fit = largest.iter().find(|(msat, _)| *msat >= amount).copied();
        largest.reverse();
        Outlets { has_channel: true, fit, largest }
    }
}

fn id(byte: u8, place: u8) -> ChannelId {
    let mut id = [0; 32];
    (id[0], id[1]) = (byte, place);
    ChannelId(id)
}

fn pieces(planned: &[Piece]) -> Vec<(ChannelId, u64, u64)> {
    planned.iter().map(|piece| (piece.channel, piece.amount.get(), piece.route.sends.get())).collect()
}

const M: u64 = 1_000_000;

#[test]
fn one_channel_is_taken_where_one_suffices_the_smallest_that_does() {
    let look = world(&[(1, &[50 * M, 20 * M, 10 * M])]);
    let planned = plan(&[over(1, 1000, 0)], &task(10 * M, 1000, 16), &look).unwrap();
    assert_eq!(pieces(&planned), [(id(1, 2), 10 * M, 10 * M + 1000)], "the fee has to fit, too");
    let planned = plan(&[over(1, 0, 0)], &task(10 * M, 0, 16), &look).unwrap();
    assert_eq!(pieces(&planned), [(id(1, 3), 10 * M, 10 * M)]);
}

#[test]
fn parts_take_the_cheapest_way_first_and_its_largest_channels() {
    let look = world(&[(1, &[20 * M, 10 * M]), (2, &[30 * M]), (PAYEE, &[5 * M])]);
    let ways = [over(1, 2000, 0), over(2, 1000, 0), Way::untried(Vec::new())];
    let planned = plan(&ways, &task(60 * M, 10_000, 16), &look).unwrap();
    let expected = [
        (id(PAYEE, 1), 5 * M, 5 * M),
        (id(2, 1), 30 * M - 1000, 30 * M),
        (id(1, 1), 20 * M - 2000, 20 * M),
        (id(1, 2), 5 * M + 3000, 5 * M + 5000),
    ];
    assert_eq!(pieces(&planned), expected);
    let refused = plan(&ways, &task(60 * M, 4999, 16), &look);
    assert!(matches!(refused, Err(SendFault::FeeTooHigh { .. })), "{refused:?}");
    assert!(plan(&ways, &task(60 * M, 5000, 4), &look).is_ok());
    let refused = plan(&ways, &task(60 * M, 5000, 3), &look);
    assert!(matches!(refused, Err(SendFault::TooLarge { .. })), "{refused:?}");
    let refused = plan(&ways, &task(60 * M, 5000, 1), &look);
    let Err(SendFault::TooLarge { spendable, asked }) = refused else { panic!("{refused:?}") };
    assert!(spendable.get() <= 30 * M && asked.get() >= 60 * M);
}

#[test]
fn what_was_learned_of_a_way_and_what_it_carries_bound_it() {
    let look = world(&[(1, &[50 * M, 50 * M]), (2, &[50 * M])]);
    let tired = Way { most: Msat::new(10 * M), carries: Msat::new(4 * M), ..over(1, 0, 0) };
    let planned = plan(&[tired.clone(), over(2, 9, 0)], &task(6 * M, 0, 16), &look).unwrap();
    assert_eq!(pieces(&planned), [(id(1, 1), 6 * M, 6 * M)]);
    let planned = plan(&[tired.clone(), over(2, 9, 0)], &task(55 * M, 9, 16), &look).unwrap();
    assert_eq!(pieces(&planned), [(id(1, 2), 6 * M, 6 * M), (id(2, 1), 49 * M, 49 * M + 9)]);
    let dead = Way { most: Msat::ZERO, ..tired };
    let refused = plan(&[dead], &task(M, 0, 16), &look);
    assert!(matches!(refused, Err(SendFault::NoRoute(_))), "{refused:?}");
}

#[test]
fn reasons_are_told_by_how_much_they_tell() {
    let look = world(&[(1, &[]), (2, &[5 * M])]);
    let no_peer = plan(&[over(3, 0, 0)], &task(M, 0, 1), &look);
    assert!(matches!(no_peer, Err(SendFault::NoRoute(_))), "{no_peer:?}");
    let away = plan(&[over(3, 0, 0), over(1, 0, 0)], &task(M, 0, 1), &look);
    assert!(matches!(away, Err(SendFault::NotConnected(peer)) if peer == node(1)), "{away:?}");
    let small = plan(&[over(1, 0, 0), over(2, 0, 0)], &task(6 * M, 0, 1), &look);
    assert!(matches!(small, Err(SendFault::TooLarge { .. })), "{small:?}");
    let dear = plan(&[over(2, 7, 0), over(1, 0, 0)], &task(M, 6, 1), &look);
    let Err(SendFault::FeeTooHigh { fee, most }) = dear else { panic!("{dear:?}") };
    assert_eq!((fee.get(), most.get()), (7, 6));
    let mut slow = over(2, 0, 0);
    slow.channels[0].cltv_expiry_delta = 2016 - 42;
    let slow = plan(&[slow], &task(M, 0, 1), &look);
    assert!(matches!(slow, Err(SendFault::HeldTooLong { blocks: 2017, most: 2016 })), "{slow:?}");
}

/// Numbers that a seed repeats (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Whatever the channels, ways and limits: what is planned brings exactly the amount, within the fee, and asks no channel for
/// more than it has.
#[test]
fn pay_9_any_plan_keeps_to_amount_fee_and_balances() {
    for seed in 0..3000u64 {
        let mut dice = Dice((seed ^ 0x9e37_79b9_7f4a_7c15).max(1));
        let balances: Vec<Vec<u64>> =
            (0..4).map(|_| (0..dice.below(5)).map(|_| dice.below(20 * M)).collect()).collect();
        let peers: Vec<(u8, &[u64])> =
            (1..).zip(&balances).map(|(byte, channels)| (byte, channels.as_slice())).collect();
        let ways: Vec<Way> = (0..dice.below(5))
            .map(|_| Way {
                most: Msat::new([u64::MAX, dice.below(20 * M)][dice.below(2) as usize]),
                carries: Msat::new(dice.below(5 * M)),
                ..over(1 + dice.below(4) as u8, dice.below(2000) as u32, dice.below(1000) as u32)
            })
            .collect();
        let task = task(1 + dice.below(60 * M), dice.below(100_000), 1 + dice.below(16) as usize);
        let Ok(planned) = plan(&ways, &task, &world(&peers)) else { continue };
        let total: u64 = planned.iter().map(|piece| piece.amount.get()).sum();
        assert_eq!(total, task.arrives.amount.get(), "seed {seed}");
        let fees: u64 = planned.iter().map(|piece| piece.route.sends.get() - piece.amount.get()).sum();
        assert!(fees <= task.max_fee.get() && planned.len() <= task.max_parts, "seed {seed}: {fees}");
        let mut used = BTreeSet::new();
        for piece in &planned {
            let (peer, place) = (piece.channel.0[0], piece.channel.0[1]);
            let balance = balances[usize::from(peer) - 1][usize::from(place) - 1];
            assert!(piece.route.sends.get() <= balance && used.insert(piece.channel), "seed {seed}: {piece:?}");
            assert_eq!(piece.route.first(), node(peer), "seed {seed}");
        }
        for (number, way) in ways.iter().enumerate() {
            let sent: u64 =
                planned.iter().filter(|piece| piece.way == Some(number)).map(|piece| piece.amount.get()).sum();
            assert!(sent <= way.room().get(), "seed {seed}");
        }
    }
}

#[test]
fn a_channel_of_ours_that_refused_is_trusted_with_less_and_the_way_over_it_is_not() {
    let peers = world(&[(1, &[50 * M, 20 * M, 30 * M])]);
    let mut trust = Trust::default();
    let planned = |trust: &Trust, amount| {
        let look = |peer: &NodeId, amount| trust.within(peers(peer, amount), amount);
        plan(&[over(1, 0, 0)], &task(amount, 0, 16), &look).map(|planned| pieces(&planned))
    };
    assert_eq!(planned(&trust, 20 * M).unwrap(), [(id(1, 2), 20 * M, 20 * M)]);
    trust.trust(id(1, 2), Msat::ZERO);
    assert_eq!(planned(&trust, 20 * M).unwrap(), [(id(1, 3), 20 * M, 20 * M)]);
    trust.trust(id(1, 3), Msat::new(10 * M));
    assert_eq!(planned(&trust, 20 * M).unwrap(), [(id(1, 1), 20 * M, 20 * M)]);
    trust.trust(id(1, 1), Msat::new(15 * M));
    trust.trust(id(1, 1), Msat::new(40 * M));
    assert_eq!(planned(&trust, 20 * M).unwrap(), [(id(1, 1), 15 * M, 15 * M), (id(1, 3), 5 * M, 5 * M)]);
    assert!(matches!(planned(&trust, 26 * M), Err(SendFault::TooLarge { .. })), "25 M are left");
}
