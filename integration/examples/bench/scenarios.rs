//! The scenarios: what is set up, what is paid, and which figures come of it.

use std::path::PathBuf;
use std::time::Duration;

use outrigger_integration::{Bitcoind, Done};

use crate::ldk::{Ldk, Pace};
use crate::machine::{description, sync_ms};
use crate::outrigger::Outrigger;
use crate::report::Figure;
use crate::shape::Shape;
use crate::stack::{Plan, Round, Stack, round};
use crate::sync::SyncCost;

/// Above every dust limit: an output of the commitment transactions.
const AMOUNT_MSAT: u64 = 500_000;

/// A run of the benchmark.
pub(crate) struct Run<'a> {
    bitcoind: &'a Bitcoind,
    directory: PathBuf,
    is_quick: bool,
    /// The scenarios asked for; all if none are named.
    only: Vec<String>,
    pub(crate) figures: Vec<Figure>,
}

/// Both sides' rounds of one scenario, one after the other in turn.
pub(crate) struct Rounds {
    pub(crate) outrigger: Vec<Round>,
    pub(crate) ldk: Vec<Round>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(bitcoind: &'a Bitcoind, directory: PathBuf, is_quick: bool, only: Vec<String>) -> Self {
        Self { bitcoind, directory, is_quick, only, figures: Vec::new() }
    }

    /// Everything, or what was asked for.
    pub(crate) async fn all(&mut self) -> Done<()> {
        let hub = ["relay_8_native", "relay_8_cpu", "relay_8_sync4ms", "relay_8_nosync"];
        if self.wants(&hub) {
            self.relay(8).await?;
        }
        let pair = ["one_channel_32_native", "one_channel_32_sync4ms", "latency_native", "latency_sync4ms"];
        if self.wants(&pair) {
            self.pair().await?;
        }
        Ok(())
    }

    fn wants(&self, names: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| names.contains(&name.as_str()))
    }

    fn rounds(&self) -> usize {
        if self.is_quick { 1 } else { 5 }
    }

    fn secs(&self, whole: f64) -> Duration {
        Duration::from_secs_f64(if self.is_quick { whole / 2.0 } else { whole })
    }

    async fn both(&mut self, name: &str, plan: Plan, ours: &mut impl Stack, theirs: &mut impl Stack) -> Done<Rounds> {
        let mut rounds = Rounds { outrigger: Vec::new(), ldk: Vec::new() };
        for number in 0..self.rounds() {
            let our = round(ours, plan).await?;
            let their = round(theirs, Plan { most_per_second: plan.most_per_second.min(600), ..plan }).await?;
            for (side, it) in [("outrigger", &our), ("ldk", &their)] {
                eprintln!(
                    "{name} round {number} {side}: {:.0}/s, hub {:.2} ms, all {:.2} ms, syncs hub {:.2} all {:.2}, p50 {:.1} ms p99 {:.1} ms, paid {}",
                    it.per_second(),
                    it.hub_ms(),
                    it.all_ms(),
                    it.hub_syncs_each(),
                    it.all_syncs_each(),
                    it.latency_ms(0.5),
                    it.latency_ms(0.99),
                    it.paid
                );
            }
            rounds.outrigger.push(our);
            rounds.ldk.push(their);
        }
        Ok(rounds)
    }

    fn note(
        &mut self,
        name: &str,
        unit: &'static str,
        more_is_better: bool,
        rounds: &Rounds,
        of: impl Fn(&Round) -> f64,
    ) {
        let figure = Figure {
            name: name.to_owned(),
            unit,
            outrigger: rounds.outrigger.iter().map(&of).collect(),
            ldk: rounds.ldk.iter().map(&of).collect(),
            more_is_better,
        };
        eprintln!("{}", figure.row());
        self.figures.push(figure);
    }

    /// A hub between `many` senders and as many receivers.
    async fn relay(&mut self, many: usize) -> Done<()> {
        let shape = Shape::Hub(many);
        let directory = self.directory.join(format!("relay-{many}"));
        let mut ours = Outrigger::start(&directory, self.bitcoind, shape, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, shape, AMOUNT_MSAT, Pace::Background).await?;
        let costs = [("native", SyncCost::Native), ("sync4ms", SyncCost::More(4000)), ("nosync", SyncCost::Nothing)];
        for (label, cost) in costs {
            let name = format!("relay_{many}_{label}");
            let of_native = label == "native" && self.wants(&["relay_8_cpu"]);
            if !of_native && !self.wants(&[&name]) {
                continue;
            }
            let time = self.secs(4.0);
            let plan = Plan { window: 32, cost, warm: Duration::from_secs(1), time, most_per_second: 1600 / many };
            let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
            self.note(&name, "payments/s", true, &rounds, Round::per_second);
            if label == "native" {
                self.note(
                    &format!("relay_{many}_cpu"),
                    "ms of the hub's processor each",
                    false,
                    &rounds,
                    Round::hub_ms,
                );
                self.note(&format!("relay_{many}_memory"), "MB resident in the hub", false, &rounds, Round::hub_mb);
            }
            self.note(
                &format!("relay_{many}_syncs_{label}"),
                "syncs of the hub each",
                false,
                &rounds,
                Round::hub_syncs_each,
            );
        }
        Ok(())
    }

    /// The machine, and what a sync of its disk takes.
    pub(crate) fn machine(&self) -> Done<String> {
        let sync = sync_ms(&self.directory)?;
        Ok(format!("{}; a write of 4 KiB and its sync take {sync:.2} ms", description()))
    }

    /// One channel.
    async fn pair(&mut self) -> Done<()> {
        let directory = self.directory.join("pair");
        let mut ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::Background).await?;
        for (label, cost) in [("native", SyncCost::Native), ("sync4ms", SyncCost::More(4000))] {
            let name = format!("one_channel_32_{label}");
            if self.wants(&[&name]) {
                let time = self.secs(2.0);
                let plan = Plan { window: 32, cost, warm: Duration::from_millis(500), time, most_per_second: 1500 };
                let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
                self.note(&name, "payments/s", true, &rounds, Round::per_second);
            }
            let name = format!("latency_{label}");
            if self.wants(&[&name]) {
                let time = self.secs(3.0);
                let plan = Plan { window: 1, cost, warm: Duration::from_millis(300), time, most_per_second: 400 };
                let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
                self.note(&name, "ms, median", false, &rounds, |round| round.latency_ms(0.5));
            }
        }
        Ok(())
    }
}
