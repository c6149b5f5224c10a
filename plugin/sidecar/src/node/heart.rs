//! What the supervisor is told of the node: its status as it changes, and a beat of its heart for as long as the node goes on.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use outrigger_rpc_schema::{NodeStatusReport, Phase};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::manager::Manager;
use crate::supervisor::Supervisor;

#[cfg(test)]
mod tests;

/// Tells the supervisor the status whenever its line is another, until nobody changes it any more.
pub(super) async fn tell_status(supervisor: &Supervisor, mut statuses: watch::Receiver<NodeStatusReport>) {
    let mut told = None;
    loop {
        let (line, phase) = {
            let status = statuses.borrow_and_update();
            (status_line(&status), status.phase)
        };
        // The end is told by whoever ends.
        if phase != Phase::Stopping && told.as_ref() != Some(&line) {
            supervisor.status(&line);
            told = Some(line);
        }
        if statuses.changed().await.is_err() {
            return;
        }
    }
}

/// Gives the supervisor signs of life, each after `probe` has come through the node. One that does not come through holds back all
/// that would follow, so a node that stands still is ended, and started again.
pub(super) async fn beat<F: Future<Output = ()>>(
    supervisor: &Supervisor,
    statuses: watch::Receiver<NodeStatusReport>,
    probe: impl Fn() -> F,
) {
    let Some(limit) = supervisor.watchdog() else { return };
    loop {
        let mut beat = pin!(probe());
        if timeout(limit / 2, &mut beat).await.is_err() {
            tracing::error!(waited = ?limit / 2, "the node stands still: what is to be written has not become durable, or a peer is not let go");
            supervisor.status(
                "stands still: nothing has become durable for a while, or a peer is not let go. Look at the disk",
            );
            beat.await;
            supervisor.status(&status_line(&statuses.borrow()));
        }
        supervisor.alive();
        sleep(rest(limit)).await;
    }
}

/// The time between two beats: none is late where one takes long.
fn rest(limit: Duration) -> Duration {
    limit / 4
}

/// Comes back once the writer has written what was queued, and each peer was visited: what stands still in either is seen.
pub(super) async fn come_through(manager: Arc<Manager>) {
    manager.env().writer.barrier().await;
    // A panic would have ended the process.
    let _ = tokio::task::spawn_blocking(move || manager.peers().len()).await;
}

/// The status as people read it in one line: phase, progress, and what is wrong.
fn status_line(status: &NodeStatusReport) -> String {
    let NodeStatusReport { phase, reason, block_height, target_height, backups, disk, network, .. } = status;
    let phase = serde_json::to_value(phase).ok();
    let phase = phase.as_ref().and_then(|phase| phase.as_str()).unwrap_or("runs").replace('_', " ");
    let progress = match (block_height, target_height) {
        (Some(height), Some(target)) => format!(", block {height} of {target}"),
        (Some(height), None) => format!(", block {height}"),
        (None, _) => String::new(),
    };
    let reason = reason.iter().chain(backups).chain(disk).map(|words| format!("; {words}")).collect::<String>();
    format!("{network}: {phase}{progress}{reason}")
}
