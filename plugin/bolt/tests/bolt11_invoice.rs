//! BOLT 11: the examples, valid and invalid, and invoices broken in every way that the catalogue lists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::features::{FeatureError, Features};
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentSecret, ShortChannelId};
use outrigger_bolt::invoice::{Description, HintHop, InvalidInvoice, Invoice, Terms, UnwritableInvoice};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

const PAYEE: &str = "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad";
const KEY: &str = "e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734";

fn examples(kind: &str) -> Vec<(String, String)> {
    let fixture: Value = serde_json::from_str(include_str!("fixtures/bolt11-invoices.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fixture[kind].as_array().unwrap().iter().map(|case| (text(&case["name"]), text(&case["invoice"]))).collect()
}

fn bytes32(hex: &str) -> [u8; 32] {
    hex::decode(hex).unwrap().try_into().unwrap()
}

/// The terms that most examples share.
fn donation() -> Terms {
    Terms {
        network: Network::Bitcoin,
        timestamp: 1_496_314_658,
        payment_hash: PaymentHash(bytes32("0001020304050607080900010203040506070809000102030405060708090102")),
        payment_secret: PaymentSecret([0x11; 32]),
        amount: None,
        description: Description::Text("Please consider supporting this project".into()),
        expiry_secs: 3600,
        min_final_cltv_expiry_delta: 18,
        payment_metadata: None,
        route_hints: Vec::new(),
        basic_mpp: false,
    }
}

fn list_of_things() -> Terms {
    let hash = Description::Hash(bytes32("3925b6f67e2c340036ed12093dd44e0368df1b6ea26c53dbe4811f58fd5db8c1"));
    Terms { amount: Some(Msat::new(2_000_000_000)), description: hash, ..donation() }
}

fn coffee(text: &str, msat: u64) -> Terms {
    Terms { amount: Some(Msat::new(msat)), description: Description::Text(text.into()), ..donation() }
}

fn hint_hop(node: &str, scid: u64, base: u32, proportional: u32, delta: u16) -> HintHop {
    HintHop {
        node: node.parse().unwrap(),
        short_channel_id: ShortChannelId::from_u64(scid),
        fee_base_msat: base,
        fee_proportional_millionths: proportional,
        cltv_expiry_delta: delta,
    }
}

/// What each of the valid examples asks for, in the order of BOLT 11.
fn expected_terms() -> Vec<Terms> {
    let minute = |terms| Terms { expiry_secs: 60, ..terms };
    let hints = vec![
        hint_hop("029e03a901b85534ff1e92c43c74431f7ce72046060fcf7a95c37e148f78c77255", 0x0102_0304_0506_0708, 1, 20, 3),
        hint_hop("039e03a901b85534ff1e92c43c74431f7ce72046060fcf7a95c37e148f78c77255", 0x0304_0506_0708_090a, 2, 30, 4),
    ];
    let list = "Blockstream Store: 88.85 USD for Blockstream Ledger Nano S x 1, \"Back In My Day\" Sticker x 2, \
                \"I Got Lightning Working\" Sticker x 2 and 1 more items";
    let ledger = Terms {
        timestamp: 1_572_468_703,
        payment_hash: PaymentHash(bytes32("462264ede7e14047e9b249da94fefc47f41f7d02ee9b091815a5506bc8abf75f")),
        expiry_secs: 604_800,
        min_final_cltv_expiry_delta: 10,
        route_hints: vec![vec![hint_hop(
            "03d06758583bb5154774a6eb221b1276c9e82d65bbaceca806d90e20c108f4b1c7",
            (589_390 << 40) | (3312 << 16) | 1,
            1000,
            2500,
            40,
        )]],
        ..coffee(list, 967_878_534)
    };
    let metadata = Terms {
        payment_metadata: Some(vec![0x01, 0xfa, 0xfa, 0xf0]),
        ..coffee("payment metadata inside", 1_000_000_000)
    };
    let beans = || coffee("coffee beans", 2_500_000_000);
    vec![
        donation(),
        minute(coffee("1 cup coffee", 250_000_000)),
        minute(coffee("ナンセンス 1杯", 250_000_000)),
        list_of_things(),
        Terms { network: Network::Testnet, ..list_of_things() },
        Terms { route_hints: vec![hints], ..list_of_things() },
        list_of_things(),
        list_of_things(),
        list_of_things(),
        list_of_things(),
        ledger,
        beans(),
        beans(),
        beans(),
        metadata,
        donation(),
    ]
}

#[test]
fn valid_examples() {
    let examples = examples("valid");
    assert_eq!(examples.len(), 16);
    for ((name, text), terms) in examples.iter().zip(expected_terms()) {
        let invoice = Invoice::parse(text, terms.network).unwrap_or_else(|reason| panic!("{name}: {reason}"));
        assert_eq!(invoice.terms, terms, "{name}");
        if !name.contains("list of items") && !name.contains("high-S") {
            assert_eq!(invoice.payee, PAYEE.parse::<NodeId>().unwrap(), "{name}");
        }
        let other = Network::Regtest;
        assert_eq!(Invoice::parse(text, other), Err(InvalidInvoice::WrongNetwork(other)), "{name}");
    }
}

#[test]
fn invalid_examples() {
    let reasons = [
        InvalidInvoice::Features(FeatureError::UnknownRequired(100)),
        InvalidInvoice::Checksum,
        InvalidInvoice::NoSeparator,
        InvalidInvoice::MixedCase,
        InvalidInvoice::UnrecoverableSignature,
        InvalidInvoice::TooShort,
        InvalidInvoice::UnknownMultiplier,
        InvalidInvoice::SubMillisatoshi,
        InvalidInvoice::NoPaymentSecret,
        InvalidInvoice::HighS,
    ];
    let examples = examples("invalid");
    assert_eq!(examples.len(), reasons.len());
    for ((name, text), reason) in examples.iter().zip(reasons) {
        assert_eq!(Invoice::parse(text, Network::Bitcoin), Err(reason), "{name}");
    }
}

/// An invoice under construction, in words of five bits: what the crate would refuse to write.
#[derive(Clone)]
struct Words {
    prefix: String,
    words: Vec<u8>,
}

impl Words {
    fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), words: words_of(1_496_314_658, 7) }
    }

    /// With a payment hash, a secret and a description.
    fn complete(prefix: &str) -> Self {
        Self::new(prefix).hash('p', 52).hash('s', 52).field('d', &five_bits(b"tea"))
    }

    fn field(mut self, tag: char, data: &[u8]) -> Self {
        self.words.push(value_of(tag));
        self.words.extend(words_of(data.len() as u64, 2));
        self.words.extend(data);
        self
    }

    /// A field of this many words, each 1.
    fn hash(self, tag: char, length: usize) -> Self {
        // The last word of 52 holds four bits of padding, which must be zero.
        let mut data = vec![1; length];
        data[length - 1] = 0;
        self.field(tag, &data)
    }

    fn message(&self) -> Message {
        let hashed = [self.prefix.as_bytes(), &eight_bits(&self.words)].concat();
        Message::from_digest(sha256::Hash::hash(&hashed).to_byte_array())
    }

    fn signed(self) -> String {
        let signature = Secp256k1::new().sign_ecdsa_recoverable(&self.message(), &key());
        let (id, compact) = signature.serialize_compact();
        self.with_signature(compact, id.to_i32() as u8)
    }

    fn with_signature(mut self, compact: [u8; 64], recovery_id: u8) -> String {
        self.words.extend(five_bits(&[&compact[..], &[recovery_id]].concat()));
        let checksum = checksum(&self.prefix, &self.words);
        let data: String =
            self.words.iter().chain(&checksum).map(|word| CHARSET.as_bytes()[*word as usize] as char).collect();
        format!("{}1{data}", self.prefix)
    }
}

