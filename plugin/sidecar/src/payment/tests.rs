use std::collections::BTreeMap;

use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::onion::{self, Built, FinalPayload, Hop, Payload, PaymentData};
use outrigger_channel::{Effect, HtlcOutcome, HtlcSource, IncomingHtlc};
use tokio::sync::oneshot;

use super::*;
use crate::manager::tests::{Bench, within};
use crate::store::part::{PartHop, PartRow};
use crate::store::row::{InvoiceRow, PaymentState, SettlementRow};
use crate::store::schema::UnderWay;
use crate::store::{Address, Held};

mod claims;
mod onions;
mod outcomes;
mod parts;
mod sending;

const AMOUNT: Msat = Msat::new(1_000_000);

fn terms_of_node() -> Terms {
    Terms { network: Network::Regtest, final_cltv_blocks: 40, accept_keysend: true }
}

fn payments(bench: &Bench) -> Payments {
    payments_on(bench, terms_of_node())
}

fn payments_on(bench: &Bench, terms: Terms) -> Payments {
    let (manager, reader, events) = (bench.manager.clone(), bench.reader.clone(), bench.events.clone());
    Payments::new(manager, reader, terms, events, Unfinished::default(), |_, _| false)
}

async fn invoice(payments: &Payments) -> InvoiceRow {
    let order = InvoiceOrder {
        amount: Some(AMOUNT),
        description: "oars".to_owned(),
        expiry_secs: 3600,
        label: None,
        idempotency: None,
    };
    payments.create_invoice(order).await.unwrap()
}

/// The height at which HTLCs of these tests expire.
fn expiry(bench: &Bench) -> u32 {
    bench.manager.env().chain.height() + 144
}

/// What the payer of the invoice tells the payee.
fn terms(bench: &Bench, invoice: &InvoiceRow) -> FinalPayload {
    FinalPayload {
        amt_to_forward: AMOUNT,
        outgoing_cltv_value: expiry(bench),
        payment_data: Some(PaymentData { payment_secret: invoice.payment_secret, total_msat: AMOUNT }),
        payment_metadata: None,
        keysend_preimage: None,
    }
}

/// An onion to the node, of a session of its own.
fn onion_of(bench: &Bench, session: u8, payload: Vec<u8>, hash: &PaymentHash) -> Built {
    let node = bench.manager.env().keys.node_id();
    let hops = [Hop { node: *node.public_key(), payload }];
    onion::build(&SecretKey::from_slice(&[session; 32]).unwrap(), &hops, &hash.0).unwrap()
}

/// An HTLC that pays the invoice, each with an onion of its own.
fn htlc(bench: &Bench, invoice: &InvoiceRow, htlc_id: u64) -> IncomingHtlc {
    let payload = Payload::Final(terms(bench, invoice)).encode().unwrap();
    let session = 8 + u8::try_from(htlc_id).unwrap();
    let onion = onion_of(bench, session, payload, &invoice.payment_hash).packet.to_bytes();
    IncomingHtlc {
        channel: ChannelId([2; 32]),
        htlc_id,
        amount: AMOUNT,
        payment_hash: invoice.payment_hash,
        cltv_expiry: expiry(bench),
        onion: Box::new(onion),
        over_exposed: false,
    }
}

/// Tells the node of an HTLC that is irrevocably committed, and payments of what comes of it.
fn tell(bench: &Bench, payments: &Payments, htlc: &IncomingHtlc) {
    bench.dispatch(peer(bench), htlc);
    bench.notices.try_iter().for_each(|notice| payments.take(notice));
}

/// Waits until all that was queued is durable.
async fn all_durable(bench: &Bench) {
    let (waiter, durable) = oneshot::channel();
    let mut batch = Batch::default();
    batch.hold(Held::Durable(waiter));
    bench.manager.env().writer.submit(batch);
    within("the writer has written what was queued", durable).await.unwrap();
}

