//! Rows of channels and monitors: alone, and all of one channel with some of them bent.

use std::fmt::Debug;
use std::sync::LazyLock;

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut};
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{PaymentHash, PaymentPreimage};
use outrigger_bolt::tx::commitment::{CommitmentHtlc, HtlcDirection};
use outrigger_channel::{
    Channel, ChannelHead, ChannelParams, ChannelRows, ClaimKind, Command, CommandId, Evidence, FundingSpend, HtlcRow,
    Input, Monitor, MonitorHead, MonitorRows, ReplacedCommitment, Row, SignedCommitment,
    SoftSigner, Taken,
};

use super::Target;
use crate::allocation::{FLOOR, TRANSACTION_FLOOR, bounded_by};
use crate::draw::Draw;
use crate::pair::{Alice, Bob, Fate, Pair, Setup, World, founding};

pub(super) fn targets() -> Vec<Target> {
    let past = || past().1;
    vec![
        of::<ChannelParams>("row_channel_params", move || vec![past().channel.params.encode()]),
        of::<ChannelHead>("row_channel_head", move || vec![past().channel.head.encode()]),
        of::<HtlcRow>("row_htlc", move || past().channel.htlcs.values().map(Row::encode).collect()),
        of::<[u8; 1366]>("row_onion", || vec![[1; 1366].encode()]),
        of::<MonitorHead>("row_monitor_head", move || {
            let told_spend = Some((spend().compute_txid(), 600));
            let told = MonitorHead { told_spend, ..past().monitor.head.clone() };
            let local = &past().monitor.head.local;
            let htlc_signatures = vec![local.signature; 2];
            let commitment = SignedCommitment { htlc_signatures, ..local.clone() };
            let htlc = |id, direction| CommitmentHtlc {
                id,
                direction,
                amount: Msat::new(7),
                payment_hash: PaymentHash([8; 32]),
                cltv_expiry: 600,
            };
            let htlcs = vec![htlc(1, HtlcDirection::Offered), htlc(2, HtlcDirection::Received)];
            let replaced = Some(Box::new(ReplacedCommitment { commitment, htlcs }));
            let kept = MonitorHead { closing: Some(3), reserved: true, replaced, ..told.clone() };
            vec![past().monitor.head.encode(), told.encode(), kept.encode()]
        }),
        of::<FundingSpend>("row_funding_spend", || vec![FundingSpend { tx: spend().into(), height: 600 }.encode()]),
        of::<Taken>("row_taken", || {
            let taken = |kind, fee| Taken {
                kind,
                txid: spend().compute_txid(),
                height: 600,
                value: Sat::new(330),
                fee,
                told: false,
            };
            vec![taken(ClaimKind::ToLocal, None).encode(), taken(ClaimKind::Anchor, Some(Sat::new(7))).encode()]
        }),
        of::<Evidence>("row_evidence", move || past().evidence.iter().map(Row::encode).collect()),
        of::<(u64, [u8; 32])>("row_secret", || vec![(5, [6; 32]).encode()]),
        of::<Vec<Signature>>("row_htlc_signatures", move || {
            past().monitor.htlc_signatures.values().map(Row::encode).collect()
        }),
        of::<PaymentPreimage>("row_preimage", || vec![PaymentPreimage([7; 32]).encode()]),
        Target::new("rows_of_a_channel", rows_of_a_channel, || vec![vec![], vec![1, 2, 3, 4], vec![0, 9, 1, 1, 8, 0]]),
    ]
}

fn of<T: Row + Debug + PartialEq + 'static>(
    name: &'static str,
    seeds: impl Fn() -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Target {
    Target::new(name, row::<T>, seeds)
}

fn row<T: Row + Debug + PartialEq>(data: &[u8]) {
    let holds_transaction = [ChannelHead::NAME, FundingSpend::NAME].contains(&T::NAME);
    let floor = if holds_transaction { TRANSACTION_FLOOR } else { FLOOR };
    match bounded_by(floor, data.len(), || T::decode(data)) {
        Ok(row) => assert_eq!(T::decode(&row.encode()).as_ref(), Ok(&row), "read, written, read"),
        Err(fault) => assert_eq!(fault.row, T::NAME),
    }
}