const CHARSET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

fn key() -> SecretKey {
    KEY.parse().unwrap()
}

fn value_of(tag: char) -> u8 {
    CHARSET.find(tag).unwrap() as u8
}

fn words_of(number: u64, count: u32) -> Vec<u8> {
    (0..count).rev().map(|place| (number >> (5 * place)) as u8 & 31).collect()
}

fn regroup(from: &[u8], from_bits: u32, to_bits: u32) -> Vec<u8> {
    let bits: Vec<u8> = from.iter().flat_map(|item| (0..from_bits).rev().map(move |bit| item >> bit & 1)).collect();
    bits.chunks(to_bits as usize)
        .map(|chunk| chunk.iter().fold(0, |sum, bit| sum << 1 | bit) << (to_bits as usize - chunk.len()))
        .collect()
}

fn five_bits(bytes: &[u8]) -> Vec<u8> {
    regroup(bytes, 8, 5)
}

fn eight_bits(words: &[u8]) -> Vec<u8> {
    regroup(words, 5, 8)
}

/// BIP 173.
fn checksum(prefix: &str, words: &[u8]) -> Vec<u8> {
    let high = prefix.bytes().map(|byte| byte >> 5);
    let low = prefix.bytes().map(|byte| byte & 31);
    let all = high.chain([0]).chain(low).chain(words.iter().copied()).chain([0; 6]);
    let residue = all.fold(1_u32, |sum, word| {
        let generators = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
        let shifted = (sum & 0x01ff_ffff) << 5 ^ u32::from(word);
        (0..).zip(generators).filter(|(bit, _)| sum >> 25 >> bit & 1 == 1).fold(shifted, |sum, (_, part)| sum ^ part)
    });
    words_of(u64::from(residue ^ 1), 6)
}

