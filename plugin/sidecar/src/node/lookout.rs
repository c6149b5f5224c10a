//! Looks each second at what may be wrong and becomes right by itself: the view of the chain, backups, peers with channels. What
//! changes is an event; what was told is a row of the same commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_bolt::id::NodeId;
use outrigger_rpc_schema::BackupState;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::backups;
use super::troubles::{How, Watch};
use crate::chain::follow::ChainState;
use crate::chain::stop::StopFlag;
use crate::clock::Clock;
use crate::manager::Manager;
use crate::store::Batch;
use crate::store::backup::{Hub, SinkView, State};
use crate::store::room::{Found, Room};
use crate::store::row::EventRow;
use crate::store::schema::{TROUBLES_KEY, Table};
use crate::store::troubles::{Subject, Troubles};

/// How often it is looked. What comes and goes in between is not seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A backup that is behind for so long is not only busy.
const LATE: Duration = Duration::from_secs(20);

/// One that is behind for no longer only keeps pace with a busy node.
const IN_TIME: Duration = Duration::from_secs(5);

/// The time that peers have to come once they are dialled.
const MEETING: Duration = Duration::from_secs(50);

/// What peers are given after a start. None is dialled before the chain was seen to its end for the first time.
#[derive(Default)]
struct Meeting {
    begun_at: Option<Instant>,
    /// Those that have come since.
    came: BTreeSet<NodeId>,
}

impl Meeting {
    /// How a peer is: one that has not come yet has its time.
    fn how(&mut self, peer: NodeId, is_connected: bool, now: Instant) -> How {
        let is_over = self.begun_at.is_some_and(|at| now.saturating_duration_since(at) >= MEETING);
        if is_over {
            self.came.clear();
        } else if is_connected {
            self.came.insert(peer);
        }
        match (is_connected, is_over || self.came.contains(&peer)) {
            (true, _) => How::Well,
            (false, true) => How::Ill,
            (false, false) => How::Unsure,
        }
    }
}

/// Where it looks.
pub(super) struct Lookout {
    pub(super) manager: Arc<Manager>,
    pub(super) chain: watch::Receiver<Option<ChainState>>,
    pub(super) sinks: Option<Arc<Hub>>,
    /// Tells `node.status` what is wrong with the disk, or that nothing is.
    pub(super) tell_disk: Box<dyn Fn(Option<String>) + Send>,
}

impl Lookout {
    /// Looks until `stop` is raised. Blocks the thread.
    pub(super) fn run(&self, told: Troubles, mut room: Room, stop: &StopFlag) {
        let (mut watch, mut meeting, mut said) = (Watch::new(told), Meeting::default(), None);
        while !stop.sleep(LOOK_EVERY) {
            self.look_at_disk(&mut room, &mut said);
            self.look(&mut watch, &mut meeting);
        }
    }

    fn look(&self, watch: &mut Watch, meeting: &mut Meeting) {
        let now = Clock::monotonic();
        if self.is_synced() {
            meeting.begun_at.get_or_insert(now);
        }
        let before = watch.told().encode();
        let views = self.sinks.as_ref().map(|sinks| sinks.views()).unwrap_or_default();
        let news = watch.look(now, &self.found(&views, meeting, now), |subject| self.counts(subject));
        let told = watch.told().encode();
        if told == before {
            return;
        }
        let mut batch = Batch::default();
        batch.put(Table::Meta, TROUBLES_KEY.to_vec(), told);
        for (subject, is_wrong) in news {
            let (kind, fields) = self.event(&subject, is_wrong, &views);
            if is_wrong {
                tracing::warn!(kind, %fields, "something is wrong");
            } else {
                tracing::info!(kind, %fields, "it is right again");
            }
            batch.event(EventRow::new(Clock::now_unix(), kind, fields));
        }
        self.manager.env().writer.submit(batch);
    }

