//! The matrix: who opens, who pays, who closes, whether the opener asks for another feerate, and what befalls the two at
//! each message of an HTLC's life and of a close.
//!
//! In each cell nobody fails the channel, the payment ends the same on both sides, both sides say the same of who owns
//! what, to the millisatoshi, and the channel pays again or is closed together. `MATRIX=all` runs the whole table, and
//! `MATRIX_CELL=NAME` one cell alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use outrigger_integration::proxy::Way;
use outrigger_integration::{Done, Fault, Regtest, on_regtest, until};
use outrigger_rpc_schema::{ChannelClose, ChannelState, InvoiceGet, InvoiceState, PaymentGet, PaymentState};
use tokio::runtime;

use crate::cell::{Act, Blow, Cell, Ending, Fees, Hold, Payment, UPDATE_FEE};
use crate::meeting::{CAPACITY_SAT, LIMIT, Meeting, Side, Terms};
use crate::node::{HoldInvoice, LdkNode, Standing, payment_hash};
use crate::table::{Share, share};

/// What the accepter has to begin with: enough for both to pay.
const PUSHED_MSAT: u64 = 400_000_123;
/// How many lanes each opener has.
const LANES: usize = 5;
/// How many the cells have that are but a minute of waiting.
const SLOW_LANES: usize = 24;
/// How often a lane that met a fault begins anew, so that one run tells of several.
const FRESH_STARTS: usize = 6;
/// A wire that holds something and has been still for so long holds all that it will: the blow falls there.
const STILL: Duration = Duration::from_secs(3);
/// Of so many cells that were held, one may have been held elsewhere, and one more: a `ping` came in between.
const ONE_ELSEWHERE_OF: usize = 4;

/// Several lanes for each opener, each with a chain and two nodes of its own: most of a cell's time is waiting.
#[test]
fn whatever_befalls_the_two_the_channel_goes_on() -> Done<()> {
    let Share { all, cells } = share()?;
    let begun = Instant::now();
    let tally = Tally::default();
    let queues = [(Side::Sidecar, false), (Side::Ldk, false), (Side::Ldk, true)];
    let queues = queues.map(|(opener, slow)| Queue::of(opener, slow, &cells));
    std::thread::scope(|scope| {
        let mut lanes = Vec::new();
        for queue in &queues {
            for _ in 0..queue.lanes {
                let tally = &tally;
                lanes.push(scope.spawn(move || {
                    if let Err(fault) = run_lane(queue, tally) {
                        tally.fault(format!("{:?} opens: {fault}", queue.opener));
                    }
                }));
            }
        }
        for lane in lanes {
            if lane.join().is_err() {
                tally.fault("a lane panicked: what it said stands above".to_owned());
            }
        }
    });
    tally.check_exactness();
    let faults = tally.faults.into_inner()?;
    println!(
        "matrix: {} of {all} cells run in {} s, {} held exactly at their message, {} elsewhere, {} over before it, {} faults",
        tally.run.load(Ordering::Relaxed),
        begun.elapsed().as_secs(),
        tally.exact.load(Ordering::Relaxed),
        tally.elsewhere.load(Ordering::Relaxed),
        tally.unheld.load(Ordering::Relaxed),
        faults.len()
    );
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(tally.run.load(Ordering::Relaxed), cells.len());
    Ok(())
}

/// The cells of one opener, which its lanes take one by one.
struct Queue {
    opener: Side,
    cells: Vec<Cell>,
    lanes: usize,
    next: AtomicUsize,
}

impl Queue {
    fn of(opener: Side, slow: bool, cells: &[Cell]) -> Self {
        let is_of = |cell: &Cell| (cell.opener, cell.is_slow()) == (opener, slow);
        let cells: Vec<Cell> = cells.iter().copied().filter(is_of).collect();
        let lanes = if slow { SLOW_LANES } else { LANES }.min(cells.len());
        Self { opener, cells, lanes, next: AtomicUsize::new(0) }
    }

    fn take(&self) -> Option<Cell> {
        self.cells.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
    }
}

/// What the lanes have done together.
#[derive(Default)]
struct Tally {
    run: AtomicUsize,
    exact: AtomicUsize,
    /// Held at another point than the cell's.
    elsewhere: AtomicUsize,
    /// A negotiation may end before the message in question.
    unheld: AtomicUsize,
    faults: Mutex<Vec<String>>,
}

impl Tally {
    fn fault(&self, fault: String) {
        println!("{fault}");
        if let Ok(mut faults) = self.faults.lock() {
            faults.push(fault);
        }
    }
}

