//! One side: a channel, its monitor, its store, and what the shell around them keeps in memory.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Txid};
use outrigger_bolt::amount::Sat;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::keys::verify;
use outrigger_bolt::tx::commitment::{CommitmentTx, HtlcDirection, commitment_number, obscuring_factor};
use outrigger_bolt::wire::{CommitmentSigned, Message, PerCommitmentSecret, RevokeAndAck};
use outrigger_channel::{
    Channel, ChannelNote, ChannelParams, CommandId, Context, Effect, Guard, HtlcKey, HtlcOutcome, IncomingHtlc, Input,
    Monitor, MonitorChanges, Offerer, Phase, Policy, Refusal, Reply, RevokedOutput, Signer, Spend, Watch,
};

use super::World;
use super::signer::LoggingSigner;
use super::store::{Store, Writes};

/// Rows and effects of one step. The effects leave once the rows are durable.
pub struct Batch {
    writes: Writes,
    pub effects: Vec<Effect>,
    /// The connection that its messages were meant for.
    pub generation: u64,
}

pub struct Node {
    pub channel: Channel,
    pub monitor: Monitor,
    pub node_id: NodeId,
    pub signer: LoggingSigner,
    pub policy: Policy,
    pub shutdown_script: ScriptBuf,
    /// Whether its whole node is in restored mode: durable in the daemon, so a crash does not take it back.
    pub restored: bool,
    /// What a crash leaves.
    pub store: Store,
    /// What is left once everything staged is durable.
    staged: Store,
    held: VecDeque<Batch>,
    /// Received HTLCs that were handed over and are not removed.
    pub incoming: BTreeMap<u64, IncomingHtlc>,
    pub replies: BTreeMap<CommandId, Result<Reply, Refusal>>,
    pub notes: Vec<ChannelNote>,
    /// Everything that left, in order.
    pub sent: Vec<Message>,
    /// Texts of the disconnects that this side asked for.
    pub disconnects: Vec<String>,
    heights: Vec<u32>,
    /// The peer's commitments that left signed, by their point, with the message that said so.
    given: BTreeMap<[u8; 33], (CommitmentSigned, CommitmentTx)>,
    /// The secrets that left.
    pub revoked: BTreeMap<u64, [u8; 32]>,
    /// The commitments that were rebuilt last: local and remote number, and whether the first may be published.
    rebuilt: Option<(u64, u64, bool)>,
}

impl Node {
    pub fn new(
        channel: Channel,
        monitor: (Monitor, Store),
        (node_id, signer, policy): (NodeId, LoggingSigner, Policy),
        shutdown_script: ScriptBuf,
        first: (CommitmentTx, PublicKey),
    ) -> Self {
        let (monitor, store) = monitor;
        let mut node = Self {
            channel,
            monitor,
            node_id,
            signer,
            policy,
            shutdown_script,
            restored: false,
            staged: store.clone(),
            store,
            held: VecDeque::new(),
            incoming: BTreeMap::new(),
            replies: BTreeMap::new(),
            notes: Vec::new(),
            sent: Vec::new(),
            disconnects: Vec::new(),
            heights: Vec::new(),
            given: BTreeMap::new(),
            revoked: BTreeMap::new(),
            rebuilt: None,
        };
        let (commitment, point) = first;
        let message = CommitmentSigned {
            channel_id: node.channel.id(),
            signature: node.signer.signature_of(&commitment.txid()),
            htlc_signatures: Vec::new(),
            funding_txid: Some(node.channel.rows().params.funding.txid),
        };
        node.given.insert(point.serialize(), (message, commitment));
        node
    }

    pub fn id(&self) -> ChannelId {
        self.channel.id()
    }

    fn params(&self) -> &ChannelParams {
        &self.channel.rows().params
    }

    pub fn context<'a>(&'a self, world: &'a World) -> Context<'a> {
        Context {
            height: world.height,
            feerates: world.feerates,
            policy: &self.policy,
            signer: &self.signer,
            node_id: self.node_id,
            shutdown_script: &self.shutdown_script,
            restored: self.restored,
        }
    }

    /// How the payments of this side ended, as it knows once all that is staged is durable.
    pub fn outcomes(&self) -> &BTreeMap<u64, HtlcOutcome> {
        &self.staged.outcomes
    }

