//! What keeps an LDK node going: LDK's own background processor, or a loop that processes forwards at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::task::Poll;
use std::time::{Duration, Instant};

use lightning::events::{Event, ReplayEvent};
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE, KVStoreSync,
};
use lightning::util::ser::Writeable;
use lightning::util::sweep::OutputSweeperSync;
use lightning_background_processor::{
    GossipSync, NO_LIQUIDITY_MANAGER, NO_ONION_MESSENGER, process_events_async_with_kv_store_sync,
};
use lightning_persister::fs_store::FilesystemStore;
use outrigger_integration::Done;
use tokio::runtime::Runtime;

use super::node::{Node, now};
use super::types::{Channels, Flat, Graph, Mute, NoChange, Quiet, Scorer, Watcher};

type Sweeper = OutputSweeperSync<
    Arc<Mute>,
    Arc<NoChange>,
    Arc<Flat>,
    Arc<Watcher>,
    Arc<FilesystemStore>,
    Arc<Quiet>,
    Arc<lightning::sign::KeysManager>,
>;
type Rapid = RapidGossip<Arc<Graph>, Arc<Quiet>>;
use lightning_rapid_gossip_sync::RapidGossipSync as RapidGossip;

/// How the node's events and forwards are processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// By LDK's background processor, unchanged: in batches, at random moments.
    Background,
    /// As soon as there is anything to forward; the manager is written by a thread of its own.
    AtOnce,
}

pub(super) fn start(runtime: &Runtime, node: &Node, pace: Pace) {
    match pace {
        Pace::Background => background(runtime, node),
        Pace::AtOnce => at_once(runtime, node),
    }
}

fn background(runtime: &Runtime, node: &Node) {
    let application = node.application.clone();
    let handler = move |event: Event| {
        application.take(event);
        async { Ok::<(), ReplayEvent>(()) }
    };
    let sleeper = |time: Duration| {
        Box::pin(async move {
            tokio::time::sleep(time).await;
            false
        })
    };
    let gossip = GossipSync::<_, Arc<Rapid>, _, _, _>::P2P(node.gossip.clone());
    let processing = process_events_async_with_kv_store_sync(
        node.store.clone(),
        handler,
        node.monitors.clone(),
        node.channels.clone(),
        NO_ONION_MESSENGER,
        gossip,
        node.peers.clone(),
        NO_LIQUIDITY_MANAGER,
        None::<Arc<Sweeper>>,
        Arc::new(Quiet),
        None::<Arc<std::sync::RwLock<Scorer>>>,
        sleeper,
        false,
        || Some(Duration::from_secs(now().into())),
    );
    runtime.spawn(async move {
        if let Err(fault) = processing.await {
            eprintln!("LDK's background processor ended: {fault}");
        }
    });
}

/// Writes the manager whole, as LDK does.
pub(super) fn write(channels: &Channels, store: &FilesystemStore) -> Done<()> {
    let written = KVStoreSync::write(
        store,
        CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
        CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
        CHANNEL_MANAGER_PERSISTENCE_KEY,
        channels.encode(),
    );
    Ok(written?)
}

fn at_once(runtime: &Runtime, node: &Node) {
    let (dirty, written) = sync_channel::<()>(1);
    let (channels, store) = (node.channels.clone(), node.store.clone());
    std::thread::spawn(move || {
        while written.recv().is_ok() {
            if let Err(fault) = write(&channels, &store) {
                eprintln!("LDK's manager is not written: {fault}");
            }
        }
    });
    let (channels, monitors, peers) = (node.channels.clone(), node.monitors.clone(), node.peers.clone());
    let application = node.application.clone();
    let is_set_up = application.trusts.clone();
    runtime.spawn(async move {
        let handler = move |event: Event| {
            application.take(event);
            async { Ok::<(), ReplayEvent>(()) }
        };
        let (mut ticked, mut pinged) = (Instant::now(), Instant::now());
        channels.timer_tick_occurred();
        loop {
            if channels.needs_pending_htlc_processing() {
                channels.process_pending_htlc_forwards();
            }
            channels.process_pending_events_async(&handler).await;
            monitors.process_pending_events_async(&handler).await;
            peers.process_events();
            if channels.get_and_clear_needs_persistence() && !is_set_up.load(Ordering::Relaxed) {
                // Full: the write that waits takes this state along.
                let _ = dirty.try_send(());
            }
            if ticked.elapsed() > Duration::from_secs(60) {
                channels.timer_tick_occurred();
                ticked = Instant::now();
            }
            if pinged.elapsed() > Duration::from_secs(10) {
                peers.timer_tick_occurred();
                pinged = Instant::now();
            }
            if !channels.needs_pending_htlc_processing() {
                let mut work = channels.get_event_or_persistence_needed_future();
                let mut update = monitors.get_update_future();
                let mut tick = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
                poll_fn(|context| {
                    let ready = Pin::new(&mut work).poll(context).is_ready()
                        || Pin::new(&mut update).poll(context).is_ready()
                        || tick.as_mut().poll(context).is_ready();
                    if ready { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        }
    });
}
