//! The statements of the contract, one by one.

use super::{Bench, Check, Write, tip};

/// Numbers of channels that each check has for itself.
pub(super) const CHANNELS_EACH: u64 = 16;

const fn check(name: &'static str, asks: &'static str, run: fn(&mut Bench<'_>) -> Result<(), String>) -> Check {
    Check { name, asks, run }
}

pub(super) const ALL: &[Check] = &[
    check("new", "a new channel is kept", new),
    check("updates", "updates that follow are kept, in their order", updates),
    check("full", "a full write voids everything before it, whatever ids are missing between", full),
    check("late", "what comes at or below what is kept is completed and changes nothing", late),
    check("again", "the same write again is completed again and changes nothing", again),
    check("gap", "an update that does not follow is kept as a full write, or not at all", gap),
    check("newer_view", "a view that is newer than its write counts as what it is", newer_view),
    check("channels", "channels do not mix", channels),
    check("large", "a large channel is kept", large),
    check("once", "a completion is told once for each write", once),
    check("restart", "after a restart it says what it holds, and goes on from there", restart),
    check("kill", "a kill loses nothing that was completed", kill),
    check("over", "a channel whose life is over is kept as such", over),
    check("nodes", "what it keeps of one node is not shown to another", nodes),
    check("tip", "the newest record of the chain is kept", keeps_tip),
    check("random", "all of it in any order", random),
];

fn new(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    bench.settle()?;
    bench.reads_back(0, 1)
}

fn updates(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    for id in 2..=40 {
        bench.follow(0, id)?;
    }
    bench.settle()?;
    bench.reads_back(0, 40)
}

fn full(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    bench.follow(0, 2)?;
    bench.give(0, 10, 10, Write::Full)?;
    bench.settle()?;
    bench.reads_back(0, 10)?;
    bench.follow(0, 11)?;
    bench.settle()?;
    bench.reads_back(0, 11)
}

fn late(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 10, 10, Write::Full)?;
    bench.follow(0, 11)?;
    bench.settle()?;
    bench.follow(0, 7)?;
    bench.settle()?;
    bench.reads_back(0, 11)?;
    bench.give(0, 5, 11, Write::Full)?;
    bench.follow(0, 10)?;
    bench.settle()?;
    bench.reads_back(0, 11)
}

fn again(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    bench.settle()?;
    bench.follow(0, 2)?;
    bench.settle()?;
    bench.follow(0, 2)?;
    bench.settle()?;
    bench.give(0, 2, 2, Write::Full)?;
    bench.settle()?;
    bench.give(0, 2, 2, Write::Full)?;
    bench.settle()?;
    bench.reads_back(0, 2)
}

fn gap(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    bench.settle()?;
    bench.follow(0, 5)?;
    bench.settle()?;
    bench.reads_back(0, 5)?;
    // A channel of which nothing is kept yet.
    bench.follow(1, 9)?;
    bench.settle()?;
    bench.reads_back(1, 9)
}

fn newer_view(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 3, Write::New)?;
    bench.settle()?;
    for id in 2..=4 {
        bench.follow(0, id)?;
        bench.settle()?;
    }
    bench.reads_back(0, 4)?;
    bench.give(0, 5, 8, Write::Full)?;
    bench.settle()?;
    bench.reads_back(0, 8)
}

fn channels(bench: &mut Bench<'_>) -> Result<(), String> {
    for number in 0..4 {
        bench.give(number, 1, 1, Write::New)?;
    }
    for id in 2..=6 {
        for number in 0..4 {
            // Each goes its own way.
            if id <= 3 + number {
                bench.follow(number, id)?;
            }
        }
    }
    bench.settle()?;
    (0..4).try_for_each(|number| bench.reads_back(number, (3 + number).min(6)))
}

fn large(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 4000, 4000, Write::Full)?;
    bench.follow(0, 4001)?;
    bench.settle()?;
    bench.reads_back(0, 4001)
}

fn once(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    for id in 2..=5 {
        bench.follow(0, id)?;
    }
    bench.settle()?;
    bench.give(0, 6, 6, Write::Full)?;
    bench.settle()?;
    bench.hears_nothing_more(bench.terms.patience.min(std::time::Duration::from_secs(1)))
}

