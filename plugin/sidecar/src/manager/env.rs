//! What a step may see of the world: policy, keys, feerates, height, and the writer's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bitcoin::{Script, ScriptBuf};
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_channel::{CommandId, Context, Feerates, Policy, Signer, SoftSigner};
use serde_json::json;
use tokio::sync::watch;

use super::drive::RESTORED;
use super::frozen::FrozenChannels;
use super::hints::Hints;
use super::pending::Pending;
use super::relay::onions::Onions;
use super::relay::register::{Caps, Register};
use super::terms::ForwardingPolicy;
use super::unheard::Hearing;
use crate::clock::Clock;
use crate::key::NodeKeys;
use crate::lock::{Mutex, RwLock};
use crate::store::load::FrozenChannel;
use crate::store::room::Found;
use crate::store::row::EventRow;
use crate::store::schema::{RESTORED_KEY, Table};
use crate::store::{Batch, Reader, Writer};

/// An estimate that moves by less than one in so many is none that a channel is asked about.
const FOLLOWED_STEPS: u64 = 16;

/// The chain as steps see it, kept up to date by the follower.
#[derive(Debug)]
pub struct ChainView {
    height: AtomicU32,
    synced: AtomicBool,
    /// Whether peers may open channels to us, as far as the wallet's reserve is concerned.
    accepting: AtomicBool,
    feerates: RwLock<Feerates>,
    /// The estimate that channels were last asked to follow.
    followed: Mutex<Option<FeeratePerKw>>,
}

impl ChainView {
    /// At this height, not synced yet.
    pub fn new(height: u32, feerates: Feerates) -> Self {
        Self {
            height: AtomicU32::new(height),
            synced: AtomicBool::new(false),
            accepting: AtomicBool::new(true),
            feerates: RwLock::new(feerates),
            followed: Mutex::default(),
        }
    }

    /// Height of the newest block that was taken in.
    pub fn height(&self) -> u32 {
        self.height.load(Ordering::Acquire)
    }

    /// Whether the gate is open: else nothing is opened, accepted or paid.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Opens or closes the gate.
    pub fn set_synced(&self, synced: bool) {
        self.synced.store(synced, Ordering::Release);
    }

    /// Whether the wallet's reserve lets peers open channels to us.
    pub fn is_accepting(&self) -> bool {
        self.accepting.load(Ordering::Acquire)
    }

    /// Lets peers open channels to us, or not, for the sake of the wallet's reserve (OCC-12).
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting, Ordering::Release);
    }

    /// Current estimates.
    pub fn feerates(&self) -> Feerates {
        *self.feerates.read()
    }

    /// Replaces the estimates.
    pub(super) fn set_feerates(&self, feerates: Feerates) {
        *self.feerates.write() = feerates;
    }

    /// The commitment feerate that channels of ours follow: none before bitcoind had an estimate (FEE-4).
    pub(super) fn followed(&self) -> Option<FeeratePerKw> {
        self.followed.lock().map(|_| self.feerates().commitment)
    }

    /// Whether an estimate is so far from the one that channels were last asked to follow that they are asked again.
    pub(super) fn follow(&self, estimate: FeeratePerKw) -> bool {
        let mut followed = self.followed.lock();
        let moved = followed.is_none_or(|last| {
            u64::from(estimate.get().abs_diff(last.get())) * FOLLOWED_STEPS >= u64::from(last.get())
        });
        if moved {
            *followed = Some(estimate);
        }
        moved
    }

    pub(super) fn set_height(&self, height: u32) {
        self.height.store(height, Ordering::Release);
    }
}

/// The room on the disk as gates and callers see it, kept up to date by whoever looks at the disk.
#[derive(Debug, Default)]
pub struct RoomView(RwLock<Found>);

impl RoomView {
    /// Whether there is too little for another promise (DSK-8): nothing is opened, accepted, relayed, invoiced or paid. What stands
    /// goes on, and what pays us is taken.
    pub fn is_low(&self) -> bool {
        self.found().is_low
    }

    /// What the disk was last found to have.
    pub fn found(&self) -> Found {
        *self.0.read()
    }

    /// What it is found to have now.
    pub fn set(&self, found: Found) {
        *self.0.write() = found;
    }
}