fn parse(text: &str) -> Result<Invoice, InvalidInvoice> {
    Invoice::parse(text, Network::Bitcoin)
}

#[test]
fn the_tests_own_writer_makes_good_invoices() {
    let invoice = parse(&Words::complete("lnbc20m").signed()).unwrap();
    assert_eq!(invoice.payee, PAYEE.parse().unwrap());
    assert_eq!(invoice.features, Features::empty(), "assumed features need not be named");
    assert_eq!((invoice.terms.expiry_secs, invoice.terms.min_final_cltv_expiry_delta), (3600, 18));
}

#[test]
fn prs_4_bad_input_77_characters() {
    let good = Words::complete("lnbc20m").signed();
    let mut wrong = good.clone();
    wrong.replace_range(40..41, if &good[40..41] == "q" { "p" } else { "q" });
    let cases = [
        (wrong, InvalidInvoice::Checksum),
        (good[..good.len() - 1].to_owned(), InvalidInvoice::Checksum),
        (good.replacen("lnbc", "LNBC", 1), InvalidInvoice::MixedCase),
        (good.replace('1', ""), InvalidInvoice::NoSeparator),
        ("l".into(), InvalidInvoice::NoSeparator),
        (String::new(), InvalidInvoice::NoSeparator),
        ("1".into(), InvalidInvoice::TooShort),
        ("lnbc1qqqqqq".into(), InvalidInvoice::TooShort),
        ("q".repeat(8193), InvalidInvoice::TooLong(8193)),
        (format!("{good}é"), InvalidInvoice::NotAscii),
        (format!("{good}b"), InvalidInvoice::InvalidCharacter('b')),
        (format!("{good} "), InvalidInvoice::InvalidCharacter(' ')),
        (format!(" {good}"), InvalidInvoice::InvalidCharacter(' ')),
        (format!("{good}\u{0}"), InvalidInvoice::InvalidCharacter('\u{0}')),
    ];
    for (text, reason) in cases {
        assert_eq!(parse(&text), Err(reason), "{text}");
    }
}

#[test]
fn bad_input_77_pay_8_prefix_and_amount() {
    let cases = [
        ("lnbc20x", InvalidInvoice::UnknownMultiplier),
        ("lnbc20mm", InvalidInvoice::UnknownPrefix),
        ("lnbc1p", InvalidInvoice::SubMillisatoshi),
        ("lnbc0", InvalidInvoice::ZeroAmount),
        ("lnbc0p", InvalidInvoice::ZeroAmount),
        ("lnbc020m", InvalidInvoice::NotCanonical),
        ("lnbc18446745", InvalidInvoice::AmountTooLarge),
        ("lnbc18446744073709551615m", InvalidInvoice::AmountTooLarge),
        ("lnbc18446744073709551616p", InvalidInvoice::AmountTooLarge),
        ("lnxy20m", InvalidInvoice::UnknownPrefix),
        ("ln", InvalidInvoice::UnknownPrefix),
        ("bc20m", InvalidInvoice::UnknownPrefix),
        ("lntb20m", InvalidInvoice::WrongNetwork(Network::Bitcoin)),
        ("lntbs20m", InvalidInvoice::WrongNetwork(Network::Bitcoin)),
        ("lnbcrt20m", InvalidInvoice::WrongNetwork(Network::Bitcoin)),
    ];
    for (prefix, reason) in cases {
        assert_eq!(parse(&Words::complete(prefix).signed()), Err(reason), "{prefix}");
    }
    let amounts = [("lnbc1", 100_000_000_000), ("lnbc1m", 100_000_000), ("lnbc1n", 100), ("lnbc10p", 1)];
    for (prefix, msat) in amounts {
        let amount = parse(&Words::complete(prefix).signed()).unwrap().terms.amount;
        assert_eq!(amount, Some(Msat::new(msat)), "{prefix}");
    }
}

