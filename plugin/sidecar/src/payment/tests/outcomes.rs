//! Payments in parts whose HTLCs end in any way, in any order, told once or twice, with starts in between: by the rows that
//! each leaves. The channels are not there: what they would tell is told.

use outrigger_bolt::id::{PaymentPreimage, PaymentSecret};
use outrigger_bolt::invoice::HintHop;
use outrigger_channel::{FailReason, Refusal};

use super::super::order::Recipe;
use super::super::plan::Way;
use super::*;
use crate::manager::deliver::PaymentNotice;
use crate::store::part::PartHop;
use crate::store::row::{AgainRow, PaidFor};

/// Numbers that a seed repeats (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

const ID: [u8; 32] = [1; 32];
const FEE: Msat = Msat::new(10);
const CHANNEL: ChannelId = ChannelId([2; 32]);

fn preimage() -> PaymentPreimage {
    PaymentPreimage([5; 32])
}

fn row(bench: &Bench) -> PaymentRow {
    PaymentRow {
        payment_id: ID,
        payment_hash: preimage().payment_hash(),
        destination: peer(bench),
        amount: AMOUNT,
        created_at: 1,
        next_part: 0,
        again: None,
        charge: None,
        lost: Msat::ZERO,
        state: PaymentState::Pending,
    }
}

fn part(bench: &Bench) -> PartRow {
    let route = vec![PartHop { node: peer(bench), channel: None }];
    PartRow { sends: Msat::new(110), amount: Msat::new(100), channel: CHANNEL, route }
}

/// A payment with so many parts, as its first transaction leaves it.
fn begun(bench: &Bench, parts: u16) {
    let row = row(bench);
    let mut batch = Batch::default();
    batch.put(Table::Payment, ID.to_vec(), Some(row.encode()));
    batch.begin(&UnderWay::Payment(ID));
    for number in 0..parts {
        batch.put(Table::Part, PartRow::key(&ID, number), Some(part(bench).encode()));
    }
    bench.manager.env().writer.submit(batch);
}

/// What a start makes of the file. `carried` are the parts that stand in a channel.
async fn start(bench: &Bench, carried: &[u16]) -> Payments {
    all_durable(bench).await;
    let found = bench.load();
    let unfinished = Unfinished {
        pending: found.pending_payments,
        parts: found.parts,
        outcomes: found.outcomes,
        ..Unfinished::default()
    };
    let (manager, reader, events) = (bench.manager.clone(), bench.reader.clone(), bench.events.clone());
    Payments::new(manager, reader, terms_of_node(), events, unfinished, |_, part| carried.contains(&part))
}

/// What becomes of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fulfilled,
    Failed,
    NoOutput,
    NeverCommitted,
    Refused,
}

/// What its channel tells; where it was signed, with a row that stands until it is taken in.
fn told(bench: &Bench, number: u16, end: End, is_durable: bool) -> PaymentNotice {
    let outcome = match end {
        End::Fulfilled => HtlcOutcome::Fulfilled(preimage()),
        End::Failed => HtlcOutcome::Failed(FailReason::Encrypted(vec![1; 292])),
        End::NoOutput => HtlcOutcome::NoOutput,
        End::NeverCommitted => HtlcOutcome::NeverCommitted,
        End::Refused => {
            return PaymentNotice::Answered { payment_id: ID, part: number, answer: Err(Refusal::NotConnected) };
        }
    };
    if is_durable {
        let (source, payment_hash) = (HtlcSource::Payment { payment_id: ID, part: number }, preimage().payment_hash());
        let at = Address { peer: peer(bench), connection: 0, channel: CHANNEL };
        let mut batch = Batch::default();
        let (htlc_id, amount) = (number.into(), Msat::new(110));
        let effect = Effect::Settle { htlc_id, source, payment_hash, amount, outcome: outcome.clone() };
        batch.stage_answer(at, vec![effect], 1);
        bench.manager.env().writer.submit(batch);
    }
    PaymentNotice::Settled { payment_id: ID, part: number, channel: CHANNEL, htlc_id: number.into(), outcome }
}