/// Makes the signer of a channel from its `keys_index`.
pub type Signers = dyn Fn(u64) -> Arc<dyn Signer> + Send + Sync;

/// Shared by every worker; nothing in it is behind a peer lock.
pub struct Env {
    pub chain: ChainView,
    pub room: RoomView,
    pub policy: Policy,
    pub forwarding: ForwardingPolicy,
    pub keys: Arc<NodeKeys>,
    signers: Arc<Signers>,
    pub writer: Writer,
    /// For channels in history.
    pub reader: Reader,
    /// Channels that have no slot.
    pub frozen: FrozenChannels,
    pub(super) pending: Pending,
    /// What is dispatched and relayed now.
    pub(super) relay: Register,
    /// The most that may be.
    pub caps: Caps,
    pub(super) onions: Onions,
    pub(super) hints: Hints,
    /// Whether promises wait for backups.
    pub(super) waits_for_sinks: bool,
    /// Whether each of those has told what it holds, and what waits for that.
    pub(super) hearing: Hearing,
    /// Counted, so that a block need not ask every channel (law 6).
    standing: AtomicUsize,
    shutdown_script: RwLock<ScriptBuf>,
    /// Whether a channel has been promised to that script.
    shutdown_script_given: AtomicBool,
    restored: watch::Sender<Option<Arc<str>>>,
    fault: watch::Sender<Option<Arc<str>>>,
    next_command: AtomicU64,
}

impl Env {
    /// Gathers the parts. `restored` is the proof that the file holds of its own age, if it holds one.
    pub fn new(
        chain: ChainView,
        policy: Policy,
        (forwarding, caps): (ForwardingPolicy, Caps),
        keys: Arc<NodeKeys>,
        (writer, reader): (Writer, Reader),
        restored: Option<String>,
    ) -> Self {
        let restored = watch::Sender::new(restored.map(Arc::from));
        Self {
            chain,
            room: RoomView::default(),
            policy,
            forwarding,
            signers: soft_signers(keys.clone()),
            keys,
            writer,
            reader,
            frozen: FrozenChannels::default(),
            pending: Pending::default(),
            relay: Register::default(),
            caps,
            onions: Onions::default(),
            hints: Hints::default(),
            waits_for_sinks: false,
            hearing: Hearing::default(),
            standing: AtomicUsize::new(0),
            shutdown_script: RwLock::default(),
            shutdown_script_given: AtomicBool::new(false),
            restored,
            fault: watch::Sender::new(None),
            next_command: AtomicU64::new(1),
        }
    }

    /// With the channels that the start froze.
    pub fn freezing(self, frozen: Vec<FrozenChannel>) -> Self {
        Self { frozen: FrozenChannels::new(frozen), ..self }
    }

    /// With so many channels in the making for each peer (FND-6).
    pub fn admitting(self, pending_per_peer: usize) -> Self {
        Self { pending: Pending::of(pending_per_peer), ..self }
    }

    /// With backups for which promises wait, or none. Those have told nothing yet.
    pub fn waiting_for_sinks(self, waits_for_sinks: bool) -> Self {
        Self { waits_for_sinks, hearing: Hearing::new(waits_for_sinks), ..self }
    }

    /// With other signers than those of the node's own keys.
    pub fn signing_with(self, signers: Arc<Signers>) -> Self {
        Self { signers, ..self }
    }

    /// How many channels may still have to be closed alone: all that are not closed, but for those that are only promised. A
    /// stranger's promise costs it nothing, so no coin is kept back for it.
    pub fn standing(&self) -> usize {
        self.standing.load(Ordering::Relaxed)
    }

