//! Restores that are tried while the node runs, from each backup in its turn.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use outrigger_bolt::id::{ChannelId, NodeId};
use redb::Database;
use serde_json::json;

use super::stop_for_storage;
use crate::chain::stop::StopFlag;
use crate::clock::Clock;
use crate::config::BackupConfig;
use crate::fatal::contain;
use crate::manager::Manager;
use crate::store::Batch;
use crate::store::backup::verify::{Look, Verdict};
use crate::store::backup::{Followed, Hub, Persist, Reader, State};
use crate::store::restore::Restore;
use crate::store::row::EventRow;

/// How often it is looked whether a backup is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest wait after a try that found something wrong, or could not compare everything.
const AGAIN: Duration = Duration::from_secs(600);

/// A backup that is tried.
struct Tried {
    name: String,
    every: Duration,
    /// When the next try is due.
    next: Option<Instant>,
    reader: Reader,
}

impl Tried {
    fn is_due(&self) -> bool {
        self.next.is_none_or(|next| Clock::monotonic() >= next)
    }
}

/// All tries, and what they stand on.
pub(super) struct Tries {
    network: String,
    node_id: NodeId,
    db: Arc<Database>,
    hub: Arc<Hub>,
    all: Vec<Tried>,
}

/// Whom they tell, and when they end.
struct Listener {
    manager: Arc<Manager>,
    stop: StopFlag,
}

impl Tries {
    /// Restores from each of these sinks, which are in the order of the configuration, as often as is configured.
    pub(super) fn new(
        (network, node_id): (String, NodeId),
        db: Arc<Database>,
        hub: Arc<Hub>,
        (backups, sinks): (&[BackupConfig], &[Box<dyn Persist>]),
    ) -> Self {
        let readers = sinks.iter().map(|sink| sink.reader());
        let tried = |(backup, reader): (&BackupConfig, Option<Reader>)| {
            let (every, reader) = backup.verify_every.zip(reader)?;
            Some(Tried { name: backup.name.clone(), every, next: None, reader })
        };
        let all = backups.iter().zip(readers).filter_map(tried).collect();
        Self { network, node_id, db, hub, all }
    }

    /// Tries each backup once it has everything, and then as often as is configured, on a thread of its own until the node stops.
    pub(super) fn begin(self, manager: Arc<Manager>, stop: StopFlag) -> std::io::Result<JoinHandle<()>> {
        let listener = Listener { manager, stop };
        std::thread::Builder::new().name("verify".into()).spawn(move || self.run(&listener))
    }

    fn run(mut self, listener: &Listener) {
        let mut all = std::mem::take(&mut self.all);
        while !listener.stop.is_raised() && !all.is_empty() {
            for tried in &mut all {
                if tried.is_due() && self.is_ready(tried) {
                    let wait = self.try_one(tried, listener);
                    tried.next = Clock::monotonic().checked_add(wait);
                }
            }
            listener.stop.sleep(LOOK_EVERY);
        }
    }

    /// Whether the backup has had everything once, and is well.
    fn is_ready(&self, tried: &Tried) -> bool {
        let is_so = |state: State| match state {
            State::Complete => true,
            // Channels that it is late with are waited for.
            State::Behind => tried.next.is_some(),
            State::Starting | State::Troubled { .. } | State::Failed { .. } | State::Ahead => false,
        };
        self.hub.views().into_iter().any(|view| view.terms.name == tried.name && is_so(view.state))
    }

    /// Tries one, tells what came of it, and gives how long to wait until the next try.
    fn try_one(&self, tried: &mut Tried, listener: &Listener) -> Duration {
        let Tried { name, every, reader, .. } = tried;
        let verdict = {
            let (hub, broken) = (self.hub.clone(), name.clone());
            let tell = move |words: &str| {
                let _is_news = hub.not_verified(&broken, words);
            };
            contain(tell, || self.looked((name, reader), &listener.stop))
        };
        match verdict {
            Verdict::Right(channels) => {
                tracing::info!(backup = %name, channels, "a restore was tried, and would bring back what there is");
                self.hub.verified(name);
                return *every;
            }
            Verdict::Later(words) => tracing::info!(backup = %name, %words, "a restore is tried again later"),
            Verdict::Wrong(words) => self.tell(name, &words, listener),
        }
        AGAIN.min(*every)
    }

    fn looked(&self, (name, reader): (&str, &mut Reader), stop: &StopFlag) -> Verdict {
        let no_wallet = |_: Followed| Ok(Vec::new());
        let Self { network, node_id, .. } = self;
        let restore = Restore { network, node_id: *node_id, proof: "it is only tried", wallet: &no_wallet };
        let pause = |length| !stop.sleep(length);
        let complete = |channel: &ChannelId| self.hub.complete_in(name, channel);
        let look = Look { restore: &restore, db: &self.db, complete: &complete, pause: &pause };
        match reader() {
            Ok(mut source) => look.verify(&mut *source).unwrap_or_else(|fault| {
                stop_for_storage(fault);
                Verdict::Later("the database cannot be read".to_owned())
            }),
            Err(fault) => Verdict::Wrong(fault.to_string()),
        }
    }

    fn tell(&self, name: &str, words: &str, listener: &Listener) {
        tracing::error!(backup = %name, %words, "a restore was tried, and would not bring back what there is");
        if !self.hub.not_verified(name, words) {
            return;
        }
        let message = format!("the backup {name} would not bring back what this node has: {words}; see backup.status");
        let mut batch = Batch::default();
        batch.event(EventRow::new(Clock::now_unix(), "backup_not_verified", json!({ "message": message })));
        listener.manager.env().writer.submit(batch);
    }
}
