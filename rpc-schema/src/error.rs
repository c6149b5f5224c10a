//! The errors of the interface: a code in the band of its group, and a kind that callers may rely on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `data` of an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// What went wrong, in snake case: stable, for programs. One of [`ErrorKind`], or of a newer version's.
    pub kind: String,
    /// Whether the same call may succeed later without anybody changing anything but time.
    pub retryable: bool,
    /// What to do next, for people.
    pub hint: String,
    /// The parameter that is at fault, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// The number of the event to go on from, where it is events that the caller missed or stopped at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<u64>,
}

/// What went wrong. Codes and names never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The body is not one JSON value: broken, nested too deep, a key twice, not UTF-8.
    ParseError,
    /// The body is JSON, and not a JSON-RPC 2.0 request.
    InvalidRequest,
    /// A method that moves money was called without an id, so that nobody would hear the answer.
    NotificationRefused,
    /// There is no method of this name.
    UnknownMethod,
    /// A parameter is unknown, missing or does not fit; `parameter` names it.
    InvalidParameter,
    /// The daemon itself is at fault.
    Internal,
    /// The daemon is still opening its store.
    Starting,
    /// The daemon is stopping.
    Stopping,
    /// The daemon's database is old: it signs nothing any more.
    Restored,
    /// The idempotency key was used before, with other parameters.
    IdempotencyConflict,
    /// No call of this op_id is known to the caller.
    OperationNotFound,
    /// Blocks are still being taken in.
    ChainNotSynced,
    /// bitcoind does not answer or is not ready.
    BitcoindUnavailable,
    /// What bitcoind says cannot be used.
    ChainBlind,
    /// The wallet does not hold enough.
    InsufficientFunds,
    /// The wallet could not do it.
    WalletFailed,
    /// The wallet knows no transaction of this id.
    WalletTransactionNotFound,
    /// The peer is not connected.
    PeerNotConnected,
    /// Nothing answers at the peer's address.
    PeerUnreachable,
    /// What answers there is not that peer.
    PeerHandshakeFailed,
    /// The peer does not support what is needed.
    PeerIncompatible,
    /// The node id is this node's own.
    PeerIsSelf,
    /// There is no channel of this name.
    ChannelNotFound,
    /// The channel is not in a state in which this can be done.
    ChannelStateUnfit,
    /// The feerate is outside the limits.
    FeerateOutOfRange,
    /// There is no invoice with this payment hash.
    InvoiceNotFound,
    /// The text is not a valid invoice.
    InvoiceInvalid,
    /// The invoice has expired.
    InvoiceExpired,
    /// The invoice is for another network.
    InvoiceWrongNetwork,
    /// The invoice leaves the amount to the payer, and none was given.
    InvoiceAmountRequired,
    /// The amount given is not the invoice's.
    InvoiceAmountMismatch,
    /// There is no payment of this name.
    PaymentNotFound,
    /// No way to the receiver is known.
    NoRoute,
    /// No channel can send this much now.
    InsufficientCapacity,
    /// The receiver is this node.
    PaymentToSelf,
    /// Every way costs more in fees than the caller allows.
    FeeTooHigh,
    /// The events asked for are no longer kept.
    EventGap,
    /// The reader of a subscription did not keep up; `after_seq` says where to go on.
    EventBehind,
    /// A subscription was asked for over HTTP.
    EventNoSession,
    /// The connection has as many subscriptions as it may.
    EventTooManySubscriptions,
    /// There is no token of this name.
    AuthTokenNotFound,
    /// The token that the call came with was revoked, or has expired.
    AuthTokenEnded,
    /// The token does not allow this.
    AuthScopeMissing,
    /// The payment may cost more than the token may spend yet.
    AuthBudgetExceeded,
    /// There is a token of this name already.
    AuthNameTaken,
    /// There are as many tokens as are kept.
    AuthTooManyTokens,
    /// The store failed.
    StorageFailed,
    /// The disk of the data directory has too little room for another channel, invoice or payment.
    DiskLow,
}

impl ErrorKind {
    /// Every kind, by code.
    pub const ALL: [Self; 48] = [
        Self::ParseError,
        Self::InvalidRequest,
        Self::NotificationRefused,
        Self::UnknownMethod,
        Self::InvalidParameter,
        Self::Internal,
        Self::Starting,
        Self::Stopping,
        Self::Restored,
        Self::IdempotencyConflict,
        Self::OperationNotFound,
        Self::ChainNotSynced,
        Self::BitcoindUnavailable,
        Self::ChainBlind,
        Self::InsufficientFunds,
        Self::WalletFailed,
        Self::WalletTransactionNotFound,
        Self::PeerNotConnected,
        Self::PeerUnreachable,
        Self::PeerHandshakeFailed,
        Self::PeerIncompatible,
        Self::PeerIsSelf,
        Self::ChannelNotFound,
        Self::ChannelStateUnfit,
        Self::FeerateOutOfRange,
        Self::InvoiceNotFound,
        Self::InvoiceInvalid,
        Self::InvoiceExpired,
        Self::InvoiceWrongNetwork,
        Self::InvoiceAmountRequired,
        Self::InvoiceAmountMismatch,
        Self::PaymentNotFound,
        Self::NoRoute,
        Self::InsufficientCapacity,
        Self::PaymentToSelf,
        Self::FeeTooHigh,
        Self::EventGap,
        Self::EventBehind,
        Self::EventNoSession,
        Self::EventTooManySubscriptions,
        Self::AuthTokenNotFound,
        Self::AuthTokenEnded,
        Self::AuthScopeMissing,
        Self::AuthBudgetExceeded,
        Self::AuthNameTaken,
        Self::AuthTooManyTokens,
        Self::StorageFailed,
        Self::DiskLow,
    ];