    /// Steps the channel and its monitor, and stages what follows.
    ///
    /// Returns whether the monitor learned something.
    pub fn step(&mut self, input: Input<'_>, world: &World, generation: u64) -> bool {
        let before = self.channel.clone();
        let (mut transition, monitor_changes) = self.monitor.follow(&self.channel, input, &self.context(world));
        assert_eq!(before, self.channel, "a step leaves the value whole");
        let monitor_learned = transition.monitor.is_some();
        assert!(monitor_learned || transition.changes.htlcs.is_empty(), "the monitor is told of every HTLC row");
        self.monitor.apply(&monitor_changes, &transition.changes.htlcs);
        let mut writes = Writes::of(&transition.changes, &monitor_changes);
        for effect in &transition.effects {
            if let Effect::Settle { htlc_id, outcome, .. } = effect {
                record(&mut writes, &self.staged, *htlc_id, outcome);
            }
        }
        self.channel.take_in(&mut transition);
        self.staged.apply(&writes);
        self.held.push_back(Batch { writes, effects: transition.effects, generation });
        monitor_learned
    }

    /// Makes the oldest staged step durable. What it does is still to be delivered.
    pub fn commit(&mut self) -> Option<Batch> {
        let batch = self.held.pop_front()?;
        self.store.apply(&batch.writes);
        Some(batch)
    }

    pub fn has_staged(&self) -> bool {
        !self.held.is_empty()
    }

    /// Drops steps without rows and effects from the queue, which need no commit.
    pub fn trim_empty_batches(&mut self) {
        let is_reply = |effect: &Effect| matches!(effect, Effect::Reply(_, Ok(Reply::Done)));
        self.held.retain(|batch| !batch.writes.is_empty() || !batch.effects.iter().all(is_reply));
    }

