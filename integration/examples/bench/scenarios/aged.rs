//! One channel that grows old: the rate, and what a step costs, after more and more updates. An update is an HTLC that is
//! added or removed: a payment makes two.

use std::time::{Duration, Instant};

use outrigger_integration::Done;

use super::{AMOUNT_MSAT, PER_SECOND, Run};
use crate::ldk::{Ldk, Pace};
use crate::machine::rss_of;
use crate::outrigger::Outrigger;
use crate::report::Figure;
use crate::shape::Shape;
use crate::stack::Stack;
use crate::sync::SyncCost;

/// The updates after which a step is looked at.
pub(crate) const AGES: [usize; 4] = [1, 1000, 10_000, 100_000];

/// Payments in flight while a channel ages.
const WINDOW: usize = 50;

/// A look is at so many slices of so many payments, one at a time.
const SLICES: usize = 5;
const PAYMENTS_OF_SLICE: u64 = 20;

/// Payments after which the last rate is taken. LDK goes no further: it would take minutes.
const COMPARED: usize = 20_000;
/// Payments that a rate is taken over.
const RATED: usize = 2500;

/// What a step costs at one age, of the sender, slice by slice.
#[derive(Default)]
struct Age {
    /// Bytes of rows for each update.
    staged: Vec<f64>,
    /// Bytes that went to files, for each payment.
    written: Vec<f64>,
    /// The same for each commit.
    commit_written: Vec<f64>,
    /// Milliseconds of each commit.
    commit_ms: Vec<f64>,
    /// MB resident.
    memory: Vec<f64>,
}

/// One side's channel.
#[derive(Default)]
struct Life {
    ages: Vec<Age>,
    first: f64,
    last: f64,
}

impl Run<'_> {
    /// Syncs cost nothing, so that it is the nodes that are measured, and not how a disk feels after minutes.
    pub(super) async fn aged(&mut self) -> Done<()> {
        let directory = self.directory.join("aged");
        let mut ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::AtOnce).await?;
        let scale = if self.is_quick { 100 } else { 1 };
        let mut our = compared(&mut ours, scale).await?;
        let their = compared(&mut theirs, scale).await?;
        flow(&mut ours, (AGES[3] / 2 - COMPARED) / scale).await?;
        our.ages.push(look(&mut ours).await?);
        for (name, of) in [("first", [our.first, their.first]), ("last", [our.last, their.last])] {
            self.put_pair(&format!("aged_20000_{name}"), PER_SECOND, of);
        }
        let kept = [our.last / our.first, their.last / their.first];
        self.put_pair("aged_20000", "share of the first rate that is left", kept);
        self.tell_ages(&our, &their);
        Ok(())
    }

    fn put_pair(&mut self, name: &str, unit: &'static str, [ours, theirs]: [f64; 2]) {
        let (outrigger, ldk) = (vec![ours], vec![theirs]);
        self.put(Figure { name: name.to_owned(), unit, outrigger, ldk, more_is_better: true });
    }

    fn tell_ages(&mut self, our: &Life, their: &Life) {
        type Told = (&'static str, &'static str, fn(&Age) -> &Vec<f64>);
        let told: [Told; 5] = [
            ("staged", "bytes of rows each update", |age| &age.staged),
            ("written", "bytes written to files each payment", |age| &age.written),
            ("commit_written", "bytes written to files each commit", |age| &age.commit_written),
            ("commit", "ms each commit, syncs at no cost", |age| &age.commit_ms),
            ("memory", "MB resident in the sender", |age| &age.memory),
        ];
        for (what, unit, of) in told {
            for (place, updates) in AGES.iter().enumerate() {
                let values = |life: &Life| life.ages.get(place).map(of).cloned().unwrap_or_default();
                let (outrigger, ldk) = (values(our), values(their));
                let name = format!("aged_{updates}_{what}");
                self.put(Figure { name, unit, outrigger, ldk, more_is_better: false });
            }
        }
    }
}

/// The first 20,000 payments, which both sides make.
async fn compared(stack: &mut impl Stack, scale: usize) -> Done<Life> {
    for watched in stack.watched() {
        watched.sync.set(SyncCost::Nothing)?;
    }
    let mut life = Life::default();
    life.ages.push(look(stack).await?);
    let at_second = AGES[1] / 2;
    flow(stack, at_second / scale).await?;
    life.ages.push(look(stack).await?);
    life.first = flow(stack, RATED / scale).await?;
    flow(stack, (AGES[2] / 2 - at_second - RATED) / scale).await?;
    life.ages.push(look(stack).await?);
    flow(stack, (COMPARED - AGES[2] / 2 - RATED) / scale).await?;
    life.last = flow(stack, RATED / scale).await?;
    Ok(life)
}

/// Makes so many payments, many in flight; how many there were each second.
pub(super) async fn flow(stack: &mut impl Stack, count: usize) -> Done<f64> {
    let mut left = count;
    let mut took = Duration::ZERO;
    // Invoices are made in portions: those that wait cost memory, which is measured.
    while left > 0 {
        let portion = left.min(5000);
        stack.supply(portion + 2 * WINDOW).await?;
        let (begun, wanted) = (Instant::now(), stack.paid().await? + portion as u64);
        stack.start(WINDOW).await?;
        until_paid(stack, wanted).await?;
        took += begun.elapsed();
        stack.stop().await?;
        left -= portion;
    }
    Ok(count as f64 / took.as_secs_f64())
}

async fn until_paid(stack: &mut impl Stack, wanted: u64) -> Done<()> {
    while stack.paid().await? < wanted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What a step costs now, one payment at a time.
async fn look(stack: &mut impl Stack) -> Done<Age> {
    let mut age = Age::default();
    for _ in 0..SLICES {
        stack.supply(2 * PAYMENTS_OF_SLICE as usize).await?;
        let (before, paid) = (meters(stack).await?, stack.paid().await?);
        stack.start(1).await?;
        until_paid(stack, paid + PAYMENTS_OF_SLICE).await?;
        stack.stop().await?;
        let (after, payments) = (meters(stack).await?, (stack.paid().await? - paid) as f64);
        let written = (after.written - before.written) as f64;
        age.written.push(written / payments);
        age.memory.push(after.resident as f64 / 1e6);
        if let Some((later, earlier)) = after.store.zip(before.store) {
            let commits = (later.commits - earlier.commits) as f64;
            age.staged.push((later.staged_bytes - earlier.staged_bytes) as f64 / (2.0 * payments));
            age.commit_ms.push((later.commit_micros - earlier.commit_micros) as f64 / 1e3 / commits);
            age.commit_written.push(written / commits);
        }
    }
    Ok(age)
}

/// Of the sender.
struct Meters {
    written: u64,
    resident: u64,
    store: Option<outrigger_rpc_schema::StoreReport>,
}

async fn meters(stack: &mut impl Stack) -> Done<Meters> {
    let store = stack.store().await?;
    let watched = stack.watched();
    let sender = watched.first().ok_or("a stack without nodes")?;
    Ok(Meters { written: sender.sync.bytes()?, resident: rss_of(sender.pid)?, store })
}
