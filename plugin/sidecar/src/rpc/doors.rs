//! What stands between the server and the node: open from the first moment, the node coming in behind.

use std::sync::{Arc, OnceLock};

use outrigger_rpc_schema::{ConfigReport, NodeStatusReport, Phase};
use tokio::sync::watch;

use super::feed::Feed;
use super::{Answer, Fault};
use crate::log::Levels;

/// Holds the status from process start on, and the node once it is there.
#[derive(Debug)]
pub struct Doors<B> {
    status: watch::Sender<NodeStatusReport>,
    node: OnceLock<Arc<B>>,
    opened: watch::Sender<bool>,
    feed: Feed,
    /// The configuration that is in force, without secrets.
    config: OnceLock<ConfigReport>,
    /// How much is logged.
    levels: OnceLock<Levels>,
    stop: watch::Sender<bool>,
}

impl<B> Doors<B> {
    /// Doors of a process that has just started.
    pub fn new(network: &str) -> Arc<Self> {
        let status = NodeStatusReport {
            phase: Phase::Starting,
            reason: None,
            block_height: None,
            target_height: None,
            backups: None,
            disk: None,
            clock: None,
            wallet: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: network.to_owned(),
        };
        Arc::new(Self {
            status: watch::Sender::new(status),
            node: OnceLock::new(),
            opened: watch::Sender::new(false),
            feed: Feed::default(),
            config: OnceLock::new(),
            levels: OnceLock::new(),
            stop: watch::Sender::new(false),
        })
    }

    /// Lets the methods through to the node. Only the first call counts.
    pub fn open(&self, node: Arc<B>) {
        let _ = self.node.set(node);
        self.opened.send_replace(true);
    }

    /// Says what configuration is in force, without secrets. Only the first call counts.
    pub fn set_config(&self, config: ConfigReport) {
        let _ = self.config.set(config);
    }

    /// The configuration that is in force.
    pub(super) fn config(&self) -> Option<&ConfigReport> {
        self.config.get()
    }

    /// Says what changes the levels of the log. Only the first call counts.
    pub fn set_levels(&self, levels: Levels) {
        let _ = self.levels.set(levels);
    }

    /// What changes the levels of the log; none in a process that keeps no log.
    pub(super) fn levels(&self) -> Option<&Levels> {
        self.levels.get()
    }

    /// Changes what `node.status` answers. Once the phase is `stopping` it stays so.
    pub fn report(&self, change: impl FnOnce(&mut NodeStatusReport)) {
        self.status.send_modify(|status| {
            let stopping = status.phase == Phase::Stopping;
            change(status);
            if stopping {
                status.phase = Phase::Stopping;
            }
        });
    }

    /// What `node.status` answers now.
    pub fn status(&self) -> NodeStatusReport {
        self.status.borrow().clone()
    }

    /// The same, and word of each change.
    pub fn statuses(&self) -> watch::Receiver<NodeStatusReport> {
        self.status.subscribe()
    }

    /// Asks the process to stop, as `node.stop` does.
    pub fn request_stop(&self) {
        self.report(|status| status.phase = Phase::Stopping);
        self.stop.send_replace(true);
    }

    /// Ends once somebody has asked the process to stop, also where that was before.
    pub async fn stop_requested(&self) {
        // The sender is `self.stop`: it cannot be gone while this borrow lives.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// The answer of a wait. A stop does not wait for it.
    pub(super) async fn waiting<T>(&self, answer: impl Future<Output = Answer<T>>) -> Answer<T> {
        tokio::select! {
            answer = answer => answer,
            () = self.stop_requested() => Err(Fault::stopping()),
        }
    }

    /// The node, once it is there.
    pub(super) async fn when_opened(&self) -> &B {
        loop {
            // The sender is `self.opened`: it cannot be gone while this borrow lives.
            let _ = self.opened.subscribe().wait_for(|opened| *opened).await;
            if let Some(node) = self.opened() {
                return node;
            }
        }
    }

    /// The newest events, for all who follow them.
    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The node, also where it is stopping; none before it is there.
    pub(super) fn opened(&self) -> Option<&B> {
        self.node.get().map(Arc::as_ref)
    }

    /// The node, or why there is none to ask.
    pub(super) fn node(&self) -> Answer<&B> {
        if self.status.borrow().phase == Phase::Stopping {
            return Err(Fault::stopping());
        }
        self.opened().ok_or_else(Fault::starting)
    }
}
