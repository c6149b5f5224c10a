//! An operator's program as a child process: requests go to its standard input and answers come from its standard output,
//! one JSON object a line. Whatever it does, memory is bounded, nothing hangs for good, and its fault has words.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use outrigger_bolt::id::ChannelId;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;
use serde_json::{Value, json};

use super::life::{Life, Living};
use super::remains::Thread;

pub(super) use super::remains::Remains;

/// Bytes of an answer that carries no record.
pub(super) const SHORT_LINE: usize = 64 * 1024;

/// How long an answer may take before the program is taken to hang.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Completions that nobody waits for, in the life of one process, after which it is not believed any more.
const MAX_STRAYS: u64 = 100;

/// Lines of its standard error that are logged after each request, and bytes of each.
const LOGGED_LINES: usize = 20;
const LOGGED_BYTES: usize = 512;

/// How long the program has to end once its input is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long it, and what hears it, may take to end once it was killed.
const BURIAL: Duration = Duration::from_secs(2);

/// What is wrong with the program. It was ended, and may be started again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChildFault {
    #[error("it cannot be started: {0}")]
    Start(String),
    #[error(
        "its process {0} was killed and lives on: end it as its own user (kill -9 {0}), or mend the disk that it waits for; it is \
         started again once that process is gone"
    )]
    Left(u32),
    #[error("it ended or closed its output")]
    Ended,
    #[error("it gave no answer to {method} within {seconds} s")]
    Silent { method: &'static str, seconds: u64 },
    #[error("it wrote a line of more than {0} bytes")]
    LongLine(usize),
    #[error("it wrote a line that is no JSON-RPC 2.0: {0}")]
    NotJson(String),
    #[error("it answered request {0}, which is not open")]
    NotAsked(u64),
    #[error("it announced more than {MAX_STRAYS} completions of writes that are not open, such as {0}")]
    Strays(String),
    #[error("it answered {method} with an error: {words}")]
    Refused { method: &'static str, words: String },
    #[error("it answered {method} with something else than is asked for: {words}")]
    Answer { method: &'static str, words: String },
}

/// Told of each completion; says whether anything was open for it.
pub(super) type OnCompleted = Arc<dyn Fn(ChannelId, u64) -> bool + Send + Sync>;

/// Told that the program has ended, or is not listened to any more.
pub(super) type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// One life of the program. Once it is dropped nothing that came in it is told any more.
pub(super) struct Child {
    process: Option<std::process::Child>,
    /// The process group that it leads.
    group: Option<Pid>,
    /// Ends a process and its group.
    end: fn(Pid),
    /// Where it is left behind.
    remains: Remains,
    life: Life,
    lines: Option<Sender<String>>,
    answers: Receiver<Heard>,
    /// The threads that wait for its end and hear what it says.
    watcher: Option<Thread>,
    hearer: Option<Thread>,
    shared: Arc<Shared>,
    next_request: u64,
    limit: Duration,
}

/// What the readers and the owner share.
struct Shared {
    name: String,
    /// The request that is open; 0 for none.
    asked: AtomicU64,
    /// Bytes that a line may have.
    line_limit: AtomicUsize,
    /// Lines of standard error that may still be logged.
    log_lines: AtomicUsize,
    strays: AtomicU64,
    has_ended: AtomicBool,
    /// Nothing that it says counts any more.
    is_over: AtomicBool,
    on_completed: OnCompleted,
    on_end: OnEnd,
}

enum Heard {
    Answer(Result<Value, String>),
    Fault(ChildFault),
}

/// A line of the program: an answer, or a completion.
#[derive(Deserialize)]
struct Line {
    jsonrpc: String,
    id: Option<u64>,
    #[serde(default, deserialize_with = "some_value")]
    result: Option<Value>,
    error: Option<Value>,
    method: Option<String>,
    params: Option<Completion>,
}

/// `null` is an answer too.
fn some_value<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct Completion {
    channel_id: String,
    update_id: u64,
}

impl Child {
    /// Starts the program, with its arguments as they are: no shell reads them. Refused while what `remains` of it lives.
    pub(super) fn start(
        name: &str,
        command: &[String],
        limit: Duration,
        (on_completed, on_end): (OnCompleted, OnEnd),
        remains: &Remains,
    ) -> Result<Self, ChildFault> {
        if let Some(process) = remains.process() {
            return Err(ChildFault::Left(process));
        }
        let (program, arguments) =
            command.split_first().ok_or_else(|| ChildFault::Start("no program is named".to_owned()))?;
        let refused = |fault: io::Error| ChildFault::Start(fault.to_string());
        let life = Life::begin().map_err(refused)?;
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|fault| ChildFault::Start(format!("{program}: {fault}")))?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            asked: AtomicU64::new(0),
            line_limit: AtomicUsize::new(SHORT_LINE),
            log_lines: AtomicUsize::new(LOGGED_LINES),
            strays: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            on_completed,
            on_end,
        });
        let group = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let (lines, to_write) = bounded(1);
        // One request is open at a time, so one answer waits at most, and one fault behind it.
        let (heard, answers) = bounded(2);
        let lines = Some(lines);
        let (watcher, hearer, next_request, remains) = (None, None, 1, remains.clone());
        let process = Some(process);
        let mut child = Self {
            process,
            group,
            end: end_group,
            remains,
            life,
            lines,
            answers,
            watcher,
            hearer,
            shared,
            next_request,
            limit,
        };
        // One that cannot be attended to is ended as it is dropped.
        child.attend(to_write, heard).map_err(refused)?;
        Ok(child)
    }

    /// Starts the threads of a life.
    fn attend(&mut self, to_write: Receiver<String>, heard: Sender<Heard>) -> io::Result<()> {
        let life = self.life.clone();
        if let Some(leader) = self.group {
            self.watcher = Some(Thread::begin("sink-end", move || life.watch(leader))?);
        }
        let Some(process) = &mut self.process else { return Ok(()) };
        if let Some(stdin) = process.stdin.take() {
            let stdin = self.life.writes(stdin)?;
            Thread::begin("sink-input", move || write(stdin, &to_write))?;
        }
        if let Some(stdout) = process.stdout.take() {
            let (shared, stdout) = (self.shared.clone(), self.life.reads(stdout));
            self.hearer = Some(Thread::begin("sink-output", move || shared.hear(stdout, &heard))?);
        }
        if let Some(stderr) = process.stderr.take() {
            let (shared, stderr) = (self.shared.clone(), self.life.reads(stderr));
            Thread::begin("sink-log", move || shared.log(stderr))?;
        }
        Ok(())
    }

    /// Whether it has ended, or is not listened to any more.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.has_ended.load(Ordering::Acquire)
    }

    /// Asks, and waits for the answer, which has at most `line_limit` bytes.
    pub(super) fn ask(&mut self, method: &'static str, params: Value, line_limit: usize) -> Result<Value, ChildFault> {
        let request = self.next_request;
        self.next_request = request.saturating_add(1);
        self.shared.line_limit.store(line_limit, Ordering::Release);
        self.shared.log_lines.store(LOGGED_LINES, Ordering::Relaxed);
        self.shared.asked.store(request, Ordering::Release);
        let line = json!({ "jsonrpc": "2.0", "id": request, "method": method, "params": params }).to_string();
        let silent = ChildFault::Silent { method, seconds: self.limit.as_secs() };
        let lines = self.lines.as_ref().ok_or(ChildFault::Ended)?;
        // A program that does not read leaves its last line unwritten.
        lines.send_timeout(line, self.limit).map_err(|fault| match fault {
            crossbeam_channel::SendTimeoutError::Timeout(_) => silent.clone(),
            crossbeam_channel::SendTimeoutError::Disconnected(_) => self.last_words(),
        })?;
        match self.answers.recv_timeout(self.limit) {
            Ok(Heard::Answer(Ok(answer))) => Ok(answer),
            Ok(Heard::Answer(Err(words))) => Err(ChildFault::Refused { method, words }),
            Ok(Heard::Fault(fault)) => Err(fault),
            Err(RecvTimeoutError::Timeout) => Err(silent),
            Err(RecvTimeoutError::Disconnected) => Err(ChildFault::Ended),
        }
    }

    /// Why it reads no more, where it has said so.
    fn last_words(&self) -> ChildFault {
        match self.answers.recv_timeout(self.limit) {
            Ok(Heard::Fault(fault)) => fault,
            Ok(Heard::Answer(_)) | Err(_) => ChildFault::Ended,
        }
    }
}

