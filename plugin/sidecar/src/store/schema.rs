//! Every table of the main file. No other file names one; `FORMAT.md` tells what stands in each.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use outrigger_bolt::id::{ChannelId, PaymentHash};
use outrigger_channel::{HtlcKey, Offerer};
use redb::TableDefinition;

/// The version of the layout. A file with a newer one is refused untouched. 1 was without a journal; no release wrote it.
pub const FORMAT_VERSION: u16 = 2;

macro_rules! keys {
    ($(#[$about:meta])* $list:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $($(#[$doc])* pub const $name: &[u8] = $text;)*

        $(#[$about])*
        pub const $list: &[&[u8]] = &[$($name,)*];
    };
}

keys! {
    /// The keys in [`Table::Meta`] of a database, beside those of its identity: format, network and node id.
    META_KEYS {
        /// The key in [`Table::Meta`] under which the proof stands that this file is older than what peers were told.
        /// Once written it stays: nothing that a peer says later proves the opposite (BAK-3).
        RESTORED_KEY = b"restored",
        /// The key in [`Table::Meta`] under which the file's generation stands, a u64 (see
        /// [`generation`](super::generation)).
        GENERATION_KEY = b"generation",
        /// The key in [`Table::Meta`] under which the database's journal stands (see [`journal`](super::journal)).
        JOURNAL_KEY = b"journal",
        /// The key in [`Table::Meta`] under which the names of the sinks stand that the last start had, a line each.
        SINKS_KEY = b"sinks",
        /// The key in [`Table::Meta`] under which a block stands that was taken in with all before it (see
        /// [`backup::followed`](super::backup::followed)).
        FOLLOWED_KEY = b"followed",
        /// The key in [`Table::Meta`] under which it stands which channels sinks have refused for good.
        REFUSALS_KEY = b"refusals",
        /// The key in [`Table::Meta`] under which it stands when a restore from each sink was last found right.
        VERIFIED_KEY = b"verified",
        /// The key in [`Table::Meta`] that stands (1) from when the operator was told that the wallet holds less than
        /// its reserve, until it holds that again.
        RESERVE_LOW_KEY = b"reserve_low",
        /// The key in [`Table::Meta`] under which it stands what the operator was told is wrong, and not yet right again.
        TROUBLES_KEY = b"troubles",
        /// The key in [`Table::Meta`] under which the bytes of all rows of [`Table::Event`] stand, a u64; absent where no commit has
        /// brought an event yet that counts them (see [`retention`](super::retention)).
        EVENT_BYTES_KEY = b"event_bytes",
    }
}

keys! {
    /// The keys in [`Table::Meta`] of a mirror, beside those of its identity.
    MIRROR_META_KEYS {
        /// The key in [`Table::Meta`] of a mirror by which it is known as such.
        MIRROR_KEY = b"mirror",
        /// The key in [`Table::Meta`] of a mirror under which its newest tip stands.
        TIP_KEY = b"tip",
    }
}

/// A table's definition: bytes to bytes, so that a batch is a plain list of writes.
pub type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A table of the main file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table { $($(#[$doc])* $name,)* }

        impl Table {
            /// All of them; each exists from the first start on.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in the file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The table with this name in the file.
            pub fn named(name: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|table| table.name().as_bytes() == name)
            }

            /// The definition that redb opens.
            pub const fn definition(self) -> Definition {
                TableDefinition::new(self.name())
            }
        }
    };
}

tables! {
    /// Facts about the file itself: format version, network, node id.
    Meta = "meta",
    /// What both sides of a channel agreed.
    ChannelParams = "channel_params",
    /// The moving part of a channel.
    ChannelHead = "channel_head",
    /// Channels whose end is buried for good: what is left of them.
    ClosedChannel = "closed_channel",
    /// HTLCs in flight, shared by channel and monitor.
    Htlc = "htlc",
    /// Onions that may be sent again or have yet to be peeled.
    Onion = "onion",
    /// The moving part of a monitor.
    MonitorHead = "monitor_head",
    /// What the scripts of every HTLC ever signed need; append-only.
    Evidence = "evidence",
    /// The peer's per-commitment secrets, 49 at most per channel.
    Secret = "secret",
    /// The peer's HTLC signatures, by local commitment.
    HtlcSignatures = "htlc_signatures",
    /// Preimages that a monitor knows.
    Preimage = "preimage",
    /// What spends the funding output of a failed channel in the chain as it stands.
    FundingSpend = "funding_spend",
    /// How outputs of that transaction were taken.
    Taken = "taken",
    /// The newest transaction of ours that spends an output of a commitment.
    Sweep = "sweep",
    /// The decided outcome of a received HTLC, until its removal is irrevocable.
    Settlement = "settlement",
    /// HTLCs that were relayed and claimed, by number.
    Forward = "forward",
    /// Their sums, and those of HTLCs that were not relayed or failed, by day and channels.
    ForwardTotals = "forward_totals",
    /// Onions that were processed, by the digest of their shared secret: none is processed for a second HTLC.
    Replay = "replay",
    /// The same by height, for pruning.
    ReplayByHeight = "replay_by_height",
    /// The learned outcome of an HTLC of our own payments, until the payment has taken it in.
    Outcome = "outcome",
    /// Payments that we sent.
    Payment = "payment",
    /// The newest payment for a payment hash.
    PaymentByHash = "payment_by_hash",
    /// HTLCs of those payments, while their outcome is open.
    Part = "part",
    /// Invoices that we made.
    Invoice = "invoice",
    /// What operators act on, by sequence number.
    Event = "event",
    /// Answers to idempotent calls, by idempotency key.
    Operation = "operation",
    /// Their keys by the ids of those calls, which are in the order of time (see [`remembered`](super::remembered)).
    OperationId = "operation_id",
    /// Names of payments and openings that a start must look at: those whose end is not known.
    UnderWay = "under_way",
    /// Transactions to broadcast until they are buried.
    Broadcast = "broadcast",
    /// Change sets of the on-chain wallet, in order.
    Wallet = "wallet",
    /// The newest `channel_update` of each side of a channel.
    ChannelUpdate = "channel_update",
    /// What the operator asks for forwarding over a channel, where that is not what the config says.
    ForwardingTerms = "forwarding_terms",
    /// Where peers with channels are reached.
    PeerAddress = "peer_address",
    /// The id of a channel's rows in its persist sequence, a u64 (see [`backup`](super::backup)).
    Persist = "persist",
    /// Tokens that admit callers, without their secrets.
    Token = "token",
    /// What was spent with each, a u64.
    TokenSpent = "token_spent",
    /// A block that the channel's rows have taken in, with all before it (see [`backup::followed`](super::backup::followed)).
    Followed = "followed",
}

/// The key of a row that a channel has once.
pub fn channel_key(channel: &ChannelId) -> Vec<u8> {
    channel.0.to_vec()
}

/// The key of a row that a channel has per HTLC: channel, who offered (0 local, 1 remote), id big-endian.
pub fn htlc_key(channel: &ChannelId, htlc: HtlcKey) -> Vec<u8> {
    let mut key = channel_key(channel);
    key.push(match htlc.offerer {
        Offerer::Local => 0,
        Offerer::Remote => 1,
    });
    key.extend_from_slice(&htlc.id.to_be_bytes());
    key
}

/// The HTLC that a key made by [`htlc_key`] names, or `None` for other bytes.
pub fn parse_htlc_key(key: &[u8]) -> Option<(ChannelId, HtlcKey)> {
    let (channel, rest) = key.split_first_chunk::<32>()?;
    let (offerer, id) = rest.split_first()?;
    let offerer = match offerer {
        0 => Offerer::Local,
        1 => Offerer::Remote,
        2..=u8::MAX => return None,
    };
    let id = u64::from_be_bytes(id.try_into().ok()?);
    Some((ChannelId(*channel), HtlcKey { offerer, id }))
}

/// The key of a row that a channel has per number, big-endian.
pub fn numbered_key(channel: &ChannelId, number: u64) -> Vec<u8> {
    let mut key = channel_key(channel);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The parts of a key made by [`numbered_key`], or `None` for other bytes.
pub fn parse_numbered_key(key: &[u8]) -> Option<(ChannelId, u64)> {
    let (channel, number) = key.split_first_chunk::<32>()?;
    Some((ChannelId(*channel), u64::from_be_bytes(number.try_into().ok()?)))
}

/// The key of a preimage that a channel's monitor knows.
pub fn preimage_key(channel: &ChannelId, hash: &PaymentHash) -> Vec<u8> {
    let mut key = channel_key(channel);
    key.extend_from_slice(&hash.0);
    key
}

/// The key of a row that a channel has per outpoint: txid, index big-endian.
pub fn outpoint_key(channel: &ChannelId, outpoint: &OutPoint) -> Vec<u8> {
    let mut key = channel_key(channel);
    key.extend_from_slice(outpoint.txid.as_byte_array());
    key.extend_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// The parts of a key made by [`outpoint_key`], or `None` for other bytes.
pub fn parse_outpoint_key(key: &[u8]) -> Option<(ChannelId, OutPoint)> {
    let (channel, rest) = key.split_first_chunk::<32>()?;
    let (txid, vout) = rest.split_first_chunk::<32>()?;
    let vout = u32::from_be_bytes(vout.try_into().ok()?);
    Some((ChannelId(*channel), OutPoint { txid: Txid::from_byte_array(*txid), vout }))
}

/// The key of an outcome: payment, then the HTLC that carried a part of it.
pub fn outcome_key(payment_id: &[u8; 32], channel: &ChannelId, htlc_id: u64) -> Vec<u8> {
    let mut key = payment_id.to_vec();
    key.extend_from_slice(&numbered_key(channel, htlc_id));
    key
}

/// The key by which a processed onion is found once its height is past.
pub fn replay_height_key(height: u32, onion: &[u8; 32]) -> Vec<u8> {
    let mut key = height.to_be_bytes().to_vec();
    key.extend_from_slice(onion);
    key
}

/// The parts of a key made by [`replay_height_key`], or `None` for other bytes.
pub fn parse_replay_height_key(key: &[u8]) -> Option<(u32, [u8; 32])> {
    let (height, onion) = key.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*height), onion.try_into().ok()?))
}

/// Something that was begun and whose end is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnderWay {
    /// A pending payment, by its id.
    Payment([u8; 32]),
    /// A call to open a channel, by its idempotency key.
    Opening(String),
    /// A channel that failed before every required sink had told what it holds, and is not published before they have.
    Unheard(ChannelId),
    /// A transaction of `wallet.send`, until a block holds it.
    Sent(Txid),
}

