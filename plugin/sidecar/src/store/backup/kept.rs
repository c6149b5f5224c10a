//! Which rows of a channel a sink keeps: all that a restored node needs to watch the channel, to punish and to claim.

use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_channel::{ChannelParams, Row};
use redb::ReadTransaction;

use super::image::Image;
use crate::store::StoreError;
use crate::store::closed::ClosedRow;
use crate::store::read::unreadable;
use crate::store::schema::Table;
use crate::store::seal::unseal;

/// The tables, and the number by which images and updates name each: an odd one that is not known may be skipped, an even one
/// must be understood. The key of each row begins with the channel's name, but for `peer_address`, which an image has for its peer.
///
/// Not kept: `onion`, since a restored node relays and receives nothing; `channel_update` and `forwarding_terms`, since it
/// forwards nothing; payments, invoices, events and the wallet, which are no channel's.
const KEPT: &[(u64, Table)] = &[
    (0, Table::ChannelParams),
    (2, Table::ChannelHead),
    (4, Table::Htlc),
    (6, Table::MonitorHead),
    (8, Table::Evidence),
    (10, Table::Secret),
    (12, Table::HtlcSignatures),
    (14, Table::Preimage),
    (16, Table::FundingSpend),
    (18, Table::Taken),
    (20, Table::Settlement),
    (22, Table::Sweep),
    (24, Table::Broadcast),
    (26, Table::ClosedChannel),
    (PEER_ADDRESS, Table::PeerAddress),
    (FOLLOWED, Table::Followed),
];

/// May be skipped: a restored node finds its peer another way.
const PEER_ADDRESS: u64 = 1;

/// May be skipped: without it the chain is followed from the newest record of the tip.
const FOLLOWED: u64 = 3;

/// The number by which a row of this table is named, where it is kept.
pub(super) fn number_of(table: Table) -> Option<u64> {
    KEPT.iter().find(|(_, kept)| *kept == table).map(|(number, _)| *number)
}

/// The table of this number.
pub(super) fn table_of(number: u64) -> Option<Table> {
    KEPT.iter().find(|(kept, _)| *kept == number).map(|(_, table)| *table)
}

/// The tables whose rows belong to one channel.
pub(super) fn tables() -> impl Iterator<Item = Table> {
    KEPT.iter().filter(|(number, _)| *number != PEER_ADDRESS).map(|(_, table)| *table)
}

/// The channel whose row this is, where a sink keeps it. The address of a peer is nobody's: an image takes it in, an update does not.
pub fn channel_of(table: Table, key: &[u8]) -> Option<ChannelId> {
    number_of(table).filter(|number| *number != PEER_ADDRESS)?;
    key.first_chunk().map(|channel| ChannelId(*channel))
}

/// Whether the key is one of this table in the rows of this channel.
pub(super) fn is_of(channel: &ChannelId, table: Table, key: &[u8]) -> bool {
    match channel_of(table, key) {
        Some(found) => found == *channel,
        None => table == Table::PeerAddress && NodeId::from_slice(key).is_ok(),
    }
}

/// The id at which the rows of a channel stand in this transaction; 0 where it has none.
pub fn id_in(transaction: &ReadTransaction, channel: &ChannelId) -> Result<u64, StoreError> {
    let table = transaction.open_table(Table::Persist.definition())?;
    let Some(row) = table.get(channel.0.as_slice())? else { return Ok(0) };
    let row = unseal(Table::Persist, &channel.0, row.value()).map_err(unreadable)?;
    row.try_into().map(u64::from_be_bytes).map_err(|_| unreadable("an id that is no number"))
}

/// Looks at each row that is kept of a channel, table by table in the order of their numbers, keys rising; but for the address of its peer.
pub(in crate::store) fn rows_in(
    transaction: &ReadTransaction,
    channel: &ChannelId,
    mut look: impl FnMut(Table, &[u8], &[u8]),
) -> Result<(), StoreError> {
    for table in tables() {
        let open = transaction.open_table(table.definition())?;
        for entry in open.range(channel.0.as_slice()..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(&channel.0) {
                break;
            }
            look(table, key.value(), unseal(table, key.value(), value.value()).map_err(unreadable)?);
        }
    }
    Ok(())
}

/// The key of the row beside the id of a channel: which local commitment came last, and with which id.
pub(super) fn committed_key(channel: &ChannelId) -> Vec<u8> {
    [channel.0.as_slice(), &[0]].concat()
}

/// The number of the newest local commitment of a channel that came while there was a sink, and the id of the commit that it came
/// with; nothing where there is no such row.
pub(super) fn committed_in(
    transaction: &ReadTransaction,
    channel: &ChannelId,
) -> Result<Option<(u64, u64)>, StoreError> {
    let (key, table) = (committed_key(channel), transaction.open_table(Table::Persist.definition())?);
    let Some(row) = table.get(key.as_slice())? else { return Ok(None) };
    let row = unseal(Table::Persist, &key, row.value()).map_err(unreadable)?;
    let CommittedRow { number, id } = CommittedRow::decode(row).map_err(unreadable)?;
    Ok(Some((number, id)))
}

