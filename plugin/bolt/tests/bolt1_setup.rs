//! BOLT 1: setup and control messages, unknown types, and text that a peer chose.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::{DecodeError, EncodeError, Error, Init, Message, Padding, PeerText, Ping, Pong, Warning};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn decode(hex_text: &str) -> Result<Message, DecodeError> {
    Message::decode(&hex::decode(hex_text).unwrap())
}

fn error(data: impl Into<PeerText>) -> Error {
    Error { channel_id: ChannelId([7; 32]), data: data.into() }
}

#[test]
fn init_with_everything() {
    let init = Init {
        globalfeatures: Features::empty().require(Feature::STATIC_REMOTEKEY),
        features: Features::channel_type_anchors(),
        networks: Some(vec![ChainHash::REGTEST, ChainHash::using_genesis_block_const(Network::Signet)]),
        remote_addr: Some(vec![1, 127, 0, 0, 1, 0x26, 0x07]),
    };
    let expected = format!("001000021000000340100001 40{}{}0307017f0000012607", ChainHash::REGTEST, ChainHash::SIGNET);
    let message = Message::Init(init.clone());
    assert_eq!(hex::encode(message.encode().unwrap()), expected.replace(' ', ""));
    assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
    assert_eq!(init.combined_features(), init.globalfeatures.union(&init.features));
}

#[test]
fn init_with_a_piece_of_a_chain_hash() {
    assert_eq!(decode(&format!("001000000000 0121{}00", ChainHash::REGTEST).replace(' ', "")), Err(DecodeError::Short));
}

#[test]
fn bad_input_12_networks_without_our_chain() {
    let with =
        |networks| Init { globalfeatures: Features::empty(), features: Features::empty(), networks, remote_addr: None };
    assert!(!with(Some(vec![ChainHash::BITCOIN, ChainHash::SIGNET])).allows_chain(ChainHash::REGTEST));
    assert!(!with(Some(vec![])).allows_chain(ChainHash::REGTEST));
    assert!(with(Some(vec![ChainHash::BITCOIN, ChainHash::REGTEST])).allows_chain(ChainHash::REGTEST));
    assert!(with(None).allows_chain(ChainHash::REGTEST));
}

#[test]
fn bad_input_13_remote_addr_garbage_is_kept_as_bytes() {
    let Ok(Message::Init(init)) = decode("0010000000000303ff0042") else { panic!("not an init") };
    assert_eq!(init.remote_addr, Some(vec![0xff, 0x00, 0x42]));
}

#[test]
fn bad_input_14_unknown_message_type() {
    assert_eq!(decode("0002ffff"), Err(DecodeError::UnknownEvenType(2)));
    assert_eq!(decode("fffe"), Err(DecodeError::UnknownEvenType(0xfffe)));
    for odd in ["0003", "ffff0102", "0007ffff", "0009", "0201aa"] {
        let Ok(Message::Unknown(unknown)) = decode(odd) else { panic!("{odd} is not unknown") };
        assert_eq!(hex::encode([&unknown_type(&unknown)[..], unknown.payload()].concat()), odd);
        assert_eq!(hex::encode(Message::Unknown(unknown).encode().unwrap()), odd);
    }
}

fn unknown_type(message: &outrigger_bolt::wire::Opaque) -> [u8; 2] {
    outrigger_bolt::wire::WireMessage::type_number(message).to_be_bytes()
}

#[test]
fn bad_input_15_extension_out_of_order() {
    assert_eq!(decode("0013 0000 0500 0300".replace(' ', "").as_str()), order(5, 3));
    assert_eq!(decode("0013 0000 0500 0500".replace(' ', "").as_str()), order(5, 5));
}

fn order(previous: u64, found: u64) -> Result<Message, DecodeError> {
    Err(DecodeError::TlvOrder { previous, found })
}

#[test]
fn bad_input_15_extension_not_minimal_past_its_end_or_unknown_even() {
    assert_eq!(decode("00130000fd000500"), Err(DecodeError::NonMinimalBigSize));
    assert_eq!(decode("0013000005fd0001aa"), Err(DecodeError::NonMinimalBigSize));
    assert_eq!(decode("0013000005ffffffffffffffffff"), Err(DecodeError::TlvPastEnd(5)));
    assert_eq!(decode("001300000600"), Err(DecodeError::UnknownEvenTlv(6)));
    assert_eq!(decode("001300000501aafd010300"), Ok(Message::Pong(Pong { byteslen: Padding(0) })), "odd is ignored");
}

#[test]
fn bad_input_16_an_error_for_all_channels_names_none() {
    let all = Message::Error(Error { channel_id: ChannelId([0; 32]), data: PeerText::default() });
    assert_eq!(all.channel_id(), None);
    assert_eq!(Message::decode(&all.encode().unwrap()), Ok(all));
    let one = Message::Error(error("gone"));
    assert_eq!(one.channel_id(), Some(ChannelId([7; 32])));
    assert_eq!(Message::decode(&one.encode().unwrap()), Ok(one));
    let warning = Message::Warning(Warning { channel_id: ChannelId([7; 32]), data: "gone".into() });
    assert_eq!(hex::encode(&warning.encode().unwrap()[..2]), "0001");
    assert_eq!(Message::decode(&warning.encode().unwrap()), Ok(warning));
}

