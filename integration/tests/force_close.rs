//! A channel that one side closes alone: the commitment gets in, the money of both comes home, and every satoshi is
//! accounted for; whatever is killed or reorganised on the way.

use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::transaction::Version;
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use outrigger_integration::regtest::Opened;
use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{
    ChannelForceClose, ChannelForceClosing, ChannelOpen, ChannelState, Event, EventKind, EventList, PaymentState,
};
use serde_json::json;

const CAPACITY_SAT: u64 = 1_000_000;
const PUSH_MSAT: u64 = 400_000_000;
/// Blocks that our own balance waits, by the default configuration.
const DELAY: u32 = 144;
/// Blocks that bury the end of a channel, by the default configuration.
const DEPTH: u32 = 6;

async fn force_close(node: &Sidecar, opened: &Opened) -> Done<ChannelForceClosing> {
    Ok(node.call(ChannelForceClose { channel_id: opened.channel_id.clone() }).await?)
}

/// Force-closes a channel whose peer is away until the mempool holds the commitment, and then hears of it: a peer that
/// hears of a failed channel publishes too, and only one of the two gets in.
async fn force_close_first(regtest: &Regtest, node: &Sidecar, peer: &mut Sidecar, opened: &Opened) -> Done<String> {
    peer.stop().await?;
    let txid = force_close(node, opened).await?.closing_txid.ok_or("a transaction")?;
    regtest.bitcoind.until_mempool_holds(&txid).await?;
    peer.start_again().await?;
    node.connect(peer).await?;
    peer.until_channel_is(&opened.channel_id, ChannelState::Failed).await?;
    Ok(txid)
}

async fn events(node: &Sidecar) -> Done<Vec<Event>> {
    Ok(node.call(EventList { limit: Some(1000), ..Default::default() }).await?.items)
}

/// Waits for the newest event of this kind.
async fn until_event(node: &Sidecar, kind: EventKind) -> Done<Event> {
    until(LIMIT, &format!("the event {kind:?}"), async || {
        Ok(events(node).await?.into_iter().rev().find(|event| event.kind == kind))
    })
    .await
}

async fn in_mempool(regtest: &Regtest, txid: &str) -> Done<bool> {
    Ok(regtest.bitcoind.mempool().await?.iter().any(|held| held.to_string() == txid))
}

/// The newest transaction that a node made for a failed channel, once the mempool holds it.
async fn until_published(regtest: &Regtest, node: &Sidecar, after: usize) -> Done<Event> {
    until(LIMIT, "a transaction that pays a fee", async || {
        let paid: Vec<_> =
            events(node).await?.into_iter().filter(|event| event.kind == EventKind::ChannelFeePaid).collect();
        let Some(newest) = paid.get(after..).and_then(<[Event]>::last) else { return Ok(None) };
        let txid = newest.txid.clone().unwrap_or_default();
        Ok(in_mempool(regtest, &txid).await?.then(|| newest.clone()))
    })
    .await
}

async fn mine(regtest: &Regtest, nodes: &[&Sidecar], blocks: u32) -> Done<()> {
    // Not all at once: each block is a look at what is due.
    regtest.bitcoind.mine_to_nobody(blocks).await?;
    for node in nodes {
        node.until_synced_with(&regtest.bitcoind).await?;
    }
    Ok(())
}

/// What a wallet holds in all.
async fn total_sat(node: &Sidecar) -> Done<u64> {
    let balance = node.balance().await?;
    Ok(balance.confirmed_sat + balance.unconfirmed_sat + balance.locked_sat)
}

