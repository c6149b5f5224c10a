//! Failures on their way back: made at the failing hop, wrapped at each hop before it, read by the origin (BOLT 4,
//! "Returning Errors").

use std::fmt;

use bitcoin::hashes::cmp::fixed_time_eq;

use super::stream::{self, KeyType};
use crate::amount::Msat;
use crate::wire::codec::{BigSize, Decode, DecodeError, Encode, Reader, Writer};

/// Flag: the onion could not be parsed.
pub const BADONION: u16 = 0x8000;
/// Flag: trying again is of no use.
pub const PERM: u16 = 0x4000;
/// Flag: the node failed, not one of its channels.
pub const NODE: u16 = 0x2000;
/// Flag: a forwarding parameter was violated.
pub const UPDATE: u16 = 0x1000;

pub(super) const INVALID_ONION_VERSION: u16 = BADONION | PERM | 4;
pub(super) const INVALID_ONION_HMAC: u16 = BADONION | PERM | 5;
pub(super) const INVALID_ONION_KEY: u16 = BADONION | PERM | 6;
const TEMPORARY_NODE_FAILURE: u16 = NODE | 2;
const PERMANENT_NODE_FAILURE: u16 = PERM | NODE | 2;
const REQUIRED_NODE_FEATURE_MISSING: u16 = PERM | NODE | 3;
const TEMPORARY_CHANNEL_FAILURE: u16 = UPDATE | 7;
const PERMANENT_CHANNEL_FAILURE: u16 = PERM | 8;
const REQUIRED_CHANNEL_FEATURE_MISSING: u16 = PERM | 9;
const UNKNOWN_NEXT_PEER: u16 = PERM | 10;
const AMOUNT_BELOW_MINIMUM: u16 = UPDATE | 11;
const FEE_INSUFFICIENT: u16 = UPDATE | 12;
const INCORRECT_CLTV_EXPIRY: u16 = UPDATE | 13;
const EXPIRY_TOO_SOON: u16 = UPDATE | 14;
const INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS: u16 = PERM | 15;
const FINAL_INCORRECT_CLTV_EXPIRY: u16 = 18;
const FINAL_INCORRECT_HTLC_AMOUNT: u16 = 19;
const CHANNEL_DISABLED: u16 = UPDATE | 20;
const EXPIRY_TOO_FAR: u16 = 21;
const INVALID_ONION_PAYLOAD: u16 = PERM | 22;
const MPP_TIMEOUT: u16 = 23;
const INVALID_ONION_BLINDING: u16 = BADONION | PERM | 24;

/// A failure message (BOLT 4, "Failure Messages").
///
/// `channel_update` is a whole message with its type, or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are BOLT 4's; each variant names its failure")]
pub enum Failure {
    /// `temporary_node_failure`
    TemporaryNodeFailure,
    /// `permanent_node_failure`
    PermanentNodeFailure,
    /// `required_node_feature_missing`
    RequiredNodeFeatureMissing,
    /// `invalid_onion_version`
    InvalidOnionVersion { sha256_of_onion: [u8; 32] },
    /// `invalid_onion_hmac`
    InvalidOnionHmac { sha256_of_onion: [u8; 32] },
    /// `invalid_onion_key`
    InvalidOnionKey { sha256_of_onion: [u8; 32] },
    /// `temporary_channel_failure`
    TemporaryChannelFailure { channel_update: Vec<u8> },
    /// `permanent_channel_failure`
    PermanentChannelFailure,
    /// `required_channel_feature_missing`
    RequiredChannelFeatureMissing,
    /// `unknown_next_peer`
    UnknownNextPeer,
    /// `amount_below_minimum`
    AmountBelowMinimum { htlc_msat: Msat, channel_update: Vec<u8> },
    /// `fee_insufficient`
    FeeInsufficient { htlc_msat: Msat, channel_update: Vec<u8> },
    /// `incorrect_cltv_expiry`
    IncorrectCltvExpiry { cltv_expiry: u32, channel_update: Vec<u8> },
    /// `expiry_too_soon`
    ExpiryTooSoon { channel_update: Vec<u8> },
    /// `incorrect_or_unknown_payment_details`
    IncorrectOrUnknownPaymentDetails { htlc_msat: Msat, height: u32 },
    /// `final_incorrect_cltv_expiry`
    FinalIncorrectCltvExpiry { cltv_expiry: u32 },
    /// `final_incorrect_htlc_amount`
    FinalIncorrectHtlcAmount { incoming_htlc_amt: Msat },
    /// `channel_disabled`
    ChannelDisabled { disabled_flags: u16, channel_update: Vec<u8> },
    /// `expiry_too_far`
    ExpiryTooFar,
    /// `invalid_onion_payload`
    InvalidOnionPayload { tlv_type: u64, offset: u16 },
    /// `mpp_timeout`
    MppTimeout,
    /// `invalid_onion_blinding`
    InvalidOnionBlinding { sha256_of_onion: [u8; 32] },
    /// A code that is not known here, or one whose data is not what BOLT 4 says. Only ever received.
    Other { code: u16, data: Vec<u8> },
}

