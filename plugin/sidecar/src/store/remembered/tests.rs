use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, PaymentSecret};

use std::sync::Arc;

use super::*;
use crate::store::row::{EventRow, Paid};
use crate::store::{Commits, EventLimits, Writer, open};

const DAY_SECS: u64 = 24 * 3600;

/// A store whose commits are made by hand. The clock is what the ids say.
struct Bench {
    _dir: tempfile::TempDir,
    db: Arc<Database>,
    reader: Reader,
    writer: Writer,
    commits: Commits,
}

impl Bench {
    fn new(latest: fn() -> u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        let db = open(dir.path(), "regtest", &NodeId::new(secret.public_key(&Secp256k1::new()))).unwrap();
        let (writer, commits) = Writer::new(db.clone()).unwrap();
        let commits = commits.keeping_events(EventLimits::default(), latest);
        Self { _dir: dir, reader: Reader::new(db.clone()), db, writer, commits }
    }

    fn commit(&mut self, batch: Batch) {
        self.writer.submit(batch);
        drop(self.commits.next(10).unwrap().unwrap());
    }

    /// A commit that brings so many keys at this time.
    fn bring(&mut self, day: u64, count: u64) {
        let mut batch = Batch::default();
        (0..count).for_each(|number| batch.remember(&given((day, number), address())));
        self.commit(batch);
    }

    /// How many keys are remembered. Each has its id, and each id its key.
    fn known(&self) -> u64 {
        let known = self.reader.count(Table::Operation).unwrap();
        assert_eq!(self.reader.count(Table::OperationId).unwrap(), known);
        known
    }

    fn knows(&self, operation: &OperationRow) -> bool {
        let found = self.reader.operation_of(&operation.op_id).unwrap();
        assert_eq!(found, self.reader.operation(&operation.idempotency_key).unwrap());
        found.is_some()
    }
}

fn address() -> OperationState {
    OperationState::Address { address: "bcrt1q".to_owned() }
}

/// What a call of this day was given; the number tells it from others of that day.
fn given((day, number): (u64, u64), state: OperationState) -> OperationRow {
    let mut op_id = [0; 16];
    op_id[..6].copy_from_slice(&(day * DAY_SECS * 1000).to_be_bytes()[2..]);
    op_id[8..].copy_from_slice(&number.to_be_bytes());
    OperationRow { idempotency_key: format!("{day} {number}"), op_id, body: [2; 32], state }
}

fn invoice(byte: u8, expires_day: u64, is_paid: bool) -> InvoiceRow {
    InvoiceRow {
        payment_hash: PaymentHash([byte; 32]),
        preimage: PaymentPreimage([byte; 32]),
        payment_secret: PaymentSecret([byte; 32]),
        amount: None,
        created_at: 1,
        expires_at: expires_day * DAY_SECS,
        min_final_cltv_expiry: 18,
        invoice: None,
        description: String::new(),
        label: None,
        paid: is_paid.then_some(Paid { amount: Msat::new(1), at: 2 }),
    }
}

#[test]
fn law_6_a_commit_that_brings_a_key_forgets_64_that_are_older_than_1000_days() {
    let mut bench = Bench::new(|| u64::MAX);
    bench.bring(1, 200);
    bench.bring(1001, 1);
    assert_eq!(bench.known(), 201, "a thousand days old, and not more");
    let mut nothing_new = Batch::default();
    nothing_new.event(EventRow::new(5000 * DAY_SECS, "invoice_paid", serde_json::json!({})));
    bench.commit(nothing_new);
    assert_eq!(bench.known(), 201, "it brings no key");
    for known in [138, 75, 12, 5, 6] {
        let next = given((1002, known), address());
        let mut batch = Batch::default();
        batch.remember(&next);
        bench.commit(batch);
        assert_eq!(bench.known(), known, "64 with each, while there are any");
        assert!(bench.knows(&next));
    }
    assert!(!bench.knows(&given((1, 0), address())) && bench.knows(&given((1001, 0), address())));
}

#[test]
fn law_6_what_is_forgotten_keeps_up_with_what_comes() {
    let mut bench = Bench::new(|| u64::MAX);
    bench.bring(1, 300);
    bench.bring(1002, 50);
    assert_eq!(bench.known(), 250, "twice as many as came");
}

