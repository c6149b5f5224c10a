//! Messages of BOLT 2 to test with: one fixed sample of each, and arbitrary ones.

use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{ScriptBuf, Txid};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, PaymentHash, PaymentPreimage, ShortChannelId};
use outrigger_bolt::wire::{
    AcceptChannel, AnnouncementSignatures, ChannelReady, ChannelReestablish, ClosingComplete, ClosingSig,
    ClosingSigned, CommitmentSigned, FeeRange, FundingCreated, FundingSigned, Message, OpenChannel,
    PerCommitmentSecret, RevokeAndAck, Shutdown, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc, UpdateFee,
    UpdateFulfillHtlc,
};
use proptest::option;
use proptest::prelude::*;

/// The point of the private key of 32 times this byte.
pub(crate) fn point(number: u8) -> PublicKey {
    SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
}

/// A signature whose r and s repeat this byte.
pub(crate) fn signature(number: u8) -> Signature {
    Signature::from_compact(&[number; 64]).unwrap()
}

fn script(bytes: &[u8]) -> ScriptBuf {
    ScriptBuf::from_bytes(bytes.to_vec())
}

/// One of each, in the order of BOLT 2.
pub(crate) fn sample_messages() -> Vec<Message> {
    let mut all = establishment();
    all.extend(close());
    all.extend(operation());
    all.extend(others());
    all
}

fn establishment() -> Vec<Message> {
    let channel_id = ChannelId([7; 32]);
    let mut txid = [10; 32];
    txid[31] = 11;
    vec![
        Message::OpenChannel(OpenChannel {
            chain_hash: ChainHash::REGTEST,
            temporary_channel_id: channel_id,
            funding_satoshis: Sat::new(1_000_000),
            push_msat: Msat::new(1000),
            dust_limit_satoshis: Sat::new(546),
            max_htlc_value_in_flight_msat: Msat::new(1_000_000_000),
            channel_reserve_satoshis: Sat::new(10_000),
            htlc_minimum_msat: Msat::new(1),
            feerate_per_kw: FeeratePerKw::FLOOR,
            to_self_delay: 144,
            max_accepted_htlcs: 483,
            funding_pubkey: point(1),
            revocation_basepoint: point(2),
            payment_basepoint: point(3),
            delayed_payment_basepoint: point(4),
            htlc_basepoint: point(5),
            first_per_commitment_point: point(6),
            channel_flags: 1,
            upfront_shutdown_script: Some(script(&[0xaa, 0xbb, 0xcc])),
            channel_type: Some(Features::channel_type_anchors()),
        }),
        Message::AcceptChannel(AcceptChannel {
            temporary_channel_id: channel_id,
            dust_limit_satoshis: Sat::new(546),
            max_htlc_value_in_flight_msat: Msat::new(1_000_000_000),
            channel_reserve_satoshis: Sat::new(10_000),
            htlc_minimum_msat: Msat::new(1),
            minimum_depth: 6,
            to_self_delay: 144,
            max_accepted_htlcs: 483,
            funding_pubkey: point(1),
            revocation_basepoint: point(2),
            payment_basepoint: point(3),
            delayed_payment_basepoint: point(4),
            htlc_basepoint: point(5),
            first_per_commitment_point: point(6),
            upfront_shutdown_script: Some(script(&[])),
            channel_type: Some(Features::channel_type_anchors()),
        }),
        Message::FundingCreated(FundingCreated {
            temporary_channel_id: channel_id,
            funding_txid: Txid::from_byte_array(txid),
            funding_output_index: 0x0102,
            signature: signature(1),
        }),
        Message::FundingSigned(FundingSigned { channel_id, signature: signature(2) }),
        Message::ChannelReady(ChannelReady {
            channel_id,
            second_per_commitment_point: point(1),
            short_channel_id: ShortChannelId::new(100, 2, 3),
        }),
    ]
}

