//! What both sides have in common, and how a round of payments is measured.

use std::time::{Duration, Instant};

use outrigger_integration::Done;
use outrigger_rpc_schema::StoreReport;

use crate::machine::{cpu_of, rss_of};
use crate::shape::Role;
use crate::sync::{SyncCost, SyncFile};

/// The capacity of every channel, in satoshi: the largest without `option_support_large_channel`.
pub(crate) const CAPACITY_SAT: u64 = 16_777_215;

/// The capacity of channels of which there are thousands.
pub(crate) const MORE_SAT: u64 = 2_000_000;

/// How many of those are opened before the next block.
pub(crate) const CHUNK: usize = 200;

/// A process whose cost is told.
pub(crate) struct Watched {
    pub(crate) pid: u32,
    pub(crate) role: Role,
    pub(crate) sync: SyncFile,
}

/// Nodes of one side, with streams of payments from senders to receivers.
pub(crate) trait Stack {
    fn watched(&self) -> Vec<&Watched>;
    /// Makes invoices until each stream has so many, before the clock runs.
    async fn supply(&mut self, per_stream: usize) -> Done<()>;
    /// Begins to pay, with `window` payments in flight in each stream.
    async fn start(&mut self, window: usize) -> Done<()>;
    /// Payments that have arrived so far: the sender has the preimage.
    async fn paid(&mut self) -> Done<u64>;
    /// Lets what is in flight arrive; how long each payment took, in microseconds.
    async fn stop(&mut self) -> Done<Vec<u64>>;
    /// What payments are worth from now on, in millisatoshi.
    async fn set_amount(&mut self, amount_msat: u64) -> Done<()>;
    /// Commitment transactions that both ends of all channels have got a signature for so far, where the side tells.
    async fn commitments(&mut self) -> Done<Option<u64>>;
    /// What the store of the first node has done, where the side tells.
    async fn store(&mut self) -> Done<Option<StoreReport>>;
    /// Opens so many more channels between the first node and the second.
    async fn more_channels(&mut self, count: usize) -> Done<()>;
    /// Ends the first node and starts it again; how long it took until it was ready, in seconds.
    async fn restart(&mut self) -> Done<f64>;
}

/// What is measured of a run of payments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) window: usize,
    pub(crate) cost: SyncCost,
    /// Before the clock runs.
    pub(crate) warm: Duration,
    pub(crate) time: Duration,
    /// Payments a second and stream that invoices are made for.
    pub(crate) most_per_second: usize,
}

/// One round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) paid: f64,
    pub(crate) secs: f64,
    pub(crate) hub_cpu: f64,
    pub(crate) ends_cpu: f64,
    pub(crate) hub_syncs: f64,
    pub(crate) all_syncs: f64,
    /// Microseconds, sorted.
    pub(crate) took: Vec<u64>,
    pub(crate) hub_rss: u64,
    pub(crate) commitments: Option<f64>,
}

impl Round {
    pub(crate) fn per_second(&self) -> f64 {
        self.paid / self.secs
    }

    /// Milliseconds of the hub's processor for each payment.
    pub(crate) fn hub_ms(&self) -> f64 {
        self.hub_cpu * 1e3 / self.paid
    }

    /// Milliseconds of all nodes' processors for each payment.
    pub(crate) fn all_ms(&self) -> f64 {
        (self.hub_cpu + self.ends_cpu) * 1e3 / self.paid
    }

    /// Memory of the hub, in MB.
    pub(crate) fn hub_mb(&self) -> f64 {
        self.hub_rss as f64 / 1e6
    }

    pub(crate) fn hub_syncs_each(&self) -> f64 {
        self.hub_syncs / self.paid
    }

    /// Commitments that were signed for each payment, of all channels and both ends.
    pub(crate) fn commitments_each(&self) -> Option<f64> {
        Some(self.commitments? / self.paid)
    }

    pub(crate) fn all_syncs_each(&self) -> f64 {
        self.all_syncs / self.paid
    }

