//! Builds the parts of a node on what its start found, each on those before it, and begins their threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use outrigger_bolt::id::NodeId;
use tokio::sync::watch;

use super::backend::{Doorkeeper, Identity};
use super::backups::{self, Sinks};
use super::chain_side::{Listener, StoredWallet, carry_out, feerates, follow_estimates};
use super::core::{self, Core, Duties, Ground};
use super::found::Found;
use super::keyed::Turns;
use super::lookout::Lookout;
use super::older::Older;
use super::settings::{access, addresses, caps, event_limits, forwarding_policy, policy, proxy};
use super::{Parts, StartFault, spawn, stop_for_storage, workers};
use crate::chain::ChainSource;
use crate::chain::broadcast::Broadcaster;
use crate::chain::calls::Calls;
use crate::chain::feerate::FeeEstimator;
use crate::chain::follow::{BlockListener, ChainState, Follower};
use crate::chain::rpc::Bitcoind;
use crate::chain::stop::StopFlag;
use crate::clock::Clock;
use crate::config::{BitcoindConfig, Config, network_name};
use crate::key::NodeKeys;
use crate::manager::Manager;
use crate::manager::deliver::PaymentNotice;
use crate::manager::env::{ChainView, soft_signers};
use crate::net::{Dialer, Network};
use crate::payment::Terms;
use crate::rpc::Doors;
use crate::store::backup::Hub;
use crate::store::room::Room;
use crate::store::troubles::Troubles;
use crate::store::{ChainOrder, Commits};
use crate::sweep::{Sweeper, Tools};
use crate::wallet::Wallet;

/// What leads to bitcoind.
struct Outside {
    stop: StopFlag,
    source: Arc<dyn ChainSource>,
    calls: Arc<Calls>,
    estimator: Arc<FeeEstimator>,
    broadcaster: Arc<Broadcaster>,
}

impl Outside {
    fn start(config: &Config) -> io::Result<Self> {
        let stop = StopFlag::new();
        let BitcoindConfig { address, auth, search, .. } = &config.bitcoind;
        tracing::info!(
            address, address_from = %search.address, %auth, auth_from = %search.auth, "bitcoind is looked for here"
        );
        let bitcoind = Bitcoind::new(access(config), stop.clone());
        let calls = bitcoind.counted();
        let source: Arc<dyn ChainSource> = Arc::new(bitcoind);
        let estimator = Arc::new(FeeEstimator::new(source.clone(), config.network, config.max_feerate));
        let broadcaster = Arc::new(Broadcaster::start(source.clone())?);
        Ok(Self { stop, source, calls, estimator, broadcaster })
    }

    fn tools(&self, wallet: &Arc<StoredWallet>, keys: &Arc<NodeKeys>) -> Tools {
        let Self { source, estimator, .. } = self;
        Tools { source: source.clone(), estimator: estimator.clone(), purse: wallet.clone(), keys: keys.clone() }
    }
}

/// The parts that the ends of a node, callers, chain and threads, are given.
struct Assembly<'a> {
    config: &'a Config,
    outside: Outside,
    core: Core,
    wallet: Arc<StoredWallet>,
    sweeper: Arc<Sweeper>,
    sinks: Option<Arc<Hub>>,
}

