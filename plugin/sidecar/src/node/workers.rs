//! The threads that visit peers.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use outrigger_bolt::id::NodeId;

use super::spawn;
use crate::manager::Manager;
use crate::manager::workers::Heavy;

/// What a thread that does what takes long adds to its nice value: it has a third of the processor time of one that does not,
/// where both want it, and does not keep it from waking.
const STANDS_BACK_BY: i32 = 5;

/// Lets other threads go first, from now on.
fn stand_back() {
    if let Err(fault) = rustix::process::nice(STANDS_BACK_BY) {
        tracing::warn!(%fault, "a thread with much to do has the same share of the processor as the others");
    }
}

/// Threads that drain mailboxes.
fn worker_count() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// The threads that visit peers.
pub(super) fn spawn_workers(manager: &Arc<Manager>, mailboxes: &Receiver<NodeId>) -> io::Result<()> {
    let heavy = Heavy::default();
    for number in 0..worker_count() {
        let (worker, mailboxes, queue) = (manager.clone(), mailboxes.clone(), heavy.clone());
        spawn(&format!("peers-{number}"), move || worker.work(&mailboxes, &queue))?;
        let (worker, queue) = (manager.clone(), heavy.clone());
        spawn(&format!("heavy-{number}"), move || {
            stand_back();
            worker.work_on_heavy(&queue);
        })?;
    }
    Ok(())
}
