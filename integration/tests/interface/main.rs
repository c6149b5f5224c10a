//! The interface under calls drawn from its own OpenRPC document, which a live daemon gives: such as the document admits and such as it
//! does not, alone and in batches, without an id, broken in their bytes, over each door at once. A second daemon and a chain stand
//! behind it, so that calls do what they say.
//!
//! `INTERFACE_SECONDS=60` draws for so long, `INTERFACE_ROUNDS` so many times for each visitor; `OUTRIGGER_SEED` repeats a run: the same
//! messages from each visitor, though what is there meanwhile depends on who comes first.
#![expect(clippy::expect_used, reason = "a test stops at its first surprise")]

mod doors;
mod draw;
mod judge;
mod known;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use doors::{Door, Heard, Pipe, TOKENS, Visitor};
use draw::Drawer;
use judge::Judge;
use known::Known;
use outrigger_integration::schema::Schema;
use outrigger_integration::sidecar::{LIMIT, executable};
use outrigger_integration::{Client, Dice, Done, Regtest, Sidecar, on_regtest, until};
use outrigger_rpc_schema::rendezvous::network_directory;
use outrigger_rpc_schema::{
    ChannelList, ChannelOpen, ChannelState, InvoiceCreate, NodeStatus, Phase, Scope, TokenCreate,
};
use serde_json::{Map, Value};
use tokio::process::Command;

/// How many draw at the same time; the test names each.
const VISITORS: u64 = 4;

/// Rounds of each where nothing else is said.
const ROUNDS: u64 = 60;

/// Calls of one method until it must have been answered.
const ENOUGH: u64 = 300;

/// How often what calls have taken away is put back.
const TEND_EVERY: u64 = 40;

/// Below this the wallet gets coins again, in satoshi.
const POOR_SAT: u64 = 5_000_000;

/// What was said, and what came back.
#[derive(Default)]
struct Tally {
    rounds: u64,
    /// Answers and refusals by method.
    calls: BTreeMap<String, (u64, u64)>,
}

/// When to stop.
#[derive(Clone, Copy)]
enum Until {
    Rounds(u64),
    Time(Instant),
}

impl Until {
    fn told() -> Done<Self> {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>()).transpose();
        Ok(match number("INTERFACE_SECONDS")? {
            Some(seconds) => Self::Time(Instant::now() + Duration::from_secs(seconds)),
            None => Self::Rounds(number("INTERFACE_ROUNDS")?.unwrap_or(ROUNDS)),
        })
    }

    fn is_over(self, round: u64) -> bool {
        match self {
            Self::Rounds(rounds) => round >= rounds,
            Self::Time(end) => Instant::now() >= end,
        }
    }
}

/// What all visitors share.
struct Stage<'a> {
    regtest: &'a Regtest,
    alice: &'a Sidecar,
    bob: &'a Sidecar,
    document: Value,
    schema: Schema,
    known: Known,
    tally: Mutex<Tally>,
    seed: u64,
    /// A daemon of its own, which nobody has channels with.
    pipe: Arc<tokio::sync::Mutex<Pipe>>,
}

/// A fault, for people.
fn told(fault: &str, said: &str, heard: &dyn std::fmt::Debug) -> String {
    format!("{fault}\nsaid: {}\nheard: {heard:?}", said.get(..2000).unwrap_or(said))
}

