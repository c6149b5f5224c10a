//! Rows, views and faults in the words of the interface.

use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{BlockHash, Network};
use outrigger_bolt::amount::{FeeratePerKw, Msat};
use outrigger_bolt::features::Features;
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::invoice::{Description, InvalidInvoice, Invoice};
use outrigger_channel::Refusal;
use outrigger_rpc_schema as schema;

use crate::chain::calls::{AT_ONCE, Calls};
use crate::chain::follow::ChainState;
use crate::clock::Clock;
use crate::manager::ChannelView;
use crate::manager::operations::INTERRUPTED;
use crate::manager::terms::ForwardingPolicy;
use crate::net::DialFault;
use crate::rpc::{Answer, Fault};
use crate::store::load::FrozenChannel;
use crate::store::row::{EventRow, InvoiceRow, OperationRow, OperationState, PaymentRow, PaymentState};
use crate::store::{StoreError, WriterStats};
use crate::wallet::WalletFault;

/// Of an opening that was under way when the rows were written which proved to be old.
const UNKNOWN: &str = "the node has lost data that came after this call: the channel may have been signed, and its funding transaction \
    be in the chain. wallet.balance tells once the chain is synced what was spent, and the peer, whether it has the channel";

/// An opening, as a node in restored mode tells of it, or another.
pub(super) fn opening_report(row: OperationRow, is_restored: bool) -> Answer<schema::ChannelOpened> {
    let op_id = row.op_id.to_lower_hex_string();
    let opened = |state, channel_id, funding_txid, failure| schema::ChannelOpened {
        op_id,
        state,
        channel_id,
        funding_txid,
        failure,
    };
    Ok(match row.state {
        OperationState::Opening => opened(schema::OpenState::Opening, None, None, None),
        OperationState::Pending { channel_id, funding_txid } => {
            let names = (Some(channel_id.to_string()), Some(funding_txid.to_string()));
            opened(schema::OpenState::Pending, names.0, names.1, None)
        }
        OperationState::Failed { reason } => opened(schema::OpenState::Failed, None, None, Some(reason)),
        OperationState::Interrupted if is_restored => {
            opened(schema::OpenState::Unknown, None, None, Some(UNKNOWN.to_owned()))
        }
        OperationState::Interrupted => opened(schema::OpenState::Failed, None, None, Some(INTERRUPTED.to_owned())),
        OperationState::Invoice { .. }
        | OperationState::Payment { .. }
        | OperationState::Sent { .. }
        | OperationState::Address { .. } => {
            return Err(Fault::idempotency_conflict(&row.idempotency_key));
        }
    })
}

pub(super) fn channel_info(view: ChannelView) -> schema::ChannelInfo {
    let ChannelView { channel_id, peer, summary, closing_txid, obstacle, is_stalled, forwarding } = view;
    schema::ChannelInfo {
        channel_id: channel_id.to_string(),
        node_id: peer.to_string(),
        state: channel_state(summary.state),
        frozen_reason: None,
        reason: match (summary.failure, obstacle) {
            (Some(failure), Some(obstacle)) => Some(format!("{failure}; {obstacle}")),
            (failure, obstacle) => failure.or(obstacle),
        },
        stalled: is_stalled,
        connected: summary.connected,
        funding_outpoint: summary.funding.to_string(),
        short_channel_id: summary.short_channel_id.map(|scid| scid.to_string()),
        capacity_sat: summary.capacity.get(),
        local_msat: summary.local.get(),
        remote_msat: summary.remote.get(),
        spendable_msat: summary.spendable.get(),
        receivable_msat: summary.receivable.get(),
        htlcs: count(summary.htlcs),
        channel_type: features(&summary.channel_type),
        commitment_number: summary.commitment_number,
        is_opener: summary.is_opener,
        announce: summary.announce,
        needed_blocks: Some(summary.confirmations_needed).filter(|needed| *needed > 0),
        closing_txid: closing_txid.map(|txid| txid.to_string()),
        forwarding: forwarding.map(terms),
    }
}

/// What is asked for forwarding over a channel.
pub(super) fn terms(policy: ForwardingPolicy) -> schema::ForwardingTerms {
    schema::ForwardingTerms {
        cltv_delta_blocks: policy.cltv_expiry_delta,
        fee_base_msat: policy.fee_base_msat,
        fee_proportional_millionths: policy.fee_proportional_millionths,
        htlc_minimum_msat: policy.htlc_minimum.get(),
        htlc_maximum_msat: policy.htlc_maximum.map(Msat::get),
    }
}

