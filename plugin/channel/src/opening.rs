//! Channel establishment v1, both sides (BOLT 2). An opening has no row: a disconnect or a crash ends it, and nothing was
//! promised. It ends with a [`Birth`]: the rows of a channel that both sides have signed.

mod messages;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{OutPoint, ScriptBuf, Transaction};
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::{ChannelId, NodeId, ShortChannelId};
use outrigger_bolt::tx::funding::FundingOutput;
use outrigger_bolt::wire::{
    AcceptChannel, CommitmentSigned, FundingCreated, FundingSigned, Message, OpenChannel, Warning,
};

use crate::changes::{
    ChannelChanges, ChannelHead, ChannelParams, ChannelRows, FeeState, FundingPhase, FundingTold, LastSent,
    MonitorStep, MonitorUpdate, Phase, RemoteCommitment, SideParams, SignedCommitment, Totals,
};
use crate::channel::Channel;
use crate::commitments::htlc::Side;
use crate::commitments::receive::check_signatures;
use crate::commitments::spec::{BuiltCommitment, CommitmentSpec};
use crate::input::Context;
use crate::link::Link;
use crate::phase::ended::error_message;
use crate::signer::Signer;
use crate::transition::{ChannelNote, Effect, Publication};
use crate::violation::{Refusal, Rule, Violation};

/// An order to open a channel.
#[derive(Clone, Debug)]
pub struct OpenOrder {
    pub peer: NodeId,
    pub keys_index: u64,
    /// Unique among the peer's channels.
    pub temporary_channel_id: ChannelId,
    pub funding: Sat,
    /// Given to the peer at the start.
    pub push: Msat,
    pub announce: bool,
    pub commitment_feerate: FeeratePerKw,
    /// The only script that a close shall ever pay us to. Without one it is that of the context, where the peer offers
    /// `option_upfront_shutdown_script`.
    pub shutdown_script: Option<ScriptBuf>,
    /// Random, and of no other channel of ours ([`ShortChannelId::alias`]).
    pub scid_alias: ShortChannelId,
    /// What both sides offered in `init`.
    pub features: Features,
}

/// A channel on its way to be signed.
#[derive(Clone, Debug)]
pub struct Opening {
    peer: NodeId,
    keys_index: u64,
    scid_alias: ShortChannelId,
    features: Features,
    channel_type: Features,
    is_opener: bool,
    announce: bool,
    temporary_channel_id: ChannelId,
    funding: Sat,
    push: Msat,
    feerate: FeeratePerKw,
    local: SideParams,
    state: State,
}

/// What an opening waits for.
#[derive(Clone, Debug)]
enum State {
    Accept,
    /// The opener's own shell builds the funding transaction.
    Transaction(Remote),
    Created(Remote),
    Signed {
        params: Arc<ChannelParams>,
        first_point: PublicKey,
        tx: Arc<Transaction>,
    },
    Over,
}

/// What the peer brought, once it is known.
#[derive(Clone, Debug)]
struct Remote {
    side: SideParams,
    first_point: PublicKey,
    minimum_depth: u32,
}