    /// Lets effects happen. Returns whether the connection is to be ended.
    pub fn deliver(&mut self, effects: Vec<Effect>, world: &mut World, mut send: impl FnMut(&Message)) -> bool {
        let mut disconnect = false;
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    self.log_commitment(&message);
                    send(&message);
                    self.sent.push(message);
                }
                Effect::Revoke { number } => {
                    let message = Message::RevokeAndAck(self.revocation(number));
                    send(&message);
                    self.sent.push(message);
                }
                Effect::Disconnect(text) => {
                    self.disconnects.push(text);
                    disconnect = true;
                }
                Effect::Publish { tx, .. } => {
                    world.mempool.insert(tx.compute_txid(), tx);
                }
                Effect::Restored { .. } => self.restored = true,
                Effect::Watch(Watch::Height(height)) => self.heights.push(height),
                Effect::Watch(Watch::Funding { .. } | Watch::Output { .. }) | Effect::Settle { .. } => {}
                Effect::Incoming(incoming) => {
                    self.incoming.insert(incoming.htlc_id, incoming);
                }
                Effect::Removed { htlc_id } => {
                    self.incoming.remove(&htlc_id);
                }
                Effect::Reply(id, reply) => {
                    self.replies.insert(id, reply);
                }
                Effect::Note(note) => self.notes.push(note),
            }
        }
        disconnect
    }

    /// Built at delivery, against what is durable (KEY-4).
    fn revocation(&mut self, number: u64) -> RevokeAndAck {
        let guard = Guard::of(&self.store.monitor().head);
        let secret = self.signer.release_secret(number, &guard).expect("the successor is durable");
        self.revoked.insert(number, secret);
        RevokeAndAck {
            channel_id: self.id(),
            per_commitment_secret: PerCommitmentSecret(secret),
            next_per_commitment_point: self.signer.per_commitment_point(number + 2),
        }
    }

    /// What leaves for one commitment number is always the same, byte for byte (CST-3).
    fn log_commitment(&mut self, message: &Message) {
        let Message::CommitmentSigned(signed) = message else { return };
        let commitment = self.signer.commitment_of(&signed.signature);
        let number = commitment_number(&commitment.tx, self.obscuring_factor()).expect("a commitment");
        let durable = self.store.channel().head;
        assert_eq!(number, durable.remote_number, "it is durable before it leaves");
        let given = self.given.entry(durable.remote_point.serialize()).or_insert_with(|| (signed.clone(), commitment));
        assert_eq!(given.0, *signed, "a commitment that is sent again is the same");
    }

    fn obscuring_factor(&self) -> u64 {
        let params = self.params();
        let (ours, theirs) = (&params.local.basepoints.payment, &params.remote.basepoints.payment);
        if params.is_opener { obscuring_factor(ours, theirs) } else { obscuring_factor(theirs, ours) }
    }

    /// Puts another state of the store in the place of this one, as a backup does.
    pub fn restore(&mut self, store: Store) {
        self.restored = false;
        self.store = store;
    }

    /// Starts again from what is durable.
    pub fn restart(&mut self, world: &mut World) {
        self.held.clear();
        self.staged = self.store.clone();
        let rows = self.store.channel();
        self.monitor = Monitor::load(self.store.monitor()).expect("rows of a monitor");
        self.monitor.check_against(&rows).expect("rows that belong together");
        self.channel = Channel::load(rows).expect("rows of a channel");
        self.incoming.clear();
        self.heights.clear();
        self.rebuilt = None;
        let watches = self.channel.watches().into_iter().map(Effect::Watch);
        let effects: Vec<Effect> = watches.chain(self.channel.resume(&self.policy)).collect();
        let disconnect = self.deliver(effects, world, |message| panic!("sent with no connection: {message:?}"));
        assert!(!disconnect);
    }

    /// Whether a height was asked for that has come.
    pub fn asked_for(&mut self, height: u32) -> bool {
        let before = self.heights.len();
        self.heights.retain(|asked| *asked > height);
        before != self.heights.len()
    }

    /// The four properties of the design, as far as one step can break them.
    pub fn assert_properties(&self, world: &World) {
        let rows = self.staged.channel();
        assert_eq!(rows, *self.channel.rows(), "apply(load(rows), changes) == load(rows + changes)");
        let loaded = Channel::load(rows.clone()).expect("rows of a channel");
        let mut disconnected = self.channel.clone();
        let mut transition = disconnected.step(Input::Disconnected, &self.context(world));
        assert!(transition.monitor.is_none(), "a disconnect moves no row");
        let written = Writes::of(&transition.changes, &MonitorChanges::default());
        assert!(written.is_empty(), "a disconnect moves no row");
        disconnected.take_in(&mut transition);
        assert_eq!(loaded, disconnected, "load(rows) == value.disconnected()");
        let monitor_rows = self.staged.monitor();
        assert_eq!(monitor_rows, *self.monitor.rows(), "the monitor's rows are complete");
        self.monitor.check_against(&rows).expect("rows that belong together");
    }

    /// The monitor's rows alone rebuild what can be published, and tell the revoked from it. What stood before this step
    /// was rebuilt before.
    pub fn assert_commitments(&mut self, peer: &Self) {
        let head = &self.monitor.rows().head;
        let remote = head.remote_next.as_ref().map_or(head.remote.number, |next| next.number);
        let standing = (head.local.number, remote, head.may_publish);
        let Some(before) = self.rebuilt.replace(standing) else { return self.assert_all_commitments(peer) };
        if before.1 != remote {
            self.assert_remote_commitments();
        }
        if (before.0, before.2) != (standing.0, standing.2) {
            self.assert_local_commitment(peer);
        }
    }

    fn assert_all_commitments(&self, peer: &Self) {
        self.assert_remote_commitments();
        self.assert_local_commitment(peer);
    }

    fn assert_remote_commitments(&self) {
        let monitor = Monitor::load(self.staged.monitor()).expect("rows of a monitor");
        for commitment in monitor.remote_commitments(&self.signer).expect("commitments that were signed") {
            assert!(self.signer.has_signed(&commitment.txid()), "a remote commitment that we never signed");
            self.assert_bounded_loss(&commitment);
        }
    }

    fn assert_local_commitment(&self, peer: &Self) {
        let monitor = Monitor::load(self.staged.monitor()).expect("rows of a monitor");
        let local = monitor.local_commitment(&self.signer).expect("a commitment that was signed");
        self.assert_bounded_loss(&local);
        assert!(peer.signer.has_signed(&local.txid()), "a local commitment that the peer never signed");
        if monitor.rows().head.may_publish {
            let closing = monitor.closing_commitment(&self.signer).expect("a commitment that was signed");
            assert!(peer.signer.has_signed(&closing.txid()), "a local commitment that the peer never signed");
            self.assert_publishable(&monitor, closing.txid());
        }
    }

    /// What a commitment burns is bounded, whoever publishes it: HTLCs without an output (FEE-1), and the fee, where the
    /// peer pays it and could move its balance away (CST-11). Both caps hold for what we agree to; what the peer adds is
    /// failed once it is committed, and what crosses an `update_fee` is not known to the opener.
    fn assert_bounded_loss(&self, commitment: &CommitmentTx) {
        let (params, head) = (self.params(), &self.channel.rows().head);
        let outputs: u64 = commitment.tx.output.iter().map(|output| output.value.to_sat()).sum();
        let trimmed = |dust_limit: Sat| -> u64 {
            let rows = self.channel.rows().htlcs.values();
            rows.map(|row| row.amount.to_sat_floor()).filter(|amount| *amount < dust_limit).map(Sat::get).sum()
        };
        let dust_limit = params.local.dust_limit.max(params.remote.dust_limit);
        let received = u64::from(params.local.max_accepted_htlcs) * dust_limit.get();
        let exposed = trimmed(dust_limit);
        let most = self.policy.max_dust_exposure.get() + received;
        assert!(exposed <= most, "{exposed} sat could be lost to fees, where {most} is the most");
        if !params.is_opener {
            let cap = (params.capacity.get() / 10).max(self.policy.max_dust_exposure.get());
            let feerate = u64::from(head.fee.local.max(head.fee.remote).get());
            let crossing = u64::from(params.remote.max_accepted_htlcs) * 172 * feerate / 1000;
            // Whole satoshis of each HTLC, and a balance below the dust limit, go to the fee as well.
            let rounding = 2 * dust_limit.get() + 1 + self.channel.rows().htlcs.len() as u64;
            let burnt = params.capacity.get() - outputs;
            let most = cap + crossing + exposed + rounding;
            assert!(burnt <= most, "{burnt} sat are burnt, where {most} is the most");
        }
    }

    fn assert_publishable(&self, monitor: &Monitor, txid: Txid) {
        let tx = monitor.local_commitment_tx(&self.signer).expect("our newest commitment");
        assert_eq!(tx.compute_txid(), txid);
        // Told from all others by building those too: costly, and the same for each number.
        if self.monitor.rows().head.local.number.is_multiple_of(8) {
            assert_eq!(monitor.classify(&tx, &self.signer), Spend::Local);
        }
        let params = self.params();
        let head = &monitor.rows().head;
        let sighash = params.funding_output().sighash(&tx);
        let key = &params.remote.basepoints.funding_pubkey;
        let signed = head.replaced.as_ref().map_or(&head.local, |replaced| &replaced.commitment);
        verify(&sighash, &signed.signature, key).expect("the peer's signature");
        assert_eq!(tx.input[0].witness.len(), 4);
    }

    /// Every commitment that this side ever gave the peer is what the monitor's rows say of it. To be called seldom: it
    /// walks the whole past.
    pub fn assert_past(&self) {
        let monitor = Monitor::load(self.store.monitor()).expect("rows of a monitor");
        let evidence = self.store.all_evidence();
        let head = &monitor.rows().head;
        for (_, commitment) in self.given.values() {
            let number = commitment_number(&commitment.tx, self.obscuring_factor()).expect("a commitment");
            let expected = match number {
                revoked if revoked < head.next_secret_number => Spend::Revoked(number),
                current if current == head.remote.number => Spend::Remote,
                _ => Spend::RemoteNext,
            };
            assert_eq!(monitor.classify(&commitment.tx, &self.signer), expected);
            if expected == Spend::Revoked(number) {
                let revoked = monitor.revoked_commitment(number).expect("a secret that was told");
                let outputs = revoked.outputs(&commitment.tx, evidence.iter().map(|(key, row)| (*key, row)));
                assert_explained(commitment, &outputs, |key| revoked.htlc_script(key, &evidence[&key]));
            }
        }
        assert_eq!(head.next_secret_number, head.remote.number);
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.channel.phase(), Phase::Failed { .. })
    }

    /// The peer's commitments that left signed, by number.
    pub fn given_by_number(&self) -> BTreeMap<u64, CommitmentTx> {
        let number = |tx| commitment_number(tx, self.obscuring_factor()).expect("a commitment");
        self.given.values().map(|(_, commitment)| (number(&commitment.tx), commitment.clone())).collect()
    }
}

