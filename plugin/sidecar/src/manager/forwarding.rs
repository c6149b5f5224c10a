//! `channel_update` of our own channels, both ways (BOLT 7, "The `channel_update` Message"): what we ask for forwarding
//! goes to the peer, what the peer asks is kept for the route hints of our invoices.

use std::sync::LazyLock;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};
use outrigger_bolt::invoice::HintHop;
use outrigger_bolt::wire::{ChannelUpdate, Message, Opaque, Warning};
use outrigger_channel::{Channel, Effect, Link, Phase};

use super::drive::Drive;
use super::env::Env;
use super::peer::{Peer, Slot};
use super::terms::ForwardingPolicy;
use crate::clock::Clock;
use crate::key::NodeKeys;
use crate::store::Address;
use crate::store::channel_update::{self, UpdateOf};
use crate::store::schema::Table;

/// `message_flags`: always set.
const MUST_BE_ONE: u8 = 1;
/// `message_flags`: not for others. No channel of ours is announced yet, whatever was agreed (BOLT 7: set until then).
const DONT_FORWARD: u8 = 1 << 1;
/// `channel_flags`: the sender is the second of the two node ids.
const DIRECTION: u8 = 1;
/// `channel_flags`: no HTLC is to be sent over it.
const DISABLE: u8 = 1 << 1;
/// A peer's update from further ahead is not believed: all that follow it would look old.
const MAX_AHEAD_SECS: u64 = 24 * 3600;
/// Bytes of records that an update may have after its fields; larger ones are not kept.
const MAX_EXTENSION_BYTES: usize = 256;

impl ForwardingPolicy {
    /// The update that tells this policy of a channel whose name both know, but for its time and signature.
    fn update(&self, chain_hash: ChainHash, us: &NodeId, channel: &Channel) -> Option<ChannelUpdate> {
        let params = &channel.rows().params;
        let carried = params.capacity.to_msat()?.min(params.remote.max_htlc_value_in_flight);
        let htlc_maximum_msat = carried.min(self.htlc_maximum.unwrap_or(carried));
        Some(ChannelUpdate {
            signature: unsigned()?,
            chain_hash,
            short_channel_id: channel.summary(0).hint_scid?,
            timestamp: 0,
            message_flags: MUST_BE_ONE | DONT_FORWARD,
            channel_flags: direction(us, &params.peer),
            cltv_expiry_delta: self.cltv_expiry_delta,
            htlc_minimum_msat: self.htlc_minimum.max(params.remote.htlc_minimum).min(htlc_maximum_msat),
            fee_base_msat: self.fee_base_msat,
            fee_proportional_millionths: self.fee_proportional_millionths,
            htlc_maximum_msat,
            extension: Default::default(),
        })
    }
}

/// A place for the signature until there is one.
fn unsigned() -> Option<Signature> {
    Signature::from_compact(&[1; 64]).ok()
}

/// The direction bit of what `from` sends: which of the two node ids is the lesser.
fn direction(from: &NodeId, to: &NodeId) -> u8 {
    if from.serialize() < to.serialize() { 0 } else { DIRECTION }
}

/// The update to send. Where nothing changed it is the last one again: a peer that knows it need do nothing, and one
/// that has forgotten learns it. Else its time is later than that of the last one, whatever the clock says (CLK-1);
/// `None` where no later time can be told.
fn next(wanted: ChannelUpdate, last: Option<&ChannelUpdate>, now_unix: u64, keys: &NodeKeys) -> Option<ChannelUpdate> {
    if let Some(last) = last {
        let same = ChannelUpdate { signature: last.signature, timestamp: last.timestamp, ..wanted.clone() };
        if same == *last {
            return Some(same);
        }
    }
    let after_last = last.map_or(Some(1), |last| last.timestamp.checked_add(1))?;
    let timestamp = u32::try_from(now_unix).unwrap_or(u32::MAX).max(after_last);
    signed(ChannelUpdate { timestamp, ..wanted }, keys)
}

fn signed(update: ChannelUpdate, keys: &NodeKeys) -> Option<ChannelUpdate> {
    let signature = keys.sign_gossip(&update.digest().ok()?);
    Some(ChannelUpdate { signature, ..update })
}

/// What becomes of an update that names one of the peer's channels with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judgement {
    Kept,
    Ignored,
    /// Not by the peer (BOLT 7: a `warning`, and the connection is closed).
    Forged,
}

fn judge(update: &ChannelUpdate, slot: &Slot, env: &Env, now_unix: u64) -> Judgement {
    static CONTEXT: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);
    let params = &slot.channel.rows().params;
    let is_current = slot.updates.remote.as_ref().is_none_or(|last| update.timestamp > last.timestamp);
    let is_sound = update.chain_hash == env.policy.chain_hash
        && update.timestamp > 0
        && u64::from(update.timestamp) <= now_unix.saturating_add(MAX_AHEAD_SECS)
        && update.channel_flags & DIRECTION == direction(&params.peer, &env.keys.node_id())
        && update.htlc_minimum_msat <= update.htlc_maximum_msat
        && params.capacity.to_msat().is_some_and(|capacity| update.htlc_maximum_msat <= capacity)
        && update.extension.as_bytes().len() <= MAX_EXTENSION_BYTES;
    if !is_current || !is_sound {
        Judgement::Ignored
    } else if !update.is_signed_by(&CONTEXT, params.peer.public_key()) {
        Judgement::Forged
    } else {
        Judgement::Kept
    }
}

