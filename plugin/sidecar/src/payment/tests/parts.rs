//! Payments to the node that come in parts, and such that nobody asked for: by what the dispatcher tells, and the decisions
//! that stand in the file.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use outrigger_bolt::id::{PaymentPreimage, PaymentSecret};
use outrigger_bolt::onion::{Failure, Unwrapped, failure};
use outrigger_channel::FailReason;

use super::super::sets::SET_TIMEOUT;
use super::*;
use crate::clock::{Source, StandIn};

/// A clock that stands still until it is moved.
#[derive(Default)]
pub(super) struct Still(Cell<Duration>);

impl Still {
    pub(super) fn pass(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }
}

impl Source for Still {
    fn unix(&self) -> u64 {
        Clock::wall_unix()
    }

    fn elapsed(&self) -> Duration {
        self.0.get()
    }

    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).unwrap();
    }
}

/// A node with an invoice, on a clock of its own.
struct Payee {
    bench: Bench,
    payments: Payments,
    invoice: InvoiceRow,
    clock: Rc<Still>,
    _stand_in: StandIn,
    /// Onions that were built, by HTLC.
    built: HashMap<u64, Built>,
}

/// A part as its payer makes it.
#[derive(Clone)]
struct Sent {
    amount: Msat,
    payload: FinalPayload,
    cltv_expiry: u32,
    payment_hash: PaymentHash,
}

impl Payee {
    async fn new() -> Self {
        Self::with(terms_of_node()).await
    }

    async fn with(terms: Terms) -> Self {
        let bench = Bench::new();
        let clock = Rc::new(Still::default());
        let stand_in = Clock::replace_on_this_thread(clock.clone());
        let payments = payments_on(&bench, terms);
        let invoice = invoice(&payments).await;
        Self { bench, payments, invoice, clock, _stand_in: stand_in, built: HashMap::new() }
    }

    /// A part of the invoice that brings so much.
    fn part(&self, amount: u64) -> Sent {
        let payload = FinalPayload { amt_to_forward: Msat::new(amount), ..terms(&self.bench, &self.invoice) };
        let (cltv_expiry, payment_hash) = (expiry(&self.bench), self.invoice.payment_hash);
        Sent { amount: Msat::new(amount), payload, cltv_expiry, payment_hash }
    }

    /// A payment whose preimage the payer chose.
    fn keysend(&self, number: u8, amount: u64) -> Sent {
        let preimage = PaymentPreimage([number; 32]);
        let sent = self.part(amount);
        let payload = FinalPayload { payment_data: None, keysend_preimage: Some(preimage), ..sent.payload };
        Sent { payload, payment_hash: preimage.payment_hash(), ..sent }
    }

    fn tell(&mut self, htlc_id: u64, sent: &Sent) {
        // Of a channel that has rows: what is held may be asked for there.
        let payload = Payload::Final(sent.payload.clone()).encode().unwrap();
        let built = onion_of(&self.bench, 8 + u8::try_from(htlc_id).unwrap(), payload, &sent.payment_hash);
        let htlc = IncomingHtlc {
            channel: ChannelId([2; 32]),
            htlc_id,
            amount: sent.amount,
            payment_hash: sent.payment_hash,
            cltv_expiry: sent.cltv_expiry,
            onion: Box::new(built.packet.to_bytes()),
            over_exposed: false,
        };
        self.built.insert(htlc_id, built);
        tell(&self.bench, &self.payments, &htlc);
    }

    /// Time passes.
    fn wait(&self, time: Duration) {
        self.clock.pass(time);
        self.payments.expire_sets();
    }

    /// What became of the HTLC: none while it is held.
    async fn end(&self, htlc_id: u64) -> Option<Result<PaymentPreimage, Failure>> {
        all_durable(&self.bench).await;
        Some(match self.bench.reader.settlement(&ChannelId([2; 32]), htlc_id).unwrap()? {
            SettlementRow::Fulfil(preimage) => Ok(preimage),
            SettlementRow::Fail(FailReason::Encrypted(reason)) => {
                match failure::unwrap(&self.built[&htlc_id].shared_secrets, &reason) {
                    Unwrapped::Attributed { hop: 0, failure } => Err(failure),
                    other => panic!("{other:?}"),
                }
            }
            other => panic!("{other:?}"),
        })
    }