/// Some transaction.
pub(super) fn spend() -> Transaction {
    let output = TxOut { value: Amount::from_sat(7), script_pubkey: ScriptBuf::new() };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![TxIn::default()], output: vec![output] }
}

/// The rows of one side.
pub(super) struct Past {
    pub(super) channel: ChannelRows,
    pub(super) monitor: MonitorRows,
    pub(super) evidence: Vec<Evidence>,
}

/// A channel in which HTLCs stand both ways and some were settled, and the rows of its opener.
pub(super) fn past() -> (&'static World, &'static Past) {
    static PAST: LazyLock<(World, Past)> = LazyLock::new(|| {
        let mut pair = Pair::connected(1, &Setup::default());
        for number in 1..4 {
            pair.pay(Alice, Msat::new(10_000_000 * number), Fate::Fulfilled);
            pair.pay(Bob, Msat::new(7_000_000 * number), Fate::Failed);
            pair.run();
        }
        pair.remove(Bob, 0);
        pair.remove(Alice, 0);
        pair.run();
        let node = pair.node(Alice);
        let evidence = node.store.all_evidence().into_values().collect();
        let past = Past { channel: node.channel.rows().clone(), monitor: node.monitor.rows().clone(), evidence };
        (pair.world, past)
    });
    (&PAST.0, &PAST.1)
}

/// Bends rows of a whole channel. What still loads is worked with: nothing that a file can hold may panic (PER-8).
fn rows_of_a_channel(data: &[u8]) {
    let (world, past) = past();
    let mut draw = Draw::new(data);
    let (mut channel, mut monitor) = (past.channel.clone(), past.monitor.clone());
    for _ in 0..1 + draw.below(3) {
        match draw.below(5) {
            0 => bend(&mut draw, &mut channel.head),
            1 => bend(&mut draw, &mut monitor.head),
            2 => {
                let mut params = (*channel.params).clone();
                bend(&mut draw, &mut params);
                channel.params = params.into();
                monitor.params = channel.params.clone();
            }
            3 => {
                let which = draw.below(channel.htlcs.len());
                if let Some(row) = channel.htlcs.values_mut().nth(which) {
                    bend(&mut draw, row);
                }
                monitor.htlcs = channel.htlcs.clone();
            }
            _ => {
                let which = draw.below(channel.htlcs.len());
                if let Some(key) = channel.htlcs.keys().nth(which).copied() {
                    channel.htlcs.remove(&key);
                }
                monitor.htlcs = channel.htlcs.clone();
            }
        }
    }
    let Ok(monitor) = Monitor::load(monitor) else { return };
    if monitor.check_against(&channel).is_err() {
        return;
    }
    let Ok(mut channel) = Channel::load(channel) else { return };
    let signer = SoftSigner::new(founding::bytes("alice channel", 1));
    let script = founding::wallet_script("alice wallet", 1);
    let cx = super::channel::context(world, &signer, &script);
    drop(monitor.local_commitment(&signer));
    drop(monitor.remote_commitments(&signer));
    drop(channel.resume(cx.policy));
    drop(channel.watches());
    drop(channel.summary(world.height));
    let features = founding::features();
    for input in [
        Input::Connected(&features),
        Input::Command(CommandId(1), Command::Commit),
        Input::Disconnected,
        Input::Command(CommandId(2), Command::Fail { reason: "the end".to_owned() }),
    ] {
        let mut transition = channel.step(input, &cx);
        channel.take_in(&mut transition);
    }
}

/// Changes one byte of a row's bytes, if a row comes of it.
fn bend<T: Row>(draw: &mut Draw<'_>, row: &mut T) {
    let mut bytes = row.encode();
    let at = draw.below(bytes.len());
    bytes[at] ^= draw.byte();
    if let Ok(bent) = T::decode(&bytes) {
        *row = bent;
    }
}
