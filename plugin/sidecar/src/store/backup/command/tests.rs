//! A program that does what it should not: each fault has its words, none hangs, and memory is bounded.

use std::path::Path;
use std::time::Instant;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

use super::super::source::Source;
use super::child::{Child, SHORT_LINE};
use super::*;

fn bash(script: &str) -> Vec<String> {
    ["bash", "-c", script].map(str::to_owned).to_vec()
}

fn child(script: &str, limit: Duration) -> Child {
    started(script, limit, &Remains::default()).unwrap()
}

fn started(script: &str, limit: Duration, remains: &Remains) -> Result<Child, ChildFault> {
    Child::start("test", &bash(script), limit, (Arc::new(|_, _| false), Arc::new(|| {})), remains)
}

/// What comes of the first question.
fn asked(script: &str) -> Result<Value, ChildFault> {
    child(script, Duration::from_secs(20)).ask("hello", json!({}), SHORT_LINE)
}

fn fault(script: &str) -> ChildFault {
    asked(script).unwrap_err()
}

const RIGHT: &str = r#"read -r line; echo '{"jsonrpc":"2.0","id":1,"result":{"protocol":1}}';"#;

#[test]
fn an_answer_comes_back() {
    assert_eq!(asked(&format!("{RIGHT} cat")).unwrap(), json!({ "protocol": 1 }));
    assert_eq!(asked(r#"read -r line; echo '{"jsonrpc":"2.0","id":1,"result":null}'; cat"#).unwrap(), Value::Null);
}

#[test]
fn a_program_that_is_not_there_or_ends_is_told_as_such() {
    let (ends, remains): ((OnCompleted, OnEnd), _) = ((Arc::new(|_, _| false), Arc::new(|| {})), Remains::default());
    let none = Child::start("test", &["/nowhere/sink".to_owned()], ANSWER_LIMIT, ends, &remains);
    assert!(none.map(drop).unwrap_err().to_string().starts_with("it cannot be started: /nowhere/sink: "));
    assert_eq!(fault("exit 3"), ChildFault::Ended);
    assert_eq!(fault("read -r line; exec >&-; cat"), ChildFault::Ended);
}

#[test]
fn a_program_that_hangs_is_not_waited_for_without_end() {
    let silent = ChildFault::Silent { method: "hello", seconds: 0 };
    let limit = Duration::from_millis(200);
    assert_eq!(child("cat >/dev/null", limit).ask("hello", json!({}), SHORT_LINE), Err(silent.clone()));
    // It does not even read: more than a pipe holds waits to be written, and then another line.
    let mut deaf = child("sleep 600", limit);
    let large = json!("x".repeat(1_000_000));
    assert_eq!(deaf.ask("hello", large.clone(), SHORT_LINE), Err(silent.clone()));
    assert_eq!(deaf.ask("hello", large.clone(), SHORT_LINE), Err(silent.clone()));
    assert_eq!(deaf.ask("hello", large, SHORT_LINE), Err(silent));
}

/// A program of another user, or one that waits for a disk: nothing ends it.
#[test]
fn a_program_that_cannot_be_ended_is_left_behind_and_told_and_no_other_life_begins_before_it_is_gone() {
    let remains = Remains::default();
    let script = format!("{RIGHT} sleep 600");
    let mut deaf = started(&script, Duration::from_secs(20), &remains).unwrap();
    deaf.ask("hello", json!({}), SHORT_LINE).unwrap();
    assert_eq!(remains.process(), None);
    deaf.cannot_be_killed();
    // Ends, and does not wait for ten minutes.
    drop(deaf);
    let process = remains.process().unwrap();
    let refused = started("cat", ANSWER_LIMIT, &remains).map(drop).unwrap_err();
    assert_eq!(refused, ChildFault::Left(process));
    assert!(refused.to_string().contains(&format!("kill -9 {process}")), "{refused}");
    let group = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while remains.process().is_some() {
        assert!(Instant::now() < deadline, "it is gone");
        std::thread::yield_now();
    }
    assert!(started("cat", ANSWER_LIMIT, &remains).is_ok());
}

#[test]
fn a_line_without_an_end_and_a_flood_take_no_memory() {
    assert_eq!(fault("tr '\\0' a </dev/zero"), ChildFault::LongLine(SHORT_LINE));
    assert!(matches!(fault("yes"), ChildFault::NotJson(words) if words.ends_with(": y")));
    // Right answers to a question that was not asked.
    let many = r#"yes '{"jsonrpc":"2.0","id":2,"result":1}'"#;
    assert_eq!(fault(many), ChildFault::NotAsked(2));
}

#[test]
fn what_is_no_json_rpc_is_refused_with_what_it_was() {
    for (line, words) in [
        ("what", "expected value at line 1 column 1: what"),
        ("{}", "missing field `jsonrpc`"),
        (r#"{"jsonrpc":"1.0","id":1,"result":1}"#, "its jsonrpc is not 2.0"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "neither a result nor an error, or both"),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, "neither a result nor an error, or both"),
        (r#"{"jsonrpc":"2.0","id":-1,"result":1}"#, "invalid value"),
        (r#"{"jsonrpc":"2.0","method":"stop","id":1}"#, "stop is not a call that it may make"),
        (r#"{"jsonrpc":"2.0","method":"channel_monitor_updated"}"#, "is not a call that it may make"),
        (
            r#"{"jsonrpc":"2.0","method":"channel_monitor_updated","params":{"channel_id":"7","update_id":1}}"#,
            "its channel_id is none",
        ),
        (r#"{"jsonrpc":"2.0"}"#, "neither an answer nor a completion"),
        (r#"{"jsonrpc":"2.0","id":1,"result":"\u0007"#, "EOF while parsing"),
    ] {
        let fault = fault(&format!("read -r first; printf '%s\\n' '{line}'; cat"));
        assert!(matches!(&fault, ChildFault::NotJson(found) if found.contains(words)), "{line}: {fault}");
    }
    let fault = fault("printf '\\e[31mred\\n'; cat");
    assert!(fault.to_string().contains("\\u{1b}[31mred"), "escaped: {fault}");
}

#[test]
fn an_answer_that_comes_twice_or_for_another_question_ends_it() {
    let mut twice = child(&format!("{RIGHT} {}", RIGHT.replacen("read -r line; ", "", 1)), Duration::from_secs(20));
    twice.ask("hello", json!({}), SHORT_LINE).unwrap();
    assert_eq!(twice.ask("next", json!({}), SHORT_LINE), Err(ChildFault::NotAsked(1)));
    assert_eq!(fault(r#"echo '{"jsonrpc":"2.0","id":9,"result":1}'; cat"#), ChildFault::NotAsked(9));
    assert_eq!(fault(r#"echo '{"jsonrpc":"2.0","id":0,"result":1}'; cat"#), ChildFault::NotAsked(0));
}

#[test]
fn an_error_is_no_answer() {
    let refused =
        fault(r#"read -r line; echo '{"jsonrpc":"2.0","id":1,"error":{"code":7,"message":"the store is away"}}'; cat"#);
    assert!(matches!(&refused, ChildFault::Refused { method: "hello", .. }), "{refused}");
    assert!(refused.to_string().contains("the store is away"));
}

#[test]
fn completions_that_nobody_awaits_count_for_nothing_and_too_many_end_it() {
    let stray = format!(
        r#"{{"jsonrpc":"2.0","method":"channel_monitor_updated","params":{{"channel_id":"{}","update_id":7}}}}"#,
        "07".repeat(32)
    );
    let some = format!("for i in $(seq 100); do echo '{stray}'; done; {RIGHT} cat");
    assert_eq!(asked(&some).unwrap(), json!({ "protocol": 1 }));
    let many = fault(&format!("yes '{stray}'"));
    assert_eq!(many, ChildFault::Strays(format!("7 of {}", "07".repeat(32))));
}

#[test]
fn what_it_writes_to_its_standard_error_does_not_stop_it() {
    assert!(asked(&format!("yes | head -c 3000000 >&2; {RIGHT} cat")).is_ok());
    assert!(asked(&format!("head -c 3000000 /dev/zero >&2; {RIGHT} cat")).is_ok());
}

#[test]
fn a_record_of_the_chain_that_was_kept_ends_the_trouble_with_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
    let secret = SecretKey::from_slice(&[1; 32]).unwrap();
    let node_id = NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret));
    let program = Program {
        name: "test".to_owned(),
        command: [example.as_path(), dir.path()].map(|word| word.display().to_string()).to_vec(),
        network: "regtest".to_owned(),
        node_id,
        sealer: Arc::new(Sealer::new(&[1; 32], "regtest", &node_id)),
        limit: ANSWER_LIMIT,
    };
    let ends = SinkEnds::new(|_, _| (), Instant::now);
    let mut sink = CommandSink::new(program, ends.clone());
    ends.trouble("the line is cut");
    let (network, hash, peers) = ("regtest".to_owned(), BlockHash::from_byte_array([7; 32]), Vec::new());
    let tip = TipRecord { network, node_id, height: 144, hash, at_unix: 1_800_000_000, peers, channels: None };
    assert_eq!(sink.persist_tip(&tip), Answer::Completed);
    assert!(ends.trouble_now().is_none());
    ends.stop();
}

#[test]
fn it_ends_with_its_sink_and_takes_along_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! >'{}'; {RIGHT} trap '' TERM; sleep 600", mark.display());
    let mut stubborn = child(&script, Duration::from_secs(20));
    stubborn.ask("hello", json!({}), SHORT_LINE).unwrap();
    let started: u32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    drop(stubborn);
    let state = || std::fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
    // Dead, and perhaps not buried yet.
    let begun = Instant::now();
    while !state().is_empty() && !state().contains(") Z ") {
        assert!(begun.elapsed() < ANSWER_LIMIT, "what it started lives on: {}", state());
        std::thread::yield_now();
    }
}

#[test]
fn what_shows_foreign_bytes_is_short_and_escaped() {
    assert_eq!(shown(b"plain \n"), "plain");
    assert_eq!(shown(b"\x1b[0m\xff"), "\\u{1b}[0m\u{fffd}");
    assert!(shown(&[b'a'; 100_000]).len() < 600);
}

mod writes {
    //! What the ledger makes of answers and completions.

    use bitcoin::hashes::Hash;

    use super::*;

    fn ledger() -> (Ledger, Receiver<u64>) {
        let (told, heard) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(move |_: &ChannelId, id| told.send(id).unwrap(), Instant::now);
        (Ledger::new(ends), heard)
    }

    const CHANNEL: ChannelId = ChannelId([7; 32]);

    fn request() -> Arc<Request> {
        Arc::new(Request { method: "test", params: Value::Null })
    }

    fn full(id: u64) -> RecordName {
        RecordName::full(CHANNEL, id)
    }

    fn update(id: u64) -> RecordName {
        RecordName::update(CHANNEL, id - 1, id)
    }

    #[test]
    fn per_2_completions_in_any_order_are_told_once_each() {
        let (ledger, heard) = ledger();
        for id in 2..=4 {
            assert_eq!(ledger.enter(&update(id), id, &request()), Place::New);
        }
        assert!(ledger.completed(&CHANNEL, 3) && ledger.completed(&CHANNEL, 2));
        assert!(!ledger.completed(&CHANNEL, 3), "twice");
        assert!(!ledger.completed(&CHANNEL, 9) && !ledger.completed(&ChannelId([8; 32]), 4), "never given");
        assert_eq!(ledger.answered(&update(4), 4), Answer::Completed);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [3, 2], "an answer is told by itself");
    }

    #[test]
    fn per_2_a_full_write_completes_what_it_voids_and_what_came_with_it() {
        let (ledger, heard) = ledger();
        ledger.enter(&update(2), 2, &request());
        // The view is at 5 when 3 is written.
        assert_eq!(ledger.enter(&full(5), 3, &request()), Place::New);
        ledger.accepted(&full(5));
        assert_eq!(ledger.to_give_again().len(), 1, "the update need not be given again");
        assert_eq!(ledger.enter(&update(4), 4, &request()), Place::Open);
        assert_eq!(ledger.enter(&update(6), 6, &request()), Place::New);
        assert!(ledger.completed(&CHANNEL, 5));
        let mut told: Vec<_> = heard.try_iter().collect();
        told.sort_unstable();
        assert_eq!(told, [2, 3, 4]);
        assert_eq!(ledger.enter(&update(5), 5, &request()), Place::Complete);
        assert!(ledger.completed(&CHANNEL, 2), "late, and no stray");
        assert_eq!(ledger.to_give_again().len(), 1);
    }

    #[test]
    fn an_answer_that_a_completion_overtook_is_not_told_twice() {
        let (ledger, heard) = ledger();
        ledger.enter(&update(2), 2, &request());
        assert!(ledger.completed(&CHANNEL, 2));
        assert_eq!(ledger.answered(&update(2), 2), Answer::InProgress);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [2]);
        assert!(!ledger.withdraw(&CHANNEL, 2), "and a fault does not give it again");
    }

    #[test]
    fn updates_go_as_such_while_they_follow_and_are_few() {
        let (ledger, _heard) = ledger();
        let change = |after, id| Update { channel: CHANNEL, after, id, changes: Vec::new() };
        assert!(!ledger.takes(&change(0, 1)), "nothing is there to follow");
        ledger.holds(&Holding { channel: CHANNEL, id: 7 }, 0);
        assert!(ledger.takes(&change(7, 8)) && !ledger.takes(&change(8, 9)), "a gap");
        for id in 8..8 + 64 {
            assert!(ledger.takes(&change(id - 1, id)));
            ledger.enter(&update(id), id, &request());
        }
        assert!(!ledger.takes(&change(71, 72)), "a full write is due");
    }

    /// What a program lists, and a restore reads, does not grow with a channel's history.
    #[test]
    fn a_full_record_is_due_after_so_many_updates_though_each_of_them_is_complete() {
        let (ledger, _heard) = ledger();
        let follows = |after| ledger.takes(&Update { channel: CHANNEL, after, id: after + 1, changes: Vec::new() });
        ledger.holds(&Holding { channel: CHANNEL, id: 7 }, 4000);
        for id in 8..8 + 96 {
            assert!(follows(id - 1));
            ledger.enter(&update(id), id, &request());
            assert_eq!(ledger.answered(&update(id), id), Answer::Completed);
        }
        assert!(!follows(103), "there are 4096");
        ledger.enter(&full(104), 104, &request());
        assert!(follows(104));
    }

    /// It dies, and has an empty place before it when it comes back: by the updates alone nothing could be restored.
    #[test]
    fn per_2_a_program_that_comes_back_over_an_empty_store_is_given_everything_first() {
        let dir = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/examples/keep-in-directory");
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        let node_id = NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret));
        let kept = dir.path().join("kept");
        let program = Program {
            name: "test".to_owned(),
            command: [example.as_path(), &kept].map(|word| word.display().to_string()).to_vec(),
            network: "regtest".to_owned(),
            node_id,
            sealer: Arc::new(Sealer::new(&[1; 32], "regtest", &node_id)),
            limit: ANSWER_LIMIT,
        };
        let (told, lost) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(|_, _| (), Instant::now).losing(move |channel| told.send(*channel).unwrap());
        let mut sink = CommandSink::new(program.clone(), ends.clone());
        let funding = OutPoint { txid: bitcoin::Txid::from_byte_array([7; 32]), vout: 0 };
        let other = ChannelId([8; 32]);
        let image = |channel, id| {
            let mut image = super::super::super::Image::new("regtest", node_id, channel, id);
            image.rows.insert((crate::store::schema::Table::ChannelParams, channel.0.to_vec()), b"params".to_vec());
            image
        };
        for channel in [CHANNEL, other] {
            let read = || Ok(image(channel, 1));
            let answer = sink.persist_new_channel(&channel, funding, &Full::new(&read), 1);
            assert_eq!(answer, Answer::Completed);
        }
        let follow = |sink: &mut CommandSink, id| {
            let (read, update) =
                (|| Ok(image(CHANNEL, id)), Update { channel: CHANNEL, after: id - 1, id, changes: Vec::new() });
            sink.update_persisted_channel(&CHANNEL, funding, Some(&update), &Full::new(&read), id)
        };
        assert_eq!(follow(&mut sink, 2), Answer::Completed);
        // One that comes back to what it had is given no more than the update.
        sink.killer()();
        assert_eq!(follow(&mut sink, 3), Answer::Completed);
        assert!(lost.is_empty());
        sink.killer()();
        std::fs::remove_dir_all(&kept).unwrap();
        assert_eq!(follow(&mut sink, 4), Answer::Completed);
        let mut told: Vec<_> = lost.try_iter().collect();
        told.sort_unstable();
        assert_eq!(told, [CHANNEL, other], "also the one of which nothing comes");
        assert_eq!(follow(&mut sink, 5), Answer::Completed);
        ends.stop();
        drop(sink);
        let mut source = CommandSource::start(program).unwrap();
        let mut stored = source.read(&CHANNEL).unwrap();
        assert_eq!(stored.image().unwrap().id, 5, "{:?}", stored.faults);
        assert_eq!(source.channels().unwrap(), [CHANNEL]);
    }

    /// A program of these lines, which are given what `$line` holds, for each line. `$id` is the request's.
    fn program(lines: &str) -> Program {
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        let node_id = NodeId::new(PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret));
        let answer = r#"answer() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }"#;
        let hello = r#"if [[ $line == *'"hello"'* ]]; then answer '"result":{"protocol":1}'; continue; fi"#;
        let script = format!(
            r#"{answer}; while read -r line; do [[ $line =~ '"id":'([0-9]+) ]]; id=${{BASH_REMATCH[1]}}; {hello}
            {lines}
            done"#
        );
        Program {
            name: "test".to_owned(),
            command: bash(&script),
            network: "regtest".to_owned(),
            node_id,
            sealer: Arc::new(Sealer::new(&[1; 32], "regtest", &node_id)),
            limit: Duration::from_secs(20),
        }
    }

    /// Gives all of a channel to a sink.
    fn given(sink: &mut CommandSink, channel: ChannelId) -> Answer {
        let node_id = sink.machine.lock().program.node_id;
        let read = || Ok(super::super::super::Image::new("regtest", node_id, channel, 1));
        let funding = OutPoint { txid: bitcoin::Txid::from_byte_array([7; 32]), vout: 0 };
        sink.persist_new_channel(&channel, funding, &Full::new(&read), 1)
    }

    /// What stands in a file once it is there.
    fn once_written(path: &Path) -> String {
        let begun = Instant::now();
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                Ok(_) | Err(_) => assert!(begun.elapsed() < ANSWER_LIMIT, "{} is not there", path.display()),
            }
            std::thread::yield_now();
        }
    }

    /// What it has in its hands is not to be lost for a look at what it keeps.
    #[test]
    fn a_read_that_it_refuses_or_answers_oddly_does_not_end_it() {
        let dir = tempfile::tempdir().unwrap();
        let starts = dir.path().join("starts");
        let lines = format!(
            r#"[[ -n $started ]] || echo start >>'{}'; started=yes
            case $line in
            *list_channels*) answer '"result":{{"channel_ids":7}}' ;;
            *list_records*) answer '"error":{{"code":1,"message":"not now"}}' ;;
            *fetch_tip*) answer '"error":{{"code":2,"message":"nor this"}}' ;;
            *) answer '"result":{{"answer":"in_progress"}}' ;;
            esac"#,
            starts.display()
        );
        let (told, lost) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(|_, _| (), Instant::now).losing(move |channel| told.send(*channel).unwrap());
        let mut sink = CommandSink::new(program(&lines), ends);
        assert_eq!(given(&mut sink, CHANNEL), Answer::InProgress);
        let mut source = sink.reader().unwrap()().unwrap();
        let stored = source.read(&CHANNEL).unwrap();
        assert!(stored.full.is_none());
        assert!(stored.unread[0].starts_with("it answered list_records with an error: "), "{:?}", stored.unread);
        assert!(stored.unread[0].contains("not now") && stored.faults.is_empty(), "it may be there");
        let refused = source.channels().unwrap_err().to_string();
        assert!(refused.contains("it answered list_channels with something else"), "{refused}");
        assert_eq!(source.tip(), Ok(None));
        assert!(source.unread().concat().contains("nor this"));
        assert!(source.unread().is_empty() && source.faults().is_empty(), "once");
        assert_eq!(given(&mut sink, ChannelId([8; 32])), Answer::InProgress);
        assert_eq!(std::fs::read_to_string(&starts).unwrap(), "start\n");
        assert_eq!((sink.ledger.to_give_again().len(), lost.len()), (2, 0), "both are in its hands");
    }

    /// What it holds may prove that the database is old, so what it does not tell now is neither taken for nothing nor written over.
    #[test]
    fn bak_1_a_program_that_does_not_tell_what_it_holds_is_asked_again() {
        let name = CHANNEL.to_string();
        let whole = format!(r#"*list_channels*after*{name}*) answer '"result":{{"channel_ids":[]}}' ;;"#);
        let list = format!(r#"*list_channels*) answer '"result":{{"channel_ids":["{name}"]}}' ;;"#);
        let records = r#"*list_records*) answer '"result":{"records":[{"kind":"full","update_id":90}]}' ;;"#;
        let error = r#"answer '"error":{"code":1,"message":"the store is away"}' ;;"#;
        let none = r#"*fetch*) answer '"result":{"record":null}' ;;"#;
        let holdings = |cases: &[&str]| {
            let lines = format!("case $line in\n{}\nesac", cases.join("\n"));
            CommandSink::new(program(&lines), SinkEnds::new(|_, _| (), Instant::now)).holdings()
        };
        let page = format!("*list_channels*after*{name}*) {error}");
        let [names, fetch] = ["*list_records*", "*fetch*"].map(|asked| format!("{asked}) {error}"));
        let odd = r#"*fetch*) answer '"result":{}' ;;"#;
        for cases in [
            [page.as_str(), &list, records, none],
            [&whole, &list, &names, none],
            [&whole, &list, records, &fetch],
            [&whole, &list, records, odd],
        ] {
            assert!(matches!(holdings(&cases), Err(SinkFault::Passing(_))), "{cases:?}");
        }
        // What it says it has lost it has lost.
        assert_eq!(holdings(&[&whole, &list, records, none]), Ok(Vec::new()));
    }

    /// What it started outlives it, in a group of its own, and has its output: what that says belongs to the life that is over.
    #[test]
    fn per_5_a_completion_by_what_an_earlier_life_has_started_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let completion = format!(
            r#"{{"jsonrpc":"2.0","method":"channel_monitor_updated","params":{{"channel_id":"{}","update_id":1}}}}"#,
            "07".repeat(32)
        );
        let lines = format!(
            r#"answer '"result":{{"answer":"in_progress"}}'
            if [[ ! -e '{first}' ]]; then
                touch '{first}'; set -m
                (trap '' PIPE; until [[ -e '{go}' ]]; do sleep 0.01; done
                if echo '{completion}' 2>/dev/null; then said=heard; else said=unheard; fi; echo $said >'{mark}') &
                exit 1
            fi
            echo again >'{second}'; until [[ -e '{end}' ]]; do sleep 0.01; done; echo '{completion}'"#,
            first = at("first").display(),
            go = at("go").display(),
            mark = at("mark").display(),
            second = at("second").display(),
            end = at("end").display(),
        );
        let (told, heard) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(move |_: &ChannelId, id| told.send(id).unwrap(), Instant::now);
        let mut sink = CommandSink::new(program(&lines), ends);
        assert_eq!(given(&mut sink, CHANNEL), Answer::InProgress);
        assert_eq!(once_written(&at("second")), "again\n");
        std::fs::write(at("go"), b"").unwrap();
        assert_eq!(once_written(&at("mark")), "unheard\n");
        assert!(heard.is_empty() && sink.ledger.to_give_again().len() == 1);
        std::fs::write(at("end"), b"").unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(1));
        assert_eq!(heard.try_iter().count(), 0, "once");
    }

    #[test]
    fn what_it_started_ends_with_it_though_nobody_asks_for_anything() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! >'{}'; {RIGHT} exit 0", mark.display());
        let mut child = child(&script, Duration::from_secs(20));
        child.ask("hello", json!({}), SHORT_LINE).unwrap();
        let started: u32 = once_written(&mark).trim().parse().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
        let begun = Instant::now();
        while !child.has_ended() || !(state().is_empty() || state().contains(") Z ")) {
            assert!(begun.elapsed() < ANSWER_LIMIT, "what it started lives on: {}", state());
            std::thread::yield_now();
        }
    }

    /// Whoever shows how the sink stands, and whoever stops it, is not kept waiting.
    #[test]
    fn a_sink_whose_program_cannot_be_ended_is_in_trouble_until_it_is_gone_and_then_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("first");
        let lines = format!(
            r#"if [[ ! -e '{0}' ]]; then touch '{0}'; exec sleep 600; fi; answer '"result":{{"answer":"completed"}}'"#,
            first.display()
        );
        let ends = SinkEnds::new(|_, _| (), Instant::now);
        let program = Program { limit: Duration::from_secs(5), ..program(&lines) };
        let mut sink = CommandSink::new(program, ends.clone());
        let machine = sink.machine.clone();
        machine.lock().child().unwrap().cannot_be_killed();
        let writes = std::thread::spawn(move || given(&mut sink, CHANNEL));
        let begun = Instant::now();
        let words = loop {
            match ends.trouble_now().filter(|(words, _)| words.contains("was killed and lives on")) {
                Some((words, _)) => break words,
                None => assert!(begun.elapsed() < ANSWER_LIMIT, "{:?}", ends.trouble_now()),
            }
            std::thread::yield_now();
        };
        let process = machine.lock().remains.process().unwrap();
        assert!(words.contains(&format!("end it as its own user (kill -9 {process})")), "{words}");
        assert!(!writes.is_finished());
        let leader = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
        rustix::process::kill_process(leader, rustix::process::Signal::KILL).unwrap();
        assert_eq!(writes.join().unwrap(), Answer::Completed);
        assert!(ends.trouble_now().is_none());
    }

    /// Of one that is too large for the program's store the others need not suffer.
    #[test]
    fn a_channel_that_is_too_large_for_it_waits_alone_and_is_shown() {
        let large = "07".repeat(32);
        let lines = format!(
            r#"if [[ $line == *'"channel_id":"{large}'* ]]; then answer '"result":{{"answer":"too_large","reason":"5 GiB are enough"}}'
            else answer '"result":{{"answer":"completed"}}'; fi"#
        );
        let ends = SinkEnds::new(|_, _| (), Instant::now);
        let mut sink = CommandSink::new(program(&lines), ends.clone());
        assert_eq!(given(&mut sink, CHANNEL), Answer::InProgress);
        assert_eq!(given(&mut sink, ChannelId([8; 32])), Answer::Completed);
        let (words, _) = ends.trouble_now().unwrap();
        let expected = format!("channel {large} has a record that is too large for the program: 5 GiB are enough");
        assert_eq!(words, expected, "also once others were written");
        assert_eq!((ends.take_alone(), sink.ledger.to_give_again().len()), (vec![CHANNEL], 0));
    }

    /// It dies with a write in its hands while nobody calls: it is started again and given the write again.
    #[test]
    fn per_5_what_was_open_when_it_died_is_given_again_and_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("second");
        let script = format!(
            r#"n=0; while read -r line; do n=$((n+1))
            if ((n == 1)); then echo '{{"jsonrpc":"2.0","id":1,"result":{{"protocol":1}}}}'; continue; fi
            echo '{{"jsonrpc":"2.0","id":2,"result":{{"answer":"in_progress"}}}}'
            [[ -e '{0}' ]] || {{ touch '{0}'; exit 1; }}
            echo '{{"jsonrpc":"2.0","method":"channel_monitor_updated","params":{{"channel_id":"{1}","update_id":1}}}}'
            done"#,
            mark.display(),
            "07".repeat(32)
        );
        let secret = bitcoin::secp256k1::SecretKey::from_slice(&[1; 32]).unwrap();
        let node_id = NodeId::new(secret.public_key(&bitcoin::secp256k1::Secp256k1::new()));
        let program = Program {
            name: "test".to_owned(),
            command: bash(&script),
            network: "regtest".to_owned(),
            node_id,
            sealer: Arc::new(Sealer::new(&[1; 32], "regtest", &node_id)),
            limit: Duration::from_secs(20),
        };
        let (told, heard) = crossbeam_channel::unbounded();
        let ends = SinkEnds::new(move |_: &ChannelId, id| told.send(id).unwrap(), Instant::now);
        let mut sink = CommandSink::new(program, ends);
        let read = || Ok(super::super::super::Image::new("regtest", node_id, CHANNEL, 1));
        let funding = OutPoint { txid: bitcoin::Txid::from_byte_array([7; 32]), vout: 0 };
        assert_eq!(sink.persist_new_channel(&CHANNEL, funding, &Full::new(&read), 1), Answer::InProgress);
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(1));
        assert!(sink.ledger.to_give_again().is_empty());
        assert_eq!(heard.try_iter().count(), 0, "once");
    }
}
