//! A start after `kill -9` beside one after a good end, of a node with many channels that have a long history. What they did
//! is written into the stopped node's database by `grow-history`: as payments it would take hours.

use std::path::PathBuf;
use std::time::Duration;

use outrigger_integration::Done;
use tokio::process::Command;

use super::{AMOUNT_MSAT, Run};
use crate::outrigger::Outrigger;
use crate::shape::Shape;
use crate::stack::Stack;
use crate::sync::SyncCost;

/// How many channels there are beside the one that pays.
const CHANNELS: usize = 1000;

/// HTLCs in the history of each: an HTLC is two updates, one that adds it and one that removes it.
const HTLCS: usize = 5000;

/// How long payments flow before a kill.
const FLOW: Duration = Duration::from_secs(2);

const WINDOW: usize = 32;

impl Run<'_> {
    /// Of Outrigger alone: the figure to reach is one of its own.
    pub(super) async fn start_killed(&mut self) -> Done<()> {
        let directory = self.directory.join("killed");
        let mut stack = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        at_cost(&stack, SyncCost::Nothing)?;
        let scale = if self.is_quick { 100 } else { 1 };
        stack.more_channels(CHANNELS / scale).await?;
        let bytes = grow(&mut stack, HTLCS / scale).await?;
        at_cost(&stack, SyncCost::Native)?;
        let (mut clean, mut killed) = (Vec::new(), Vec::new());
        while self.has_time(clean.len()) {
            clean.push(stack.restart().await?);
            stack.supply(1500 * 3).await?;
            stack.start(WINDOW).await?;
            tokio::time::sleep(FLOW).await;
            killed.push(stack.killed().await?);
            eprintln!("start_killed round {}: {:?} s clean, {:?} s killed", clean.len(), clean.last(), killed.last());
        }
        let growth = killed.iter().zip(&clean).map(|(killed, clean)| killed / clean).collect();
        self.put_of_outrigger("start_killed_clean", "s", clean);
        self.put_of_outrigger("start_killed", "s", killed);
        self.put_of_outrigger("start_killed_growth", "times a start after a good end", growth);
        self.put_of_outrigger("start_killed_size", "MB of the database", vec![bytes as f64 / 1e6]);
        Ok(())
    }
}

fn at_cost(stack: &impl Stack, cost: SyncCost) -> Done<()> {
    stack.watched().iter().try_for_each(|watched| watched.sync.set(cost))
}

/// Gives each channel of the first node so many HTLCs that are long over; how large its database is then, in bytes.
async fn grow(stack: &mut Outrigger<'_>, htlcs: usize) -> Done<u64> {
    let program: PathBuf =
        std::env::var_os("OUTRIGGER_BENCH_GROW").ok_or("run contrib/bench: it builds what makes histories")?.into();
    let (network, node_id) = (stack.sidecar(0).directory().join("regtest"), stack.sidecar(0).node_id().await?);
    stack
        .restarted_after(async || {
            let status = Command::new(&program).arg(&network).args(["regtest", &node_id, &htlcs.to_string()]).status();
            match status.await? {
                ended if ended.success() => Ok(()),
                ended => Err(format!("{} ended with {ended}", program.display()).into()),
            }
        })
        .await?;
    Ok(std::fs::metadata(network.join("outrigger.redb"))?.len())
}
