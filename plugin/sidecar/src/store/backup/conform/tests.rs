//! The suite over sinks that keep the contract, and over some that break it: each of those is caught, with words.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

use super::*;
use crate::store::backup::command::{CommandSink, CommandSource, Program};
use crate::store::backup::directory::{DirectorySink, DirectorySource, make_place};
use crate::store::backup::mirror::{Mirror, MirrorPlace, MirrorSource};
use crate::store::backup::sealed::Sealer;
use crate::store::backup::{Holding, SinkFault};

mod in_database;

fn terms() -> Terms {
    let node_id =
        NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &SecretKey::from_slice(&[1; 32]).unwrap()));
    let patience = Duration::from_secs(20);
    Terms { network: "regtest".to_owned(), node_id, patience, now: Instant::now, seed: 7 }
}

fn sealer(terms: &Terms) -> Arc<Sealer> {
    Arc::new(Sealer::new(&[1; 32], &terms.network, &terms.node_id))
}

/// What a sink on the way does to the calls and completions of a good one.
type Spoil = fn(Box<dyn Persist>, SinkEnds) -> Box<dyn Persist>;

/// A directory, spoilt or not.
struct InDirectory {
    dir: tempfile::TempDir,
    full_every: usize,
    spoil: Spoil,
}

impl Subject for InDirectory {
    fn sink(&mut self, ends: SinkEnds) -> Result<Box<dyn Persist>, String> {
        let (path, terms) = (self.dir.path().to_owned(), terms());
        make_place(&path, (&terms.network, &terms.node_id)).map_err(|fault| fault.to_string())?;
        let owner = (terms.network.clone(), terms.node_id);
        let good = DirectorySink::new(path, owner, sealer(&terms), self.full_every, ends.clone());
        Ok((self.spoil)(Box::new(good), ends))
    }

    fn source(&mut self) -> Result<Box<dyn Source>, String> {
        let terms = terms();
        let opened = DirectorySource::open(self.dir.path(), (&terms.network, &terms.node_id), sealer(&terms));
        opened.map(|source| Box::new(source) as Box<dyn Source>).map_err(|fault| fault.to_string())
    }
}

fn in_directory(full_every: usize, spoil: Spoil) -> Vec<Outcome> {
    run(&mut InDirectory { dir: tempfile::tempdir().unwrap(), full_every, spoil }, &terms())
}

/// The checks that failed, and what they say.
fn faults(outcomes: Vec<Outcome>) -> BTreeMap<&'static str, String> {
    let is_hopeless = outcomes.first().is_some_and(|outcome| outcome.fault.is_some());
    assert_eq!(outcomes.len(), if is_hopeless { 1 } else { checks::ALL.len() });
    outcomes.into_iter().filter_map(|outcome| Some((outcome.name, outcome.fault?))).collect()
}

fn none() -> BTreeMap<&'static str, String> {
    BTreeMap::new()
}

#[test]
fn per_2_a_directory_keeps_the_contract_however_often_it_consolidates() {
    for full_every in [0, 1, 3, 100] {
        assert_eq!(faults(in_directory(full_every, |sink, _| sink)), none(), "a full write every {full_every}");
    }
}

/// Copies the files into a directory as a kill leaves them.
type Killer = Box<dyn Fn(&Path)>;

/// A mirror, which one program opens at a time.
struct InMirror {
    dir: tempfile::TempDir,
    killer: Option<Killer>,
}

impl InMirror {
    fn place(&self) -> MirrorPlace {
        let Terms { network, node_id, .. } = terms();
        MirrorPlace::new(self.dir.path().join("mirror.redb"), &network, node_id)
    }
}

impl Subject for InMirror {
    fn sink(&mut self, ends: SinkEnds) -> Result<Box<dyn Persist>, String> {
        self.place().make().map_err(|fault| fault.to_string())?;
        let mirror = Mirror::new(self.place(), ends);
        self.killer = Some(Box::new(mirror.killer()));
        Ok(Box::new(mirror))
    }