/// Runs cells until none is left. After a fault the lane goes on with new nodes, so that one run tells of several.
fn run_lane(queue: &Queue, tally: &Tally) -> Done<()> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for _ in 0..FRESH_STARTS {
        let Some(first) = queue.take() else { return Ok(()) };
        let outcome = runtime.block_on(on_regtest(async |regtest| {
            let terms = Terms { opener: queue.opener, dialler: Side::Sidecar, announce: false, push_msat: PUSHED_MSAT };
            let mut meeting = warm(Meeting::of(regtest, terms).await?).await?;
            let mut next = Some(first);
            while let Some(cell) = next {
                let begun = Instant::now();
                meeting = run(regtest, meeting, cell, tally)
                    .await
                    .map_err(|fault| Fault::from(format!("cell {cell}: {fault}; alone: MATRIX_CELL={cell}")))?;
                tally.run.fetch_add(1, Ordering::Relaxed);
                println!("cell {cell}: {} ms", begun.elapsed().as_millis());
                next = queue.take();
            }
            Ok(())
        }));
        if let Err(fault) = outcome {
            tally.fault(fault.to_string());
        }
    }
    Err("too many faults: the lane ends".into())
}

async fn run(regtest: &Regtest, meeting: Meeting, cell: Cell, tally: &Tally) -> Done<Meeting> {
    let before_msat = meeting.agreed().await?;
    let meeting = match cell.act {
        Act::Pay(payment) => {
            let (meeting, ended) = pay(regtest, meeting, payment, None, cell.blow, tally).await?;
            same("the payment's end", ended.paid, payment.ending == Ending::Fulfil)?;
            let after_msat = ended.ldk_msat(before_msat);
            same("what LDK has", meeting.reconnecting(meeting.agreed()).await?, after_msat)?;
            if let (Some(feerate), Side::Sidecar) = (ended.feerate, cell.opener) {
                meeting.reconnecting(until_feerate_is(&meeting, feerate)).await?;
            }
            pay_back(&meeting, payment.payer.other(), after_msat).await?;
            meeting
        }
        Act::PayAndClose { payment, closer } => {
            let (meeting, ended) = pay(regtest, meeting, payment, Some(closer), cell.blow, tally).await?;
            closed(regtest, meeting, &cell, ended.ldk_msat(before_msat)).await?
        }
        Act::Close { closer, point } => {
            let hold = point.hold(closer, cell.opener);
            let mut holding = Holding::begin(&meeting, hold);
            order_close(&meeting, closer).await?;
            let id = meeting.opened.channel_id.clone();
            until(LIMIT, "the wire to be held or the close to be agreed on", async || {
                let agreed =
                    meeting.sidecar.channel(&id).await?.closing_txid.is_some() && meeting.ldk.channel(&id).is_none();
                Ok((agreed || holding.is_done(&meeting)).then_some(()))
            })
            .await?;
            tally.note(&meeting, hold);
            let meeting = fall(regtest, meeting, cell.blow, hold).await?;
            closed(regtest, meeting, &cell, before_msat).await?
        }
    };
    same("the mempool", regtest.bitcoind.mempool().await?, Vec::new())?;
    Ok(meeting)
}

impl Tally {
    /// Notes whether exactly the cell's message and what follows it at once is held.
    fn note(&self, meeting: &Meeting, hold: Hold) {
        let held = meeting.wire.held(hold.way);
        if held == 0 {
            self.unheld.fetch_add(1, Ordering::Relaxed);
        } else if held == hold.held {
            self.exact.fetch_add(1, Ordering::Relaxed);
        } else {
            self.elsewhere.fetch_add(1, Ordering::Relaxed);
            println!("held {held} bytes, not {}", hold.held);
        }
    }

    /// Cells that are held elsewhere prove less than their names say, so there are few of them.
    fn check_exactness(&self) {
        let (exact, elsewhere) = (self.exact.load(Ordering::Relaxed), self.elsewhere.load(Ordering::Relaxed));
        if elsewhere > 1 + (exact + elsewhere) / ONE_ELSEWHERE_OF {
            self.fault(format!(
                "{elsewhere} cells were held elsewhere: are the sizes in cell.rs those of the messages?"
            ));
        }
    }
}

/// Tells when the wire holds what is to be held, or holds something and is still.
struct Holding {
    hold: Hold,
    seen: (u64, u64, usize),
    since: Instant,
}

