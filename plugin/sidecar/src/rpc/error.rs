//! The errors that callers see: a constructor per kind, each with what to do next.

mod events;

use std::fmt;

use bitcoin::Txid;
use jsonrpsee::types::ErrorObjectOwned;
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_rpc_schema::{ErrorData, ErrorKind, ParameterFault, Scope};

use super::read;

/// What a method answers.
pub type Answer<T> = Result<T, Fault>;

/// Why a call is refused. It becomes the error object on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    kind: ErrorKind,
    message: String,
    hint: String,
    retryable: bool,
    parameter: Option<String>,
    after_seq: Option<u64>,
}

impl Fault {
    /// A fault that the same call meets again until somebody changes something.
    fn lasting(kind: ErrorKind, message: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            hint: hint.to_string(),
            retryable: false,
            parameter: None,
            after_seq: None,
        }
    }

    /// A fault that time alone may heal.
    fn passing(kind: ErrorKind, message: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self { retryable: true, ..Self::lasting(kind, message, hint) }
    }

    /// The stable kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Replaces the advice, where the caller of the constructor knows better.
    #[must_use]
    pub fn with_hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: hint.to_string(), ..self }
    }

    /// Says whether time alone may heal it, where that depends on the case.
    #[must_use]
    pub fn retryable(self, retryable: bool) -> Self {
        Self { retryable, ..self }
    }
}

/// Faults of the call itself.
impl Fault {
    /// The body is not one sound JSON value.
    pub(super) fn parse_error(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::ParseError, format!("not sound JSON: {reason}"), "Send one JSON-RPC 2.0 request.")
    }

    /// What is sound JSON is no JSON-RPC request. `problem` says what it lacks.
    pub(super) fn invalid_request(problem: impl fmt::Display) -> Self {
        Self::lasting(
            ErrorKind::InvalidRequest,
            format!("no JSON-RPC 2.0 request: {problem}"),
            r#"Send {"jsonrpc":"2.0","id":1,"method":"node.status","params":{}}, or a list of such."#,
        )
    }

    /// A method that moves money was called without an id.
    pub(super) fn notification_refused(method: &str) -> Self {
        Self::lasting(
            ErrorKind::NotificationRefused,
            format!("{method} moves money, and a call without an id has no answer"),
            "Give the request an id. Nothing was done.",
        )
    }

    /// There is no such method.
    pub(super) fn unknown_method(method: &str, nearest: Option<&str>) -> Self {
        let hint = match nearest {
            Some(nearest) => format!("Did you mean {nearest}?"),
            None => "outrigger-cli help lists the methods.".to_owned(),
        };
        Self::lasting(ErrorKind::UnknownMethod, format!("no method {method:?}"), hint)
    }

    /// The parameters are given as a list.
    pub(super) fn parameters_by_name() -> Self {
        Self::lasting(ErrorKind::InvalidParameter, "parameters are given by name", "Send params as a JSON object.")
    }

    /// A parameter's value has the right type and no good meaning. `problem` reads on after the name.
    pub fn invalid_parameter(parameter: &str, problem: impl fmt::Display) -> Self {
        Self {
            parameter: Some(parameter.to_owned()),
            ..Self::lasting(
                ErrorKind::InvalidParameter,
                format!("parameter {parameter} {problem}"),
                "outrigger-cli METHOD --help describes the parameters.",
            )
        }
    }

    /// The daemon is at fault. `what` must not carry a secret.
    pub fn internal(what: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::Internal, what, "This is a bug in the daemon: please report it with the log.")
    }
}

impl From<ParameterFault> for Fault {
    fn from(fault: ParameterFault) -> Self {
        Self {
            parameter: Some(fault.parameter().to_owned()),
            ..Self::lasting(
                ErrorKind::InvalidParameter,
                &fault,
                "outrigger-cli METHOD --help describes the parameters.",
            )
        }
    }
}

