//! Onions that were processed (BOLT 4, "Onion Packet", `hmac` has previously been received; FWD-17).
//!
//! The set is keyed by the digest of the shared secret, and each entry names its HTLC: an HTLC that a start tells of again,
//! or that goes to another peer because it was never signed, is no replay.

use std::collections::HashSet;

use bitcoin::hashes::{Hash, sha256};

use super::register::HtlcName;
use crate::lock::Mutex;
use crate::store::replay::ReplayRow;
use crate::store::schema::{Table, replay_height_key};
use crate::store::{Batch, Queued, Reader, StoreError};

/// Blocks from now at which an HTLC or its onion may expire at most: beyond, the HTLC is failed before its onion counts as
/// processed, so that no entry stays for longer.
pub(super) const MAX_EXPIRY_BLOCKS: u32 = 2016;

/// Expired entries that a new one takes away: more than one, so that the set shrinks.
const PRUNED_PER_ENTRY: usize = 2;

/// The digest of a shared secret; the secret itself stays out of the file.
type OnionDigest = [u8; 32];

/// Why an onion is not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manager) enum Unprocessed {
    /// The HTLC or its onion expires later than anybody needs (BOLT 4, `expiry_too_far`).
    TooFar,
    /// It was processed for another HTLC.
    Replay,
}

/// Whether an onion was in the set before, for the same HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manager) enum Seen {
    First,
    Before,
}

/// The set: the part whose rows are on their way to the file, and the file.
#[derive(Debug, Default)]
pub(in crate::manager) struct Onions {
    claims: Mutex<Claims>,
}

#[derive(Debug, Default)]
struct Claims {
    queued: Queued<OnionDigest, HtlcName>,
    /// Onions for which somebody looks into the file. Nobody else queues them meanwhile.
    looked_up: HashSet<OnionDigest>,
}

impl Onions {
    /// Enters the onion with this shared secret into the set, for this HTLC, in `batch`; and takes expired entries away.
    /// `expiry` is that of the HTLC, or of its payload where that is later: after it the onion fails by itself.
    pub(in crate::manager) fn process(
        &self,
        (batch, reader): (&mut Batch, &Reader),
        shared_secret: &[u8; 32],
        htlc: HtlcName,
        (expiry, height): (u32, u32),
    ) -> Result<Result<Seen, Unprocessed>, StoreError> {
        if expiry > height.saturating_add(MAX_EXPIRY_BLOCKS) {
            return Ok(Err(Unprocessed::TooFar));
        }
        let onion = sha256::Hash::hash(shared_secret).to_byte_array();
        let all_expired = reader.expired_replays(height, PRUNED_PER_ENTRY)?;
        let Some(seen) = self.claim(reader, onion, htlc, batch)? else {
            return Ok(Err(Unprocessed::Replay));
        };
        for (height, expired) in all_expired {
            batch.put(Table::Replay, expired.to_vec(), None);
            batch.put(Table::ReplayByHeight, replay_height_key(height, &expired), None);
        }
        let row = ReplayRow { channel: htlc.channel, htlc_id: htlc.htlc_id, until: expiry };
        batch.put(Table::Replay, onion.to_vec(), Some(row.encode()));
        batch.put(Table::ReplayByHeight, replay_height_key(expiry, &onion), Some(Vec::new()));
        Ok(Ok(seen))
    }

    /// Gives the onion to the HTLC; none where another has it. Of two peers that bring one onion at the same time only one is
    /// first, and neither waits for the file of the other's: the lock is not held while it is read (law 3).
    fn claim(
        &self,
        reader: &Reader,
        onion: OnionDigest,
        htlc: HtlcName,
        batch: &mut Batch,
    ) -> Result<Option<Seen>, StoreError> {
        let (queued, is_first) = {
            let mut claims = self.claims.lock();
            let queued = claims.queued.get(&onion);
            (queued, queued.is_none() && claims.looked_up.insert(onion))
        };
        let known = match queued {
            Some(name) => Ok(Some(name)),
            // What was queued before, and is no more, is in the file.
            None => {
                reader.replay(&onion).map(|row| row.map(|row| HtlcName { channel: row.channel, htlc_id: row.htlc_id }))
            }
        };
        let mut claims = self.claims.lock();
        if is_first {
            claims.looked_up.remove(&onion);
        }
        let seen = match known? {
            Some(name) if name != htlc => return Ok(None),
            Some(_) => Seen::Before,
            // Whoever looks it up too was before it.
            None if !is_first => return Ok(None),
            None => Seen::First,
        };
        claims.queued.add(onion, htlc, batch);
        Ok(Some(seen))
    }
}