/// Waits until the channel is closed, and holds the wallet to what the events say: before, and what was swept.
async fn assert_home(node: &Sidecar, opened: &Opened, before_sat: u64, paid_for_child_sat: u64) -> Done<()> {
    node.until_channel_is(&opened.channel_id, ChannelState::Closed).await?;
    let swept = until_event(node, EventKind::ChannelSwept).await?;
    let closing = until_event(node, EventKind::ChannelClosing).await?;
    let (home, fee) = (swept.amount_sat.unwrap_or(0), swept.fee_sat.unwrap_or(0));
    assert!(home > 0 && fee > 0);
    assert_eq!(closing.amount_sat, Some(home + fee), "the output is what came home and its fee");
    let after = total_sat(node).await?;
    let all = events(node).await?;
    assert_eq!(after, before_sat + home - paid_for_child_sat, "every satoshi is accounted for: {all:#?}");
    let kinds: Vec<_> = all.into_iter().map(|event| event.kind).collect();
    let sweeps = kinds.iter().filter(|kind| **kind == EventKind::ChannelSwept).count();
    let closes = kinds.iter().filter(|kind| **kind == EventKind::ChannelClosed).count();
    assert_eq!((sweeps, closes), (1, 1), "{kinds:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn occ_13_a_close_of_one_side_brings_the_balances_of_both_home() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let before = (total_sat(&alice).await?, total_sat(&bob).await?);
        let txid = force_close_first(regtest, &alice, &mut bob, &opened).await?;
        let answer = force_close(&alice, &opened).await?;
        assert_eq!(answer.state, ChannelState::Failed);
        assert_eq!(answer.closing_txid.as_ref(), Some(&txid), "a repeat changes nothing");
        mine(regtest, &[&alice, &bob], 1).await?;
        for node in [&alice, &bob] {
            let closing = until_event(node, EventKind::ChannelClosing).await?;
            assert_eq!(closing.txid.as_deref(), Some(txid.as_str()));
            assert_eq!(node.channel(&opened.channel_id).await?.closing_txid.as_deref(), Some(txid.as_str()));
        }
        until_published(regtest, &bob, 0).await?;
        mine(regtest, &[&alice, &bob], DEPTH).await?;
        assert_home(&bob, &opened, before.1, 0).await?;
        assert_eq!(alice.channel(&opened.channel_id).await?.state, ChannelState::Failed);
        mine(regtest, &[&alice, &bob], DELAY - DEPTH - 2).await?;
        assert!(regtest.bitcoind.mempool().await?.is_empty(), "the delay is not over");
        mine(regtest, &[&alice, &bob], 1).await?;
        until_published(regtest, &alice, 0).await?;
        mine(regtest, &[&alice, &bob], DEPTH).await?;
        assert_home(&alice, &opened, before.0, 0).await?;
        let repeated = force_close(&alice, &opened).await?;
        assert_eq!((repeated.state, repeated.closing_txid.as_deref()), (ChannelState::Closed, Some(txid.as_str())));
        let unknown = ChannelForceClose { channel_id: "00".repeat(32) };
        assert!(alice.call(unknown).await.is_err_and(|fault| fault.to_string().contains("no channel")));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_commitment_of_the_peer_is_told_loudly_and_our_balance_comes_home() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let network = network_directory(bob.directory(), "regtest");
        let file = network.join("outrigger.redb");
        let old = regtest.directory("old")?.join("copy");
        bob.stop().await?;
        std::fs::copy(&file, &old)?;
        bob.start_again().await?;
        alice.connect(&bob).await?;
        bob.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        alice.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        let paid = bob.pay(&alice.invoice(50_000_000, "newer").await?).await?;
        assert_eq!(paid.state, PaymentState::Succeeded);
        alice.until_idle(&opened.channel_id).await?;
        let before = total_sat(&alice).await?;
        // The old copy runs while nobody is there to tell it so.
        alice.stop().await?;
        bob.stop().await?;
        std::fs::copy(&old, &file)?;
        // Nor does anything at home.
        std::fs::remove_file(network.join("generation"))?;
        std::fs::remove_file(network.join("outrigger.journal"))?;
        bob.start_again().await?;
        let txid = force_close(&bob, &opened).await?.closing_txid.ok_or("a transaction")?;
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        bob.kill().await?;
        regtest.bitcoind.mine_to_nobody(1).await?;
        alice.start_again().await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        let alarm = until_event(&alice, EventKind::ChannelAlarm).await?;
        assert_eq!(alarm.txid.as_deref(), Some(txid.as_str()));
        assert!(alarm.message.as_deref().is_some_and(|words| words.contains("REVOKED")), "{alarm:?}");
        until_published(regtest, &alice, 0).await?;
        mine(regtest, &[&alice], DEPTH).await?;
        let swept = until_event(&alice, EventKind::ChannelSwept).await?;
        let (home, fee) = (swept.amount_sat.unwrap_or(0), swept.fee_sat.unwrap_or(0));
        assert_eq!(alarm.amount_sat, Some(home + fee));
        assert_eq!(total_sat(&alice).await?, before + home, "every satoshi is accounted for");
        assert_eq!(alice.channel(&opened.channel_id).await?.state, ChannelState::Failed);
        Ok(())
    })
    .await
}