/// One thing that happens to an opening.
#[derive(Debug)]
pub enum OpeningInput<'a> {
    Message(&'a Message),
    /// The signed funding transaction that [`OpeningStep::Fund`] asked for, not published yet.
    Funding {
        tx: Transaction,
        output_index: u32,
    },
    /// The operator, the wallet or the clock gives up, for a reason that both sides are told.
    Abandon(&'a str),
}

/// What a step of an opening leads to.
#[derive(Debug)]
pub enum OpeningStep {
    Wait(Vec<Effect>),
    /// The opener's shell must build a transaction that pays this, and answer with [`OpeningInput::Funding`].
    Fund {
        script_pubkey: ScriptBuf,
        amount: Sat,
    },
    /// `funding_created` goes out: the channel has its final name from here on.
    Renamed(ChannelId, Vec<Effect>),
    /// Both sides have signed.
    Born(Box<Birth>),
    Gone {
        effects: Vec<Effect>,
        reason: String,
    },
}

/// A new channel. The effects wait for its rows, as those of any step (FND-5).
#[derive(Clone, Debug)]
pub struct Birth {
    pub channel_id: ChannelId,
    /// The channel that the rows are, on the connection that it was opened on.
    pub channel: Channel,
    pub changes: ChannelChanges,
    pub monitor: MonitorUpdate,
    pub effects: Vec<Effect>,
}

impl Opening {
    /// Begins as the opener, with `open_channel`.
    pub fn open(order: OpenOrder, cx: &Context<'_>) -> Result<(Self, Message), Refusal> {
        terms::check_order(&order, cx)?;
        let script = order.shutdown_script.clone().or_else(|| terms::upfront_script(&order.features, cx));
        let local = terms::own(cx, order.funding, Sat::ZERO, script);
        let channel_type = if order.features.supports(Feature::SCID_ALIAS) && !order.announce {
            Features::channel_type_anchors_scid_alias()
        } else {
            Features::channel_type_anchors()
        };
        let opening = Self {
            peer: order.peer,
            keys_index: order.keys_index,
            scid_alias: order.scid_alias,
            features: order.features,
            channel_type,
            is_opener: true,
            announce: order.announce,
            temporary_channel_id: order.temporary_channel_id,
            funding: order.funding,
            push: order.push,
            feerate: order.commitment_feerate,
            local,
            state: State::Accept,
        };
        let message = Message::OpenChannel(opening.open_channel(cx));
        Ok((opening, message))
    }

    /// Answers a peer's `open_channel` with `accept_channel`. `features` are those that both sides offered in `init`;
    /// `scid_alias` is random, and of no other channel of ours ([`ShortChannelId::alias`]).
    pub fn accept(
        open: &OpenChannel,
        peer: NodeId,
        (keys_index, scid_alias): (u64, ShortChannelId),
        features: &Features,
        cx: &Context<'_>,
    ) -> Result<(Self, Message), Violation> {
        let channel_type = terms::check_open(open, features, cx).map_err(Violation::Fail)?;
        let script = terms::upfront_script(features, cx);
        let local = terms::own(cx, open.funding_satoshis, open.dust_limit_satoshis, script);
        let remote = Remote {
            side: terms::of_open(open),
            first_point: open.first_per_commitment_point,
            minimum_depth: cx.policy.minimum_depth.max(1),
        };
        terms::check_sides(&local, &remote.side).map_err(Violation::Fail)?;
        let opening = Self {
            peer,
            keys_index,
            scid_alias,
            features: features.clone(),
            channel_type,
            is_opener: false,
            announce: terms::is_announced(open),
            temporary_channel_id: open.temporary_channel_id,
            funding: open.funding_satoshis,
            push: open.push_msat,
            feerate: open.feerate_per_kw,
            local,
            state: State::Created(remote),
        };
        let message = Message::AcceptChannel(opening.accept_channel(cx));
        Ok((opening, message))
    }

    /// The name that the opening has until `funding_created`.
    pub fn temporary_id(&self) -> ChannelId {
        self.temporary_channel_id
    }

    /// The name that messages carry now: the final one once `funding_created` is out.
    pub fn channel_id(&self) -> ChannelId {
        match &self.state {
            State::Signed { params, .. } => params.channel_id,
            State::Accept | State::Transaction(_) | State::Created(_) | State::Over => self.temporary_channel_id,
        }
    }

    /// What this input leads to. After `Born` and `Gone` the opening is over. Under restored mode it ends with whatever
    /// comes first, unsigned.
    pub fn step(&mut self, input: OpeningInput<'_>, cx: &Context<'_>) -> OpeningStep {
        if cx.restored {
            return self.give_up("this node has lost data of its channels and opens none any more".to_owned());
        }
        let channel_id = self.channel_id();
        let outcome = match input {
            OpeningInput::Message(message) => self.on_message(message, cx),
            OpeningInput::Funding { tx, output_index } => return self.on_funding(tx, output_index, cx),
            OpeningInput::Abandon(reason) => return self.give_up(reason.to_owned()),
        };
        outcome.unwrap_or_else(|violation| {
            self.state = State::Over;
            let reason = violation.rule().to_string();
            let effects = match &violation {
                Violation::Warn(_) => vec![
                    Effect::Send(Message::Warning(Warning { channel_id, data: reason.as_str().into() })),
                    Effect::Disconnect(reason.clone()),
                ],
                Violation::Fail(Rule::PeerError(_)) => Vec::new(),
                Violation::Fail(_) => vec![Effect::Send(error_message(channel_id, &reason))],
            };
            OpeningStep::Gone { effects, reason }
        })
    }

    fn give_up(&mut self, reason: String) -> OpeningStep {
        let effects = vec![Effect::Send(error_message(self.channel_id(), &reason))];
        self.state = State::Over;
        OpeningStep::Gone { effects, reason }
    }

    fn on_message(&mut self, message: &Message, cx: &Context<'_>) -> Result<OpeningStep, Violation> {
        match (message, std::mem::replace(&mut self.state, State::Over)) {
            (Message::Error(error), _) => Err(Violation::Fail(Rule::PeerError(error.data.to_string()))),
            (Message::AcceptChannel(accept), State::Accept) => self.on_accept(accept, cx),
            (Message::FundingCreated(created), State::Created(remote)) => self.on_created(created, remote, cx),
            (Message::FundingSigned(signed), State::Signed { params, first_point, tx }) => {
                self.on_signed(signed, &params, (first_point, tx), cx)
            }
            (Message::Warning(_) | Message::Gossip(_) | Message::Unknown(_), state) => {
                self.state = state;
                Ok(OpeningStep::Wait(Vec::new()))
            }
            (unexpected, _) => Err(Violation::Fail(Rule::UnexpectedMessage(unexpected.name()))),
        }
    }

    fn on_accept(&mut self, accept: &AcceptChannel, cx: &Context<'_>) -> Result<OpeningStep, Violation> {
        if accept.temporary_channel_id != self.temporary_channel_id {
            return Err(Violation::Fail(Rule::WrongTemporaryId));
        }
        let remote = Remote {
            side: terms::of_accept(accept),
            first_point: accept.first_per_commitment_point,
            // Nothing counts before it is in a block, whatever the peer thinks (FND-11).
            minimum_depth: accept.minimum_depth.max(1),
        };
        terms::check_accept(accept, (&self.channel_type, &self.features), cx)
            .and_then(|()| terms::check_side(&remote.side, self.funding, (&self.features, cx.policy)))
            .and_then(|()| terms::check_sides(&self.local, &remote.side))
            .and_then(|()| {
                let reserve = self.local.channel_reserve.max(remote.side.channel_reserve);
                terms::check_balances(self.funding, self.push, self.feerate, reserve)
            })
            .map_err(Violation::Fail)?;
        let output = FundingOutput {
            pubkeys: [self.local.basepoints.funding_pubkey, remote.side.basepoints.funding_pubkey],
            amount: self.funding,
        };
        self.state = State::Transaction(remote);
        Ok(OpeningStep::Fund { script_pubkey: output.script_pubkey(), amount: self.funding })
    }

    /// The opener's transaction is there. It is not published before the peer has signed and the rows are durable.
    fn on_funding(&mut self, tx: Transaction, output_index: u32, cx: &Context<'_>) -> OpeningStep {
        let State::Transaction(remote) = std::mem::replace(&mut self.state, State::Over) else {
            return self.give_up("a funding transaction that nobody asked for".to_owned());
        };
        let funding = OutPoint { txid: tx.compute_txid(), vout: output_index };
        let first_point = remote.first_point;
        let params = Arc::new(self.params(funding, remote, cx.height));
        let Ok(index) = u16::try_from(output_index) else {
            return self.give_up(Refusal::FundingOutputMissing(self.funding).to_string());
        };
        let output = params.funding_output();
        let pays = tx.output.get(usize::from(index)).is_some_and(|found| {
            found.script_pubkey == output.script_pubkey() && found.value == bitcoin::Amount::from(self.funding)
        });
        if !pays {
            return self.give_up(Refusal::FundingOutputMissing(self.funding).to_string());
        }
        let signed = self.sign_remote(&params, first_point, cx);
        let signature = match signed {
            Ok(signature) => signature,
            Err(rule) => return self.give_up(rule.to_string()),
        };
        let created = FundingCreated {
            temporary_channel_id: self.temporary_channel_id,
            funding_txid: funding.txid,
            funding_output_index: index,
            signature,
        };
        let channel_id = params.channel_id;
        self.state = State::Signed { params, first_point, tx: Arc::new(tx) };
        OpeningStep::Renamed(channel_id, vec![Effect::Send(Message::FundingCreated(created))])
    }

    fn on_created(
        &mut self,
        created: &FundingCreated,
        remote: Remote,
        cx: &Context<'_>,
    ) -> Result<OpeningStep, Violation> {
        if created.temporary_channel_id != self.temporary_channel_id {
            return Err(Violation::Fail(Rule::WrongTemporaryId));
        }
        // FND-3: no key, script or signer sees an outpoint that cannot exist.
        if created.funding_txid.to_byte_array() == [0; 32] {
            return Err(Violation::Fail(Rule::ZeroFundingTxid));
        }
        let funding = OutPoint { txid: created.funding_txid, vout: u32::from(created.funding_output_index) };
        let first_point = remote.first_point;
        let params = Arc::new(self.params(funding, remote, cx.height));
        self.check_local(&params, &created.signature, cx).map_err(Violation::Fail)?;
        let signature = self.sign_remote(&params, first_point, cx).map_err(Violation::Fail)?;
        let signed = FundingSigned { channel_id: params.channel_id, signature };
        let mut birth = self.birth(&params, (first_point, created.signature), None);
        birth.effects.push(Effect::Send(Message::FundingSigned(signed)));
        Ok(OpeningStep::Born(Box::new(birth)))
    }

    fn on_signed(
        &mut self,
        signed: &FundingSigned,
        params: &Arc<ChannelParams>,
        (first_point, tx): (PublicKey, Arc<Transaction>),
        cx: &Context<'_>,
    ) -> Result<OpeningStep, Violation> {
        if signed.channel_id != params.channel_id {
            return Err(Violation::Fail(Rule::WrongChannelId));
        }
        self.check_local(params, &signed.signature, cx).map_err(Violation::Fail)?;
        let publish = Effect::Publish { what: Publication::Funding, tx: tx.as_ref().clone() };
        let mut birth = self.birth(params, (first_point, signed.signature), Some(tx));
        birth.effects.push(publish);
        Ok(OpeningStep::Born(Box::new(birth)))
    }

    fn params(&self, funding: OutPoint, remote: Remote, opened_height: u32) -> ChannelParams {
        ChannelParams {
            channel_id: ChannelId::from_funding(funding),
            peer: self.peer,
            keys_index: self.keys_index,
            is_opener: self.is_opener,
            announce: self.announce,
            channel_type: self.channel_type.clone(),
            funding,
            capacity: self.funding,
            push: self.push,
            minimum_depth: remote.minimum_depth,
            opened_height,
            scid_alias: self.scid_alias,
            local: self.local.clone(),
            remote: remote.side,
        }
    }

    /// What both first commitments hold.
    fn totals(&self) -> Totals {
        let opener = self.funding.to_msat().unwrap_or_default().saturating_sub(self.push);
        let (to_local, to_remote) = if self.is_opener { (opener, self.push) } else { (self.push, opener) };
        Totals { to_local, to_remote, ..Totals::default() }
    }

    fn first(
        &self,
        owner: Side,
        point: PublicKey,
        params: &ChannelParams,
        signer: &dyn Signer,
    ) -> Result<BuiltCommitment, Rule> {
        CommitmentSpec::of(owner, (0, point), (self.feerate, &self.totals()), &BTreeMap::new()).build(params, signer)
    }

    fn sign_remote(&self, params: &ChannelParams, point: PublicKey, cx: &Context<'_>) -> Result<Signature, Rule> {
        let built = self.first(Side::Remote, point, params, cx.signer)?;
        let (signature, _no_htlcs) = cx.signer.sign_remote_commitment(params, &built.commitment, &built.keys);
        Ok(signature)
    }

    fn check_local(&self, params: &ChannelParams, signature: &Signature, cx: &Context<'_>) -> Result<(), Rule> {
        let built = self.first(Side::Local, cx.signer.per_commitment_point(0), params, cx.signer)?;
        let signed = CommitmentSigned {
            channel_id: params.channel_id,
            signature: *signature,
            htlc_signatures: Vec::new(),
            funding_txid: None,
        };
        check_signatures(params, &built, &signed, cx.signer)
    }

    fn birth(
        &self,
        params: &Arc<ChannelParams>,
        (remote_point, signature): (PublicKey, Signature),
        tx: Option<Arc<Transaction>>,
    ) -> Birth {
        let head = self.first_head(remote_point, tx);
        let Totals { to_local, to_remote, .. } = self.totals();
        let feerate = self.feerate;
        let local =
            SignedCommitment { number: 0, feerate, to_local, to_remote, signature, htlc_signatures: Vec::new() };
        let remote = RemoteCommitment { number: 0, point: remote_point, feerate, to_local, to_remote };
        let funded = MonitorStep::Funded { params: Arc::clone(params), local, remote };
        let changes =
            ChannelChanges { params: Some(Arc::clone(params)), head: Some(head.clone()), ..ChannelChanges::default() };
        let rows = ChannelRows { params: Arc::clone(params), head, htlcs: BTreeMap::new(), onions: BTreeMap::new() };
        let channel = Channel::with_link(rows, Link::Connected(self.features.clone()));
        // What a peer opens is told once it is in a block: until then it costs the peer nothing (FND-6).
        let note = self.is_opener.then(|| Effect::Note(ChannelNote::pending(params)));
        let watches = channel.watches().into_iter().map(Effect::Watch);
        let effects = watches.chain(note).collect();
        let monitor = MonitorUpdate { id: 1, steps: vec![funded], htlcs: BTreeMap::new() };
        Birth { channel_id: params.channel_id, channel, changes, monitor, effects }
    }

    fn first_head(&self, remote_point: PublicKey, tx: Option<Arc<Transaction>>) -> ChannelHead {
        ChannelHead {
            phase: Phase::Funding(FundingPhase { tx }),
            local_number: 0,
            remote_number: 0,
            revoking_point: None,
            remote_point,
            remote_next_point: None,
            last_remote_secret: None,
            last_sent: LastSent::Nothing,
            next_local_htlc_id: 0,
            next_remote_htlc_id: 0,
            fee: FeeState { local: self.feerate, remote: self.feerate, change: None },
            local_commitment: self.totals(),
            remote_commitment: self.totals(),
            funding_height: None,
            short_channel_id: None,
            channel_ready_sent: false,
            channel_ready_received: false,
            remote_scid_alias: None,
            local_shutdown: None,
            remote_shutdown: None,
            monitor_update_id: 1,
            told: FundingTold::default(),
        }
    }
}