fn close() -> Vec<Message> {
    let channel_id = ChannelId([7; 32]);
    vec![
        Message::Shutdown(Shutdown { channel_id, scriptpubkey: script(&[0xaa, 0xbb, 0xcc]) }),
        Message::ClosingSigned(ClosingSigned {
            channel_id,
            fee_satoshis: Sat::new(300),
            signature: signature(3),
            fee_range: Some(FeeRange { min_fee_satoshis: Sat::new(200), max_fee_satoshis: Sat::new(400) }),
        }),
        Message::ClosingComplete(ClosingComplete {
            channel_id,
            closer_scriptpubkey: script(&[0xaa, 0xbb, 0xcc]),
            closee_scriptpubkey: script(&[0x00, 0x51]),
            fee_satoshis: Sat::new(300),
            locktime: 800_000,
            closer_output_only: Some(signature(1)),
            closee_output_only: Some(signature(2)),
            closer_and_closee_outputs: Some(signature(3)),
        }),
        Message::ClosingSig(ClosingSig {
            channel_id,
            closer_scriptpubkey: script(&[0xaa, 0xbb, 0xcc]),
            closee_scriptpubkey: script(&[0x00, 0x51]),
            fee_satoshis: Sat::new(300),
            locktime: 800_000,
            closer_output_only: None,
            closee_output_only: None,
            closer_and_closee_outputs: Some(signature(3)),
        }),
    ]
}

fn operation() -> Vec<Message> {
    let channel_id = ChannelId([7; 32]);
    vec![
        Message::UpdateAddHtlc(UpdateAddHtlc {
            channel_id,
            id: 9,
            amount_msat: Msat::new(100_000),
            payment_hash: PaymentHash([5; 32]),
            cltv_expiry: 800,
            onion_routing_packet: Box::new([6; 1366]),
            path_key: Some(point(1)),
        }),
        Message::UpdateFulfillHtlc(UpdateFulfillHtlc { channel_id, id: 9, payment_preimage: PaymentPreimage([8; 32]) }),
        Message::UpdateFailHtlc(UpdateFailHtlc { channel_id, id: 9, reason: vec![1, 2, 3] }),
        Message::UpdateFailMalformedHtlc(UpdateFailMalformedHtlc {
            channel_id,
            id: 9,
            sha256_of_onion: [9; 32],
            failure_code: 0xc005,
        }),
        Message::CommitmentSigned(CommitmentSigned {
            channel_id,
            signature: signature(1),
            htlc_signatures: vec![signature(2), signature(3)],
            funding_txid: Some(Txid::from_byte_array([12; 32])),
        }),
        Message::RevokeAndAck(RevokeAndAck {
            channel_id,
            per_commitment_secret: PerCommitmentSecret([10; 32]),
            next_per_commitment_point: point(1),
        }),
        Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(500) }),
    ]
}

fn others() -> Vec<Message> {
    let channel_id = ChannelId([7; 32]);
    vec![
        Message::ChannelReestablish(ChannelReestablish {
            channel_id,
            next_commitment_number: 3,
            next_revocation_number: 2,
            your_last_per_commitment_secret: PerCommitmentSecret([11; 32]),
            my_current_per_commitment_point: point(1),
        }),
        Message::AnnouncementSignatures(AnnouncementSignatures {
            channel_id,
            short_channel_id: ShortChannelId::from_u64(0x0000_6400_0002_0003),
            node_signature: signature(1),
            bitcoin_signature: signature(2),
        }),
    ]
}

fn any_point() -> impl Strategy<Value = PublicKey> {
    (1_u8..255).prop_map(point)
}

fn any_signature() -> impl Strategy<Value = Signature> {
    any::<[u8; 32]>().prop_map(|half| {
        let half = half.map(|byte| byte & 0x7f);
        Signature::from_compact(&[half, half].concat()).unwrap()
    })
}

fn any_channel() -> impl Strategy<Value = ChannelId> {
    any::<[u8; 32]>().prop_map(ChannelId)
}

fn any_script() -> impl Strategy<Value = ScriptBuf> {
    proptest::collection::vec(any::<u8>(), 0..80).prop_map(ScriptBuf::from_bytes)
}

fn any_features() -> impl Strategy<Value = Features> {
    proptest::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| Features::from_be_bytes(&bytes))
}

/// A message of any kind, any of its records present or not.
pub(crate) fn arbitrary_message() -> impl Strategy<Value = Message> {
    prop_oneof![arbitrary_open(), arbitrary_accept(), arbitrary_small(), arbitrary_close(), arbitrary_operation()]
}

