//! Which workers visit a peer.

use super::*;
use crate::manager::workers::HEAVY_HTLCS;

/// Sends so many HTLCs in one commitment, with onions that nobody can read.
fn send(rogue: &Rogue, channel: &mut Channel, count: usize) {
    for _ in 0..count {
        let order = Command::AddHtlc {
            amount: Msat::new(1_000_000),
            payment_hash: PaymentPreimage([1; 32]).payment_hash(),
            cltv_expiry: HEIGHT + 200,
            onion: Box::new([0; 1366]),
            source: HtlcSource::Payment { payment_id: [1; 32], part: 0 },
        };
        rogue.step(channel, Input::Command(CommandId(1), order));
    }
    rogue.step(channel, Input::Command(CommandId(1), Command::Commit));
}

/// Hears what becomes of them, to the end. Says whether the peer was heavy when it heard of the first.
async fn settle(rogue: &mut Rogue, channel: &mut Channel) -> bool {
    let mut was_heavy = None;
    while !channel.rows().htlcs.is_empty() {
        let message = rogue.hear().await;
        if matches!(message, Message::UpdateFailMalformedHtlc(_)) {
            was_heavy.get_or_insert_with(|| rogue.bench.manager.directory.is_heavy(&rogue.id()));
        }
        rogue.step(channel, Input::Message(&message));
        rogue.step(channel, Input::Command(CommandId(1), Command::Commit));
    }
    rogue.dealt_with().await;
    was_heavy.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_hundreds_of_htlcs_has_workers_that_stand_back_until_they_are_gone() {
    let mut rogue = Rogue::connect_to(Bench::taking(483)).that_keeps_its_word();
    let mut channel = rogue.open_normal().await;
    send(&rogue, &mut channel, HEAVY_HTLCS - 1);
    assert!(!settle(&mut rogue, &mut channel).await, "one HTLC less than many");
    send(&rogue, &mut channel, HEAVY_HTLCS);
    assert!(settle(&mut rogue, &mut channel).await);
    send(&rogue, &mut channel, 1);
    assert!(!settle(&mut rogue, &mut channel).await, "they went, by visits of those workers");
}
