//! Blocks as anybody may have them mined, with transactions that touch a channel's outputs.

use bitcoin::{OutPoint, Sequence, Witness};
use outrigger_bolt::tx::commitment::obscuring_factor;
use outrigger_channel::Watch;

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
    assert_eq!(view.summary.state, "failed", "the funding output is gone, by a close that nobody signed here");
    assert!(rogue.bench.manager.env().is_restored());
    rogue.bench.manager.block_disconnected(HEIGHT + 3);
    rogue.bench.manager.block_connected(HEIGHT + 3, &block_of(vec![spend(funding, Witness::from_slice(&[[0_u8; 0]]))]));
}

/// A transaction with the form of commitment `number` of the channel (BOLT 3, "Commitment Transaction"), signed by nobody.
fn with_number(channel: &Channel, number: u64) -> Transaction {
    let params = &channel.rows().params;
    let (opener, accepter) = (&params.local.basepoints.payment, &params.remote.basepoints.payment);
    let obscured = number ^ obscuring_factor(opener, accepter);
    let part = |shift: u32, mark: u32| u32::try_from(obscured >> shift & 0xff_ffff).unwrap() | mark << 24;
    let mut tx = spend(params.funding, Witness::from_slice(&[[1_u8; 71]]));
    tx.input[0].sequence = Sequence::from_consensus(part(24, 0x80));
    tx.lock_time = LockTime::from_consensus(part(0, 0x20));
    tx
}

/// The peer opens a channel over an output of its own that is in the chain already, and spends that as if it were a later
/// commitment. That costs the node this channel, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_1_nobody_seals_the_node_by_spending_an_output_of_its_own() {
    let bench = Arc::new(Bench::new());
    let mut honest = Rogue::meet(bench.clone(), 10);
    let good = honest.open_normal().await;
    let mut rogue = Rogue::meet(bench.clone(), 9);
    let (channel, _) = rogue.fund().await;
    let forged = with_number(&channel, 7);
    bench.manager.block_connected(HEIGHT + 2, &block_of(vec![coinbase(), forged]));
    bench.durable().await;
    assert!(!bench.manager.env().is_restored());
    let (told, _) = bench.reader.events(0, &[], 10).unwrap();
    let of_rogue = |fields: &serde_json::Value| fields["channel_id"] == channel.id().to_string().as_str();
    let kinds: Vec<_> =
        told.iter().filter(|(_, event)| of_rogue(&event.fields)).map(|(_, event)| &event.kind).collect();
    assert_eq!(kinds, ["channel_failed"], "no proof and no alarm");
    let left: Vec<_> = bench.load().channels.iter().map(|loaded| loaded.channel.id()).collect();
    assert_eq!(left, [good.id()], "nothing is kept of what never was");
    bench.assert_counted(1);
    assert_eq!(bench.manager.channel(&good.id()).unwrap().summary.state, "normal");
}

/// Any output can be named as the funding output of another channel. Whoever waited for its spend waits still.
#[tokio::test(flavor = "multi_thread")]
async fn occ_13_a_channel_hears_of_a_spend_that_another_waits_for_too() {
    let mut rogue = Rogue::connect();
    let channel = rogue.open_normal().await;
    let (outpoint, script_pubkey) = (channel.rows().params.funding, ScriptBuf::new());
    let others = [(id_of(3), ChannelId([3; 32])), (id_of(20_000), ChannelId([0xfe; 32]))];
    for (peer, other) in others {
        let watch = Watch::Funding { outpoint, script_pubkey: script_pubkey.clone() };
        rogue.bench.manager.deliver().index().lock().watch(peer, other, watch);
    }
    rogue.bench.manager.block_connected(HEIGHT + 2, &block_of(vec![coinbase(), spend(outpoint, Witness::new())]));
    assert_eq!(rogue.bench.manager.channel(&channel.id()).unwrap().summary.state, "failed");
}

/// bitcoind is never asked whether the funding output is unspent (`gettxout`), so no answer to that can close a channel:
/// only a spend in a block that was verified does, and blocks that were taken back are seen again.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_104_a_channel_whose_funding_output_cannot_be_found_is_never_taken_for_closed() {
    let mut rogue = Rogue::connect();
    let channel = rogue.open().await;
    let state = |rogue: &Rogue| rogue.bench.manager.channel(&channel.id()).unwrap().summary.state;
    // The worker takes the peer's channel_ready in when it comes to it.
    rogue.bench.until("the channel is normal", || state(&rogue) == "normal").await;
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
