//! `outriggerd restore` and `outriggerd sink-check`: what is done without a node.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use outrigger_bolt::id::NodeId;
use serde_json::{Value, json};

use super::StartFault;
use super::lock::lock_directory;
use crate::clock::Clock;
use crate::config::{BackupKind, Config, RestoreOrder, SinkCheckOrder, network_name, place_text};
use crate::key::{NodeKeys, Seed, SeedFault};
use crate::store;
use crate::store::backup::command::{self, CommandSink, CommandSource, Program};
use crate::store::backup::conform::{self, Outcome, Subject, Terms};
use crate::store::backup::directory::DirectorySource;
use crate::store::backup::mirror::{MirrorPlace, MirrorSource};
use crate::store::backup::sealed::Sealer;
use crate::store::backup::source::{Source, SourceFault};
use crate::store::backup::{Followed, Persist, SinkEnds};
use crate::store::restore::{Fate, Found, Rebuilt, Restore, RestoreFault, check_vacant};
use crate::wallet::Wallet;

/// Addresses of each kind that a restored wallet takes for given out: its count is lost with the database.
const ADDRESSES: u32 = crate::wallet::WIDE;

/// How long a program may take to complete a write while it is checked.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum NotRestored {
    #[error("{0}")]
    Start(#[from] StartFault),
    #[error("{0}")]
    Seed(#[from] SeedFault),
    #[error("{0}")]
    Restore(#[from] RestoreFault),
    #[error(
        "there is no seed in {0}: put the file `seed` with the 24 words of the node there first, readable by its owner only \
         (chmod 600)"
    )]
    NoSeed(String),
}

impl From<SourceFault> for NotRestored {
    fn from(fault: SourceFault) -> Self {
        Self::Restore(fault.into())
    }
}

/// What is told of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// For the operator, or one JSON object.
    pub text: String,
    pub ending: Ending,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing is missing of what the backup tells of, nor how far the chain was followed.
    Whole,
    /// Something is missing, or differs.
    Partly,
    /// Something could not be read now: of a restore nothing was written. Of a comparison, that nothing else is known to be missing.
    Unread,
}

impl Ending {
    fn of(rebuilt: &Rebuilt, errand: Errand, takes_what_is_there: bool) -> Self {
        let is_left = rebuilt.is_unread() && !takes_what_is_there;
        match errand {
            Errand::Restore | Errand::DryRun | Errand::Compare if rebuilt.is_whole() => Self::Whole,
            // Nothing is written then, whatever else is wrong.
            Errand::Restore | Errand::DryRun if is_left => Self::Unread,
            // What is wrong for certain is not hidden by what another look may find.
            Errand::Compare if is_left && !rebuilt.has_faults() => Self::Unread,
            Errand::Restore | Errand::DryRun | Errand::Compare => Self::Partly,
        }
    }
}

/// What is done with a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Restore,
    DryRun,
    Compare,
}

impl Errand {
    /// What the words for the operator begin with.
    const fn heading(self, ending: Ending) -> &'static str {
        match (self, ending) {
            (Self::Restore, Ending::Unread) => "NOT restored, nothing was written",
            (Self::Restore, Ending::Whole | Ending::Partly) => "restored",
            (Self::DryRun, _) => "a dry run, which wrote nothing, of",
            (Self::Compare, _) => "compared with its database",
        }
    }
}

/// Makes the data directory, or tells what would come of it.
pub fn restore(config: &Config, order: &RestoreOrder) -> Result<Told, NotRestored> {
    let directory = config.network_dir();
    // A dry run may stand beside a node that runs: it reads the seed and no more.
    let _lock = if order.dry_run { None } else { Some(lock_directory(&directory)?) };
    if !order.dry_run {
        check_vacant(&directory)?;
    }
    let errand = if order.dry_run { Errand::DryRun } else { Errand::Restore };
    told(config, order, errand, |restore, source| match order.dry_run {
        true => restore.in_memory(source).map(|(rebuilt, _)| rebuilt),
        false => restore.into_directory(source, &directory),
    })
}

/// Restores in memory and holds what comes of it against the database, while no node runs. Nothing is changed by a byte.
pub fn verify_backup(config: &Config, order: &RestoreOrder) -> Result<Told, NotRestored> {
    let directory = config.network_dir();
    let _lock = lock_directory(&directory)?;
    told(config, order, Errand::Compare, |restore, source| {
        // None is made where there is none.
        if !directory.join(store::FILE).exists() {
            let path = directory.join(store::FILE).display().to_string();
            return Err(SourceFault::unreadable(path, "there is no database to compare with").into());
        }
        let live = store::open_to_look(&directory, restore.network, &restore.node_id)?;
        restore.compared(source, &live)
    })
}

