//! The sinks of the configuration: made at the start, watched while the node runs, shown to the operator.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::BlockHash;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use outrigger_bolt::id::NodeId;
use outrigger_rpc_schema as schema;

use super::answers::count;
use super::found::told_of_damage;
use super::verify::Tries;
use super::{BACKUP_EXIT_CODE, StartFault, stop_for_storage};
use crate::chain::stop::StopFlag;
use crate::clock::Clock;
use crate::config::{BackupConfig, BackupKind};
use crate::manager::{Manager, PeerView};
use crate::store;
use crate::store::backup::command::{ANSWER_LIMIT, CommandSink, Program};
use crate::store::backup::directory::{DirectorySink, make_place};
use crate::store::backup::mirror::{DAMAGED, Mirror, MirrorPlace};
use crate::store::backup::sealed::Sealer;
use crate::store::backup::{Clocks, HeldEvents, Hub, News, Open, Persist, SinkEnds, SinkTerms, SinkView, State};

/// How often it is looked which channels wait too long for a sink.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest wait at the start for what the backups hold: a database that is behind one of them is not met with peers before.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest wait at the end for what they lack, and for them to end.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// How often it is looked during either.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Channels that events wait for and that are named, at most.
const MOST_NAMED: usize = 16;

/// Events that wait for longer are told of in `node.status`.
const EVENTS_ARE_LATE: Duration = Duration::from_secs(20);

/// Blocks between two records of the tip.
const TIP_EVERY: u32 = 144;

/// Clocks of the machine.
pub(super) const CLOCKS: Clocks = Clocks { now: Clock::monotonic, unix: Clock::now_unix };

/// What is to be done for the sinks.
pub(super) struct Sinks {
    pub(super) hub: Arc<Hub>,
    pub(super) made: Vec<Box<dyn Persist>>,
    pub(super) news: Receiver<News>,
    /// Restores that are tried from them while the node runs.
    pub(super) tries: Tries,
}

/// Whose sinks they are.
pub(super) struct Whose<'a> {
    pub(super) directory: &'a Path,
    pub(super) network: &'a str,
    pub(super) node_id: NodeId,
    /// What leaves for a place that others may read is sealed with it.
    pub(super) sealer: Arc<Sealer>,
}

impl Whose<'_> {
    fn mirror_at(&self, path: &Path) -> MirrorPlace {
        MirrorPlace::new(path, self.network, self.node_id)
    }
}

/// Refuses a sink that no waiting makes right.
pub(super) fn check(backups: &[BackupConfig], whose: &Whose<'_>) -> Result<(), StartFault> {
    for BackupConfig { name, kind, .. } in backups {
        if let BackupKind::Mirror { path } = kind {
            let damaged = StartFault::Backup { name: name.clone(), reason: format!("{}: {DAMAGED}", path.display()) };
            let checked = told_of_damage(damaged, || whose.mirror_at(path).check(&whose.directory.join(store::FILE)));
            checked.map_err(|reason| StartFault::Backup { name: name.clone(), reason })?;
        }
    }
    Ok(())
}

/// The names of the sinks that have their places. That of one which the start before did not know is made here. One that was known
/// had its place: where that is missing now its disk may be away, and what would be made anew in its stead would count as complete.
pub(super) fn standing<'a>(backups: &'a [BackupConfig], whose: &Whose<'_>, known: &[String]) -> Vec<&'a str> {
    let stands = |backup: &&BackupConfig| {
        if known.contains(&backup.name) {
            return true;
        }
        let made = match &backup.kind {
            BackupKind::Mirror { path } => whose.mirror_at(path).make().map_err(|fault| fault.to_string()),
            BackupKind::Directory { path, .. } => {
                make_place(path, (whose.network, &whose.node_id)).map_err(|fault| fault.to_string())
            }
            BackupKind::Command { .. } => Ok(()),
        };
        if let Err(fault) = &made {
            tracing::warn!(backup = %backup.name, %fault, "the place of a new backup cannot be made: the next start tries again");
        }
        made.is_ok()
    };
    backups.iter().filter(stands).map(|backup| backup.name.as_str()).collect()
}

/// How each sink is made.
pub(super) fn openers(backups: &[BackupConfig], whose: &Whose<'_>) -> Vec<(SinkTerms, Open)> {
    backups.iter().map(|backup| opener(backup, whose)).collect()
}

