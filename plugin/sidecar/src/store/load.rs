//! Reads the file at start: every live channel, what is still owed to it, and what was still under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage};
use outrigger_channel::{
    Channel, ChannelHead, ChannelParams, ChannelRows, HtlcKey, HtlcRow, Monitor, MonitorHead, MonitorRows, Row,
};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use super::StoreError;
use super::row::{BroadcastRow, OperationRow, OutcomeRow, PaymentRow, SettlementRow};
use super::schema::{RESTORED_KEY, Table, UnderWay, parse_htlc_key, parse_numbered_key};

/// A channel and its monitor as they stood at the last commit.
pub struct LoadedChannel {
    pub channel: Channel,
    pub monitor: Monitor,
    /// Decided outcomes of received HTLCs whose removal is not yet irrevocable.
    pub settlements: BTreeMap<u64, SettlementRow>,
}

/// An outcome that a payment has not taken in yet.
#[derive(Debug)]
pub struct LoadedOutcome {
    pub payment_id: [u8; 32],
    pub channel: ChannelId,
    pub htlc_id: u64,
    pub row: OutcomeRow,
}

/// All that a start needs.
#[derive(Default)]
pub struct Snapshot {
    pub channels: Vec<LoadedChannel>,
    pub outcomes: Vec<LoadedOutcome>,
    pub pending_payments: Vec<PaymentRow>,
    /// Calls to open a channel that had no channel yet.
    pub openings: Vec<OperationRow>,
    pub broadcasts: Vec<BroadcastRow>,
    /// Change sets of the wallet by row number.
    pub wallet: Vec<(u64, Vec<u8>)>,
    pub peer_addresses: Vec<(NodeId, String)>,
    /// The proof that this file is older than what peers were told, if one was seen: the node stays in restored mode.
    pub restored: Option<String>,
}

/// Reads everything; a row that cannot be read, or channel and monitor rows that disagree, refuse the start.
pub fn load(db: &Database) -> Result<Snapshot, StoreError> {
    Loader { transaction: db.begin_read()? }.snapshot()
}

struct Loader {
    transaction: ReadTransaction,
}

fn corrupt(table: Table, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { path: format!("outrigger.redb, table {table:?}").into(), reason: reason.to_string() }
}