/// Coins that anybody may spend, and transactions of them that fill a mempool.
struct Crowd {
    coins: Vec<OutPoint>,
}

impl Crowd {
    const COUNT: u32 = 75;

    fn script() -> ScriptBuf {
        ScriptBuf::from_bytes(vec![0x51])
    }

    /// Mines them, and blocks on top until they are mature.
    async fn gather(regtest: &Regtest) -> Done<Self> {
        let address = Address::p2wsh(&Self::script(), Network::Regtest).to_string();
        let hashes = regtest.bitcoind.mine(Self::COUNT, &address).await?;
        let mut coins = Vec::new();
        for hash in hashes {
            let block = regtest.bitcoind.call("getblock", json!([hash])).await?;
            let txid: Txid = block["tx"][0].as_str().ok_or("a coinbase")?.parse()?;
            coins.push(OutPoint { txid, vout: 0 });
        }
        regtest.bitcoind.mine_to_nobody(100).await?;
        Ok(Self { coins })
    }

    /// Fills a mempool of the least size there is with transactions that pay at least so much: what pays less is refused.
    async fn fill(&self, regtest: &Regtest, sat_per_vb: u64) -> Done<()> {
        const DATA: usize = 95_000;
        for (coin, more) in self.coins.iter().zip(0u64..) {
            let mut data = vec![0x6a, 0x4e];
            data.extend_from_slice(&u32::try_from(DATA)?.to_le_bytes());
            data.resize(data.len() + DATA, 7);
            let mut witness = Witness::new();
            witness.push(Self::script());
            let input = TxIn { previous_output: *coin, script_sig: ScriptBuf::new(), sequence: Sequence::MAX, witness };
            let out = regtest.bitcoind.call("gettxout", json!([coin.txid, coin.vout])).await?;
            let value = Amount::from_btc(out["value"].as_f64().ok_or("a value")?)?;
            let fee = Amount::from_sat((sat_per_vb * 100 + more) * 95_200 / 100);
            let change =
                TxOut { value: value - fee, script_pubkey: ScriptBuf::new_p2wsh(&Self::script().wscript_hash()) };
            let carrier = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(data) };
            let tx = Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: vec![input],
                output: vec![change, carrier],
            };
            // The first ones are driven out by the last.
            drop(regtest.bitcoind.call("sendrawtransaction", json!([serialize_hex(&tx), 0])).await);
        }
        let floor = floor_sat_per_kvb(regtest).await?;
        assert!(floor >= sat_per_vb * 1000, "the mempool's least feerate is {floor} sat/kvB");
        Ok(())
    }
}

async fn floor_sat_per_kvb(regtest: &Regtest) -> Done<u64> {
    let info = regtest.bitcoind.call("getmempoolinfo", json!([])).await?;
    Ok(Amount::from_btc(info["mempoolminfee"].as_f64().ok_or("a feerate")?)?.to_sat())
}

/// Fee in satoshi and size in virtual bytes of a transaction in the mempool.
async fn fee_and_size(regtest: &Regtest, txid: &str) -> Done<(u64, u64)> {
    let entry = regtest.bitcoind.call("getmempoolentry", json!([txid])).await?;
    Ok((regtest.bitcoind.fee_sat(txid).await?, entry["vsize"].as_u64().ok_or("a size")?))
}