fn opener(backup: &BackupConfig, whose: &Whose<'_>) -> (SinkTerms, Open) {
    let BackupConfig { name, is_required, kind, .. } = backup;
    let terms = SinkTerms { name: name.clone(), kind: kind.name(), is_required: *is_required };
    match kind {
        BackupKind::Mirror { path } => {
            let place = whose.mirror_at(path);
            let open = |ends: SinkEnds| -> Box<dyn Persist> { Box::new(Mirror::new(place, ends)) };
            (terms, Box::new(open))
        }
        BackupKind::Directory { path, consolidate_every } => {
            let owner = (whose.network.to_owned(), whose.node_id);
            let (path, sealer) = (path.clone(), whose.sealer.clone());
            let every = usize::try_from(*consolidate_every).unwrap_or(usize::MAX);
            let open = move |ends: SinkEnds| -> Box<dyn Persist> {
                Box::new(DirectorySink::new(path, owner, sealer, every, ends))
            };
            (terms, Box::new(open))
        }
        BackupKind::Command { command } => {
            let program = Program {
                name: name.clone(),
                command: command.clone(),
                network: whose.network.to_owned(),
                node_id: whose.node_id,
                sealer: whose.sealer.clone(),
                limit: ANSWER_LIMIT,
            };
            (terms, Box::new(|ends: SinkEnds| -> Box<dyn Persist> { Box::new(CommandSink::new(program, ends)) }))
        }
    }
}

