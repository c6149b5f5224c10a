//! Preimages that a downstream channel must keep in a sink for as long as the upstream channel is not complete there.
//!
//! A preimage is learned in one commit: a row of the downstream channel's monitor, and the settlement of the upstream channel. The
//! downstream one is forgotten soon. A sink that has that, and not yet the settlement, would have lost the preimage.

use std::collections::BTreeMap;

use outrigger_bolt::id::ChannelId;

use super::image::Update;
use crate::store::row::{Downstream, SettlementRow};
use crate::store::schema::{Table, parse_numbered_key, preimage_key};

/// One preimage, and whom it is kept for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preimage {
    pub(super) upstream: ChannelId,
    /// The id at which the upstream channel's rows have it.
    pub(super) id: u64,
    /// The key of its row under the downstream channel.
    pub(super) key: Vec<u8>,
    pub(super) preimage: [u8; 32],
}

/// By downstream channel and upstream HTLC, for as long as there is a settlement.
#[derive(Debug, Default)]
pub(super) struct Owed {
    preimages: BTreeMap<(ChannelId, ChannelId, u64), Preimage>,
    /// Where the settlement of an upstream HTLC came from.
    downstream: BTreeMap<(ChannelId, u64), ChannelId>,
}

impl Owed {
    /// Takes in what a commit decided or forgot of the channel's received HTLCs.
    pub(super) fn take_in(&mut self, update: &Update) {
        for change in update.changes.iter().filter(|change| change.table == Table::Settlement) {
            let Some((upstream, htlc_id)) = parse_numbered_key(&change.key) else { continue };
            let row = change.value.as_deref().and_then(|row| SettlementRow::decode(row).ok());
            match row {
                Some(row) => self.settled((upstream, htlc_id), update.id, &row),
                None => self.forget((upstream, htlc_id)),
            }
        }
    }

    /// A received HTLC has this outcome, since this id of its channel.
    pub(super) fn settled(&mut self, (upstream, htlc_id): (ChannelId, u64), id: u64, row: &SettlementRow) {
        let SettlementRow::FulfilledDownstream(preimage, Downstream { channel, .. }) = row else { return };
        let key = preimage_key(channel, &preimage.payment_hash());
        self.downstream.insert((upstream, htlc_id), *channel);
        let owed = Preimage { upstream, id, key, preimage: preimage.0 };
        self.preimages.insert((*channel, upstream, htlc_id), owed);
    }

    /// What the channel is to keep for others.
    pub(super) fn of(&self, channel: &ChannelId) -> Vec<Preimage> {
        let all = (*channel, ChannelId([0; 32]), 0)..=(*channel, ChannelId([u8::MAX; 32]), u64::MAX);
        self.preimages.range(all).map(|(_, owed)| owed.clone()).collect()
    }

    fn forget(&mut self, (upstream, htlc_id): (ChannelId, u64)) {
        if let Some(channel) = self.downstream.remove(&(upstream, htlc_id)) {
            self.preimages.remove(&(channel, upstream, htlc_id));
        }
    }
}