/// Builds a node. Its doors are open and its threads run when this returns; it meets no peer yet.
pub(super) fn build(
    config: &Config,
    (found, mut room): (Found, Room),
    doors: &Arc<Doors<Doorkeeper>>,
) -> Result<(Parts, Network), StartFault> {
    let outside = Outside::start(config)?;
    let with_channels = found.peers_with_channels();
    let Found { keys, db, mut file, generation, sinks, coins, next_wallet_row } = found;
    let hub = sinks.as_ref().map(|sinks| sinks.hub.clone());
    let ground = ground(config, (&keys, &coins), &outside, hub.clone());
    let (core, duties) = core::build(db, &mut file, ground)?;
    core.manager.env().room.set(room.look());
    let Duties { commits, mailboxes, notices, orders } = duties;
    let commits = commits.raising(generation).journaled(file.journal.take());
    let commits = commits.keeping_events(event_limits(config), Clock::latest_unix);
    begin_commits(commits, sinks, &core.manager, (doors, &outside.stop))?;
    let wallet = Arc::new(StoredWallet::new(coins, (next_wallet_row, file.is_reserve_low), core.manager.clone()));
    // Until the next block has it looked at again: what was told stands.
    core.manager.env().chain.set_accepting(!(file.is_reserve_low && config.channel.accept_needs_reserve));
    for row in std::mem::take(&mut file.broadcasts) {
        if core.manager.publishes_at_start(&row, hub.is_some()) {
            outside.broadcaster.publish(row.tx);
        }
    }
    let sweeper = Sweeper::start(outside.tools(&wallet, &keys), std::mem::take(&mut file.sweeps))?;

    let network = Network::through(proxy(config)?, *keys.node_secret(), core.manager.clone());
    let (state, chain) = watch::channel(None);
    let all = Assembly { config, outside, core, wallet, sweeper: Arc::new(sweeper), sinks: hub };
    doors.open(Arc::new(all.doorkeeper(network.dialer(), chain.clone())));
    all.begin_work((mailboxes, notices, orders))?;
    let follower = all.begin_following(state, doors.clone())?;
    all.begin_looking_out(chain.clone(), (std::mem::take(&mut file.troubles), room), doors.clone())?;

    let redial = file.peer_addresses.into_iter().filter(|(peer, _)| with_channels.contains(peer)).collect();
    let Assembly { outside: Outside { stop, .. }, core: Core { manager, .. }, wallet, sinks, .. } = all;
    Ok((Parts { manager, stop, chain, dialer: network.dialer(), redial, follower, sinks, wallet }, network))
}

/// What the core stands on, at the wallet's block: it takes blocks in last.
fn ground(
    config: &Config,
    (keys, coins): (&Arc<NodeKeys>, &Wallet),
    outside: &Outside,
    sinks: Option<Arc<Hub>>,
) -> Ground {
    let height = coins.tip().map_or(0, |(height, _)| height);
    Ground {
        view: ChainView::new(height, feerates(&outside.estimator.current()).0),
        policy: policy(config),
        pending_per_peer: config.channel.max_pending_per_peer,
        forwarding: (forwarding_policy(config), caps(config)),
        payments: Terms {
            network: config.network,
            final_cltv_blocks: config.final_cltv_blocks,
            accept_keysend: config.accept_keysend,
        },
        signers: soft_signers(keys.clone()),
        keys: keys.clone(),
        sinks,
    }
}

/// Begins the writer's thread, and with sinks those that stand between it and delivery.
fn begin_commits(
    commits: Commits,
    sinks: Option<Sinks>,
    manager: &Arc<Manager>,
    (doors, stop): (&Arc<Doors<Doorkeeper>>, &StopFlag),
) -> Result<(), StartFault> {
    let (delivery, workers) = (manager.deliver().clone(), manager.deliver().clone());
    let commits = commits.asking(move || workers.is_busy(), || Some(Clock::monotonic()));
    let Some(Sinks { hub, made, news, tries }) = sinks else {
        commits.on_a_thread(move |released, seq| delivery.deliver(released, seq), stop_for_storage)?;
        return Ok(());
    };
    tries.begin(manager, stop)?;
    hub.run(made, move |released, seq| delivery.deliver(released, seq))?;
    let status = doors.clone();
    let tell = move |words| status.report(|status| status.backups = words);
    backups::watch(hub.clone(), news, manager.clone(), (stop.clone(), tell))?;
    commits.on_a_thread(move |released, seq| hub.release(released, seq), stop_for_storage)?;
    Ok(())
}