/// Faults of what a token allows.
impl Fault {
    /// There is no token of this name.
    pub fn token_not_found(name: &str) -> Self {
        Self::lasting(
            ErrorKind::AuthTokenNotFound,
            format!("no token {name:?}"),
            "token.list shows the tokens. One that was revoked before admits nobody any more.",
        )
    }

    /// The token was good when the connection was made, and is no more.
    pub fn token_ended() -> Self {
        Self::lasting(
            ErrorKind::AuthTokenEnded,
            "the token was revoked, or has expired",
            "Nothing was done. Ask whoever runs the node for a new token.",
        )
    }

    /// Another caller began the payment.
    pub fn payment_of_another() -> Self {
        Self::scope_missing("payment.abandon of a payment that this token did not begin", &[Scope::Admin])
    }

    /// The token allows none of these. `what` is what was asked for.
    pub(super) fn scope_missing(what: &str, enough: &[Scope]) -> Self {
        let names: Vec<_> = enough.iter().map(|scope| scope.name()).collect();
        let names = if enough.contains(&Scope::Admin) { names.join(" or ") } else { names.join(" or ") + " or admin" };
        Self::lasting(
            ErrorKind::AuthScopeMissing,
            format!("{what} needs a token with the scope {names}"),
            "Nothing was done. Use a token that has it: token.create.",
        )
    }

    /// The payment may cost more than the token may spend yet.
    pub fn budget_exceeded(reason: impl fmt::Display) -> Self {
        Self::lasting(
            ErrorKind::AuthBudgetExceeded,
            reason,
            "Nothing was sent. A lower max_fee_msat asks for less; what pending payments do not spend comes back; token.list tells \
             what was spent.",
        )
    }

    /// There is a token of this name already.
    pub fn token_name_taken(name: &str) -> Self {
        Self::lasting(
            ErrorKind::AuthNameTaken,
            format!("there is a token {name:?} already"),
            "Its secret cannot be shown again. Choose another name, or token.revoke it first.",
        )
    }

    /// There are as many tokens as are kept.
    pub fn too_many_tokens(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::AuthTooManyTokens, reason, "Revoke those that nobody uses: token.list, token.revoke.")
    }
}

/// Faults of the node's state.
impl Fault {
    /// The store is still being opened.
    pub fn starting() -> Self {
        Self::passing(ErrorKind::Starting, "the node is starting", "node.status tells when it is ready.")
    }

    /// The node is on its way out.
    pub fn stopping() -> Self {
        Self::passing(ErrorKind::Stopping, "the node is stopping", "Try again after it has been started again.")
    }

    /// The node's file is old.
    pub fn restored() -> Self {
        Self::lasting(
            ErrorKind::Restored,
            "the node is in restored mode: its database is older than what its peers were told",
            "Nothing was done. Leave the node running: its peers close the channels, and the coins come to the wallet.",
        )
    }

    /// The key names another call.
    pub fn idempotency_conflict(key: &str) -> Self {
        Self::lasting(
            ErrorKind::IdempotencyConflict,
            format!("idempotency_key {:?} was used before with other parameters", read::shown_key(key)),
            "Repeat the first call exactly to see its answer, or choose a new key for a new one.",
        )
    }

    /// No call of this id is known, to this caller.
    pub fn operation_not_found(op_id: &str) -> Self {
        Self::lasting(
            ErrorKind::OperationNotFound,
            format!("no operation {op_id}"),
            "channel.open gives the op_id, and a repeat of the same call gives it again; a token finds those that it began.",
        )
    }

    /// Blocks are still being taken in.
    pub fn chain_not_synced() -> Self {
        Self::passing(
            ErrorKind::ChainNotSynced,
            "the node has not reached the tip of the chain",
            "Nothing is opened or paid until it has; node.status shows the progress.",
        )
    }

