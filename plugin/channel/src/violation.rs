//! Who is to blame, and for what: the peer ([`Violation`]) or our own caller ([`Refusal`]).

use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::wire::FeeRange;
use thiserror::Error;

/// A requirement that the peer broke, and what it costs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// `warning`, then the connection is closed (BOLT 1). What was not committed is forgotten; the channel lives on.
    #[error("{0}")]
    Warn(Rule),
    /// `error`, and the channel is failed (BOLT 1, BOLT 5).
    #[error("{0}")]
    Fail(Rule),
}

impl Violation {
    /// The requirement itself.
    pub const fn rule(&self) -> &Rule {
        match self {
            Self::Warn(rule) | Self::Fail(rule) => rule,
        }
    }
}

/// A requirement of the BOLTs on what a peer sends. The text is what the peer and the operator are told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rule {
    // BOLT 2, `open_channel` and `accept_channel`.
    #[error("chain_hash names a chain that we do not follow")]
    UnknownChain,
    #[error("channel_type is missing")]
    ChannelTypeMissing,
    #[error(
        "channel_type is not option_static_remotekey with option_anchors, or it needs a feature that is not offered"
    )]
    ChannelTypeUnsuitable,
    #[error("channel_type has option_scid_alias where announce_channel is set")]
    AliasAnnounced,
    #[error("upfront_shutdown_script is missing; it may be empty")]
    UpfrontScriptMissing,
    #[error("accept_channel changes the channel_type")]
    ChannelTypeChanged,
    #[error("push_msat is more than funding_satoshis")]
    PushAboveFunding,
    #[error("funding_satoshis is below our minimum of {0}")]
    FundingTooSmall(Sat),
    #[error("funding_satoshis is above our maximum of {0}")]
    FundingTooLarge(Sat),
    #[error("to_self_delay is above our maximum of {0} blocks")]
    ToSelfDelayTooLong(u16),
    #[error("max_accepted_htlcs must be at least 1 and at most 483")]
    MaxAcceptedHtlcs,
    #[error("dust_limit_satoshis is below 354")]
    DustLimitTooSmall,
    #[error("dust_limit_satoshis is above 10000")]
    DustLimitTooLarge,
    #[error("channel_reserve_satoshis is below a dust_limit_satoshis of this channel")]
    ReserveBelowDust,
    #[error("channel_reserve_satoshis is more than a tenth of the channel")]
    ReserveTooLarge,
    #[error("htlc_minimum_msat is more than a hundredth of the channel")]
    HtlcMinimumTooLarge,
    #[error("max_htlc_value_in_flight_msat is below htlc_minimum_msat")]
    MaxInFlightTooSmall,
    #[error("feerate_per_kw is below {}", FeeratePerKw::FLOOR)]
    FeerateTooLow,
    #[error("feerate_per_kw is above our maximum of {0}")]
    FeerateTooHigh(FeeratePerKw),
    #[error("the opener cannot pay the fee of the first commitment transaction")]
    OpenerCannotPayFee,
    #[error("neither side has more than the channel reserve in the first commitment transaction")]
    NobodyAboveReserve,
    #[error("minimum_depth is above our maximum of {0}")]
    MinimumDepthTooLong(u32),
    #[error("temporary_channel_id is not that of this opening")]
    WrongTemporaryId,
    #[error("channel_id is not that of the funding output")]
    WrongChannelId,
    // BOLT 2, `funding_created`, `funding_signed`, `channel_ready`.
    #[error("funding_txid is all zero")]
    ZeroFundingTxid,
    #[error("the funding transaction does not pay what was agreed: {0}")]
    FundingMismatch(String),
    #[error("announcement_signatures do not sign the announcement of this channel")]
    AnnouncementSignatures,
    // BOLT 2, "Normal Operation".
    #[error("{0} is not expected now")]
    UnexpectedMessage(&'static str),
    #[error("message before channel_reestablish")]
    BeforeReestablish,
    #[error("update before channel_ready")]
    BeforeReady,
    #[error("update_add_htlc after shutdown")]
    AddAfterShutdown,
    #[error("amount_msat is zero or below our htlc_minimum_msat of {0}")]
    AmountTooSmall(Msat),
    #[error("more HTLCs than our max_accepted_htlcs")]
    TooManyHtlcs,
    #[error("more in flight than our max_htlc_value_in_flight_msat")]
    TooMuchInFlight,
    #[error("the amount cannot be afforded with fee, anchors and channel reserve")]
    CannotAffordHtlc,
    #[error("cltv_expiry is 500000000 or more, which would be a time")]
    ExpiryIsTime,
    #[error("HTLC id {found} where {expected} is next")]
    HtlcIdOutOfOrder { expected: u64, found: u64 },
    #[error("no HTLC with id {0} stands in your commitment transaction")]
    UnknownHtlc(u64),
    #[error("HTLC {0} is not irrevocably committed yet")]
    HtlcNotCommitted(u64),
    #[error("HTLC {0} is being removed already")]
    HtlcAlreadyRemoved(u64),
    #[error("payment_preimage does not hash to the payment_hash of HTLC {0}")]
    WrongPreimage(u64),
    #[error("failure_code of update_fail_malformed_htlc lacks the BADONION bit")]
    NotBadOnion,
    #[error("update_fee from the side that does not pay the fee")]
    FeeFromAccepter,
    #[error("the new feerate cannot be afforded with anchors and channel reserve")]
    CannotAffordFee,
    #[error("commitment_signed without any update, again")]
    EmptyCommitment,
    #[error("commitment_signed is for another funding transaction than ours, and no splice is pending")]
    ForeignFunding,
    #[error("commitment transactions could come to cost more than our cap of {0}")]
    CommitmentTooCostly(Sat),
    #[error("the commitment transaction cannot pay for itself")]
    Unaffordable,
    #[error("a per-commitment point derives no valid key")]
    DegeneratePoint,
    #[error("signature does not sign the commitment transaction with this txid: {0}")]
    BadSignature(bitcoin::Txid),
    #[error("signature is not low-S")]
    HighS,
    #[error("num_htlcs is {found} where the commitment transaction has {expected} HTLC outputs")]
    HtlcSignatureCount { expected: usize, found: usize },
    #[error("htlc_signature {0} does not sign its HTLC transaction")]
    BadHtlcSignature(usize),
    #[error("revoke_and_ack without a commitment_signed of ours to answer")]
    UnsolicitedRevocation,
    #[error("per_commitment_secret does not answer to the per-commitment point that it revokes")]
    WrongSecret,
    // BOLT 2, "Message Retransmission".
    #[error("next_commitment_number is zero")]
    ZeroCommitmentNumber,
    #[error("next_commitment_number is {found}, which is neither {expected} nor one to send again")]
    CommitmentNumber { expected: u64, found: u64 },
    #[error("next_revocation_number is {found}, which is neither {expected} nor the one before")]
    RevocationNumber { expected: u64, found: u64 },
    #[error("your_last_per_commitment_secret is not the secret that we sent last")]
    LastSecret,
    #[error("we have lost data: you proved a newer state than ours; please close the channel from your side")]
    FallenBehind,
    #[error("we have lost data of our channels and sign nothing any more; please close the channel from your side")]
    Restored,
    #[error("channel_reestablish twice on one connection")]
    RepeatedReestablish,
    // BOLT 2, "Channel Close".
    #[error("shutdown scriptpubkey has none of the allowed forms")]
    ShutdownScript,
    #[error("shutdown scriptpubkey is not the upfront_shutdown_script")]
    ShutdownScriptChanged,
    #[error("shutdown while updates of yours are not committed")]
    ShutdownWithPendingUpdates,
    #[error("closing_signed while HTLCs are pending or shutdown is not complete")]
    EarlyClosingSigned,
    #[error(
        "closing_complete or closing_sig where HTLCs are pending, shutdown is not complete, or closing_signed is due"
    )]
    EarlyClosingComplete,
    #[error("closee_scriptpubkey is not the script of our shutdown")]
    ClosingScript,
    #[error("the signature that closing_complete must hold for our output is missing")]
    ClosingVariant,
    #[error("closing_sig does not answer our closing_complete")]
    ClosingSigMismatch,
    #[error("too many closing transactions are signed already: let one of them confirm")]
    TooManyCloses,
    #[error("closing fee_satoshis is outside what was agreed on")]
    ClosingFee,
    #[error(
        "fee_range of closing_signed, {} to {}, does not meet ours, {} to {}", theirs.min_fee_satoshis,
        theirs.max_fee_satoshis, ours.min_fee_satoshis, ours.max_fee_satoshis
    )]
    ClosingFeeRanges { theirs: FeeRange, ours: FeeRange },
    #[error("closing signature is invalid or not low-S")]
    ClosingSignature,
    // BOLT 1.
    #[error("the peer sent an error{}", words(.0))]
    PeerError(String),
    #[error("{0}")]
    Ordered(String),
    /// Not the peer's doing: what is kept of the channel elsewhere will never be complete, so its newest state must not be relied
    /// on, nor published.
    #[error("{0}")]
    Unstored(String),
}