impl Loader {
    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot {
            restored: self.restored()?,
            channels: self.channels()?,
            broadcasts: self.rows(Table::Broadcast, |_, value| BroadcastRow::decode(value))?,
            ..Snapshot::default()
        };
        self.under_way(&mut snapshot)?;
        self.each(Table::Wallet, |key, value| {
            let row = key.try_into().map_err(|_| corrupt(Table::Wallet, "a key of the wrong length"))?;
            snapshot.wallet.push((u64::from_be_bytes(row), value.to_vec()));
            Ok(())
        })?;
        self.each(Table::Outcome, |key, value| {
            let wrong_key = || corrupt(Table::Outcome, "a key of the wrong length");
            let (payment_id, rest) = key.split_first_chunk::<32>().ok_or_else(wrong_key)?;
            let (channel, htlc_id) = parse_numbered_key(rest).ok_or_else(wrong_key)?;
            let row = OutcomeRow::decode(value).map_err(|fault| corrupt(Table::Outcome, fault))?;
            snapshot.outcomes.push(LoadedOutcome { payment_id: *payment_id, channel, htlc_id, row });
            Ok(())
        })?;
        self.each(Table::PeerAddress, |key, value| {
            let node_id = NodeId::from_slice(key).map_err(|fault| corrupt(Table::PeerAddress, fault))?;
            snapshot.peer_addresses.push((node_id, String::from_utf8_lossy(value).into_owned()));
            Ok(())
        })?;
        Ok(snapshot)
    }

    fn restored(&self) -> Result<Option<String>, StoreError> {
        let meta = self.transaction.open_table(Table::Meta.definition())?;
        let proof = meta.get(RESTORED_KEY)?;
        Ok(proof.map(|proof| String::from_utf8_lossy(proof.value()).into_owned()))
    }

    /// What was begun, and nothing of what has ended: a start does not follow the history (law 6).
    fn under_way(&self, snapshot: &mut Snapshot) -> Result<(), StoreError> {
        self.each(Table::UnderWay, |key, _| {
            match UnderWay::parse(key).ok_or_else(|| corrupt(Table::UnderWay, "a malformed key"))? {
                UnderWay::Payment(payment_id) => {
                    snapshot.pending_payments.push(self.row(Table::Payment, &payment_id, PaymentRow::decode)?);
                }
                UnderWay::Opening(key) => {
                    snapshot.openings.push(self.row(Table::Operation, key.as_bytes(), OperationRow::decode)?);
                }
            }
            Ok(())
        })
    }

    fn row<R, E: std::fmt::Display>(
        &self,
        table: Table,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<R, StoreError> {
        let open = self.transaction.open_table(table.definition())?;
        let value = open.get(key)?.ok_or_else(|| corrupt(table, "a row that is under way is missing"))?;
        decode(value.value()).map_err(|fault| corrupt(table, fault))
    }

    fn channels(&self) -> Result<Vec<LoadedChannel>, StoreError> {
        let mut parts = ChannelParts::default();
        self.each(Table::ChannelParams, |key, value| {
            let params = ChannelParams::decode(value).map_err(|fault| corrupt(Table::ChannelParams, fault))?;
            parts.params.insert(channel_of(Table::ChannelParams, key)?, Arc::new(params));
            Ok(())
        })?;
        self.each(Table::ChannelHead, |key, value| {
            let head = ChannelHead::decode(value).map_err(|fault| corrupt(Table::ChannelHead, fault))?;
            parts.heads.insert(channel_of(Table::ChannelHead, key)?, head);
            Ok(())
        })?;
        self.each(Table::MonitorHead, |key, value| {
            let head = MonitorHead::decode(value).map_err(|fault| corrupt(Table::MonitorHead, fault))?;
            parts.monitor_heads.insert(channel_of(Table::MonitorHead, key)?, head);
            Ok(())
        })?;
        self.htlcs(&mut parts)?;
        self.monitor_tables(&mut parts)?;
        self.each(Table::Settlement, |key, value| {
            let (channel, htlc_id) = numbered(Table::Settlement, key)?;
            let row = SettlementRow::decode(value).map_err(|fault| corrupt(Table::Settlement, fault))?;
            parts.settlements.entry(channel).or_default().insert(htlc_id, row);
            Ok(())
        })?;
        parts.assemble()
    }

    fn htlcs(&self, parts: &mut ChannelParts) -> Result<(), StoreError> {
        self.each(Table::Htlc, |key, value| {
            let (channel, htlc) = parse_htlc_key(key).ok_or_else(|| corrupt(Table::Htlc, "a malformed key"))?;
            let row = HtlcRow::decode(value).map_err(|fault| corrupt(Table::Htlc, fault))?;
            parts.htlcs.entry(channel).or_default().insert(htlc, row);
            Ok(())
        })?;
        self.each(Table::Onion, |key, value| {
            let (channel, htlc) = parse_htlc_key(key).ok_or_else(|| corrupt(Table::Onion, "a malformed key"))?;
            let onion: [u8; 1366] = value.try_into().map_err(|_| corrupt(Table::Onion, "not 1366 bytes"))?;
            parts.onions.entry(channel).or_default().insert(htlc, Arc::new(onion));
            Ok(())
        })
    }

    fn monitor_tables(&self, parts: &mut ChannelParts) -> Result<(), StoreError> {
        self.each(Table::Secret, |key, value| {
            let (channel, slot) = numbered(Table::Secret, key)?;
            let slot = u8::try_from(slot).map_err(|_| corrupt(Table::Secret, "a slot above 255"))?;
            let (number, secret) =
                value.split_first_chunk::<8>().ok_or_else(|| corrupt(Table::Secret, "a short row"))?;
            let secret = secret.try_into().map_err(|_| corrupt(Table::Secret, "not 32 bytes"))?;
            parts.secrets.entry(channel).or_default().insert(slot, (u64::from_be_bytes(*number), secret));
            Ok(())
        })?;
        self.each(Table::HtlcSignatures, |key, value| {
            let (channel, number) = numbered(Table::HtlcSignatures, key)?;
            let signatures = value
                .chunks(64)
                .map(Signature::from_compact)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|fault| corrupt(Table::HtlcSignatures, fault))?;
            parts.htlc_signatures.entry(channel).or_default().insert(number, signatures);
            Ok(())
        })?;
        self.each(Table::Preimage, |key, value| {
            let malformed = || corrupt(Table::Preimage, "a row of the wrong length");
            let (channel, hash) = key.split_first_chunk::<32>().ok_or_else(malformed)?;
            let hash = PaymentHash(hash.try_into().map_err(|_| malformed())?);
            let preimage = PaymentPreimage(value.try_into().map_err(|_| malformed())?);
            parts.preimages.entry(ChannelId(*channel)).or_default().insert(hash, preimage);
            Ok(())
        })
    }

    fn rows<R, E: std::fmt::Display>(
        &self,
        table: Table,
        decode: impl Fn(&[u8], &[u8]) -> Result<R, E>,
    ) -> Result<Vec<R>, StoreError> {
        let mut rows = Vec::new();
        self.each(table, |key, value| {
            rows.push(decode(key, value).map_err(|fault| corrupt(table, fault))?);
            Ok(())
        })?;
        Ok(rows)
    }

    fn each(
        &self,
        table: Table,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let open = self.transaction.open_table(table.definition())?;
        for entry in open.iter()? {
            let (key, value) = entry?;
            take(key.value(), value.value())?;
        }
        Ok(())
    }
}