/// Whether HTLCs go over the channel now.
pub(super) fn is_usable(channel: &Channel) -> bool {
    matches!((channel.phase(), channel.link()), (Phase::Normal, Link::Connected(_)))
}

/// Whether a peer's update may be about this channel: its output is not known to be spent (BOLT 7).
fn is_open(channel: &Channel) -> bool {
    match channel.phase() {
        Phase::Funding(_) | Phase::Normal | Phase::ShuttingDown { .. } => true,
        Phase::Closing { .. } | Phase::Closed { .. } | Phase::Failed { .. } => false,
    }
}

impl Drive<'_> {
    /// The channel has just become usable: the peer is told what we ask for forwarding. After every reestablish, so
    /// after every change of the config, too. The row is there before the message leaves.
    pub(super) fn tell_update(&mut self, at: Address, slot: &mut Slot) {
        let us = self.env.keys.node_id();
        let policy = self.env.forwarding.under(&slot.terms);
        let wanted = policy.update(self.env.policy.chain_hash, &us, &slot.channel);
        let last = slot.updates.local.as_ref();
        let Some(update) = wanted.and_then(|wanted| next(wanted, last, Clock::now_unix(), &self.env.keys)) else {
            return tracing::warn!(channel = %at.channel, "no channel_update can be made");
        };
        if last != Some(&update) {
            self.put_update(&at.channel, UpdateOf::Local, &update);
            let replaced = slot.updates.local.replace(update.clone());
            slot.replaced = replaced.map(|replaced| (replaced, Clock::monotonic()));
        }
        match update.into_message() {
            Ok(message) => self.send(at, message),
            Err(fault) => tracing::error!(channel = %at.channel, %fault, "a channel_update cannot be sent"),
        }
    }

    /// What we ask for forwarding over the channel, for a failure that tells the origin so: a whole message, of the name
    /// that the onion had for the channel. Empty where none can be made.
    pub(super) fn update_named(&self, slot: &Slot, name: ShortChannelId) -> Vec<u8> {
        let us = self.env.keys.node_id();
        let policy = self.env.forwarding.under(&slot.terms);
        let update = policy.update(self.env.policy.chain_hash, &us, &slot.channel);
        let named = update.map(|update| ChannelUpdate { short_channel_id: name, ..update });
        let later = named.and_then(|named| {
            let timestamp = u32::try_from(Clock::now_unix()).unwrap_or(u32::MAX);
            signed(ChannelUpdate { timestamp, ..named }, &self.env.keys)
        });
        later.and_then(|update| update.into_message().ok()?.encode().ok()).unwrap_or_default()
    }

    /// Gossip came. A `channel_update` of the peer's side of a channel with us is kept; all else is ignored.
    pub(super) fn heard_gossip(&mut self, peer: &mut Peer, gossip: &Opaque) {
        let Some(Ok(update)) = ChannelUpdate::from_gossip(gossip) else { return };
        let (node, connection) = (peer.node_id, peer.connection());
        let named = self.deliver.named_by(&node, update.short_channel_id);
        let slot = named.and_then(|channel| peer.slots.get_mut(&channel));
        let Some(slot) = slot.filter(|slot| is_open(&slot.channel)) else { return };
        let at = Address { peer: node, connection, channel: slot.channel.id() };
        match judge(&update, slot, self.env, Clock::now_unix()) {
            Judgement::Ignored => {}
            Judgement::Kept => {
                self.put_update(&at.channel, UpdateOf::Remote, &update);
                slot.updates.remote = Some(update);
                self.rank(peer, &at.channel);
            }
            Judgement::Forged => {
                let data = "the signature of a channel_update is not yours";
                self.send(at, Message::Warning(Warning { channel_id: at.channel, data: data.into() }));
                self.batch.hold_effect(at, Effect::Disconnect(data.to_owned()));
            }
        }
    }

    fn put_update(&mut self, channel: &ChannelId, whose: UpdateOf, update: &ChannelUpdate) {
        match channel_update::encode(update) {
            Ok(row) => self.batch.put(Table::ChannelUpdate, whose.key(channel), Some(row)),
            Err(fault) => tracing::error!(%channel, %fault, "a channel_update cannot be stored"),
        }
    }
}

/// The hint that a channel is, with what it can bring.
pub(super) fn hint(peer: NodeId, slot: &Slot, height: u32) -> Option<(Msat, HintHop)> {
    let update = slot.updates.remote.as_ref().filter(|update| update.channel_flags & DISABLE == 0)?;
    let summary = slot.channel.summary(height);
    let hop = HintHop {
        node: peer,
        short_channel_id: summary.hint_scid?,
        fee_base_msat: update.fee_base_msat,
        fee_proportional_millionths: update.fee_proportional_millionths,
        cltv_expiry_delta: update.cltv_expiry_delta,
    };
    Some((summary.receivable, hop))
}