#[test]
fn bad_input_17_error_text_with_escapes_and_bidi() {
    let text = "ok\x1b[2J\r\n\u{202e}evil\u{2028}\u{2029}\u{200b}\u{ad}\u{e0041}\\u{1b}\0\u{7f}\u{85}é";
    assert_eq!(
        error(text).data.to_string(),
        "ok\\u{1b}[2J\\u{d}\\u{a}\\u{202e}evil\\u{2028}\\u{2029}\\u{200b}\\u{ad}\\u{e0041}\\\\u{1b}\\u{0}\\u{7f}\\u{85}\\u{e9}"
    );
    assert_eq!(error(vec![0xff, b'a', 0xc3]).data.to_string(), "\\u{fffd}a\\u{fffd}", "not UTF-8");
    assert!(format!("{:?}", error("\u{202e}")).ends_with("data: \"\\u{202e}\" }"), "Debug is as safe");
}

#[test]
fn bad_input_17_error_text_of_64_kb() {
    let longest = 65535 - 2 - 32 - 2;
    let message = Message::Error(error(vec![b'x'; longest]));
    let bytes = message.encode().unwrap();
    assert_eq!(bytes.len(), 65535);
    assert_eq!(Message::decode(&bytes), Ok(message));
    assert_eq!(error(vec![b'x'; longest]).data.to_string(), format!("{}...", "x".repeat(253)));
    assert_eq!(error(vec![b'x'; 256]).data.to_string(), "x".repeat(256));
    assert_eq!(error(vec![0; longest]).data.to_string(), format!("{}...", "\\u{0}".repeat(50)), "no half escapes");
}

/// Every scalar value there is, shown one at a time: only printable ASCII comes out.
#[test]
fn prs_9_no_scalar_is_shown_raw_but_printable_ascii() {
    for scalar in '\0'..=char::MAX {
        let shown = PeerText::from(scalar.to_string().as_str()).to_string();
        assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{scalar:?}");
    }
}

#[test]
fn bad_input_18_ping_that_asks_for_65532_or_more() {
    for (num_pong_bytes, answered) in [(0, true), (65531, true), (65532, false), (65535, false)] {
        let ping = Ping { num_pong_bytes, byteslen: Padding(3) };
        let message = Message::Ping(ping.clone());
        assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
        let due = answered.then_some(Pong { byteslen: Padding(num_pong_bytes) });
        assert_eq!(ping.answer(), due);
    }
}

#[test]
fn the_longest_pong_fits_exactly() {
    let longest = Ping { num_pong_bytes: 65531, byteslen: Padding(0) }.answer().unwrap();
    assert_eq!(Message::Pong(longest).encode().unwrap().len(), 65535);
}

#[test]
fn bad_input_19_pong_shorter_than_it_says() {
    assert_eq!(decode("001300040000"), Err(DecodeError::Short));
    assert_eq!(decode("00130004deadbeef"), Ok(Message::Pong(Pong { byteslen: Padding(4) })));
}

#[test]
fn prs_2_a_message_over_65535_bytes_is_refused() {
    let refused = Err(EncodeError::TooLong);
    assert_eq!(Message::Pong(Pong { byteslen: Padding(65532) }).encode(), refused);
    assert_eq!(Message::Error(error(vec![0; 65500])).encode(), refused, "over by one byte");
    assert_eq!(Message::Error(error(vec![0; 65536])).encode(), refused, "over its own length prefix");
    assert_eq!(Message::Error(error(vec![0; 1_000_000])).encode(), refused);
    let init = Init {
        globalfeatures: Features::empty(),
        features: Features::empty(),
        networks: None,
        remote_addr: Some(vec![0; 70_000]),
    };
    assert_eq!(Message::Init(init).encode(), refused);
}

#[test]
fn gossip_is_taken_unread() {
    for (number, name) in [
        (256_u16, "channel_announcement"),
        (257, "node_announcement"),
        (258, "channel_update"),
        (261, "query_short_channel_ids"),
        (262, "reply_short_channel_ids_end"),
        (263, "query_channel_range"),
        (264, "reply_channel_range"),
        (265, "gossip_timestamp_filter"),
    ] {
        let bytes = [&number.to_be_bytes()[..], &[1, 2, 3]].concat();
        let message = Message::decode(&bytes).unwrap();
        assert!(matches!(message, Message::Gossip(_)), "{name}");
        assert_eq!((message.type_number(), message.name(), message.channel_id()), (number, name, None));
        assert_eq!(message.encode(), Ok(bytes));
    }
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn peer_text_is_at_most_256_printable_characters(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let shown = PeerText::from(bytes).to_string();
        prop_assert!(shown.len() <= 256);
        prop_assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }

    #[test]
    fn any_text_comes_back(data in proptest::collection::vec(any::<u8>(), 0..500), channel: [u8; 32]) {
        let message = Message::Error(Error { channel_id: ChannelId(channel), data: data.into() });
        prop_assert_eq!(Message::decode(&message.encode().unwrap()), Ok(message));
    }
}
