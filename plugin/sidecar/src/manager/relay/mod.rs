//! Received HTLCs: peeled under the lock of the peer that sent them, judged and offered under the lock of the peer that
//! they go to, settled under the first again. Work that spans two peers is a row and a letter, never a second lock (law 3).
//!
//! What is relayed has one row: that of the HTLC offered downstream, which names the one received upstream and is written
//! with the `commitment_signed` that covers it. Its outcome is a settlement of the received HTLC in the transaction of the
//! step that learned it. What never got so far is dispatched anew by a start or after a disconnect (FWD-9).

pub(super) mod judge;
pub(super) mod onions;
pub mod register;

use std::fmt;

use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_bolt::onion::{
    self, Failure, ForwardPayload, InvalidPayload, Malformed, OnionPacket, Payload, PeelError, Peeled, failure,
};
use outrigger_channel::{
    Command, FailReason, HtlcKey, HtlcSource, HtlcTotals, IncomingHtlc, Input, Phase, Refusal, Reply,
};

use super::deliver::PaymentNotice;
use super::drive::{Drive, NOBODY};
use super::env::Env;
use super::forwarding::is_usable;
use super::mail::Mail;
use super::peer::{Peer, Slot};
use super::terms::{ForwardingPolicy, still_good};
use crate::clock::Clock;
use crate::store::forward::{ForwardTotals, TotalsKey, day_of};
use crate::store::row::SettlementRow;
use crate::store::schema::{Table, numbered_key};
use crate::store::{Batch, Held};
use judge::judge;
use onions::{Seen, Unprocessed};
use register::HtlcName;

/// Of each limit that a peer sets for what we offer it, one part in so many is kept for payments of our own (FWD-15).
const LOCAL_SHARE: u64 = 10;

/// How a received HTLC comes to be dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// Its channel or a start tells of it.
    New,
    /// What was offered for it was never signed, and is gone.
    Again,
}

/// What one visit has for others. It is told once the peer's lock is gone and the batch of the visit is in the writer's
/// queue, so that rows of whoever reads it come after those that it stands on.
#[derive(Debug)]
pub(super) enum Letter {
    /// For the worker of another peer.
    Mail(NodeId, Mail),
    /// For the owner of payments.
    Payment(PaymentNotice),
}

/// A received HTLC that is to be offered to the next peer.
pub struct Offer {
    incoming: HtlcName,
    /// The peer that sent it.
    from: NodeId,
    /// What it brings, and when it expires.
    brings: (Msat, u32),
    payment_hash: PaymentHash,
    /// The peer that sent it exposes us too much already (FEE-1).
    over_exposed: bool,
    forward: ForwardPayload,
    /// The channel that the onion names.
    channel: ChannelId,
    onion: Box<[u8; 1366]>,
    /// Failures are made with it.
    shared_secret: [u8; 32],
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("incoming", &self.incoming)
            .field("forward", &self.forward)
            .finish_non_exhaustive()
    }
}

impl Offer {
    /// The decision that fails it. It counts as relayed no longer.
    pub(super) fn fail(&self, failure: &Failure, env: &Env, batch: &mut Batch) {
        env.relay.release(&self.incoming);
        count_refused(batch, self.incoming.channel, Some(self.channel));
        let reason = FailReason::Encrypted(failure::create(&self.shared_secret, failure));
        decide(batch, self.from, self.incoming, SettlementRow::Fail(reason));
    }
}

/// Stages the decision on a received HTLC; its channel is told once that has its place in the writer's queue.
pub(crate) fn decide(batch: &mut Batch, from: NodeId, htlc: HtlcName, settlement: SettlementRow) {
    let HtlcName { channel, htlc_id } = htlc;
    batch.put(Table::Settlement, numbered_key(&channel, htlc_id), Some(settlement.encode()));
    batch.hold(Held::Settled { peer: from, channel, htlc_id, settlement });
}

/// An HTLC that was not handed on is counted.
fn count_refused(batch: &mut Batch, incoming: ChannelId, outgoing: Option<ChannelId>) {
    let key = TotalsKey { day: day_of(Clock::now_unix()), incoming, outgoing };
    batch.count(key, &ForwardTotals::one_refused());
}

/// A peeled onion that is acted on.
struct Readable {
    shared_secret: [u8; 32],
    payload: Payload,
    next: Option<OnionPacket>,
}