impl UnderWay {
    /// The key of its row, which holds nothing more.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Payment(payment_id) => [&[0], payment_id.as_slice()].concat(),
            Self::Opening(idempotency_key) => [&[1], idempotency_key.as_bytes()].concat(),
            Self::Unheard(channel) => [&[2], channel.0.as_slice()].concat(),
            Self::Sent(txid) => [&[3], txid.as_byte_array().as_slice()].concat(),
        }
    }

    /// What a key made by [`key`](Self::key) names, or `None` for other bytes.
    pub fn parse(key: &[u8]) -> Option<Self> {
        match key.split_first()? {
            (0, payment_id) => payment_id.try_into().ok().map(Self::Payment),
            (1, idempotency_key) => String::from_utf8(idempotency_key.to_vec()).ok().map(Self::Opening),
            (2, channel) => channel.try_into().ok().map(|channel| Self::Unheard(ChannelId(channel))),
            (3, txid) => txid.try_into().ok().map(|txid| Self::Sent(Txid::from_byte_array(txid))),
            (4..=u8::MAX, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_found_by_its_key() {
        let unheard = UnderWay::Unheard(ChannelId([8; 32]));
        let sent = UnderWay::Sent(Txid::from_byte_array([9; 32]));
        for begun in [UnderWay::Payment([7; 32]), UnderWay::Opening("retry-1".to_owned()), unheard, sent] {
            assert_eq!(UnderWay::parse(&begun.key()), Some(begun));
        }
        for malformed in [&[][..], &[0, 1, 2], &[1, 0xff], &[2], &[2, 1], &[3], &[3, 1], &[4]] {
            assert_eq!(UnderWay::parse(malformed), None, "{malformed:?}");
        }
    }
}