fn told(
    config: &Config,
    order: &RestoreOrder,
    errand: Errand,
    work: impl FnOnce(&Restore<'_>, &mut dyn Source) -> Result<Rebuilt, RestoreFault>,
) -> Result<Told, NotRestored> {
    let directory = config.network_dir();
    let seed = Seed::load(&directory)?.ok_or_else(|| NotRestored::NoSeed(directory.display().to_string()))?;
    let keys = NodeKeys::derive(&seed, config.network);
    let (network, node_id) = (network_name(config.network), keys.node_id());
    let proof = format!("it was restored from {}", place_text(&order.from));
    let wallet = |from: Followed| {
        let row = Wallet::resumed_at(&seed, config.network, (from.height, from.hash), ADDRESSES);
        row.map_err(|fault| fault.to_string())
    };
    let takes_what_is_there = order.takes_what_is_there;
    let restore = Restore { network, node_id, proof: &proof, wallet: &wallet, takes_what_is_there };
    let mut source = source(&order.from, (network, &node_id), &keys)?;
    let rebuilt = match work(&restore, &mut *source) {
        Err(RestoreFault::Unread(rebuilt)) => *rebuilt,
        rebuilt => rebuilt?,
    };
    let ending = Ending::of(&rebuilt, errand, takes_what_is_there);
    let text = if order.json {
        as_json(&rebuilt, (network, &node_id), (order, errand), &directory).to_string()
    } else {
        let (heading, place) = (errand.heading(ending), place_text(&order.from));
        let mut text = format!("{heading}: node {node_id} on {network} from {place}\n");
        as_text(&mut text, &rebuilt, (errand, ending));
        text
    };
    Ok(Told { text, ending })
}

/// A backup at this place, for reading.
fn source(
    place: &BackupKind,
    (network, node_id): (&str, &NodeId),
    keys: &NodeKeys,
) -> Result<Box<dyn Source>, SourceFault> {
    let sealer = Arc::new(Sealer::new(keys.backup_secret(), network, node_id));
    match place {
        BackupKind::Mirror { path } => {
            let place = MirrorPlace::new(path.clone(), network, *node_id);
            Ok(Box::new(MirrorSource::open(place)?))
        }
        BackupKind::Directory { path, .. } => Ok(Box::new(DirectorySource::open(path, (network, node_id), sealer)?)),
        BackupKind::Command { command } => {
            let program = Program {
                name: "restore".to_owned(),
                command: command.clone(),
                network: network.to_owned(),
                node_id: *node_id,
                sealer,
                limit: command::ANSWER_LIMIT,
            };
            Ok(Box::new(CommandSource::start(program)?))
        }
    }
}

/// What comes home of a channel, and when.
fn prospect(found: &Found) -> &'static str {
    match found.fate {
        Fate::Restored => "the peer is asked to close; ours comes to the wallet once its close is confirmed",
        Fate::Waiting => {
            "it had failed, and no commitment of it was in a block; this node publishes none any more, so it waits for the peer, which \
             is asked to publish its own: ours comes to the wallet once that is confirmed"
        }
        Fate::Closing => "it had begun to close; what is not home yet comes to the wallet as its delays pass",
        Fate::History => "it had closed, and everything of it is home",
        Fate::Frozen => "its rows do not fit together: it is kept as it is and nothing is done with it; ask for help",
        Fate::Lost if !found.unread.is_empty() => {
            "it could not be read, and may be there all the same: run this again before you go on without it"
        }
        Fate::Lost => "it is left out; ask its peer to close it, and ask for help before you give it up",
    }
}

fn as_json(
    rebuilt: &Rebuilt,
    (network, node_id): (&str, &NodeId),
    (order, errand): (&RestoreOrder, Errand),
    directory: &Path,
) -> Value {
    let channels = rebuilt.channels.iter().map(|found| {
        json!({
            "channel_id": found.channel.to_string(),
            "outcome": found.fate.word(),
            "peer": found.peer.map(|peer| peer.to_string()),
            "capacity_sat": found.capacity.map(|capacity| capacity.get()),
            "balance_msat": found.balance.map(|balance| balance.get()),
            "htlcs": found.htlcs,
            "cost_sat": found.cost.map(|cost| cost.get()),
            "restored_to": found.reached,
            "newest": found.newest,
            "faults": found.faults,
            "unread": found.unread,
            "expect": prospect(found),
        })
    });
    json!({
        "from": place_text(&order.from),
        "data_directory": directory.display().to_string(),
        "dry_run": errand == Errand::DryRun,
        "compared": errand == Errand::Compare,
        "written": errand == Errand::Restore && Ending::of(rebuilt, errand, order.takes_what_is_there) != Ending::Unread,
        "network": network,
        "node_id": node_id.to_string(),
        "is_whole": rebuilt.is_whole(),
        "block_height": rebuilt.follows.map(|from| from.height),
        "faults": rebuilt.faults,
        "unread": rebuilt.unread,
        "channels": channels.collect::<Vec<_>>(),
    })
}