impl Holding {
    /// Holds the wire.
    fn begin(meeting: &Meeting, hold: Hold) -> Self {
        meeting.wire.hold_after(hold.way, hold.pass);
        Self { hold, seen: (0, 0, 0), since: Instant::now() }
    }

    fn is_done(&mut self, meeting: &Meeting) -> bool {
        let wire = &meeting.wire;
        let held = wire.held(self.hold.way);
        let seen = (wire.passed(Way::Out), wire.passed(Way::Back), held);
        if seen != self.seen {
            (self.seen, self.since) = (seen, Instant::now());
        }
        held >= self.hold.held || held > 0 && self.since.elapsed() > STILL
    }
}

/// One payment, held at its point, struck, and brought to its end.
async fn pay(
    regtest: &Regtest,
    meeting: Meeting,
    payment: Payment,
    closer: Option<Side>,
    blow: Blow,
    tally: &Tally,
) -> Done<(Meeting, Ended)> {
    let hold = payment.hold();
    let moving = Moving::prepare(regtest, &meeting, payment.fees).await?;
    let mut holding = Holding::begin(&meeting, hold);
    let begun = Begun::begin(&meeting, payment).await?;
    until(LIMIT, &format!("{} bytes to be held", hold.held), async || {
        begun.answer(&meeting.ldk)?;
        Ok(holding.is_done(&meeting).then_some(()))
    })
    .await
    .map_err(|fault| format!("{fault}: {} are", meeting.wire.held(hold.way)))?;
    tally.note(&meeting, hold);
    // Held elsewhere, it may be at one of the messages at which LDK's new start would forget the HTLC: see `is_beyond_ldk`.
    let is_exact = meeting.wire.held(hold.way) == hold.held;
    let blow = match blow {
        Blow::RestartLdk if closer.is_some() && payment.payer == Side::Sidecar && !is_exact => Blow::Cut,
        blow => blow,
    };
    let feerate = moving.until_proposed(regtest, &meeting).await?;
    // A node may refuse while it has an HTLC that is not yet committed: it is asked again below.
    let mut is_ordered = match closer {
        Some(closer) => try_close(&meeting, closer).await.is_ok(),
        None => true,
    };
    let meeting = fall(regtest, meeting, blow, hold).await?;
    let end = until(LIMIT, "the payment to end on both sides", async || {
        begun.answer(&meeting.ldk)?;
        if let (false, Some(closer)) = (is_ordered, closer) {
            is_ordered = try_close(&meeting, closer).await.is_ok();
        }
        begun.ended(&meeting).await
    });
    let ended = meeting.reconnecting(end).await?;
    if let (false, Some(closer)) = (is_ordered, closer) {
        meeting.reconnecting(order_close(&meeting, closer)).await?;
    }
    Ok((meeting, Ended { feerate, ..ended }))
}

/// A change of the feerate, of which both hear, and which the opener asks the other for.
enum Moving {
    /// There is none.
    Not,
    /// The daemon asks as soon as it hears of it, which it does with a block.
    WithBlock,
    /// LDK has heard of it and asks when its minute is over. It had asked so often before.
    WithMinute { asked: usize, feerate: u32 },
}

impl Moving {
    async fn prepare(regtest: &Regtest, meeting: &Meeting, fees: Fees) -> Done<Self> {
        match (fees, meeting.terms.opener) {
            (Fees::Steady, _) => Ok(Self::Not),
            (Fees::Move, Side::Sidecar) => Ok(Self::WithBlock),
            (Fees::Move, Side::Ldk) => {
                meeting.ldk.until_minute_nears().await?;
                let asked = meeting.ldk.feerates_asked_for()?;
                Ok(Self::WithMinute { asked, feerate: meeting.move_fees(regtest).await? })
            }
        }
    }

    /// Waits until the opener has asked, or would but for what is held, and gives the feerate.
    async fn until_proposed(self, regtest: &Regtest, meeting: &Meeting) -> Done<Option<u32>> {
        match self {
            Self::Not => Ok(None),
            Self::WithBlock => {
                let sent = || meeting.wire.passed(Way::Out) + meeting.wire.held(Way::Out) as u64;
                let before = sent();
                let feerate = meeting.move_fees(regtest).await?;
                until(LIMIT, "the sidecar to send update_fee", async || {
                    Ok((sent() >= before + UPDATE_FEE).then_some(()))
                })
                .await?;
                Ok(Some(feerate))
            }
            Self::WithMinute { asked, feerate } => {
                until(2 * LIMIT, "LDK to see that it wants another feerate", async || {
                    Ok((meeting.ldk.feerates_asked_for()? > asked).then_some(()))
                })
                .await?;
                Ok(Some(feerate))
            }
        }
    }
}