#[test]
fn bad_input_77_fields() {
    let new = || Words::new("lnbc20m");
    let complete = || Words::complete("lnbc20m");
    let feature = |bit: usize| {
        let mut words = vec![0; bit / 5 + 1];
        words[0] = 1 << (bit % 5);
        words
    };
    let cases = [
        (new().hash('s', 52).field('d', &[]), InvalidInvoice::NoPaymentHash),
        (new().hash('p', 51).hash('s', 52).field('d', &[]), InvalidInvoice::WrongLength('p')),
        (new().hash('p', 53).hash('s', 52).field('d', &[]), InvalidInvoice::WrongLength('p')),
        (new().hash('p', 52).field('d', &[]), InvalidInvoice::NoPaymentSecret),
        (new().hash('p', 52).hash('s', 51).field('d', &[]), InvalidInvoice::WrongLength('s')),
        (new().hash('p', 52).hash('s', 52), InvalidInvoice::NoDescription),
        (new().hash('p', 52).hash('s', 52).hash('h', 53), InvalidInvoice::WrongLength('h')),
        (complete().hash('h', 52), InvalidInvoice::TwoDescriptions),
        (complete().hash('p', 52), InvalidInvoice::Duplicate('p')),
        (complete().hash('s', 52), InvalidInvoice::Duplicate('s')),
        (complete().field('d', &[]), InvalidInvoice::Duplicate('d')),
        (complete().field('x', &[1]).field('x', &[1]), InvalidInvoice::Duplicate('x')),
        (new().hash('p', 52).hash('s', 52).field('d', &five_bits(&[0xff])), InvalidInvoice::DescriptionNotUtf8),
        (complete().field('9', &feature(100)), InvalidInvoice::Features(FeatureError::UnknownRequired(100))),
        (complete().field('9', &feature(4)), InvalidInvoice::Features(FeatureError::UnknownRequired(4))),
        (complete().field('9', &[0, 1]), InvalidInvoice::NotCanonical),
        (complete().field('x', &[0, 1]), InvalidInvoice::NotCanonical),
        (complete().field('c', &[0, 18]), InvalidInvoice::NotCanonical),
        (new().hash('p', 52).hash('s', 52).field('d', &[1]), InvalidInvoice::NotCanonical),
        (complete().field('x', &[31; 13]), InvalidInvoice::NumberTooLarge),
        (complete().field('c', &[31; 13]), InvalidInvoice::NumberTooLarge),
        (complete().field('c', &[4, 0, 0, 0, 0, 0, 0]), InvalidInvoice::NumberTooLarge),
        (complete().field('n', &five_bits(&[5; 33])), InvalidInvoice::InvalidPublicKey),
        (complete().field('r', &five_bits(&[0; 51])), InvalidInvoice::InvalidPublicKey),
        (complete().field('r', &five_bits(&[2; 50])), InvalidInvoice::TruncatedField),
        (complete().field('f', &[17, 1, 1]), InvalidInvoice::InvalidFallback),
        (complete().field('f', &[]), InvalidInvoice::TruncatedField),
    ];
    for (words, reason) in cases {
        let text = words.signed();
        assert_eq!(parse(&text), Err(reason), "{text}");
    }
    // A field that claims more than there is, and a half field header.
    for tail in [&[value_of('d'), 31, 31][..], &[value_of('d'), 0]] {
        let mut cut = complete();
        cut.words.extend(tail);
        assert_eq!(parse(&cut.signed()), Err(InvalidInvoice::TruncatedField));
    }
    let tolerated = complete().field('9', &feature(99)).field('z', &[7, 7]).hash('p', 51).field('f', &[19, 1]).signed();
    assert!(parse(&tolerated).is_ok(), "odd bits, unknown fields, spare fields of a wrong length, unknown fallbacks");
}