    /// `said` is what was last told of it.
    fn look_at_disk(&self, room: &mut Room, said: &mut Option<String>) {
        let found = room.look();
        self.manager.env().room.set(found);
        let words = found.is_low.then(|| low_in_words(found));
        if words != *said {
            (self.tell_disk)(words.clone());
            *said = words;
        }
    }

    fn is_synced(&self) -> bool {
        matches!(&*self.chain.borrow(), Some(ChainState::Synced { .. }))
    }

    fn found(&self, views: &[SinkView], meeting: &mut Meeting, now: Instant) -> Vec<(Subject, How)> {
        let chain = (Subject::Chain, if self.is_synced() { How::Well } else { How::Ill });
        let disk = (Subject::Disk, if self.manager.env().room.is_low() { How::Ill } else { How::Well });
        let backups = views.iter().map(|view| (Subject::Backup(view.terms.name.clone()), backup(view)));
        let peer = |peer| (Subject::Peer(peer), meeting.how(peer, self.manager.is_connected(&peer), now));
        let peers = self.manager.deliver().peers_with_channels().into_iter().map(peer);
        [chain, disk].into_iter().chain(backups).chain(peers).collect()
    }

    /// A peer with no more than a promise of a channel comes and goes for nothing, and is not told of.
    fn counts(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Chain | Subject::Disk | Subject::Backup(_) => true,
            Subject::Peer(peer) => self.manager.has_funded_channel(peer),
        }
    }

    fn event(&self, subject: &Subject, is_wrong: bool, views: &[SinkView]) -> (&'static str, Value) {
        match subject {
            Subject::Chain if is_wrong => ("chain_blind", json!({ "message": self.chain_in_words() })),
            Subject::Chain => ("chain_synced", json!({ "block_height": self.manager.env().chain.height() })),
            Subject::Disk if is_wrong => {
                let words = low_in_words(self.manager.env().room.found());
                ("disk_low", json!({ "message": words }))
            }
            Subject::Disk => ("disk_relieved", json!({})),
            Subject::Backup(name) if is_wrong => {
                let view = views.iter().find(|view| view.terms.name == *name);
                let words = view.map(|view| backup_in_words(view, self.manager.env().is_restored()));
                ("backup_behind", json!({ "backup": name, "message": words }))
            }
            Subject::Backup(name) => ("backup_complete", json!({ "backup": name })),
            Subject::Peer(peer) if is_wrong => {
                let has_address = self.manager.env().reader.peer_address(peer).ok().flatten().is_some();
                let what_to_do = if has_address {
                    "it is dialled again and again, unless peer.disconnect said otherwise"
                } else {
                    "no address of it is known: give one to peer.connect, or wait for it to come"
                };
                let words = format!(
                    "the peer is not connected, and no channel with it carries anything until it is; {what_to_do}"
                );
                ("peer_disconnected", json!({ "node_id": peer.to_string(), "message": words }))
            }
            Subject::Peer(peer) => ("peer_connected", json!({ "node_id": peer.to_string() })),
        }
    }

    fn chain_in_words(&self) -> String {
        let why = match &*self.chain.borrow() {
            Some(ChainState::WaitingForBitcoind { reason } | ChainState::Blind { reason }) => reason.clone(),
            Some(ChainState::Syncing { height, target }) => {
                format!("the node is at block {height} of {target}; where that does not move, look at bitcoind")
            }
            Some(ChainState::Synced { .. }) | None => "bitcoind has not answered yet".to_owned(),
        };
        format!(
            "the chain is not seen to its end, so nothing is opened, relayed or paid, and what peers publish is seen late: {why}; see \
             chain.status"
        )
    }
}

/// What `node.status` and the event say of a disk with too little room.
fn low_in_words(found: Found) -> String {
    let why = if found.has_ballast { "" } else { ", the ballast included, which is not there" };
    format!(
        "the disk of the data directory has {} MiB free, and {} MiB are wanted (disk_reserve_bytes{why}): until then nothing is opened, \
         relayed, invoiced or paid, and what stands goes on; make room on it",
        found.free >> 20,
        found.wanted.div_ceil(1 << 20)
    )
}

