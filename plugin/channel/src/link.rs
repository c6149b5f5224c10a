//! The connection and what goes with it: proposals that no `commitment_signed` covers, and `channel_reestablish`.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_bolt::features::Features;

use crate::changes::{ChannelRows, HtlcRow, Removal};
use crate::commitments::htlc::HtlcKey;
use crate::commitments::outlook::Outlook;
use crate::phase::shutdown::Negotiation;

/// How far the peer can be talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Disconnected,
    /// Our `channel_reestablish` is out, the peer's is due: nothing else may be sent or accepted (BOLT 2).
    Reestablishing(Features),
    /// In step with the peer. The features are those that both sides offered.
    Connected(Features),
}

impl Link {
    /// What both sides offered in `init`, while connected.
    pub fn features(&self) -> Option<&Features> {
        match self {
            Self::Disconnected => None,
            Self::Reestablishing(features) | Self::Connected(features) => Some(features),
        }
    }
}

/// An `update_add_htlc` that no `commitment_signed` covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedAdd {
    pub row: HtlcRow,
    pub onion: Arc<[u8; 1366]>,
}

/// All that a disconnect or a crash takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volatile {
    pub(crate) link: Link,
    pub(crate) adds: BTreeMap<HtlcKey, ProposedAdd>,
    pub(crate) removals: BTreeMap<HtlcKey, Removal>,
    pub(crate) outlook: Outlook,
    pub(crate) negotiation: Negotiation,
}

/// What a step changes of it. `reset` comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolatileChanges {
    pub(crate) reset: bool,
    pub(crate) link: Option<Link>,
    pub(crate) adds: BTreeMap<HtlcKey, Option<ProposedAdd>>,
    pub(crate) removals: BTreeMap<HtlcKey, Option<Removal>>,
    pub(crate) outlook: Option<Outlook>,
    pub(crate) negotiation: Option<Negotiation>,
}

impl Volatile {
    /// The volatile part of a channel that was just loaded.
    pub(crate) fn at_rest(rows: &ChannelRows) -> Self {
        Self {
            link: Link::Disconnected,
            adds: BTreeMap::new(),
            removals: BTreeMap::new(),
            outlook: Outlook::of_rows(rows),
            negotiation: Negotiation::default(),
        }
    }

    /// Takes a step's changes in. `rows` are those after the step.
    pub(crate) fn settle(&mut self, changes: VolatileChanges, rows: &ChannelRows) {
        if changes.reset {
            *self = Self::at_rest(rows);
        }
        if let Some(link) = changes.link {
            self.link = link;
        }
        if let Some(outlook) = changes.outlook {
            self.outlook = outlook;
        }
        if let Some(negotiation) = changes.negotiation {
            self.negotiation = negotiation;
        }
        overlay(&mut self.adds, changes.adds);
        overlay(&mut self.removals, changes.removals);
    }
}

fn overlay<T>(base: &mut BTreeMap<HtlcKey, T>, changes: BTreeMap<HtlcKey, Option<T>>) {
    for (key, value) in changes {
        match value {
            Some(value) => base.insert(key, value),
            None => base.remove(&key),
        };
    }
}
