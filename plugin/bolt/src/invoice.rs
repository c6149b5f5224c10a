//! Invoices (BOLT 11), over the lightning-invoice crate.
//!
//! The crate does bech32 and the layout of fields. What an invoice must hold to be paid is decided here, so that each
//! refusal has its own reason.

use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::ecdsa::RecoverableSignature;
use bitcoin::secp256k1::{self, Message, PublicKey, SecretKey};
use lightning_invoice::{
    Bolt11InvoiceDescription, Bolt11ParseError, Currency, Description as DescriptionField, InvoiceBuilder, MAX_LENGTH,
    RawHrp, RawTaggedField, RouteHint, RouteHintHop, RoutingFees, Sha256, SignedRawBolt11Invoice, TaggedField,
};

use crate::amount::Msat;
use crate::features::{Feature, FeatureError, Features};
use crate::id::{NodeId, PaymentHash, PaymentSecret, ShortChannelId};
use crate::keys::signature::{InvalidSignature, secp, verify};

/// `expiry` where an invoice has none, in seconds.
pub const DEFAULT_EXPIRY_SECS: u64 = 3600;

/// `min_final_cltv_expiry_delta` where an invoice has none, in blocks.
pub const DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA: u32 = 18;

/// Characters of timestamp, signature and checksum, which every data part has.
const SHORTEST_DATA_PART: usize = 7 + 104 + 6;

/// The characters of bech32 data.
const BECH32_CHARSET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// What the payment is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Description {
    /// Text by the payee: untrusted, to be escaped before it is shown.
    Text(String),
    /// The SHA256 of a text that is found elsewhere.
    Hash([u8; 32]),
}

/// One channel of a route hint (`r`), ending at the next one's node or at the payee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintHop {
    /// The node at the start of the channel.
    pub node: NodeId,
    /// The channel, or an alias that its nodes know.
    pub short_channel_id: ShortChannelId,
    /// The fee for each HTLC, in msat.
    pub fee_base_msat: u32,
    /// The fee for each million that is forwarded.
    pub fee_proportional_millionths: u32,
    /// The blocks that the node wants between incoming and outgoing expiry.
    pub cltv_expiry_delta: u16,
}

/// What an invoice asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The network that it is payable on.
    pub network: Network,
    /// When it was made, in seconds since 1970; below 2^35.
    pub timestamp: u64,
    /// The hash whose preimage proves the payment.
    pub payment_hash: PaymentHash,
    /// What the payer must show.
    pub payment_secret: PaymentSecret,
    /// The amount, or `None` where the payer chooses.
    pub amount: Option<Msat>,
    /// What it is for.
    pub description: Description,
    /// How long after `timestamp` it may be paid, in seconds.
    pub expiry_secs: u64,
    /// The least expiry of the last HTLC, in blocks from the current height.
    pub min_final_cltv_expiry_delta: u32,
    /// To be handed back with each HTLC.
    pub payment_metadata: Option<Vec<u8>>,
    /// Ways to a payee that no public channel leads to.
    pub route_hints: Vec<Vec<HintHop>>,
    /// Whether it may be paid in parts.
    pub basic_mpp: bool,
}

/// An invoice that passed every check and can be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// Who signed it and is to be paid.
    pub payee: NodeId,
    /// What it asks for.
    pub terms: Terms,
    /// Its features; every required one is understood.
    pub features: Features,
}

