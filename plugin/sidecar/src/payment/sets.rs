//! HTLC sets (BOLT 4, "Basic Multi-Part Payments"): the parts of one payment to us, held until they are whole or their time
//! is over. A value: the time is an argument. Nothing here is stored: after a crash the undecided HTLCs come again, and make
//! their sets anew.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{NodeId, PaymentHash, PaymentSecret};

use crate::manager::relay::register::HtlcName;

/// How long the rest of a set is waited for after its first part (BOLT 4: at least 60 seconds).
pub(super) const SET_TIMEOUT: Duration = Duration::from_secs(60);

/// The most parts of one set. Payers make a handful; each holds a slot of a channel for up to a minute.
pub(super) const MAX_PARTS: usize = 64;

/// The most parts of all sets together: a bound on memory, above what a few full channels bring.
pub(super) const MAX_HELD: usize = 10_000;

/// A received HTLC that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Who sent it.
    pub(super) peer: NodeId,
    pub(super) name: HtlcName,
    /// What it brings.
    pub(super) amount: Msat,
    /// What its onion says that it brings: never more than the amount.
    pub(super) arrives: Msat,
    pub(super) cltv_expiry: u32,
    /// Failures are made with it.
    pub(super) shared_secret: [u8; 32],
}

/// What every part of a set says of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    /// None for a payment that was not asked for and comes in one part.
    pub(super) secret: Option<PaymentSecret>,
    /// The amount of all parts together.
    pub(super) total: Msat,
}

/// What a part makes of its set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// More is to come.
    Held,
    /// All is there: the parts are to be claimed, and are held no longer.
    Whole(Vec<Part>),
    /// The part contradicts the others: all are to be failed, and are held no longer.
    Contradicts(Vec<Part>),
    /// There is no room for it.
    Full(Part),
}

/// The sets that are not whole.
#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: HashMap<PaymentHash, Set>,
    /// When each of them is over. Numbered, for many may begin at one moment.
    ends: BTreeMap<(Instant, u64), PaymentHash>,
    begun: u64,
    held: usize,
}

#[derive(Debug)]
struct Set {
    promise: Promise,
    parts: Vec<Part>,
    end: (Instant, u64),
}

impl Sets {
    /// Adds a part that has passed every check of its own.
    pub(super) fn add(&mut self, hash: PaymentHash, promise: Promise, part: Part, now: Instant) -> Added {
        let Some(set) = self.sets.get_mut(&hash) else { return self.begin(hash, promise, part, now) };
        if set.parts.iter().any(|known| known.name == part.name) {
            return Added::Held;
        }
        if set.promise != promise {
            let mut parts = self.take(&hash);
            parts.push(part);
            return Added::Contradicts(parts);
        }
        let is_whole = arrived(&set.parts).saturating_add(part.arrives) >= promise.total;
        if !is_whole && (set.parts.len() >= MAX_PARTS || self.held >= MAX_HELD) {
            return Added::Full(part);
        }
        if is_whole {
            let mut parts = self.take(&hash);
            parts.push(part);
            return Added::Whole(parts);
        }
        set.parts.push(part);
        self.held = self.held.saturating_add(1);
        Added::Held
    }

    fn begin(&mut self, hash: PaymentHash, promise: Promise, part: Part, now: Instant) -> Added {
        if part.arrives >= promise.total {
            return Added::Whole(vec![part]);
        }
        if self.held >= MAX_HELD {
            return Added::Full(part);
        }
        // A clock that cannot count a minute more would hold the set for no time at all.
        let end = (now.checked_add(SET_TIMEOUT).unwrap_or(now), self.begun);
        self.begun = self.begun.wrapping_add(1);
        self.ends.insert(end, hash);
        self.sets.insert(hash, Set { promise, parts: vec![part], end });
        self.held = self.held.saturating_add(1);
        Added::Held
    }

    /// The parts of the sets whose time is over; they are held no longer.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Part> {
        let mut parts = Vec::new();
        while let Some(hash) = self.ends.first_key_value().filter(|((end, _), _)| *end <= now).map(|(_, hash)| *hash) {
            parts.append(&mut self.take(&hash));
        }
        parts
    }

    /// When the next set is over.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first_key_value().map(|((end, _), _)| *end)
    }

    fn take(&mut self, hash: &PaymentHash) -> Vec<Part> {
        let Some(set) = self.sets.remove(hash) else { return Vec::new() };
        self.ends.remove(&set.end);
        self.held = self.held.saturating_sub(set.parts.len());
        set.parts
    }
}

/// What the onions of these parts say that they bring.
fn arrived(parts: &[Part]) -> Msat {
    parts.iter().fold(Msat::ZERO, |sum, part| sum.saturating_add(part.arrives))
}

#[cfg(test)]
mod tests;
