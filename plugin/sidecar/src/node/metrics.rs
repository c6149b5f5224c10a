//! What `/metrics` tells, gathered when it is asked for. Labels name kinds, states, methods of bitcoind and backups of the
//! configuration: as many as the operator has, and none that a peer makes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::backend::Doorkeeper;
use super::exposition::Exposition;
use super::exposition::Kind::{Counter, Gauge};
use crate::chain::follow::ChainState;
use crate::manager::ChannelView;

/// The states of a channel that is not in history, so that each is told also where no channel is in it.
const STATES: [&str; 5] = ["funding", "normal", "shutting_down", "closing", "failed"];

impl Doorkeeper {
    /// All of it, once what it tells of is durable.
    pub(super) async fn gather_metrics(&self) -> String {
        let mut text = Exposition::default();
        let channels = self.manager.channels(None, None, usize::MAX, |_| true);
        self.manager.env().writer.barrier().await;
        self.tell_chain(&mut text);
        self.tell_channels(&mut text, &channels);
        self.tell_coins(&mut text);
        self.tell_store(&mut text);
        self.tell_backups(&mut text);
        tell_process(&mut text);
        text.finish()
    }

    fn tell_chain(&self, text: &mut Exposition) {
        let state = self.chain.borrow().clone();
        let (height, _, _) = self.tip();
        let is_synced = matches!(state, Some(ChainState::Synced { .. }));
        text.one(
            ("outrigger_synced", Gauge, "1 where the node has taken in bitcoind's newest block."),
            is_synced.into(),
        );
        text.one(
            (
                "outrigger_block_height",
                Gauge,
                "The newest block that the node has taken in, counted from 0; 0 before the first.",
            ),
            height.unwrap_or(0).into(),
        );
        let room = self.manager.env().room.found();
        if room.free < u64::MAX {
            let about = "Bytes that are free on the disk of the data directory.";
            text.one(("outrigger_disk_free_bytes", Gauge, about), room.free);
        }
        let about = "1 where the disk of the data directory has a ballast, which a start on a full disk sets free.";
        text.one(("outrigger_disk_ballast", Gauge, about), room.has_ballast.into());
        let about =
            "1 where the disk of the data directory has too little room: nothing is opened, relayed, invoiced or paid.";
        text.one(("outrigger_disk_low", Gauge, about), room.is_low.into());
        let calls = self.calls.by_method();
        let took = calls.iter().map(|call| (vec![("method", call.method)], call.took.clone()));
        text.histograms(("outrigger_bitcoind_call_seconds", "How long bitcoind took to answer, by its method."), took);
        let errors = calls.iter().map(|call| (vec![("method", call.method)], call.errors));
        let about = "Calls to bitcoind without an answer, or with one that is an error.";
        text.family(("outrigger_bitcoind_call_errors_total", Counter, about), errors);
        let waited = [(Vec::new(), self.calls.waited())];
        text.histograms(
            ("outrigger_bitcoind_turn_seconds", "How long calls to bitcoind waited for their turn."),
            waited,
        );
    }

    fn tell_channels(&self, text: &mut Exposition, channels: &[ChannelView]) {
        let peers = self.manager.peers();
        let connected = peers.iter().filter(|peer| peer.connected).count();
        text.one(("outrigger_peers", Gauge, "Peers that are connected, or have a channel."), peers.len() as u64);
        text.one(("outrigger_peers_connected", Gauge, "Peers that are connected."), connected as u64);
        let mut by_state: BTreeMap<&str, u64> = STATES.into_iter().map(|state| (state, 0)).collect();
        for channel in channels {
            *by_state.entry(channel.summary.state).or_default() += 1;
        }
        by_state.insert("frozen", self.manager.env().frozen.of(None).count() as u64);
        let states = by_state.iter().map(|(state, count)| (vec![("state", *state)], *count));
        text.family(("outrigger_channels", Gauge, "Channels that are not in history, by state."), states);
        let stalled = channels.iter().filter(|channel| channel.is_stalled).count();
        let about = "Channels that take no new HTLCs because a required backup is late with them.";
        text.one(("outrigger_channels_held", Gauge, about), stalled as u64);
        let htlcs = channels.iter().map(|channel| channel.summary.htlcs as u64).sum();
        text.one(("outrigger_htlcs", Gauge, "HTLCs that are pending in channels."), htlcs);
        let relaying = self.manager.relaying();
        text.one(("outrigger_forwards", Gauge, "HTLCs that are being forwarded."), relaying.htlcs.into());
        text.one(("outrigger_forwards_msat", Gauge, "What those brought, in millisatoshi."), relaying.value.get());
        let sum = |of: fn(&ChannelView) -> u64| channels.iter().map(of).sum::<u64>();
        let kinds = [
            ("local", sum(|channel| channel.summary.local.get())),
            ("remote", sum(|channel| channel.summary.remote.get())),
            ("spendable", sum(|channel| channel.summary.spendable.get())),
            ("receivable", sum(|channel| channel.summary.receivable.get())),
        ];
        let about = "Balances of channels that are not in history, in millisatoshi, by kind; spendable is part of local, receivable of remote.";
        text.family(
            ("outrigger_channel_balance_msat", Gauge, about),
            kinds.map(|(kind, msat)| (vec![("kind", kind)], msat)),
        );
    }