#[test]
fn prs_4_bad_input_77_signatures() {
    let secp = Secp256k1::new();
    let named = || {
        let node = PAYEE.parse::<NodeId>().unwrap();
        Words::complete("lnbc20m").field('n', &five_bits(&node.serialize()))
    };
    let signature = |words: &Words| secp.sign_ecdsa_recoverable(&words.message(), &key());
    assert_eq!(parse(&named().signed()).unwrap().payee, PAYEE.parse().unwrap());

    let (id, low) = signature(&named()).serialize_compact();
    let mut high = low;
    high[32..].copy_from_slice(&SecretKey::from_slice(&low[32..]).unwrap().negate().secret_bytes());
    assert_eq!(parse(&named().with_signature(high, id.to_i32() as u8 ^ 1)), Err(InvalidInvoice::HighS));
    let other = SecretKey::from_slice(&[1; 32]).unwrap();
    let (id, compact) = secp.sign_ecdsa_recoverable(&named().message(), &other).serialize_compact();
    assert_eq!(parse(&named().with_signature(compact, id.to_i32() as u8)), Err(InvalidInvoice::WrongSignature));

    let plain = || Words::complete("lnbc20m");
    let (_, compact) = signature(&plain()).serialize_compact();
    for recovery_id in [4, 5, 128, 255] {
        let outcome = parse(&plain().with_signature(compact, recovery_id));
        assert_eq!(outcome, Err(InvalidInvoice::UnrecoverableSignature), "{recovery_id}");
    }
    for bytes in [[0; 64], [0xff; 64]] {
        assert_eq!(parse(&plain().with_signature(bytes, 0)), Err(InvalidInvoice::UnrecoverableSignature));
    }
}

#[test]
fn bad_input_77_expiry_u64_max_and_the_last_timestamp() {
    let expiry = words_of(u64::MAX, 13);
    let terms = parse(&Words::complete("lnbc20m").field('x', &expiry).signed()).unwrap().terms;
    assert_eq!(terms.expiry_secs, u64::MAX);
    assert_eq!(terms.expires_at(), u64::MAX);
    assert!(!terms.is_expired(u64::MAX));

    let mut last = Words::complete("lnbc20m");
    last.words[..7].copy_from_slice(&[31; 7]);
    let terms = parse(&last.signed()).unwrap().terms;
    assert_eq!(terms.timestamp, (1 << 35) - 1);
    assert!(!terms.is_expired(terms.timestamp + 3600));
    assert!(terms.is_expired(terms.timestamp + 3601));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let hop = hint_hop(PAYEE, 1, 2, 3, 4);
    let cases = [
        (Terms { timestamp: 1 << 35, ..donation() }, UnwritableInvoice::Timestamp),
        (Terms { timestamp: u64::MAX, ..donation() }, UnwritableInvoice::Timestamp),
        (Terms { amount: Some(Msat::ZERO), ..donation() }, UnwritableInvoice::Amount),
        (Terms { amount: Some(Msat::new(u64::MAX / 10 + 1)), ..donation() }, UnwritableInvoice::Amount),
        (
            Terms { description: Description::Text("x".repeat(640)), ..donation() },
            UnwritableInvoice::DescriptionTooLong,
        ),
        (Terms { payment_metadata: Some(vec![0; 640]), ..donation() }, UnwritableInvoice::MetadataTooLong),
        (Terms { route_hints: vec![vec![]], ..donation() }, UnwritableInvoice::RouteHint),
        (Terms { route_hints: vec![vec![hop; 13]], ..donation() }, UnwritableInvoice::RouteHint),
        (Terms { route_hints: vec![vec![hop; 12]; 8], ..donation() }, UnwritableInvoice::TooLong),
    ];
    for (terms, reason) in cases {
        assert_eq!(terms.sign_with_key(&key()), Err(reason));
    }
}

