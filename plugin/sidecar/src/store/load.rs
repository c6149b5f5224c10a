//! Reads the file at start: every live channel, what is still owed to it, and what was still under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::OutPoint;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage};
use outrigger_channel::{
    Channel, ChannelHead, ChannelParams, ChannelRows, CorruptRows, FundingSpend, HtlcKey, HtlcRow, Monitor,
    MonitorHead, MonitorRows, Row, Taken,
};
use redb::{ReadTransaction, ReadableDatabase, ReadableTable};

use super::StoreError;
use super::channel_update::{self, ChannelUpdates, UpdateOf};
use super::generation::{Age, Generation};
use super::journal::Journal;
use super::part::PartRow;
use super::read::address;
use super::row::{BroadcastRow, OperationRow, OutcomeRow, PaymentRow, SettlementRow, SweepRow};
use super::schema::{
    RESERVE_LOW_KEY, RESTORED_KEY, TROUBLES_KEY, Table, UnderWay, parse_htlc_key, parse_numbered_key,
    parse_outpoint_key,
};
use super::seal::unseal;
use super::terms::TermsRow;
use super::token::TokenRow;
use super::troubles::Troubles;

/// A channel and its monitor as they stood at the last commit.
pub struct LoadedChannel {
    pub channel: Channel,
    pub monitor: Monitor,
    /// Decided outcomes of received HTLCs whose removal is not yet irrevocable.
    pub settlements: BTreeMap<u64, SettlementRow>,
    /// The newest `channel_update` of each side.
    pub updates: ChannelUpdates,
    /// What the operator asks for forwarding over it.
    pub terms: TermsRow,
}

/// A channel of which a row cannot be read, or whose rows do not fit together: nothing of it is signed or published, and
/// its rows stay as they are (bad input 95).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenChannel {
    pub channel_id: ChannelId,
    /// Where the rows still tell it.
    pub peer: Option<NodeId>,
    /// Where the row can be read.
    pub params: Option<Arc<ChannelParams>>,
    /// What is wrong, in words.
    pub reason: String,
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
    pub frozen: Vec<FrozenChannel>,
    pub outcomes: Vec<LoadedOutcome>,
    pub pending_payments: Vec<PaymentRow>,
    /// HTLCs of payments, by payment and part.
    pub parts: Vec<(([u8; 32], u16), PartRow)>,
    /// Calls to open a channel that had no channel yet.
    pub openings: Vec<OperationRow>,
    /// Channels that failed before every required sink had told what it holds.
    pub unheard: Vec<ChannelId>,
    pub broadcasts: Vec<BroadcastRow>,
    /// The newest transactions that spend outputs of commitments, by channel and the output that they are for.
    pub sweeps: Vec<(ChannelId, OutPoint, SweepRow)>,
    /// Change sets of the wallet by row number.
    pub wallet: Vec<(u64, Vec<u8>)>,
    /// Each can be parsed; what cannot is left out.
    pub peer_addresses: Vec<(NodeId, String)>,
    /// Tokens, each with what was spent with it.
    pub tokens: Vec<(TokenRow, Msat)>,
    /// Decisions on HTLCs of channels that are no more.
    pub stray_settlements: Vec<(ChannelId, u64)>,
    /// The proof that this file is older than what peers were told, if one was seen: the node stays in restored mode.
    pub restored: Option<String>,
    /// That proof was found by this start and has no row yet.
    pub is_found_old: bool,
    /// The operator was told that the wallet holds less than its reserve, and it has not held that since.
    pub is_reserve_low: bool,
    /// What the operator was told is wrong, and not yet right again.
    pub troubles: Troubles,
    /// The journal that goes with the file, for the writer. None where commits are the database's own.
    pub journal: Option<Journal>,
}

impl Snapshot {
    /// Takes in whether the file is the newest; gives the generation that rises, where one does.
    pub fn aged(&mut self, age: Option<Age>) -> Option<Generation> {
        match age? {
            Age::Newest(generation) => Some(generation),
            Age::Old(proof) => {
                self.is_found_old |= self.restored.is_none();
                self.restored.get_or_insert(proof);
                None
            }
        }
    }
}