impl Child {
    /// Ends the program at once, with what it started. It is buried by [`drop`] alone: until then its number is nobody else's.
    pub(super) fn kill(&mut self) {
        if let Some(group) = self.group {
            (self.end)(group);
        }
    }

    /// As a program of another user is to this process.
    #[cfg(test)]
    pub(super) fn cannot_be_killed(&mut self) {
        self.end = |_| ();
    }
}

fn end_group(group: Pid) {
    // It may have ended by now, or have left its group.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = kill_process(group, Signal::KILL);
}

impl Drop for Child {
    /// Its input ends; a program that does not end then is killed, and in any case what it started. What it said before it ended
    /// counts, and nothing that comes later. One that lives on is left behind: whoever waits for it would wait for ever.
    fn drop(&mut self) {
        self.lines = None;
        while let Ok(Heard::Answer(_)) = self.answers.recv_timeout(FAREWELL) {}
        self.kill();
        let ends = |thread: &Option<Thread>| thread.as_ref().is_none_or(|thread| thread.ends_within(BURIAL));
        let has_ended = ends(&self.watcher);
        self.life.end();
        // Whoever has something to tell yet finds that nobody listens.
        self.answers = crossbeam_channel::never();
        ends(&self.hearer);
        self.shared.is_over.store(true, Ordering::Release);
        let Some(process) = self.process.take() else { return };
        if !has_ended {
            let fault = ChildFault::Left(process.id());
            tracing::error!(sink = %self.shared.name, %fault, "a program that keeps backups cannot be ended");
        }
        self.remains.take(process, self.watcher.take());
    }
}

