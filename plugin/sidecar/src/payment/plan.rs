//! Which HTLCs bring an amount to a payee: over one way where one can, else in parts. What channels can send is told by the
//! caller, so nothing here takes a lock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::invoice::HintHop;

use super::order::SendFault;
use super::route::{Arrives, Route};
use crate::manager::outlets::Outlets;
use crate::store::part::PartHop;

/// HTLCs of one payment that are in flight at one time, at most: each costs a base fee and a slot at every node on its way.
pub(super) const MAX_IN_FLIGHT: usize = 16;

/// The smallest part that an amount is split into, but for the last one: below, fees and dust outweigh what a part is for.
pub(super) const MIN_PART: Msat = Msat::new(1_000_000);

/// Blocks that an HTLC of ours may be held at most: whoever holds it holds our money.
pub(super) const MAX_HELD_BLOCKS: u32 = 2016;

/// A way to the payee, and what was learned of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The channels behind our own; none where the payee is a peer of ours.
    pub(super) channels: Vec<HintHop>,
    /// The most that it is trusted with at one time: halved where more did not get through, zero where nothing will.
    pub(super) most: Msat,
    /// What is in flight over it.
    pub(super) carries: Msat,
}

impl Way {
    /// A way of which nothing is known.
    pub(super) const fn untried(channels: Vec<HintHop>) -> Self {
        Self { channels, most: Msat::new(u64::MAX), carries: Msat::ZERO }
    }

    /// Whether an HTLC went this way.
    pub(super) fn is_of(&self, route: &[PartHop]) -> bool {
        let led_to = route.iter().skip(1).map(|hop| hop.channel);
        route.len() == self.channels.len().saturating_add(1)
            && self.channels.iter().zip(route).all(|(channel, hop)| channel.node == hop.node)
            && self.channels.iter().map(|channel| Some(channel.short_channel_id)).eq(led_to)
    }

    fn room(&self) -> Msat {
        self.most.saturating_sub(self.carries)
    }
}

/// Channels of ours that did not take a part, and the most that each is trusted with since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trust(BTreeMap<ChannelId, Msat>);

impl Trust {
    /// From now on the channel is trusted with no more than this.
    pub(super) fn trust(&mut self, channel: ChannelId, most: Msat) {
        let known = self.0.entry(channel).or_insert(most);
        *known = most.min(*known);
    }

    fn most(&self, (spendable, channel): (Msat, ChannelId)) -> (Msat, ChannelId) {
        (self.0.get(&channel).map_or(spendable, |most| spendable.min(*most)), channel)
    }

    /// What channels can send, as far as they are trusted.
    pub(super) fn within(&self, outlets: Outlets, amount: Msat) -> Outlets {
        if self.0.is_empty() {
            return outlets;
        }
        let mut largest: Vec<_> = outlets.largest.into_iter().map(|outlet| self.most(outlet)).collect();
        largest.sort_by_key(|(spendable, _)| Reverse(*spendable));
        let fit = outlets.fit.filter(|fit| self.most(*fit).0 >= amount);
        let fit = fit.or_else(|| largest.iter().rev().find(|(spendable, _)| *spendable >= amount).copied());
        Outlets { fit, largest, ..outlets }
    }
}

/// What is to be brought, and within what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) payee: NodeId,
    /// What is to arrive, and when its HTLCs expire at the payee.
    pub(super) arrives: Arrives,
    pub(super) height: u32,
    /// The most that may be paid in fees for it.
    pub(super) max_fee: Msat,
    /// HTLCs that it may be split into; with one, it is not split.
    pub(super) max_parts: usize,
}

/// One HTLC to be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its place in the list of ways; none for a route that the caller gave.
    pub(super) way: Option<usize>,
    pub(super) route: Route,
    pub(super) channel: ChannelId,
    /// What of it arrives.
    pub(super) amount: Msat,
}

/// The HTLCs that do the task. An error is the most telling of the reasons why none do.
pub(super) fn plan(
    ways: &[Way],
    task: &Task,
    look: &dyn Fn(&NodeId, Msat) -> Outlets,
) -> Result<Vec<Piece>, SendFault> {
    let whole = single(ways, task, look);
    match whole {
        Err(_) if task.max_parts > 1 => split(ways, task, look).map_err(|fault| telling(whole.err(), fault)),
        whole => whole.map(|piece| vec![piece]),
    }
}

/// The one of two reasons that tells more.
fn telling(one: Option<SendFault>, other: SendFault) -> SendFault {
    match one {
        Some(one) if one.weight() > other.weight() => one,
        Some(_) | None => other,
    }
}