fn backup(view: &SinkView) -> How {
    match &view.state {
        State::Complete => How::Well,
        State::Behind if view.lag.waited < IN_TIME => How::Well,
        State::Behind if view.lag.waited < LATE => How::Unsure,
        // One that says nothing for a minute after the start is no better than one that is in trouble.
        State::Starting | State::Behind | State::Troubled { .. } | State::Failed { .. } => How::Ill,
        // It proved the database to be old: `node_restored` tells that.
        State::Ahead => How::Unsure,
    }
}

fn backup_in_words(view: &SinkView, is_restored: bool) -> String {
    let shown = backups::info(view.clone(), is_restored);
    let why = match shown.reason {
        Some(reason) => reason,
        None if shown.state == BackupState::Starting => "it has not told yet what it holds".to_owned(),
        None => format!("it lacks {} updates, the oldest for {} s", shown.lag_updates, shown.lag_secs),
    };
    let waits =
        if shown.required { "promises of the channels that it lacks wait for it" } else { "nothing waits for it" };
    let hint = shown.hint.map(|hint| format!(" {hint}")).unwrap_or_default();
    format!("the backup {} does not have everything, and {waits}: {why}.{hint} See backup.status", shown.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::backup::{Lag, SinkTerms};

    fn view(state: State, waited: u64) -> SinkView {
        SinkView {
            terms: SinkTerms { name: "second".to_owned(), kind: "mirror", is_required: true },
            state,
            lag: Lag { updates: 7, bytes: 1, waited: Duration::from_secs(waited), ..Lag::default() },
            completed_at_unix: None,
            verified_at_unix: None,
            verify_failure: None,
            unverified: None,
        }
    }

    #[test]
    fn a_peer_has_its_time_to_come_once_the_chain_was_seen() {
        let hex = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let (late, early): (NodeId, NodeId) = (hex.parse().unwrap(), hex.replacen("02", "03", 1).parse().unwrap());
        let (begun, mut meeting) = (Clock::monotonic(), Meeting::default());
        let at = |secs| begun + Duration::from_secs(secs);
        assert_eq!(meeting.how(late, false, at(1000)), How::Unsure, "it is not dialled");
        meeting.begun_at = Some(at(1000));
        assert_eq!(meeting.how(late, false, at(1049)), How::Unsure);
        assert_eq!(meeting.how(early, true, at(1010)), How::Well);
        assert_eq!(meeting.how(early, false, at(1011)), How::Ill);
        assert_eq!(meeting.how(late, false, at(1050)), How::Ill);
        assert_eq!(meeting.how(early, true, at(1051)), How::Well);
    }

    #[test]
    fn a_backup_is_behind_where_it_lacks_something_for_long_or_is_in_trouble() {
        assert_eq!(backup(&view(State::Complete, 0)), How::Well);
        assert_eq!(backup(&view(State::Behind, 4)), How::Well);
        assert_eq!(backup(&view(State::Behind, 5)), How::Unsure);
        assert_eq!(backup(&view(State::Behind, 19)), How::Unsure);
        assert_eq!(backup(&view(State::Behind, 20)), How::Ill);
        assert_eq!(backup(&view(State::Starting, 0)), How::Ill);
        assert_eq!(backup(&view(State::Ahead, 100)), How::Unsure);
        assert_eq!(backup(&view(State::Failed { reason: "no".to_owned() }, 0)), How::Ill);
        let troubled = State::Troubled { reason: "no such disk".to_owned(), since: Duration::from_secs(12) };
        assert_eq!(backup(&view(troubled.clone(), 0)), How::Ill);
        let words = backup_in_words(&view(troubled, 0), false);
        assert!(words.contains("no such disk (for 12 s)") && words.contains("Mend it"), "{words}");
        let words = backup_in_words(&view(State::Behind, 30), false);
        assert!(words.contains("lacks 7 updates, the oldest for 30 s. See backup.status"), "{words}");
    }
}
