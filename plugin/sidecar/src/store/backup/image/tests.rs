//! Images, updates and tips as bytes, and updates on images.

use super::*;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

fn node(byte: u8) -> NodeId {
    let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret))
}

const CHANNEL: ChannelId = ChannelId([7; 32]);

fn key(rest: &[u8]) -> Vec<u8> {
    [CHANNEL.0.as_slice(), rest].concat()
}

fn put(table: Table, rest: &[u8], value: &[u8]) -> RowChange {
    RowChange { table, key: key(rest), value: Some(value.to_vec()) }
}

fn update(id: u64, changes: Vec<RowChange>) -> Update {
    Update { channel: CHANNEL, after: id - 1, id, changes }
}

fn image() -> Image {
    let mut image = Image::new("regtest", node(1), CHANNEL, 4);
    image.rows.insert((Table::ChannelHead, key(&[])), b"head".to_vec());
    image.rows.insert((Table::Htlc, key(&[0; 9])), vec![1; 300]);
    image.rows.insert((Table::PeerAddress, node(2).serialize().to_vec()), b"host:9735".to_vec());
    image
}

fn tip() -> TipRecord {
    let peers = vec![(node(2), "host:9735".to_owned()), (node(3), "[::1]:1".to_owned())];
    let hash = BlockHash::from_byte_array([5; 32]);
    let channels = Some(vec![(CHANNEL, 4), (ChannelId([8; 32]), u64::MAX)]);
    TipRecord { network: "signet".into(), node_id: node(1), height: 288, hash, at_unix: 1_800_000_000, peers, channels }
}

#[test]
fn images_updates_and_tips_are_read_as_they_were_written() {
    assert_eq!(Image::decode(&image().encode()), Ok(image()));
    let gone = RowChange { table: Table::Htlc, key: key(&[0; 9]), value: None };
    let update = update(5, vec![put(Table::ChannelHead, &[], b"next"), gone, put(Table::Evidence, &[1; 9], &[])]);
    assert_eq!(Update::decode(&update.encode()), Ok(update));
    assert_eq!(TipRecord::decode(&tip().encode()), Ok(tip()));
    let alone = TipRecord { peers: Vec::new(), channels: None, ..tip() };
    assert_eq!(TipRecord::decode(&alone.encode()), Ok(alone));
}

#[test]
fn bad_input_91_any_bit_that_flipped_and_any_end_that_is_missing_is_noticed() {
    let bytes = update(5, vec![put(Table::ChannelHead, &[], b"next")]).encode();
    for bit in 0..bytes.len() * 8 {
        let mut bent = bytes.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(Update::decode(&bent).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(Update::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn bad_input_95_what_is_not_known_is_skipped_where_odd_and_refused_where_even() {
    let fields = |table: u64, field: u64| {
        let mut rows = Writer::new();
        BigSize(table).encode(&mut rows);
        write_bytes(&mut rows, &key(&[]));
        rows.bytes(&[1]);
        write_bytes(&mut rows, b"?");
        write_row(&mut rows, Table::ChannelHead, &key(&[]), Some(b"head"));
        let record = RecordWriter::new(VERSION)
            .put(0, [UPDATE])
            .put(6, CHANNEL.0)
            .put(8, 5_u64.to_be_bytes())
            .put(10, bytes_of(rows))
            .put(12, 4_u64.to_be_bytes())
            .put(field, b"?");
        Update::decode(&checked(record.finish()))
    };
    assert_eq!(fields(101, 101), Ok(update(5, vec![put(Table::ChannelHead, &[], b"head")])));
    assert_eq!(fields(102, 101), Err(BadRecord::UnknownEven(102)));
    assert_eq!(fields(101, 102), Err(BadRecord::UnknownEven(102)));
}

#[test]
fn a_row_of_another_channel_and_another_kind_are_refused() {
    let stray = RowChange { table: Table::Htlc, key: vec![8; 41], value: None };
    assert_eq!(Update::decode(&update(5, vec![stray]).encode()), Err(BadRecord::Malformed("rows")));
    assert_eq!(Update::decode(&image().encode()), Err(BadRecord::Malformed("kind")));
    let backwards = Update { after: 5, ..update(5, Vec::new()) };
    assert_eq!(Update::decode(&backwards.encode()), Err(BadRecord::Malformed("id before it")));
    let newer = [2_u8, 0, 1, 1];
    assert_eq!(Image::decode(&checked(newer.to_vec())), Err(BadRecord::Version(2)));
}

#[test]
fn per_2_a_full_write_voids_what_came_before_it_and_a_gap_is_refused_whole() {
    let mut image = image();
    let late = update(4, vec![put(Table::ChannelHead, &[], b"older")]);
    assert_eq!(image.apply(&late), Ok(()));
    assert_eq!(image, self::image(), "what is in it already changes nothing");
    let early = update(6, vec![put(Table::ChannelHead, &[], b"newer")]);
    assert_eq!(image.apply(&early), Err(Gap { channel: CHANNEL, after: 5, found: 4 }));
    assert_eq!(image, self::image());
    let gone = RowChange { table: Table::Htlc, key: key(&[0; 9]), value: None };
    image.apply(&update(5, vec![gone, put(Table::ChannelHead, &[], b"next")])).unwrap();
    assert_eq!((image.id, image.rows.len()), (5, 2));
    assert_eq!(image.rows[&(Table::ChannelHead, key(&[]))], b"next");
}

#[test]
fn a_funding_output_has_a_name() {
    let outpoint = OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 3 };
    assert_eq!(parse_outpoint_name(&outpoint_name(&outpoint)), Some(outpoint));
    for malformed in ["", "_", "7_7", "x"] {
        assert_eq!(parse_outpoint_name(malformed), None);
    }
}
