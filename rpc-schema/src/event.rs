//! `event.*`: what has happened, in one order.

use schemars::JsonSchema;
use serde::de::value::Error as TextError;
use serde::de::{Deserializer, IntoDeserializer};
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Method, Scope};

/// Lists events after a number, oldest first. Following `next_seq` misses nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventList {
    /// Only events after this number; from the oldest kept without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<u64>,
    /// Only events of these kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<EventKind>>,
    /// How many events to give at most: 1 to 1000; 100 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

impl Method for EventList {
    const NAME: &'static str = "event.list";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::EventGap, ErrorKind::StorageFailed];
    const EXAMPLE: &'static str = r#"{ "after_seq": 0, "kinds": ["channel_ready", "invoice_paid"] }"#;
    type Result = EventPage;
}

/// A page of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// The events, oldest first.
    pub items: Vec<Event>,
    /// What to give as `after_seq` to go on from here.
    pub next_seq: u64,
}

/// Tells of events as they come, on the connection that asks: WebSocket, or the pipe of `outriggerd --stdio`. It replays those
/// after `after_seq` first, and goes on with the next without gap or repetition. Each comes as a notification of JSON-RPC whose
/// method is `event.subscribe`, with `subscription_id` and `event` in its params; the last has `error` in place of `event`, with
/// `after_seq` in its data to go on from. A reader that falls behind loses its connection after that. `x-notifications` of the
/// OpenRPC document has the schemas of both.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventSubscribe {
    /// Only events after this number; those that come from now on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<u64>,
    /// Only events of these kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<EventKind>>,
}

impl Method for EventSubscribe {
    const NAME: &'static str = "event.subscribe";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ERRORS: &'static [ErrorKind] = &[
        ErrorKind::EventGap,
        ErrorKind::EventNoSession,
        ErrorKind::EventTooManySubscriptions,
        ErrorKind::StorageFailed,
    ];
    const NEEDS_SESSION: bool = true;
    const EXAMPLE: &'static str = r#"{ "after_seq": 0, "kinds": ["channel_ready", "invoice_paid"] }"#;
    type Result = EventSubscribed;
}

/// A subscription has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventSubscribed {
    /// Names the subscription on this connection.
    pub subscription_id: String,
    /// The number after which events are told.
    pub after_seq: u64,
}

/// Ends a subscription of the connection that asks.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventUnsubscribe {
    /// The subscription.
    pub subscription_id: String,
}

impl Method for EventUnsubscribe {
    const NAME: &'static str = "event.unsubscribe";
    const SCOPES: &'static [Scope] = &[Scope::Read];
    const ASKS_NODE: bool = false;
    const ERRORS: &'static [ErrorKind] = &[ErrorKind::EventNoSession];
    const NEEDS_SESSION: bool = true;
    const EXAMPLE: &'static str = r#"{ "subscription_id": "1" }"#;
    type Result = EventUnsubscribed;
}

/// What became of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventUnsubscribed {
    /// Whether there was one of this name.
    pub ended: bool,
}

