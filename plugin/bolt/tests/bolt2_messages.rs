//! BOLT 2: every message against its table of fields, and what a broken one is told to be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bolt2;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bolt2::{arbitrary_message, point, sample_messages, signature};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::id::{ChannelId, PaymentPreimage, ShortChannelId};
use outrigger_bolt::wire::{
    ChannelReady, ChannelUpdate, CommitmentSigned, DecodeError, EncodeError, FundingCreated, Message,
    PerCommitmentSecret, RevokeAndAck, Shutdown, UpdateFailHtlc, UpdateFee, UpdateFulfillHtlc, channel_id_in,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const CHANNEL: ChannelId = ChannelId([7; 32]);

/// The bytes of the fields in the order of BOLT 2's table, each given as hex.
fn table(fields: &[&str]) -> String {
    fields.concat()
}

fn hex_of(message: &Message) -> String {
    hex::encode(message.encode().unwrap())
}

fn points(count: u8) -> String {
    (1..=count).map(|number| hex::encode(point(number).serialize())).collect()
}

fn sig(number: u8) -> String {
    hex::encode(signature(number).serialize_compact())
}

/// Each sample as BOLT 2's table says, written out by hand.
fn expected_bytes() -> Vec<(&'static str, String)> {
    let channel = "07".repeat(32);
    let chain = hex::encode(bitcoin::constants::ChainHash::REGTEST.as_bytes());
    let limits = "0000000000000222 000000003b9aca00 0000000000002710 0000000000000001".replace(' ', "");
    let scripts = table(&["0003aabbcc", "00020051"]);
    vec![
        (
            "open_channel",
            table(&["0020", &chain, &channel, "00000000000f4240", "00000000000003e8", &limits, "000000fd", "0090"])
                + &table(&["01e3", &points(6), "01", "0003aabbcc", "0103401000"]),
        ),
        (
            "accept_channel",
            table(&["0021", &channel, &limits, "00000006", "0090", "01e3", &points(6), "0000", "0103401000"]),
        ),
        ("funding_created", table(&["0022", &channel, &"0a".repeat(31), "0b", "0102", &sig(1)])),
        ("funding_signed", table(&["0023", &channel, &sig(2)])),
        ("channel_ready", table(&["0024", &channel, &points(1), "0108", "0000640000020003"])),
        ("shutdown", table(&["0026", &channel, "0003aabbcc"])),
        (
            "closing_signed",
            table(&["0027", &channel, "000000000000012c", &sig(3), "0110", "00000000000000c8", "0000000000000190"]),
        ),
        (
            "closing_complete",
            table(&["0028", &channel, &scripts, "000000000000012c", "000c3500", "0140", &sig(1), "0240", &sig(2)])
                + &table(&["0340", &sig(3)]),
        ),
        ("closing_sig", table(&["0029", &channel, &scripts, "000000000000012c", "000c3500", "0340", &sig(3)])),
        (
            "update_add_htlc",
            table(&["0080", &channel, "0000000000000009", "00000000000186a0", &"05".repeat(32), "00000320"])
                + &table(&[&"06".repeat(1366), "0021", &points(1)]),
        ),
        ("update_fulfill_htlc", table(&["0082", &channel, "0000000000000009", &"08".repeat(32)])),
        ("update_fail_htlc", table(&["0083", &channel, "0000000000000009", "0003010203"])),
        ("update_fail_malformed_htlc", table(&["0087", &channel, "0000000000000009", &"09".repeat(32), "c005"])),
        ("commitment_signed", table(&["0084", &channel, &sig(1), "0002", &sig(2), &sig(3), "0120", &"0c".repeat(32)])),
        ("revoke_and_ack", table(&["0085", &channel, &"0a".repeat(32), &points(1)])),
        ("update_fee", table(&["0086", &channel, "000001f4"])),
        (
            "channel_reestablish",
            table(&["0088", &channel, "0000000000000003", "0000000000000002", &"0b".repeat(32), &points(1)]),
        ),
        ("announcement_signatures", table(&["0103", &channel, "0000640000020003", &sig(1), &sig(2)])),
    ]
}

#[test]
fn every_message_has_the_bytes_of_its_table() {
    let expected = expected_bytes();
    let samples = sample_messages();
    assert_eq!(samples.len(), expected.len());
    for (message, (name, bytes)) in samples.iter().zip(&expected) {
        assert_eq!(message.name(), *name);
        assert_eq!(&hex_of(message), bytes, "{name}");
        assert_eq!(Message::decode(&hex::decode(bytes).unwrap()).as_ref(), Ok(message), "{name}");
        assert_eq!(message.channel_id(), Some(CHANNEL), "{name}");
        assert_eq!(channel_id_in(&hex::decode(bytes).unwrap()), Some(CHANNEL), "{name}");
    }
}

/// Cut anywhere, a message is an error or, cut at the end of a record, the message without its last records.
#[test]
fn every_message_cut_short() {
    for message in sample_messages() {
        let bytes = message.encode().unwrap();
        for len in 0..bytes.len() {
            match Message::decode(&bytes[..len]) {
                Ok(shorter) => assert_eq!(shorter.encode().unwrap(), bytes[..len], "{} at {len}", message.name()),
                Err(DecodeError::NoType) => assert!(len < 2),
                Err(error) => assert!(
                    matches!(error, DecodeError::Short | DecodeError::TlvPastEnd(_)),
                    "{} at {len}: {error}",
                    message.name()
                ),
            }
        }
    }
}

#[test]
fn every_message_holds_its_extension_to_the_rules() {
    for message in sample_messages() {
        let extended = |record: &str| [message.encode().unwrap(), hex::decode(record).unwrap()].concat();
        let name = message.name();
        assert_eq!(Message::decode(&extended("fd01030199")).as_ref(), Ok(&message), "{name}: odd is ignored");
        let even = Message::decode(&extended("fd010400"));
        assert_eq!(even, Err(DecodeError::UnknownEvenTlv(0x104)), "{name}");
        let twice = Message::decode(&extended("fd010300fd010300"));
        assert_eq!(twice, Err(DecodeError::TlvOrder { previous: 0x103, found: 0x103 }), "{name}");
    }
}

#[test]
fn bad_input_15_records_of_open_channel_out_of_order() {
    let open = sample_messages().remove(0).encode().unwrap();
    let fields = open.len() - "0003aabbcc0103401000".len() / 2;
    let with = |records: &str| Message::decode(&[&open[..fields], &hex::decode(records).unwrap()].concat());
    assert_eq!(with("01034010000003aabbcc"), Err(DecodeError::TlvOrder { previous: 1, found: 0 }));
    assert_eq!(with("0003aabbcc0003aabbcc"), Err(DecodeError::TlvOrder { previous: 0, found: 0 }));
    assert_eq!(with("0004aabbcc"), Err(DecodeError::TlvPastEnd(0)));
    assert_eq!(with("0003aabbcc0200"), Err(DecodeError::UnknownEvenTlv(2)));
    let Ok(Message::OpenChannel(plain)) = with("") else { panic!("not an open_channel") };
    assert_eq!((plain.upfront_shutdown_script, plain.channel_type), (None, None));
}

#[test]
fn bad_input_15_records_of_the_wrong_length() {
    let at = |message: &Message, record: &str| {
        Message::decode(&[message.encode().unwrap(), hex::decode(record).unwrap()].concat())
    };
    let ready = ChannelReady { channel_id: CHANNEL, second_per_commitment_point: point(1), short_channel_id: None };
    let ready = Message::ChannelReady(ready);
    assert_eq!(at(&ready, "010700000000000000"), Err(DecodeError::Short));
    assert_eq!(at(&ready, "0109000000000000000000"), Err(DecodeError::TooLong(1)));
}

#[test]
fn bad_input_27_point_invalid() {
    let bytes = Message::ChannelReady(ChannelReady {
        channel_id: CHANNEL,
        second_per_commitment_point: point(1),
        short_channel_id: Some(ShortChannelId::from_u64(1)),
    })
    .encode()
    .unwrap();
    // All zero, an uncompressed prefix, a hybrid prefix, an x of the field's order.
    let beyond = format!("02{}fffffc2f", "ffffffff".repeat(6) + "fffffffe");
    for broken in ["00".repeat(33), "04".to_owned() + &"11".repeat(32), "06".to_owned() + &"11".repeat(32), beyond] {
        let mut changed = bytes.clone();
        changed[34..67].copy_from_slice(&hex::decode(&broken).unwrap());
        assert_eq!(Message::decode(&changed), Err(DecodeError::InvalidPoint), "{broken}");
        assert_eq!(channel_id_in(&changed), Some(CHANNEL), "the channel to fail is still known");
    }
}

#[test]
fn bad_input_33_signature_beyond_the_order() {
    let message = Message::FundingCreated(FundingCreated {
        temporary_channel_id: CHANNEL,
        funding_txid: bitcoin::Txid::all_zeros(),
        funding_output_index: 0,
        signature: signature(1),
    });
    let mut bytes = message.encode().unwrap();
    bytes[68..100].fill(0xff);
    assert_eq!(Message::decode(&bytes), Err(DecodeError::InvalidSignature));
}

/// A high S is no fault of the encoding: it decodes as sent, and verification refuses it.
#[test]
fn bad_input_50_high_s_decodes_as_sent() {
    const ORDER_MINUS_1: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140";
    let high = hex::decode("00".repeat(31) + "01" + ORDER_MINUS_1).unwrap();
    let high = Signature::from_compact(&high).unwrap();
    let message = Message::CommitmentSigned(CommitmentSigned {
        channel_id: CHANNEL,
        signature: high,
        htlc_signatures: vec![],
        funding_txid: None,
    });
    assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
}

/// Lengths and counts that the input cannot hold are refused without allocating what they claim.
#[test]
fn prs_1_a_claimed_length_or_count_beyond_the_input() {
    let channel = "07".repeat(32);
    for message in [
        table(&["0084", &channel, &sig(1), "ffff", &sig(2)]),
        table(&["0083", &channel, "0000000000000009", "ffff", "00"]),
        table(&["0026", &channel, "ffff"]),
        table(&["0011", &channel, "ffff", "00"]),
        table(&["0010", "0000", "ffff", "00"]),
    ] {
        assert_eq!(Message::decode(&hex::decode(&message).unwrap()), Err(DecodeError::Short), "{message}");
    }
}

#[test]
fn prs_2_an_encoder_refuses_what_does_not_fit() {
    let refused = Err(EncodeError::TooLong);
    let fits = |len: usize| {
        Message::UpdateFailHtlc(UpdateFailHtlc { channel_id: CHANNEL, id: 0, reason: vec![0; len] }).encode()
    };
    assert_eq!(fits(65535 - 44).unwrap().len(), 65535);
    assert_eq!(fits(65535 - 43), refused);
    assert_eq!(fits(65536), refused);
    let signatures = |count: usize| {
        Message::CommitmentSigned(CommitmentSigned {
            channel_id: CHANNEL,
            signature: signature(1),
            htlc_signatures: vec![signature(2); count],
            funding_txid: None,
        })
        .encode()
    };
    assert_eq!(signatures(1021).unwrap().len(), 65444);
    assert_eq!(signatures(1023), refused);
    assert_eq!(signatures(65536), refused);
    let shutdown = Shutdown { channel_id: CHANNEL, scriptpubkey: bitcoin::ScriptBuf::from_bytes(vec![0; 65536]) };
    assert_eq!(Message::Shutdown(shutdown).encode(), refused);
}

#[test]
fn secrets_are_not_printed() {
    let revoke = RevokeAndAck {
        channel_id: CHANNEL,
        per_commitment_secret: PerCommitmentSecret([0xab; 32]),
        next_per_commitment_point: point(1),
    };
    let fulfill = UpdateFulfillHtlc { channel_id: CHANNEL, id: 0, payment_preimage: PaymentPreimage([0xab; 32]) };
    for shown in [format!("{revoke:?}"), format!("{fulfill:?}")] {
        assert!(!shown.contains("ab, ") && !shown.contains("abab") && !shown.contains("171"), "{shown}");
    }
    let reestablish = sample_messages().into_iter().find(|message| message.name() == "channel_reestablish").unwrap();
    assert!(format!("{reestablish:?}").contains("your_last_per_commitment_secret: PerCommitmentSecret(..)"));
}

#[test]
fn a_channel_is_found_only_where_there_is_one() {
    assert_eq!(channel_id_in(&[]), None);
    assert_eq!(channel_id_in(&hex::decode("0010".to_owned() + &"07".repeat(40)).unwrap()), None);
    assert_eq!(channel_id_in(&hex::decode("0086".to_owned() + &"07".repeat(31)).unwrap()), None);
    let fee = Message::UpdateFee(UpdateFee { channel_id: CHANNEL, feerate_per_kw: FeeratePerKw::new(253) });
    assert_eq!(channel_id_in(&fee.encode().unwrap()), Some(CHANNEL));
}

fn channel_update(extension: &str) -> Vec<u8> {
    let chain = hex::encode(bitcoin::constants::ChainHash::REGTEST.as_bytes());
    let fields = table(&[&sig(1), &chain, "0000640000020003", "65000000", "01", "00", "0028", "0000000000000001"]);
    hex::decode(table(&["0102", &fields, "000003e8", "00000064", "000000003b9aca00", extension])).unwrap()
}

#[test]
fn channel_update_is_typed_where_it_is_wanted() {
    for extension in ["", "fd01030199"] {
        let bytes = channel_update(extension);
        let Ok(Message::Gossip(gossip)) = Message::decode(&bytes) else { panic!("not gossip") };
        let update = ChannelUpdate::from_gossip(&gossip).unwrap().unwrap();
        assert_eq!(update.cltv_expiry_delta, 40);
        assert_eq!((update.fee_base_msat, update.fee_proportional_millionths), (1000, 100));
        assert_eq!(update.htlc_maximum_msat, Msat::new(1_000_000_000));
        assert_eq!(update.extension.as_bytes(), hex::decode(extension).unwrap());
        assert_eq!(update.into_message().unwrap().encode(), Ok(bytes));
    }
    let Ok(Message::Gossip(gossip)) = Message::decode(&channel_update("0400")) else { panic!("not gossip") };
    assert_eq!(ChannelUpdate::from_gossip(&gossip), Some(Err(DecodeError::UnknownEvenTlv(4))));
}

/// The signature covers every byte after it, records that we do not know included.
#[test]
fn channel_update_is_signed_over_all_that_follows_the_signature() {
    let secp = bitcoin::secp256k1::Secp256k1::new();
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
    let verifier = bitcoin::secp256k1::Secp256k1::verification_only();
    let Ok(Message::Gossip(gossip)) = Message::decode(&channel_update("fd01030199")) else { panic!("not gossip") };
    let mut update = ChannelUpdate::from_gossip(&gossip).unwrap().unwrap();
    assert!(!update.is_signed_by(&verifier, &key.public_key(&secp)));
    let bytes = channel_update("fd01030199");
    let digest = bitcoin::hashes::sha256d::Hash::hash(&bytes[66..]).to_byte_array();
    update.signature = secp.sign_ecdsa(&bitcoin::secp256k1::Message::from_digest(digest), &key);
    assert!(update.is_signed_by(&verifier, &key.public_key(&secp)));
    update.extension = Default::default();
    assert!(!update.is_signed_by(&verifier, &key.public_key(&secp)));
}

/// Amounts of any size decode: whether they make sense is judged with the channel at hand.
#[test]
fn the_largest_amounts_decode() {
    let Message::OpenChannel(mut open) = sample_messages().remove(0) else { panic!("not an open_channel") };
    open.funding_satoshis = Sat::new(u64::MAX);
    open.max_htlc_value_in_flight_msat = Msat::new(u64::MAX);
    let message = Message::OpenChannel(open);
    assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn what_is_encoded_decodes_to_itself(message in arbitrary_message()) {
        let bytes = message.encode().unwrap();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = channel_id_in(&bytes);
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
        }
    }

    /// Every known type gets its share of random payloads.
    #[test]
    fn random_payloads_never_panic(
        number in prop::sample::select(sample_messages().iter().map(Message::type_number).collect::<Vec<_>>()),
        payload in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let bytes = [&number.to_be_bytes()[..], &payload].concat();
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
        }
    }

    /// Near misses get deeper into the decoders than noise does.
    #[test]
    fn a_changed_byte_never_panics(message in arbitrary_message(), at: prop::sample::Index, byte: u8) {
        let mut bytes = message.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(changed) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&changed.encode().unwrap()), Ok(changed));
        }
    }
}