/// BOLT 4, "Onion Decryption": what the onion says to us, or how the HTLC is failed. The secret is there where the onion
/// was authentic.
fn read(env: &Env, htlc: &IncomingHtlc) -> Result<Readable, Unreadable> {
    let packet = OnionPacket::from_bytes(&htlc.onion);
    match onion::peel(|point| env.keys.ecdh(point), &packet, &htlc.payment_hash.0) {
        Err(PeelError::Malformed(Malformed { code, sha256_of_onion })) => {
            Err(Unreadable::Malformed(FailReason::Malformed { sha256_of_onion, failure_code: code }))
        }
        Err(PeelError::InvalidPayload { shared_secret }) => {
            Err(Unreadable::Invalid { shared_secret, invalid: InvalidPayload { tlv_type: 0, offset: 0 } })
        }
        Ok(Peeled { shared_secret, payload, next }) => match Payload::decode(&payload, next.is_none()) {
            Ok(payload) => Ok(Readable { shared_secret, payload, next }),
            Err(invalid) => Err(Unreadable::Invalid { shared_secret, invalid }),
        },
    }
}

enum Unreadable {
    Malformed(FailReason),
    Invalid { shared_secret: [u8; 32], invalid: InvalidPayload },
}

impl Drive<'_> {
    /// A received HTLC is irrevocably committed, as its channel or a start tells. One of a channel that has failed or ended
    /// is left to the chain: what would be paid on for it could not be claimed from it.
    pub(super) fn incoming(&mut self, peer: &Peer, htlc: IncomingHtlc, telling: Telling) {
        let Some(slot) = peer.slots.get(&htlc.channel).filter(|slot| may_settle(slot)) else { return };
        let stands = slot.channel.rows().htlcs.contains_key(&HtlcKey::received(htlc.htlc_id));
        if stands && !slot.settlements.contains_key(&htlc.htlc_id) {
            self.dispatch(peer.node_id, htlc, telling);
        }
    }

    /// It ends here, goes on, or fails. Once: a start may tell of an HTLC that the peer's messages tell of too, and until its
    /// decision has come back from the writer the register alone knows that it is being decided.
    pub(super) fn dispatch(&mut self, from: NodeId, htlc: IncomingHtlc, telling: Telling) {
        let name = HtlcName { channel: htlc.channel, htlc_id: htlc.htlc_id };
        if !self.env.relay.dispatch(name, from) {
            return;
        }
        let (shared_secret, readable) = match read(self.env, &htlc) {
            Ok(Readable { shared_secret, payload, next }) => (shared_secret, Ok((payload, next))),
            Err(Unreadable::Invalid { shared_secret, invalid }) => (shared_secret, Err(invalid)),
            Err(Unreadable::Malformed(reason)) => {
                return decide(&mut self.batch, from, name, SettlementRow::Fail(reason));
            }
        };
        let expiry = readable.as_ref().map_or(0, |(payload, _)| expiry_of(payload)).max(htlc.cltv_expiry);
        let at = (expiry, self.env.chain.height());
        let tools = (&mut self.batch, &self.env.reader);
        let processed = match self.env.onions.process(tools, &shared_secret, name, at) {
            Ok(processed) => processed,
            // The HTLC comes again at the next start.
            Err(fault) => return self.batch.give_up(fault),
        };
        let failure = match (readable, processed) {
            (Err(InvalidPayload { tlv_type, offset }), _) => Failure::InvalidOnionPayload { tlv_type, offset },
            // BOLT 4: abort processing and fail. A prober learns no more than from any other onion.
            (Ok((Payload::Final(_), _)), Err(_)) => self.unknown_details(&htlc),
            (Ok((Payload::Forward(forward), _)), Err(why)) => {
                let asked = self.deliver.named(forward.short_channel_id);
                count_refused(&mut self.batch, name.channel, asked.map(|(_, channel)| channel));
                match why {
                    Unprocessed::TooFar => Failure::ExpiryTooFar,
                    Unprocessed::Replay => passing(),
                }
            }
            (Ok((Payload::Final(payload), _)), Ok(_)) => {
                let payload = Box::new(payload);
                let notice = PaymentNotice::Incoming { peer: from, htlc, shared_secret, payload };
                // It ends here: the owner of payments decides.
                return self.letters.push(Letter::Payment(notice));
            }
            (Ok((Payload::Forward(_), _)), Ok(Seen::Before))
                if telling == Telling::New && !self.env.frozen.is_empty() =>
            {
                // What a frozen channel carries is not known: it may be this HTLC, and must not be offered again, nor failed.
                return tracing::warn!(?name, "an HTLC stays undecided while a channel is frozen");
            }
            (Ok((Payload::Forward(forward), next)), Ok(_)) => {
                let asked = self.deliver.named(forward.short_channel_id);
                match self.hand_on(from, &htlc, shared_secret, (forward, next, asked)) {
                    Ok(()) => return,
                    Err(failure) => {
                        count_refused(&mut self.batch, name.channel, asked.map(|(_, channel)| channel));
                        failure
                    }
                }
            }
        };
        let reason = FailReason::Encrypted(failure::create(&shared_secret, &failure));
        decide(&mut self.batch, from, name, SettlementRow::Fail(reason));
    }

    /// It goes on, as far as this peer's side can tell.
    fn hand_on(
        &mut self,
        from: NodeId,
        htlc: &IncomingHtlc,
        shared_secret: [u8; 32],
        (forward, next, asked): (ForwardPayload, Option<OnionPacket>, Option<(NodeId, ChannelId)>),
    ) -> Result<(), Failure> {
        if !self.env.chain.is_synced() || self.env.is_restored() || self.env.room.is_low() {
            return Err(Failure::TemporaryNodeFailure);
        }
        let (to, channel) = asked.ok_or(Failure::UnknownNextPeer)?;
        let next = next.ok_or(Failure::UnknownNextPeer)?;
        let incoming = HtlcName { channel: htlc.channel, htlc_id: htlc.htlc_id };
        if !self.env.relay.take(incoming, htlc.amount, &self.env.caps) {
            return Err(passing());
        }
        let offer = Offer {
            incoming,
            from,
            brings: (htlc.amount, htlc.cltv_expiry),
            payment_hash: htlc.payment_hash,
            over_exposed: htlc.over_exposed,
            forward,
            channel,
            onion: Box::new(next.to_bytes()),
            shared_secret,
        };
        self.letters.push(Letter::Mail(to, Mail::Offer(Box::new(offer))));
        Ok(())
    }

    /// One answer for everything that a prober could learn from (BOLT 4).
    fn unknown_details(&self, htlc: &IncomingHtlc) -> Failure {
        Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: htlc.amount, height: self.env.chain.height() }
    }

    /// Another peer's HTLC is to be offered to this one.
    pub(super) fn offer(&mut self, peer: &mut Peer, offer: Offer) {
        match self.try_to_offer(peer, &offer) {
            Ok(()) => {}
            Err(failure) => {
                tracing::debug!(incoming = ?offer.incoming, to = %peer.node_id, %failure, "an HTLC is not relayed");
                offer.fail(&failure, self.env, &mut self.batch);
            }
        }
    }

    fn try_to_offer(&mut self, peer: &mut Peer, offer: &Offer) -> Result<(), Failure> {
        // The channel may have ended meanwhile.
        let asked = peer.slots.get(&offer.channel).ok_or(Failure::UnknownNextPeer)?;
        let update = |drive: &Self, asked: &Slot| drive.update_named(asked, offer.forward.short_channel_id);
        let judged = |policy: &ForwardingPolicy| judge(policy, offer.brings, &offer.forward, self.env.chain.height());
        let earlier = still_good(asked, Clock::monotonic()).is_some_and(|policy| judged(&policy).is_ok());
        if !earlier && let Err(objection) = judged(&self.env.forwarding.under(&asked.terms)) {
            return Err(objection.into_failure(offer.brings.0, &offer.forward, update(self, asked)));
        }
        if offer.over_exposed {
            return Err(Failure::TemporaryChannelFailure { channel_update: update(self, asked) });
        }
        let amount = offer.forward.amt_to_forward;
        let mut refused = None;
        // The channel that was asked for carries most HTLCs: only where it does not, the others are looked through.
        if carries(asked, amount) {
            match self.offer_over(peer, offer.channel, offer) {
                Ok(_) => return Ok(()),
                Err(refusal) => refused = Some(refusal),
            }
        }
        for channel in others(peer, offer.channel, amount) {
            match self.offer_over(peer, channel, offer) {
                Ok(_) => return Ok(()),
                Err(refusal) => refused = Some(refusal),
            }
        }
        let asked = peer.slots.get(&offer.channel).ok_or(Failure::UnknownNextPeer)?;
        if !matches!(asked.channel.phase(), Phase::Normal) {
            return Err(Failure::PermanentChannelFailure);
        }
        let channel_update = update(self, asked);
        Err(match refused {
            Some(Refusal::AmountTooSmall(_)) => Failure::AmountBelowMinimum { htlc_msat: amount, channel_update },
            Some(_) | None => Failure::TemporaryChannelFailure { channel_update },
        })
    }

    fn offer_over(&mut self, peer: &mut Peer, channel: ChannelId, offer: &Offer) -> Result<Reply, Refusal> {
        let HtlcName { channel: from, htlc_id } = offer.incoming;
        let command = Command::AddHtlc {
            amount: offer.forward.amt_to_forward,
            payment_hash: offer.payment_hash,
            cltv_expiry: offer.forward.outgoing_cltv_value,
            onion: offer.onion.clone(),
            source: HtlcSource::Relayed { channel: from, htlc_id },
        };
        self.step_channel(peer, channel, Input::Command(NOBODY, command)).unwrap_or(Err(Refusal::UnknownChannel))
    }

    /// The add was never signed and went with the connection: the received HTLC is dispatched anew.
    pub(super) fn again(&mut self, peer: &mut Peer, name: HtlcName) {
        self.env.relay.forget(&name);
        let slot = peer.slots.get(&name.channel);
        let htlc = slot.and_then(|slot| slot.channel.incoming(name.htlc_id, &self.env.policy));
        if let Some(htlc) = htlc {
            self.incoming(peer, htlc, Telling::Again);
        }
    }
}