fn as_text(text: &mut String, rebuilt: &Rebuilt, (errand, ending): (Errand, Ending)) {
    for found in &rebuilt.channels {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
        let _ = writeln!(
            text,
            "\nchannel {}: {}\n  peer {}, capacity {} sat, ours {} sat, {} HTLCs; write {} of {}\n  its close costs us up to {} sat; \
             {}",
            found.channel,
            found.fate.word(),
            shown(found.peer.map(|peer| peer.to_string())),
            shown(found.capacity.map(|capacity| capacity.get().to_string())),
            shown(found.balance.map(|balance| (balance.get() / 1000).to_string())),
            found.htlcs,
            shown(found.reached.map(|id| id.to_string())),
            shown(found.newest.map(|id| id.to_string())),
            shown(found.cost.map(|cost| cost.get().to_string())),
            prospect(found),
        );
        for fault in &found.faults {
            let _ = writeln!(text, "  wrong: {fault}");
        }
        for words in &found.unread {
            let _ = writeln!(text, "  not read: {words}");
        }
    }
    for words in &rebuilt.unread {
        let _ = writeln!(text, "\nnot read of the backup: {words}");
    }
    for fault in &rebuilt.faults {
        let _ = writeln!(text, "\nwrong with the backup: {fault}");
    }
    let chain = match rebuilt.follows {
        Some(from) => format!("The chain is followed from block {} on.", from.height),
        None => "No record of the chain was found: a close that is in a block already will not be seen.".to_owned(),
    };
    let _ = match (errand, ending) {
        (Errand::Restore | Errand::DryRun, Ending::Unread) => {
            write!(text, "\n{} {}", summary(rebuilt, (errand, ending)), not_written(errand))
        }
        _ => write!(text, "\n{} {chain} {}", summary(rebuilt, (errand, ending)), expectations(errand)),
    };
}

/// What an operator does where something could not be read.
const fn not_written(errand: Errand) -> &'static str {
    match errand {
        Errand::Restore => {
            "Nothing was written: run it again. Where that does not help, mend the backup; or, with --take-what-is-there, what could be \
             read is restored, and what could not is left out for good."
        }
        Errand::DryRun | Errand::Compare => {
            "A restore would write nothing: run this again. Where that does not help, mend the backup; or, with --take-what-is-there, \
             what can be read is restored, and what cannot is left out for good."
        }
    }
}

/// How many channels there are of each kind, and whether that is all.
fn summary(rebuilt: &Rebuilt, (errand, ending): (Errand, Ending)) -> String {
    let words: BTreeSet<_> = rebuilt.channels.iter().map(|found| found.fate.word()).collect();
    let count = |word: &&str| rebuilt.channels.iter().filter(|found| found.fate.word() == *word).count();
    let counts: Vec<_> = words.iter().map(|word| format!("{} {word}", count(word))).collect();
    let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let is_whole = match (ending, errand) {
        (Ending::Whole, Errand::Restore | Errand::DryRun) => "Nothing that the backup tells of is missing.",
        (Ending::Whole, Errand::Compare) => "A restore would bring back what the database has.",
        (Ending::Partly, Errand::Restore | Errand::DryRun) => {
            "Something that the backup tells of is missing, as told above (exit code 2)."
        }
        (Ending::Partly, Errand::Compare) if rebuilt.is_unread() => {
            "A restore would not bring back what the database has, as told above (exit code 2). More could not be read now, as told above: \
             run it again when that is mended."
        }
        (Ending::Partly, Errand::Compare) => {
            "A restore would not bring back what the database has, as told above (exit code 2)."
        }
        (Ending::Unread, Errand::Restore | Errand::DryRun) => {
            "Something of the backup could not be read, as told above, and may be there all the same (exit code 6)."
        }
        (Ending::Unread, Errand::Compare) => {
            "Not everything could be compared, since something of the backup could not be read, as told above: run it again (exit code 6)."
        }
    };
    format!("Channels: {counts}. {is_whole}")
}

const fn expectations(errand: Errand) -> &'static str {
    match errand {
        Errand::Restore | Errand::DryRun => EXPECTATIONS,
        Errand::Compare => "Nothing was changed.",
    }
}

