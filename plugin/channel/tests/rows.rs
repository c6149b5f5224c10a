//! Rows come back as they were written, and bytes that are no row are told, never a panic (PER-7, PER-8).
#![allow(clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::fmt::Debug;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, ShortChannelId};
use outrigger_bolt::keys::Basepoints;
use outrigger_bolt::tx::commitment::{CommitmentHtlc, HtlcDirection};
use outrigger_channel::{
    ChannelHead, ChannelParams, ClaimKind, CorruptRow, Evidence, FailReason, Fault, FeeState, FundingPhase,
    FundingSpend, FundingTold, HtlcKey, HtlcRow, HtlcSource, HtlcState, HtlcTotals, LastSent, MonitorHead, Offerer,
    Phase, RemoteCommitment, Removal, ReplacedCommitment, Row, SideParams, SignedCommitment, Stage, Taken, Totals,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn key() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_filter_map("a key", |bytes| SecretKey::from_slice(&bytes).ok())
}

fn point() -> impl Strategy<Value = PublicKey> {
    key().prop_map(|key| key.public_key(&Secp256k1::signing_only()))
}

fn signature() -> impl Strategy<Value = Signature> {
    (key(), any::<[u8; 32]>())
        .prop_map(|(key, digest)| Secp256k1::signing_only().sign_ecdsa(&Message::from_digest(digest), &key))
}

fn msat() -> impl Strategy<Value = Msat> {
    any::<u64>().prop_map(Msat::new)
}

fn sat() -> impl Strategy<Value = Sat> {
    any::<u64>().prop_map(Sat::new)
}

fn feerate() -> impl Strategy<Value = FeeratePerKw> {
    any::<u32>().prop_map(FeeratePerKw::new)
}

fn txid() -> impl Strategy<Value = Txid> {
    any::<[u8; 32]>().prop_map(Txid::from_byte_array)
}

fn script() -> impl Strategy<Value = ScriptBuf> {
    vec(any::<u8>(), 0..60).prop_map(ScriptBuf::from_bytes)
}

fn features() -> impl Strategy<Value = Features> {
    vec(0u16..300, 0..8).prop_map(|bits| bits.into_iter().fold(Features::empty(), Features::with_bit))
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        Just(Stage::Proposed),
        Just(Stage::Signed),
        Just(Stage::Revoked),
        Just(Stage::Acknowledged),
        Just(Stage::Settled)
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let output = (0..2_100_000_000_000_000u64, script())
        .prop_map(|(value, script_pubkey)| TxOut { value: Amount::from_sat(value), script_pubkey });
    let witness = vec(vec(any::<u8>(), 0..80), 0..4).prop_map(|items| Witness::from_slice(&items));
    (txid(), any::<u32>(), any::<u32>(), any::<u32>(), witness, vec(output, 1..4)).prop_map(
        |(txid, vout, sequence, lock_time, witness, output)| Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(lock_time),
            input: vec![TxIn {
                previous_output: OutPoint { txid, vout },
                script_sig: ScriptBuf::new(),
                sequence: Sequence(sequence),
                witness,
            }],
            output,
        },
    )
}

fn side() -> impl Strategy<Value = SideParams> {
    let basepoints = (point(), point(), point(), point(), point()).prop_map(
        |(funding_pubkey, revocation, payment, delayed_payment, htlc)| Basepoints {
            funding_pubkey,
            revocation,
            payment,
            delayed_payment,
            htlc,
        },
    );
    (basepoints, sat(), sat(), any::<u16>(), msat(), any::<u16>(), msat(), option::of(script())).prop_map(
        |(
            basepoints,
            dust_limit,
            channel_reserve,
            to_self_delay,
            max_htlc_value_in_flight,
            max_accepted_htlcs,
            htlc_minimum,
            upfront_shutdown_script,
        )| SideParams {
            basepoints,
            dust_limit,
            channel_reserve,
            to_self_delay,
            max_htlc_value_in_flight,
            max_accepted_htlcs,
            htlc_minimum,
            upfront_shutdown_script,
        },
    )
}