/// Reads everything. A row of a channel that cannot be read freezes that channel. Any other, or channel and monitor rows
/// that disagree, refuse the start.
pub fn load(db: &impl ReadableDatabase) -> Result<Snapshot, StoreError> {
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
        let mut parts = ChannelParts::default();
        let broadcasts = self.broadcasts(&mut parts)?;
        let sweeps = self.sweeps(&mut parts)?;
        let (channels, frozen, stray_settlements) = self.channels(parts)?;
        let restored = self.restored()?;
        let mut snapshot =
            Snapshot { restored, channels, frozen, stray_settlements, broadcasts, sweeps, ..Snapshot::default() };
        snapshot.tokens = self.tokens()?;
        snapshot.is_reserve_low = self.fact(RESERVE_LOW_KEY)?.is_some();
        let troubles = self.fact(TROUBLES_KEY)?.unwrap_or_default();
        snapshot.troubles = Troubles::decode(&troubles).map_err(|fault| corrupt(Table::Meta, fault))?;
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
        self.each(Table::Part, |key, value| {
            let name = PartRow::parse_key(key).ok_or_else(|| corrupt(Table::Part, "a key of the wrong length"))?;
            snapshot.parts.push((name, PartRow::decode(value).map_err(|fault| corrupt(Table::Part, fault))?));
            Ok(())
        })?;
        self.each(Table::PeerAddress, |key, value| {
            let node_id = NodeId::from_slice(key).map_err(|fault| corrupt(Table::PeerAddress, fault))?;
            match address(value) {
                Some(address) => snapshot.peer_addresses.push((node_id, address)),
                // No channel hangs on it.
                None => tracing::warn!(peer = %node_id, "what is kept as the peer's address is none and is ignored: use peer.connect"),
            }
            Ok(())
        })?;
        Ok(snapshot)
    }

    fn tokens(&self) -> Result<Vec<(TokenRow, Msat)>, StoreError> {
        let mut tokens = Vec::new();
        self.each(Table::Token, |key, value| {
            let row = TokenRow::decode(value).map_err(|fault| corrupt(Table::Token, fault))?;
            if row.id != key {
                return Err(corrupt(Table::Token, "a key that is not the row's"));
            }
            let spent = self.row(Table::TokenSpent, key, |sum| sum.try_into().map(u64::from_be_bytes))?;
            tokens.push((row, Msat::new(spent)));
            Ok(())
        })?;
        Ok(tokens)
    }

    fn restored(&self) -> Result<Option<String>, StoreError> {
        Ok(self.fact(RESTORED_KEY)?.map(|proof| String::from_utf8_lossy(&proof).into_owned()))
    }

    fn fact(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let meta = self.transaction.open_table(Table::Meta.definition())?;
        let Some(fact) = meta.get(key)? else { return Ok(None) };
        let fact = unseal(Table::Meta, key, fact.value()).map_err(|fault| corrupt(Table::Meta, fault))?;
        Ok(Some(fact.to_vec()))
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
                UnderWay::Unheard(channel) => snapshot.unheard.push(channel),
                // The wallet's rows have it: it goes out again until a block holds it.
                UnderWay::Sent(_) => {}
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
        let row = unseal(table, key, value.value()).map_err(|fault| corrupt(table, fault))?;
        decode(row).map_err(|fault| corrupt(table, fault))
    }

    /// Transactions to publish; one that cannot be read freezes its channel.
    fn broadcasts(&self, parts: &mut ChannelParts) -> Result<Vec<BroadcastRow>, StoreError> {
        let mut broadcasts = Vec::new();
        self.each(Table::Broadcast, |key, value| {
            let wrong_key = || corrupt(Table::Broadcast, "a key of the wrong length");
            let (channel, _) = key.split_first_chunk::<32>().ok_or_else(wrong_key)?;
            broadcasts.extend(parts.read(Table::Broadcast, ChannelId(*channel), BroadcastRow::decode(value)));
            Ok(())
        })?;
        Ok(broadcasts)
    }

    fn sweeps(&self, parts: &mut ChannelParts) -> Result<Vec<(ChannelId, OutPoint, SweepRow)>, StoreError> {
        let mut sweeps = Vec::new();
        self.each(Table::Sweep, |key, value| {
            let malformed = || corrupt(Table::Sweep, "a malformed key");
            let (channel, outpoint) = parse_outpoint_key(key).ok_or_else(malformed)?;
            let row = parts.read(Table::Sweep, channel, SweepRow::decode(value));
            sweeps.extend(row.map(|row| (channel, outpoint, row)));
            Ok(())
        })?;
        Ok(sweeps)
    }

    fn channels(&self, mut parts: ChannelParts) -> Result<Channels, StoreError> {
        self.each(Table::ChannelParams, |key, value| {
            let channel = channel_of(Table::ChannelParams, key)?;
            let params = parts.read(Table::ChannelParams, channel, ChannelParams::decode(value));
            match params {
                Some(params) => drop(parts.params.insert(channel, Arc::new(params))),
                None => parts.peers.extend(ChannelParams::peer_in(value).map(|peer| (channel, peer))),
            }
            Ok(())
        })?;
        self.each(Table::ChannelHead, |key, value| {
            let channel = channel_of(Table::ChannelHead, key)?;
            let head = parts.read(Table::ChannelHead, channel, ChannelHead::decode(value));
            parts.heads.extend(head.map(|head| (channel, head)));
            Ok(())
        })?;
        self.each(Table::MonitorHead, |key, value| {
            let channel = channel_of(Table::MonitorHead, key)?;
            let head = parts.read(Table::MonitorHead, channel, MonitorHead::decode(value));
            parts.monitor_heads.extend(head.map(|head| (channel, head)));
            Ok(())
        })?;
        self.htlcs(&mut parts)?;
        self.monitor_tables(&mut parts)?;
        self.each(Table::Settlement, |key, value| {
            let (channel, htlc_id) = numbered(Table::Settlement, key)?;
            let row = parts.read(Table::Settlement, channel, SettlementRow::decode(value));
            parts.settlements.entry(channel).or_default().extend(row.map(|row| (htlc_id, row)));
            Ok(())
        })?;
        self.each(Table::ChannelUpdate, |key, value| {
            let malformed = || corrupt(Table::ChannelUpdate, "a malformed key");
            let (channel, whose) = UpdateOf::parse_key(key).ok_or_else(malformed)?;
            let update = parts.read(Table::ChannelUpdate, channel, channel_update::decode(value));
            let updates = parts.updates.entry(channel).or_default();
            match whose {
                UpdateOf::Local => updates.local = update,
                UpdateOf::Remote => updates.remote = update,
            }
            Ok(())
        })?;
        self.each(Table::ForwardingTerms, |key, value| {
            let channel = channel_of(Table::ForwardingTerms, key)?;
            let terms = parts.read(Table::ForwardingTerms, channel, TermsRow::decode(value));
            parts.terms.extend(terms.map(|terms| (channel, terms)));
            Ok(())
        })?;
        parts.assemble()
    }

    fn htlcs(&self, parts: &mut ChannelParts) -> Result<(), StoreError> {
        self.each(Table::Htlc, |key, value| {
            let (channel, htlc) = parse_htlc_key(key).ok_or_else(|| corrupt(Table::Htlc, "a malformed key"))?;
            let row = parts.read(Table::Htlc, channel, HtlcRow::decode(value));
            parts.htlcs.entry(channel).or_default().extend(row.map(|row| (htlc, row)));
            Ok(())
        })?;
        self.each(Table::Onion, |key, value| {
            let (channel, htlc) = parse_htlc_key(key).ok_or_else(|| corrupt(Table::Onion, "a malformed key"))?;
            let onion = parts.read(Table::Onion, channel, value.try_into().map_err(|_| "not 1366 bytes"));
            parts.onions.entry(channel).or_default().extend(onion.map(|onion| (htlc, Arc::new(onion))));
            Ok(())
        })
    }

    fn monitor_tables(&self, parts: &mut ChannelParts) -> Result<(), StoreError> {
        self.each(Table::Secret, |key, value| {
            let (channel, slot) = numbered(Table::Secret, key)?;
            let secret = parts.read(Table::Secret, channel, secret(slot, value));
            parts.secrets.entry(channel).or_default().extend(secret);
            Ok(())
        })?;
        self.each(Table::HtlcSignatures, |key, value| {
            let (channel, number) = numbered(Table::HtlcSignatures, key)?;
            let signatures = value.chunks(64).map(Signature::from_compact).collect::<Result<Vec<_>, _>>();
            let signatures = parts.read(Table::HtlcSignatures, channel, signatures);
            let of_channel = parts.htlc_signatures.entry(channel).or_default();
            of_channel.extend(signatures.map(|signatures| (number, signatures)));
            Ok(())
        })?;
        self.each(Table::FundingSpend, |key, value| {
            let channel = channel_of(Table::FundingSpend, key)?;
            let spend = parts.read(Table::FundingSpend, channel, FundingSpend::decode(value));
            parts.spends.extend(spend.map(|spend| (channel, spend)));
            Ok(())
        })?;
        self.each(Table::Taken, |key, value| {
            let (channel, outpoint) =
                parse_outpoint_key(key).ok_or_else(|| corrupt(Table::Taken, "a malformed key"))?;
            let taken = parts.read(Table::Taken, channel, Taken::decode(value));
            parts.taken.entry(channel).or_default().extend(taken.map(|taken| (outpoint, taken)));
            Ok(())
        })?;
        self.each(Table::Preimage, |key, value| {
            let malformed = || corrupt(Table::Preimage, "a key of the wrong length");
            let (channel, hash) = key.split_first_chunk::<32>().ok_or_else(malformed)?;
            let hash = PaymentHash(hash.try_into().map_err(|_| malformed())?);
            let channel = ChannelId(*channel);
            let preimage = value.try_into().map(PaymentPreimage).map_err(|_| "not 32 bytes");
            let preimage = parts.read(Table::Preimage, channel, preimage);
            parts.preimages.entry(channel).or_default().extend(preimage.map(|preimage| (hash, preimage)));
            Ok(())
        })
    }

    fn each(
        &self,
        table: Table,
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let open = self.transaction.open_table(table.definition())?;
        for entry in open.iter()? {
            let (key, value) = entry?;
            let row = unseal(table, key.value(), value.value()).map_err(|fault| corrupt(table, fault))?;
            take(key.value(), row)?;
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

/// A slot of the peer's secrets (BOLT 3, "Efficient Per-commitment Secret Storage"), its number and secret.
fn secret(slot: u64, value: &[u8]) -> Result<(u8, (u64, [u8; 32])), &'static str> {
    let slot = u8::try_from(slot).map_err(|_| "a slot above 255")?;
    let (number, secret) = value.split_first_chunk::<8>().ok_or("a short row")?;
    let secret = secret.try_into().map_err(|_| "not 32 bytes")?;
    Ok((slot, (u64::from_be_bytes(*number), secret)))
}

/// Channels, those that are frozen, and decisions on HTLCs of neither.
type Channels = (Vec<LoadedChannel>, Vec<FrozenChannel>, Vec<(ChannelId, u64)>);

/// Rows sorted by channel.
#[derive(Default)]
struct ChannelParts {
    /// Channels of which a row cannot be read, and the first fault that was found.
    frozen: BTreeMap<ChannelId, String>,
    /// The peers of frozen channels whose parameters cannot be read as a whole.
    peers: BTreeMap<ChannelId, NodeId>,
    params: BTreeMap<ChannelId, Arc<ChannelParams>>,
    heads: BTreeMap<ChannelId, ChannelHead>,
    htlcs: BTreeMap<ChannelId, BTreeMap<HtlcKey, HtlcRow>>,
    onions: BTreeMap<ChannelId, BTreeMap<HtlcKey, Arc<[u8; 1366]>>>,
    monitor_heads: BTreeMap<ChannelId, MonitorHead>,
    secrets: BTreeMap<ChannelId, BTreeMap<u8, (u64, [u8; 32])>>,
    htlc_signatures: BTreeMap<ChannelId, BTreeMap<u64, Vec<Signature>>>,
    preimages: BTreeMap<ChannelId, BTreeMap<PaymentHash, PaymentPreimage>>,
    spends: BTreeMap<ChannelId, FundingSpend>,
    taken: BTreeMap<ChannelId, BTreeMap<OutPoint, Taken>>,
    settlements: BTreeMap<ChannelId, BTreeMap<u64, SettlementRow>>,
    updates: BTreeMap<ChannelId, ChannelUpdates>,
    terms: BTreeMap<ChannelId, TermsRow>,
}

impl ChannelParts {
    /// The row, or nothing: then the channel is frozen.
    fn read<R, E: std::fmt::Display>(&mut self, table: Table, channel: ChannelId, row: Result<R, E>) -> Option<R> {
        row.map_err(|fault| self.freeze(channel, format!("a row of table {table:?} cannot be read: {fault}"))).ok()
    }

    fn freeze(&mut self, channel: ChannelId, reason: String) {
        self.frozen.entry(channel).or_insert(reason);
    }

    fn assemble(mut self) -> Result<Channels, StoreError> {
        let params = std::mem::take(&mut self.params);
        let is_known = |id: &ChannelId| params.contains_key(id) || self.frozen.contains_key(id);
        if let Some(orphan) = self.heads.keys().chain(self.monitor_heads.keys()).find(|id| !is_known(id)) {
            return Err(corrupt(Table::ChannelParams, format!("channel {orphan} has no row")));
        }
        let mut loaded = Vec::new();
        for (id, params) in &params {
            if !self.frozen.contains_key(id) {
                loaded.extend(self.assemble_one(*id, params.clone())?);
            }
        }
        let left = self.settlements.iter().filter(|(id, _)| !self.frozen.contains_key(id));
        let stray = left.flat_map(|(id, settlements)| settlements.keys().map(|htlc_id| (*id, *htlc_id))).collect();
        let frozen = std::mem::take(&mut self.frozen).into_iter().map(|(channel_id, reason)| {
            let params = params.get(&channel_id).cloned();
            let peer = params.as_ref().map(|params| params.peer).or(self.peers.get(&channel_id).copied());
            FrozenChannel { channel_id, peer, params, reason }
        });
        Ok((loaded, frozen.collect(), stray))
    }

    /// The channel, or nothing where its own rows do not fit together: then it is frozen.
    fn assemble_one(&mut self, id: ChannelId, params: Arc<ChannelParams>) -> Result<Option<LoadedChannel>, StoreError> {
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
            spend: self.spends.remove(&id),
            taken: self.taken.remove(&id).unwrap_or_default(),
            htlcs: htlcs.clone(),
        };
        let monitor = match Monitor::load(rows) {
            Ok(monitor) => monitor,
            Err(fault) => return Ok(self.unfit(id, &fault)),
        };
        let rows = ChannelRows { params, head, htlcs, onions: self.onions.remove(&id).unwrap_or_default() };
        match monitor.check_against(&rows) {
            Ok(()) => {}
            // All else agrees, so these are the rows of one file, and updates between are missing.
            Err(gap @ CorruptRows::UPDATE_GAP) => return Ok(self.unfit(id, &gap)),
            // Law 2: a file in which the channel and its monitor disagree is not a state that a commit of ours left.
            Err(fault) => return Err(corrupt(Table::ChannelHead, fault)),
        }
        let channel = match Channel::load(rows) {
            Ok(channel) => channel,
            Err(fault) => return Ok(self.unfit(id, &fault)),
        };
        let settlements = self.settlements.remove(&id).unwrap_or_default();
        let updates = self.updates.remove(&id).unwrap_or_default();
        let terms = self.terms.remove(&id).unwrap_or_default();
        Ok(Some(LoadedChannel { channel, monitor, settlements, updates, terms }))
    }

    fn unfit(&mut self, channel: ChannelId, fault: &CorruptRows) -> Option<LoadedChannel> {
        self.freeze(channel, fault.to_string());
        None
    }
}
