//! Restores that are tried while the node runs, from each backup on a thread of its own: one that redb panics over costs no other
//! its tries.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::id::{ChannelId, NodeId};
use redb::Database;
use serde_json::json;
use tokio::sync::oneshot;

use self::when::When;
use super::{spawn, stop_for_storage};
use crate::chain::stop::StopFlag;
use crate::clock::Clock;
use crate::config::BackupConfig;
use crate::fatal::contain;
use crate::manager::Manager;
use crate::store::backup::source::{Source, SourceFault, StoredChannel};
use crate::store::backup::verify::{Look, Verdict};
use crate::store::backup::{Followed, Hub, Persist, Reader, State};
use crate::store::restore::Restore;
use crate::store::row::EventRow;
use crate::store::schema::{Table, VERIFIED_KEY};
use crate::store::{Batch, Held};

mod when;

/// How often it is looked whether a backup is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A backup that is tried.
struct Tried {
    name: String,
    when: When,
    reader: Reader,
}

/// Who is told of a panic over the backup.
type Tell = Rc<dyn Fn(&str)>;

/// A backup that is read, and over which redb may panic: the thread stops there then. What is read of the node's own database in
/// between is not within it.
struct Contained {
    source: Box<dyn Source>,
    tell: Tell,
}

/// Works on the backup, and on nothing else.
fn contained<R>(tell: &Tell, work: impl FnOnce() -> R) -> R {
    let tell = tell.clone();
    contain(move |words| tell(words), work)
}

impl Source for Contained {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        contained(&self.tell, || self.source.channels())
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        contained(&self.tell, || self.source.read(channel))
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        contained(&self.tell, || self.source.tip())
    }

    fn faults(&mut self) -> Vec<String> {
        contained(&self.tell, || self.source.faults())
    }

    fn unread(&mut self) -> Vec<String> {
        contained(&self.tell, || self.source.unread())
    }
}

/// All tries, and what they stand on.
pub(super) struct Tries {
    ground: Ground,
    all: Vec<Tried>,
}

/// The node whose backups are tried.
#[derive(Clone)]
struct Ground {
    network: String,
    node_id: NodeId,
    db: Arc<Database>,
    hub: Arc<Hub>,
}

/// Whom they tell, and when they end.
#[derive(Clone)]
struct Listener {
    hub: Arc<Hub>,
    manager: Arc<Manager>,
    stop: StopFlag,
}

impl Listener {
    /// A restore was found right: shown once the database knows it.
    fn is_right(&self, name: &str) {
        let (at_unix, durable) = self.hub.verified(name, |row| {
            let (waiter, durable) = oneshot::channel();
            let mut batch = Batch::default();
            batch.put(Table::Meta, VERIFIED_KEY.to_vec(), row);
            batch.hold(Held::Durable(waiter));
            self.manager.env().writer.submit(batch);
            durable
        });
        // Where the process ends before, nobody looks any more.
        if durable.blocking_recv().is_ok() {
            self.hub.is_verified(name, at_unix);
        }
    }

    /// It would not bring back what there is: told in the log each time, and as an event where that is news.
    fn tell(&self, name: &str, words: &str) {
        tracing::error!(backup = %name, %words, "a restore was tried, and would not bring back what there is");
        if !self.hub.not_verified(name, words) {
            return;
        }
        let message = format!("the backup {name} would not bring back what this node has: {words}; see backup.status");
        let mut batch = Batch::default();
        batch.event(EventRow::new(
            Clock::now_unix(),
            "backup_not_verified",
            json!({ "backup": name, "message": message }),
        ));
        self.manager.env().writer.submit(batch);
    }
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
            let (when, reader) = When::new(backup.verify_every).zip(reader)?;
            Some(Tried { name: backup.name.clone(), when, reader })
        };
        let all = backups.iter().zip(readers).filter_map(tried).collect();
        for backup in backups.iter().filter(|backup| backup.verify_every.is_none()) {
            hub.unverified(&backup.name, Some("verify_every_hours is 0, so no restore is tried from it".to_owned()));
        }
        Self { ground: Ground { network, node_id, db, hub }, all }
    }

    /// Tries each backup once it has everything, and then as often as is configured, until the node stops.
    pub(super) fn begin(self, manager: &Arc<Manager>, stop: &StopFlag) -> std::io::Result<()> {
        let Self { ground, all } = self;
        for tried in all {
            let ground = ground.clone();
            let listener = Listener { hub: ground.hub.clone(), manager: manager.clone(), stop: stop.clone() };
            spawn("verify", move || ground.run(tried, &listener))?;
        }
        Ok(())
    }
}

