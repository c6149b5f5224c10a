//! Onions that were processed (BOLT 4, "Onion Packet", `hmac` has previously been received; FWD-17).
//!
//! The set is keyed by the digest of the shared secret, and each entry names its HTLC: an HTLC that a start tells of again
//! is no replay.

use super::Payments;
use super::decisions::HtlcName;
use crate::store::replay::ReplayRow;
use crate::store::schema::{Table, replay_height_key};
use crate::store::{Batch, StoreError};
use bitcoin::hashes::{Hash, sha256};

/// Blocks from now at which an HTLC or its onion may expire at most: beyond, the HTLC is failed before its onion counts as
/// processed, so that no entry stays for longer.
const MAX_EXPIRY_BLOCKS: u32 = 2016;

/// Expired entries that a new one takes away: more than one, so that the set shrinks.
const PRUNED_PER_ENTRY: usize = 2;

/// The digest of a shared secret; the secret itself stays out of the file.
pub(super) type OnionDigest = [u8; 32];

/// An onion that is processed for an HTLC, and the height at which both have expired: after that the onion fails by its
/// own expiry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processed {
    pub(super) onion: OnionDigest,
    until: u32,
}

/// Why an onion is not processed.
#[derive(Debug)]
pub(super) enum Unprocessed {
    /// The HTLC or its onion expires later than anybody needs (BOLT 4, `expiry_too_far`).
    TooFar,
    /// It was processed for another HTLC.
    Replay,
}

impl Payments {
    /// Whether the onion with this shared secret may be processed for the HTLC. `expiry` is that of the HTLC, or of its
    /// payload where that is later.
    pub(super) fn process(
        &self,
        shared_secret: &[u8; 32],
        htlc: &HtlcName,
        expiry: u32,
    ) -> Result<Result<Processed, Unprocessed>, StoreError> {
        if expiry > self.manager.env().chain.height().saturating_add(MAX_EXPIRY_BLOCKS) {
            return Ok(Err(Unprocessed::TooFar));
        }
        let onion = sha256::Hash::hash(shared_secret).to_byte_array();
        // Asked before the file is: what is no longer on its way is found there.
        let on_its_way = self.state.lock().decisions.processed_for(&onion);
        let processed_for = match on_its_way {
            Some(name) => Some(name),
            None => self.reader.replay(&onion)?.map(|row| (row.channel, row.htlc_id)),
        };
        let is_replay = processed_for.is_some_and(|name| name != *htlc);
        Ok(if is_replay { Err(Unprocessed::Replay) } else { Ok(Processed { onion, until: expiry }) })
    }

    /// Stages the entry of an onion, and takes expired ones away.
    pub(super) fn stage_processed(
        &self,
        batch: &mut Batch,
        processed: &Processed,
        (channel, htlc_id): HtlcName,
    ) -> Result<(), StoreError> {
        let height = self.manager.env().chain.height();
        for (height, expired) in self.reader.expired_replays(height, PRUNED_PER_ENTRY)? {
            batch.put(Table::Replay, expired.to_vec(), None);
            batch.put(Table::ReplayByHeight, replay_height_key(height, &expired), None);
        }
        let Processed { onion, until } = *processed;
        let row = ReplayRow { channel, htlc_id, until };
        batch.put(Table::Replay, onion.to_vec(), Some(row.encode()));
        batch.put(Table::ReplayByHeight, replay_height_key(until, &onion), Some(Vec::new()));
        Ok(())
    }
}