/// Why a text is not an invoice that can be paid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum InvalidInvoice {
    #[error("invoice of {0} characters: longer than {MAX_LENGTH}")]
    TooLong(usize),
    #[error("invoice contains characters that are not ASCII")]
    NotAscii,
    #[error("invoice mixes upper and lower case")]
    MixedCase,
    #[error("invoice has no separator '1'")]
    NoSeparator,
    #[error("invalid character {0:?} in invoice")]
    InvalidCharacter(char),
    #[error("invoice is too short to be signed")]
    TooShort,
    #[error("invoice has a wrong checksum: a character was mistyped or lost")]
    Checksum,
    #[error("not a Lightning invoice: unknown prefix")]
    UnknownPrefix,
    #[error("invoice is for another network than {0}")]
    WrongNetwork(Network),
    #[error("unknown amount multiplier in invoice")]
    UnknownMultiplier,
    #[error("invoice amount is larger than any that exists")]
    AmountTooLarge,
    #[error("invoice amount is not a whole number of millisatoshis")]
    SubMillisatoshi,
    #[error("invoice amount is zero")]
    ZeroAmount,
    #[error("invoice field is cut off")]
    TruncatedField,
    #[error("expiry or CLTV delta of the invoice is too large a number")]
    NumberTooLarge,
    #[error("invoice field {0:?} has a wrong length")]
    WrongLength(char),
    #[error("invoice has more than one field {0:?}")]
    Duplicate(char),
    #[error("invoice has no payment hash")]
    NoPaymentHash,
    #[error("invoice has no payment secret")]
    NoPaymentSecret,
    #[error("invoice has neither a description nor a description hash")]
    NoDescription,
    #[error("invoice has both a description and a description hash")]
    TwoDescriptions,
    #[error("invoice description is not UTF-8")]
    DescriptionNotUtf8,
    #[error("invoice contains an invalid public key")]
    InvalidPublicKey,
    #[error("invoice fallback address is invalid")]
    InvalidFallback,
    #[error("invoice field is not in its shortest encoding, or is padded with other than zeros")]
    NotCanonical,
    #[error("invoice signature is malformed: no public key can be recovered")]
    UnrecoverableSignature,
    #[error("invoice signature is not by the node it names")]
    WrongSignature,
    #[error("invoice signature has a high S value")]
    HighS,
    #[error("invoice cannot be paid from here: {0}")]
    Features(FeatureError),
}

/// Why terms cannot be written as an invoice. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum UnwritableInvoice {
    #[error("description is longer than 639 bytes")]
    DescriptionTooLong,
    #[error("timestamp is not below 2^35")]
    Timestamp,
    #[error("amount is zero or larger than any that exists")]
    Amount,
    #[error("payment metadata is longer than 639 bytes")]
    MetadataTooLong,
    #[error("a route hint has no hops, or more than 12")]
    RouteHint,
    #[error("invoice is longer than {MAX_LENGTH} characters")]
    TooLong,
}

impl Invoice {
    /// Reads an invoice that is to be paid on `network`, or gives the exact reason why it cannot be.
    pub fn parse(text: &str, network: Network) -> Result<Self, InvalidInvoice> {
        check_characters(text)?;
        let lowercase = text.to_ascii_lowercase();
        let signed = match lowercase.parse::<SignedRawBolt11Invoice>() {
            Err(Bolt11ParseError::Bech32Error(_)) => return Err(InvalidInvoice::Checksum),
            outcome => {
                check_prefix(&lowercase, network)?;
                outcome.map_err(reason)?
            }
        };
        // The crate hashes what it would write, the payee signed what stands there: both must be the same.
        if signed.to_string() != lowercase {
            return Err(InvalidInvoice::NotCanonical);
        }
        let payee = payee(&signed)?;
        let fields = Fields::gather(&signed)?;
        let features = fields.features.clone().unwrap_or_default();
        features.check(&understood_features()).map_err(InvalidInvoice::Features)?;
        let amount = amount(&signed)?;
        let terms = fields.terms(network, signed.raw_invoice().data.timestamp.as_unix_timestamp(), amount)?;
        Ok(Self { payee, terms, features })
    }
}

impl Terms {
    /// The last second at which the invoice may be paid; an expiry beyond the end of time is the end of time.
    pub const fn expires_at(&self) -> u64 {
        self.timestamp.saturating_add(self.expiry_secs)
    }

    /// Whether the invoice is no longer to be paid or accepted.
    pub const fn is_expired(&self, now_unix: u64) -> bool {
        now_unix > self.expires_at()
    }