    /// What an end in order does to the files does not count.
    fn kill(&mut self, sink: Box<dyn Persist>) {
        let left = tempfile::tempdir().unwrap();
        self.killer.take().unwrap()(left.path());
        drop(sink);
        for file in std::fs::read_dir(left.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), self.dir.path().join(file.file_name())).unwrap();
        }
    }

    fn reads_beside(&self) -> bool {
        false
    }

    fn source(&mut self) -> Result<Box<dyn Source>, String> {
        let opened = MirrorSource::open(self.place());
        opened.map(|source| Box::new(source) as Box<dyn Source>).map_err(|fault| fault.to_string())
    }
}

#[test]
fn per_2_a_mirror_keeps_the_contract() {
    assert_eq!(faults(run(&mut InMirror { dir: tempfile::tempdir().unwrap(), killer: None }, &terms())), none());
}

/// The program of `contrib/examples`, its text spoilt or not.
struct ByProgram {
    dir: tempfile::TempDir,
    program: PathBuf,
    killer: Option<Box<dyn Fn() + Send>>,
}

impl ByProgram {
    fn new(spoil: impl Fn(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
        let program = dir.path().join("program");
        std::fs::write(&program, spoil(std::fs::read_to_string(example).unwrap())).unwrap();
        Self { dir, program, killer: None }
    }

    fn program(&self) -> Program {
        let terms = terms();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        Program {
            name: "test".to_owned(),
            command: vec!["bash".to_owned(), text(&self.program), text(&self.dir.path().join("kept"))],
            network: terms.network.clone(),
            node_id: terms.node_id,
            sealer: sealer(&terms),
            limit: Duration::from_secs(20),
        }
    }
}

impl Subject for ByProgram {
    fn sink(&mut self, ends: SinkEnds) -> Result<Box<dyn Persist>, String> {
        let sink = CommandSink::new(self.program(), ends);
        self.killer = Some(Box::new(sink.killer()));
        Ok(Box::new(sink))
    }

    fn kill(&mut self, sink: Box<dyn Persist>) {
        self.killer.take().unwrap()();
        drop(sink);
    }

    fn source(&mut self) -> Result<Box<dyn Source>, String> {
        let started = CommandSource::start(self.program());
        started.map(|source| Box::new(source) as Box<dyn Source>).map_err(|fault| fault.to_string())
    }
}

/// Replaces a part of the example that must be there.
fn instead(part: &'static str, other: &'static str) -> impl Fn(String) -> String {
    move |text| {
        assert!(text.contains(part), "{part}");
        text.replace(part, other)
    }
}

const ANSWERED: &str = r#"field id; printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$value" "$result""#;

#[test]
fn per_2_the_example_in_contrib_keeps_the_contract() {
    assert_eq!(faults(run(&mut ByProgram::new(|text| text), &terms())), none());
}

#[test]
fn per_2_a_program_may_complete_later_and_may_die_now_and_then() {
    // It answers `in_progress` and tells the completion behind it.
    let later = r#"told=; [[ $method == *persist*channel ]] && told=1 && result='{"answer":"in_progress"}'
        field id; printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$value" "$result"
        field channel_id; name=$value; field update_id
        [[ -n $told ]] && printf '{"jsonrpc":"2.0","method":"channel_monitor_updated","params":{"channel_id":"%s","update_id":%s}}\n' "$name" "$value""#;
    assert_eq!(faults(run(&mut ByProgram::new(instead(ANSWERED, later)), &terms())), none());
    // Before every seventh write is worked on, so some are given a second time.
    let mortal = instead(
        "    field method;",
        "    [[ $line != *persist* ]] || ((writes = ${writes:-0} + 1, writes % 7)) || exit 1; field method;",
    );
    assert_eq!(faults(run(&mut ByProgram::new(mortal), &terms())), none());
}

#[test]
fn a_program_that_forgets_is_caught() {
    let forgetful = instead("        keep \"$file\"\n", "        [[ $file == */update.* ]] || keep \"$file\"\n");
    let found = faults(run(&mut ByProgram::new(forgetful), &terms()));
    assert!(found["updates"].ends_with("is read back at id 1, and 40 was completed"), "{found:?}");
    assert!(found.contains_key("kill") && found.contains_key("restart") && !found.contains_key("new"), "{found:?}");
}

#[test]
fn a_program_that_swaps_what_it_gives_back_is_caught() {
    let swaps = instead(
        "fetch) field kind; file=$channel/$value.$(number follows).$id",
        "fetch) file=$(echo \"$channel\"/full.*)",
    );
    let found = faults(run(&mut ByProgram::new(swaps), &terms()));
    assert!(found["updates"].contains("is read back at id 1, and 40 was completed"), "{found:?}");
    assert!(!found.contains_key("new"), "{found:?}");
}

/// A sink that passes every call on, but for what it was made to do otherwise.
struct Between {
    good: Box<dyn Persist>,
    ends: SinkEnds,
    after: fn(&SinkEnds, &ChannelId, u64, Answer) -> Answer,
    forgets: fn(u64) -> bool,
}

fn between(
    (good, ends): (Box<dyn Persist>, SinkEnds),
    after: fn(&SinkEnds, &ChannelId, u64, Answer) -> Answer,
    forgets: fn(u64) -> bool,
) -> Box<dyn Persist> {
    Box::new(Between { good, ends, after, forgets })
}

impl Persist for Between {
    fn persist_new_channel(&mut self, channel: &ChannelId, funding: OutPoint, full: &Full<'_>, id: u64) -> Answer {
        let answer = self.good.persist_new_channel(channel, funding, full, id);
        (self.after)(&self.ends, channel, id, answer)
    }