/// A channel of which little more than its name can be read.
pub(super) fn frozen_info(frozen: &FrozenChannel) -> schema::ChannelInfo {
    let FrozenChannel { channel_id, peer, params, reason } = frozen;
    let params = params.as_deref();
    schema::ChannelInfo {
        channel_id: channel_id.to_string(),
        node_id: peer.map(|peer| peer.to_string()).unwrap_or_default(),
        state: schema::ChannelState::Frozen,
        frozen_reason: Some(reason.clone()),
        reason: None,
        stalled: false,
        connected: false,
        funding_outpoint: params.map(|params| params.funding.to_string()).unwrap_or_default(),
        short_channel_id: None,
        capacity_sat: params.map_or(0, |params| params.capacity.get()),
        local_msat: 0,
        remote_msat: 0,
        spendable_msat: 0,
        receivable_msat: 0,
        htlcs: 0,
        channel_type: params.map(|params| features(&params.channel_type)).unwrap_or_default(),
        commitment_number: 0,
        is_opener: params.is_some_and(|params| params.is_opener),
        announce: params.is_some_and(|params| params.announce),
        needed_blocks: None,
        closing_txid: None,
        forwarding: None,
    }
}

pub(super) fn channel_state(state: &str) -> schema::ChannelState {
    match state {
        "funding" => schema::ChannelState::Funding,
        "normal" => schema::ChannelState::Normal,
        "shutting_down" => schema::ChannelState::ShuttingDown,
        "closing" => schema::ChannelState::Closing,
        "closed" => schema::ChannelState::Closed,
        _failed => schema::ChannelState::Failed,
    }
}

pub(super) fn invoice_created(row: &InvoiceRow, route_hints: u32) -> schema::InvoiceCreated {
    schema::InvoiceCreated {
        invoice: row.invoice.clone().unwrap_or_default(),
        payment_hash: row.payment_hash.to_string(),
        expires_at: row.expires_at,
        route_hints,
    }
}

pub(super) fn payment_state(row: &PaymentRow) -> schema::PaymentState {
    match row.state {
        PaymentState::Pending => schema::PaymentState::Pending,
        PaymentState::Succeeded { .. } => schema::PaymentState::Succeeded,
        PaymentState::Failed { .. } => schema::PaymentState::Failed,
    }
}

pub(super) fn found(row: Result<Option<PaymentRow>, StoreError>, payment_id: &str) -> Answer<schema::PaymentInfo> {
    row.map_err(storage)?.map(payment_info).ok_or_else(|| Fault::payment_not_found(payment_id))
}

pub(super) fn payment_info(row: PaymentRow) -> schema::PaymentInfo {
    let state = payment_state(&row);
    let (mut preimage, mut fee_msat, mut failure, mut completed_at) = (None, None, None, None);
    match row.state {
        PaymentState::Pending => {}
        PaymentState::Succeeded { preimage: proof, fee, at } => {
            preimage = Some(proof.to_string());
            fee_msat = Some(fee.get());
            completed_at = Some(at);
        }
        PaymentState::Failed { kind, message, at } => {
            failure = Some(schema::PaymentFailure { kind, message });
            completed_at = Some(at);
        }
    }
    schema::PaymentInfo {
        payment_id: row.payment_id.to_lower_hex_string(),
        payment_hash: row.payment_hash.to_string(),
        state,
        node_id: row.destination.to_string(),
        amount_msat: row.amount.get(),
        preimage,
        fee_msat,
        failure,
        created_at: row.created_at,
        completed_at,
    }
}

pub(super) fn invoice_info(row: InvoiceRow) -> schema::InvoiceInfo {
    let state = match row.paid {
        Some(_) => schema::InvoiceState::Paid,
        None if row.expires_at <= Clock::now_unix() => schema::InvoiceState::Expired,
        None => schema::InvoiceState::Open,
    };
    schema::InvoiceInfo {
        invoice: row.invoice,
        payment_hash: row.payment_hash.to_string(),
        state,
        amount_msat: row.amount.map(Msat::get),
        received_msat: row.paid.map(|paid| paid.amount.get()),
        description: row.description,
        label: row.label,
        created_at: row.created_at,
        expires_at: row.expires_at,
        paid_at: row.paid.map(|paid| paid.at),
    }
}

/// What an invoice asks for, on this network.
pub(super) fn decoded(text: &str, network: Network) -> Answer<schema::InvoiceDecoded> {
    let invoice = Invoice::parse(text, network).map_err(|fault| match fault {
        fault @ InvalidInvoice::WrongNetwork(_) => Fault::invoice_wrong_network(fault),
        fault => Fault::invoice_invalid(fault),
    })?;
    let (payee, terms) = (invoice.payee, invoice.terms);
    let description = match terms.description {
        Description::Text(text) => Some(text),
        Description::Hash(_) => None,
    };
    Ok(schema::InvoiceDecoded {
        node_id: payee.to_string(),
        payment_hash: terms.payment_hash.to_string(),
        amount_msat: terms.amount.map(Msat::get),
        description,
        created_at: terms.timestamp,
        expires_at: terms.timestamp.saturating_add(terms.expiry_secs),
        final_cltv_blocks: terms.min_final_cltv_expiry_delta,
        route_hints: count(terms.route_hints.len()),
    })
}

/// A feerate in the unit that people type, rounded up.
pub(super) fn sat_per_vb(feerate: FeeratePerKw) -> u32 {
    feerate.get().div_ceil(250)
}