impl Failure {
    /// `failure_code`, flags included.
    pub const fn code(&self) -> u16 {
        match self {
            Self::TemporaryNodeFailure => TEMPORARY_NODE_FAILURE,
            Self::PermanentNodeFailure => PERMANENT_NODE_FAILURE,
            Self::RequiredNodeFeatureMissing => REQUIRED_NODE_FEATURE_MISSING,
            Self::InvalidOnionVersion { .. } => INVALID_ONION_VERSION,
            Self::InvalidOnionHmac { .. } => INVALID_ONION_HMAC,
            Self::InvalidOnionKey { .. } => INVALID_ONION_KEY,
            Self::TemporaryChannelFailure { .. } => TEMPORARY_CHANNEL_FAILURE,
            Self::PermanentChannelFailure => PERMANENT_CHANNEL_FAILURE,
            Self::RequiredChannelFeatureMissing => REQUIRED_CHANNEL_FEATURE_MISSING,
            Self::UnknownNextPeer => UNKNOWN_NEXT_PEER,
            Self::AmountBelowMinimum { .. } => AMOUNT_BELOW_MINIMUM,
            Self::FeeInsufficient { .. } => FEE_INSUFFICIENT,
            Self::IncorrectCltvExpiry { .. } => INCORRECT_CLTV_EXPIRY,
            Self::ExpiryTooSoon { .. } => EXPIRY_TOO_SOON,
            Self::IncorrectOrUnknownPaymentDetails { .. } => INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS,
            Self::FinalIncorrectCltvExpiry { .. } => FINAL_INCORRECT_CLTV_EXPIRY,
            Self::FinalIncorrectHtlcAmount { .. } => FINAL_INCORRECT_HTLC_AMOUNT,
            Self::ChannelDisabled { .. } => CHANNEL_DISABLED,
            Self::ExpiryTooFar => EXPIRY_TOO_FAR,
            Self::InvalidOnionPayload { .. } => INVALID_ONION_PAYLOAD,
            Self::MppTimeout => MPP_TIMEOUT,
            Self::InvalidOnionBlinding { .. } => INVALID_ONION_BLINDING,
            Self::Other { code, .. } => *code,
        }
    }