/// Row beside the id of a channel: its newest local commitment that came while there was a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedRow {
    /// The number of the commitment.
    pub number: u64,
    /// The id of the commit that it came with.
    pub id: u64,
}

impl CommittedRow {
    /// The bytes of the row: both as u64, big-endian.
    pub fn encode(&self) -> Vec<u8> {
        [self.number.to_be_bytes(), self.id.to_be_bytes()].concat()
    }

    /// Reads a row. It has these two fields and nothing else.
    pub fn decode(row: &[u8]) -> Result<Self, &'static str> {
        let (number, id) = row.split_first_chunk().ok_or("a commitment without a number")?;
        let id = id.try_into().map_err(|_| "a commitment without an id")?;
        Ok(Self { number: u64::from_be_bytes(*number), id: u64::from_be_bytes(id) })
    }
}

/// All that is kept of a channel, as it stands in this transaction: no lock is needed, and nothing of it is newer than its id.
pub fn image_in(
    transaction: &ReadTransaction,
    (network, node_id): (&str, &NodeId),
    channel: &ChannelId,
) -> Result<Image, StoreError> {
    let id = id_in(transaction, channel)?;
    let mut image = Image::new(network, *node_id, *channel, id);
    rows_in(transaction, channel, |table, key, row| drop(image.rows.insert((table, key.to_vec()), row.to_vec())))?;
    let peer = image.params().map(|params| params.peer.serialize());
    if let Some(peer) = peer {
        let open = transaction.open_table(Table::PeerAddress.definition())?;
        if let Some(value) = open.get(peer.as_slice())? {
            let row = unseal(Table::PeerAddress, &peer, value.value()).map_err(unreadable)?;
            image.rows.insert((Table::PeerAddress, peer.to_vec()), row.to_vec());
        }
    }
    Ok(image)
}

impl Image {
    /// What both sides agreed, of a channel that lives or is in history; none of one that was forgotten, or cannot be read.
    pub fn params(&self) -> Option<ChannelParams> {
        let key = |table| (table, self.channel.0.to_vec());
        if let Some(row) = self.rows.get(&key(Table::ChannelParams)) {
            return ChannelParams::decode(row).ok();
        }
        let closed = self.rows.get(&key(Table::ClosedChannel))?;
        ClosedRow::decode(closed).ok().map(|row| (*row.params).clone())
    }

    /// Whether the channel still has a life to restore: it is neither in history nor forgotten.
    pub fn is_live(&self) -> bool {
        self.rows.contains_key(&(Table::ChannelParams, self.channel.0.to_vec()))
    }

    /// Whether it is in history.
    pub fn is_closed(&self) -> bool {
        self.rows.contains_key(&(Table::ClosedChannel, self.channel.0.to_vec()))
    }

    /// Whether nothing but evidence, and preimages for other channels, is left of it: it was never funded, and may be deleted. What
    /// has any other row and neither a life nor an end is a channel that was damaged.
    pub fn is_forgotten(&self) -> bool {
        let mut left = self.rows.keys();
        !self.is_live()
            && !self.is_closed()
            && left.all(|(table, _)| matches!(table, Table::Evidence | Table::Preimage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bak_5_only_evidence_and_preimages_may_be_left_of_a_channel_that_was_never_funded() {
        let node = NodeId::new(bitcoin::secp256k1::PublicKey::from_secret_key(
            &bitcoin::secp256k1::Secp256k1::signing_only(),
            &bitcoin::secp256k1::SecretKey::from_slice(&[1; 32]).unwrap(),
        ));
        let mut image = Image::new("regtest", node, ChannelId([7; 32]), 1);
        assert!(image.is_forgotten());
        for (_, table) in KEPT {
            image.rows = [((*table, image.channel.0.to_vec()), b"row".to_vec())].into();
            assert_eq!(image.is_forgotten(), matches!(table, Table::Evidence | Table::Preimage), "{table:?}");
        }
    }

    #[test]
    fn a_table_is_named_by_one_number_and_a_row_belongs_to_one_channel() {
        for (number, table) in KEPT {
            assert_eq!((table_of(*number), number_of(*table)), (Some(*table), Some(*number)));
        }
        assert_eq!(number_of(Table::Event), None);
        assert_eq!(table_of(28), None);
        let channel = ChannelId([7; 32]);
        let key = [channel.0.as_slice(), &[0; 9]].concat();
        assert_eq!(channel_of(Table::Htlc, &key), Some(channel));
        assert_eq!(channel_of(Table::Onion, &key), None);
        assert_eq!(channel_of(Table::Htlc, &[7; 31]), None, "a short key is nobody's");
        assert!(is_of(&channel, Table::Htlc, &key) && !is_of(&ChannelId([8; 32]), Table::Htlc, &key));
        assert!(!is_of(&channel, Table::PeerAddress, &key));
    }
}
