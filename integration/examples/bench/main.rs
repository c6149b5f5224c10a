//! The benchmark: Outrigger and LDK, full stacks over loopback TCP, in one run. Started by `contrib/bench`.

mod ldk;
mod machine;
mod outrigger;
mod report;
mod scenarios;
mod shape;
mod stack;
mod sync;

use std::path::Path;

use outrigger_integration::{Done, on_regtest};
use serde_json::json;

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
    let is_json = arguments.iter().any(|argument| argument == "--json");
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let only = arguments.iter().filter(|argument| !argument.starts_with("--")).cloned().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(async {
        let mut figures = Vec::new();
        on_regtest(async |regtest| {
            let directory = regtest.directory("bench")?;
            let mut run = Run::new(&regtest.bitcoind, directory, is_quick, only);
            eprintln!("{}", run.machine()?);
            run.all().await?;
            figures = run.figures;
            Ok(())
        })
        .await
        .map(|()| figures)
    })?;
    if is_json {
        let scenarios: Vec<_> = figures.iter().map(report::Figure::json).collect();
        println!("{}", json!({ "scenarios": scenarios }));
    } else {
        figures.iter().for_each(|figure| println!("{}", figure.row()));
    }
    Ok(())
}