#[test]
fn an_invoice_may_be_signed_elsewhere() {
    let sign = |message: &Message| Secp256k1::new().sign_ecdsa_recoverable(message, &key());
    let text = donation().sign(sign).unwrap();
    assert_eq!(text, donation().sign_with_key(&key()).unwrap(), "signatures are deterministic");
    let garbage = |_: &Message| RecoverableSignature::from_compact(&[0; 64], RecoveryId::from_i32(0).unwrap()).unwrap();
    let unsigned = donation().sign(garbage).unwrap();
    assert_eq!(parse(&unsigned), Err(InvalidInvoice::UnrecoverableSignature));
}

fn terms() -> impl Strategy<Value = Terms> {
    let hop = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u16>())
        .prop_map(|(scid, base, proportional, delta)| hint_hop(PAYEE, scid, base, proportional, delta));
    let description =
        prop_oneof![".{0,100}".prop_map(Description::Text), any::<[u8; 32]>().prop_map(Description::Hash),];
    let network = prop::sample::select(vec![Network::Bitcoin, Network::Testnet, Network::Signet, Network::Regtest]);
    (
        (network, 0_u64..1 << 35, any::<[u8; 32]>(), any::<[u8; 32]>(), prop::option::of(1_u64..=u64::MAX / 10)),
        (description, any::<u64>(), any::<u32>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..80))),
        (prop::collection::vec(prop::collection::vec(hop, 1..4), 0..3), any::<bool>()),
    )
        .prop_map(
            |((network, timestamp, hash, secret, amount), (description, expiry_secs, delta, metadata), rest)| {
                let (route_hints, basic_mpp) = rest;
                Terms {
                    network,
                    timestamp,
                    payment_hash: PaymentHash(hash),
                    payment_secret: PaymentSecret(secret),
                    amount: amount.map(Msat::new),
                    description,
                    expiry_secs,
                    min_final_cltv_expiry_delta: delta,
                    payment_metadata: metadata,
                    route_hints,
                    basic_mpp,
                }
            },
        )
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig {
        cases: 96,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
    }
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn what_is_written_is_read_back(terms in terms()) {
        let text = terms.sign_with_key(&key()).unwrap();
        let invoice = Invoice::parse(&text, terms.network).unwrap();
        prop_assert_eq!(invoice.payee, PAYEE.parse().unwrap());
        prop_assert_eq!(&invoice.terms, &terms);
        let uppercase = Invoice::parse(&text.to_uppercase(), terms.network);
        prop_assert_eq!(uppercase, Ok(invoice));
    }

    #[test]
    fn random_texts_do_not_panic(text in ".{0,200}", data in "(ln(bc|tb|bcrt)[0-9]{0,3}[munp]?1)?[qpzry9x8gf2tvdw0s3jn54khce6mua7l]{0,300}") {
        prop_assert!(parse(&text).is_err());
        prop_assert!(parse(&data).is_err());
    }

    /// Past the checksum: random words under a good signature.
    #[test]
    fn random_fields_do_not_panic(words in prop::collection::vec(0_u8..32, 0..400), tag in 0_usize..32, data in prop::collection::vec(0_u8..32, 0..120)) {
        let mut random = Words::new("lnbc20m");
        random.words.extend(words);
        prop_assert!(parse(&random.signed()).is_err());
        let tag = CHARSET.chars().nth(tag).unwrap();
        let text = Words::complete("lnbc20m").field(tag, &data).signed();
        if let Ok(invoice) = parse(&text) {
            let payee = invoice.payee;
            prop_assert!(tag == 'n' || payee == PAYEE.parse().unwrap());
        }
    }

    #[test]
    fn mutated_invoices_are_refused(place in 0_usize..300, replacement in any::<char>(), cut in 0_usize..300) {
        let good = donation().sign_with_key(&key()).unwrap();
        let mut characters: Vec<char> = good.chars().collect();
        let place = place % characters.len();
        let changed = characters[place] != replacement;
        characters[place] = replacement;
        let mutated: String = characters.into_iter().collect();
        prop_assert!(!changed || parse(&mutated).is_err());
        prop_assert!(parse(&good[..cut.min(good.len() - 1)]).is_err());
    }
}