/// Starts a daemon as a host does that spawns it, and waits until it is ready.
async fn child(regtest: &Regtest) -> Done<Pipe> {
    let directory = regtest.directory("child")?;
    let mut command = Command::new(executable()?);
    command.args(["--stdio", "--network", "regtest", "--rpc-address", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(&directory).args(["--bitcoind-url", &regtest.bitcoind.address()]);
    command.arg("--bitcoind-cookie").arg(regtest.bitcoind.cookie());
    command.stderr(std::fs::File::create(directory.join("outriggerd.log"))?);
    let pipe = Pipe::open(command)?;
    until(LIMIT, "the child to be ready", async || {
        let Ok(client) = Client::in_directory(&network_directory(&directory, "regtest")) else { return Ok(None) };
        let status = client.call(NodeStatus {}).await.ok();
        Ok(status.filter(|status| status.phase == Phase::Ready).map(drop))
    })
    .await?;
    Ok(pipe)
}

#[tokio::test(flavor = "multi_thread")]
async fn prs_8_whatever_is_called_has_an_answer_that_the_document_tells_of() -> Done<()> {
    let (until, seed, begun) = (Until::told()?, Dice::seed()?, Instant::now());
    on_regtest(async |regtest| {
        let (alice, bob) = regtest.pair().await?;
        regtest.channel(&alice, &bob, 5_000_000, 1_000_000_000).await?;
        let document = alice.client().call_untyped("rpc.discover", &Map::new()).await?;
        let schema = Schema::of(&document)?;
        let (known, tally) = (Known::default(), Mutex::default());
        let pipe = Arc::new(tokio::sync::Mutex::new(child(regtest).await?));
        let held = Arc::clone(&pipe);
        let stage = Stage { regtest, alice: &alice, bob: &bob, document, schema, known, tally, seed, pipe: held };
        stage.tend().await?;
        let visit = |number| stage.visit(number, until);
        tokio::try_join!(visit(0), visit(1), visit(2), visit(3))?;
        stage.tend().await?;
        stage.until_each_is_answered().await?;
        stage.tell_tally(begun);
        drop(stage);
        let pipe = Arc::into_inner(pipe).ok_or("somebody holds the pipe")?.into_inner();
        assert_eq!(pipe.close().await?, Some(0), "the child outlived all that was said to it, and ends with its host");
        Ok(())
    })
    .await
}

impl Stage<'_> {
    /// Prints what was called. Every method of the document was, and has answered, but for the one that ends the daemon.
    fn tell_tally(&self, begun: Instant) {
        let tally = self.tally.lock().expect("nobody panics with it");
        let [answered, refused] = tally
            .calls
            .values()
            .fold([0, 0], |[answered, refused], (some, others)| [answered + some, refused + others]);
        for (method, (answered, refused)) in &tally.calls {
            println!("interface: {method}: {answered} answered, {refused} refused");
        }
        for method in self.document["methods"].as_array().into_iter().flatten() {
            let name = method["name"].as_str().unwrap_or_default();
            let (answered, refused) = tally.calls.get(name).copied().unwrap_or_default();
            assert!(answered + refused > 0, "{name} was never called");
            assert_eq!(answered > 0, name != draw::ENDS_THE_NODE, "{name}: {answered} answered, {refused} refused");
        }
        println!(
            "interface: {} rounds, {answered} calls answered, {refused} refused as the document tells, in {} s",
            tally.rounds,
            begun.elapsed().as_secs()
        );
    }

    /// Draws calls that the document admits of each method that has only refused so far, until it has answered: each can mean something that
    /// is there.
    async fn until_each_is_answered(&self) -> Done<()> {
        let mut visitor = self.visitor(VISITORS).await?;
        for (index, method) in self.document["methods"].as_array().into_iter().flatten().enumerate() {
            let name = method["name"].as_str().unwrap_or_default();
            for round in 0..ENOUGH {
                let is_answered = {
                    let tally = self.tally.lock().expect("nobody panics with it");
                    tally.calls.get(name).is_some_and(|(answered, _)| *answered > 0)
                };
                if is_answered || name == draw::ENDS_THE_NODE {
                    break;
                }
                if round % 20 == 19 {
                    self.tend().await?;
                }
                let dice = Dice::of_step(self.seed, VISITORS + index as u64, round);
                let message = Drawer { dice, known: &self.known, document: &self.document }.call(Some(index));
                // What it means may be at the one daemon or the other.
                let door = if round % 4 == 3 { Door::Pipe } else { Door::WebSocket };
                let fault = self.exchange(&mut visitor, door, &message).await;
                fault.map_err(|fault| format!("{fault}\nat the end, call {round} of {name}"))?;
            }
        }
        Ok(())
    }

    /// A visitor with tokens of its own.
    async fn visitor(&self, number: u64) -> Done<Visitor> {
        let mut tokens = Vec::new();
        for (which, scopes) in TOKENS.iter().enumerate() {
            let (name, scopes) = (format!("visitor {number} {which}"), scopes.to_vec());
            tokens.push(self.alice.call(TokenCreate { name, scopes, ..Default::default() }).await?.token);
        }
        let place = network_directory(self.alice.directory(), "regtest");
        Visitor::of(&place, &tokens, Arc::clone(&self.pipe))
    }

    async fn visit(&self, number: u64, until: Until) -> Done<()> {
        let mut visitor = self.visitor(number).await?;
        let mut round = 0;
        while !until.is_over(round) {
            self.round(&mut visitor, number, round).await?;
            if number == 0 && round % TEND_EVERY == TEND_EVERY - 1 {
                self.tend().await?;
            }
            round += 1;
        }
        Ok(())
    }

    /// One message, or one request that is none.
    async fn round(&self, visitor: &mut Visitor, number: u64, round: u64) -> Done<()> {
        let dice = Dice::of_step(self.seed, number, round);
        let mut drawer = Drawer { dice, known: &self.known, document: &self.document };
        let token = Door::Token(drawer.dice.one_of([0, 1, 2, 3]));
        let door = drawer.dice.one_of([Door::Port, token, Door::SocketFile, Door::WebSocket, Door::Pipe]);
        let judge = Judge { schema: &self.schema, document: &self.document };
        self.tally.lock().expect("nobody panics with it").rounds += 1;
        let found = |fault: &str| {
            let replay = format!("OUTRIGGER_SEED={} INTERFACE_ROUNDS={}", self.seed, round + 1);
            format!("{fault}\nvisitor {number}, round {round}, {door:?}\nreplay: {replay}").into()
        };
        let methods = self.document["methods"].as_array().map_or(0, Vec::len);
        // Each method first, in turn.
        let turn = round * VISITORS + number;
        let first = usize::try_from(turn).ok().filter(|turn| *turn < methods);
        let message = match (first, drawer.dice.below(20)) {
            (Some(_), _) => drawer.call(first),
            (None, 0..11) => drawer.call(None),
            (None, 11..14) => drawer.odd_call(),
            (None, 14..17) => drawer.batch(),
            (None, 17) => {
                let fault = visitor.intrude(&mut drawer.dice).await?;
                return fault.map_or(Ok(()), |fault| Err(found(&fault)));
            }
            (None, _) => {
                let bytes = drawer.spoilt_bytes();
                let said = String::from_utf8_lossy(&bytes);
                // Where both sides speak nobody knows whether there will be an answer.
                let is_session = matches!(door, Door::WebSocket | Door::Pipe);
                let door = if is_session { Door::SocketFile } else { door };
                let heard = visitor
                    .say(door, &bytes, true)
                    .await
                    .map_err(|fault| found(&told(&fault.to_string(), &said, &"")))?;
                let fault = match &heard {
                    Heard::Answer(answer) => answer.as_ref().and_then(|answer| judge.fault_of_any(answer)),
                    Heard::TurnedAway(_) | Heard::Behind => Some("it was turned away".to_owned()),
                };
                return fault.map_or(Ok(()), |fault| Err(found(&told(&fault, &said, &heard))));
            }
        };
        self.exchange(visitor, door, &message).await.map_err(|fault| found(&fault.to_string()))
    }

    /// Says this at a door, and judges what comes back.
    async fn exchange(&self, visitor: &mut Visitor, door: Door, message: &Value) -> Done<()> {
        let judge = Judge { schema: &self.schema, document: &self.document };
        let said = message.to_string();
        let is_awaited = judge.is_answered(message);
        let heard = visitor.say(door, said.as_bytes(), is_awaited).await;
        let heard = heard.map_err(|fault| told(&fault.to_string(), &said, &""))?;
        for notice in visitor.notices.drain(..) {
            if let Some(fault) = judge.fault_of_notice(&notice) {
                return Err(told(&fault, &said, &notice).into());
            }
        }
        let fault = match &heard {
            Heard::Answer(answer) => {
                self.count(message, answer.as_ref());
                judge.fault(door, message, answer.as_ref())
            }
            Heard::TurnedAway(status) => Some(format!("it was turned away with HTTP {status}")),
            Heard::Behind => None,
        };
        fault.map_or(Ok(()), |fault| Err(told(&fault, &said, &heard).into()))
    }

    fn count(&self, message: &Value, answer: Option<&Value>) {
        let Some((method, answer)) = message["method"].as_str().zip(answer) else { return };
        if self.document["methods"].as_array().is_none_or(|methods| methods.iter().all(|known| known["name"] != method))
        {
            return;
        }
        let mut tally = self.tally.lock().expect("nobody panics with it");
        let counted = tally.calls.entry(method.to_owned()).or_default();
        match answer.get("result") {
            Some(result) => {
                counted.0 += 1;
                self.known.harvest(result);
            }
            None => counted.1 += 1,
        }
    }

    /// Puts back what calls have taken away: coins, the connection, channels, invoices. Finds out whether the daemon still works.
    async fn tend(&self) -> Done<()> {
        let Self { regtest, alice, bob, known, .. } = self;
        alice.until_phase(&[Phase::Ready]).await?;
        if alice.balance().await?.confirmed_sat < POOR_SAT {
            alice.fund(&regtest.bitcoind).await?;
        }
        regtest.bitcoind.mine_to_nobody(1).await?;
        tokio::try_join!(alice.until_synced_with(&regtest.bitcoind), bob.until_synced_with(&regtest.bitcoind))?;
        let bob_id = bob.node_id().await?;
        // Whatever a caller does meanwhile may stand against it, here and below.
        drop(alice.connect_to(&bob_id, &bob.address()).await);
        let normal = ChannelList { state: Some(ChannelState::Normal), ..Default::default() };
        let channels = alice.call(normal).await?.items;
        channels.iter().for_each(|channel| known.note("channel_id", &channel.channel_id));
        if channels.len() < 2 {
            let order = ChannelOpen {
                node_id: bob_id.clone(),
                funding_sat: 1_000_000,
                push_msat: Some(400_000_000),
                idempotency_key: format!("tended at {}", regtest.bitcoind.height().await?),
                ..Default::default()
            };
            if let Ok(begun) = alice.call(order).await {
                known.note("op_id", &begun.op_id);
                if let Ok(opened) = alice.end_of_opening(&begun.op_id).await {
                    opened.channel_id.iter().for_each(|channel_id| known.note("channel_id", channel_id));
                    opened.funding_txid.iter().for_each(|txid| known.note("txid", txid));
                }
            }
            regtest.bitcoind.mine_to_nobody(6).await?;
        }
        for (amount_msat, from) in [(Some(1_000), bob), (Some(20_000_000), bob), (None, bob), (Some(5_000), alice)] {
            let order = InvoiceCreate { amount_msat, description: "drawn".to_owned(), ..Default::default() };
            let made = from.call(order).await?;
            known.note("invoice", &made.invoice);
            known.note("payment_hash", &made.payment_hash);
            if amount_msat == Some(1_000)
                && let Ok(payment_id) = alice.send(&made.invoice).await
            {
                known.note("payment_id", &payment_id);
            }
        }
        let token = TokenCreate { name: "token 0".to_owned(), scopes: vec![Scope::Read], ..Default::default() };
        drop(alice.call(token).await);
        known.note("node_id", &bob_id);
        known.note("node_id", &alice.node_id().await?);
        known.note("address", &bob.new_address().await?);
        for address in [bob.address(), alice.address(), "127.0.0.1:1".to_owned(), "[::1]:1".to_owned()] {
            known.note("peer.address", &address);
        }
        Ok(())
    }
}