fn restart(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    bench.follow(0, 2)?;
    bench.give(1, 7, 7, Write::Full)?;
    bench.settle()?;
    bench.restart()?;
    bench.holds(0, 2)?;
    bench.holds(1, 7)?;
    bench.follow(0, 3)?;
    bench.settle()?;
    bench.restart()?;
    bench.holds(0, 3)?;
    bench.reads_back(0, 3)
}

fn kill(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    bench.settle()?;
    for id in 2..=9 {
        bench.follow(0, id)?;
        if id % 3 == 0 {
            bench.kill()?;
            bench.reads_back_no_less(0)?;
            // As after a start: what is not proved complete gets a full write first.
            bench.give(0, id, id, Write::Full)?;
            bench.settle()?;
            bench.reads_back(0, id)?;
        }
    }
    bench.restart()?;
    bench.holds(0, 9)
}

fn over(bench: &mut Bench<'_>) -> Result<(), String> {
    for number in 0..2 {
        bench.give(number, 1, 1, Write::New)?;
        bench.follow(number, 2)?;
    }
    bench.settle()?;
    bench.give_over(0, 3, true)?;
    bench.give_over(1, 3, false)?;
    bench.settle()?;
    (0..2).try_for_each(|number| bench.is_over(number, 3))?;
    bench.restart()?;
    (0..2).try_for_each(|number| bench.is_over(number, 3))
}

fn nodes(bench: &mut Bench<'_>) -> Result<(), String> {
    bench.give(0, 1, 1, Write::New)?;
    bench.follow(0, 2)?;
    bench.settle()?;
    bench.end();
    bench.is_hidden_from_another()?;
    bench.start()?;
    bench.holds(0, 2)?;
    bench.reads_back(0, 2)
}

fn keeps_tip(bench: &mut Bench<'_>) -> Result<(), String> {
    let (older, newer) = (tip(bench.terms, 144), tip(bench.terms, 288));
    let Some(life) = &mut bench.life else { return Ok(()) };
    life.sink.persist_tip(&older);
    life.sink.persist_tip(&newer);
    // What is not waited for is written at the latest when the process ends.
    bench.end();
    match bench.subject.source()?.tip().map_err(|fault| fault.to_string())? {
        Some(found) if found == newer.encode() => {}
        Some(_) => return Err("another one than the newest is read back".to_owned()),
        None => return Err("none is read back".to_owned()),
    }
    // A start that finds it makes good what it names in vain.
    bench.start()?;
    let Some(life) = &mut bench.life else { return Ok(()) };
    match life.sink.kept_tip() {
        Some(found) if found == newer.encode() => Ok(()),
        None if life.sink.reader().is_none() => Ok(()),
        Some(_) | None => Err("a start does not find the newest".to_owned()),
    }
}

/// Numbers that look drawn, the same for the same seed.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*: for an order of calls, not for keys.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

fn random(bench: &mut Bench<'_>) -> Result<(), String> {
    let mut draws = Draws(bench.terms.seed | 1);
    let mut at = [0_u64; 3];
    for step in 0..120 {
        let number = draws.below(3);
        let Some(id) = at.get_mut(number as usize) else { continue };
        let told = match draws.below(12) {
            _ if *id == 0 => {
                *id = 1;
                bench.give(number, 1, 1, Write::New)
            }
            0 => {
                *id += 1 + draws.below(4);
                bench.give(number, *id, *id, Write::Full)
            }
            1 => bench.settle().and_then(|()| bench.give(number, *id, *id, Write::Full)),
            2 if *id > 1 => bench.settle().and_then(|()| bench.follow(number, *id)),
            3 if draws.below(4) == 0 => bench.settle().and_then(|()| bench.restart()),
            4 => bench.settle().and_then(|()| bench.reads_back(number, *id)),
            _ => {
                *id += 1;
                bench.follow(number, *id)
            }
        };
        told.map_err(|fault| format!("{fault} (seed {}, step {step})", bench.terms.seed))?;
    }
    bench.settle()?;
    let all = at.iter().zip(0..).filter(|(id, _)| **id > 0);
    for (id, number) in all {
        bench.reads_back(number, *id).map_err(|fault| format!("{fault} (seed {})", bench.terms.seed))?;
    }
    Ok(())
}
