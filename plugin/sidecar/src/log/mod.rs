//! The log: what is written of what happens, for whom, and never what is secret. Lines of other people's crates come from
//! warnings on only: what they say in detail is not ours to answer for.

mod file;
mod line;
mod queue;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use outrigger_rpc_schema::{LogLevel, LogLevelsReport, LogTarget, nearest};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{LOG_TARGETS, LogConfig};
use crate::lock::Mutex;
use file::Rotating;
use line::Lines;
use queue::Queue;

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    /// The file cannot be written.
    #[error("the log cannot be written to {}: {error}. Nothing was started; see that its directory is there and ours (log_file)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// Nobody could write it.
    #[error("the log cannot be begun: {0}. Nothing was started")]
    Begin(io::Error),
    /// The process has a log already.
    #[error("the log is kept already")]
    Twice,
}

/// There is no part of this name.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownTarget {
    /// The part that is spelled most alike.
    pub nearest: Option<&'static str>,
}

/// What is logged of each part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    level: LogLevel,
    targets: BTreeMap<&'static str, LogLevel>,
}

impl Chosen {
    /// As the filter reads it, the more particular winning.
    fn directives(&self) -> String {
        let others = self.level.min(LogLevel::Warn).name();
        let ours = self.level.name();
        let mut text = format!("{others},outrigger_sidecar={ours},outriggerd={ours}");
        for (part, level) in &self.targets {
            text.push_str(&format!(",outrigger_sidecar::{part}={}", level.name()));
        }
        text
    }

    fn filter(&self) -> EnvFilter {
        EnvFilter::new(self.directives())
    }
}

/// Changes the levels of the log while the process runs.
#[derive(Clone, Debug)]
pub struct Levels(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chosen: Mutex<Chosen>,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Begins to log.
pub fn start(config: &LogConfig) -> Result<Levels, LogFault> {
    let lines = Lines { json: config.json };
    let queue = match &config.file {
        None => io::stderr().as_fd().try_clone_to_owned().and_then(|errors| Queue::start(File::from(errors), lines)),
        Some(file) => {
            let fault = |error| LogFault::File { path: file.path.clone(), error };
            Queue::start(Rotating::open(file).map_err(fault)?, lines)
        }
    };
    let queue = queue.map_err(LogFault::Begin)?;
    let chosen = Chosen { level: config.level, targets: config.targets.clone() };
    let (filter, handle) = reload::Layer::new(chosen.filter());
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).event_format(lines).with_writer(queue.clone());
    Registry::default().with(filter).with(lines).try_init().map_err(|_| LogFault::Twice)?;
    // The only one: the registry took no other.
    let _ = QUEUE.set(queue);
    Ok(Levels(Arc::new(Inner { chosen: Mutex::new(chosen), filter: handle })))
}

/// The way to the log of this process, once it is begun.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// How long the end of the process waits for its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Waits until everything is written that was logged before, for two seconds at most. For the end of the process.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_LINES);
    }
}

/// Says something on the standard error behind everything that was logged; waits four seconds at most for whoever reads it.
pub fn last_words(words: String) {
    flush();
    let (said, is_said) = crossbeam_channel::bounded(1);
    let say = move || {
        eprintln!("{words}");
        // Whoever waited may have given up.
        let _ = said.try_send(());
    };
    if std::thread::Builder::new().name("last-words".to_owned()).spawn(say).is_ok() {
        let _ = is_said.recv_timeout(LAST_LINES);
    }
}

impl Levels {
    /// The part of this name.
    pub fn known(&self, target: Option<&str>) -> Result<Option<&'static str>, UnknownTarget> {
        let Some(target) = target else { return Ok(None) };
        let known = LOG_TARGETS.into_iter().find(|known| *known == target);
        known.map(Some).ok_or_else(|| UnknownTarget { nearest: nearest(target, LOG_TARGETS) })
    }

    /// The level from now on, of one part or of all that have none of their own.
    pub fn set(&self, target: Option<&'static str>, level: LogLevel) -> Result<(), reload::Error> {
        let mut chosen = self.0.chosen.lock();
        let mut next = chosen.clone();
        match target {
            None => next.level = level,
            Some(target) => {
                next.targets.insert(target, level);
            }
        }
        self.0.filter.reload(next.filter())?;
        *chosen = next;
        Ok(())
    }

    /// What is logged of each part.
    pub fn report(&self) -> LogLevelsReport {
        let chosen = self.0.chosen.lock();
        let level = |target| chosen.targets.get(target).copied().unwrap_or(chosen.level);
        let targets = LOG_TARGETS.map(|target| LogTarget { target: target.to_owned(), level: level(target) });
        LogLevelsReport { level: chosen.level, targets: targets.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_part_of_the_daemon_has_a_level_of_its_own() {
        let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
        let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        // These say nothing before the log is there, or at all, or are the log.
        let modules: Vec<_> =
            modules.filter(|module| !["config", "fatal", "log", "measure"].contains(module)).collect();
        assert_eq!(modules, LOG_TARGETS);
    }

    #[test]
    fn what_other_crates_say_in_detail_is_not_logged() {
        let directives = |level, targets: &[(&'static str, LogLevel)]| {
            Chosen { level, targets: targets.iter().copied().collect() }.directives()
        };
        assert_eq!(directives(LogLevel::Trace, &[]), "warn,outrigger_sidecar=trace,outriggerd=trace");
        assert_eq!(directives(LogLevel::Error, &[]), "error,outrigger_sidecar=error,outriggerd=error");
        assert_eq!(
            directives(LogLevel::Info, &[("net", LogLevel::Debug)]),
            "warn,outrigger_sidecar=info,outriggerd=info,outrigger_sidecar::net=debug"
        );
    }
}
