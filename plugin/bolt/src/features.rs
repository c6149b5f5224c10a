//! Feature bits and their dependencies (BOLT 9).

use std::fmt;

/// A feature by the even bit of its pair. The odd bit above it says optional, the even one required.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Feature(u16);

impl Feature {
    /// `option_data_loss_protect`; assumed.
    pub const DATA_LOSS_PROTECT: Self = Self(0);
    /// `option_upfront_shutdown_script`
    pub const UPFRONT_SHUTDOWN_SCRIPT: Self = Self(4);
    /// `gossip_queries`
    pub const GOSSIP_QUERIES: Self = Self(6);
    /// `var_onion_optin`; assumed.
    pub const VAR_ONION_OPTIN: Self = Self(8);
    /// `gossip_queries_ex`
    pub const GOSSIP_QUERIES_EX: Self = Self(10);
    /// `option_static_remotekey`; assumed.
    pub const STATIC_REMOTEKEY: Self = Self(12);
    /// `payment_secret`; assumed.
    pub const PAYMENT_SECRET: Self = Self(14);
    /// `basic_mpp`
    pub const BASIC_MPP: Self = Self(16);
    /// `option_support_large_channel`
    pub const SUPPORT_LARGE_CHANNEL: Self = Self(18);
    /// `option_anchors`: anchor outputs, and HTLC transactions without a fee.
    pub const ANCHORS: Self = Self(22);
    /// `option_route_blinding`
    pub const ROUTE_BLINDING: Self = Self(24);
    /// `option_shutdown_anysegwit`
    pub const SHUTDOWN_ANYSEGWIT: Self = Self(26);
    /// `option_dual_fund`
    pub const DUAL_FUND: Self = Self(28);
    /// `option_quiesce`
    pub const QUIESCE: Self = Self(34);
    /// `option_attribution_data`
    pub const ATTRIBUTION_DATA: Self = Self(36);
    /// `option_onion_messages`
    pub const ONION_MESSAGES: Self = Self(38);
    /// `option_provide_storage`
    pub const PROVIDE_STORAGE: Self = Self(42);
    /// `option_channel_type`; assumed.
    pub const CHANNEL_TYPE: Self = Self(44);
    /// `option_scid_alias`
    pub const SCID_ALIAS: Self = Self(46);
    /// `option_payment_metadata`
    pub const PAYMENT_METADATA: Self = Self(48);
    /// `option_zeroconf`
    pub const ZEROCONF: Self = Self(50);
    /// `option_simple_close`
    pub const SIMPLE_CLOSE: Self = Self(60);
    /// `option_splice`
    pub const SPLICE: Self = Self(62);

    /// The bit that says required.
    pub const fn even_bit(self) -> u16 {
        self.0
    }

    /// The bit that says optional.
    pub const fn odd_bit(self) -> u16 {
        self.0 | 1
    }

    /// The name in BOLT 9.
    pub fn name(self) -> &'static str {
        ASSIGNED.iter().find(|assigned| assigned.feature == self).map_or("unassigned", |assigned| assigned.name)
    }
}

impl fmt::Debug for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A row of BOLT 9's table.
struct Assigned {
    feature: Feature,
    name: &'static str,
    presence: Presence,
}

/// What BOLT 9 says of a feature's presence.
#[derive(PartialEq, Eq)]
enum Presence {
    /// Every node has it, whether it says so or not.
    Assumed,
    /// Stands alone.
    Free,
    /// Needs another feature set.
    Needs(Feature),
}

const fn assigned(feature: Feature, name: &'static str, presence: Presence) -> Assigned {
    Assigned { feature, name, presence }
}

