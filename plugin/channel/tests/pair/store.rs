//! A store that is cut off where the test wants it: tables of bytes, and batches that are durable once they are applied.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bitcoin::OutPoint;
use bitcoin::secp256k1::ecdsa::Signature;
use outrigger_bolt::id::{PaymentHash, PaymentPreimage};
use outrigger_channel::{
    ChannelChanges, ChannelHead, ChannelParams, ChannelRows, Evidence, FundingSpend, HtlcKey, HtlcOutcome, HtlcRow,
    MonitorChanges, MonitorHead, MonitorRows, Offerer, Row,
};

/// Which row: the table and the key in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Params,
    Head,
    Htlc(HtlcKey),
    Onion(HtlcKey),
    MonitorHead,
    Evidence(HtlcKey),
    Secret(u8),
    HtlcSignatures(u64),
    Preimage(PaymentHash),
    Spend,
    Taken(OutPoint),
}

/// What one step writes.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    rows: BTreeMap<Key, Option<Vec<u8>>>,
    /// The sender's own record of how its payments ended, in the transaction of the step that learned it.
    pub outcomes: BTreeMap<u64, HtlcOutcome>,
}

impl Writes {
    pub fn of(channel: &ChannelChanges, monitor: &MonitorChanges) -> Self {
        let mut writes = Self::default();
        writes.put(Key::Params, channel.params.as_deref().or(monitor.params.as_deref()));
        writes.put(Key::Head, channel.head.as_ref());
        writes.table(&channel.htlcs, Key::Htlc);
        for (key, onion) in &channel.onions {
            writes.rows.insert(Key::Onion(*key), onion.as_ref().map(|onion| onion.encode()));
        }
        writes.put(Key::MonitorHead, monitor.head.as_ref());
        for (key, evidence) in &monitor.evidence {
            writes.put(Key::Evidence(*key), Some(evidence));
        }
        for (slot, secret) in &monitor.secrets {
            writes.put(Key::Secret(*slot), Some(secret));
        }
        writes.table(&monitor.htlc_signatures, Key::HtlcSignatures);
        writes.table(&monitor.preimages, Key::Preimage);
        if let Some(spend) = &monitor.spend {
            writes.rows.insert(Key::Spend, spend.as_ref().map(Row::encode));
        }
        writes.table(&monitor.taken, Key::Taken);
        writes
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.outcomes.is_empty()
    }

    fn put(&mut self, key: Key, row: Option<&impl Row>) {
        if let Some(row) = row {
            self.rows.insert(key, Some(row.encode()));
        }
    }

    fn table<K: Copy>(&mut self, changes: &BTreeMap<K, Option<impl Row>>, key: impl Fn(K) -> Key) {
        for (name, row) in changes {
            self.rows.insert(key(*name), row.as_ref().map(Row::encode));
        }
    }
}

/// All tables.
#[derive(Clone, Debug, Default)]
pub struct Store {
    rows: BTreeMap<Key, Vec<u8>>,
    /// The row that is written once is read once: its points are most of what there is to read.
    params: OnceLock<Arc<ChannelParams>>,
    pub outcomes: BTreeMap<u64, HtlcOutcome>,
}

impl Store {
    pub fn apply(&mut self, writes: &Writes) {
        for (key, row) in &writes.rows {
            if matches!(key, Key::Params | Key::Evidence(_)) {
                let written = self.rows.insert(*key, row.clone().expect("what is written once is never deleted"));
                assert!(written.is_none_or(|old| Some(old) == *row), "{key:?} is written once");
                continue;
            }
            match row {
                Some(row) => self.rows.insert(*key, row.clone()),
                None => self.rows.remove(key),
            };
        }
        self.outcomes.extend(writes.outcomes.clone());
    }

    /// How many rows there are, the peer's secrets not counted: those have 49 slots.
    pub fn rows_without_secrets(&self) -> usize {
        self.rows.keys().filter(|key| !matches!(key, Key::Secret(_))).count()
    }

    fn get<T: Row>(&self, key: Key) -> T {
        T::decode(self.rows.get(&key).expect("a row that always exists")).expect("a row that we wrote")
    }

    fn table<K: Ord, T: Row>(&self, name: impl Fn(Key) -> Option<K>) -> BTreeMap<K, T> {
        let rows = self.rows.iter().filter_map(|(key, row)| Some((name(*key)?, row)));
        rows.map(|(key, row)| (key, T::decode(row).expect("a row that we wrote"))).collect()
    }

    fn params(&self) -> Arc<ChannelParams> {
        Arc::clone(self.params.get_or_init(|| Arc::new(self.get::<ChannelParams>(Key::Params))))
    }

    fn htlcs(&self) -> BTreeMap<HtlcKey, HtlcRow> {
        self.table(|key| if let Key::Htlc(key) = key { Some(key) } else { None })
    }

    pub fn channel(&self) -> ChannelRows {
        let onions: BTreeMap<HtlcKey, [u8; 1366]> =
            self.table(|key| if let Key::Onion(key) = key { Some(key) } else { None });
        ChannelRows {
            params: self.params(),
            head: self.get::<ChannelHead>(Key::Head),
            htlcs: self.htlcs(),
            onions: onions.into_iter().map(|(key, onion)| (key, Arc::new(onion))).collect(),
        }
    }

    pub fn monitor(&self) -> MonitorRows {
        MonitorRows {
            params: self.params(),
            head: self.get::<MonitorHead>(Key::MonitorHead),
            secrets: self.table(|key| if let Key::Secret(slot) = key { Some(slot) } else { None }),
            htlc_signatures: self.table::<u64, Vec<Signature>>(|key| {
                if let Key::HtlcSignatures(number) = key { Some(number) } else { None }
            }),
            preimages: self.table::<PaymentHash, PaymentPreimage>(|key| {
                if let Key::Preimage(hash) = key { Some(hash) } else { None }
            }),
            spend: self.rows.get(&Key::Spend).map(|row| FundingSpend::decode(row).expect("a row that we wrote")),
            taken: self.table(|key| if let Key::Taken(outpoint) = key { Some(outpoint) } else { None }),
            htlcs: self.htlcs(),
        }
    }

    /// Every HTLC that was ever signed, by who offered it.
    pub fn evidence(&self, offerer: Offerer) -> impl Iterator<Item = (u64, Evidence)> + '_ {
        self.all_evidence().into_iter().filter(move |(key, _)| key.offerer == offerer).map(|(key, row)| (key.id, row))
    }

    pub fn all_evidence(&self) -> BTreeMap<HtlcKey, Evidence> {
        self.table(|key| if let Key::Evidence(key) = key { Some(key) } else { None })
    }
}