impl Ground {
    fn run(&self, mut tried: Tried, listener: &Listener) {
        while !listener.stop.is_raised() {
            if tried.when.is_due(Clock::monotonic()) {
                match self.state(&tried.name).map_or(Err(None), |state| may_be_tried(&state, tried.when.was_tried())) {
                    Err(reason) => self.hub.unverified(&tried.name, reason.map(str::to_owned)),
                    Ok(()) => self.try_one(&mut tried, listener),
                }
            }
            listener.stop.sleep(LOOK_EVERY);
        }
    }

    fn state(&self, name: &str) -> Option<State> {
        self.hub.views().into_iter().find(|view| view.terms.name == name).map(|view| view.state)
    }

    /// Tries one, and tells what came of it.
    fn try_one(&self, tried: &mut Tried, listener: &Listener) {
        let verdict = self.looked(tried, listener);
        let is_unread_for_long = tried.when.tried(&verdict, Clock::monotonic());
        let name = &tried.name;
        match verdict {
            Verdict::Right(channels) => {
                tracing::info!(backup = %name, channels, "a restore was tried, and would bring back what there is");
                listener.is_right(name);
                self.hub.unverified(name, None);
            }
            Verdict::Partly(untried, words) => {
                tracing::warn!(backup = %name, %words, "a restore was tried of some channels alone");
                self.hub.partly_verified(name, &untried);
                self.hub.unverified(name, Some(words));
            }
            Verdict::Later(words) => {
                tracing::info!(backup = %name, %words, "a restore is tried again later");
                self.hub.unverified(name, Some(format!("the last try could not compare everything: {words}")));
            }
            Verdict::Unread(words) if !is_unread_for_long => {
                tracing::warn!(backup = %name, %words, "a restore could not be tried, since not everything can be read");
                self.hub.unverified(name, Some(format!("the last try could not read everything: {words}")));
            }
            Verdict::Unread(words) | Verdict::Wrong(words) => {
                self.hub.unverified(name, None);
                listener.tell(name, &words);
            }
        }
    }

    fn looked(&self, tried: &mut Tried, listener: &Listener) -> Verdict {
        let (teller, broken) = (listener.clone(), tried.name.clone());
        let tell: Tell = Rc::new(move |words| teller.tell(&broken, &ended(words)));
        let opened = contained(&tell, || (tried.reader)());
        let mut source = match opened {
            Ok(source) => Contained { source, tell },
            Err(fault) => return Verdict::Unread(fault.to_string()),
        };
        let Self { network, node_id, .. } = self;
        let (name, no_wallet) = (&tried.name, |_: Followed| Ok(Vec::new()));
        let restore = Restore {
            network,
            node_id: *node_id,
            proof: "it is only tried",
            wallet: &no_wallet,
            takes_what_is_there: false,
        };
        let look = Look {
            restore: &restore,
            db: &self.db,
            complete: &|channel| self.hub.complete_in(name, channel),
            has_tip: &|| self.hub.has_tip(name),
            is_well: &|| self.state(name).is_some_and(|state| is_well(&state)),
            pause: &|length| !listener.stop.sleep(length),
        };
        look.verify(&mut source).unwrap_or_else(|fault| {
            stop_for_storage(fault);
            Verdict::Later("the database cannot be read".to_owned())
        })
    }
}

/// Whether a restore is tried from a backup in this state; else why not, where it is more than that it is new or late. Once it has
/// had everything, channels that it is late with are waited for.
const fn may_be_tried(state: &State, was_tried: bool) -> Result<(), Option<&'static str>> {
    match state {
        State::Complete => Ok(()),
        State::Behind if was_tried => Ok(()),
        State::Starting | State::Behind | State::Ahead => Err(None),
        State::Troubled { .. } => Err(Some("it is in trouble, and no restore is tried from it before it is well")),
        State::Failed { .. } => Err(Some("it lacks a channel for good, so no restore is tried from it")),
    }
}

/// Whether nothing is known to be wrong with a backup, but that it may be late.
const fn is_well(state: &State) -> bool {
    match state {
        State::Complete | State::Behind => true,
        State::Starting | State::Troubled { .. } | State::Failed { .. } | State::Ahead => false,
    }
}

/// What is told where redb panics over a backup.
fn ended(words: &str) -> String {
    let ends = "no restore from it is tried again before the node is started again";
    format!("it is damaged so that it cannot be read ({words}), and {ends}")
}