async fn until_feerate_is(meeting: &Meeting, feerate: u32) -> Done<()> {
    let id = &meeting.opened.channel_id;
    until(LIMIT, &format!("the feerate to be {feerate}"), async || {
        Ok((meeting.ldk.feerate(id) == Some(feerate)).then_some(()))
    })
    .await
}

/// The blow falls, and what was held is lost, or late.
async fn fall(regtest: &Regtest, meeting: Meeting, blow: Blow, hold: Hold) -> Done<Meeting> {
    match blow {
        Blow::Delay => {
            meeting.wire.release(hold.way);
            Ok(meeting)
        }
        Blow::Cut => meeting.struck(regtest, None).await,
        Blow::KillSidecar => meeting.struck(regtest, Some(Side::Sidecar)).await,
        Blow::RestartLdk => meeting.struck(regtest, Some(Side::Ldk)).await,
    }
}

/// A payment that is under way.
struct Begun {
    payer: Side,
    amount_msat: u64,
    payment_hash: String,
    /// The name that the daemon gave it, where it pays.
    payment_id: Option<String>,
    /// What LDK fails once it has come in.
    to_fail: Option<HoldInvoice>,
    /// Whether the daemon knows an invoice of this hash.
    is_invoiced: bool,
}

/// A payment that has ended on both sides.
#[derive(Clone, Copy, Debug)]
struct Ended {
    payer: Side,
    amount_msat: u64,
    paid: bool,
    /// What the opener asked for meanwhile.
    feerate: Option<u32>,
}

impl Ended {
    /// What LDK has after it.
    fn ldk_msat(self, before_msat: u64) -> u64 {
        match (self.paid, self.payer) {
            (false, _) => before_msat,
            (true, Side::Sidecar) => before_msat + self.amount_msat,
            (true, Side::Ldk) => before_msat - self.amount_msat,
        }
    }
}

impl Begun {
    /// Begins a payment of an amount of its own.
    async fn begin(meeting: &Meeting, payment: Payment) -> Done<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = u64::try_from(NUMBER.fetch_add(1, Ordering::Relaxed))?;
        let amount_msat = 10_000_001 + number;
        let (sidecar, ldk) = (&meeting.sidecar, &meeting.ldk);
        let mut to_fail = None;
        let mut payment_id = None;
        let payment_hash = match (payment.payer, payment.ending) {
            (Side::Sidecar, ending) => {
                let invoice = match ending {
                    Ending::Fulfil => ldk.invoice(amount_msat)?,
                    Ending::Fail => {
                        let held = ldk.hold_invoice(amount_msat, number)?;
                        let invoice = held.invoice.clone();
                        to_fail = Some(held);
                        invoice
                    }
                };
                payment_id = Some(sidecar.send(&invoice).await?);
                payment_hash(&invoice)?
            }
            (Side::Ldk, Ending::Fulfil) => {
                let invoice = sidecar.invoice(amount_msat, "a cell").await?;
                ldk.send(&invoice)?;
                payment_hash(&invoice)?
            }
            // The daemon gave no preimage for it away, so it fails what nobody asked for.
            (Side::Ldk, Ending::Fail) => ldk.send_unasked(&sidecar.node_id().await?, amount_msat)?,
        };
        let is_invoiced = (payment.payer, payment.ending) == (Side::Ldk, Ending::Fulfil);
        Ok(Self { payer: payment.payer, amount_msat, payment_hash, payment_id, to_fail, is_invoiced })
    }

    /// Has LDK fail what it is to fail.
    fn answer(&self, ldk: &LdkNode) -> Done<()> {
        self.to_fail.as_ref().map_or(Ok(()), |held| ldk.fail_if_held(held))
    }

    /// How it has ended, once both sides know and say the same.
    async fn ended(&self, meeting: &Meeting) -> Done<Option<Ended>> {
        let ldk = meeting.ldk.standing(&self.payment_hash);
        let paid = match &self.payment_id {
            Some(payment_id) => {
                let payment = meeting.sidecar.call(PaymentGet { payment_id: payment_id.clone() }).await?;
                match (payment.state, ldk) {
                    (PaymentState::Pending, _) | (PaymentState::Succeeded, Standing::Pending) => return Ok(None),
                    (PaymentState::Succeeded, Standing::Succeeded(_)) => true,
                    (PaymentState::Failed, Standing::Pending | Standing::Failed) => false,
                    (_, ldk) => return Err(format!("the sidecar says {payment:?}, and LDK {ldk:?}").into()),
                }
            }
            None => {
                let invoice = match self.is_invoiced {
                    true => Some(meeting.sidecar.call(InvoiceGet { payment_hash: self.payment_hash.clone() }).await?),
                    false => None,
                };
                let received = invoice.filter(|invoice| invoice.state == InvoiceState::Paid);
                let received_msat = received.as_ref().and_then(|invoice| invoice.received_msat);
                match (ldk, received_msat) {
                    (Standing::Pending, _) => return Ok(None),
                    (Standing::Succeeded(Some(_)), Some(msat)) if msat == self.amount_msat => true,
                    (Standing::Failed, None) => false,
                    (ldk, _) => return Err(format!("LDK says {ldk:?}, and the sidecar {received:?}").into()),
                }
            }
        };
        Ok(Some(Ended { payer: self.payer, amount_msat: self.amount_msat, paid, feerate: None }))
    }
}