/// What a peer says of its `error`. Its data may be empty (BOLT 1).
fn words(data: &str) -> String {
    if data.trim().is_empty() { " and gave no reason".to_owned() } else { format!(": {data}") }
}

/// Why an order of our own was not followed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("there is no such channel")]
    UnknownChannel,
    #[error(
        "the channel is frozen: its rows cannot be read, and nothing is signed or published for it; channel.get says why"
    )]
    Frozen,
    #[error("the peer is not connected or the channel is not re-established yet")]
    NotConnected,
    #[error("the channel is not ready: its funding transaction has yet to be confirmed on both sides")]
    NotReady,
    #[error("the channel is closing")]
    ShuttingDown,
    #[error("the channel has failed or is closed")]
    Ended,
    #[error("the node met a fault of its own and stops; start it again and look into its log")]
    Stopping,
    #[error(
        "a required backup is late with this channel, which takes no new HTLCs before that has it; backup.status says why"
    )]
    Stalled,
    #[error("amount is zero or below the peer's htlc_minimum_msat of {0}")]
    AmountTooSmall(Msat),
    #[error("the peer accepts no more than {0} HTLCs at once")]
    TooManyHtlcs(u16),
    #[error("the peer accepts no more than {0} in flight")]
    TooMuchInFlight(Msat),
    #[error("the amount is above what can be spent now: {spendable}")]
    InsufficientBalance { spendable: Msat },
    #[error("HTLCs too small for an output would be worth more than {0} in one commitment")]
    DustExposure(Sat),
    #[error("the peer, which pays the commitment fee, cannot afford another HTLC now")]
    PeerCannotAffordHtlc,
    #[error("cltv_expiry must be a block height below 500000000")]
    ExpiryIsTime,
    #[error("no such HTLC: it was never received, or its removal is complete")]
    UnknownHtlc,
    #[error("the HTLC is not irrevocably committed yet")]
    HtlcNotCommitted,
    #[error("the preimage does not hash to the payment_hash of the HTLC")]
    WrongPreimage,
    #[error("the failure was proposed but not committed: it is taken back with the connection")]
    FailureProposed,
    #[error("the HTLC is being failed: the failure is committed")]
    FailureCommitted,
    #[error("commitment transactions would come to cost more than our cap of {0}")]
    CommitmentTooCostly(Sat),
    #[error("only the opener of a channel sets its feerate")]
    NotOpener,
    #[error("the feerate must be at least {floor} and at most {maximum}")]
    FeerateOutOfRange { floor: FeeratePerKw, maximum: FeeratePerKw },
    #[error("the feerate cannot be afforded with anchors and channel reserve")]
    CannotAffordFee,
    #[error("the last feerate change is still under way")]
    FeeChangePending,
    #[error("the shutdown script has none of the forms that BOLT 2 allows")]
    ShutdownScript,
    #[error("the shutdown script was fixed when the channel was opened")]
    ShutdownScriptFixed,
    #[error("too many closing transactions are signed already: wait for one of them to confirm")]
    TooManyCloses,
    #[error("the funding amount must be at least {minimum} and at most {maximum}")]
    FundingOutOfRange { minimum: Sat, maximum: Sat },
    #[error("the peer does not offer option_anchors, and we open no other channels")]
    PeerLacksAnchors,
    #[error("push is more than the funding amount leaves after fee, anchors and reserve")]
    PushTooLarge,
    #[error("the funding transaction has no output that pays {0} to the channel")]
    FundingOutputMissing(Sat),
}

impl Refusal {
    /// Whether the same order may be followed later.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NotConnected
            | Self::NotReady
            | Self::TooManyHtlcs(_)
            | Self::TooMuchInFlight(_)
            | Self::InsufficientBalance { .. }
            | Self::DustExposure(_)
            | Self::PeerCannotAffordHtlc
            | Self::CommitmentTooCostly(_)
            | Self::Stopping
            | Self::Stalled
            | Self::HtlcNotCommitted
            | Self::FailureProposed
            | Self::CannotAffordFee
            | Self::FeeChangePending => true,
            Self::UnknownChannel
            | Self::Frozen
            | Self::ShuttingDown
            | Self::Ended
            | Self::AmountTooSmall(_)
            | Self::ExpiryIsTime
            | Self::UnknownHtlc
            | Self::WrongPreimage
            | Self::FailureCommitted
            | Self::NotOpener
            | Self::FeerateOutOfRange { .. }
            | Self::ShutdownScript
            | Self::ShutdownScriptFixed
            | Self::TooManyCloses
            | Self::FundingOutOfRange { .. }
            | Self::PeerLacksAnchors
            | Self::PushTooLarge
            | Self::FundingOutputMissing(_) => false,
        }
    }
}
