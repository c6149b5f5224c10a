//! A hub that relays between senders and receivers.

use std::time::Duration;

use outrigger_integration::Done;

use super::{AMOUNT_MSAT, DUST_MSAT, PER_SECOND, Rounds, Run};
use crate::ldk::{Ldk, Pace};
use crate::machine::{busy_verify_micros, curve_micros};
use crate::outrigger::Outrigger;
use crate::shape::Shape;
use crate::stack::{Plan, Round, Stack};
use crate::sync::SyncCost;

const HUB_MS: &str = "ms of the hub's processor each";
const HUB_SYNCS: &str = "syncs of the hub each";

impl<'a> Run<'a> {
    /// Eight senders and eight receivers, at all costs of a sync, and with dust.
    pub(super) async fn relay_8(&mut self) -> Done<()> {
        let (mut ours, mut theirs) = self.hub(8).await?;
        for (label, cost) in
            [("native", SyncCost::Native), ("sync4ms", SyncCost::More(4000)), ("nosync", SyncCost::Nothing)]
        {
            let name = format!("relay_8_{label}");
            let rounds = self.both(&name, self.relay_plan(8, cost, 2.5), &mut ours, &mut theirs).await?;
            self.note(&name, PER_SECOND, true, &rounds, Round::per_second);
            self.note(&format!("relay_8_syncs_{label}"), HUB_SYNCS, false, &rounds, Round::hub_syncs_each);
            if cost == SyncCost::Native {
                self.costs_of_the_hub(&rounds)?;
            }
        }
        ours.set_amount(DUST_MSAT).await?;
        theirs.set_amount(DUST_MSAT).await?;
        let plan = self.relay_plan(8, SyncCost::Native, 2.5);
        let rounds = self.both("relay_8_dust", plan, &mut ours, &mut theirs).await?;
        self.note("relay_8_dust", PER_SECOND, true, &rounds, Round::per_second);
        self.note("relay_8_dust_cpu", HUB_MS, false, &rounds, Round::hub_ms);
        Ok(())
    }

    fn costs_of_the_hub(&mut self, rounds: &Rounds) -> Done<()> {
        self.note("relay_8_cpu", HUB_MS, false, rounds, Round::hub_ms);
        self.note("relay_8_memory", "MB resident in the hub", false, rounds, Round::hub_mb);
        let [_, verify, _] = curve_micros()?;
        let verifications = |round: &Round| round.hub_ms() * 1e3 / verify;
        let unit = "verifications' worth of the hub's processor each";
        self.note("relay_8_verifications", unit, false, rounds, verifications);
        let unit = "commitments signed each, by and for the hub";
        self.note_where_told("relay_8_commitments", unit, rounds, Round::commitments_each);
        let unit = "times the curve work that the same batching cannot save";
        self.note_where_told("relay_8_times_floor", unit, rounds, |round| {
            Some(verifications(round) / curve_floor(round.commitments_each()?))
        });
        let busy = busy_verify_micros()?;
        let unit = "the same, by a verification with every processor at it";
        self.note_where_told("relay_8_times_floor_busy", unit, rounds, |round| {
            Some(round.hub_ms() * 1e3 / busy / curve_floor(round.commitments_each()?))
        });
        Ok(())
    }

    /// As many senders and receivers as each of these says, at the disk's own syncs.
    pub(super) async fn relay_sweep(&mut self, sizes: &[usize]) -> Done<()> {
        for many in sizes {
            let (mut ours, mut theirs) = self.hub(*many).await?;
            let name = format!("relay_{many}_native");
            let plan = self.relay_plan(*many, SyncCost::Native, 2.0);
            let rounds = self.both(&name, plan, &mut ours, &mut theirs).await?;
            self.note(&name, PER_SECOND, true, &rounds, Round::per_second);
            self.note(&format!("relay_{many}_cpu"), HUB_MS, false, &rounds, Round::hub_ms);
        }
        Ok(())
    }

    async fn hub(&self, many: usize) -> Done<(Outrigger<'a>, Ldk)> {
        let shape = Shape::Hub(many);
        let directory = self.directory.join(format!("relay-{many}"));
        let ours = Outrigger::start(&directory, self.bitcoind, shape, AMOUNT_MSAT).await?;
        Ok((ours, Ldk::start(&directory, shape, AMOUNT_MSAT, Pace::Background).await?))
    }

    fn relay_plan(&self, many: usize, cost: SyncCost, secs: f64) -> Plan {
        let warm = Duration::from_secs(1);
        Plan { window: 32, cost, warm, time: self.secs(secs), most_per_second: 1500 / many }
    }
}

/// Verifications' worth of curve work that a hub cannot save for a payment, with so many commitments signed for it. One that
/// is relayed alone takes eight, four on each channel, and 44 verifications' worth; where HTLCs share commitments, what
/// each commitment costs is shared and 5.6 are left for the HTLC itself (ADR 10).
fn curve_floor(commitments: f64) -> f64 {
    const OF_HTLC: f64 = 5.6;
    const OF_COMMITMENT: f64 = 4.8;
    OF_HTLC + OF_COMMITMENT * commitments
}

#[cfg(test)]
mod tests {
    use super::curve_floor;

    #[test]
    fn the_floor_is_that_of_the_measured_batchings() {
        for (sharing, verifications) in [(1.0, 44.0), (10.0, 9.5), (50.0, 6.4), (100.0, 6.0), (483.0, 5.7)] {
            let found = curve_floor(8.0 / sharing);
            assert!((found - verifications).abs() < 0.1, "{sharing}: {found} beside {verifications}");
        }
    }
}
