//! `outriggerd`: arguments to a configuration, a configuration to a node, signals to its end.

use std::path::PathBuf;
use std::process::ExitCode;

use outrigger_sidecar::config::{Config, ConfigFault};
use outrigger_sidecar::fatal::panics_end_the_process;
use outrigger_sidecar::node::{Node, StartFault};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    panics_end_the_process();
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let config = match Config::read(std::env::args_os(), &home) {
        Ok(config) => config,
        Err(ConfigFault::Arguments(words)) => words.exit(),
        Err(fault) => return refuse(&fault),
    };
    let filter = EnvFilter::new(&config.log_level);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(fault) => return refuse(&fault),
    };
    match runtime.block_on(run(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("outriggerd: {fault}");
            ExitCode::from(fault.exit_code())
        }
    }
}

async fn run(config: &Config) -> Result<(), StartFault> {
    let node = Node::start(config).await?;
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

/// Says why there is no node. Nothing was started, or everything is stopped.
fn refuse(fault: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("outriggerd: {fault}");
    ExitCode::FAILURE
}