    fn update_persisted_channel(
        &mut self,
        channel: &ChannelId,
        funding: OutPoint,
        update: Option<&Update>,
        full: &Full<'_>,
        id: u64,
    ) -> Answer {
        if (self.forgets)(id) {
            return Answer::Completed;
        }
        let answer = self.good.update_persisted_channel(channel, funding, update, full, id);
        (self.after)(&self.ends, channel, id, answer)
    }

    fn persist_tip(&mut self, tip: &TipRecord) -> Answer {
        self.good.persist_tip(tip)
    }

    fn all_given(&mut self) {
        self.good.all_given();
    }

    fn holdings(&mut self) -> Result<Vec<Holding>, SinkFault> {
        self.good.holdings()
    }
}

#[test]
fn per_2_a_sink_may_complete_from_another_thread_and_later() {
    let slow: Spoil = |good, ends| {
        between(
            (good, ends),
            |ends, channel, id, answer| {
                assert_eq!(answer, Answer::Completed);
                let (ends, channel) = (ends.clone(), *channel);
                // Even ids a little later than odd ones: out of order.
                std::thread::spawn(move || {
                    if id % 2 == 1 || ends.pause(Duration::from_millis(5)) {
                        ends.channel_monitor_updated(&channel, id);
                    }
                });
                Answer::InProgress
            },
            |_| false,
        )
    };
    assert_eq!(faults(in_directory(3, slow)), none());
}

#[test]
fn a_sink_that_completes_twice_is_caught() {
    let twice: Spoil = |good, ends| {
        let after = |ends: &SinkEnds, channel: &ChannelId, id, answer| {
            ends.channel_monitor_updated(channel, id);
            answer
        };
        between((good, ends), after, |_| false)
    };
    let found = faults(in_directory(3, twice));
    assert!(found["once"].contains("which is not open: twice, or never given"), "{found:?}");
}

#[test]
fn a_sink_that_never_completes_is_caught() {
    let never: Spoil = |good, ends| between((good, ends), |_, _, _, _| Answer::InProgress, |_| false);
    let terms = Terms { patience: Duration::from_millis(20), ..terms() };
    let mut subject = InDirectory { dir: tempfile::tempdir().unwrap(), full_every: 3, spoil: never };
    let found = faults(run(&mut subject, &terms));
    assert!(found["new"].contains("was not completed within 0 s"), "{found:?}");
}

#[test]
fn a_sink_that_gives_up_is_caught_with_its_words() {
    let fails: Spoil = |good, ends| {
        between((good, ends), |_, _, _, _| Answer::PermanentFailure("the line is cut".to_owned()), |_| false)
    };
    let found = faults(in_directory(3, fails));
    assert!(found["new"].ends_with("for good: the line is cut"), "{found:?}");
}

#[test]
fn a_sink_that_completes_what_it_did_not_keep_is_caught() {
    let lies: Spoil = |good, ends| between((good, ends), |_, _, _, answer| answer, |id| id == 3);
    let found = faults(in_directory(100, lies));
    assert!(found.contains_key("restart"), "{found:?}");
    assert!(found["restart"].contains("says id 2 of channel"), "{found:?}");
}
