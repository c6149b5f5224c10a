//! The benchmark's own sink, a program as `contrib/sinks.md` has it: it appends each record to a file, syncs that and says
//! that it is complete, but for the channels that it is told to hold. Those it completes when it is told to let them go.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_integration::Done;
use serde_json::{Value, json};

/// The file with the names of the channels that are held, a line each.
const HELD: &str = "held";

/// What is given to it goes there, end to end.
const RECORDS: &str = "records";

/// How often it looks whether what it holds may go.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Tells the sink in this directory to hold these channels from now on, and to let all others go.
pub(crate) fn hold(directory: &Path, channels: &[String]) -> Done<()> {
    let unfinished = directory.join("held.new");
    std::fs::write(&unfinished, channels.join("\n"))?;
    Ok(std::fs::rename(unfinished, directory.join(HELD))?)
}

/// How it is started as a program of the node's, with its files in this directory.
pub(crate) fn command(directory: &Path) -> Done<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    Ok(vec![program, "--sink".to_owned(), directory.display().to_string()])
}

/// What is open: the channel and the id of each write that was answered and not completed.
type Open = Mutex<Vec<(String, u64)>>;

/// Serves one node until its input ends.
pub(crate) fn serve(directory: &Path) -> Done<()> {
    let records = File::options().create(true).append(true).open(directory.join(RECORDS))?;
    let mut sink = Sink { directory: directory.to_owned(), records };
    let open = Arc::new(Open::default());
    let (held, place) = (open.clone(), directory.to_owned());
    std::thread::spawn(move || let_go(&place, &held));
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        // Nothing is completed that was not answered.
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, left_open) = sink.answer(&request)?;
        say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))?;
        open.extend(left_open);
    }
    Ok(())
}

struct Sink {
    directory: PathBuf,
    records: File,
}

impl Sink {
    /// The result of a request, and the write that it leaves open.
    fn answer(&mut self, request: &Value) -> Done<(Value, Option<(String, u64)>)> {
        let params = &request["params"];
        let result = match request["method"].as_str().unwrap_or_default() {
            "hello" => json!({"protocol": 1}),
            // What was there before is of no use to it: it is given everything anew.
            "list_channels" => json!({"channel_ids": []}),
            "list_records" => json!({"records": []}),
            "fetch" | "fetch_tip" => json!({"record": null}),
            "persist_new_channel" | "update_persisted_channel" => return self.write(params),
            _ => json!({"answer": "completed"}),
        };
        Ok((result, None))
    }

    fn write(&mut self, params: &Value) -> Done<(Value, Option<(String, u64)>)> {
        let record = params["update"].as_str().or(params["monitor"].as_str()).ok_or("a write without a record")?;
        self.records.write_all(record.as_bytes())?;
        self.records.sync_data()?;
        let channel = params["channel_id"].as_str().ok_or("a write of no channel")?.to_owned();
        let id = params["update_id"].as_u64().ok_or("a write without its id")?;
        if held(&self.directory).contains(&channel) {
            return Ok((json!({"answer": "in_progress"}), Some((channel, id))));
        }
        Ok((json!({"answer": "completed"}), None))
    }
}

fn held(directory: &Path) -> BTreeSet<String> {
    let names = std::fs::read_to_string(directory.join(HELD)).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// Completes what is open once it is not held any more.
fn let_go(directory: &Path, open: &Open) -> Done<()> {
    loop {
        std::thread::sleep(LOOK_AGAIN);
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_empty() {
            continue;
        }
        let held = held(directory);
        for (channel, id) in open.extract_if(.., |(channel, _)| !held.contains(channel)) {
            let params = json!({"channel_id": channel, "update_id": id});
            say(&json!({"jsonrpc": "2.0", "method": "channel_monitor_updated", "params": params}))?;
        }
    }
}

fn say(words: &Value) -> Done<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{words}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_answered_as_in_progress_and_all_else_as_completed() {
        let directory = tempfile::tempdir().unwrap();
        let records = File::create(directory.path().join(RECORDS)).unwrap();
        let mut sink = Sink { directory: directory.path().to_owned(), records };
        hold(directory.path(), &["aa".to_owned()]).unwrap();
        let write = |channel: &str| {
            let params = json!({"channel_id": channel, "update_id": 7, "update": "cmVjb3Jk"});
            json!({"id": 1, "method": "update_persisted_channel", "params": params})
        };
        let held = sink.answer(&write("aa")).unwrap();
        assert_eq!(held, (json!({"answer": "in_progress"}), Some(("aa".to_owned(), 7))));
        assert_eq!(sink.answer(&write("bb")).unwrap(), (json!({"answer": "completed"}), None));
        hold(directory.path(), &[]).unwrap();
        assert_eq!(sink.answer(&write("aa")).unwrap(), (json!({"answer": "completed"}), None));
        assert_eq!(std::fs::read(directory.path().join(RECORDS)).unwrap(), b"cmVjb3JkcmVjb3JkcmVjb3Jk");
        let hello = json!({"id": 1, "method": "hello", "params": {"protocol": 1}});
        assert_eq!(sink.answer(&hello).unwrap(), (json!({"protocol": 1}), None));
    }
}