async fn any_outcomes(seed: u64) {
    let mut dice = Dice((seed ^ 0x9e37_79b9_7f4a_7c15).max(1));
    let bench = Bench::new();
    let parts = 1 + dice.below(5) as u16;
    begun(&bench, parts);
    let mut open: Vec<u16> = (0..parts).collect();
    let mut payments = start(&bench, &open).await;
    let (mut fulfilled, mut failed, mut lost) = (0, 0, 0);
    while !open.is_empty() {
        let number = open.remove(dice.below(open.len() as u64) as usize);
        let end = [End::Fulfilled, End::Failed, End::Failed, End::NoOutput, End::NeverCommitted, End::Refused]
            [dice.below(6) as usize];
        let notice = told(&bench, number, end, true);
        let is_never_heard = dice.below(4) == 0;
        if is_never_heard {
            // A crash in between: the row alone tells, or that no channel holds the HTLC.
            payments = start(&bench, &open).await;
        } else {
            payments.take(notice);
        }
        if dice.below(3) == 0 {
            payments.take(told(&bench, number, end, dice.below(2) == 0 && end != End::NeverCommitted));
        }
        if dice.below(3) == 0 {
            payments = start(&bench, &open).await;
        }
        match end {
            End::Fulfilled => fulfilled += 1,
            End::Failed | End::NoOutput | End::NeverCommitted | End::Refused => failed += 1,
        }
        // What went to the miners of a payment that has succeeded does not come back.
        lost += u64::from(end == End::NoOutput && fulfilled > 0);
        all_durable(&bench).await;
        let what = format!("seed {seed}: {number} of {parts} {end:?}, {fulfilled} fulfilled and {failed} failed");
        let state = payments.get(&ID).unwrap().unwrap().state;
        match state {
            PaymentState::Pending => assert!(fulfilled == 0 && !open.is_empty(), "{what}"),
            PaymentState::Succeeded { fee, .. } => {
                assert!(fulfilled > 0, "{what}");
                let most = fulfilled + open.len() as u64 + lost;
                assert_eq!(fee.get(), most * FEE.get(), "{what}");
            }
            PaymentState::Failed { .. } => assert!(fulfilled == 0 && open.is_empty(), "{what}"),
        }
    }
    // Everything is taken in, and was told once.
    let _payments = start(&bench, &[]).await;
    all_durable(&bench).await;
    let found = bench.load();
    assert_eq!((found.pending_payments.len(), found.parts.len(), found.outcomes.len()), (0, 0, 0), "seed {seed}");
    let kinds = ["payment_succeeded".to_owned(), "payment_failed".to_owned()];
    assert_eq!(bench.reader.events(0, &kinds, 10).unwrap().0.len(), 1, "seed {seed}: one terminal event");
}