fn params() -> impl Strategy<Value = ChannelParams> {
    let names = (any::<[u8; 32]>(), point(), any::<[u64; 2]>(), txid(), any::<u32>());
    let terms = (any::<bool>(), any::<bool>(), features(), sat(), msat(), any::<[u32; 2]>());
    (names, terms, side(), side()).prop_map(
        |(
            (id, peer, [keys_index, scid_alias], txid, vout),
            (is_opener, announce, channel_type, capacity, push, [minimum_depth, opened_height]),
            local,
            remote,
        )| ChannelParams {
            channel_id: ChannelId(id),
            peer: NodeId::new(peer),
            keys_index,
            is_opener,
            announce,
            channel_type,
            funding: OutPoint { txid, vout },
            capacity,
            push,
            minimum_depth,
            opened_height,
            scid_alias: ShortChannelId::from_u64(scid_alias),
            local,
            remote,
        },
    )
}

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        option::of(transaction()).prop_map(|tx| Phase::Funding(FundingPhase { tx: tx.map(Arc::new) })),
        Just(Phase::Normal),
        (feerate(), any::<bool>()).prop_map(|(feerate, signed)| Phase::ShuttingDown { feerate, signed }),
        (transaction(), vec(transaction(), 0..4), option::of(feerate()), option::of(any::<u32>()))
            .prop_map(|(tx, others, wanted, confirmed_height)| Phase::Closing { tx, others, wanted, confirmed_height }),
        (txid(), any::<u32>()).prop_map(|(txid, height)| Phase::Closed { txid, height }),
        (".{0,80}", any::<[bool; 2]>(), option::of((txid(), any::<u32>())))
            .prop_map(|(reason, [publish, reserved], spend)| Phase::Failed { reason, publish, reserved, spend }),
    ]
}

fn totals() -> impl Strategy<Value = Totals> {
    let htlcs = || {
        (any::<u16>(), any::<u16>(), msat()).prop_map(|(count, untrimmed, value)| HtlcTotals {
            count,
            untrimmed,
            value,
        })
    };
    (msat(), msat(), htlcs(), htlcs()).prop_map(|(to_local, to_remote, offered_by_local, offered_by_remote)| Totals {
        to_local,
        to_remote,
        offered_by_local,
        offered_by_remote,
    })
}

fn head() -> impl Strategy<Value = ChannelHead> {
    let numbers = any::<[u64; 5]>();
    let points = (option::of(point()), point(), option::of(point()), option::of(any::<[u8; 32]>()));
    let fee = (feerate(), feerate(), option::of((feerate(), stage()))).prop_map(|(local, remote, change)| FeeState {
        local,
        remote,
        change,
    });
    let last_sent = prop_oneof![Just(LastSent::Nothing), Just(LastSent::Commitment), Just(LastSent::Revocation)];
    let chain = (option::of(any::<u32>()), option::of(any::<u64>()), option::of(any::<u64>()));
    let shutdown = (any::<[bool; 4]>(), option::of(script()), option::of(script()));
    ((phase(), last_sent), numbers, points, fee, (totals(), totals()), chain, shutdown).prop_map(
        |(
            (phase, last_sent),
            [local_number, remote_number, next_local_htlc_id, next_remote_htlc_id, monitor_update_id],
            (revoking_point, remote_point, remote_next_point, last_remote_secret),
            fee,
            (local_commitment, remote_commitment),
            (funding_height, scid, alias),
            ([channel_ready_sent, channel_ready_received, pending, stuck], local_shutdown, remote_shutdown),
        )| ChannelHead {
            phase,
            local_number,
            remote_number,
            revoking_point,
            remote_point,
            remote_next_point,
            last_remote_secret,
            last_sent,
            next_local_htlc_id,
            next_remote_htlc_id,
            fee,
            local_commitment,
            remote_commitment,
            funding_height,
            short_channel_id: scid.map(ShortChannelId::from_u64),
            channel_ready_sent,
            channel_ready_received,
            remote_scid_alias: alias.map(ShortChannelId::from_u64),
            local_shutdown,
            remote_shutdown,
            monitor_update_id,
            told: FundingTold { pending, stuck },
        },
    )
}

