//! One channel: many payments in flight, and one at a time.

use std::time::Duration;

use outrigger_integration::Done;

use super::{AMOUNT_MSAT, DUST_MSAT, PER_SECOND, Run};
use crate::ldk::{Ldk, Pace};
use crate::outrigger::Outrigger;
use crate::shape::Shape;
use crate::stack::{Plan, Round, Stack};
use crate::sync::SyncCost;

const COSTS: [(&str, SyncCost); 3] =
    [("native", SyncCost::Native), ("sync4ms", SyncCost::More(4000)), ("nosync", SyncCost::Nothing)];

/// Payments in flight of the sweep.
pub(crate) const FLIGHTS: [usize; 5] = [1, 8, 50, 100, 400];

impl<'a> Run<'a> {
    /// 32 payments in flight.
    pub(super) async fn one_channel(&mut self) -> Done<()> {
        let (mut ours, mut theirs) = self.pair("one-channel").await?;
        for (label, cost) in COSTS {
            let name = format!("one_channel_32_{label}");
            let rounds = self.both(&name, self.flight_plan(32, cost, 2.0), &mut ours, &mut theirs).await?;
            self.note(&name, PER_SECOND, true, &rounds, Round::per_second);
            if cost != SyncCost::Nothing {
                let (name, unit) = (format!("one_channel_32_syncs_{label}"), "syncs of both ends each");
                self.note(&name, unit, false, &rounds, Round::all_syncs_each);
            }
            if cost == SyncCost::Native {
                let unit = "commitments signed each, by both ends";
                self.note_where_told("one_channel_32_commitments", unit, &rounds, Round::commitments_each);
            }
        }
        ours.set_amount(DUST_MSAT).await?;
        theirs.set_amount(DUST_MSAT).await?;
        let plan = self.flight_plan(32, SyncCost::Native, 2.0);
        let rounds = self.both("one_channel_32_dust", plan, &mut ours, &mut theirs).await?;
        self.note("one_channel_32_dust", PER_SECOND, true, &rounds, Round::per_second);
        Ok(())
    }

    /// One payment at a time.
    pub(super) async fn latency(&mut self) -> Done<()> {
        let (mut ours, mut theirs) = self.pair("latency").await?;
        let directory = self.directory.join("latency").join("at-once");
        let mut at_once = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::AtOnce).await?;
        for (label, cost) in COSTS {
            let name = format!("latency_{label}");
            let (warm, time) = (Duration::from_millis(300), self.secs(2.5));
            let plan = Plan { window: 1, cost, warm, time, most_per_second: 500 };
            let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
            self.note(&name, "ms, median", false, &rounds, |round| round.latency_ms(0.5));
            self.note(&format!("{name}_p99"), "ms", false, &rounds, |round| round.latency_ms(0.99));
            if cost == SyncCost::Native {
                let name = format!("{name}_beside_at_once");
                let rounds = self.both(&name, plan, &mut ours, &mut at_once).await?;
                self.note(&name, "ms, median", false, &rounds, |round| round.latency_ms(0.5));
            }
        }
        Ok(())
    }

    /// More and more payments in flight.
    pub(super) async fn flight(&mut self) -> Done<()> {
        let (mut ours, mut theirs) = self.pair("flight").await?;
        for window in FLIGHTS {
            let name = format!("flight_{window}");
            let plan = self.flight_plan(window, SyncCost::Native, 1.5);
            let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
            self.note(&name, PER_SECOND, true, &rounds, Round::per_second);
        }
        Ok(())
    }

    async fn pair(&self, directory: &str) -> Done<(Outrigger<'a>, Ldk)> {
        let directory = self.directory.join(directory);
        let ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        Ok((ours, Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::Background).await?))
    }

    fn flight_plan(&self, window: usize, cost: SyncCost, secs: f64) -> Plan {
        Plan { window, cost, warm: Duration::from_millis(500), time: self.secs(secs), most_per_second: 2000 }
    }
}