fn peer(bench: &Bench) -> NodeId {
    bench.manager.env().keys.node_id()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_htlc_that_is_told_of_twice_is_decided_once() {
    let bench = Bench::new();
    let payments = payments(&bench);
    let invoice = invoice(&payments).await;
    let htlc = htlc(&bench, &invoice, 0);
    tell(&bench, &payments, &htlc);
    tell(&bench, &payments, &htlc);
    all_durable(&bench).await;
    tell(&bench, &payments, &htlc);
    all_durable(&bench).await;
    let settlement = bench.reader.settlement(&htlc.channel, 0).unwrap();
    assert_eq!(settlement, Some(SettlementRow::Fulfil(invoice.preimage)));
    assert!(payments.invoice(&invoice.payment_hash).unwrap().unwrap().paid.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_7_an_invoice_is_claimed_by_one_htlc_alone() {
    let bench = Bench::new();
    let payments = payments(&bench);
    let invoice = invoice(&payments).await;
    // Judged while the first claim may still be on its way to the file, and again when it is there.
    for id in 0..8 {
        tell(&bench, &payments, &htlc(&bench, &invoice, id));
    }
    all_durable(&bench).await;
    tell(&bench, &payments, &htlc(&bench, &invoice, 8));
    all_durable(&bench).await;
    let claimed = |id: &u64| {
        let settlement = bench.reader.settlement(&ChannelId([2; 32]), *id).unwrap().unwrap();
        matches!(settlement, SettlementRow::Fulfil(_))
    };
    assert_eq!((0..9).filter(claimed).collect::<Vec<_>>(), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_2_a_start_finds_what_is_pending_and_nothing_that_has_ended() {
    let bench = Bench::new();
    let payments = payments(&bench);
    let row = |number: u8| PaymentRow {
        payment_id: [number; 32],
        payment_hash: PaymentHash([number; 32]),
        destination: peer(&bench),
        amount: AMOUNT,
        created_at: 1,
        next_part: 0,
        again: None,
        charge: None,
        lost: Msat::ZERO,
        state: PaymentState::Pending,
    };
    let mut batch = Batch::default();
    for row in [row(1), row(2)] {
        batch.put(Table::Payment, row.payment_id.to_vec(), Some(row.encode()));
        batch.begin(&UnderWay::Payment(row.payment_id));
    }
    bench.manager.env().writer.submit(batch);
    payments.over(Pending::of(row(1), BTreeMap::new()), Batch::default());
    all_durable(&bench).await;
    assert_eq!(bench.load().pending_payments, [row(2)]);
}

/// What a start finds of a payment whose channel has ended on the chain without an output for it.
#[tokio::test(flavor = "multi_thread")]
async fn pay_2_fwd_8_a_payment_without_an_output_ends_and_may_be_made_again() {
    let bench = Bench::new();
    let row = PaymentRow {
        payment_id: [1; 32],
        payment_hash: PaymentHash([1; 32]),
        destination: peer(&bench),
        amount: AMOUNT,
        created_at: 1,
        next_part: 0,
        again: None,
        charge: None,
        lost: Msat::ZERO,
        state: PaymentState::Pending,
    };
    let mut batch = Batch::default();
    batch.put(Table::Payment, row.payment_id.to_vec(), Some(row.encode()));
    batch.begin(&UnderWay::Payment(row.payment_id));
    let route = vec![PartHop { node: peer(&bench), channel: None }];
    let part = PartRow { sends: AMOUNT, amount: AMOUNT, channel: ChannelId([2; 32]), route };
    batch.put(Table::Part, PartRow::key(&row.payment_id, 0), Some(part.encode()));
    let (channel, source) = (ChannelId([2; 32]), HtlcSource::Payment { payment_id: row.payment_id, part: 0 });
    let at = Address { peer: peer(&bench), connection: 0, channel };
    let (payment_hash, outcome) = (row.payment_hash, HtlcOutcome::NoOutput);
    batch.stage_answer(at, vec![Effect::Settle { htlc_id: 7, source, amount: AMOUNT, payment_hash, outcome }], 1);
    bench.manager.env().writer.submit(batch);
    all_durable(&bench).await;
    let found = bench.load();
    assert_eq!((found.outcomes.len(), found.parts.len()), (1, 1));
    let unfinished = Unfinished {
        pending: found.pending_payments,
        parts: found.parts,
        outcomes: found.outcomes,
        ..Unfinished::default()
    };
    let terms = terms_of_node();
    let (manager, reader, events) = (bench.manager.clone(), bench.reader.clone(), bench.events.clone());
    // Its HTLC has its row still, until the channel is history.
    let payments = Payments::new(manager, reader, terms, events, unfinished, |id, part| (*id, part) == ([1; 32], 0));
    all_durable(&bench).await;
    let ended = payments.get(&row.payment_id).unwrap().unwrap();
    let PaymentState::Failed { kind, message, .. } = ended.state else { panic!("{:?}", ended.state) };
    // What was trimmed is lost to the miners, and may have reached the payee all the same: neither is said to be safe.
    for words in ["went to the miners", "ask the payee before you pay again"] {
        assert!(message.contains(words), "{kind}: {message}");
    }
    assert!(kind == "ended_on_chain" && !message.contains("safe"), "{kind}: {message}");
    let found = bench.load();
    assert!(found.outcomes.is_empty() && found.pending_payments.is_empty() && found.parts.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn clk_3_an_invoice_that_expires_after_2038_after_2106_or_never_is_payable() {
    for expiry_secs in [1 << 31, 1 << 32, u64::MAX] {
        let bench = Bench::new();
        let payments = payments(&bench);
        let (description, label, idempotency) = ("oars".to_owned(), None, None);
        let order = InvoiceOrder { amount: Some(AMOUNT), description, expiry_secs, label, idempotency };
        let invoice = payments.create_invoice(order).await.unwrap();
        assert_eq!(invoice.expires_at, invoice.created_at.saturating_add(expiry_secs));
        let htlc = htlc(&bench, &invoice, 0);
        tell(&bench, &payments, &htlc);
        all_durable(&bench).await;
        let settlement = bench.reader.settlement(&htlc.channel, 0).unwrap();
        assert_eq!(settlement, Some(SettlementRow::Fulfil(invoice.preimage)), "{expiry_secs}");
    }
}