    /// Writes the invoice and has it signed by the payee's node key.
    pub fn sign(&self, sign: impl FnOnce(&Message) -> RecoverableSignature) -> Result<String, UnwritableInvoice> {
        let description = self.description_field()?;
        let mut builder = InvoiceBuilder::new(currency(self.network))
            .invoice_description(description)
            .payment_hash(sha256::Hash::from_byte_array(self.payment_hash.0))
            .duration_since_epoch(Duration::from_secs(self.timestamp))
            .min_final_cltv_expiry_delta(u64::from(self.min_final_cltv_expiry_delta))
            .payment_secret(lightning_invoice::PaymentSecret(self.payment_secret.0))
            .expiry_time(Duration::from_secs(self.expiry_secs));
        if let Some(amount) = self.amount {
            // Ten times the amount is what the prefix counts in, so it must fit.
            let fits = amount != Msat::ZERO && amount.get().checked_mul(10).is_some();
            builder =
                if fits { builder.amount_milli_satoshis(amount.get()) } else { return Err(UnwritableInvoice::Amount) };
        }
        for hint in &self.route_hints {
            if !(1..=12).contains(&hint.len()) {
                return Err(UnwritableInvoice::RouteHint);
            }
            builder = builder.private_route(RouteHint(hint.iter().map(HintHop::field).collect()));
        }
        if self.basic_mpp {
            builder = builder.basic_mpp();
        }
        let raw = match &self.payment_metadata {
            Some(metadata) if metadata.len() > 639 => return Err(UnwritableInvoice::MetadataTooLong),
            Some(metadata) => builder.payment_metadata(metadata.clone()).build_raw(),
            None => builder.build_raw(),
        };
        // All else was checked above.
        let raw = raw.map_err(|_| UnwritableInvoice::Timestamp)?;
        let Ok(signed) = raw.sign(|message| Ok::<_, std::convert::Infallible>(sign(message)));
        let text = signed.to_string();
        if text.len() > MAX_LENGTH { Err(UnwritableInvoice::TooLong) } else { Ok(text) }
    }

    /// As [`Terms::sign`], with the key at hand.
    pub fn sign_with_key(&self, node_key: &SecretKey) -> Result<String, UnwritableInvoice> {
        self.sign(|message| secp().sign_ecdsa_recoverable(message, node_key))
    }

    fn description_field(&self) -> Result<Bolt11InvoiceDescription, UnwritableInvoice> {
        Ok(match &self.description {
            Description::Text(text) => Bolt11InvoiceDescription::Direct(
                DescriptionField::new(text.clone()).map_err(|_| UnwritableInvoice::DescriptionTooLong)?,
            ),
            Description::Hash(hash) => Bolt11InvoiceDescription::Hash(Sha256(sha256::Hash::from_byte_array(*hash))),
        })
    }
}

impl HintHop {
    const fn field(&self) -> RouteHintHop {
        RouteHintHop {
            src_node_id: *self.node.public_key(),
            short_channel_id: self.short_channel_id.to_u64(),
            fees: RoutingFees {
                base_msat: self.fee_base_msat,
                proportional_millionths: self.fee_proportional_millionths,
            },
            cltv_expiry_delta: self.cltv_expiry_delta,
            htlc_minimum_msat: None,
            htlc_maximum_msat: None,
        }
    }

    const fn from_field(hop: &RouteHintHop) -> Self {
        Self {
            node: NodeId::new(hop.src_node_id),
            short_channel_id: ShortChannelId::from_u64(hop.short_channel_id),
            fee_base_msat: hop.fees.base_msat,
            fee_proportional_millionths: hop.fees.proportional_millionths,
            cltv_expiry_delta: hop.cltv_expiry_delta,
        }
    }
}

/// The features of an invoice that a payer from here can honour; the assumed ones go without saying.
fn understood_features() -> Features {
    Features::empty().offer(Feature::BASIC_MPP).offer(Feature::PAYMENT_METADATA)
}

/// The prefix that BOLT 11 gives a network.
const fn currency(network: Network) -> Currency {
    match network {
        Network::Bitcoin => Currency::Bitcoin,
        Network::Testnet | Network::Testnet4 => Currency::BitcoinTestnet,
        Network::Signet => Currency::Signet,
        Network::Regtest => Currency::Regtest,
    }
}

/// What bech32 asks of the characters, the checksum aside.
fn check_characters(text: &str) -> Result<(), InvalidInvoice> {
    if text.len() > MAX_LENGTH {
        return Err(InvalidInvoice::TooLong(text.len()));
    }
    if !text.is_ascii() {
        return Err(InvalidInvoice::NotAscii);
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) && text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(InvalidInvoice::MixedCase);
    }
    let (prefix, data) = text.rsplit_once('1').ok_or(InvalidInvoice::NoSeparator)?;
    let invalid = |found: Option<char>| found.map_or(Ok(()), |found| Err(InvalidInvoice::InvalidCharacter(found)));
    invalid(prefix.chars().find(|found| !found.is_ascii_graphic()))?;
    invalid(data.chars().find(|found| !BECH32_CHARSET.contains(found.to_ascii_lowercase())))?;
    if data.len() < SHORTEST_DATA_PART { Err(InvalidInvoice::TooShort) } else { Ok(()) }
}