    /// What a call of any method may be refused for, whatever the method does: its parameters do not fit, or what the caller shows does
    /// not admit it, or the daemon is at fault.
    pub const OF_ANY_METHOD: [Self; 4] =
        [Self::InvalidParameter, Self::Internal, Self::AuthTokenEnded, Self::AuthScopeMissing];

    /// What a method that asks the node has beside those: there is no node yet, or none any more.
    pub const WITHOUT_NODE: [Self; 2] = [Self::Starting, Self::Stopping];

    /// What a method that needs the chain has: it is not followed to its end, or not at all, or nobody knows.
    pub const WITHOUT_CHAIN: [Self; 3] = [Self::ChainNotSynced, Self::BitcoindUnavailable, Self::ChainBlind];

    /// What a message is refused for in which no method is found, so that no method has it.
    pub const BEFORE_ANY_METHOD: [Self; 3] = [Self::ParseError, Self::InvalidRequest, Self::UnknownMethod];

    /// The code on the wire and the name in `data.kind`: JSON-RPC's own codes for faults of the call, then a band of a
    /// hundred for the node and for each group.
    pub const fn code_and_name(self) -> (i32, &'static str) {
        match self {
            Self::ParseError => (-32700, "parse_error"),
            Self::InvalidRequest => (-32600, "invalid_request"),
            Self::NotificationRefused => (-32600, "notification_refused"),
            Self::UnknownMethod => (-32601, "unknown_method"),
            Self::InvalidParameter => (-32602, "invalid_parameter"),
            Self::Internal => (-32603, "internal"),
            Self::Starting => (1001, "starting"),
            Self::Stopping => (1002, "stopping"),
            Self::Restored => (1004, "restored"),
            Self::IdempotencyConflict => (1003, "idempotency_conflict"),
            Self::OperationNotFound => (1005, "operation_not_found"),
            Self::ChainNotSynced => (1101, "chain_not_synced"),
            Self::BitcoindUnavailable => (1102, "bitcoind_unavailable"),
            Self::ChainBlind => (1103, "chain_blind"),
            Self::InsufficientFunds => (1201, "insufficient_funds"),
            Self::WalletFailed => (1202, "wallet_failed"),
            Self::WalletTransactionNotFound => (1203, "wallet_transaction_not_found"),
            Self::PeerNotConnected => (1301, "peer_not_connected"),
            Self::PeerUnreachable => (1302, "peer_unreachable"),
            Self::PeerHandshakeFailed => (1303, "peer_handshake_failed"),
            Self::PeerIncompatible => (1304, "peer_incompatible"),
            Self::PeerIsSelf => (1305, "peer_is_self"),
            Self::ChannelNotFound => (1401, "channel_not_found"),
            Self::ChannelStateUnfit => (1402, "channel_state_unfit"),
            Self::FeerateOutOfRange => (1404, "feerate_out_of_range"),
            Self::InvoiceNotFound => (1501, "invoice_not_found"),
            Self::InvoiceInvalid => (1502, "invoice_invalid"),
            Self::InvoiceExpired => (1503, "invoice_expired"),
            Self::InvoiceWrongNetwork => (1504, "invoice_wrong_network"),
            Self::InvoiceAmountRequired => (1505, "invoice_amount_required"),
            Self::InvoiceAmountMismatch => (1506, "invoice_amount_mismatch"),
            Self::PaymentNotFound => (1601, "payment_not_found"),
            Self::NoRoute => (1602, "no_route"),
            Self::InsufficientCapacity => (1603, "insufficient_capacity"),
            Self::PaymentToSelf => (1604, "payment_to_self"),
            Self::FeeTooHigh => (1605, "fee_too_high"),
            Self::EventGap => (1701, "event_gap"),
            Self::EventBehind => (1702, "event_behind"),
            Self::EventNoSession => (1703, "event_no_session"),
            Self::EventTooManySubscriptions => (1704, "event_too_many_subscriptions"),
            Self::AuthTokenNotFound => (1801, "auth_token_not_found"),
            Self::AuthTokenEnded => (1802, "auth_token_ended"),
            Self::AuthScopeMissing => (1803, "auth_scope_missing"),
            Self::AuthBudgetExceeded => (1804, "auth_budget_exceeded"),
            Self::AuthNameTaken => (1805, "auth_name_taken"),
            Self::AuthTooManyTokens => (1806, "auth_too_many_tokens"),
            Self::StorageFailed => (1901, "storage_failed"),
            Self::DiskLow => (1902, "disk_low"),
        }
    }

    /// The code on the wire.
    pub const fn code(self) -> i32 {
        self.code_and_name().0
    }

    /// The name in `data.kind`.
    pub const fn name(self) -> &'static str {
        self.code_and_name().1
    }
}
