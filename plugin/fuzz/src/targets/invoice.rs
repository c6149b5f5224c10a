//! BOLT 11 invoices, as text and as terms.

use bitcoin::Network;
use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentSecret, ShortChannelId};
use outrigger_bolt::invoice::{Description, HintHop, Invoice, Terms};

use super::Target;
use crate::allocation::bounded;
use crate::draw::Draw;

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target::new("invoice_text", text, || {
            let amounts = [None, Some(Msat::new(1)), Some(Msat::new(2_500_000))];
            let of = |amount| Terms { amount, ..plain() }.sign_with_key(&key()).expect("short terms").into_bytes();
            amounts.into_iter().map(of).collect()
        }),
        Target::new("invoice_data_part", data_part, || vec![vec![0; 200], vec![1, 5, 2]]),
        Target::new("invoice_terms", written, || vec![vec![], vec![1; 40], vec![0xff; 120]]),
    ]
}

fn key() -> SecretKey {
    SecretKey::from_slice(&[7; 32]).expect("a key")
}

/// Bad input 77: any text is an invoice or has an exact reason why it is none.
fn text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match bounded(text.len(), || Invoice::parse(&text, Network::Regtest)) {
        Ok(invoice) => again(&invoice),
        Err(reason) => assert!(!reason.to_string().is_empty()),
    }
}

/// Any data part with a checksum that is right: the fields behind it are reached at every input.
fn data_part(data: &[u8]) {
    use bitcoin::bech32::primitives::iter::Fe32IterExt;
    use bitcoin::bech32::{Bech32, Fe32, Hrp};
    let mut draw = Draw::new(data);
    let prefix = ["lnbcrt", "lnbcrt1m", "lnbcrt10p", "lnbc", "lntbs2500u", "lnbcrt18446744073709551615"][draw.below(6)];
    let hrp = Hrp::parse(prefix).expect("a prefix");
    let symbols = draw.rest().iter().map(|byte| Fe32::try_from(byte & 31).expect("five bits"));
    let text: String = symbols.with_checksum::<Bech32>(&hrp).chars().collect();
    if let Ok(invoice) = bounded(text.len(), || Invoice::parse(&text, Network::Regtest)) {
        again(&invoice);
    }
}

/// What was read asks for the same when we write and read it.
fn again(invoice: &Invoice) {
    if let Ok(text) = invoice.terms.sign_with_key(&key()) {
        let read = Invoice::parse(&text, Network::Regtest).expect("what we write can be read");
        assert_eq!(read.terms, invoice.terms);
    }
}

fn written(data: &[u8]) {
    let terms = terms(&mut Draw::new(data));
    if let Ok(text) = terms.sign_with_key(&key()) {
        let read = Invoice::parse(&text, Network::Regtest).expect("what we write can be read");
        assert_eq!(read.terms, terms);
    }
}

fn plain() -> Terms {
    Terms {
        network: Network::Regtest,
        timestamp: 1_700_000_000,
        payment_hash: PaymentHash([1; 32]),
        payment_secret: PaymentSecret([2; 32]),
        amount: None,
        description: Description::Text("oars".to_owned()),
        expiry_secs: 3600,
        min_final_cltv_expiry_delta: 40,
        payment_metadata: Some(vec![1, 2, 3]),
        route_hints: vec![vec![hop(&mut Draw::new(&[1; 20]))]],
        basic_mpp: true,
    }
}

fn terms(draw: &mut Draw<'_>) -> Terms {
    let choices = draw.byte();
    let amount = (choices & 1 != 0).then(|| Msat::new(draw.number(2_100_000_000_000_000_000)));
    Terms {
        network: Network::Regtest,
        timestamp: draw.number(1 << 35),
        payment_hash: PaymentHash(draw.array()),
        payment_secret: PaymentSecret(draw.array()),
        amount,
        description: if choices & 2 != 0 {
            Description::Hash(draw.array())
        } else {
            let len = usize::from(draw.u16() % 700);
            Description::Text(String::from_utf8_lossy(draw.bytes(len)).into_owned())
        },
        expiry_secs: draw.number(1 << 40),
        min_final_cltv_expiry_delta: draw.u32(),
        payment_metadata: (choices & 4 != 0).then(|| draw.bytes(650).to_vec()),
        route_hints: (0..choices >> 5).map(|_| (0..draw.below(14)).map(|_| hop(draw)).collect()).collect(),
        basic_mpp: choices & 8 != 0,
    }
}

fn hop(draw: &mut Draw<'_>) -> HintHop {
    HintHop {
        node: NodeId::new(key().public_key(&bitcoin::secp256k1::Secp256k1::new())),
        short_channel_id: ShortChannelId::from_u64(draw.u64()),
        fee_base_msat: draw.u32(),
        fee_proportional_millionths: draw.u32(),
        cltv_expiry_delta: draw.u16(),
    }
}