/// The program answered with something else than is asked for.
pub(super) fn odd_answer(method: &'static str, answer: &Value) -> ChildFault {
    ChildFault::Answer { method, words: shown(answer.to_string().as_bytes()) }
}

/// Writes lines until there are no more, or nobody reads them.
fn write(mut stdin: Living<ChildStdin>, lines: &Receiver<String>) {
    for mut line in lines {
        line.push('\n');
        if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

impl Shared {
    /// Takes in lines until the program ends or breaks the protocol. It waits while nobody takes what it heard.
    fn hear(&self, stdout: Living<ChildStdout>, heard: &Sender<Heard>) {
        let mut reader = BufReader::new(stdout);
        let fault = loop {
            let taken = self.line(&mut reader).and_then(|line| self.take(&line));
            let told = match taken {
                Ok(Some(answer)) => heard.send(Heard::Answer(answer)),
                Ok(None) => Ok(()),
                Err(fault) => break fault,
            };
            if told.is_err() {
                return;
            }
        };
        self.has_ended.store(true, Ordering::Release);
        // Nobody listens to one that is given up. One whose answer nobody awaits has a free place.
        let _ = heard.send(Heard::Fault(fault));
        (self.on_end)();
    }

    /// The next line, without its end. It never holds more than is allowed at the time.
    fn line(&self, reader: &mut impl BufRead) -> Result<Vec<u8>, ChildFault> {
        let mut line = Vec::new();
        loop {
            let chunk = match reader.fill_buf() {
                Ok([]) => return Err(ChildFault::Ended),
                Ok(chunk) => chunk,
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(ChildFault::Ended),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let limit = self.line_limit.load(Ordering::Acquire);
            if line.len().saturating_add(part.len()) > limit {
                return Err(ChildFault::LongLine(limit));
            }
            line.extend_from_slice(part);
            let used = part.len().saturating_add(usize::from(end.is_some()));
            reader.consume(used);
            if end.is_some() {
                return Ok(line);
            }
        }
    }

    /// What a line says: an answer for whoever asked, or a completion, which is told at once.
    fn take(&self, line: &[u8]) -> Result<Option<Result<Value, String>>, ChildFault> {
        let bad = |reason: &str| ChildFault::NotJson(format!("{reason}: {}", shown(line)));
        let line: Line = serde_json::from_slice(line).map_err(|fault| bad(&fault.to_string()))?;
        if line.jsonrpc != "2.0" {
            return Err(bad("its jsonrpc is not 2.0"));
        }
        match (line.id, line.method.as_deref(), line.params) {
            (Some(id), None, None) => {
                // An answer closes its request: a second one was not asked for.
                if id == 0 || self.asked.compare_exchange(id, 0, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    return Err(ChildFault::NotAsked(id));
                }
                match (line.result, line.error) {
                    (Some(result), None) => Ok(Some(Ok(result))),
                    (None | Some(Value::Null), Some(error)) => Ok(Some(Err(shown(error.to_string().as_bytes())))),
                    (None, None) | (Some(_), Some(_)) => Err(bad("it has neither a result nor an error, or both")),
                }
            }
            (None, Some("channel_monitor_updated"), Some(completion)) => {
                let channel = completion.channel_id.parse().map_err(|_| bad("its channel_id is none"))?;
                self.completed(channel, completion.update_id).map(|()| None)
            }
            (_, Some(method), _) => Err(bad(&format!("{} is not a call that it may make", shown(method.as_bytes())))),
            (_, None, _) => Err(bad("it is neither an answer nor a completion")),
        }
    }

    fn completed(&self, channel: ChannelId, id: u64) -> Result<(), ChildFault> {
        if self.is_over.load(Ordering::Acquire) || (self.on_completed)(channel, id) {
            return Ok(());
        }
        // Nothing waits for it, so nothing comes of it: one that came twice, or for a process before.
        let strays = self.strays.fetch_add(1, Ordering::Relaxed);
        if strays >= MAX_STRAYS {
            return Err(ChildFault::Strays(format!("{id} of {channel}")));
        }
        if strays == 0 {
            tracing::warn!(sink = %self.name, %channel, id, "completion of a write that is not open: it counts for nothing");
        }
        Ok(())
    }

    /// Logs what the program says of itself, within limits.
    fn log(&self, stderr: Living<ChildStderr>) {
        let mut reader = BufReader::new(stderr);
        loop {
            let mut line = Vec::new();
            match reader.by_ref().take(LOGGED_BYTES as u64).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
            let may_log = |lines: usize| lines.checked_sub(1);
            if self.log_lines.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_log).is_ok() {
                tracing::info!(sink = %self.name, "it says: {}", shown(&line));
            }
        }
    }
}

/// Foreign bytes for a log or an error: escaped, and not many.
pub(super) fn shown(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |last| last.saturating_add(1));
    let bytes = bytes.get(..end).unwrap_or_default();
    let short = bytes.get(..LOGGED_BYTES.min(bytes.len())).unwrap_or_default();
    let rest = if short.len() < bytes.len() { "…" } else { "" };
    format!("{}{rest}", String::from_utf8_lossy(short).escape_debug())
}

/// Reads a line as the program's output is read, for the fuzzer: any bytes have an outcome.
pub fn line_of_a_program(line: &[u8]) -> Result<(), ChildFault> {
    let shared = Shared {
        name: String::new(),
        asked: AtomicU64::new(1),
        line_limit: AtomicUsize::new(SHORT_LINE),
        log_lines: AtomicUsize::new(0),
        strays: AtomicU64::new(0),
        has_ended: AtomicBool::new(false),
        is_over: AtomicBool::new(false),
        on_completed: Arc::new(|_, _| false),
        on_end: Arc::new(|| {}),
    };
    shared.take(line).map(drop)
}