    /// bitcoind does not answer, or is not ready.
    pub fn bitcoind_unavailable(reason: impl fmt::Display) -> Self {
        Self::passing(
            ErrorKind::BitcoindUnavailable,
            format!("bitcoind is not available: {reason}"),
            "Check that bitcoind runs and that its address and cookie are the configured ones.",
        )
    }

    /// What bitcoind says cannot be used.
    pub fn chain_blind(reason: impl fmt::Display) -> Self {
        Self::lasting(
            ErrorKind::ChainBlind,
            format!("bitcoind's chain cannot be used: {reason}"),
            "Nothing is opened or paid on it; chain.status says what is wrong.",
        )
    }

    /// The disk has too little room for another promise.
    pub fn disk_low(free: u64, wanted: u64) -> Self {
        Self::passing(
            ErrorKind::DiskLow,
            format!(
                "the disk of the data directory has {free} bytes free, and {wanted} are wanted to promise anything more"
            ),
            "Make room on it. What stands goes on, and nothing is lost; disk_reserve_bytes is what this comes from.",
        )
    }

    /// The store failed; the daemon is about to end.
    pub fn storage_failed(reason: impl fmt::Display) -> Self {
        Self::lasting(
            ErrorKind::StorageFailed,
            format!("the store failed: {reason}"),
            "Check the disk that holds the data directory. Nothing was sent that is not stored.",
        )
    }
}

/// Faults of the wallet.
impl Fault {
    /// The wallet does not hold enough. `needed` is without fees.
    pub fn insufficient_funds(needed: Sat, available: Sat) -> Self {
        Self::lasting(
            ErrorKind::InsufficientFunds,
            format!("{needed} and the fee are needed, and the wallet holds {available} that are confirmed and free"),
            "Send coins to an address of wallet.new_address and wait for a confirmation.",
        )
    }

    /// The wallet could not do it.
    pub fn wallet_failed(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::WalletFailed, format!("the wallet failed: {reason}"), "The log has the details.")
    }
}

/// Faults with peers.
impl Fault {
    /// The peer is not connected.
    pub fn peer_not_connected(peer: &NodeId) -> Self {
        Self::passing(
            ErrorKind::PeerNotConnected,
            format!("peer {peer} is not connected"),
            "Connect to it first with peer.connect.",
        )
    }

    /// The peer is connected, and what was to pay is not agreed on since (BOLT 2, `channel_reestablish`), or is closing.
    pub fn channels_not_agreed(peer: &NodeId) -> Self {
        Self::passing(
            ErrorKind::ChannelStateUnfit,
            format!("peer {peer} is connected, and no channel with it can pay yet"),
            "Nothing was sent. Call again in a moment; channel.list shows the state of each channel, and whether it is `connected`.",
        )
    }

    /// Nothing answers at the peer's address.
    pub fn peer_unreachable(reason: impl fmt::Display) -> Self {
        Self::passing(ErrorKind::PeerUnreachable, reason, "Check the address, and that the peer runs.")
    }

    /// What answers there does not prove to be that peer.
    pub fn peer_handshake_failed(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::PeerHandshakeFailed, reason, "Check the node_id: another node answers there.")
    }

    /// One of the two does not support what the other needs.
    pub fn peer_incompatible(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::PeerIncompatible, reason, "Check that both run on the same network; else update one.")
    }

    /// The node id is our own.
    pub fn peer_is_self() -> Self {
        Self::lasting(ErrorKind::PeerIsSelf, "this node_id is this node's own", "Give the node_id of the other node.")
    }
}

/// Faults of channels.
impl Fault {
    /// There is no channel of this name.
    pub fn channel_not_found(channel: &ChannelId) -> Self {
        Self::lasting(
            ErrorKind::ChannelNotFound,
            format!("no channel {channel}"),
            "channel.list shows the channels; an opening has no channel_id until it is pending.",
        )
    }

    /// The channel's state does not allow it.
    pub fn channel_state_unfit(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::ChannelStateUnfit, reason, "channel.get shows the state.")
    }

    /// The feerate is outside the limits.
    pub fn feerate_out_of_range(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::FeerateOutOfRange, reason, "The limits are in the configuration, section [feerate].")
    }
}