/// Every output of a revoked commitment of the peer is what it was built as. HTLCs with one script are the same there.
fn assert_explained(
    commitment: &CommitmentTx,
    outputs: &[Option<RevokedOutput>],
    script: impl Fn(HtlcKey) -> ScriptBuf,
) {
    let mut expected: Vec<Option<RevokedOutput>> = vec![Some(RevokedOutput::Anchor); outputs.len()];
    let mut expect = |index: Option<u32>, what| {
        if let Some(index) = index {
            expected[index as usize] = Some(what);
        }
    };
    expect(commitment.to_owner_index, RevokedOutput::ToRemoteOwner);
    expect(commitment.to_other_index, RevokedOutput::ToUs);
    for output in &commitment.htlc_outputs {
        let offerer = match output.htlc.direction {
            HtlcDirection::Offered => Offerer::Remote,
            HtlcDirection::Received => Offerer::Local,
        };
        let key = HtlcKey { offerer, id: output.htlc.id };
        let Some(RevokedOutput::Htlc(found)) = outputs[output.index as usize] else { panic!("{key:?} is not found") };
        assert_eq!(found.offerer, offerer);
        assert_eq!(script(found), script(key));
        expect(Some(output.index), RevokedOutput::Htlc(found));
    }
    assert_eq!(outputs, expected);
}

/// The settlement of a payment, in the transaction of the step that learned it. Told again, it is the same.
fn record(writes: &mut Writes, store: &Store, htlc_id: u64, outcome: &HtlcOutcome) {
    if *outcome == HtlcOutcome::NeverCommitted {
        return;
    }
    if let Some(known) = store.outcomes.get(&htlc_id) {
        assert_eq!(known, outcome, "the outcome of a payment does not change");
    }
    writes.outcomes.insert(htlc_id, outcome.clone());
}