/// `OUTCOMES_SEED=n cargo test -p outriggerd pay_4` repeats one; `OUTCOMES_SEEDS=n` runs so many.
#[tokio::test(flavor = "multi_thread")]
async fn pay_4_pay_2_whatever_becomes_of_its_parts_a_payment_ends_once_and_never_too_early() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("OUTCOMES_SEED") {
        Some(seed) => any_outcomes(seed).await,
        None => {
            for seed in 0..number("OUTCOMES_SEEDS").unwrap_or(60) {
                any_outcomes(seed).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_2_a_start_forgets_the_parts_that_were_never_signed_and_waits_for_the_others() {
    let bench = Bench::new();
    begun(&bench, 3);
    let payments = start(&bench, &[1]).await;
    all_durable(&bench).await;
    assert_eq!(bench.load().parts.iter().map(|((_, part), _)| *part).collect::<Vec<_>>(), [1]);
    assert!(payments.get(&ID).unwrap().unwrap().is_pending());
    payments.take(told(&bench, 1, End::Failed, true));
    all_durable(&bench).await;
    assert!(matches!(payments.get(&ID).unwrap().unwrap().state, PaymentState::Failed { .. }));
    // And one of which nothing was signed at all.
    let bench = Bench::new();
    begun(&bench, 3);
    let payments = start(&bench, &[]).await;
    all_durable(&bench).await;
    let PaymentState::Failed { kind, .. } = payments.get(&ID).unwrap().unwrap().state else { panic!("interrupted") };
    assert_eq!(kind, "interrupted");
}

/// What a start forgets of a payment and what that changes in its row is one transaction: a crash finds both or neither.
#[tokio::test(flavor = "multi_thread")]
async fn pay_2_the_fee_of_a_payment_that_has_succeeded_goes_down_with_the_parts_that_were_never_signed() {
    let bench = Bench::new();
    begun(&bench, 3);
    let state = PaymentState::Succeeded { preimage: preimage(), fee: Msat::new(3 * FEE.get()), at: 9 };
    let mut batch = Batch::default();
    batch.put(Table::Payment, ID.to_vec(), Some(PaymentRow { state, ..row(&bench) }.encode()));
    bench.manager.env().writer.submit(batch);
    all_durable(&bench).await;
    let batches = || bench.manager.env().writer.stats().batches.load(std::sync::atomic::Ordering::Relaxed);
    let before = batches();
    let payments = start(&bench, &[1]).await;
    all_durable(&bench).await;
    assert_eq!(batches() - before, 3, "one to wait for before, one to wait for after, and one of the start");
    let PaymentState::Succeeded { fee, .. } = payments.get(&ID).unwrap().unwrap().state else { panic!("succeeded") };
    assert_eq!((fee, bench.load().parts.len()), (FEE, 1));
}

/// What a row says of new attempts.
fn again(invoice: String, secs: u64) -> Option<AgainRow> {
    let until = Clock::now_unix() + secs;
    Some(AgainRow { whom: PaidFor::Invoice(invoice), max_fee: AMOUNT, until })
}

/// An invoice of this hash by somebody whom no way leads to.
fn invoice_of_nobody(expiry_secs: u64) -> String {
    let terms = outrigger_bolt::invoice::Terms {
        network: Network::Regtest,
        timestamp: Clock::now_unix(),
        payment_hash: preimage().payment_hash(),
        payment_secret: PaymentSecret([7; 32]),
        amount: Some(AMOUNT),
        description: outrigger_bolt::invoice::Description::Text("oars".to_owned()),
        expiry_secs,
        min_final_cltv_expiry_delta: 40,
        payment_metadata: None,
        route_hints: Vec::new(),
        basic_mpp: true,
    };
    terms.sign_with_key(&SecretKey::from_slice(&[77; 32]).unwrap()).unwrap()
}

#[tokio::test]
async fn pay_2_a_payment_that_a_start_found_waits_for_its_peers_until_its_time_is_over() {
    // The caller's time is over, the invoice's is, or it is abandoned.
    for (secs, expiry_secs, abandoned) in [(60, 3600, false), (3600, 60, false), (60, 3600, true)] {
        let bench = Bench::new();
        let clock = std::rc::Rc::new(super::parts::Still::default());
        let _stand_in = Clock::replace_on_this_thread(clock.clone());
        begun(&bench, 2);
        let mut batch = Batch::default();
        let found = PaymentRow { again: again(invoice_of_nobody(expiry_secs), secs), next_part: 2, ..row(&bench) };
        batch.put(Table::Payment, ID.to_vec(), Some(found.encode()));
        bench.manager.env().writer.submit(batch);
        let payments = start(&bench, &[]).await;
        for _ in 0..3 {
            assert!(payments.next_time().is_some());
            payments.on_time();
            all_durable(&bench).await;
            let row = payments.get(&ID).unwrap().unwrap();
            assert!(row.is_pending() && row.again.is_some());
            assert!(bench.load().parts.is_empty(), "nothing was signed for them");
            clock.pass(std::time::Duration::from_secs(1));
        }
        let reason = if abandoned {
            assert!(payments.abandon(&ID).is_some());
            "abandoned"
        } else {
            clock.pass(std::time::Duration::from_secs(60));
            payments.on_time();
            "timeout_secs had passed"
        };
        all_durable(&bench).await;
        let row = payments.get(&ID).unwrap().unwrap();
        let PaymentState::Failed { kind, message, .. } = row.state else { panic!("{:?}", row.state) };
        assert!(kind == "interrupted" && message.contains(reason), "{message}");
        assert_eq!((row.again, payments.next_time(), bench.load().pending_payments.len()), (None, None, 0));
    }
}

/// Who has heard that a payment is abandoned may pay by another way: no start may make a new attempt any more.
#[tokio::test(flavor = "multi_thread")]
async fn pay_2_that_a_payment_is_abandoned_is_durable_before_it_is_told() {
    for parts_in_flight in [&[0][..], &[]] {
        let bench = Bench::new();
        begun(&bench, 1);
        let mut batch = Batch::default();
        let found = PaymentRow { again: again(invoice_of_nobody(3600), 60), next_part: 1, ..row(&bench) };
        batch.put(Table::Payment, ID.to_vec(), Some(found.encode()));
        bench.manager.env().writer.submit(batch);
        let payments = start(&bench, parts_in_flight).await;
        all_durable(&bench).await;
        assert!(payments.get(&ID).unwrap().unwrap().again.is_some());
        payments.abandon(&ID).unwrap().await.unwrap();
        // Read at once: rows that nobody waits for would not be there for a while.
        let row = payments.get(&ID).unwrap().unwrap();
        assert_eq!((row.again.is_none(), row.is_pending()), (true, !parts_in_flight.is_empty()));
        assert_eq!(payments.abandon(&ID).is_some(), row.is_pending());
    }
}

/// The proof that the file is old may come after the start, when parts were forgotten that a later file may have paid.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_no_payment_of_a_file_that_proves_old_is_said_to_be_unpaid() {
    let bench = Bench::new();
    begun(&bench, 2);
    let mut batch = Batch::default();
    let found = PaymentRow { again: again(invoice_of_nobody(3600), 60), next_part: 2, ..row(&bench) };
    batch.put(Table::Payment, ID.to_vec(), Some(found.encode()));
    bench.manager.env().writer.submit(batch);
    let payments = start(&bench, &[]).await;
    bench.manager.prove_old("a proof");
    assert!(payments.abandon(&ID).is_some());
    all_durable(&bench).await;
    let row = payments.get(&ID).unwrap().unwrap();
    assert!(row.is_pending() && row.again.is_none(), "{row:?}");
    assert_eq!(bench.load().pending_payments.len(), 1);
}

/// Of a file that is known to be old, nothing says what became of a payment since.
#[tokio::test(flavor = "multi_thread")]
async fn bak_1_a_start_in_restored_mode_takes_no_part_for_one_that_was_never_signed() {
    let bench = Bench::new();
    begun(&bench, 2);
    let mut batch = Batch::default();
    batch.put(Table::Meta, crate::store::schema::RESTORED_KEY.to_vec(), Some(b"a proof".to_vec()));
    bench.manager.env().writer.submit(batch);
    all_durable(&bench).await;
    let bench = bench.restarted();
    let payments = start(&bench, &[]).await;
    all_durable(&bench).await;
    assert!(payments.get(&ID).unwrap().unwrap().is_pending());
    assert_eq!(bench.load().parts.len(), 2);
}

fn recipe(bench: &Bench, in_parts: bool) -> Recipe {
    let hop = HintHop {
        node: peer(bench),
        short_channel_id: outrigger_bolt::id::ShortChannelId::from_u64(1),
        fee_base_msat: 0,
        fee_proportional_millionths: 0,
        cltv_expiry_delta: 40,
    };
    Recipe {
        payee: peer(bench),
        hash: preimage().payment_hash(),
        secret: Some(PaymentSecret([1; 32])),
        keysend: None,
        metadata: None,
        amount: AMOUNT,
        max_fee: AMOUNT,
        final_cltv_blocks: 40,
        in_parts,
        ways: vec![Way::untried(vec![hop])],
        outlets: Default::default(),
        given: None,
        timeout: std::time::Duration::from_secs(60),
        deadline: Clock::monotonic() + std::time::Duration::from_secs(60),
    }
}

/// Without a channel no other attempt can be made: then the payment is over, and says both.
#[tokio::test(flavor = "multi_thread")]
async fn pay_4_where_nothing_is_left_to_try_the_payment_is_over_and_says_why() {
    let bench = Bench::new();
    begun(&bench, 1);
    let payments = start(&bench, &[0]).await;
    let recipe = recipe(&bench, true);
    payments.state.lock().pending.get_mut(&ID).unwrap().recipe = Some(recipe);
    payments.take(told(&bench, 0, End::Failed, true));
    all_durable(&bench).await;
    let PaymentState::Failed { kind, message, .. } = payments.get(&ID).unwrap().unwrap().state else { panic!("over") };
    assert_eq!(kind, "failed");
    assert!(message.contains("without a readable reason") && message.contains("nothing else was left"), "{message}");
    assert!(payments.state.lock().pending.is_empty() && payments.state.lock().by_hash.is_empty());
}