/// The channel pays again, the other way, and so it keeps its balance over many cells.
async fn pay_back(meeting: &Meeting, payer: Side, ldk_msat: u64) -> Done<()> {
    match payer {
        Side::Sidecar => meeting.pay_ldk(&[10_000_001], ldk_msat).await?,
        Side::Ldk => meeting.ldk_pays(&[10_000_001], ldk_msat).await?,
    };
    Ok(())
}

async fn try_close(meeting: &Meeting, closer: Side) -> Done<()> {
    let channel_id = meeting.opened.channel_id.clone();
    match closer {
        Side::Sidecar => {
            meeting.sidecar.call(ChannelClose { channel_id, ..Default::default() }).await?;
            Ok(())
        }
        Side::Ldk => meeting.ldk.close(&channel_id).await,
    }
}

/// Has a node close the channel, as soon as it is willing to.
async fn order_close(meeting: &Meeting, closer: Side) -> Done<()> {
    let mut last = String::new();
    until(LIMIT, &format!("{closer:?} to be willing to close"), async || match try_close(meeting, closer).await {
        Ok(()) => Ok(Some(())),
        Err(fault) => {
            last = fault.to_string();
            Ok(None)
        }
    })
    .await
    .map_err(|fault| format!("{fault}: {last}").into())
}

/// Waits for the end of a close, checks who gets what, and opens the next channel.
async fn closed(regtest: &Regtest, meeting: Meeting, cell: &Cell, ldk_msat: u64) -> Done<Meeting> {
    let id = meeting.opened.channel_id.clone();
    let reason = meeting.reconnecting(meeting.ldk.until_closed(&id)).await?;
    if !reason.contains("CooperativeClosure") {
        return Err(format!("LDK has closed for another reason: {reason}").into());
    }
    // An LDK node that was restarted may ask for a second negotiation. Mempools take its outcome where that pays more.
    let txid = regtest.bitcoind.until_spent(&meeting.opened.funding_txid).await?;
    let paid_sat = regtest.bitcoind.outputs_sat(&txid).await?;
    let sidecar_sat = (CAPACITY_SAT * 1000 - ldk_msat) / 1000;
    let (opener_sat, accepter_sat) = match cell.opener {
        Side::Sidecar => (sidecar_sat, ldk_msat / 1000),
        Side::Ldk => (ldk_msat / 1000, sidecar_sat),
    };
    let fee_sat = CAPACITY_SAT - paid_sat.iter().sum::<u64>();
    let opener_gets = CAPACITY_SAT - fee_sat - accepter_sat;
    same("the accepter's output", paid_sat.contains(&accepter_sat), true)?;
    same("the opener's output", paid_sat.contains(&opener_gets) && opener_gets < opener_sat, true)?;
    regtest.bitcoind.mine_to_nobody(6).await?;
    let ended = meeting.sidecar.until_channel_is(&id, ChannelState::Closed).await?;
    same("the transaction that closed the channel", ended.closing_txid, Some(txid))?;
    meeting.ldk.until_synced_with(&regtest.bitcoind).await?;
    warm(meeting.open_another(regtest, &cell.to_string()).await?).await
}

/// Pays each way once. What a node has to say of a new channel by itself is said by then.
async fn warm(meeting: Meeting) -> Done<Meeting> {
    let ldk_msat = meeting.ldk_pays(&[1_000_001], meeting.agreed().await?).await?;
    meeting.pay_ldk(&[1_000_001], ldk_msat).await?;
    Ok(meeting)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Done<()> {
    if got == expected { Ok(()) } else { Err(format!("{what} is {got:?}, not {expected:?}").into()) }
}