/// BOLT 9, the table of assigned flags.
const ASSIGNED: [Assigned; 23] = {
    use Presence::{Assumed, Free, Needs};
    [
        assigned(Feature::DATA_LOSS_PROTECT, "option_data_loss_protect", Assumed),
        assigned(Feature::UPFRONT_SHUTDOWN_SCRIPT, "option_upfront_shutdown_script", Free),
        assigned(Feature::GOSSIP_QUERIES, "gossip_queries", Free),
        assigned(Feature::VAR_ONION_OPTIN, "var_onion_optin", Assumed),
        assigned(Feature::GOSSIP_QUERIES_EX, "gossip_queries_ex", Free),
        assigned(Feature::STATIC_REMOTEKEY, "option_static_remotekey", Assumed),
        assigned(Feature::PAYMENT_SECRET, "payment_secret", Assumed),
        assigned(Feature::BASIC_MPP, "basic_mpp", Needs(Feature::PAYMENT_SECRET)),
        assigned(Feature::SUPPORT_LARGE_CHANNEL, "option_support_large_channel", Free),
        assigned(Feature::ANCHORS, "option_anchors", Free),
        assigned(Feature::ROUTE_BLINDING, "option_route_blinding", Free),
        assigned(Feature::SHUTDOWN_ANYSEGWIT, "option_shutdown_anysegwit", Free),
        assigned(Feature::DUAL_FUND, "option_dual_fund", Free),
        assigned(Feature::QUIESCE, "option_quiesce", Free),
        assigned(Feature::ATTRIBUTION_DATA, "option_attribution_data", Free),
        assigned(Feature::ONION_MESSAGES, "option_onion_messages", Free),
        assigned(Feature::PROVIDE_STORAGE, "option_provide_storage", Free),
        assigned(Feature::CHANNEL_TYPE, "option_channel_type", Assumed),
        assigned(Feature::SCID_ALIAS, "option_scid_alias", Free),
        assigned(Feature::PAYMENT_METADATA, "option_payment_metadata", Free),
        assigned(Feature::ZEROCONF, "option_zeroconf", Needs(Feature::SCID_ALIAS)),
        assigned(Feature::SIMPLE_CLOSE, "option_simple_close", Needs(Feature::SHUTDOWN_ANYSEGWIT)),
        assigned(Feature::SPLICE, "option_splice", Free),
    ]
};

/// Why a peer's features rule out a connection (BOLT 1, "The `init` Message").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// An even bit that is set and not understood here.
    #[error("required feature bit {0} is not understood")]
    UnknownRequired(usize),
    /// A feature without one that it depends on.
    #[error("{feature} without {needs}, which it depends on")]
    MissingDependency {
        /// The feature that is set.
        feature: Feature,
        /// The feature that is not.
        needs: Feature,
    },
}

/// A set of feature bits. Two sets are equal when the same bits are set, however many zeros came before them.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// Bits 0 to 7 in the first byte. The last byte is never zero, so equal sets have equal bytes.
    bytes: Vec<u8>,
}

impl Features {
    /// No bit set.
    pub const fn empty() -> Self {
        Self { bytes: Vec::new() }
    }

    /// What this node puts into its `init`.
    ///
    /// The assumed features are required, as BOLT 9 lets any node take them for granted; the others are optional.
    pub fn init() -> Self {
        Self::empty()
            .require(Feature::DATA_LOSS_PROTECT)
            .require(Feature::VAR_ONION_OPTIN)
            .require(Feature::STATIC_REMOTEKEY)
            .require(Feature::PAYMENT_SECRET)
            .require(Feature::CHANNEL_TYPE)
            .offer(Feature::BASIC_MPP)
            .offer(Feature::UPFRONT_SHUTDOWN_SCRIPT)
            .offer(Feature::ANCHORS)
            .offer(Feature::SHUTDOWN_ANYSEGWIT)
            .offer(Feature::SCID_ALIAS)
            .offer(Feature::SIMPLE_CLOSE)
    }

    /// The `channel_type` of the channels that this node opens and accepts: `option_static_remotekey` and
    /// `option_anchors` (BOLT 2).
    pub fn channel_type_anchors() -> Self {
        Self::empty().require(Feature::STATIC_REMOTEKEY).require(Feature::ANCHORS)
    }

    /// The same for a channel that is not announced, where both sides offer `option_scid_alias`: its real
    /// `short_channel_id` is never told to others (BOLT 2, `channel_ready`).
    pub fn channel_type_anchors_scid_alias() -> Self {
        Self::channel_type_anchors().require(Feature::SCID_ALIAS)
    }