fn htlc() -> impl Strategy<Value = HtlcRow> {
    let state = prop_oneof![stage().prop_map(HtlcState::Adding), stage().prop_map(HtlcState::Removing)];
    let source = prop_oneof![
        (any::<[u8; 32]>(), any::<u16>()).prop_map(|(payment_id, part)| HtlcSource::Payment { payment_id, part }),
        (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(channel, htlc_id)| HtlcSource::Relayed { channel: ChannelId(channel), htlc_id }),
    ];
    let removal = prop_oneof![
        any::<[u8; 32]>().prop_map(|preimage| Removal::Fulfilled(PaymentPreimage(preimage))),
        vec(any::<u8>(), 0..400).prop_map(|reason| Removal::Failed(FailReason::Encrypted(reason))),
        (any::<[u8; 32]>(), any::<u16>()).prop_map(|(sha256_of_onion, failure_code)| {
            Removal::Failed(FailReason::Malformed { sha256_of_onion, failure_code })
        }),
    ];
    (msat(), any::<[u8; 32]>(), any::<u32>(), state, option::of(source), option::of(removal)).prop_map(
        |(amount, hash, cltv_expiry, state, source, removal)| HtlcRow {
            amount,
            payment_hash: PaymentHash(hash),
            cltv_expiry,
            state,
            source,
            removal,
        },
    )
}

fn remote_commitment() -> impl Strategy<Value = RemoteCommitment> {
    (any::<u64>(), point(), feerate(), msat(), msat()).prop_map(|(number, point, feerate, to_local, to_remote)| {
        RemoteCommitment { number, point, feerate, to_local, to_remote }
    })
}

fn monitor_head() -> impl Strategy<Value = MonitorHead> {
    let local = (any::<u64>(), feerate(), msat(), msat(), signature()).prop_map(
        |(number, feerate, to_local, to_remote, signature)| SignedCommitment {
            number,
            feerate,
            to_local,
            to_remote,
            signature,
            htlc_signatures: Vec::new(),
        },
    );
    let remotes = (remote_commitment(), option::of(remote_commitment()));
    let told = option::of((txid(), any::<u32>()));
    let ending = (option::of(any::<u64>()), any::<bool>(), option::of(replaced()));
    (any::<[u64; 2]>(), local, remotes, any::<[bool; 3]>(), told, ending).prop_map(
        |(ids, local, (remote, remote_next), [failed, may_publish, closed], told_spend, ending)| {
            let ([update_id, next_secret_number], (closing, reserved, replaced)) = (ids, ending);
            MonitorHead {
                update_id,
                local,
                remote,
                remote_next,
                next_secret_number,
                failed,
                may_publish,
                closed,
                told_spend,
                closing,
                reserved,
                replaced: replaced.map(Box::new),
            }
        },
    )
}

fn replaced() -> impl Strategy<Value = ReplacedCommitment> {
    let htlc = (any::<bool>(), any::<u64>(), msat(), any::<[u8; 32]>(), any::<u32>()).prop_map(
        |(is_received, id, amount, hash, cltv_expiry)| CommitmentHtlc {
            id,
            direction: if is_received { HtlcDirection::Received } else { HtlcDirection::Offered },
            amount,
            payment_hash: PaymentHash(hash),
            cltv_expiry,
        },
    );
    let rest = (any::<u64>(), feerate(), msat(), msat(), signature(), vec(signature(), 0..4));
    (rest, vec(htlc, 0..4)).prop_map(|((number, feerate, to_local, to_remote, signature, htlc_signatures), htlcs)| {
        let commitment = SignedCommitment { number, feerate, to_local, to_remote, signature, htlc_signatures };
        ReplacedCommitment { commitment, htlcs }
    })
}

