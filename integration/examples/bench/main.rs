//! The benchmark: Outrigger and LDK, full stacks over loopback TCP, in one run. Started by `contrib/bench`.

mod bounds;
mod ldk;
mod machine;
mod names;
mod outrigger;
mod purse;
mod raw;
mod report;
mod results;
mod scenarios;
mod shape;
mod sink;
mod stack;
mod sync;

use std::path::{Path, PathBuf};

use outrigger_integration::{Done, on_regtest};

use crate::ldk::Pace;
use crate::names::Group;
use crate::scenarios::Run;

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, directory, number, pace] = arguments.as_slice()
        && first == "--ldk-node"
    {
        let pace = if pace == "at-once" { Pace::AtOnce } else { Pace::Background };
        return ldk::serve(Path::new(directory), number.parse()?, pace);
    }
    if let [first, directory] = arguments.as_slice()
        && first == "--sink"
    {
        return sink::serve(Path::new(directory));
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let only: Vec<String> = arguments.iter().filter(|argument| !argument.starts_with("--")).cloned().collect();
    if let Some(unknown) = names::unknown(&only) {
        let groups = names::groups();
        return Err(format!("no scenario is called {unknown}; there are {groups:?} and the figures of each").into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = std::time::Instant::now();
    let (is_of_sinks, asked) = (has("--sinks"), names::asked(&only, has("--sinks")));
    let (machine, figures) = runtime.block_on(measured(has("--quick"), &asked))?;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let machine = format!("{machine}, {} at the end of {minutes:.0} minutes", machine::load());
    eprintln!("{machine}");
    if has("--results") {
        let page = if is_of_sinks { results::Page::Sinks } else { results::Page::Whole };
        results::write(&results_directory(), page, &machine, &figures)?;
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

/// The machine, and all figures. Each group has a chain of its own: daemons follow no more blocks than they need.
async fn measured(is_quick: bool, asked: &[&Group]) -> Done<(String, Vec<report::Figure>)> {
    let (mut machine, mut figures) = (None, Vec::new());
    for (place, group) in asked.iter().enumerate() {
        let number = format!("[{}/{}] {}", place + 1, asked.len(), group.name);
        if !is_quick {
            let left = asked[place..].iter().map(|group| group.secs).sum::<u64>();
            eprintln!("{number}: up to {} s; {} min left at the most", group.secs, left.div_ceil(60));
        }
        let begun = std::time::Instant::now();
        on_regtest(async |regtest| {
            let mut run = Run::new(&regtest.bitcoind, regtest.directory("bench")?, is_quick, group);
            if machine.is_none() {
                let words = run.machine()?;
                eprintln!("{words}");
                machine = Some(words);
            }
            run.group(group).await?;
            figures.append(&mut run.figures);
            Ok(())
        })
        .await?;
        eprintln!("{number}: took {:.0?}", begun.elapsed());
    }
    Ok((machine.ok_or("nothing was measured")?, figures))
}
