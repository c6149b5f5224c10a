//! Many channels beside the one that pays: what a payment costs, and how long a start takes.

use std::time::{Duration, Instant};

use outrigger_integration::Done;

use super::{AMOUNT_MSAT, Run};
use crate::ldk::{Ldk, Pace};
use crate::machine::rss_of;
use crate::outrigger::Outrigger;
use crate::report::{Figure, median};
use crate::shape::Shape;
use crate::stack::{Plan, Round, Stack};
use crate::sync::SyncCost;

/// How many channels there are beside the one that pays.
const COUNTS: [usize; 4] = [10, 100, 1000, 5000];

/// From so many on, what a payment costs is told.
const PAID_FROM: usize = 1000;

const CPU_EACH: &str = "ms of both ends' processors each";

impl Run<'_> {
    /// One pair of nodes, which gets more and more channels.
    pub(super) async fn many(&mut self) -> Done<()> {
        let directory = self.directory.join("many");
        let mut ours = Outrigger::start(&directory, self.bitcoind, Shape::Pair, AMOUNT_MSAT).await?;
        let mut theirs = Ldk::start(&directory, Shape::Pair, AMOUNT_MSAT, Pace::AtOnce).await?;
        self.one_at_a_time(0, &mut ours, &mut theirs).await?;
        let (mut open, mut memory) = (0, Vec::new());
        for count in COUNTS {
            let wanted = if self.is_quick { count.div_ceil(100) } else { count };
            let begun = Instant::now();
            open_more(&mut ours, wanted - open).await?;
            let after_ours = begun.elapsed();
            open_more(&mut theirs, wanted - open).await?;
            eprintln!("{wanted} channels: {after_ours:.1?} beside {:.1?}", begun.elapsed() - after_ours);
            open = wanted;
            if count >= PAID_FROM {
                self.one_at_a_time(count, &mut ours, &mut theirs).await?;
            }
            memory.push(self.starts(count, &mut ours, &mut theirs).await?);
        }
        self.growth();
        let [.., (our_less, their_less), (our_more, their_more)] = memory.as_slice() else {
            return Err("too few starts".into());
        };
        let each = |more: f64, less: f64| (more - less) * 1e3 / (COUNTS[3] - COUNTS[2]) as f64;
        let (outrigger, ldk) = (vec![each(*our_more, *our_less)], vec![each(*their_more, *their_less)]);
        let (name, unit) = ("memory_per_channel".to_owned(), "kB resident after a start");
        self.put(Figure { name, unit, outrigger, ldk, more_is_better: false });
        Ok(())
    }

    async fn one_at_a_time(&mut self, count: usize, ours: &mut Outrigger<'_>, theirs: &mut Ldk) -> Done<()> {
        let (warm, time) = (Duration::from_millis(300), self.secs(2.0));
        let plan = Plan { window: 1, cost: SyncCost::Nothing, warm, time, most_per_second: 500 };
        let name = format!("cpu_{count}_channels");
        let rounds = self.both(&name, plan, ours, theirs).await?;
        self.note(&name, CPU_EACH, false, &rounds, Round::all_ms);
        self.note(&format!("latency_{count}_channels"), "ms, median", false, &rounds, |round| round.latency_ms(0.5));
        Ok(())
    }

    /// Starts of the first node, and the memory that it has afterwards, in MB.
    async fn starts(&mut self, count: usize, ours: &mut Outrigger<'_>, theirs: &mut Ldk) -> Done<(f64, f64)> {
        let (mut outrigger, mut ldk) = (Vec::new(), Vec::new());
        let rounds = if self.is_quick { 1 } else { 3 };
        for _ in 0..rounds {
            outrigger.push(ours.restart().await?);
            ldk.push(theirs.restart().await?);
        }
        self.put(Figure { name: format!("start_{count}"), unit: "s", outrigger, ldk, more_is_better: false });
        let (our, their) = (first_mb(ours)?, first_mb(theirs)?);
        let name = format!("start_{count}_memory");
        self.put(Figure { name, unit: "MB", outrigger: vec![our], ldk: vec![their], more_is_better: false });
        Ok((our, their))
    }

    /// How many times what a payment costs without other channels it costs beside the most.
    fn growth(&mut self) {
        let of = |figures: &[Figure], name: &str| {
            let found = figures.iter().find(|figure| figure.name == name)?;
            Some((median(&found.outrigger)?, median(&found.ldk)?))
        };
        let (few, many) = (of(&self.figures, "cpu_0_channels"), of(&self.figures, "cpu_5000_channels"));
        if let (Some((our_few, their_few)), Some((our_many, their_many))) = (few, many) {
            let (outrigger, ldk) = (vec![our_many / our_few], vec![their_many / their_few]);
            let (name, unit) = ("cpu_5000_growth".to_owned(), "times the processor time with no other channel");
            self.put(Figure { name, unit, outrigger, ldk, more_is_better: false });
        }
    }
}

fn first_mb(stack: &impl Stack) -> Done<f64> {
    let watched = stack.watched();
    Ok(rss_of(watched.first().ok_or("a stack without nodes")?.pid)? as f64 / 1e6)
}

/// Opens channels without paying for syncs.
async fn open_more(stack: &mut impl Stack, count: usize) -> Done<()> {
    for watched in stack.watched() {
        watched.sync.set(SyncCost::Nothing)?;
    }
    if count > 0 { stack.more_channels(count).await } else { Ok(()) }
}