/// Faults of invoices.
impl Fault {
    /// There is no invoice with this payment hash.
    pub fn invoice_not_found(payment_hash: &PaymentHash) -> Self {
        Self::lasting(
            ErrorKind::InvoiceNotFound,
            format!("no invoice with payment_hash {payment_hash}"),
            "Only invoices that this node created are kept here.",
        )
    }

    /// The text is not a valid invoice.
    pub fn invoice_invalid(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::InvoiceInvalid, format!("not a valid invoice: {reason}"), "Ask for a new invoice.")
    }

    /// The invoice has expired.
    pub fn invoice_expired() -> Self {
        Self::lasting(ErrorKind::InvoiceExpired, "the invoice has expired", "Ask for a new invoice.")
    }

    /// The invoice is for another network.
    pub fn invoice_wrong_network(reason: impl fmt::Display) -> Self {
        Self::lasting(ErrorKind::InvoiceWrongNetwork, reason, "Ask for an invoice of this node's network.")
    }

    /// The invoice leaves the amount to the payer.
    pub fn invoice_amount_required() -> Self {
        Self::lasting(
            ErrorKind::InvoiceAmountRequired,
            "the invoice leaves the amount to the payer",
            "Give amount_msat.",
        )
    }

    /// The amount given is not the invoice's.
    pub fn invoice_amount_mismatch(asked: Msat, given: Msat) -> Self {
        Self::lasting(
            ErrorKind::InvoiceAmountMismatch,
            format!("the invoice asks for {asked}, and amount_msat says {given}"),
            "Leave amount_msat out: the invoice says how much.",
        )
    }
}

/// Faults of payments and events.
impl Fault {
    /// There is no payment of this name.
    pub fn payment_not_found(payment_id: &str) -> Self {
        Self::lasting(
            ErrorKind::PaymentNotFound,
            format!("no payment {payment_id:?}"),
            "payment.send gives the payment_id.",
        )
    }

    /// The wallet has no such transaction.
    pub fn transaction_not_found(txid: &Txid) -> Self {
        Self::lasting(
            ErrorKind::WalletTransactionNotFound,
            format!("the wallet knows no transaction {txid}"),
            "wallet.send and channel.open give the ids of those that it made.",
        )
    }

    /// No way to the receiver is known.
    pub fn no_route(receiver: &NodeId) -> Self {
        Self::lasting(
            ErrorKind::NoRoute,
            format!("no way to {receiver} is known"),
            "Open a channel with it, or with a node that its invoice names: channel.open.",
        )
    }

    /// Every way costs more than the caller allows.
    pub fn fee_too_high(fee: Msat, most: Msat) -> Self {
        Self::lasting(
            ErrorKind::FeeTooHigh,
            format!("the cheapest way that is left costs {fee} in fees, and no more than {most} may be paid"),
            "Give a larger max_fee_msat, or open a channel with the receiver.",
        )
    }

    /// No channel can send this much now.
    pub fn insufficient_capacity(needed: Msat, spendable: Msat) -> Self {
        Self::passing(
            ErrorKind::InsufficientCapacity,
            format!("{needed} are to be sent, and the best channel can send {spendable} now"),
            "channel.list shows spendable_msat; pending payments and a peer that is away lower it.",
        )
    }

    /// The receiver is this node.
    pub fn payment_to_self() -> Self {
        Self::lasting(ErrorKind::PaymentToSelf, "the receiver is this node itself", "Pay from another node.")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for ErrorObjectOwned {
    fn from(fault: Fault) -> Self {
        let data = ErrorData {
            kind: fault.kind.name().to_owned(),
            retryable: fault.retryable,
            hint: fault.hint,
            parameter: fault.parameter,
            after_seq: fault.after_seq,
        };
        Self::owned(fault.kind.code(), fault.message, Some(data))
    }
}
