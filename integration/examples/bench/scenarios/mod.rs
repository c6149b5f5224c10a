//! The scenarios: what is set up, what is paid, and which figures come of it.

mod aged;
mod isolation;
mod killed;
mod many;
mod pair;
mod relay;
mod sinks;
mod status;

pub(crate) use aged::AGES;
pub(crate) use pair::FLIGHTS;
pub(crate) use sinks::CONSOLIDATED;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use outrigger_integration::{Bitcoind, Done};

use crate::machine::{busy_verify_micros, curve_micros, description, sync_ms};
use crate::names::Group;
use crate::report::Figure;
use crate::stack::{Plan, Round, Stack, round};

/// Above every dust limit: an output of the commitment transactions.
const AMOUNT_MSAT: u64 = 360_000;

/// Below every dust limit: no output.
const DUST_MSAT: u64 = 100_000;

/// Rounds that are made even where a group has no time left.
const FEWEST_ROUNDS: usize = 3;

/// What invoices are made for on LDK's side, where they cost next to nothing: more than all its streams together pay, for
/// they are not equally fast.
const LDK_PER_SECOND: usize = 600;

const PER_SECOND: &str = "payments/s";

/// A run of the benchmark.
pub(crate) struct Run<'a> {
    bitcoind: &'a Bitcoind,
    directory: PathBuf,
    is_quick: bool,
    /// When the group that runs should be over.
    until: Instant,
    pub(crate) figures: Vec<Figure>,
}

/// Both sides' rounds of one scenario, one after the other in turn.
pub(crate) struct Rounds {
    pub(crate) outrigger: Vec<Round>,
    pub(crate) ldk: Vec<Round>,
}

impl<'a> Run<'a> {
    /// For one group, which begins now.
    pub(crate) fn new(bitcoind: &'a Bitcoind, directory: PathBuf, is_quick: bool, group: &Group) -> Self {
        let until = Instant::now() + Duration::from_secs(group.secs);
        Self { bitcoind, directory, is_quick, until, figures: Vec::new() }
    }

    /// One group; it gives all figures that it promises, and no other.
    pub(crate) async fn group(&mut self, group: &Group) -> Done<()> {
        match group.name {
            "floor" => self.floor()?,
            "relay_8" => self.relay_8().await?,
            "one_channel" => self.one_channel().await?,
            "latency" => self.latency().await?,
            "aged" => self.aged().await?,
            "many" => self.many().await?,
            "isolation" => self.isolation().await?,
            "relay_few" => self.relay_sweep(&[1, 2, 4]).await?,
            "relay_16" => self.relay_sweep(&[16]).await?,
            "flight" => self.flight().await?,
            "start_status" => self.start_status()?,
            "sinks_relay" => self.sinks_relay().await?,
            "sinks_one_channel" => self.sinks_one_channel().await?,
            "sinks_aged" => self.sinks_aged().await?,
            "sinks_stalled" => self.sinks_stalled().await?,
            "start_killed" => self.start_killed().await?,
            other => return Err(format!("no scenario is called {other}").into()),
        }
        let mut given: Vec<&str> = self.figures.iter().map(|figure| figure.name.as_str()).collect();
        let mut promised = group.figures.to_vec();
        given.sort_unstable();
        promised.sort_unstable();
        if given != promised {
            return Err(format!("{} gave {given:?} and promises {promised:?}", group.name).into());
        }
        Ok(())
    }

    fn rounds(&self) -> usize {
        if self.is_quick { 1 } else { 5 }
    }

    /// Whether another round is made after so many.
    fn has_time(&self, rounds: usize) -> bool {
        rounds < self.rounds() && (rounds < FEWEST_ROUNDS || Instant::now() < self.until)
    }

    fn secs(&self, whole: f64) -> Duration {
        Duration::from_secs_f64(if self.is_quick { (whole / 3.0).max(1.0) } else { whole })
    }

    async fn both(&mut self, name: &str, plan: Plan, ours: &mut impl Stack, theirs: &mut impl Stack) -> Done<Rounds> {
        let mut rounds = Rounds { outrigger: Vec::new(), ldk: Vec::new() };
        while self.has_time(rounds.ldk.len()) {
            let number = rounds.ldk.len();
            let our = round(ours, plan).await?;
            let their = round(theirs, Plan { most_per_second: LDK_PER_SECOND, ..plan }).await?;
            for (side, it) in [("outrigger", &our), ("ldk", &their)] {
                eprintln!("{name} round {number} {side}: {}", it.words());
            }
            rounds.outrigger.push(our);
            rounds.ldk.push(their);
        }
        Ok(rounds)
    }

    fn note(
        &mut self,
        name: &str,
        unit: &'static str,
        more_is_better: bool,
        rounds: &Rounds,
        of: impl Fn(&Round) -> f64,
    ) {
        let outrigger = rounds.outrigger.iter().map(&of).collect();
        let ldk = rounds.ldk.iter().map(&of).collect();
        self.put(Figure { name: name.to_owned(), unit, outrigger, ldk, more_is_better });
    }

    /// What only some sides tell.
    fn note_where_told(&mut self, name: &str, unit: &'static str, rounds: &Rounds, of: impl Fn(&Round) -> Option<f64>) {
        let outrigger = rounds.outrigger.iter().filter_map(&of).collect();
        let ldk = rounds.ldk.iter().filter_map(&of).collect();
        self.put(Figure { name: name.to_owned(), unit, outrigger, ldk, more_is_better: false });
    }

    /// The machine, and what a sync of its disk takes.
    pub(crate) fn machine(&self) -> Done<String> {
        let sync = sync_ms(&self.directory)?;
        Ok(format!("{}; a write of 4 KiB and its sync take {sync:.2} ms", description()))
    }

    /// What the machine takes for what cannot be saved.
    fn floor(&mut self) -> Done<()> {
        let [sign, verify, multiply] = curve_micros()?;
        for (name, unit, value) in [
            ("floor_sign", "µs", sign),
            ("floor_verify", "µs", verify),
            ("floor_verify_busy", "µs, with every processor at it", busy_verify_micros()?),
            ("floor_point_multiplication", "µs", multiply),
            ("floor_sync", "ms, 4 KiB", sync_ms(&self.directory)?),
        ] {
            self.put_of_outrigger(name, unit, vec![value]);
        }
        Ok(())
    }

    /// A figure that there is nothing to compare with.
    fn put_of_outrigger(&mut self, name: &str, unit: &'static str, outrigger: Vec<f64>) {
        self.put(Figure { name: name.to_owned(), unit, outrigger, ldk: Vec::new(), more_is_better: false });
    }

    fn put(&mut self, figure: Figure) {
        eprintln!("{}", figure.row());
        self.figures.push(figure);
    }
}