fn arbitrary_open() -> impl Strategy<Value = Message> {
    let Message::OpenChannel(sample) = establishment().remove(0) else { panic!("not an open_channel") };
    let numbers = (any::<[u64; 6]>(), any::<u32>(), any::<[u16; 2]>(), any::<u8>());
    let keys = proptest::array::uniform6(any_point());
    (any_channel(), numbers, keys, option::of(any_script()), option::of(any_features())).prop_map(
        move |(temporary_channel_id, (amounts, feerate, [delay, htlcs], flags), keys, script, kind)| {
            Message::OpenChannel(OpenChannel {
                temporary_channel_id,
                funding_satoshis: Sat::new(amounts[0]),
                push_msat: Msat::new(amounts[1]),
                dust_limit_satoshis: Sat::new(amounts[2]),
                max_htlc_value_in_flight_msat: Msat::new(amounts[3]),
                channel_reserve_satoshis: Sat::new(amounts[4]),
                htlc_minimum_msat: Msat::new(amounts[5]),
                feerate_per_kw: FeeratePerKw::new(feerate),
                to_self_delay: delay,
                max_accepted_htlcs: htlcs,
                funding_pubkey: keys[0],
                revocation_basepoint: keys[1],
                payment_basepoint: keys[2],
                delayed_payment_basepoint: keys[3],
                htlc_basepoint: keys[4],
                first_per_commitment_point: keys[5],
                channel_flags: flags,
                upfront_shutdown_script: script,
                channel_type: kind,
                ..sample.clone()
            })
        },
    )
}

fn arbitrary_accept() -> impl Strategy<Value = Message> {
    let numbers = (any::<[u64; 4]>(), any::<u32>(), any::<[u16; 2]>());
    let keys = proptest::array::uniform6(any_point());
    (any_channel(), numbers, keys, option::of(any_script()), option::of(any_features())).prop_map(
        |(temporary_channel_id, (amounts, minimum_depth, [delay, htlcs]), keys, script, kind)| {
            Message::AcceptChannel(AcceptChannel {
                temporary_channel_id,
                dust_limit_satoshis: Sat::new(amounts[0]),
                max_htlc_value_in_flight_msat: Msat::new(amounts[1]),
                channel_reserve_satoshis: Sat::new(amounts[2]),
                htlc_minimum_msat: Msat::new(amounts[3]),
                minimum_depth,
                to_self_delay: delay,
                max_accepted_htlcs: htlcs,
                funding_pubkey: keys[0],
                revocation_basepoint: keys[1],
                payment_basepoint: keys[2],
                delayed_payment_basepoint: keys[3],
                htlc_basepoint: keys[4],
                first_per_commitment_point: keys[5],
                upfront_shutdown_script: script,
                channel_type: kind,
            })
        },
    )
}

fn arbitrary_small() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any_channel(), any::<[u8; 32]>(), any::<u16>(), any_signature()).prop_map(
            |(temporary_channel_id, txid, funding_output_index, signature)| {
                let funding_txid = Txid::from_byte_array(txid);
                Message::FundingCreated(FundingCreated {
                    temporary_channel_id,
                    funding_txid,
                    funding_output_index,
                    signature,
                })
            }
        ),
        (any_channel(), any_signature())
            .prop_map(|(channel_id, signature)| Message::FundingSigned(FundingSigned { channel_id, signature })),
        (any_channel(), any_point(), option::of(any::<u64>().prop_map(ShortChannelId::from_u64))).prop_map(
            |(channel_id, second_per_commitment_point, short_channel_id)| {
                Message::ChannelReady(ChannelReady { channel_id, second_per_commitment_point, short_channel_id })
            }
        ),
        (any_channel(), any::<[u64; 2]>(), any::<[u8; 32]>(), any_point()).prop_map(
            |(channel_id, [next_commitment_number, next_revocation_number], secret, point)| {
                Message::ChannelReestablish(ChannelReestablish {
                    channel_id,
                    next_commitment_number,
                    next_revocation_number,
                    your_last_per_commitment_secret: PerCommitmentSecret(secret),
                    my_current_per_commitment_point: point,
                })
            }
        ),
        (any_channel(), any::<u64>(), any_signature(), any_signature()).prop_map(
            |(channel_id, scid, node_signature, bitcoin_signature)| {
                Message::AnnouncementSignatures(AnnouncementSignatures {
                    channel_id,
                    short_channel_id: ShortChannelId::from_u64(scid),
                    node_signature,
                    bitcoin_signature,
                })
            }
        ),
    ]
}