fn channel_of(table: Table, key: &[u8]) -> Result<ChannelId, StoreError> {
    key.try_into().map(ChannelId).map_err(|_| corrupt(table, "a key of the wrong length"))
}

fn numbered(table: Table, key: &[u8]) -> Result<(ChannelId, u64), StoreError> {
    parse_numbered_key(key).ok_or_else(|| corrupt(table, "a key of the wrong length"))
}

/// Rows sorted by channel.
#[derive(Default)]
struct ChannelParts {
    params: BTreeMap<ChannelId, Arc<ChannelParams>>,
    heads: BTreeMap<ChannelId, ChannelHead>,
    htlcs: BTreeMap<ChannelId, BTreeMap<HtlcKey, HtlcRow>>,
    onions: BTreeMap<ChannelId, BTreeMap<HtlcKey, Arc<[u8; 1366]>>>,
    monitor_heads: BTreeMap<ChannelId, MonitorHead>,
    secrets: BTreeMap<ChannelId, BTreeMap<u8, (u64, [u8; 32])>>,
    htlc_signatures: BTreeMap<ChannelId, BTreeMap<u64, Vec<Signature>>>,
    preimages: BTreeMap<ChannelId, BTreeMap<PaymentHash, PaymentPreimage>>,
    settlements: BTreeMap<ChannelId, BTreeMap<u64, SettlementRow>>,
}

impl ChannelParts {
    fn assemble(mut self) -> Result<Vec<LoadedChannel>, StoreError> {
        let params = std::mem::take(&mut self.params);
        if let Some(orphan) = self.heads.keys().chain(self.monitor_heads.keys()).find(|id| !params.contains_key(id)) {
            return Err(corrupt(Table::ChannelParams, format!("channel {orphan} has no row")));
        }
        params.into_iter().map(|(id, params)| self.assemble_one(id, params)).collect()
    }

    fn assemble_one(&mut self, id: ChannelId, params: Arc<ChannelParams>) -> Result<LoadedChannel, StoreError> {
        let head =
            self.heads.remove(&id).ok_or_else(|| corrupt(Table::ChannelHead, format!("channel {id} has no row")))?;
        let monitor_head = self
            .monitor_heads
            .remove(&id)
            .ok_or_else(|| corrupt(Table::MonitorHead, format!("channel {id} has no row")))?;
        let htlcs = self.htlcs.remove(&id).unwrap_or_default();
        let rows = MonitorRows {
            params: params.clone(),
            head: monitor_head,
            secrets: self.secrets.remove(&id).unwrap_or_default(),
            htlc_signatures: self.htlc_signatures.remove(&id).unwrap_or_default(),
            preimages: self.preimages.remove(&id).unwrap_or_default(),
            htlcs: htlcs.clone(),
        };
        let monitor = Monitor::load(rows).map_err(|fault| corrupt(Table::MonitorHead, fault))?;
        let rows = ChannelRows { params, head, htlcs, onions: self.onions.remove(&id).unwrap_or_default() };
        // Law 2: a file in which the channel and its monitor disagree is not a state that a commit of ours left.
        monitor.check_against(&rows).map_err(|fault| corrupt(Table::ChannelHead, fault))?;
        let channel = Channel::load(rows).map_err(|fault| corrupt(Table::ChannelHead, fault))?;
        Ok(LoadedChannel { channel, monitor, settlements: self.settlements.remove(&id).unwrap_or_default() })
    }
}