/// Something that has happened. Which names it carries follows from its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number: one order for the whole node, rising.
    pub seq: u64,
    /// When it was stored, in unix seconds.
    pub at: u64,
    /// What happened.
    #[serde(deserialize_with = "of_any_version")]
    pub kind: EventKind,
    /// The peer concerned: 33 bytes, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// The channel concerned: 32 bytes, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_id: Option<String>,
    /// The call concerned: an opening, or coins that are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op_id: Option<String>,
    /// The payment concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<String>,
    /// The payment hash concerned: 32 bytes, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_hash: Option<String>,
    /// The amount concerned, in millisatoshi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_msat: Option<u64>,
    /// The amount concerned on chain, in satoshi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_sat: Option<u64>,
    /// What is paid in fees on chain, in satoshi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_sat: Option<u64>,
    /// What a transaction pays the wallet, its change included, in satoshi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_sat: Option<u64>,
    /// What a transaction takes from the wallet, in satoshi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent_sat: Option<u64>,
    /// The backup concerned, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// The height of the block concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_height: Option<u32>,
    /// The transaction concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txid: Option<String>,
    /// What there is to say about it; what a peer sent is escaped and cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A channel has its name and its funding transaction; it waits for confirmations. `amount_sat` of our coins goes into it, and
    /// `amount_msat` of it is ours to begin with: the opener may push some, or all, to the other side. `op_id` is the call that opened it.
    /// What a peer opens is told once a block holds it, also where it has failed before.
    ChannelPending,
    /// A channel carries payments.
    ChannelReady,
    /// The funding transaction of a channel that we opened is not confirmed after a day of blocks.
    ChannelFundingStuck,
    /// A channel is closing: no new payments.
    ChannelClosing,
    /// A cooperative close was begun and does not come about: why and what to do.
    ChannelCloseStuck,
    /// A channel is closed for good. `amount_msat` of it was ours at the end. A cooperative close has paid us `amount_sat`, and `fee_sat` of
    /// ours went to fees, or were too few to be paid out; of a channel that failed `channel_swept` and `wallet_received` tell what came home.
    /// Also told of a channel that is given up since its funding transaction, `txid`, never came or never left: the message says why,
    /// `amount_msat` is what `channel_pending` told to be ours, 0 where that was not told, and `channel.get` knows it no more.
    ChannelClosed,
    /// A channel failed: our newest commitment transaction goes on chain. Where a required backup refused the channel,
    /// only what every required backup has goes there, at the first deadline of an HTLC or by `channel.force_close`, or
    /// nothing where that is not known; in restored mode nothing. `reason` of `channel.get` says which.
    ChannelFailed,
    /// A transaction that pays `fee_sat` goes out for a failed channel: it carries the fee of our commitment, or brings
    /// our balance to the wallet. A later one for the same output takes its place.
    ChannelFeePaid,
    /// A transaction of a failed channel cannot pay the fee that it should: what lacks and what to do.
    ChannelUnderpaid,
    /// `amount_sat` of a failed channel is in the wallet to stay, `fee_sat` less than stood in the channel.
    ChannelSwept,
    /// Something is in the chain that should never be there: money may be lost.
    ChannelAlarm,
    /// The wallet holds less than it should keep to pay for closing its channels alone.
    WalletReserveLow,
    /// The chain is not seen to its end, since bitcoind is away, far behind, or shows what cannot be trusted: nothing is opened, relayed or
    /// paid. The message says why and what to do. Told after ten seconds, in the first minute of a start not at all. Of what comes and goes
    /// this is the last word until it has been right for longer and longer, up to an hour. The same holds for `backup_behind` and
    /// `peer_disconnected`; what was told before a restart is not told again.
    ChainBlind,
    /// The chain is seen to its end again, at `block_height`, for ten seconds at the least. Told once after each `chain_blind`, and never
    /// else.
    ChainSynced,
    /// The backup `backup` is in trouble, has been behind for more than 20 seconds, or has not told what it holds: why, what waits for it,
    /// and what to do. Where events wait for a required backup, this one waits behind them; `backup.status` waits for nothing.
    BackupBehind,
    /// The backup `backup` keeps pace again: it has everything but what is younger than five seconds. Told at most once after each
    /// `backup_behind`, and never else: not where the configuration has it no more.
    BackupComplete,
    /// A peer that has channels is not connected; the message says whether it is dialled. A peer whose only channels are promises of its
    /// own is not told of.
    PeerDisconnected,
    /// The peer is connected again. Told at most once after each `peer_disconnected`, and never else: not where it has no channel any
    /// more.
    PeerConnected,
    /// The disk of the data directory has too little free (`disk_reserve_bytes`): nothing is opened, relayed, invoiced or paid, and what stands
    /// goes on. The message says how much there is, and is to be. Told and ended as `chain_blind` is.
    DiskLow,
    /// There is enough room on the disk again. Told once after each `disk_low`, and never else.
    DiskRelieved,
    /// A restore from a backup was tried, and would not bring back what the node has: which one, why, and what to do. Told once,
    /// until one is right again.
    BackupNotVerified,
    /// A start found rows of a channel that it cannot read; the message says what to do. Told again at each start.
    ChannelFrozen,
    /// The opening `op_id` ended without a channel. `channel_id` is the name that it had been told under, if it was.
    OpenFailed,
    /// The node's database proved to be older than what its peers were told: it signs nothing any more and waits for its
    /// peers to close the channels.
    NodeRestored,
    /// An invoice was paid.
    InvoicePaid,
    /// A payment came that nobody asked for; `invoice.get` shows it by its payment hash.
    KeysendReceived,
    /// A payment succeeded.
    PaymentSucceeded,
    /// A payment failed.
    PaymentFailed,
    /// Coins of the wallet are sent: `amount_sat` by `txid`, of the call `op_id`.
    WalletSent,
    /// A block, at `block_height`, holds the transaction `txid`, which spends coins of the wallet worth `spent_sat` and pays it
    /// `received_sat`, its change. `fee_sat` is what it pays in fees, where the wallet pays all of them. Told again where another block
    /// comes to hold it.
    WalletConfirmed,
    /// A block, at `block_height`, holds the transaction `txid`, which pays the wallet `amount_sat` and spends none of its coins: a deposit,
    /// or what comes home from a channel. Told again where another block comes to hold it; before it is buried, it can be taken back. A wallet
    /// that has not looked at all its blocks (after a restore, until `wallet.start_height` is obeyed) does not know the coins that such a
    /// transaction spends, and takes its own change for a deposit.
    WalletReceived,
    /// A token was made; the message is its name.
    TokenCreated,
    /// A token was taken back; the message is its name.
    TokenRevoked,
    /// Something that this version has no name for: a client of an older version reads it in an event. It has no text of its own, so that
    /// it cannot be sent: neither as a parameter nor by a daemon.
    #[serde(skip)]
    OfNewerVersion,
}

