//! `outriggerd`: arguments to a configuration, a configuration to a node, signals to its end.

mod prompt;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use outrigger_sidecar::config::{Config, ConfigFault, Task, manual_page, shown};
use outrigger_sidecar::fatal::{no_core_is_left, panics_end_the_process};
use outrigger_sidecar::log::{self, Levels};
use outrigger_sidecar::node::init::{NotInitialised, init};
use outrigger_sidecar::node::restore::{self, Ending, NotRestored, Told};
use outrigger_sidecar::node::{Node, StartFault, tls_files};
use outrigger_sidecar::supervisor::Supervisor;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

fn main() -> ExitCode {
    panics_end_the_process(log::flush);
    if let Err(fault) = no_core_is_left() {
        eprintln!("outriggerd: a crash may leave a core file with secrets in it: {fault}");
    }
    // KEY-1: whatever is made is its owner's alone, the database and what backups hold too.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let config = match Task::read(std::env::args_os(), std::env::vars_os(), &home) {
        Ok(Task::Run(config)) => config,
        Ok(Task::CheckConfig(outcome, json)) => return looked_at(*outcome, json),
        Ok(Task::Init(config, order)) => return made(init(&config, order, prompt::words)),
        Ok(Task::Restore(config, order)) => return told(restore::restore(&config, &order)),
        Ok(Task::VerifyBackup(config, order)) => return told(restore::verify_backup(&config, &order)),
        Ok(Task::Manual) => return printed(&manual_page()),
        Ok(Task::SinkCheck(order)) => return checked(restore::sink_check(&order)),
        Err(ConfigFault::Arguments(words)) => words.exit(),
        Err(fault) => return refuse(&fault),
    };
    let levels = match log::start(&config.log) {
        Ok(levels) => levels,
        Err(fault) => return refuse(&fault),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => return refuse(&fault),
    };
    let ended = runtime.block_on(run(&config, levels));
    runtime.shutdown_background();
    match ended {
        Ok(()) => {
            log::flush();
            ExitCode::SUCCESS
        }
        Err(fault) => {
            log::last_words(format!("outriggerd: {fault}"));
            ExitCode::from(fault.exit_code())
        }
    }
}

async fn run(config: &Config, levels: Levels) -> Result<(), StartFault> {
    let supervisor = Supervisor::of_environment().unwrap_or_else(|fault| {
        tracing::warn!("nobody is told that the node is ready: {fault}");
        None
    });
    let node = Node::start_within(config, Some(levels), supervisor.map(Arc::new)).await?;
    let stop = node.stopper();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => (),
            _ = terminate.recv() => (),
        }
        stop();
    });
    node.run().await
}

/// Shows the configuration, or what is wrong with it.
fn looked_at(outcome: Result<Config, ConfigFault>, json: bool) -> ExitCode {
    match outcome.map_err(|fault| fault.to_string()).and_then(with_sound_tls) {
        Ok(config) if json => printed(&format!("{}\n", serde_json::json!(config.report))),
        Ok(config) => printed(&shown(&config)),
        Err(fault) => {
            if json {
                println!("{}", serde_json::json!({ "fault": fault }));
            }
            eprintln!("outriggerd: {fault}");
            ExitCode::from(WRONG)
        }
    }
}

/// The configuration, once certificate and key are found to be such as a start takes.
fn with_sound_tls(config: Config) -> Result<Config, String> {
    if let Some(files) = tls_files(&config.rpc) {
        let notice = files.checked().map_err(|fault| fault.to_string())?;
        notice.iter().for_each(|words| eprintln!("outriggerd: {}: {words}", files.certificate.display()));
    }
    Ok(config)
}

fn made(seed: Result<Zeroizing<String>, NotInitialised>) -> ExitCode {
    match seed {
        Ok(text) => {
            println!("{}", text.as_str());
            ExitCode::SUCCESS
        }
        Err(NotInitialised::Start(fault)) => {
            eprintln!("outriggerd: {fault}");
            ExitCode::from(fault.exit_code())
        }
        Err(fault) => refuse(&fault),
    }
}

/// The exit code of a configuration that is wrong, where nothing else was asked for.
const WRONG: u8 = 2;

/// The exit code of a restore that left something out, could not reach the newest that the backup tells of, or found no record of
/// the chain.
const PARTLY: u8 = 2;

/// The exit code of a restore that wrote nothing, and of a look that is to be repeated, since something of the backup could not be read.
const UNREAD: u8 = 6;

fn told(restored: Result<Told, NotRestored>) -> ExitCode {
    match restored {
        Ok(told) => {
            println!("{}", told.text);
            match told.ending {
                Ending::Whole => ExitCode::SUCCESS,
                Ending::Partly => ExitCode::from(PARTLY),
                Ending::Unread => ExitCode::from(UNREAD),
            }
        }
        Err(fault) => refuse(&fault),
    }
}

fn checked(outcome: Result<(String, bool), StartFault>) -> ExitCode {
    match outcome {
        Ok((text, is_sound)) => {
            println!("{text}");
            if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(fault) => refuse(&fault),
    }
}

/// Prints a text; whoever reads it may have seen enough before its end.
fn printed(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says why there is no node. Nothing was started, or everything is stopped.
fn refuse(fault: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("outriggerd: {fault}");
    ExitCode::FAILURE
}
