//! What states cost once they are past (law 6).
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

mod pair;

use outrigger_bolt::amount::{FeeratePerKw, Msat};
use outrigger_channel::{Command, Offerer, Row};
use pair::{Alice, Bob, Fate, Name, Pair, Setup};

/// A revoked state leaves a slot of the store of secrets, of which there are 49 in all; an HTLC leaves its evidence.
#[test]
fn cst_15_a_revoked_state_costs_no_row_and_an_htlc_one_of_few_bytes() {
    let mut pair = Pair::connected(1, &Setup::default());
    let revoked = |pair: &Pair| pair.node(Bob).monitor.rows().head.next_secret_number;
    let before = Name::BOTH.map(|name| pair.node(name).store.rows_without_secrets());
    for round in 0..100 {
        pair.command(Alice, Command::UpdateFee(FeeratePerKw::new(1000 + round % 2)));
        pair.run();
    }
    assert!(revoked(&pair) >= 50, "{}", revoked(&pair));
    for (name, before) in Name::BOTH.into_iter().zip(before) {
        assert_eq!(pair.node(name).store.rows_without_secrets(), before, "states alone leave nothing");
        assert!(pair.node(name).monitor.rows().secrets.len() <= 49);
    }
    for _ in 0..40 {
        pair.pay(Alice, Msat::new(1_000_000), Fate::Failed);
        pair.run();
        pair.remove_all(Bob);
        pair.run();
    }
    for (name, before) in Name::BOTH.into_iter().zip(before) {
        assert_eq!(pair.node(name).store.rows_without_secrets(), before + 40, "one row for each HTLC");
        let largest = pair.node(name).store.all_evidence().values().map(|row| row.encode().len()).max();
        assert!(largest.is_some_and(|bytes| bytes <= 64), "{largest:?} bytes");
        // In memory there is nothing of it.
        let rows = pair.node(name).monitor.rows();
        assert!(rows.htlcs.is_empty() && rows.preimages.is_empty() && rows.htlc_signatures.is_empty());
    }
    assert_eq!(pair.node(Alice).store.evidence(Offerer::Local).count(), 40);
}