    /// From the bytes of a message, where the last byte holds bits 0 to 7. Leading zero bytes are dropped.
    pub fn from_be_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.iter().rev().copied().collect() }.trimmed()
    }

    /// The bytes for a message: as few as hold the highest bit set.
    pub fn to_be_bytes(&self) -> Vec<u8> {
        self.bytes.iter().rev().copied().collect()
    }

    /// The set with this feature optional.
    #[must_use]
    pub fn offer(self, feature: Feature) -> Self {
        self.with_bit(feature.odd_bit())
    }

    /// The set with this feature required.
    #[must_use]
    pub fn require(self, feature: Feature) -> Self {
        self.with_bit(feature.even_bit())
    }

    /// The set with this very bit set.
    #[must_use]
    pub fn with_bit(mut self, bit: u16) -> Self {
        let index = usize::from(bit / 8);
        if self.bytes.len() <= index {
            self.bytes.resize(index.saturating_add(1), 0);
        }
        if let Some(byte) = self.bytes.get_mut(index) {
            *byte |= 1 << (bit % 8);
        }
        self
    }

    /// Whether this very bit is set.
    pub fn has_bit(&self, bit: u16) -> bool {
        self.bytes.get(usize::from(bit / 8)).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    }

    /// Whether the feature is set, optional or required.
    pub fn supports(&self, feature: Feature) -> bool {
        self.has_bit(feature.even_bit()) || self.has_bit(feature.odd_bit())
    }

    /// Whether the feature is required; it is also where both bits are set (BOLT 9).
    pub fn requires(&self, feature: Feature) -> bool {
        self.has_bit(feature.even_bit())
    }

    /// Every bit set in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (long, short) = if self.bytes.len() < other.bytes.len() { (other, self) } else { (self, other) };
        let mut bytes = long.bytes.clone();
        bytes.iter_mut().zip(&short.bytes).for_each(|(byte, more)| *byte |= more);
        Self { bytes }
    }

    /// The bits that are set, from the lowest.
    pub fn bits(&self) -> impl Iterator<Item = usize> + '_ {
        self.bytes.iter().enumerate().flat_map(|(index, byte)| {
            (0..8_usize)
                .filter(move |bit| byte & (1 << bit) != 0)
                .map(move |bit| index.saturating_mul(8).saturating_add(bit))
        })
    }

    /// Holds a peer's features to BOLT 1: no required bit that `ours` does not know, and every known dependency set.
    ///
    /// Assumed features are understood, and count as set, whoever leaves them out.
    pub fn check(&self, ours: &Self) -> Result<(), FeatureError> {
        self.check_required(ours)?;
        self.check_dependencies()
    }

    fn check_required(&self, ours: &Self) -> Result<(), FeatureError> {
        let understood =
            |bit: usize| u16::try_from(bit).is_ok_and(|bit| ours.supports(Feature(bit)) || is_assumed(Feature(bit)));
        match self.bits().find(|bit| bit.is_multiple_of(2) && !understood(*bit)) {
            Some(bit) => Err(FeatureError::UnknownRequired(bit)),
            None => Ok(()),
        }
    }

    /// Whether every feature set has those that it depends on (BOLT 9).
    pub fn check_dependencies(&self) -> Result<(), FeatureError> {
        for Assigned { feature, presence, .. } in &ASSIGNED {
            if let Presence::Needs(needs) = presence
                && self.supports(*feature)
                && !self.supports(*needs)
                && !is_assumed(*needs)
            {
                return Err(FeatureError::MissingDependency { feature: *feature, needs: *needs });
            }
        }
        Ok(())
    }

    fn trimmed(mut self) -> Self {
        let len = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        self.bytes.truncate(len);
        self
    }
}

/// BOLT 9: every node has these, so that neither their absence nor their requirement says anything.
fn is_assumed(feature: Feature) -> bool {
    ASSIGNED.iter().any(|assigned| assigned.feature == feature && assigned.presence == Presence::Assumed)
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Features")?;
        f.debug_set().entries(self.bits()).finish()
    }
}