/// The human-readable part: network, amount, multiplier.
fn check_prefix(lowercase: &str, network: Network) -> Result<(), InvalidInvoice> {
    let (prefix, _) = lowercase.rsplit_once('1').ok_or(InvalidInvoice::NoSeparator)?;
    let prefix = prefix.parse::<RawHrp>().map_err(|fault| match fault {
        Bolt11ParseError::ParseAmountError(_) | Bolt11ParseError::IntegerOverflowError => {
            InvalidInvoice::AmountTooLarge
        }
        Bolt11ParseError::UnknownSiPrefix => InvalidInvoice::UnknownMultiplier,
        _ => InvalidInvoice::UnknownPrefix,
    })?;
    if prefix.currency == currency(network) { Ok(()) } else { Err(InvalidInvoice::WrongNetwork(network)) }
}

/// The amount, which BOLT 11 counts in whole bitcoin or fractions of it.
fn amount(signed: &SignedRawBolt11Invoice) -> Result<Option<Msat>, InvalidInvoice> {
    if signed.raw_invoice().hrp.raw_amount.is_none() {
        return Ok(None);
    }
    let pico_btc = signed.amount_pico_btc().ok_or(InvalidInvoice::AmountTooLarge)?;
    match (pico_btc / 10, pico_btc % 10) {
        (0, 0) => Err(InvalidInvoice::ZeroAmount),
        (msat, 0) => Ok(Some(Msat::new(msat))),
        _ => Err(InvalidInvoice::SubMillisatoshi),
    }
}

/// Who signed: the node that `n` names, or else whoever the signature gives.
fn payee(signed: &SignedRawBolt11Invoice) -> Result<NodeId, InvalidInvoice> {
    let message = Message::from_digest(*signed.signable_hash());
    let signature = &signed.signature().0;
    match signed.payee_pub_key().map(|named| named.0) {
        Some(key) => verify(&message, &signature.to_standard(), &key).map(|()| key).map_err(|fault| match fault {
            InvalidSignature::HighS => InvalidInvoice::HighS,
            InvalidSignature::Mismatch => InvalidInvoice::WrongSignature,
        }),
        // Recovery takes high S too (BOLT 11).
        None => secp().recover_ecdsa(&message, signature).map_err(|_| InvalidInvoice::UnrecoverableSignature),
    }
    .map(NodeId::new)
}

/// What the crate's fault means for the user.
fn reason(fault: Bolt11ParseError) -> InvalidInvoice {
    match fault {
        Bolt11ParseError::MalformedSignature(secp256k1::Error::InvalidPublicKey) => InvalidInvoice::InvalidPublicKey,
        Bolt11ParseError::MalformedSignature(_) => InvalidInvoice::UnrecoverableSignature,
        Bolt11ParseError::TooShortDataPart => InvalidInvoice::TooShort,
        Bolt11ParseError::DescriptionDecodeError(_) => InvalidInvoice::DescriptionNotUtf8,
        // Amounts were checked before: what is left is `x` and `c`.
        Bolt11ParseError::IntegerOverflowError => InvalidInvoice::NumberTooLarge,
        Bolt11ParseError::InvalidSegWitProgramLength
        | Bolt11ParseError::InvalidPubKeyHashLength
        | Bolt11ParseError::InvalidScriptHashLength => InvalidInvoice::InvalidFallback,
        Bolt11ParseError::BadPrefix | Bolt11ParseError::UnknownCurrency | Bolt11ParseError::MalformedHRP => {
            InvalidInvoice::UnknownPrefix
        }
        Bolt11ParseError::UnknownSiPrefix => InvalidInvoice::UnknownMultiplier,
        Bolt11ParseError::ParseAmountError(_) => InvalidInvoice::AmountTooLarge,
        Bolt11ParseError::Bech32Error(_) => InvalidInvoice::Checksum,
        Bolt11ParseError::UnexpectedEndOfTaggedFields
        | Bolt11ParseError::PaddingError
        | Bolt11ParseError::InvalidSliceLength(..)
        | Bolt11ParseError::Skip => InvalidInvoice::TruncatedField,
    }
}

