//! The benchmark: Outrigger and LDK, full stacks over loopback TCP, in one run. Started by `contrib/bench`.

mod ldk;
mod machine;
mod names;
mod outrigger;
mod raw;
mod report;
mod results;
mod scenarios;
mod shape;
mod stack;
mod sync;

use std::path::{Path, PathBuf};

use outrigger_integration::{Done, on_regtest};

use crate::ldk::Pace;
use crate::scenarios::Run;

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, directory, number, pace] = arguments.as_slice()
        && first == "--ldk-node"
    {
        let pace = if pace == "at-once" { Pace::AtOnce } else { Pace::Background };
        return ldk::serve(Path::new(directory), number.parse()?, pace);
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let only: Vec<String> = arguments.iter().filter(|argument| !argument.starts_with("--")).cloned().collect();
    if let Some(unknown) = names::unknown(&only) {
        let groups: Vec<&str> = names::GROUPS.iter().map(|group| group.name).collect();
        return Err(format!("no scenario is called {unknown}; there are {groups:?} and the figures of each").into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = std::time::Instant::now();
    let (machine, figures) = runtime.block_on(measured(has("--quick"), only))?;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let machine = format!("{machine}, {} at the end of {minutes:.0} minutes", machine::load());
    eprintln!("{machine}");
    if has("--results") {
        results::write(&results_directory(), &machine, &figures)?;
    }
    if has("--json") {
        println!("{}", report::document(&figures));
    } else {
        println!("{}", results::table(&figures));
    }
    Ok(())
}

fn results_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/bench-results")
}

/// The machine, and all figures.
async fn measured(is_quick: bool, only: Vec<String>) -> Done<(String, Vec<report::Figure>)> {
    let mut found = None;
    on_regtest(async |regtest| {
        let directory = regtest.directory("bench")?;
        let mut run = Run::new(&regtest.bitcoind, directory, is_quick, only.clone());
        let machine = run.machine()?;
        eprintln!("{machine}");
        run.all().await?;
        found = Some((machine, run.figures));
        Ok(())
    })
    .await?;
    found.ok_or_else(|| "nothing was measured".into())
}