    fn unknown(&self, amount: u64) -> Option<Result<PaymentPreimage, Failure>> {
        let (htlc_msat, height) = (Msat::new(amount), self.bench.manager.env().chain.height());
        Some(Err(Failure::IncorrectOrUnknownPaymentDetails { htlc_msat, height }))
    }

    fn paid(&self, hash: &PaymentHash) -> Option<Msat> {
        self.payments.invoice(hash).unwrap().and_then(|row| row.paid).map(|paid| paid.amount)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_3_a_part_alone_is_held_and_fails_after_a_minute() {
    let mut payee = Payee::new().await;
    payee.tell(0, &payee.part(400_000));
    payee.tell(1, &payee.part(599_999));
    assert_eq!((payee.end(0).await, payee.end(1).await), (None, None));
    payee.wait(SET_TIMEOUT - Duration::from_secs(1));
    assert_eq!(payee.end(0).await, None, "a second is left");
    payee.wait(Duration::from_secs(1));
    for id in [0, 1] {
        assert_eq!(payee.end(id).await, Some(Err(Failure::MppTimeout)));
    }
    assert_eq!(payee.paid(&payee.invoice.payment_hash), None);
    // The invoice can still be paid.
    payee.tell(2, &payee.part(AMOUNT.get()));
    assert_eq!(payee.end(2).await, Some(Ok(payee.invoice.preimage)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_3_totals_that_differ_fail_the_whole_set() {
    let mut payee = Payee::new().await;
    payee.tell(0, &payee.part(400_000));
    let mut other = payee.part(600_000);
    if let Some(data) = &mut other.payload.payment_data {
        data.total_msat = Msat::new(AMOUNT.get() + 1);
    }
    payee.tell(1, &other);
    assert_eq!(payee.end(0).await, payee.unknown(400_000));
    assert_eq!(payee.end(1).await, payee.unknown(600_000));
}

/// What is wrong with a part, and with it alone.
#[tokio::test(flavor = "multi_thread")]
async fn pay_5_pay_1_a_part_that_does_not_fit_learns_nothing_and_spoils_nothing() {
    type Bend = fn(&mut Sent);
    let bends: [Bend; 9] = [
        |sent| sent.payload.payment_data.as_mut().unwrap().payment_secret = PaymentSecret([1; 32]),
        |sent| sent.payload.payment_data = None,
        |sent| sent.payment_hash = PaymentHash([1; 32]),
        // A millisatoshi less than asked for, more than twice that, and nothing at all.
        |sent| sent.payload.payment_data.as_mut().unwrap().total_msat = Msat::new(AMOUNT.get() - 1),
        |sent| sent.payload.payment_data.as_mut().unwrap().total_msat = Msat::new(AMOUNT.get() * 2 + 1),
        |sent| sent.payload.payment_data.as_mut().unwrap().total_msat = Msat::ZERO,
        |sent| sent.amount = Msat::new(AMOUNT.get() * 2 + 1),
        |sent| (sent.cltv_expiry, sent.payload.outgoing_cltv_value) = (539, 539),
        |sent| sent.payload.outgoing_cltv_value = 499,
    ];
    let mut payee = Payee::new().await;
    payee.tell(0, &payee.part(400_000));
    for (id, bend) in (1..).zip(bends) {
        let mut sent = payee.part(600_000);
        bend(&mut sent);
        payee.tell(id, &sent);
        assert_eq!(payee.end(id).await, payee.unknown(sent.amount.get()), "{id}");
    }
    assert_eq!(payee.end(0).await, None, "still held");
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_7_no_part_is_taken_once_the_invoice_has_expired() {
    let mut payee = Payee::new().await;
    payee.tell(0, &payee.part(400_000));
    let expired = InvoiceRow { expires_at: 1, ..payee.invoice.clone() };
    let mut batch = Batch::default();
    batch.put(Table::Invoice, expired.payment_hash.0.to_vec(), Some(expired.encode()));
    payee.bench.manager.env().writer.submit(batch);
    all_durable(&payee.bench).await;
    payee.tell(1, &payee.part(600_000));
    assert_eq!(payee.end(1).await, payee.unknown(600_000));
    payee.wait(SET_TIMEOUT);
    assert_eq!(payee.end(0).await, Some(Err(Failure::MppTimeout)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_which_a_part_is_gone_is_not_claimed() {
    let mut payee = Payee::new().await;
    // No channel holds the first part any more when the second one comes.
    payee.tell(0, &payee.part(400_000));
    payee.tell(1, &payee.part(600_000));
    for id in [0, 1] {
        assert_eq!(payee.end(id).await, Some(Err(Failure::TemporaryNodeFailure)));
    }
    assert_eq!(payee.paid(&payee.invoice.payment_hash), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_nobody_asked_for_is_taken_where_the_operator_wants_it() {
    let mut payee = Payee::new().await;
    let sent = payee.keysend(5, 7);
    payee.tell(0, &sent);
    assert_eq!(payee.end(0).await, Some(Ok(PaymentPreimage([5; 32]))));
    assert_eq!(payee.paid(&sent.payment_hash), Some(Msat::new(7)));
    let row = payee.payments.invoice(&sent.payment_hash).unwrap().unwrap();
    assert_eq!((row.invoice, row.amount), (None, None));
    // The same once more: whoever has seen the preimage could send it.
    payee.tell(1, &sent);
    assert_eq!(payee.end(1).await, payee.unknown(7));
    // A preimage of another hash; none; too few blocks for a claim.
    let mut wrong = payee.keysend(6, 7);
    wrong.payload.keysend_preimage = Some(PaymentPreimage([7; 32]));
    payee.tell(2, &wrong);
    let mut none = payee.keysend(6, 7);
    none.payload.keysend_preimage = None;
    payee.tell(3, &none);
    let mut soon = payee.keysend(6, 7);
    (soon.cltv_expiry, soon.payload.outgoing_cltv_value) = (517, 517);
    payee.tell(4, &soon);
    for id in 2..=4 {
        assert_eq!(payee.end(id).await, payee.unknown(7), "{id}");
    }
    (soon.cltv_expiry, soon.payload.outgoing_cltv_value) = (518, 518);
    payee.tell(5, &soon);
    assert_eq!(payee.end(5).await, Some(Ok(PaymentPreimage([6; 32]))));
    let kinds = ["keysend_received".to_owned()];
    assert_eq!(payee.bench.reader.events(0, &kinds, 10).unwrap().0.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_5_a_payment_that_nobody_asked_for_is_unknown_where_the_operator_does_not_want_it() {
    let mut payee = Payee::with(Terms { accept_keysend: false, ..terms_of_node() }).await;
    payee.tell(0, &payee.keysend(5, 7));
    assert_eq!(payee.end(0).await, payee.unknown(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_3_a_keysend_in_parts_needs_a_secret_and_is_held_like_any_other() {
    let mut payee = Payee::new().await;
    let with = |payee: &Payee, amount, total| {
        let mut sent = payee.keysend(5, amount);
        let (payment_secret, total_msat) = (PaymentSecret([1; 32]), Msat::new(total));
        sent.payload.payment_data = Some(PaymentData { payment_secret, total_msat });
        sent
    };
    payee.tell(0, &with(&payee, 40, 100));
    assert_eq!(payee.end(0).await, None);
    // Without a secret it would be a payment of its own.
    payee.tell(1, &payee.keysend(5, 60));
    assert_eq!((payee.end(0).await, payee.end(1).await), (payee.unknown(40), payee.unknown(60)));
    payee.tell(2, &with(&payee, 100, 100));
    assert_eq!(payee.end(2).await, Some(Ok(PaymentPreimage([5; 32]))));
}