/// Watches the sinks until the node stops: what they prove or refuse, and who waits for them too long.
pub(super) fn watch(
    hub: Arc<Hub>,
    news: Receiver<News>,
    manager: Arc<Manager>,
    (stop, tell): (StopFlag, impl Fn(Option<String>) + Send + 'static),
) -> std::io::Result<JoinHandle<()>> {
    let run = move || {
        while !stop.is_raised() {
            match news.recv_timeout(LOOK_EVERY) {
                Ok(news) => take(&manager, news),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for channel in hub.look_for_stalls() {
                manager.set_stalled(&channel, hub.is_stalled(&channel));
            }
            tell(warning(&hub, manager.unheard_channels()));
        }
    };
    std::thread::Builder::new().name("backups".into()).spawn(run)
}

fn take(manager: &Manager, news: News) {
    match news {
        News::Ahead { proof } => manager.prove_old(&proof),
        News::Heard => manager.heard(),
        News::Unstored(unstored) => manager.fail_unstored(unstored),
        News::Kept { channel, number } => manager.keep(channel, number),
        News::Dead { reason } => {
            tracing::error!(%reason, "a backup refused a second channel for good: the node stops before it loses more");
            crate::log::flush();
            std::process::exit(BACKUP_EXIT_CODE.into());
        }
        News::Storage(fault) => stop_for_storage(fault),
    }
}

/// A queue end for what the sinks have to tell.
pub(super) fn news() -> (Sender<News>, Receiver<News>) {
    crossbeam_channel::unbounded()
}

/// Whether sinks get a record of the tip at this height.
pub(super) const fn is_tip_due(height: u32) -> bool {
    height.is_multiple_of(TIP_EVERY)
}

/// Tells the sinks of a block: everything that came before it was handed over before, so a restore need not look further back.
pub(super) fn tell_tip(manager: &Manager, sinks: &Hub, (height, hash): (u32, BlockHash)) {
    let peers = manager.peers().into_iter().filter(|peer| peer.channels > 0);
    let address = |peer: PeerView| {
        let address = manager.env().reader.peer_address(&peer.node_id).ok().flatten()?;
        Some((peer.node_id, address))
    };
    sinks.tip(height, hash, peers.filter_map(address).collect());
}

/// Waits until every backup has told what it holds, or patience ends: one may prove that the file is old, and then no commitment is
/// published and no peer told anything. A required one that has not told yet is waited for in any case: promises wait channel by channel,
/// and of a channel that fails meanwhile nothing is published.
pub(super) async fn hear(manager: &Manager, sinks: &Hub) {
    let heard = async {
        while !sinks.has_heard_all() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(PATIENCE, heard).await.is_err() {
        tracing::warn!("a backup has not told what it holds; backup.status says which");
    }
    if let Some(proof) = sinks.proof() {
        tokio::task::block_in_place(|| manager.prove_old(proof));
    }
}

/// Waits until every backup has what there is, or patience ends: what they lack then they get in full at the next start. Then until
/// they have put in order what they keep, a mirror its journal, with as much patience.
pub(super) async fn drain(sinks: &Hub) {
    patiently(|| sinks.is_drained()).await;
    sinks.stop();
    patiently(|| sinks.has_ended()).await;
}

async fn patiently(is_done: impl Fn() -> bool) {
    let done = async {
        while !is_done() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let _ = tokio::time::timeout(LAST_WRITES, done).await;
}

/// The sinks as callers are shown them.
pub(super) fn report(hub: Option<&Hub>, is_restored: bool) -> schema::BackupReport {
    let Some(hub) = hub else { return schema::BackupReport::default() };
    let held = hub.held_events();
    schema::BackupReport {
        items: hub.views().into_iter().map(|view| info(view, is_restored)).collect(),
        stalled_channels: count(hub.stalled_channels()),
        held_events: held.count,
        held_events_secs: held.waited.as_secs(),
        held_events_for: held.channels.iter().take(MOST_NAMED).map(ToString::to_string).collect(),
    }
}

/// A sink as callers are shown it.
pub(super) fn info(view: SinkView, is_restored: bool) -> schema::BackupInfo {
    let SinkView { terms, state, lag, completed_at_unix, verified_at_unix, verify_failure, unverified } = view;
    let (state, reason, mut hint) = described(&terms, state, is_restored);
    if verify_failure.is_some() && !is_restored {
        hint = hint.or(Some(NOT_VERIFIED));
    }
    schema::BackupInfo {
        name: terms.name,
        kind: terms.kind.to_owned(),
        required: terms.is_required,
        state,
        reason,
        hint: hint.map(str::to_owned),
        lag_updates: lag.updates,
        lag_bytes: lag.bytes,
        lag_secs: lag.waited.as_secs(),
        completed_at: completed_at_unix,
        verified_at: verified_at_unix,
        verify_failure,
        unverified: unverified.filter(|_| !is_restored),
    }
}

fn described(
    terms: &SinkTerms,
    state: State,
    is_restored: bool,
) -> (schema::BackupState, Option<String>, Option<&'static str>) {
    let waits = "Promises of the channels that it lacks wait for it. Mend it, or take it out of the configuration and start again.";
    match state {
        State::Ahead if is_restored => {
            let hint = "The node is in restored mode and leaves its backups as they are. See node.status.";
            (schema::BackupState::Off, None, Some(hint))
        }
        State::Ahead => (schema::BackupState::Ahead, None, Some("The database is an old copy. See node.status.")),
        State::Starting => (schema::BackupState::Starting, None, None),
        State::Complete => (schema::BackupState::Complete, None, None),
        State::Behind => (schema::BackupState::Behind, None, None),
        State::Troubled { reason, since } => {
            let reason = format!("{reason} (for {} s)", since.as_secs());
            let hint = if terms.is_required { waits } else { "Mend it: it is tried again until it works." };
            (schema::BackupState::Troubled, Some(reason), Some(hint))
        }
        State::Failed { reason } if terms.is_required => {
            let hint =
                "It refused a channel for good, which was failed for it. A second refusal stops the node: replace it.";
            (schema::BackupState::Failed, Some(reason), Some(hint))
        }
        State::Failed { reason } => {
            (schema::BackupState::Failed, Some(reason), Some("It lacks a channel for good: replace it."))
        }
    }
}

/// What an operator does about a backup from which a restore was not right.
const NOT_VERIFIED: &str = "The database or this backup is damaged, or the backup lacks something: nothing tells yet which. \
    Keep both. Add a second backup under another name and wait until it is complete; stop the node and run outriggerd verify-backup on \
    both; only then replace this one.";

/// What `node.status` says of sinks: those that are in trouble or dead, and channels that wait for any.
fn warning(hub: &Hub, unheard_channels: usize) -> Option<String> {
    let trouble = |view: SinkView| {
        let name = view.terms.name;
        let wrong = view.verify_failure.map(|words| format!("{name} would not bring back what there is: {words}"));
        match view.state {
            State::Troubled { reason, .. } | State::Failed { reason } => Some(format!("{name}: {reason}")),
            State::Starting | State::Complete | State::Behind => wrong,
            State::Ahead => None,
        }
    };
    let stalled = hub.stalled_channels();
    let waits =
        (stalled > 0).then(|| format!("{stalled} channels take no new HTLCs: a required backup is late with them"));
    let unheard = unheard_in_words(&hub.unheard(), unheard_channels);
    let waits = waits.into_iter().chain(unheard).chain(events_in_words(&hub.held_events()));
    let words: Vec<_> = hub.views().into_iter().filter_map(trouble).chain(waits).collect();
    (!words.is_empty()).then(|| format!("{}; see backup.status", words.join("; ")))
}

/// Channels that have failed and are not published yet, for the sake of a backup that may prove them old.
fn unheard_in_words(backups: &[&str], channels: usize) -> Option<String> {
    (channels > 0 && !backups.is_empty()).then(|| {
        format!(
            "the commitments of {channels} failed channels are not published before {} has told what it holds: mend it or mount its disk, \
             or take it out of the configuration and start again, at the risk that channel.get tells of",
            backups.join(", ")
        )
    })
}

/// One channel that waits holds back the events of all others that came after its own.
fn events_in_words(held: &HeldEvents) -> Option<String> {
    let HeldEvents { count, waited, channels } = held;
    let first = channels.first().filter(|_| *waited >= EVENTS_ARE_LATE)?;
    Some(format!("{count} events are not told before a required backup has channel {first}"))
}
