//! Adds of the peer that only a removal of the same signature pays for.
//!
//! A sender repeats its updates after a reconnection in any order (BOLT 2, "Message Retransmission"), so an add may come
//! before the `update_fulfill_htlc` or the `update_fee` that makes it affordable. Refused at once it would come again and
//! again. So it waits for the `commitment_signed`, which is held to the whole; what nothing could pay for is refused when
//! it comes.

use outrigger_bolt::amount::{FeeratePerKw, Msat};

use super::fee::{News, news_to_peer};
use super::htlc::{HtlcState, Offerer, Side};
use super::outlook::Outlook;
use crate::changes::ChannelParams;
use crate::draft::Draft;
use crate::violation::{Rule, Violation};

const UNAFFORDABLE: Violation = Violation::Warn(Rule::CannotAffordHtlc);

/// Puts an add that was just proposed into the next local commitment, or lets it wait for what may pay for it.
pub(super) fn charge(draft: &mut Draft<'_>, amount: Msat) -> Result<(), Violation> {
    let (params, news) = (draft.params(), news_to_peer(draft));
    let outlook = draft.outlook_mut();
    // Behind one that waits, the next waits too: they are charged in their order.
    if outlook.deferred.count == 0
        && let Some(charged) = with_adds(params, (*outlook, news), &[amount])
    {
        *outlook = charged;
        return Ok(());
    }
    let deferred = &mut outlook.deferred;
    deferred.count = deferred.count.saturating_add(1);
    deferred.value = deferred.value.saturating_add(amount);
    let best = with_all_removed(draft);
    if with_adds(params, (best, news), &waiting(draft)).is_some() { Ok(()) } else { Err(UNAFFORDABLE) }
}

/// All that the peer proposed is signed now: the adds that waited are charged, or the signature is refused.
pub(super) fn settle(draft: &mut Draft<'_>) -> Result<(), Violation> {
    let (params, amounts) = (draft.params(), waiting(draft));
    if amounts.is_empty() {
        return Ok(());
    }
    let news = news_to_peer(draft);
    let outlook = draft.outlook_mut();
    *outlook = with_adds(params, (*outlook, news), &amounts).ok_or(UNAFFORDABLE)?;
    outlook.deferred = Default::default();
    Ok(())
}

/// The amounts of the adds that are not charged yet, in the order of their ids.
fn waiting(draft: &Draft<'_>) -> Vec<Msat> {
    let count = usize::from(draft.outlook().deferred.count);
    let adds = draft.adds();
    let newest = adds.iter().rev().filter(|(key, _)| key.offerer == Offerer::Remote).take(count);
    let mut amounts: Vec<Msat> = newest.map(|(_, add)| add.row.amount).collect();
    amounts.reverse();
    amounts
}

/// With these adds of the peer in the next local commitment; `None` where it cannot afford them.
fn with_adds(params: &ChannelParams, (mut outlook, news): (Outlook, News), amounts: &[Msat]) -> Option<Outlook> {
    let put = amounts.iter().all(|amount| outlook.put_add(params, Side::Local, Offerer::Remote, *amount));
    let affordable = put && outlook.local.affordable_for_peer(params, news) && outlook.opener_survives(params);
    affordable.then_some(outlook)
}

/// The best that the peer can make of its next signature: every HTLC of ours removed in favour of whoever needs it, and
/// the lowest feerate where the peer sets it.
fn with_all_removed(draft: &Draft<'_>) -> Outlook {
    let params = draft.params();
    let mut outlook = *draft.outlook();
    if params.opener() == Side::Remote {
        outlook.local.feerate = FeeratePerKw::FLOOR;
    }
    let removable = draft.htlcs().into_iter().filter(|(key, row)| {
        key.offerer == Offerer::Local && row.state == HtlcState::STANDING && draft.removal(*key).is_none()
    });
    for (key, row) in removable {
        let totals = outlook.local.totals.without_htlc(key.offerer, row.amount, params.local.dust_limit, Side::Remote);
        if let Some(totals) = totals {
            outlook.local.totals = totals;
            outlook.local.totals.to_local = totals.to_local.saturating_add(row.amount);
            outlook.remote.totals.to_local = outlook.remote.totals.to_local.saturating_add(row.amount);
            outlook.count_out(params, row.amount);
        }
    }
    outlook
}