/// All of it over the first way that can.
fn single(ways: &[Way], task: &Task, look: &dyn Fn(&NodeId, Msat) -> Outlets) -> Result<Piece, SendFault> {
    let mut fault = SendFault::NoRoute(task.payee);
    for (number, way) in ways.iter().enumerate().filter(|(_, way)| way.room() >= task.arrives.amount) {
        let Some(route) = Route::over(&way.channels, task.payee, task.arrives) else { continue };
        let outlets = look(&route.first(), route.sends);
        let found = fit(&outlets, &route, task).and_then(|channel| check(&route, task, task.max_fee).map(|()| channel));
        match found {
            Ok(channel) => return Ok(Piece { way: Some(number), route, channel, amount: task.arrives.amount }),
            Err(other) => fault = telling(Some(fault), other),
        }
    }
    Err(fault)
}

fn fit(outlets: &Outlets, route: &Route, task: &Task) -> Result<ChannelId, SendFault> {
    let node = route.first();
    if !outlets.has_channel {
        return Err(SendFault::NoRoute(task.payee));
    }
    let (spendable, _) = *outlets.largest.first().ok_or(SendFault::NotConnected(node))?;
    let fit = outlets.fit.map(|(_, channel)| channel);
    fit.ok_or(SendFault::TooLarge { spendable, asked: route.sends })
}

/// Whether a route is within what is lent and paid.
pub(super) fn check(route: &Route, task: &Task, max_fee: Msat) -> Result<(), SendFault> {
    let blocks = route.cltv_expiry.saturating_sub(task.height);
    if blocks > MAX_HELD_BLOCKS {
        return Err(SendFault::HeldTooLong { blocks, most: MAX_HELD_BLOCKS });
    }
    let fee = route.fee(task.arrives.amount);
    if fee > max_fee { Err(SendFault::FeeTooHigh { fee, most: max_fee }) } else { Ok(()) }
}

/// In parts: the cheapest way first, and of each the channels that can send the most, one part over each channel.
fn split(ways: &[Way], task: &Task, look: &dyn Fn(&NodeId, Msat) -> Outlets) -> Result<Vec<Piece>, SendFault> {
    let mut sorted: Vec<_> = ways.iter().enumerate().filter(|(_, way)| way.room() > Msat::ZERO).collect();
    sorted.sort_by_key(|(_, way)| {
        Route::over(&way.channels, task.payee, task.arrives)
            .map_or(Msat::new(u64::MAX), |route| route.fee(task.arrives.amount))
    });
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut left, mut fee_left) = (task.arrives.amount, task.max_fee);
    let mut used = BTreeSet::new();
    let mut fault = SendFault::NoRoute(task.payee);
    for (number, way) in sorted {
        let first = way.channels.first().map_or(task.payee, |hop| hop.node);
        let mut room = way.room();
        for (spendable, channel) in look(&first, Msat::ZERO).largest {
            if left == Msat::ZERO || pieces.len() >= task.max_parts {
                break;
            }
            let amount = arriving(way, task, spendable).min(left).min(room);
            if used.contains(&channel) || amount == Msat::ZERO || (amount < MIN_PART && amount < left) {
                continue;
            }
            let arrives = Arrives { amount, ..task.arrives };
            let Some(route) = Route::over(&way.channels, task.payee, arrives) else { continue };
            let of_part = Task { arrives, ..*task };
            if let Err(other) = check(&route, &of_part, fee_left) {
                fault = telling(Some(fault), other);
                continue;
            }
            fee_left = fee_left.saturating_sub(route.fee(amount));
            (left, room) = (left.saturating_sub(amount), room.saturating_sub(amount));
            used.insert(channel);
            pieces.push(Piece { way: Some(number), route, channel, amount });
        }
    }
    if pieces.is_empty() {
        return Err(fault);
    }
    if left > Msat::ZERO {
        let spendable = task.arrives.amount.saturating_sub(left);
        let missing = SendFault::TooLarge { spendable, asked: task.arrives.amount };
        return Err(telling(Some(fault), missing));
    }
    Ok(pieces)
}

/// What arrives at least of what a channel can send, once every node on the way has its fee: fees rise with the amount, so
/// those of the whole are enough for what is left without them.
fn arriving(way: &Way, task: &Task, spendable: Msat) -> Msat {
    let arrives = Arrives { amount: spendable, ..task.arrives };
    let fee = Route::over(&way.channels, task.payee, arrives).map(|route| route.fee(spendable));
    fee.map_or(Msat::ZERO, |fee| spendable.saturating_sub(fee))
}

#[cfg(test)]
mod tests;