pub(super) fn event(seq: u64, row: EventRow) -> Answer<schema::Event> {
    let serde_json::Value::Object(mut fields) = row.fields else {
        return Err(Fault::internal("an event without fields"));
    };
    // Stored by a newer version, it would be read here and could not be told.
    let _: schema::EventKind = serde_json::from_value(row.kind.as_str().into()).map_err(Fault::internal)?;
    fields.insert("seq".into(), seq.into());
    fields.insert("at".into(), row.at.into());
    fields.insert("kind".into(), row.kind.into());
    serde_json::from_value(fields.into()).map_err(Fault::internal)
}

/// The text under which a kind is stored: the one that callers see.
pub(super) fn kind_text(kind: &schema::EventKind) -> Option<String> {
    serde_json::to_value(kind).ok()?.as_str().map(str::to_owned)
}

/// The newest block that the node has taken in, and the height that it is on its way to. What was `taken` stays so while bitcoind is
/// away.
pub(super) fn tip(
    state: Option<&ChainState>,
    taken: impl FnOnce() -> Option<(u32, BlockHash)>,
) -> (Option<u32>, Option<String>, Option<u32>) {
    match state {
        Some(ChainState::Synced { height, hash }) => (Some(*height), Some(hash.to_string()), None),
        Some(ChainState::Syncing { height, target }) => (Some(*height), None, Some(*target)),
        Some(ChainState::WaitingForBitcoind { .. } | ChainState::Blind { .. }) | None => match taken() {
            Some((height, hash)) => (Some(height), Some(hash.to_string()), None),
            None => (None, None, None),
        },
    }
}

/// What was asked of bitcoind, by method, and what the node allows itself.
pub(super) fn calls(calls: &Calls) -> (Vec<schema::ChainCalls>, schema::ChainBudget) {
    let by_method = calls.by_method().into_iter().map(|call| schema::ChainCalls {
        method: call.method.to_owned(),
        calls: call.took.count,
        errors: call.errors,
        mean_micros: call.took.mean_micros(),
        half_within_micros: call.took.within_micros(500),
        most_within_micros: call.took.within_micros(990),
    });
    let (waited, (at_once, peak)) = (calls.waited(), calls.at_once());
    let budget = schema::ChainBudget {
        calls_at_once: count(AT_ONCE),
        calls_now: at_once,
        calls_peak: peak,
        turns: waited.count,
        turn_mean_micros: waited.mean_micros(),
        turn_most_within_micros: waited.within_micros(990),
    };
    (by_method.collect(), budget)
}

pub(super) fn store(stats: &WriterStats) -> schema::StoreReport {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    schema::StoreReport {
        commits: read(&stats.commits),
        rows: read(&stats.rows),
        staged_bytes: read(&stats.bytes),
        commit_micros: read(&stats.micros),
    }
}

pub(super) fn features(features: &Features) -> String {
    features.to_be_bytes().to_lower_hex_string()
}

pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

pub(super) fn payment_id_of(text: &str) -> Answer<[u8; 32]> {
    <[u8; 32]>::from_hex(text).map_err(|_| Fault::payment_not_found(text))
}

/// A digest of a call's body, each part with its length.
pub(super) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    sha256::Hash::hash(&bytes).to_byte_array()
}

pub(super) fn storage(fault: StoreError) -> Fault {
    Fault::storage_failed(fault)
}

pub(super) fn wallet_fault(fault: WalletFault) -> Fault {
    match fault {
        WalletFault::NotStarted => Fault::chain_not_synced(),
        WalletFault::InsufficientFunds { needed, available } => Fault::insufficient_funds(needed, available),
        WalletFault::Reserve { .. }
        | WalletFault::TooManyCoins(_)
        | WalletFault::Dust(_)
        | WalletFault::Damaged(_)
        | WalletFault::Newer(_)
        | WalletFault::OtherSeed(_)
        | WalletFault::Inconsistent(_) => Fault::wallet_failed(fault),
    }
}

pub(super) fn dial_fault(fault: DialFault) -> Fault {
    let (hint, retryable) = (fault.hint(), fault.retryable());
    let answer = match &fault {
        DialFault::Refused
        | DialFault::Unreachable(_)
        | DialFault::Timeout(_)
        | DialFault::NoAddress(_)
        | DialFault::NoProxy
        | DialFault::Proxy(_) => Fault::peer_unreachable(&fault).retryable(retryable),
        DialFault::WrongKey(_) => Fault::peer_handshake_failed(&fault),
        DialFault::InitRefused(_) => Fault::peer_incompatible(&fault),
        DialFault::Stopping => return Fault::stopping(),
    };
    answer.with_hint(hint)
}

pub(super) fn refused(channel: &ChannelId, refusal: &Refusal) -> Fault {
    match refusal {
        Refusal::UnknownChannel => Fault::channel_not_found(channel),
        other => Fault::channel_state_unfit(other).retryable(other.is_retryable()),
    }
}