/// Mines until a transaction is in a block, and tells how many blocks that took.
async fn mine_until_confirmed(regtest: &Regtest, nodes: &[&Sidecar], txid: &str) -> Done<u32> {
    for blocks in 1..40 {
        mine(regtest, nodes, 1).await?;
        if !in_mempool(regtest, txid).await? {
            return Ok(blocks);
        }
    }
    Err("the transaction is never mined".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn occ_6_a_commitment_below_the_mempools_floor_gets_in_with_its_child() -> Done<()> {
    on_regtest(async |regtest| {
        regtest.bitcoind.restart_with(&["-maxmempool=5"]).await?;
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let crowd = Crowd::gather(regtest).await?;
        for node in [&alice, &bob] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        crowd.fill(regtest, 10).await?;
        let before = total_sat(&alice).await?;
        let txid = force_close(&alice, &opened).await?.closing_txid.ok_or("a transaction")?;
        let child = until_published(regtest, &alice, 0).await?;
        let child_txid = child.txid.clone().ok_or("a transaction")?;
        let (floor, commitment) = (floor_sat_per_kvb(regtest).await?, fee_and_size(regtest, &txid).await?);
        let carried = fee_and_size(regtest, &child_txid).await?;
        assert!(commitment.0 * 1000 / commitment.1 < floor, "alone it would not get in");
        let package = (commitment.0 + carried.0) * 1000 / (commitment.1 + carried.1);
        assert!(package >= floor, "the package pays {package} and the floor is {floor}");
        assert_eq!(child.fee_sat, Some(carried.0), "what is told is what is paid");
        let entry = regtest.bitcoind.call("getmempoolentry", json!([child_txid])).await?;
        assert_eq!(entry["depends"].as_array().map(Vec::len), Some(1), "no anchor and no coin of another is in it");
        mine_until_confirmed(regtest, &[&alice, &bob], &txid).await?;
        assert!(!in_mempool(regtest, &child_txid).await?, "both are mined together");
        // The crowd goes home, then the delay is over.
        mine(regtest, &[&alice, &bob], DELAY).await?;
        until_published(regtest, &alice, 1).await?;
        mine(regtest, &[&alice, &bob], DEPTH + 6).await?;
        let all: Vec<_> = events(&alice).await?;
        let paid = all.iter().rfind(|event| event.kind == EventKind::ChannelFeePaid && is_child(event, &txid));
        let child_fee = paid.and_then(|event| event.fee_sat).ok_or("a child")?;
        // The anchor's 330 sat come back with the change.
        assert_home(&alice, &opened, before + 330, child_fee).await
    })
    .await
}

/// Whether the event tells of a child of this commitment.
fn is_child(event: &Event, commitment: &str) -> bool {
    event
        .message
        .as_deref()
        .is_some_and(|message| message.starts_with(&format!("pays for our commitment {commitment}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn occ_12_without_coins_the_operator_is_told_and_coins_that_come_are_used() -> Done<()> {
    on_regtest(async |regtest| {
        regtest.bitcoind.restart_with(&["-maxmempool=5"]).await?;
        let (alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let address = bob.new_address().await?;
        let crowd = Crowd::gather(regtest).await?;
        for node in [&alice, &bob] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        until_event(&bob, EventKind::WalletReserveLow).await?;
        crowd.fill(regtest, 10).await?;
        // The peer, which has coins, must not do it instead.
        let mut alice = alice;
        alice.kill().await?;
        let txid = force_close(&bob, &opened).await?.closing_txid.ok_or("a transaction")?;
        let lacks = until_event(&bob, EventKind::ChannelUnderpaid).await?;
        assert!(lacks.message.as_deref().is_some_and(|words| words.contains("wallet.new_address")), "{lacks:?}");
        assert!(!in_mempool(regtest, &txid).await?);
        bob.kill().await?;
        bob.start_again().await?;
        until_event(&bob, EventKind::ChannelUnderpaid).await?;
        // Two coins arrive by being mined, and the crowd stays.
        regtest.bitcoind.call("generateblock", json!([address, []])).await?;
        for _ in 0..100 {
            regtest.bitcoind.call("generateblock", json!([address, []])).await?;
        }
        bob.until_synced_with(&regtest.bitcoind).await?;
        let child = until_published(regtest, &bob, 0).await?;
        assert!(is_child(&child, &txid), "{child:?}");
        // Of its reserve the operator was told when it was lacking first, and not again after the start.
        let told = events(&bob).await?.into_iter().filter(|event| event.kind == EventKind::WalletReserveLow).count();
        assert_eq!(told, 1);
        regtest.bitcoind.until_mempool_holds(&txid).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn occ_12_a_node_that_lacks_its_reserve_takes_no_channel_right_after_a_start_either() -> Done<()> {
    on_regtest(async |regtest| {
        let bob = regtest.sidecar_with("bob", &["--channel-accept-needs-reserve", "true"]);
        let (alice, mut bob) = tokio::try_join!(regtest.sidecar("alice"), bob)?;
        alice.fund(&regtest.bitcoind).await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        alice.connect(&bob).await?;
        regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        until_event(&bob, EventKind::WalletReserveLow).await?;
        let node_id = bob.node_id().await?;
        let refusal = async |idempotency_key: &str| {
            let order = ChannelOpen {
                node_id: node_id.clone(),
                funding_sat: CAPACITY_SAT,
                idempotency_key: idempotency_key.to_owned(),
                ..Default::default()
            };
            let opening = alice.open(order).await;
            opening.map_or_else(|refused| Ok(refused.to_string()), |opened| Err(format!("taken: {opened:?}")))
        };
        let words = refusal("second").await?;
        assert!(words.contains("keeps too few coins for another channel"), "{words}");
        // No block comes between the start and the next order.
        bob.kill().await?;
        bob.start_again().await?;
        bob.until_ready().await?;
        alice.connect(&bob).await?;
        let words = refusal("third").await?;
        assert!(words.contains("keeps too few coins for another channel"), "{words}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn occ_14_a_kill_at_each_stage_changes_nothing() -> Done<()> {
    on_regtest(async |regtest| {
        let (mut alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let before = (total_sat(&alice).await?, total_sat(&bob).await?);
        // The peer, which is told of it, would publish its own commitment.
        bob.kill().await?;
        // Failed: the row is durable, nothing else may have happened.
        let txid = force_close(&alice, &opened).await?.closing_txid.ok_or("a transaction")?;
        alice.kill().await?;
        alice.start_again().await?;
        // Published.
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        alice.kill().await?;
        // Confirmed while both sleep.
        regtest.bitcoind.mine_to_nobody(1).await?;
        alice.start_again().await?;
        bob.start_again().await?;
        for node in [&alice, &bob] {
            let closing = until_event(node, EventKind::ChannelClosing).await?;
            assert_eq!(closing.txid.as_deref(), Some(txid.as_str()));
        }
        // The sweep is published.
        let swept = until_published(regtest, &bob, 0).await?;
        bob.kill().await?;
        bob.start_again().await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        mine(regtest, &[&alice, &bob], DELAY - 1).await?;
        let paid = events(&bob).await?.into_iter().filter(|event| event.kind == EventKind::ChannelFeePaid).count();
        assert_eq!(paid, 1, "the same transaction goes out after a crash");
        let home = until_event(&bob, EventKind::ChannelSwept).await?;
        assert_eq!(home.txid, swept.txid);
        assert_home(&bob, &opened, before.1, 0).await?;
        // Our own sweep, with a kill before and after its block.
        until_published(regtest, &alice, 0).await?;
        alice.kill().await?;
        alice.start_again().await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        mine(regtest, &[&alice], 1).await?;
        alice.kill().await?;
        regtest.bitcoind.mine_to_nobody(DEPTH).await?;
        alice.start_again().await?;
        alice.until_synced_with(&regtest.bitcoind).await?;
        mine(regtest, &[&alice], 1).await?;
        assert_home(&alice, &opened, before.0, 0).await?;
        // Nothing goes out any more, after another restart either.
        alice.kill().await?;
        alice.start_again().await?;
        mine(regtest, &[&alice], 1).await?;
        assert!(regtest.bitcoind.mempool().await?.is_empty());
        assert_home(&alice, &opened, before.0, 0).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn reo_1_a_reorganisation_of_commitment_and_sweep_is_followed() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, mut bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let before = (total_sat(&alice).await?, total_sat(&bob).await?);
        let txid = force_close_first(regtest, &alice, &mut bob, &opened).await?;
        let confirmed = regtest.bitcoind.height().await? + 1;
        mine(regtest, &[&alice, &bob], 1).await?;
        until_published(regtest, &bob, 0).await?;
        mine(regtest, &[&alice, &bob], 1).await?;
        // The block of the sweep goes, and one node sleeps meanwhile.
        bob.kill().await?;
        regtest.reorganise(confirmed + 1).await?;
        bob.start_again().await?;
        bob.until_synced_with(&regtest.bitcoind).await?;
        until_published(regtest, &bob, 0).await?;
        // Then the block of the commitment goes too.
        regtest.reorganise(confirmed).await?;
        for node in [&alice, &bob] {
            node.until_synced_with(&regtest.bitcoind).await?;
        }
        regtest.bitcoind.until_mempool_holds(&txid).await?;
        mine(regtest, &[&alice, &bob], 1).await?;
        until_published(regtest, &bob, 0).await?;
        mine(regtest, &[&alice, &bob], DEPTH).await?;
        assert_home(&bob, &opened, before.1, 0).await?;
        mine(regtest, &[&alice, &bob], DELAY).await?;
        until_published(regtest, &alice, 0).await?;
        mine(regtest, &[&alice, &bob], DEPTH).await?;
        assert_home(&alice, &opened, before.0, 0).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn fwd_18_the_side_that_is_told_of_an_error_publishes_too_and_who_comes_first_matters_to_nobody() -> Done<()> {
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        let opened = regtest.channel(&alice, &bob, CAPACITY_SAT, PUSH_MSAT).await?;
        let before = (total_sat(&alice).await?, total_sat(&bob).await?);
        let of_bob = force_close(&bob, &opened).await?.closing_txid.ok_or("a transaction")?;
        let failed = until_event(&alice, EventKind::ChannelFailed).await?;
        assert!(failed.message.as_deref().is_some_and(|words| words.contains("closed by its operator")), "{failed:?}");
        // Each side keeps a commitment of its own; the one that bitcoind saw first is mined.
        let of_alice = force_close(&alice, &opened).await?.closing_txid.ok_or("a transaction")?;
        assert_ne!(of_alice, of_bob);
        let first = until(Duration::from_secs(60), "a commitment", async || {
            Ok(if in_mempool(regtest, &of_bob).await? {
                Some(of_bob.clone())
            } else {
                in_mempool(regtest, &of_alice).await?.then(|| of_alice.clone())
            })
        })
        .await?;
        mine(regtest, &[&alice, &bob], 1).await?;
        let (fast, slow, fast_before, slow_before) = match first == of_bob {
            true => (&alice, &bob, before.0, before.1),
            false => (&bob, &alice, before.1, before.0),
        };
        until_published(regtest, fast, 0).await?;
        mine(regtest, &[&alice, &bob], DEPTH).await?;
        assert_home(fast, &opened, fast_before, 0).await?;
        mine(regtest, &[&alice, &bob], DELAY).await?;
        until_published(regtest, slow, 0).await?;
        mine(regtest, &[&alice, &bob], DEPTH).await?;
        assert_home(slow, &opened, slow_before, 0).await
    })
    .await
}
