//! Whether a peer feels what another does: its payments, one at a time, before and while another peer has 483 HTLCs in each
//! commitment, or takes nothing of what it is sent.

use std::time::Duration;

use outrigger_integration::{Done, until};
use outrigger_rpc_schema::ChannelList;
use tokio::process::Command;

use super::{AMOUNT_MSAT, Run};
use crate::outrigger::{Outrigger, Stream};
use crate::raw::Deaf;
use crate::report::Figure;
use crate::shape::Shape;
use crate::stack::{Round, Stack};

const HUB: usize = 0;
/// The peer whose payments are measured, and whom it pays.
const QUIET: (usize, usize) = (1, 2);
/// The peer with many HTLCs, and whom else it pays: two that stand still, and one that answers.
const LOUD: usize = 3;
const FROZEN: [usize; 2] = [4, 6];
const ANSWERING: usize = 8;

/// HTLCs of each payee that stands still. With the one that answers they are the 483 of a commitment.
const HELD: [usize; 2] = [241, 241];

/// Calls to one daemon by each of several streams.
const CALLS: usize = 12;

/// How long the quiet peer is looked at.
const SECS: f64 = 2.0;

const LIMIT: Duration = Duration::from_secs(20);

/// Medians of the quiet peer, round by round, before and meanwhile.
#[derive(Default)]
struct Felt {
    before: Vec<f64>,
    meanwhile: Vec<f64>,
}

impl Run<'_> {
    /// Of Outrigger alone: the figure to reach is one of its own.
    pub(super) async fn isolation(&mut self) -> Done<()> {
        let directory = self.directory.join("isolation");
        let hub = Outrigger::start(&directory, self.bitcoind, Shape::Hub(4), AMOUNT_MSAT).await?;
        for peer in FROZEN.into_iter().chain([LOUD, ANSWERING]) {
            // Their machines are others: their own work is to be in nobody's way here.
            tell("renice", &["-n", "15", "-p"], &hub, peer).await?;
        }
        let mut quiet = hub.stream(QUIET.0, QUIET.1, CALLS);
        let time = self.secs(SECS);
        // The first payments of a start are slower.
        self.median_of(&mut quiet, time).await?;
        let (mut felt, mut htlcs) = (Felt::default(), Vec::new());
        while self.has_time(felt.before.len()) {
            felt.before.push(self.median_of(&mut quiet, time).await?);
            let held = self.beside_many(&hub, &mut quiet, &mut felt).await?;
            htlcs.push(held);
        }
        self.tell_felt("isolation_483", felt);
        self.put_of_outrigger("isolation_483_htlcs", "HTLCs in the other peer's commitments", htlcs);

        let mut felt = Felt::default();
        while self.has_time(felt.before.len()) {
            felt.before.push(self.median_of(&mut quiet, time).await?);
            felt.meanwhile.push(self.beside_deaf(&hub, &mut quiet).await?);
        }
        self.tell_felt("isolation_stalled", felt);
        Ok(())
    }

    fn tell_felt(&mut self, name: &str, felt: Felt) {
        let growth = felt.meanwhile.iter().zip(&felt.before).map(|(meanwhile, before)| meanwhile / before).collect();
        let unit = "ms, median of the others";
        for (name, unit, outrigger) in [
            (format!("{name}_before"), unit, felt.before),
            (name.to_owned(), unit, felt.meanwhile),
            (format!("{name}_growth"), "times the latency before", growth),
        ] {
            self.put(Figure { name, unit, outrigger, ldk: Vec::new(), more_is_better: false });
        }
    }

    /// The quiet peer's median over this time, in milliseconds.
    pub(super) async fn median_of(&self, quiet: &mut Stream, time: Duration) -> Done<f64> {
        quiet.supply((time.as_secs_f64() * 400.0) as usize, AMOUNT_MSAT).await?;
        quiet.start(1);
        tokio::time::sleep(time).await;
        quiet.end();
        let mut took = quiet.stop(AMOUNT_MSAT).await?;
        took.sort_unstable();
        Ok(Round { took, ..Round::default() }.latency_ms(0.5))
    }

    /// Meanwhile the loud peer pays one that answers, and each of its commitments has the HTLCs of those that do not. How many
    /// there were.
    async fn beside_many(&self, hub: &Outrigger<'_>, quiet: &mut Stream, felt: &mut Felt) -> Done<f64> {
        let mut held: Vec<Stream> = FROZEN.iter().map(|payee| hub.stream(LOUD, *payee, CALLS)).collect();
        let mut churn = hub.stream(LOUD, ANSWERING, CALLS);
        for (stream, count) in held.iter_mut().zip(HELD) {
            stream.supply(count, AMOUNT_MSAT).await?;
        }
        churn.supply(2000, AMOUNT_MSAT).await?;
        for payee in FROZEN {
            tell("kill", &["-STOP"], hub, payee).await?;
        }
        for (stream, count) in held.iter_mut().zip(HELD) {
            stream.start(count);
        }
        let wanted = HELD.iter().sum();
        let outcome = async {
            until_held(hub, wanted).await?;
            churn.start(1);
            felt.meanwhile.push(self.median_of(quiet, self.secs(SECS)).await?);
            Ok::<_, outrigger_integration::Fault>(htlcs(hub).await? as f64)
        }
        .await;
        // None is to follow those that now arrive.
        held.iter().for_each(Stream::end);
        for payee in FROZEN {
            tell("kill", &["-CONT"], hub, payee).await?;
        }
        let found = outcome?;
        churn.end();
        churn.stop(AMOUNT_MSAT).await?;
        for stream in &mut held {
            stream.stop(AMOUNT_MSAT).await?;
        }
        Ok(found)
    }

    /// Meanwhile somebody asks for the longest answers and reads none.
    async fn beside_deaf(&self, hub: &Outrigger<'_>, quiet: &mut Stream) -> Done<f64> {
        let node = hub.sidecar(HUB);
        let info = node.info().await?;
        let deaf = Deaf::start(&info.node_id, &node.address(), &info.features)?;
        until(LIMIT, "the deaf peer to ask", async || Ok((deaf.asked() >= 64).then_some(()))).await?;
        let median = self.median_of(quiet, self.secs(SECS)).await;
        deaf.stop()?;
        median
    }
}

/// HTLCs pending between the hub and the loud peer.
async fn htlcs(hub: &Outrigger<'_>) -> Done<u32> {
    let node_id = Some(hub.sidecar(LOUD).node_id().await?);
    let page = hub.sidecar(HUB).call(ChannelList { node_id, ..Default::default() }).await?;
    Ok(page.items.iter().map(|channel| channel.htlcs).sum())
}

async fn until_held(hub: &Outrigger<'_>, wanted: usize) -> Done<()> {
    until(LIMIT, "the HTLCs to stand", async || Ok((htlcs(hub).await? as usize >= wanted).then_some(()))).await
}

/// Runs a program on a node's process. One that is stopped reads nothing and answers nothing until it is continued.
async fn tell(program: &str, arguments: &[&str], hub: &Outrigger<'_>, node: usize) -> Done<()> {
    let pid = hub.watched().get(node).ok_or("no such node")?.pid.to_string();
    let output = Command::new(program).args(arguments).arg(&pid).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {arguments:?} {pid}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_htlcs_that_are_held_and_the_one_that_moves_fill_a_commitment() {
        assert_eq!(HELD.iter().sum::<usize>() + 1, 483);
    }
}