fn arbitrary_close() -> impl Strategy<Value = Message> {
    let offer = || (any_channel(), any_script(), any_script(), any::<u64>(), any::<u32>());
    let signatures = || proptest::array::uniform3(option::of(any_signature()));
    prop_oneof![
        (any_channel(), any_script())
            .prop_map(|(channel_id, scriptpubkey)| Message::Shutdown(Shutdown { channel_id, scriptpubkey })),
        (any_channel(), any::<u64>(), any_signature(), option::of(any::<[u64; 2]>())).prop_map(
            |(channel_id, fee, signature, range)| {
                let fee_range = range
                    .map(|[min, max]| FeeRange { min_fee_satoshis: Sat::new(min), max_fee_satoshis: Sat::new(max) });
                let fee_satoshis = Sat::new(fee);
                Message::ClosingSigned(ClosingSigned { channel_id, fee_satoshis, signature, fee_range })
            }
        ),
        (offer(), signatures()).prop_map(|((channel_id, closer, closee, fee, locktime), [one, two, three])| {
            Message::ClosingComplete(ClosingComplete {
                channel_id,
                closer_scriptpubkey: closer,
                closee_scriptpubkey: closee,
                fee_satoshis: Sat::new(fee),
                locktime,
                closer_output_only: one,
                closee_output_only: two,
                closer_and_closee_outputs: three,
            })
        }),
        (offer(), signatures()).prop_map(|((channel_id, closer, closee, fee, locktime), [one, two, three])| {
            Message::ClosingSig(ClosingSig {
                channel_id,
                closer_scriptpubkey: closer,
                closee_scriptpubkey: closee,
                fee_satoshis: Sat::new(fee),
                locktime,
                closer_output_only: one,
                closee_output_only: two,
                closer_and_closee_outputs: three,
            })
        }),
    ]
}

fn arbitrary_operation() -> impl Strategy<Value = Message> {
    let htlc = || (any_channel(), any::<u64>());
    prop_oneof![
        (htlc(), any::<u64>(), any::<[u8; 32]>(), any::<u32>(), any::<u8>(), option::of(any_point())).prop_map(
            |((channel_id, id), amount, hash, cltv_expiry, onion, path_key)| {
                Message::UpdateAddHtlc(UpdateAddHtlc {
                    channel_id,
                    id,
                    amount_msat: Msat::new(amount),
                    payment_hash: PaymentHash(hash),
                    cltv_expiry,
                    onion_routing_packet: Box::new([onion; 1366]),
                    path_key,
                })
            }
        ),
        (htlc(), any::<[u8; 32]>()).prop_map(|((channel_id, id), preimage)| {
            let payment_preimage = PaymentPreimage(preimage);
            Message::UpdateFulfillHtlc(UpdateFulfillHtlc { channel_id, id, payment_preimage })
        }),
        (htlc(), proptest::collection::vec(any::<u8>(), 0..400)).prop_map(|((channel_id, id), reason)| {
            Message::UpdateFailHtlc(UpdateFailHtlc { channel_id, id, reason })
        }),
        (htlc(), any::<[u8; 32]>(), any::<u16>()).prop_map(|((channel_id, id), sha256_of_onion, failure_code)| {
            Message::UpdateFailMalformedHtlc(UpdateFailMalformedHtlc { channel_id, id, sha256_of_onion, failure_code })
        }),
        (
            any_channel(),
            any_signature(),
            proptest::collection::vec(any_signature(), 0..20),
            option::of(any::<[u8; 32]>())
        )
            .prop_map(|(channel_id, signature, htlc_signatures, txid)| {
                let funding_txid = txid.map(Txid::from_byte_array);
                Message::CommitmentSigned(CommitmentSigned { channel_id, signature, htlc_signatures, funding_txid })
            }),
        (any_channel(), any::<[u8; 32]>(), any_point()).prop_map(|(channel_id, secret, next_per_commitment_point)| {
            let per_commitment_secret = PerCommitmentSecret(secret);
            Message::RevokeAndAck(RevokeAndAck { channel_id, per_commitment_secret, next_per_commitment_point })
        }),
        (any_channel(), any::<u32>()).prop_map(|(channel_id, feerate)| {
            Message::UpdateFee(UpdateFee { channel_id, feerate_per_kw: FeeratePerKw::new(feerate) })
        }),
    ]
}