impl Assembly<'_> {
    /// What callers reach.
    fn doorkeeper(&self, dialer: Dialer, chain: watch::Receiver<Option<ChainState>>) -> Doorkeeper {
        Doorkeeper {
            manager: self.core.manager.clone(),
            payments: self.core.payments.clone(),
            tokens: self.core.tokens.clone(),
            wallet: self.wallet.clone(),
            reader: self.core.reader.clone(),
            dialer,
            turns: Turns::default(),
            chain,
            events: self.core.events.clone(),
            stop: self.outside.stop.clone(),
            calls: self.outside.calls.clone(),
            sinks: self.sinks.clone(),
            identity: Identity {
                alias: self.config.alias.clone(),
                network: network_name(self.config.network),
                addresses: addresses(self.config),
            },
        }
    }

    /// What takes blocks in.
    fn listener(&self, state: watch::Sender<Option<ChainState>>, doors: Arc<Doors<Doorkeeper>>) -> Listener {
        Listener {
            manager: self.core.manager.clone(),
            wallet: self.wallet.clone(),
            broadcaster: self.outside.broadcaster.clone(),
            estimator: self.outside.estimator.clone(),
            state,
            sweeper: self.sweeper.clone(),
            reorganised: AtomicBool::new(true),
            sinks: self.sinks.clone(),
            accept_needs_reserve: self.config.channel.accept_needs_reserve,
            older: Older::of(&self.wallet, self.config.start_height, {
                let doors = doors.clone();
                move |words| doors.report(|status| status.wallet = words)
            }),
            tell_clock: Box::new(move |words| doors.report(|status| status.clock = words)),
        }
    }

    /// Begins the threads that empty the core's queues.
    fn begin_work(
        &self,
        (mailboxes, notices, orders): (Receiver<NodeId>, Receiver<PaymentNotice>, Receiver<ChainOrder>),
    ) -> io::Result<()> {
        let Core { manager, payments, .. } = &self.core;
        workers::spawn_workers(manager, &mailboxes)?;
        let owner = payments.clone();
        spawn("payments", move || owner.work(&notices))?;
        let (wallet, broadcaster) = (self.wallet.clone(), self.outside.broadcaster.clone());
        let (sweeper, answered) = (self.sweeper.clone(), manager.clone());
        spawn("wallet", move || carry_out(&orders, &wallet, &broadcaster, &sweeper, &answered))?;
        let (estimator, told, stop) = (self.outside.estimator.clone(), manager.clone(), self.outside.stop.clone());
        spawn("feerates", move || follow_estimates(&estimator, &told, &stop))?;
        Ok(())
    }

    /// Begins to look for what is wrong; `told` is what earlier runs said of it.
    fn begin_looking_out(
        &self,
        chain: watch::Receiver<Option<ChainState>>,
        (told, room): (Troubles, Room),
        doors: Arc<Doors<Doorkeeper>>,
    ) -> io::Result<()> {
        let lookout = Lookout {
            manager: self.core.manager.clone(),
            chain,
            sinks: self.sinks.clone(),
            tell_disk: Box::new(move |words| doors.report(|status| status.disk = words)),
        };
        let stop = self.outside.stop.clone();
        spawn("lookout", move || lookout.run(told, room, &stop))?;
        Ok(())
    }

    /// Begins to follow the chain; `state` is told where it stands, and callers what is wrong with the clock.
    fn begin_following(
        &self,
        state: watch::Sender<Option<ChainState>>,
        doors: Arc<Doors<Doorkeeper>>,
    ) -> io::Result<JoinHandle<()>> {
        let listener: Arc<dyn BlockListener> = Arc::new(self.listener(state, doors));
        let Outside { source, stop, .. } = &self.outside;
        let (source, stop) = (source.clone(), stop.clone());
        let (begin, poll) = ((self.config.network, self.config.start_height), self.config.bitcoind.poll);
        spawn("chain", move || Follower::run(source, listener, begin, poll, &stop))
    }
}