/// The kind of an event that was told, by a newer version perhaps. A parameter's kind must be known.
fn of_any_version<'de, D: Deserializer<'de>>(told: D) -> Result<EventKind, D::Error> {
    Ok(EventKind::named(&String::deserialize(told)?))
}

/// The same for a list.
pub(crate) fn all_of_any_version<'de, D: Deserializer<'de>>(told: D) -> Result<Vec<EventKind>, D::Error> {
    let names = Vec::<String>::deserialize(told)?;
    Ok(names.iter().map(|name| EventKind::named(name)).collect())
}

impl EventKind {
    fn named(name: &str) -> Self {
        let text = IntoDeserializer::<TextError>::into_deserializer(name);
        Self::deserialize(text).unwrap_or(Self::OfNewerVersion)
    }

    /// Every kind that this version knows.
    pub const ALL: [Self; 33] = [
        Self::ChannelPending,
        Self::ChannelReady,
        Self::ChannelFundingStuck,
        Self::ChannelClosing,
        Self::ChannelCloseStuck,
        Self::ChannelClosed,
        Self::ChannelFailed,
        Self::ChannelFeePaid,
        Self::ChannelUnderpaid,
        Self::ChannelSwept,
        Self::ChannelAlarm,
        Self::WalletReserveLow,
        Self::ChainBlind,
        Self::ChainSynced,
        Self::BackupBehind,
        Self::BackupComplete,
        Self::PeerDisconnected,
        Self::PeerConnected,
        Self::DiskLow,
        Self::DiskRelieved,
        Self::BackupNotVerified,
        Self::ChannelFrozen,
        Self::OpenFailed,
        Self::NodeRestored,
        Self::InvoicePaid,
        Self::KeysendReceived,
        Self::PaymentSucceeded,
        Self::PaymentFailed,
        Self::WalletSent,
        Self::WalletConfirmed,
        Self::WalletReceived,
        Self::TokenCreated,
        Self::TokenRevoked,
    ];
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::PluginManifestReport;

    #[test]
    fn an_event_of_a_newer_version_is_read_and_its_kind_is_never_sent() {
        let told =
            |kind: Value| serde_json::from_value::<Event>(json!({ "seq": 7, "at": 1, "kind": kind, "speed": 3 }));
        let event = told(json!("channel_painted")).map_err(|fault| fault.to_string());
        assert_eq!(event.map(|event| (event.seq, event.kind)), Ok((7, EventKind::OfNewerVersion)));
        for kind in EventKind::ALL {
            let name = serde_json::to_value(kind).unwrap_or_default();
            assert_eq!(told(name).map(|event| event.kind).ok(), Some(kind));
        }
        for unfit in [json!(7), json!(null), json!(["invoice_paid"])] {
            assert!(told(unfit.clone()).is_err(), "{unfit}");
        }
        let manifest = json!({
            "name": "outrigger", "version": "9", "protocol": 1, "groups": [], "hooks": [], "options": [],
            "event_kinds": ["invoice_paid", "channel_painted"],
        });
        let kinds = serde_json::from_value::<PluginManifestReport>(manifest).map(|manifest| manifest.event_kinds).ok();
        assert_eq!(kinds, Some(vec![EventKind::InvoicePaid, EventKind::OfNewerVersion]));

        assert!(serde_json::to_value(EventKind::OfNewerVersion).is_err());
        for kind in ["channel_painted", "of_newer_version"] {
            assert!(serde_json::from_value::<EventSubscribe>(json!({ "kinds": [kind] })).is_err(), "{kind}");
        }
        assert!(!EventKind::ALL.contains(&EventKind::OfNewerVersion));
        let schema = schemars::schema_for!(EventKind).as_value().to_string();
        assert!(schema.contains("token_revoked") && !schema.contains("newer"), "{schema}");
    }
}
