//! What becomes of our HTLCs when their channel fails.
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod duo;

use duo::{Alice, Duo, Terms, sat};
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_bolt::wire::{Error, Message, UpdateFee};
use outrigger_channel::{Command, Effect, HtlcOutcome, Phase, Reply};

/// An HTLC that no commitment holds has no output anywhere, and its payment need not wait for any. One that the peer may
/// publish does.
#[test]
fn fwd_8_an_htlc_that_is_in_no_commitment_fails_with_its_channel_at_once() {
    for how in ["an error of the peer", "an order", "a broken rule"] {
        let mut duo = Duo::normal(&Terms::default());
        let channel_id = duo.alice.channel.id();
        assert_eq!(duo.add(Alice, sat(10_000), 1), Ok(Reply::Added { htlc_id: 0 }));
        duo.commit(Alice);
        assert_eq!(duo.add(Alice, sat(10_000), 2), Ok(Reply::Added { htlc_id: 1 }));
        duo.take_effects(Alice);
        match how {
            "an error of the peer" => duo.message(Alice, &Message::Error(Error { channel_id, data: "no".into() })),
            "an order" => drop(duo.order(Alice, Command::Fail { reason: "enough".to_owned() })),
            _ => {
                // Only the opener may change the feerate, so this costs the connection, and the channel stays.
                let feerate_per_kw = FeeratePerKw::new(300);
                duo.message(Alice, &Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw }));
            }
        }
        assert_eq!(matches!(duo.alice.channel.phase(), Phase::Failed { .. }), how != "a broken rule", "{how}");
        let settled: Vec<_> = duo
            .take_effects(Alice)
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Settle { htlc_id, outcome, .. } => Some((htlc_id, outcome)),
                _ => None,
            })
            .collect();
        assert_eq!(settled, [(1, HtlcOutcome::NeverCommitted)], "{how}");
    }
}