    /// One more of them.
    pub(super) fn channel_stands(&self) {
        self.standing.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub(super) fn channel_ended(&self) {
        self.standing.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the node is in restored mode: nothing is signed, opened, paid or published but what is ours for certain.
    pub fn is_restored(&self) -> bool {
        self.restored.borrow().is_some()
    }

    /// The proof that put the node into restored mode, and word of it.
    pub fn restored(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.restored.subscribe()
    }

    /// Puts the node into restored mode, which nothing takes back; the first proof is the one that is shown, and the one that becomes
    /// a row, with this event. Says whether it was the first.
    ///
    /// The row has its place in the writer's queue before anybody can see the mode: whatever comes of it is queued behind it, and is
    /// never durable without it. A channel that withheld its commitment for a mode of which the file says nothing would be taken for
    /// one that a backup refused (BAK-1).
    pub(super) fn enter_restored(&self, proof: &str, event: EventRow) -> bool {
        // Under the lock of the word itself, which all wait for that ask for it.
        self.restored.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                self.writer.submit(restored_for(proof, event));
                *known = Some(Arc::from(proof));
            }
            is_first
        })
    }

    /// The proof that a start found in its own file becomes a row, for good, and an event. Nothing may have been queued before it
    /// that comes of restored mode.
    pub(crate) fn tell_of_old_file(&self) {
        let Some(proof) = self.restored.borrow().clone() else { return };
        tracing::error!(%proof, "{RESTORED}");
        self.writer.submit(restored_for(&proof, found_old(&proof)));
    }

    /// Whether a fault of our own was met: no channel takes another step before the node is started anew (CST-12).
    pub(super) fn is_faulty(&self) -> bool {
        self.fault.borrow().is_some()
    }

    /// Records a fault of our own. False where another was met before: then this one's step is not to be taken, so that
    /// at most one channel fails for what may be wrong with all of them.
    #[must_use = "only the first fault may fail its channel"]
    pub(super) fn meet_fault(&self, fault: &str) -> bool {
        self.fault.send_if_modified(|known| {
            let is_first = known.is_none();
            known.get_or_insert_with(|| Arc::from(fault));
            is_first
        })
    }

    /// Resolves once a fault of our own was met; the node is to stop then.
    pub async fn faulty(&self) -> Arc<str> {
        let mut fault = self.fault.subscribe();
        loop {
            if let Some(fault) = fault.borrow_and_update().clone() {
                return fault;
            }
            // The sender lives as long as this does.
            if fault.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// An id that no other command of this run has. 0 is for commands whose answer nobody waits for.
    pub fn next_command(&self) -> CommandId {
        CommandId(self.next_command.fetch_add(1, Ordering::Relaxed))
    }

    /// Where cooperative closes pay us. Set before anything is opened or accepted: both wait for the chain.
    pub fn set_shutdown_script(&self, script: ScriptBuf) {
        *self.shutdown_script.write() = script;
        self.shutdown_script_given.store(false, Ordering::Release);
    }

    /// Whether another script is wanted: there is none, or a channel has the last one to itself.
    pub fn wants_shutdown_script(&self) -> bool {
        self.shutdown_script.read().is_empty() || self.shutdown_script_given.load(Ordering::Acquire)
    }

    /// A channel was opened that will pay its close to this script, whatever comes.
    pub(super) fn gave_shutdown_script(&self, script: &Script) {
        if *self.shutdown_script.read() == *script {
            self.shutdown_script_given.store(true, Ordering::Release);
        }
    }

    /// Where cooperative closes pay us.
    pub fn shutdown_script(&self) -> ScriptBuf {
        self.shutdown_script.read().clone()
    }

    pub(super) fn context<'a>(&'a self, signer: &'a dyn Signer, shutdown_script: &'a Script) -> Context<'a> {
        Context {
            height: self.chain.height(),
            feerates: self.chain.feerates(),
            policy: &self.policy,
            signer,
            node_id: self.keys.node_id(),
            shutdown_script,
            restored: self.is_restored(),
        }
    }

    pub(super) fn signer(&self, keys_index: u64) -> Arc<dyn Signer> {
        (self.signers)(keys_index)
    }
}

/// The event of a file that was found to be old by what no peer said.
pub(super) fn found_old(proof: &str) -> EventRow {
    EventRow::new(Clock::now_unix(), "node_restored", json!({ "message": proof }))
}

/// The row that puts every start from here on into restored mode, and its event.
fn restored_for(proof: &str, event: EventRow) -> Batch {
    let mut batch = Batch::default();
    batch.put(Table::Meta, RESTORED_KEY.to_vec(), Some(proof.as_bytes().to_vec()));
    batch.event(event);
    batch
}

/// Signers with their keys in memory, of the node's own seed.
pub fn soft_signers(keys: Arc<NodeKeys>) -> Arc<Signers> {
    Arc::new(move |keys_index| Arc::new(SoftSigner::new(keys.channel_seed(keys_index))))
}