    /// The name in BOLT 4.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TemporaryNodeFailure => "temporary_node_failure",
            Self::PermanentNodeFailure => "permanent_node_failure",
            Self::RequiredNodeFeatureMissing => "required_node_feature_missing",
            Self::InvalidOnionVersion { .. } => "invalid_onion_version",
            Self::InvalidOnionHmac { .. } => "invalid_onion_hmac",
            Self::InvalidOnionKey { .. } => "invalid_onion_key",
            Self::TemporaryChannelFailure { .. } => "temporary_channel_failure",
            Self::PermanentChannelFailure => "permanent_channel_failure",
            Self::RequiredChannelFeatureMissing => "required_channel_feature_missing",
            Self::UnknownNextPeer => "unknown_next_peer",
            Self::AmountBelowMinimum { .. } => "amount_below_minimum",
            Self::FeeInsufficient { .. } => "fee_insufficient",
            Self::IncorrectCltvExpiry { .. } => "incorrect_cltv_expiry",
            Self::ExpiryTooSoon { .. } => "expiry_too_soon",
            Self::IncorrectOrUnknownPaymentDetails { .. } => "incorrect_or_unknown_payment_details",
            Self::FinalIncorrectCltvExpiry { .. } => "final_incorrect_cltv_expiry",
            Self::FinalIncorrectHtlcAmount { .. } => "final_incorrect_htlc_amount",
            Self::ChannelDisabled { .. } => "channel_disabled",
            Self::ExpiryTooFar => "expiry_too_far",
            Self::InvalidOnionPayload { .. } => "invalid_onion_payload",
            Self::MppTimeout => "mpp_timeout",
            Self::InvalidOnionBlinding { .. } => "invalid_onion_blinding",
            Self::Other { .. } => "unknown failure",
        }
    }

    /// Whether trying the same again is of no use.
    pub const fn is_permanent(&self) -> bool {
        self.code() & PERM != 0
    }

    /// What a hop tells the origin after its downstream peer sent `update_fail_malformed_htlc` (BOLT 2).
    pub fn from_malformed(code: u16, sha256_of_onion: [u8; 32]) -> Self {
        Self::known(code, &mut Reader::new(&sha256_of_onion))
            .unwrap_or_else(|_| Self::Other { code, data: sha256_of_onion.to_vec() })
    }

    /// Reads a `failuremsg`: a code and its data. TLVs behind the data are passed over.
    pub fn decode(message: &[u8]) -> Self {
        let mut reader = Reader::new(message);
        let Ok(code) = u16::decode(&mut reader) else {
            return Self::Other { code: 0, data: message.to_vec() };
        };
        let data = reader.clone().rest().to_vec();
        Self::known(code, &mut reader).unwrap_or(Self::Other { code, data })
    }

    fn known(code: u16, data: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match code {
            TEMPORARY_NODE_FAILURE => Self::TemporaryNodeFailure,
            PERMANENT_NODE_FAILURE => Self::PermanentNodeFailure,
            REQUIRED_NODE_FEATURE_MISSING => Self::RequiredNodeFeatureMissing,
            INVALID_ONION_VERSION => Self::InvalidOnionVersion { sha256_of_onion: data.array()? },
            INVALID_ONION_HMAC => Self::InvalidOnionHmac { sha256_of_onion: data.array()? },
            INVALID_ONION_KEY => Self::InvalidOnionKey { sha256_of_onion: data.array()? },
            TEMPORARY_CHANNEL_FAILURE => Self::TemporaryChannelFailure { channel_update: Vec::decode(data)? },
            PERMANENT_CHANNEL_FAILURE => Self::PermanentChannelFailure,
            REQUIRED_CHANNEL_FEATURE_MISSING => Self::RequiredChannelFeatureMissing,
            UNKNOWN_NEXT_PEER => Self::UnknownNextPeer,
            AMOUNT_BELOW_MINIMUM => {
                Self::AmountBelowMinimum { htlc_msat: Msat::decode(data)?, channel_update: Vec::decode(data)? }
            }
            FEE_INSUFFICIENT => {
                Self::FeeInsufficient { htlc_msat: Msat::decode(data)?, channel_update: Vec::decode(data)? }
            }
            INCORRECT_CLTV_EXPIRY => {
                Self::IncorrectCltvExpiry { cltv_expiry: u32::decode(data)?, channel_update: Vec::decode(data)? }
            }
            EXPIRY_TOO_SOON => Self::ExpiryTooSoon { channel_update: Vec::decode(data)? },
            INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS => {
                Self::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat::decode(data)?, height: u32::decode(data)? }
            }
            FINAL_INCORRECT_CLTV_EXPIRY => Self::FinalIncorrectCltvExpiry { cltv_expiry: u32::decode(data)? },
            FINAL_INCORRECT_HTLC_AMOUNT => Self::FinalIncorrectHtlcAmount { incoming_htlc_amt: Msat::decode(data)? },
            CHANNEL_DISABLED => {
                Self::ChannelDisabled { disabled_flags: u16::decode(data)?, channel_update: Vec::decode(data)? }
            }
            EXPIRY_TOO_FAR => Self::ExpiryTooFar,
            INVALID_ONION_PAYLOAD => {
                Self::InvalidOnionPayload { tlv_type: BigSize::decode(data)?.0, offset: u16::decode(data)? }
            }
            MPP_TIMEOUT => Self::MppTimeout,
            INVALID_ONION_BLINDING => Self::InvalidOnionBlinding { sha256_of_onion: data.array()? },
            _ => Self::Other { code, data: data.rest().to_vec() },
        })
    }

    /// The `failuremsg`: a code and its data.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.code().encode(&mut writer);
        match self {
            Self::TemporaryNodeFailure
            | Self::PermanentNodeFailure
            | Self::RequiredNodeFeatureMissing
            | Self::PermanentChannelFailure
            | Self::RequiredChannelFeatureMissing
            | Self::UnknownNextPeer
            | Self::ExpiryTooFar
            | Self::MppTimeout => {}
            Self::InvalidOnionVersion { sha256_of_onion }
            | Self::InvalidOnionHmac { sha256_of_onion }
            | Self::InvalidOnionKey { sha256_of_onion }
            | Self::InvalidOnionBlinding { sha256_of_onion } => sha256_of_onion.encode(&mut writer),
            Self::TemporaryChannelFailure { channel_update } | Self::ExpiryTooSoon { channel_update } => {
                writer.prefixed(channel_update);
            }
            Self::AmountBelowMinimum { htlc_msat, channel_update }
            | Self::FeeInsufficient { htlc_msat, channel_update } => {
                htlc_msat.encode(&mut writer);
                writer.prefixed(channel_update);
            }
            Self::IncorrectCltvExpiry { cltv_expiry, channel_update } => {
                cltv_expiry.encode(&mut writer);
                writer.prefixed(channel_update);
            }
            Self::IncorrectOrUnknownPaymentDetails { htlc_msat, height } => {
                htlc_msat.encode(&mut writer);
                height.encode(&mut writer);
            }
            Self::FinalIncorrectCltvExpiry { cltv_expiry } => cltv_expiry.encode(&mut writer),
            Self::FinalIncorrectHtlcAmount { incoming_htlc_amt } => incoming_htlc_amt.encode(&mut writer),
            Self::ChannelDisabled { disabled_flags, channel_update } => {
                disabled_flags.encode(&mut writer);
                writer.prefixed(channel_update);
            }
            Self::InvalidOnionPayload { tlv_type, offset } => {
                BigSize(*tlv_type).encode(&mut writer);
                offset.encode(&mut writer);
            }
            Self::Other { data, .. } => writer.bytes(data),
        }
        // Only a channel_update over 65535 bytes has no encoding; the bare code still says what happened.
        writer.finish().unwrap_or_else(|_| self.code().to_be_bytes().to_vec())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#06x})", self.name(), self.code())
    }
}