/// The tagged fields, each at most once.
#[derive(Default)]
struct Fields {
    payment_hash: Option<PaymentHash>,
    payment_secret: Option<PaymentSecret>,
    text: Option<String>,
    hash: Option<[u8; 32]>,
    payee: Option<PublicKey>,
    expiry_secs: Option<u64>,
    min_final_cltv_expiry_delta: Option<u64>,
    payment_metadata: Option<Vec<u8>>,
    features: Option<Features>,
    route_hints: Vec<Vec<HintHop>>,
    wrong_lengths: Vec<char>,
}

impl Fields {
    fn gather(signed: &SignedRawBolt11Invoice) -> Result<Self, InvalidInvoice> {
        let mut fields = Self::default();
        for field in &signed.raw_invoice().data.tagged_fields {
            match field {
                RawTaggedField::KnownSemantics(field) => fields.take(field)?,
                // Unknown types, and known ones of a length that they cannot have.
                RawTaggedField::UnknownSemantics(raw) => {
                    fields.wrong_lengths.extend(raw.first().map(|tag| tag.to_char()));
                }
            }
        }
        Ok(fields)
    }

    fn take(&mut self, field: &TaggedField) -> Result<(), InvalidInvoice> {
        match field {
            TaggedField::PaymentHash(hash) => set(&mut self.payment_hash, PaymentHash(hash.0.to_byte_array()), 'p'),
            TaggedField::PaymentSecret(secret) => set(&mut self.payment_secret, PaymentSecret(secret.0), 's'),
            TaggedField::Description(text) => set(&mut self.text, text.as_inner().0.clone(), 'd'),
            TaggedField::DescriptionHash(hash) => set(&mut self.hash, hash.0.to_byte_array(), 'h'),
            TaggedField::PayeePubKey(key) => set(&mut self.payee, key.0, 'n'),
            TaggedField::ExpiryTime(expiry) => set(&mut self.expiry_secs, expiry.as_seconds(), 'x'),
            TaggedField::MinFinalCltvExpiryDelta(delta) => set(&mut self.min_final_cltv_expiry_delta, delta.0, 'c'),
            TaggedField::PaymentMetadata(metadata) => set(&mut self.payment_metadata, metadata.clone(), 'm'),
            TaggedField::Features(features) => {
                let big_endian: Vec<u8> = features.le_flags().iter().rev().copied().collect();
                set(&mut self.features, Features::from_be_bytes(&big_endian), '9')
            }
            TaggedField::PrivateRoute(route) => {
                self.route_hints.push(route.0.iter().map(HintHop::from_field).collect());
                Ok(())
            }
            TaggedField::Fallback(_) => Ok(()),
        }
    }

    fn terms(self, network: Network, timestamp: u64, amount: Option<Msat>) -> Result<Terms, InvalidInvoice> {
        // A field of a wrong length is passed over where a good one is there (BOLT 11, the examples), and is the
        // reason to name where none is.
        let missing = |tag, otherwise| {
            if self.wrong_lengths.contains(&tag) { InvalidInvoice::WrongLength(tag) } else { otherwise }
        };
        let payment_hash = self.payment_hash.ok_or_else(|| missing('p', InvalidInvoice::NoPaymentHash))?;
        let payment_secret = self.payment_secret.ok_or_else(|| missing('s', InvalidInvoice::NoPaymentSecret))?;
        let description = match (self.text, self.hash) {
            (Some(text), None) => Description::Text(text),
            (None, Some(hash)) => Description::Hash(hash),
            (Some(_), Some(_)) => return Err(InvalidInvoice::TwoDescriptions),
            (None, None) => return Err(missing('h', InvalidInvoice::NoDescription)),
        };
        let delta = self.min_final_cltv_expiry_delta.unwrap_or_else(|| u64::from(DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA));
        Ok(Terms {
            network,
            timestamp,
            payment_hash,
            payment_secret,
            amount,
            description,
            expiry_secs: self.expiry_secs.unwrap_or(DEFAULT_EXPIRY_SECS),
            min_final_cltv_expiry_delta: u32::try_from(delta).map_err(|_| InvalidInvoice::NumberTooLarge)?,
            payment_metadata: self.payment_metadata,
            route_hints: self.route_hints,
            basic_mpp: self.features.is_some_and(|features| features.supports(Feature::BASIC_MPP)),
        })
    }
}

/// Takes a field that an invoice has at most once.
fn set<T>(place: &mut Option<T>, value: T, tag: char) -> Result<(), InvalidInvoice> {
    if place.replace(value).is_some() { Err(InvalidInvoice::Duplicate(tag)) } else { Ok(()) }
}
