//! A file that its own start finds to be old. What a peer or the chain proves while the node runs is an effect of a step
//! (`drive.rs`).

use serde_json::json;

use outrigger_channel::Phase;

use super::Manager;
use super::drive::RESTORED;
use super::peer::Slot;
use crate::clock::Clock;
use crate::store::Batch;
use crate::store::row::EventRow;
use crate::store::schema::{RESTORED_KEY, Table};

/// What an operator is told of a channel that under restored mode waits for its peer, and can do by hand: nobody but the peer
/// may publish a commitment (BAK-4).
pub(super) fn waits_for_peer(slot: &Slot) -> Option<String> {
    let Phase::Failed { spend: None, .. } = slot.channel.phase() else { return None };
    let params = &slot.channel.rows().params;
    Some(format!(
        "the peer alone can close the channel now, and is asked to on each connection. If it never does, ask whoever runs {} to \
         force-close the channel with funding output {}; peer.connect with its address asks it again at once",
        params.peer, params.funding
    ))
}

impl Manager {
    /// A backup has proved that the file is an old copy: restored mode holds from here on, and becomes a row and an event.
    pub fn prove_old(&self, proof: &str) {
        if self.env.is_restored() {
            return;
        }
        self.env.enter_restored(proof);
        self.tell_of_old_file();
        for peer in self.directory.ids() {
            // A peer that is forgotten meanwhile has no channel.
            self.post(&peer, super::Mail::Restored);
        }
    }

    /// The proof that the start found becomes a row, for good, and an event. It holds from before that on.
    pub fn tell_of_old_file(&self) {
        let Some(proof) = self.env.restored().borrow().clone() else { return };
        tracing::error!(%proof, "{RESTORED}");
        let mut batch = Batch::default();
        batch.put(Table::Meta, RESTORED_KEY.to_vec(), Some(proof.as_bytes().to_vec()));
        batch.event(EventRow::new(Clock::now_unix(), "node_restored", json!({ "message": &*proof })));
        self.env.writer.submit(batch);
    }
}
