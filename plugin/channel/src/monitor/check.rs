//! What must hold between the rows of a monitor, and between them and the channel's.

use outrigger_bolt::keys::{SecretSlot, SecretStore};

use crate::changes::{ChannelRows, MonitorRows, Phase};
use crate::row::CorruptRows;

/// The peer's secrets, if each of them follows from its successors.
pub(super) fn secrets(rows: &MonitorRows) -> Result<SecretStore, CorruptRows> {
    let slots = rows.secrets.iter().map(|(slot, (number, secret))| SecretSlot {
        slot: *slot,
        number: *number,
        secret: *secret,
    });
    SecretStore::from_slots(slots).map_err(|_| CorruptRows("the peer's secrets do not form one chain"))
}

/// The commitments follow each other.
pub(super) fn rows(rows: &MonitorRows) -> Result<(), CorruptRows> {
    let head = &rows.head;
    let follows = head.remote_next.as_ref().is_none_or(|next| next.number.checked_sub(1) == Some(head.remote.number));
    require(follows, "the peer's next commitment does not follow its current one")?;
    require(head.next_secret_number == head.remote.number, "the peer's secrets and commitments do not meet")?;
    let newest_secret = rows.secrets.values().map(|(number, _)| *number).max();
    require(newest_secret == head.next_secret_number.checked_sub(1), "the peer's newest secret is missing")?;
    let foreign = rows.htlc_signatures.keys().any(|number| *number != head.local.number);
    require(!foreign, "HTLC signatures of another commitment than the newest")?;
    let before = head.local.number.checked_sub(1);
    let closing = head
        .replaced
        .as_ref()
        .map_or(Some(head.local.number), |replaced| before.filter(|before| *before == replaced.commitment.number));
    require(
        if head.replaced.is_some() {
            head.closing.is_some() && head.closing == closing
        } else {
            head.closing.is_none_or(|number| Some(number) == closing)
        },
        "the commitment that is published is neither the newest nor the one before it",
    )?;
    let is_kept = head.failed && !head.may_publish && head.closing.is_some();
    require(!head.reserved || is_kept, "a commitment is reserved for a channel that has not failed")?;
    require(rows.taken.is_empty() || rows.spend.is_some(), "outputs taken from a spend that is not there")?;
    require(
        rows.preimages.iter().all(|(hash, preimage)| preimage.payment_hash() == *hash),
        "a preimage of another hash",
    )
}

/// What channel and monitor both know is the same.
pub(super) fn against(monitor: &MonitorRows, channel: &ChannelRows) -> Result<(), CorruptRows> {
    let (ours, theirs) = (&monitor.head, &channel.head);
    require(monitor.params == channel.params, "channel and monitor disagree on their parameters")?;
    require(monitor.htlcs == channel.htlcs, "channel and monitor disagree on their HTLCs")?;
    let local = (ours.local.number, ours.local.feerate, ours.local.to_local, ours.local.to_remote);
    let totals = &theirs.local_commitment;
    require(
        local == (theirs.local_number, theirs.fee.local, totals.to_local, totals.to_remote),
        "channel and monitor disagree on the local commitment",
    )?;
    let newest = ours.remote_next.as_ref().unwrap_or(&ours.remote);
    let remote = (newest.number, newest.point, newest.feerate, newest.to_local, newest.to_remote);
    let totals = &theirs.remote_commitment;
    let revoking = ours.remote_next.as_ref().map(|_| ours.remote.point);
    require(
        remote == (theirs.remote_number, theirs.remote_point, theirs.fee.remote, totals.to_local, totals.to_remote)
            && revoking == theirs.revoking_point,
        "channel and monitor disagree on the remote commitment",
    )?;
    let newest_secret = monitor.secrets.values().max_by_key(|(number, _)| *number).map(|(_, secret)| *secret);
    require(newest_secret == theirs.last_remote_secret, "channel and monitor disagree on the peer's newest secret")?;
    let (spend, failed_spend) = match &theirs.phase {
        Phase::Failed { spend, .. } => (*spend, monitor.spend.as_ref()),
        // A close that both signed is the channel's alone.
        Phase::Funding(_)
        | Phase::Normal
        | Phase::ShuttingDown { .. }
        | Phase::Closing { .. }
        | Phase::Closed { .. } => (None, monitor.spend.as_ref()),
    };
    require(
        spend == failed_spend.map(|spend| (spend.tx.compute_txid(), spend.height)),
        "channel and monitor disagree on what spends the funding output",
    )?;
    let failed = match theirs.phase {
        Phase::Failed { publish, reserved, .. } => Some((publish, reserved)),
        Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } | Phase::Closing { .. } => None,
        // What came before is no longer told.
        Phase::Closed { .. } => ours.failed.then_some((ours.may_publish, ours.reserved)),
    };
    require(
        failed == ours.failed.then_some((ours.may_publish, ours.reserved)),
        "channel and monitor disagree on a failure",
    )?;
    // Last: what comes before tells rows of two files from rows of one that miss updates.
    if ours.update_id == theirs.monitor_update_id { Ok(()) } else { Err(CorruptRows::UPDATE_GAP) }
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), CorruptRows> {
    if holds { Ok(()) } else { Err(CorruptRows(otherwise)) }
}
