//! A file that its own start finds to be old. What a peer or the chain proves while the node runs is an effect of a step
//! (`drive.rs`).

use outrigger_channel::Phase;

use super::Manager;
use super::drive::RESTORED;
use super::env::found_old;
use super::peer::Slot;

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
        if !self.env.enter_restored(proof, found_old(proof)) {
            return;
        }
        tracing::error!(%proof, "{RESTORED}");
        for peer in self.directory.ids() {
            // A peer that is forgotten meanwhile has no channel.
            self.post(&peer, super::Mail::Restored);
        }
    }
}