/// `failure_len` and `pad_len` together, so that failures look alike.
const PADDED_LEN: u16 = 256;

/// How many hops the origin tries: more than this no route has (BOLT 4, "Origin node").
const MAX_HOPS: usize = 27;

/// The `reason` that the failing hop sends upstream.
pub fn create(shared_secret: &[u8; 32], failure: &Failure) -> Vec<u8> {
    seal(shared_secret, &failure.encode(), PADDED_LEN)
}

/// As [`create`], for a `failuremsg` of any content, such as one with TLVs behind its data, padded to `padded_len`.
/// What exceeds 65535 bytes is cut.
pub fn seal(shared_secret: &[u8; 32], message: &[u8], padded_len: u16) -> Vec<u8> {
    let message = message.get(..usize::from(u16::MAX)).unwrap_or(message);
    let padding = vec![0; usize::from(padded_len).saturating_sub(message.len())];
    let (failure_len, pad_len) = (message.len() as u16, padding.len() as u16);
    let body = [&failure_len.to_be_bytes(), message, &pad_len.to_be_bytes(), &padding].concat();
    let hmac = stream::hmac(&KeyType::Um.derive(shared_secret), &[&body]);
    wrap(shared_secret, [&hmac, body.as_slice()].concat())
}

/// The `reason` that a hop sends upstream, given the one it received.
pub fn wrap(shared_secret: &[u8; 32], mut reason: Vec<u8>) -> Vec<u8> {
    stream::apply(&KeyType::Ammag.derive(shared_secret), 0, &mut reason);
    reason
}

/// What the origin reads from a `reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwrapped {
    /// A hop of the route made it.
    Attributed {
        /// The place of the hop, from 0.
        hop: usize,
        /// What it says.
        failure: Failure,
    },
    /// No hop of the route made it, or one on the way spoilt it.
    Unattributable,
}

/// Reads a `reason` with the secrets of [`super::build`].
///
/// Tries as many layers as the longest route has, wherever the failure arose, so that the time taken tells no hop
/// where it stands.
pub fn unwrap(shared_secrets: &[[u8; 32]], reason: &[u8]) -> Unwrapped {
    const NO_HOP: [u8; 32] = [0; 32];
    let mut layer = reason.to_vec();
    let mut found = Unwrapped::Unattributable;
    for hop in 0..MAX_HOPS.max(shared_secrets.len()) {
        let secret = shared_secrets.get(hop);
        layer = wrap(secret.unwrap_or(&NO_HOP), layer);
        let (hmac, body) = layer.split_at_checked(32).unwrap_or((&[], &layer));
        let expected = stream::hmac(&KeyType::Um.derive(secret.unwrap_or(&NO_HOP)), &[body]);
        let authentic = hmac.len() == expected.len() && fixed_time_eq(hmac, &expected);
        if authentic && secret.is_some() && found == Unwrapped::Unattributable {
            found = Unwrapped::Attributed { hop, failure: read_body(body) };
        }
    }
    found
}

/// The failure in an authentic body; one that breaks the format is the hop's fault all the same.
fn read_body(body: &[u8]) -> Failure {
    let message = Reader::new(body).prefixed().unwrap_or_default();
    Failure::decode(message)
}
