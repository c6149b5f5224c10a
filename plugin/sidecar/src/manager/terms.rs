//! What is asked for forwarding over a channel: the config's policy, and what the operator set for this channel.

use std::time::{Duration, Instant};

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::ChannelId;
use outrigger_bolt::wire::ChannelUpdate;
use outrigger_channel::{Phase, Refusal};
use tokio::sync::oneshot;

use super::Manager;
use super::forwarding::is_usable;
use super::peer::Slot;
use super::registered::Registered;
use crate::store::schema::{Table, channel_key};
pub use crate::store::terms::TermsRow;
use crate::store::{Address, Held};

/// For so long after a `channel_update` what the one before it asked is good enough: payers may not have heard (BOLT 7,
/// "HTLC Fees").
const GRACE: Duration = Duration::from_secs(600);

/// What we ask of HTLCs that are to be forwarded over a channel to its peer, from the operator's config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingPolicy {
    /// Blocks between the expiry of the incoming and of the outgoing HTLC.
    pub cltv_expiry_delta: u16,
    /// Fee of each HTLC, in millisatoshi.
    pub fee_base_msat: u32,
    /// Fee for each million that is forwarded.
    pub fee_proportional_millionths: u32,
    /// Smallest HTLC that is forwarded, unless the peer accepts only larger ones.
    pub htlc_minimum: Msat,
    /// Largest HTLC that is forwarded, where that is less than what the channel carries.
    pub htlc_maximum: Option<Msat>,
}

impl ForwardingPolicy {
    /// This policy, with what the operator set for one channel.
    pub(super) fn under(&self, terms: &TermsRow) -> Self {
        let as_carried = |maximum: Msat| Some(maximum).filter(|maximum| *maximum != Msat::ZERO);
        Self {
            cltv_expiry_delta: terms.cltv_expiry_delta.unwrap_or(self.cltv_expiry_delta),
            fee_base_msat: terms.fee_base_msat.unwrap_or(self.fee_base_msat),
            fee_proportional_millionths: terms.fee_proportional_millionths.unwrap_or(self.fee_proportional_millionths),
            htlc_minimum: terms.htlc_minimum.unwrap_or(self.htlc_minimum),
            htlc_maximum: terms.htlc_maximum.map_or(self.htlc_maximum, as_carried),
        }
    }

    fn of_update(update: &ChannelUpdate) -> Self {
        Self {
            cltv_expiry_delta: update.cltv_expiry_delta,
            fee_base_msat: update.fee_base_msat,
            fee_proportional_millionths: update.fee_proportional_millionths,
            htlc_minimum: update.htlc_minimum_msat,
            htlc_maximum: Some(update.htlc_maximum_msat),
        }
    }
}

/// What the last `channel_update` but one asked, while payers may not have heard of the last.
pub(super) fn still_good(slot: &Slot, now: Instant) -> Option<ForwardingPolicy> {
    let (replaced, since) = slot.replaced.as_ref()?;
    is_news(*since, now).then(|| ForwardingPolicy::of_update(replaced))
}

/// Whether payers may not have heard of an update that was made then. By the monotonic clock: the time in an update may lie
/// ahead (CLK-1).
fn is_news(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < GRACE
}

/// How an operator changes what is asked over a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TermsChange {
    /// Whether what was set for the channel before is to go.
    pub from_config: bool,
    /// What is set now.
    pub set: TermsRow,
}

impl Manager {
    /// Changes what is asked for forwarding over a channel, and gives all of it once it is durable. A connected peer is told
    /// at once, another when it comes back.
    pub async fn set_terms(&self, channel: ChannelId, change: TermsChange) -> Result<ForwardingPolicy, Refusal> {
        if self.env.frozen.contains(&channel) {
            return Err(Refusal::Frozen);
        }
        let Registered { peer, .. } = self.deliver.registered(&channel).ok_or(Refusal::UnknownChannel)?;
        let (waiter, durable) = oneshot::channel();
        let mut policy = Err(Refusal::UnknownChannel);
        self.visit_with(&peer, |drive, peer| {
            let at = Address { peer: peer.node_id, connection: peer.connection(), channel };
            let Some(slot) = peer.slots.get_mut(&channel) else { return };
            if slot.archived.is_some() || matches!(slot.channel.phase(), Phase::Closed { .. }) {
                policy = Err(Refusal::Ended);
                return;
            }
            let before = if change.from_config { TermsRow::default() } else { slot.terms };
            slot.terms = change.set.or(before);
            policy = Ok(drive.env.forwarding.under(&slot.terms));
            drive.batch.put(Table::ForwardingTerms, channel_key(&channel), slot.terms.encode());
            if is_usable(&slot.channel) {
                drive.tell_update(at, slot);
            }
            drive.batch.hold(Held::Durable(waiter));
        });
        let policy = policy?;
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_news_for_ten_minutes() {
        let since = Instant::now();
        for (secs, is) in [(0, true), (599, true), (600, false), (86_400, false)] {
            assert_eq!(is_news(since, since + Duration::from_secs(secs)), is, "{secs}");
        }
    }

    #[test]
    fn what_was_set_stands_over_the_config_and_the_latest_over_what_was_set_before() {
        let config = ForwardingPolicy {
            cltv_expiry_delta: 80,
            fee_base_msat: 1000,
            fee_proportional_millionths: 100,
            htlc_minimum: Msat::new(1),
            htlc_maximum: Some(Msat::new(500)),
        };
        assert_eq!(config.under(&TermsRow::default()), config);
        let before = TermsRow { fee_base_msat: Some(7), htlc_maximum: Some(Msat::ZERO), ..TermsRow::default() };
        let latest = TermsRow { fee_base_msat: Some(0), cltv_expiry_delta: Some(34), ..TermsRow::default() };
        let both = ForwardingPolicy { cltv_expiry_delta: 34, fee_base_msat: 0, htlc_maximum: None, ..config };
        assert_eq!(config.under(&latest.or(before)), both);
        assert_eq!(TermsRow::decode(&latest.encode().unwrap()), Ok(latest));
        assert_eq!(TermsRow::default().encode(), None);
    }
}
