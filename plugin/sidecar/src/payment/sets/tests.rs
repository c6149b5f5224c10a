use std::sync::LazyLock;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::ChannelId;

use super::*;

const SECRET: PaymentSecret = PaymentSecret([7; 32]);

/// Once, for parts are many here.
static NODE: LazyLock<NodeId> = LazyLock::new(|| {
    let secret = SecretKey::from_slice(&[1; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
});

fn hash(number: u8) -> PaymentHash {
    PaymentHash([number; 32])
}

fn part(htlc_id: u64, arrives: u64) -> Part {
    Part {
        peer: *NODE,
        name: HtlcName { channel: ChannelId([2; 32]), htlc_id },
        amount: Msat::new(arrives),
        arrives: Msat::new(arrives),
        cltv_expiry: 700,
        shared_secret: [3; 32],
    }
}

fn promise(total: u64) -> Promise {
    Promise { secret: Some(SECRET), total: Msat::new(total) }
}

fn ids(parts: &[Part]) -> Vec<u64> {
    parts.iter().map(|part| part.name.htlc_id).collect()
}

#[test]
fn parts_are_held_until_they_are_whole_and_then_no_longer() {
    let (mut sets, now) = (Sets::default(), Instant::now());
    assert_eq!(sets.add(hash(1), promise(100), part(0, 40), now), Added::Held);
    assert_eq!(sets.add(hash(1), promise(100), part(0, 40), now), Added::Held, "told of twice, counted once");
    assert_eq!(sets.add(hash(1), promise(100), part(1, 59), now), Added::Held, "a millisatoshi is missing");
    let Added::Whole(parts) = sets.add(hash(1), promise(100), part(2, 1), now) else { panic!("whole") };
    assert_eq!(ids(&parts), [0, 1, 2]);
    assert_eq!((sets.held, sets.next_end()), (0, None));
    assert!(matches!(sets.add(hash(2), promise(100), part(3, 100), now), Added::Whole(_)), "one part alone");
    assert_eq!((sets.held, sets.sets.len(), sets.ends.len()), (0, 0, 0));
}

#[test]
fn pay_3_totals_or_secrets_that_differ_end_the_whole_set() {
    let now = Instant::now();
    let other = Promise { secret: Some(PaymentSecret([8; 32])), total: Msat::new(100) };
    for wrong in [promise(101), promise(99), other, Promise { secret: None, ..other }] {
        let mut sets = Sets::default();
        assert_eq!(sets.add(hash(1), promise(100), part(0, 40), now), Added::Held);
        // Even where it would make the set whole.
        let Added::Contradicts(parts) = sets.add(hash(1), wrong, part(1, 60), now) else { panic!("{wrong:?}") };
        assert_eq!(ids(&parts), [0, 1]);
        assert_eq!((sets.held, sets.next_end()), (0, None));
    }
}

#[test]
fn pay_3_a_set_is_over_a_minute_after_its_first_part() {
    let (mut sets, start) = (Sets::default(), Instant::now());
    let at = |secs| start + Duration::from_secs(secs);
    assert_eq!(sets.add(hash(1), promise(100), part(0, 40), at(0)), Added::Held);
    assert_eq!(sets.add(hash(2), promise(100), part(1, 40), at(0)), Added::Held);
    assert_eq!(sets.add(hash(1), promise(100), part(2, 40), at(59)), Added::Held);
    assert_eq!(sets.add(hash(3), promise(100), part(3, 40), at(59)), Added::Held);
    assert_eq!(sets.next_end(), Some(at(60)));
    assert!(sets.expire(at(60) - Duration::from_nanos(1)).is_empty());
    let mut late = ids(&sets.expire(at(60)));
    late.sort_unstable();
    assert_eq!(late, [0, 1, 2]);
    assert_eq!((sets.held, sets.next_end()), (1, Some(at(119))));
    // What comes after begins a set of its own.
    assert_eq!(sets.add(hash(1), promise(100), part(4, 60), at(61)), Added::Held);
    assert_eq!(ids(&sets.expire(at(200))), [3, 4]);
}

#[test]
fn dos_the_parts_of_a_set_and_of_all_sets_are_bounded_and_a_last_part_still_fits() {
    let (mut sets, now) = (Sets::default(), Instant::now());
    for id in 0..MAX_PARTS as u64 {
        assert_eq!(sets.add(hash(1), promise(1000), part(id, 1), now), Added::Held);
    }
    let (extra, last) = (part(1000, 1), part(1001, 936));
    assert_eq!(sets.add(hash(1), promise(1000), extra.clone(), now), Added::Full(extra));
    let Added::Whole(parts) = sets.add(hash(1), promise(1000), last, now) else { panic!("whole") };
    assert_eq!(parts.len(), MAX_PARTS + 1);

    let hash_of = |number: u64| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        PaymentHash(hash)
    };
    for id in 0..MAX_HELD as u64 {
        assert_eq!(sets.add(hash_of(id), promise(2), part(id, 1), now), Added::Held);
    }
    let extra = part(u64::MAX, 1);
    assert_eq!(sets.add(hash_of(u64::MAX), promise(2), extra.clone(), now), Added::Full(extra));
    assert!(matches!(sets.add(hash_of(3), promise(2), part(u64::MAX, 1), now), Added::Whole(_)));
    assert!(matches!(sets.add(hash_of(u64::MAX), promise(1), part(u64::MAX, 1), now), Added::Whole(_)));
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

/// How the set of one payment ended for a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Claimed,
    Failed,
}

/// Payers that send anything, in any order, at any time: each part ends once, all parts of a set alike, and what is claimed
/// is never less than what was promised.
fn any_payers(seed: u64) {
    let mut dice = Dice((seed ^ 0x9e37_79b9_7f4a_7c15).max(1));
    let (mut sets, mut now) = (Sets::default(), Instant::now());
    let mut ends = std::collections::BTreeMap::new();
    let mut sent = 0;
    let mut end = |parts: &[Part], end| {
        for part in parts {
            assert_eq!(ends.insert(part.name.htlc_id, end), None, "seed {seed}: {} ended twice", part.name.htlc_id);
        }
    };
    for id in 0..200 {
        now += Duration::from_millis(dice.below(12_000));
        if dice.below(3) == 0 {
            end(&sets.expire(now), End::Failed);
        }
        let (payment, total) = (dice.below(4), if dice.below(40) == 0 { 101 } else { 100 });
        let new = part(id, dice.below(70));
        sent += 1;
        match sets.add(hash(u8::try_from(payment).unwrap()), promise(total), new, now) {
            Added::Held => {}
            Added::Whole(parts) => {
                assert!(arrived(&parts).get() >= total, "seed {seed}: claimed for less than promised");
                let before = parts.split_last().map_or(&[][..], |(_, before)| before);
                assert!(arrived(before).get() < total, "seed {seed}: claimed later than it could be");
                end(&parts, End::Claimed);
            }
            Added::Contradicts(parts) => end(&parts, End::Failed),
            Added::Full(part) => end(&[part], End::Failed),
        }
        let held: usize = sets.sets.values().map(|set| set.parts.len()).sum();
        assert_eq!((held, sets.sets.len()), (sets.held, sets.ends.len()), "seed {seed}");
    }
    end(&sets.expire(now + SET_TIMEOUT), End::Failed);
    assert_eq!((ends.len(), sets.held), (sent, 0), "seed {seed}: every part has ended");
}

/// `SETS_SEED=n cargo test -p outriggerd sets` repeats one; `SETS_SEEDS=n` runs so many.
#[test]
fn pay_3_whatever_payers_send_a_set_is_claimed_whole_or_not_at_all() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SETS_SEED") {
        Some(seed) => any_payers(seed),
        None => (0..number("SETS_SEEDS").unwrap_or(2000)).for_each(any_payers),
    }
}