/// What happens next and what it costs.
const EXPECTATIONS: &str = "\
The node that starts from this is in restored mode for good: it signs nothing and publishes no commitment of its own, since newer \
ones may exist. It asks every peer to close; a peer that is away is asked when it comes back. Each close costs the on-chain fee \
of a commitment, which the channel's opener pays, and of bringing the output home. Balances are those of the backup and may have \
moved since; HTLCs in flight may be lost. Payments, invoices and events are not in a backup. Coins that the wallet had before are \
found by a start with --wallet-start-height HEIGHT, a block before the first of them. Start outriggerd, leave it running until every channel is closed, \
and start no other copy of this node.";

/// The program under the suite.
struct Checked {
    program: Program,
    /// The same program in the name of another node.
    other: Program,
    killer: Option<Box<dyn Fn() + Send>>,
}

impl Subject for Checked {
    fn sink(&mut self, ends: SinkEnds) -> Result<Box<dyn Persist>, String> {
        let sink = CommandSink::new(self.program.clone(), ends);
        self.killer = Some(Box::new(sink.killer()));
        Ok(Box::new(sink))
    }

    fn kill(&mut self, sink: Box<dyn Persist>) {
        if let Some(kill) = self.killer.take() {
            kill();
        }
        drop(sink);
    }

    fn source(&mut self) -> Result<Box<dyn Source>, String> {
        started(&self.program)
    }

    fn source_of_another(&mut self) -> Option<Result<Box<dyn Source>, String>> {
        Some(started(&self.other))
    }
}

fn started(program: &Program) -> Result<Box<dyn Source>, String> {
    match CommandSource::start(program.clone()) {
        Ok(source) => Ok(Box::new(source)),
        Err(fault) => Err(fault.to_string()),
    }
}

/// Puts a program through the Persist contract, as a node that was made up for it. Gives what is to be printed, and whether it
/// keeps the contract.
pub fn sink_check(order: &SinkCheckOrder) -> Result<(String, bool), StartFault> {
    let secret: [u8; 32] = Clock::random_bytes()?;
    let seed = order.seed.unwrap_or_else(|| secret.iter().take(6).fold(0, |seed, byte| seed << 8 | u64::from(*byte)));
    let network = "regtest".to_owned();
    let as_node = |secret: &[u8; 32]| {
        let node_id = made_up_node(secret);
        Program {
            name: "sink-check".to_owned(),
            command: order.command.clone(),
            network: network.clone(),
            node_id,
            sealer: Arc::new(Sealer::new(secret, &network, &node_id)),
            limit: command::ANSWER_LIMIT,
        }
    };
    let (program, other) = (as_node(&secret), as_node(&secret.map(|byte| !byte)));
    let node_id = program.node_id;
    let terms = Terms { network, node_id, patience: PATIENCE, now: Clock::monotonic, seed };
    let outcomes = conform::run(&mut Checked { program, other, killer: None }, &terms);
    let is_sound = outcomes.iter().all(|outcome| outcome.fault.is_none());
    let text = if order.json { outcomes_as_json(&outcomes, seed) } else { outcomes_as_text(&outcomes, seed) };
    Ok((text, is_sound))
}

/// A node that nobody has: what a program keeps of it meets no real one's.
fn made_up_node(secret: &[u8; 32]) -> NodeId {
    let mut candidate = *secret;
    loop {
        candidate = sha256::Hash::hash(&candidate).to_byte_array();
        // Fails for one candidate in 2^127.
        if let Ok(key) = SecretKey::from_slice(&candidate) {
            return NodeId::new(key.public_key(&Secp256k1::signing_only()));
        }
    }
}

fn outcomes_as_json(outcomes: &[Outcome], seed: u64) -> String {
    let checks: Vec<_> = outcomes
        .iter()
        .map(|outcome| json!({ "check": outcome.name, "asks": outcome.asks, "fault": outcome.fault }))
        .collect();
    let is_sound = outcomes.iter().all(|outcome| outcome.fault.is_none());
    json!({ "keeps_the_contract": is_sound, "seed": seed, "checks": checks }).to_string()
}

fn outcomes_as_text(outcomes: &[Outcome], seed: u64) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let word = if outcome.fault.is_none() { "ok  " } else { "FAIL" };
        // A string takes whatever is written.
        let _ = writeln!(text, "{word} {:10} {}", outcome.name, outcome.asks);
        if let Some(fault) = &outcome.fault {
            let _ = writeln!(text, "     {:10} {fault}", "");
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.fault.is_some()).count();
    let _ = match failed {
        0 => write!(text, "It keeps the contract: {} checks (seed {seed}).", outcomes.len()),
        failed => {
            write!(text, "It does not keep the contract: {failed} of {} checks failed (seed {seed}).", outcomes.len())
        }
    };
    text
}