    /// All of it in one line.
    pub(crate) fn words(&self) -> String {
        format!(
            "{:.0}/s, hub {:.2} ms, all {:.2} ms, syncs hub {:.2} all {:.2}, p50 {:.1} ms p99 {:.1} ms, paid {}",
            self.per_second(),
            self.hub_ms(),
            self.all_ms(),
            self.hub_syncs_each(),
            self.all_syncs_each(),
            self.latency_ms(0.5),
            self.latency_ms(0.99),
            self.paid
        )
    }

    /// The time within which this share of the payments arrived, in milliseconds.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        let place = (self.took.len() as f64 * share) as usize;
        self.took.get(place.min(self.took.len().saturating_sub(1))).map_or(0.0, |micros| *micros as f64 / 1e3)
    }
}

struct Reading {
    at: Instant,
    paid: u64,
    cpu: Vec<(Role, f64)>,
    syncs: Vec<(Role, u64)>,
}

fn read(stack: &impl Stack, paid: u64) -> Done<Reading> {
    let at = Instant::now();
    let watched = stack.watched();
    let cpu = watched.iter().map(|it| Ok((it.role, cpu_of(it.pid)?))).collect::<Done<_>>()?;
    let syncs = watched.iter().map(|it| Ok((it.role, it.sync.count()?))).collect::<Done<_>>()?;
    Ok(Reading { at, paid, cpu, syncs })
}

/// Pays for a while and reads the meters at the beginning and the end, with everything in full flow.
pub(crate) async fn round(stack: &mut impl Stack, plan: Plan) -> Done<Round> {
    let per_stream = (plan.warm + plan.time).as_secs_f64() * plan.most_per_second as f64 + 2.0 * plan.window as f64;
    for watched in stack.watched() {
        // What prepares is not what is measured.
        watched.sync.set(SyncCost::Nothing)?;
    }
    stack.supply(per_stream as usize).await?;
    for watched in stack.watched() {
        watched.sync.set(plan.cost)?;
    }
    stack.start(plan.window).await?;
    tokio::time::sleep(plan.warm).await;
    // To ask for the commitments costs the nodes some work, so it is done outside of what is measured.
    let (asked, signed_before) = (Instant::now(), stack.commitments().await?);
    let paid = stack.paid().await?;
    let before = read(stack, paid)?;
    tokio::time::sleep(plan.time).await;
    let paid = stack.paid().await?;
    let after = read(stack, paid)?;
    let (asked_for, signed_after) = (asked.elapsed(), stack.commitments().await?);
    let mut took = stack.stop().await?;
    took.sort_unstable();
    let is_hub = |role: Role| role == Role::Hub;
    let cpu = |of_hub: bool| {
        let spent = after.cpu.iter().zip(&before.cpu).filter(|((role, _), _)| is_hub(*role) == of_hub);
        spent.map(|((_, later), (_, earlier))| later - earlier).sum::<f64>()
    };
    let syncs = |hub_only: bool| {
        let spent = after.syncs.iter().zip(&before.syncs).filter(|((role, _), _)| is_hub(*role) || !hub_only);
        spent.map(|((_, later), (_, earlier))| (later - earlier) as f64).sum::<f64>()
    };
    let hub = stack.watched().iter().find(|it| is_hub(it.role)).map(|it| it.pid);
    let paid = after.paid.saturating_sub(before.paid) as f64;
    if paid == 0.0 {
        return Err("nothing was paid in a whole round".into());
    }
    let secs = (after.at - before.at).as_secs_f64();
    let signed = |later: u64, earlier: u64| (later - earlier) as f64 * secs / asked_for.as_secs_f64();
    Ok(Round {
        paid,
        secs,
        hub_cpu: cpu(true),
        ends_cpu: cpu(false),
        hub_syncs: syncs(true),
        all_syncs: syncs(false),
        took,
        hub_rss: hub.map(rss_of).transpose()?.unwrap_or_default(),
        commitments: signed_after.zip(signed_before).map(|(later, earlier)| signed(later, earlier)),
    })
}
