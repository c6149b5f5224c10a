//! LDK's side: each node is a process of its own, so that its processor time is told apart from the others'.

mod node;
mod run;
mod serve;
mod types;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use outrigger_integration::{Done, until};
use outrigger_rpc_schema::StoreReport;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

pub(crate) use run::Pace;
pub(crate) use serve::serve;

use crate::shape::{Role, Shape};
use crate::stack::{CAPACITY_SAT, CHUNK, MORE_SAT, Stack, Watched};
use crate::sync::SyncFile;

/// Time for a channel to come about.
const LIMIT: Duration = Duration::from_secs(60);

/// Time for channels among thousands.
const LONG: Duration = Duration::from_secs(300);

/// How many channels LDK opens at one time.
const AT_ONCE: usize = 4;

/// A node's process and the two ends of its pipe.
struct Process {
    child: Child,
    directory: PathBuf,
    number: u8,
    pace: Pace,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    id: String,
    port: String,
    watched: Watched,
}

impl Process {
    async fn start(directory: &Path, number: u8, role: Role, pace: Pace) -> Done<Self> {
        std::fs::create_dir_all(directory)?;
        let sync = SyncFile::new(&directory.join("sync"))?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--ldk-node")
            .arg(directory.join("store"))
            .arg(number.to_string())
            .arg(match pace {
                Pace::Background => "background",
                Pace::AtOnce => "at-once",
            })
            .envs(sync.environment()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or("an LDK node ended at once")?;
        let orders = child.stdin.take().ok_or("no pipe to an LDK node")?;
        let mut answers = BufReader::new(child.stdout.take().ok_or("no pipe from an LDK node")?).lines();
        let first = answers.next_line().await?.ok_or("an LDK node ended at once")?;
        let (id, port) = first.split_once(' ').ok_or("an LDK node does not say who it is")?;
        let (id, port) = (id.to_owned(), port.to_owned());
        let (directory, watched) = (directory.to_owned(), Watched { pid, role, sync });
        Ok(Self { child, directory, number, pace, orders, answers, id, port, watched })
    }

    /// Ends the process and starts it again on its files; how long it took until it could be talked to, in seconds.
    async fn restart(&mut self) -> Done<f64> {
        self.child.kill().await?;
        let begun = Instant::now();
        *self = Self::start(&self.directory, self.number, self.watched.role, self.pace).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    async fn ask(&mut self, order: &str) -> Done<String> {
        self.orders.write_all(order.as_bytes()).await?;
        self.orders.write_all(b"\n").await?;
        let answer = self.answers.next_line().await?.ok_or("an LDK node ended")?;
        match answer.strip_prefix("! ") {
            Some(fault) => Err(format!("LDK: {fault}").into()),
            None => Ok(answer),
        }
    }
}

/// LDK nodes with their channels.
pub(crate) struct Ldk {
    nodes: Vec<Process>,
    /// Sender and receiver of each stream, by their places in `nodes`.
    streams: Vec<(usize, usize)>,
    amount_msat: u64,
    waiting: usize,
    /// The sender and the hops, node and channel of each, that its payments take.
    routes: Vec<(usize, String)>,
}

impl Ldk {
    pub(crate) async fn start(directory: &Path, shape: Shape, amount_msat: u64, pace: Pace) -> Done<Self> {
        let mut nodes = Vec::new();
        for (place, role) in shape.roles().into_iter().enumerate() {
            let number = u8::try_from(place + 1)?;
            nodes.push(Process::start(&directory.join(format!("ldk-{number}")), number, role, pace).await?);
        }
        let mut ldk = Self { nodes, streams: shape.streams(), amount_msat, waiting: 0, routes: Vec::new() };
        let mut fundings = Vec::new();
        for (from, to) in shape.channels() {
            let order = format!("connect {} {}", ldk.nodes[to].id, ldk.nodes[to].port);
            ldk.nodes[from].ask(&order).await?;
            let order = format!("open {} {CAPACITY_SAT}", ldk.nodes[to].id);
            fundings.push(ldk.nodes[from].ask(&order).await?);
        }
        // A funding transaction that is in a block before its funder has the peer's signature fails the channel.
        tokio::time::sleep(Duration::from_secs(1)).await;
        ldk.mine(&fundings).await?;
        for _ in 0..5 {
            ldk.mine(&[]).await?;
        }
        for route in shape.routes() {
            let mut hops = String::new();
            for hop in route.windows(2) {
                let [from, to] = [hop[0], hop[1]];
                let name = ldk.channel(from, to).await?;
                hops.push_str(&format!(" {} {name}", ldk.nodes[to].id));
            }
            ldk.routes.push((route[0], hops));
        }
        ldk.tell_routes().await?;
        if pace == Pace::Background {
            // It forwards nothing in its first two seconds.
            tokio::time::sleep(Duration::from_millis(2500)).await;
        }
        Ok(ldk)
    }

    async fn mine(&mut self, transactions: &[String]) -> Done<()> {
        let order = ["block".to_owned()].iter().chain(transactions).cloned().collect::<Vec<_>>().join(" ");
        for node in &mut self.nodes {
            node.ask(&order).await?;
        }
        Ok(())
    }

    /// Tells the senders their way and amount; what invoices they had are gone.
    async fn tell_routes(&mut self) -> Done<()> {
        for (sender, hops) in &self.routes {
            self.nodes[*sender].ask(&format!("route {}{hops}", self.amount_msat)).await?;
        }
        self.waiting = 0;
        Ok(())
    }

    /// How many channels of each node have come to be usable since its process began.
    async fn ready(&mut self) -> Done<Vec<usize>> {
        let mut ready = Vec::new();
        for node in &mut self.nodes {
            ready.push(node.ask("ready").await?.parse()?);
        }
        Ok(ready)
    }

    async fn until_usable(&mut self, count: usize) -> Done<()> {
        until(LONG, "channels between LDK nodes", async || {
            let mut all = true;
            for node in &mut self.nodes {
                all &= node.ask("usable").await?.parse::<usize>()? >= count;
            }
            Ok(all.then_some(()))
        })
        .await
    }

    /// The name of a channel that both ends can use.
    async fn channel(&mut self, from: usize, to: usize) -> Done<String> {
        let ends = [self.nodes[from].id.clone(), self.nodes[to].id.clone()];
        until(LIMIT, "a channel between LDK nodes", async || {
            let there = self.nodes[to].ask(&format!("channel {}", ends[0])).await?;
            let here = self.nodes[from].ask(&format!("channel {}", ends[1])).await?;
            Ok((!here.is_empty() && !there.is_empty()).then_some(here))
        })
        .await
    }
}

impl Stack for Ldk {
    async fn more_channels(&mut self, count: usize) -> Done<()> {
        for node in &mut self.nodes {
            node.ask("trust yes").await?;
        }
        let usable: usize = self.nodes[0].ask("usable").await?.parse()?;
        let ready = self.ready().await?;
        let order = format!("open {} {MORE_SAT}", self.nodes[1].id);
        let (mut opened, mut fundings) = (0, Vec::new());
        while opened < count {
            let few = AT_ONCE.min(count - opened);
            for _ in 0..few {
                fundings.push(self.nodes[0].ask(&order).await?);
            }
            opened += few;
            // Used before it is confirmed, so this says that the peer has signed.
            while self.ready().await?.iter().zip(&ready).any(|(now, before)| now - before < opened) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if fundings.len() >= CHUNK {
                self.mine(&std::mem::take(&mut fundings)).await?;
            }
        }
        self.mine(&fundings).await?;
        for _ in 0..6 {
            self.mine(&[]).await?;
        }
        self.until_usable(usable + count).await?;
        for node in &mut self.nodes {
            node.ask("trust no").await?;
            node.ask("write").await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Done<f64> {
        let usable: usize = self.nodes[0].ask("usable").await?.parse()?;
        // A manager that is older than its monitors closes their channels.
        self.nodes[0].ask("write").await?;
        let took = self.nodes[0].restart().await?;
        let order = format!("connect {} {}", self.nodes[1].id, self.nodes[1].port);
        self.nodes[0].ask(&order).await?;
        self.until_usable(usable).await?;
        self.tell_routes().await?;
        Ok(took)
    }

    async fn set_amount(&mut self, amount_msat: u64) -> Done<()> {
        self.amount_msat = amount_msat;
        self.tell_routes().await
    }

    async fn commitments(&mut self) -> Done<Option<u64>> {
        Ok(None)
    }

    async fn store(&mut self) -> Done<Option<StoreReport>> {
        Ok(None)
    }

    fn watched(&self) -> Vec<&Watched> {
        self.nodes.iter().map(|node| &node.watched).collect()
    }

    async fn supply(&mut self, per_stream: usize) -> Done<()> {
        let missing = per_stream.saturating_sub(self.waiting);
        for (sender, receiver) in self.streams.clone() {
            let invoices = self.nodes[receiver].ask(&format!("invoices {missing} {}", self.amount_msat)).await?;
            let waiting = self.nodes[sender].ask(format!("take {invoices}").trim_end()).await?;
            self.waiting = waiting.parse()?;
        }
        Ok(())
    }

    async fn start(&mut self, window: usize) -> Done<()> {
        for (sender, _) in self.streams.clone() {
            self.nodes[sender].ask(&format!("start {window}")).await?;
        }
        Ok(())
    }

    async fn paid(&mut self) -> Done<u64> {
        let mut paid = 0;
        for (sender, _) in self.streams.clone() {
            paid += self.nodes[sender].ask("paid").await?.parse::<u64>()?;
        }
        Ok(paid)
    }

    async fn stop(&mut self) -> Done<Vec<u64>> {
        let mut took = Vec::new();
        for (sender, _) in self.streams.clone() {
            let answer = self.nodes[sender].ask("stop").await?;
            let of_sender = answer.split(' ').filter(|word| !word.is_empty()).map(str::parse);
            took.extend(of_sender.collect::<Result<Vec<u64>, _>>()?);
        }
        // Streams are not equally fast: none may run short in the next round.
        self.waiting = 0;
        Ok(took)
    }
}
