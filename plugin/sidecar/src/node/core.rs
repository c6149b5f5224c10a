//! The core of a node: manager, payments and store, without socket, bitcoind, wallet or thread. What it has to be done
//! stands in queues, and whoever holds their ends does it: the node's threads, or one thread that steps all of them.

use std::collections::HashSet;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use outrigger_bolt::id::NodeId;
use outrigger_channel::{HtlcSource, Policy};
use redb::Database;
use tokio::sync::watch;

use crate::key::NodeKeys;
use crate::manager::Manager;
use crate::manager::deliver::{Deliver, Ends, PaymentNotice};
use crate::manager::directory::PeerDirectory;
use crate::manager::env::{ChainView, Env, Signers};

use crate::manager::operations::end_interrupted;
use crate::manager::relay::register::Caps;
use crate::manager::terms::ForwardingPolicy;
use crate::payment::{Payments, Terms, Unfinished};
use crate::store::backup::Hub;
use crate::store::load::LoadedChannel;
use crate::store::row::OperationState;
use crate::store::{ChainOrder, Commits, Reader, Snapshot, StoreError, Writer};
use crate::token::Tokens;

/// What a core stands on, besides its file.
pub struct Ground {
    pub keys: Arc<NodeKeys>,
    pub signers: Arc<Signers>,
    /// At the height of the newest block that was taken in.
    pub view: ChainView,
    pub policy: Policy,
    /// Channels that each peer may have in the making.
    pub pending_per_peer: usize,
    pub forwarding: (ForwardingPolicy, Caps),
    pub payments: Terms,
    /// Who keeps the rows of channels elsewhere too.
    pub sinks: Option<Arc<Hub>>,
}

/// The parts.
pub struct Core {
    pub manager: Arc<Manager>,
    pub payments: Arc<Payments>,
    pub tokens: Arc<Tokens>,
    pub reader: Reader,
    /// The newest released event.
    pub events: watch::Receiver<u64>,
}

/// What is to be done for the parts, in the order of each queue.
pub struct Duties {
    /// Batches to commit; what a commit releases goes to the manager's [`Deliver`].
    pub commits: Commits,
    /// Peers to visit, with [`Manager::drain`].
    pub mailboxes: Receiver<NodeId>,
    /// For [`Payments::take`].
    pub notices: Receiver<PaymentNotice>,
    /// For wallet, mempool and sweeps.
    pub orders: Receiver<ChainOrder>,
}

/// Builds the parts over this file and what a start found in it, which is taken out of `file` as far as they need it.
pub fn build(db: Arc<Database>, file: &mut Snapshot, ground: Ground) -> Result<(Core, Duties), StoreError> {
    let Ground { keys, signers, view, policy, pending_per_peer, forwarding, payments, sinks } = ground;
    let (work, mailboxes) = crossbeam_channel::unbounded();
    let (payments_end, notices) = crossbeam_channel::unbounded();
    let (chain_end, orders) = crossbeam_channel::unbounded();
    let (events_end, events) = watch::channel(0);
    let directory = Arc::new(PeerDirectory::default());
    let ends = Ends { payments: payments_end, chain: chain_end, events: events_end };
    let deliver = Arc::new(Deliver::new(directory.clone(), work, ends));
    let (writer, commits) = Writer::new(db.clone())?;
    let waits_for_sinks = sinks.as_ref().is_some_and(|sinks| sinks.has_required());
    let commits = commits.keeping(sinks);
    let reader = Reader::new(db);
    let env = Env::new(view, policy, forwarding, keys, (writer, reader.clone()), file.restored.take())
        .signing_with(signers)
        .admitting(pending_per_peer)
        .waiting_for_sinks(waits_for_sinks)
        .freezing(std::mem::take(&mut file.frozen));
    if std::mem::take(&mut file.is_found_old) {
        env.tell_of_old_file();
    }
    let channels = std::mem::take(&mut file.channels);
    let carried = carried_parts(&channels);
    let manager = Arc::new(Manager::new(directory, deliver, env, channels));
    manager.tell_of_frozen();
    manager.forget_settlements(&file.stray_settlements);
    let (unsent, interrupted) = std::mem::take(&mut file.openings)
        .into_iter()
        .partition(|row| matches!(row.state, OperationState::Pending { .. }));
    manager.load_unsent(unsent);
    manager.load_unheard(std::mem::take(&mut file.unheard));
    end_interrupted(&manager, interrupted);
    // What a frozen channel carries is not known: a pending payment may be in it, and must not be made again.
    let nothing_frozen = manager.env().frozen.of(None).next().is_none();
    let tokens = Arc::new(Tokens::found(std::mem::take(&mut file.tokens)));
    let unfinished = Unfinished {
        pending: std::mem::take(&mut file.pending_payments),
        parts: std::mem::take(&mut file.parts),
        outcomes: std::mem::take(&mut file.outcomes),
        tokens: tokens.clone(),
    };
    let may_be_carried = |payment: &[u8; 32], part: u16| !nothing_frozen || carried.contains(&(*payment, part));
    let payments = Payments::new(manager.clone(), reader.clone(), payments, events.clone(), unfinished, may_be_carried);
    let core = Core { manager, payments: Arc::new(payments), tokens, reader, events };
    Ok((core, Duties { commits, mailboxes, notices, orders }))
}

/// Parts of payments whose HTLC stands in a channel.
fn carried_parts(channels: &[LoadedChannel]) -> HashSet<([u8; 32], u16)> {
    let sources = channels.iter().flat_map(|loaded| loaded.channel.rows().htlcs.values()).filter_map(|row| row.source);
    sources
        .filter_map(|source| match source {
            HtlcSource::Payment { payment_id, part } => Some((payment_id, part)),
            HtlcSource::Relayed { .. } => None,
        })
        .collect()
}