    fn tell_coins(&self, text: &mut Exposition) {
        let balance = self.wallet.balance();
        let kinds = [
            ("confirmed", balance.confirmed.get()),
            ("unconfirmed", balance.unconfirmed.get().saturating_add(balance.immature.get())),
            ("locked", balance.locked.get()),
        ];
        text.family(
            ("outrigger_wallet_balance_sat", Gauge, "Coins of the wallet on chain, in satoshi, by kind."),
            kinds.map(|(kind, sat)| (vec![("kind", kind)], sat)),
        );
    }

    fn tell_store(&self, text: &mut Exposition) {
        let stats = self.manager.env().writer.stats();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let took = [(Vec::new(), stats.commit_times.measured())];
        text.histograms(("outrigger_commit_seconds", "How long commits took, syncs included."), took);
        let took = [(Vec::new(), stats.sync_times.measured())];
        text.histograms(
            ("outrigger_journal_fsync_seconds", "How long records of the journal took to reach the disk."),
            took,
        );
        let counters = [
            ("outrigger_commits_total", "Commits.", &stats.commits),
            (
                "outrigger_checkpoints_total",
                "Checkpoints, at which the database has what only the journal had.",
                &stats.checkpoints,
            ),
            ("outrigger_rows_total", "Rows that were written or deleted.", &stats.rows),
            ("outrigger_rows_bytes_total", "What the rows hold that were written, in bytes.", &stats.bytes),
        ];
        for (name, about, counter) in counters {
            text.one((name, Counter, about), read(counter));
        }
        let newest = self.reader.newest_event().unwrap_or(0);
        text.one(("outrigger_events_total", Counter, "Events since the node began, over all starts."), newest);
    }

    fn tell_backups(&self, text: &mut Exposition) {
        let views = self.sinks.as_ref().map(|sinks| sinks.views()).unwrap_or_default();
        let label = |at: usize| vec![("backup", views[at].terms.name.as_str())];
        let all = |value: fn(&crate::store::backup::SinkView) -> u64| {
            views.iter().enumerate().map(move |(at, view)| (at, value(view))).collect::<Vec<_>>()
        };
        let families = [
            ("outrigger_backup_lag_updates", "Writes that a backup has yet to complete.", all(|view| view.lag.updates)),
            (
                "outrigger_backup_lag_bytes",
                "About what a backup has yet to complete, in bytes; an estimate for channels that are due as a whole.",
                all(|view| view.lag.bytes),
            ),
            (
                "outrigger_backup_lag_seconds",
                "How long the oldest of those waits, in seconds.",
                all(|view| view.lag.waited.as_secs()),
            ),
        ];
        for (name, about, samples) in families {
            text.family((name, Gauge, about), samples.into_iter().map(|(at, value)| (label(at), value)));
        }
        let held = self.sinks.as_ref().map(|sinks| sinks.held_events()).unwrap_or_default();
        text.one(
            ("outrigger_events_held", Gauge, "Events that are not told because a required backup is late."),
            held.count,
        );
    }
}

/// What the kernel tells of this process; nothing where it tells nothing.
fn tell_process(text: &mut Exposition) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    if let Some(resident) = kib("VmRSS:") {
        let about = "Memory that the process holds, in bytes.";
        text.one(("process_resident_memory_bytes", Gauge, about), resident.saturating_mul(1024));
    }
    let threads = kib("Threads:").unwrap_or(0);
    text.one(("process_threads", Gauge, "Threads of the process."), threads);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        text.one(("process_open_fds", Gauge, "Files and sockets that the process has open."), open.count() as u64);
    }
}