#[test]
fn a_key_of_what_is_under_way_is_kept_and_those_behind_it_go() {
    let mut bench = Bench::new(|| u64::MAX);
    let txid = |number: u8| Txid::from_byte_array([number; 32]);
    let pending = |number| OperationState::Pending { channel_id: ChannelId([number; 32]), funding_txid: txid(number) };
    let (payment, sent) =
        (|id| OperationState::Payment { payment_id: [id; 32] }, |id| OperationState::Sent { txid: txid(id) });
    let invoiced = |number| OperationState::Invoice { payment_hash: PaymentHash([number; 32]) };
    let mut number = 0;
    let mut next = |day, state| {
        number += 1;
        given((day, number), state)
    };
    let needed = [next(1, pending(1)), next(1, payment(2)), next(1, sent(3)), next(1, invoiced(4))];
    let openings: Vec<_> = (0..60).map(|_| next(1, OperationState::Opening)).collect();
    let failed = OperationState::Failed { reason: "no".to_owned() };
    let over = [
        next(2, pending(5)),
        next(2, payment(6)),
        next(2, sent(7)),
        next(2, invoiced(8)),
        next(2, invoiced(9)),
        next(2, failed),
    ];
    let mut batch = Batch::default();
    needed.iter().chain(&openings).chain(&over).for_each(|row| batch.remember(row));
    openings.iter().chain(&needed[..1]).for_each(|row| batch.begin(&UnderWay::Opening(row.idempotency_key.clone())));
    batch.begin(&UnderWay::Payment([2; 32]));
    batch.begin(&UnderWay::Sent(txid(3)));
    // Its time is over a day after the keys have become old; the others are paid, or were never paid in time.
    for row in [invoice(4, 1004, false), invoice(8, 1004, true), invoice(9, 1003, false)] {
        batch.put(Table::Invoice, row.payment_hash.0.to_vec(), Some(row.encode()));
    }
    bench.commit(batch);

    bench.bring(1003, 1);
    assert_eq!(bench.known(), 71, "the 64 oldest are under way");
    bench.bring(1003, 2);
    assert!(over.iter().all(|row| !bench.knows(row)), "the next commit goes on behind them");
    assert!(needed.iter().chain(&openings).all(|row| bench.knows(row)));
    // They end.
    let mut batch = Batch::default();
    batch.end(&UnderWay::Opening(needed[0].idempotency_key.clone()));
    batch.end(&UnderWay::Payment([2; 32]));
    batch.end(&UnderWay::Sent(txid(3)));
    bench.commit(batch);
    bench.bring(1004, 1);
    assert_eq!(needed.map(|row| bench.knows(&row)), [false; 4]);
    assert!(openings.iter().all(|row| bench.knows(row)));
}

#[test]
fn law_6_one_wrong_clock_forgets_no_key() {
    let of = |latest: fn() -> u64| {
        let mut bench = Bench::new(latest);
        bench.bring(10, 1);
        // The clock jumps, and is put right again.
        bench.bring(5000, 1);
        let known = bench.known();
        bench.bring(12, 1);
        (known, bench.known())
    };
    assert_eq!(of(|| u64::MAX), (1, 2), "without the chain's word it would be believed");
    assert_eq!(of(|| 500 * DAY_SECS), (2, 3), "the chain says that no key is old");
    assert_eq!(of(|| 0), (2, 3), "no block was seen yet");
    assert_eq!(of(|| 1011 * DAY_SECS), (1, 2), "and here that one is");
}

#[test]
fn a_call_is_found_by_its_own_id_alone() {
    let mut bench = Bench::new(|| u64::MAX);
    let first = given((1, 1), address());
    let second = OperationRow { op_id: given((2, 2), address()).op_id, ..first.clone() };
    for row in [&first, &second] {
        let mut batch = Batch::default();
        batch.remember(row);
        bench.commit(batch);
    }
    // No caller can write a key twice; were it so, the first id would lead to nothing, and go without the key.
    assert_eq!(bench.reader.operation_of(&first.op_id).unwrap(), None);
    assert_eq!(bench.reader.operation_of(&second.op_id).unwrap(), Some(second.clone()));
    assert_eq!(bench.reader.operation_of(&[7; 16]).unwrap(), None);
    bench.bring(1002, 1);
    assert!(bench.knows(&second));
    assert_eq!(bench.known(), 2);
}

#[test]
fn a_file_of_before_there_were_ids_gets_them_with_its_next_call() {
    let mut bench = Bench::new(|| u64::MAX);
    let older = given((1, 1), address());
    let mut batch = Batch::default();
    batch.put(Table::Operation, older.key(), Some(older.encode()));
    bench.commit(batch);
    let transaction = bench.db.begin_write().unwrap();
    assert!(transaction.delete_table(Table::OperationId.definition()).unwrap());
    transaction.commit().unwrap();
    assert_eq!(bench.reader.operation_of(&older.op_id).unwrap(), None);
    bench.bring(5000, 1);
    assert!(bench.knows(&given((5000, 0), address())));
    assert!(bench.reader.operation("1 1").unwrap().is_some(), "without an id it is kept");
}
