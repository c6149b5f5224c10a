//! Whether a peer feels that another peer's channel waits for a backup: its payments, one at a time, before and while a required sink
//! does not complete what it is given of the other's channel.

use std::path::Path;
use std::time::{Duration, Instant};

use outrigger_integration::{Done, until};
use outrigger_rpc_schema::{BackupStatus, ChannelList};

use super::super::{AMOUNT_MSAT, Run};
use crate::outrigger::{Backup, Outrigger};
use crate::shape::Shape;
use crate::sink;
use crate::stack::Stack;
use crate::sync::SyncCost;

const HUB: usize = 0;
/// The peer whose payments are measured, and whom it pays.
const QUIET: (usize, usize) = (1, 2);
/// The peer whose channel waits, and whom it pays.
const WAITING: (usize, usize) = (3, 4);

/// Calls to one daemon by each of two streams.
const CALLS: usize = 12;

/// How long the sink completes nothing of the other's channel: half of what a channel may wait before it takes no new payments.
const STALL: Duration = Duration::from_secs(10);

const LIMIT: Duration = Duration::from_secs(20);

impl Run<'_> {
    /// Of Outrigger alone: the figure to reach is one of its own.
    pub(in crate::scenarios) async fn sinks_stalled(&mut self) -> Done<()> {
        let directory = self.directory.join("sinks-stalled");
        let mut hub = Outrigger::start(&directory, self.bitcoind, Shape::Hub(2), AMOUNT_MSAT).await?;
        let place = hub.new_place()?;
        hub.keep(&Backup::Command(sink::command(&place)?), &place).await?;
        hub.watched().iter().try_for_each(|watched| watched.sync.set(SyncCost::Native))?;
        let waiting = channels_with(&hub, WAITING.0).await?;
        let mut quiet = hub.stream(QUIET.0, QUIET.1, CALLS);
        // The first payments of a start are slower.
        self.median_of(&mut quiet, self.secs(2.0)).await?;
        let stall = if self.is_quick { Duration::from_secs(1) } else { STALL };
        let (mut before, mut meanwhile, mut waited) = (Vec::new(), Vec::new(), Vec::new());
        while self.has_time(before.len()) {
            before.push(self.median_of(&mut quiet, self.secs(3.0)).await?);
            let mut other = hub.stream(WAITING.0, WAITING.1, CALLS);
            other.supply(10, AMOUNT_MSAT).await?;
            // What prepares is no part of the ten seconds.
            quiet.supply((stall.as_secs_f64() * 400.0) as usize, AMOUNT_MSAT).await?;
            sink::hold(&place, &waiting)?;
            let begun = Instant::now();
            other.start(1);
            until_behind(&hub).await?;
            let paid = other.paid();
            meanwhile.push(self.median_of(&mut quiet, stall).await?);
            if other.paid() > paid {
                return Err("a payment went through a channel that waits".into());
            }
            waited.push(begun.elapsed().as_secs_f64());
            let_go(&hub, &place).await?;
            other.end();
            other.stop(AMOUNT_MSAT).await?;
        }
        let growth = meanwhile.iter().zip(&before).map(|(meanwhile, before)| meanwhile / before).collect();
        let unit = "ms, median of the others";
        self.put_of_outrigger("sinks_stalled_before", unit, before);
        self.put_of_outrigger("sinks_stalled", unit, meanwhile);
        self.put_of_outrigger("sinks_stalled_growth", "times the latency before", growth);
        self.put_of_outrigger("sinks_stalled_waited", "s that the other's payment waited", waited);
        Ok(())
    }
}

/// The names of the hub's channels with a peer.
async fn channels_with(hub: &Outrigger<'_>, peer: usize) -> Done<Vec<String>> {
    let node_id = Some(hub.sidecar(peer).node_id().await?);
    let page = hub.sidecar(HUB).call(ChannelList { node_id, ..Default::default() }).await?;
    Ok(page.items.into_iter().map(|channel| channel.channel_id).collect())
}

async fn lag(hub: &Outrigger<'_>) -> Done<u64> {
    let backups = hub.sidecar(HUB).call(BackupStatus {}).await?.items;
    Ok(backups.iter().map(|backup| backup.lag_updates).sum())
}

async fn until_behind(hub: &Outrigger<'_>) -> Done<()> {
    until(LIMIT, "the channel to wait", async || Ok((lag(hub).await? > 0).then_some(()))).await
}

/// Lets the sink complete everything, and waits until it has.
async fn let_go(hub: &Outrigger<'_>, place: &Path) -> Done<()> {
    sink::hold(place, &[])?;
    until(LIMIT, "the backup to be complete", async || Ok((lag(hub).await? == 0).then_some(()))).await
}