/// Whether a letter goes out at the end of the visit: its HTLC's channel may have failed since, and then the chain decides.
pub(super) fn is_still_to_be_told(env: &Env, peer: &Peer, letter: &Letter) -> bool {
    let name = match letter {
        Letter::Mail(_, Mail::Offer(offer)) => offer.incoming,
        Letter::Payment(PaymentNotice::Incoming { htlc, .. }) => {
            HtlcName { channel: htlc.channel, htlc_id: htlc.htlc_id }
        }
        Letter::Mail(..) | Letter::Payment(_) => return true,
    };
    let is_told = peer.slots.get(&name.channel).is_none_or(may_settle);
    if !is_told {
        env.relay.release(&name);
    }
    is_told
}

/// What fails for now, with nothing of a channel to tell.
const fn passing() -> Failure {
    Failure::TemporaryChannelFailure { channel_update: Vec::new() }
}

/// Whether received HTLCs of the channel are settled by messages.
pub(super) fn may_settle(slot: &Slot) -> bool {
    slot.archived.is_none() && matches!(slot.channel.phase(), Phase::Normal | Phase::ShuttingDown { .. })
}

/// Other channels that are looked at for one HTLC, at most: an offer costs no more where the peer has many.
const MAX_OTHERS: usize = 16;

/// Other channels with the peer that carry the amount, the smallest first: large balances are kept for large payments. Which
/// of a peer's channels an HTLC goes over is ours to choose (BOLT 4, "Non-strict Forwarding").
fn others(peer: &Peer, asked: ChannelId, amount: Msat) -> Vec<ChannelId> {
    let with_the_amount = peer.by_spendable.range((amount, ChannelId([0; 32]))..).map(|(_, channel)| *channel);
    let looked_at = with_the_amount.filter(|channel| *channel != asked).take(MAX_OTHERS);
    looked_at.filter(|channel| peer.slots.get(channel).is_some_and(|slot| carries(slot, amount))).collect()
}

/// Whether the channel is usable, has the amount, and keeps a share of the peer's limits for payments of our own.
fn carries(slot: &Slot, amount: Msat) -> bool {
    let (limits, HtlcTotals { count, value, .. }) = (&slot.channel.rows().params.remote, slot.channel.offered());
    let without_share = |limit: u64| limit.saturating_sub(limit.div_ceil(LOCAL_SHARE));
    is_usable(&slot.channel)
        && !slot.is_stalled
        && u64::from(count) < without_share(u64::from(limits.max_accepted_htlcs))
        && value.saturating_add(amount).get() <= without_share(limits.max_htlc_value_in_flight.get())
        && slot.channel.summary(0).spendable >= amount
}

/// The expiry that the payload names.
fn expiry_of(payload: &Payload) -> u32 {
    match payload {
        Payload::Forward(payload) => payload.outgoing_cltv_value,
        Payload::Final(payload) => payload.outgoing_cltv_value,
    }
}