/// The row comes back; with an odd field more too; no cut, no changed byte and no even field more goes unnoticed or
/// panics.
fn check<T: Row + PartialEq + Debug>(row: &T, damage: &[(usize, u8)]) -> Result<(), TestCaseError> {
    let bytes = row.encode();
    let back = T::decode(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
    prop_assert_eq!(&back, row);
    prop_assert_eq!(T::decode(&[]), Err(CorruptRow { row: T::NAME, fault: Fault::Empty }));
    for end in 1..bytes.len() {
        if let Ok(cut) = T::decode(&bytes[..end]) {
            prop_assert_ne!(&cut, row, "a cut row is never the whole one");
        }
    }
    let mut newer = bytes.clone();
    newer[0] = 2;
    prop_assert_eq!(T::decode(&newer), Err(CorruptRow { row: T::NAME, fault: Fault::Version(2) }));
    // A field of type 65533 or 65534, of one byte, behind all others.
    let odd = [&bytes[..], &[0xfd, 0xff, 0xfd, 1, 7]].concat();
    let skipped = T::decode(&odd);
    prop_assert_eq!(skipped.as_ref(), Ok(row));
    let even = [&bytes[..], &[0xfd, 0xff, 0xfe, 1, 7]].concat();
    prop_assert_eq!(T::decode(&even), Err(CorruptRow { row: T::NAME, fault: Fault::Unknown(0xfffe) }));
    for (place, byte) in damage {
        let mut garbled = bytes.clone();
        let place = place % garbled.len();
        garbled[place] ^= byte;
        // Whatever it says, it says it: a result, and of a row that can be written again.
        if let Ok(read) = T::decode(&garbled) {
            let again = T::decode(&read.encode());
            prop_assert_eq!(again.as_ref(), Ok(&read));
        }
    }
    Ok(())
}

fn damage() -> impl Strategy<Value = Vec<(usize, u8)>> {
    vec((any::<usize>(), 1u8..), 16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn per_7_channel_parameters_come_back(row in params(), damage in damage()) {
        check(&row, &damage)?;
    }

    #[test]
    fn per_7_channel_head_comes_back(row in head(), damage in damage()) {
        check(&row, &damage)?;
    }

    #[test]
    fn per_7_htlc_comes_back(row in htlc(), damage in damage()) {
        check(&row, &damage)?;
    }

    #[test]
    fn per_7_onion_comes_back(byte in any::<u8>(), damage in damage()) {
        check(&[byte; 1366], &damage)?;
    }

    #[test]
    fn per_7_monitor_head_comes_back(row in monitor_head(), damage in damage()) {
        check(&row, &damage)?;
    }

    #[test]
    fn per_7_evidence_comes_back(
        hash in any::<[u8; 32]>(),
        cltv_expiry in any::<u32>(),
        amount in msat(),
        damage in damage(),
    ) {
        check(&Evidence { payment_hash: PaymentHash(hash), cltv_expiry, amount }, &damage)?;
    }

    #[test]
    fn per_7_secret_comes_back(row in any::<(u64, [u8; 32])>(), damage in damage()) {
        check(&row, &damage)?;
    }

    #[test]
    fn per_7_htlc_signatures_come_back(row in vec(signature(), 0..6), damage in damage()) {
        check(&row, &damage)?;
    }

    #[test]
    fn per_7_preimage_comes_back(row in any::<[u8; 32]>(), damage in damage()) {
        check(&PaymentPreimage(row), &damage)?;
    }

    #[test]
    fn per_7_spend_and_taken_output_come_back(
        tx in transaction(),
        height in any::<u32>(),
        kind in any::<u8>(),
        key in (any::<bool>(), any::<u64>()),
        fee in option::of(any::<u64>()),
        damage in damage(),
    ) {
        let (txid, value) = (tx.compute_txid(), Sat::new(key.1));
        check(&FundingSpend { tx: Arc::new(tx), height }, &damage)?;
        let htlc = HtlcKey { offerer: if key.0 { Offerer::Local } else { Offerer::Remote }, id: key.1 };
        let kind = match kind % 7 {
            0 => ClaimKind::Anchor,
            1 => ClaimKind::ToLocal,
            2 => ClaimKind::ToRemote,
            3 => ClaimKind::Htlc(htlc),
            4 => ClaimKind::SecondStage(htlc),
            5 => ClaimKind::RevokedBalance,
            _ => ClaimKind::RevokedHtlc(htlc),
        };
        check(&Taken { kind, txid, height, value, fee: fee.map(Sat::new), told: key.0 }, &damage)?;
    }

    #[test]
    fn per_8_any_bytes_are_a_row_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        let versioned = [&[1], &bytes[..]].concat();
        for bytes in [&bytes, &versioned] {
            let _row = ChannelParams::decode(bytes);
            let _row = ChannelHead::decode(bytes);
            let _row = HtlcRow::decode(bytes);
            let _row = MonitorHead::decode(bytes);
            let _row = Evidence::decode(bytes);
            let _row = <[u8; 1366]>::decode(bytes);
            let _row = <(u64, [u8; 32])>::decode(bytes);
            let _row = Vec::<Signature>::decode(bytes);
            let _row = PaymentPreimage::decode(bytes);
            let _row = FundingSpend::decode(bytes);
            let _row = Taken::decode(bytes);
        }
    }
}

#[test]
fn per_7_the_bytes_of_a_row_are_what_they_were() {
    let row = Evidence { payment_hash: PaymentHash([0xab; 32]), cltv_expiry: 700_000, amount: Msat::new(1_000) };
    let expected = format!("01{}{}{}", format_args!("0020{}", "ab".repeat(32)), "0204000aae60", "040800000000000003e8");
    assert_eq!(hex::encode(row.encode()), expected);
}
