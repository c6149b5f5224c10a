//! Blocks as anybody may have them mined, with transactions that touch a channel's outputs.

use bitcoin::{OutPoint, Sequence, Witness};

use super::*;

fn spend(previous_output: OutPoint, witness: Witness) -> Transaction {
    let input = TxIn { previous_output, script_sig: ScriptBuf::new(), sequence: Sequence::ZERO, witness };
    Transaction {
        version: Version(-1),
        lock_time: LockTime::from_consensus(u32::MAX),
        input: vec![input],
        output: vec![],
    }
}

/// A spend without witness, inputs without anything, the funding transaction twice: each block is taken in.
#[tokio::test(flavor = "multi_thread")]
async fn prs_6_fnd_2_blocks_with_odd_transactions_are_taken_in() {
    let mut rogue = Rogue::connect();
    let channel = rogue.open().await;
    let funding = channel.rows().params.funding;
    let nothing = Transaction { version: Version(0), lock_time: LockTime::ZERO, input: vec![], output: vec![] };
    let other_output = OutPoint::new(funding.txid, u32::MAX);
    let harmless = vec![nothing.clone(), spend(OutPoint::null(), Witness::new()), spend(other_output, Witness::new())];
    rogue.bench.manager.block_connected(HEIGHT + 2, &block_of(harmless));
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert!(["funding", "normal"].contains(&view.summary.state), "{}", view.summary.state);

    let mut many = spend(funding, Witness::new());
    many.input
        .extend((0..1000).map(|vout| TxIn { previous_output: OutPoint::new(funding.txid, vout), ..TxIn::default() }));
    rogue.bench.manager.block_connected(HEIGHT + 3, &block_of(vec![nothing, many]));
    let view = rogue.bench.manager.channel(&channel.id()).unwrap();
    assert_eq!(view.summary.state, "closing", "the funding output is gone, and by no commitment");
    rogue.bench.manager.block_disconnected(HEIGHT + 3);
    rogue.bench.manager.block_connected(HEIGHT + 3, &block_of(vec![spend(funding, Witness::from_slice(&[[0_u8; 0]]))]));
}

/// bitcoind is never asked whether the funding output is unspent (`gettxout`), so no answer to that can close a channel:
/// only a spend in a block that was verified does, and blocks that were taken back are seen again.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_104_a_channel_whose_funding_output_cannot_be_found_is_never_taken_for_closed() {
    let mut rogue = Rogue::connect();
    let channel = rogue.open().await;
    let state = |rogue: &Rogue| rogue.bench.manager.channel(&channel.id()).unwrap().summary.state;
    // The worker takes the peer's channel_ready in when it comes to it.
    while state(&rogue) != "normal" {
        rogue.bench.manager.env().writer.barrier().await;
        tokio::task::yield_now().await;
    }
    let before = state(&rogue);
    for height in HEIGHT + 2..HEIGHT + 20 {
        rogue.bench.manager.block_connected(height, &block_of(vec![coinbase()]));
    }
    assert_eq!(state(&rogue), before, "blocks without it say nothing");
    // The funding block and all above it are gone: it is waited for, whatever bitcoind has of it.
    for height in (HEIGHT + 1..HEIGHT + 20).rev() {
        rogue.bench.manager.block_disconnected(height);
    }
    for height in HEIGHT + 1..HEIGHT + 40 {
        rogue.bench.manager.block_connected(height, &block_of(vec![coinbase()]));
    }
    assert!(["funding", "normal"].contains(&state(&rogue)), "{}", state(&rogue));
    let (events, _) =
        rogue.bench.reader.events(0, &["channel_closed".to_owned(), "channel_failed".to_owned()], 9).unwrap();
    assert_eq!(events, []);
}

#[test]
fn bad_input_104_nothing_asks_bitcoind_for_unspent_outputs() {
    fn scan(folder: &std::path::Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                scan(&path);
            } else if !path.components().any(|part| part.as_os_str() == "tests") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains("\"gettxout\""), "{}: prove what a null answer does", path.display());
            }
        }
    }
    scan(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
}
