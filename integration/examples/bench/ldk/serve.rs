//! The process of an LDK node: takes orders as lines on its standard input, and answers each with a line.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lightning::bitcoin::absolute::LockTime;
use lightning::bitcoin::block::{Header, Version as BlockVersion};
use lightning::bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use lightning::bitcoin::hashes::Hash;
use lightning::bitcoin::hex::{DisplayHex, FromHex};
use lightning::bitcoin::secp256k1::PublicKey;
use lightning::bitcoin::transaction::Version;
use lightning::bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
};
use lightning::chain::Listen;
use lightning::ln::channelmanager::{PaymentId, RecipientOnionFields};
use lightning::routing::router::{Path as Way, Route, RouteHop};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentSecret};
use outrigger_integration::Done;
use tokio::runtime::Runtime;

use super::node::{News, Node};
use super::run::{self, Pace};

/// How long anything may take before the run is given up.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a sender without news looks whether it shall stop.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// From this many in flight on, a place is free only when the HTLC has left both commitments: before, the channel could
/// run out of places.
const WAIT_UNTIL_GONE: usize = 200;

/// Runs a node until its standard input ends.
pub(crate) fn serve(directory: &Path, number: u8, pace: Pace) -> Done<()> {
    let node = Arc::new(Node::new(directory, number)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    run::start(&runtime, &node, pace);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    // The blocks that a process before this one was told of are not told again.
    let best = node.channels.current_best_block();
    let mut process = Process { node, runtime, height: best.height, tip: best.block_hash, sender: None };
    process.accept(listener);
    answer(&format!("{} {port}", process.node.id))?;
    for line in std::io::stdin().lock().lines() {
        match process.obey(&line?) {
            Ok(said) => answer(&said)?,
            Err(fault) => answer(&format!("! {fault}"))?,
        }
    }
    Ok(())
}

fn answer(text: &str) -> Done<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

struct Process {
    node: Arc<Node>,
    runtime: Runtime,
    height: u32,
    tip: BlockHash,
    sender: Option<Sender>,
}

impl Process {
    fn accept(&self, listener: TcpListener) {
        let (peers, handle) = (self.node.peers.clone(), self.runtime.handle().clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stream.set_nodelay(true).is_ok() {
                    let _inside = handle.enter();
                    handle.spawn(lightning_net_tokio::setup_inbound(peers.clone(), stream));
                }
            }
        });
    }

    fn obey(&mut self, line: &str) -> Done<String> {
        let mut words = line.split(' ');
        let order = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        match (order, rest.as_slice()) {
            ("connect", [id, port]) => self.connect(PublicKey::from_str(id)?, port.parse()?),
            ("open", [id, sat]) => self.open(PublicKey::from_str(id)?, sat.parse()?),
            ("block", transactions) => self.block(transactions),
            ("channel", [id]) => Ok(self.channel(PublicKey::from_str(id)?).unwrap_or_default()),
            ("trust", [trusts]) => {
                self.node.application.trusts.store(*trusts == "yes", Ordering::Relaxed);
                Ok(String::new())
            }
            ("ready", []) => Ok(self.node.application.ready.load(Ordering::Relaxed).to_string()),
            ("write", []) => {
                run::write(&self.node.channels, &self.node.store)?;
                Ok(String::new())
            }
            ("usable", []) => Ok(self.node.channels.list_usable_channels().len().to_string()),
            ("known", []) => Ok(self.node.channels.list_channels().len().to_string()),
            ("invoices", [count, msat]) => self.invoices(count.parse()?, msat.parse()?),
            ("route", [msat, hops @ ..]) => self.route(msat.parse()?, hops),
            ("take", invoices) => self.sender()?.take(invoices),
            ("start", [window]) => self.start(window.parse()?),
            ("paid", []) => Ok(self.sender()?.shared.paid.load(Ordering::Relaxed).to_string()),
            ("stop", []) => self.sender()?.stop(),
            _ => Err(format!("no such order: {order}").into()),
        }
    }

    fn sender(&mut self) -> Done<&mut Sender> {
        self.sender.as_mut().ok_or_else(|| "the node has no route to pay over".into())
    }

    fn connect(&self, id: PublicKey, port: u16) -> Done<String> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        // LDK leaves Nagle's algorithm on; without it a payment takes a multiple of the time.
        stream.set_nodelay(true)?;
        {
            let _inside = self.runtime.enter();
            self.runtime.spawn(lightning_net_tokio::setup_outbound(self.node.peers.clone(), id, stream));
        }
        until("a connection", || Ok(self.node.peers.peer_by_node_id(&id).map(|_| String::new())))
    }

    /// Opens a channel; says its funding transaction.
    fn open(&self, id: PublicKey, sat: u64) -> Done<String> {
        self.node.channels.create_channel(id, sat, 0, 1, None, None).map_err(|fault| format!("{fault:?}"))?;
        loop {
            match locked(&self.node.news).recv_timeout(LIMIT)? {
                News::Funding { temporary, peer, sat, script } => {
                    let mut coin = [1; 32];
                    coin.iter_mut().zip(temporary.0).for_each(|(to, from)| *to = from);
                    let transaction = Transaction {
                        version: Version::TWO,
                        lock_time: LockTime::ZERO,
                        input: vec![TxIn {
                            previous_output: OutPoint { txid: Txid::from_byte_array(coin), vout: 0 },
                            script_sig: lightning::bitcoin::ScriptBuf::new(),
                            sequence: Sequence::MAX,
                            witness: Witness::from_slice(&[[1; 64]]),
                        }],
                        output: vec![TxOut { value: Amount::from_sat(sat), script_pubkey: script }],
                    };
                    let said = serialize_hex(&transaction);
                    let funded = self.node.channels.funding_transaction_generated(temporary, peer, transaction);
                    funded.map_err(|fault| format!("{fault:?}"))?;
                    return Ok(said);
                }
                News::Failed(fault) => return Err(fault.into()),
                News::Sent(_) | News::Gone => {}
            }
        }
    }

    fn block(&mut self, transactions: &[&str]) -> Done<String> {
        let txdata = transactions.iter().map(|hex| deserialize_hex(hex)).collect::<Result<Vec<_>, _>>()?;
        self.height += 1;
        let header = Header {
            version: BlockVersion::NO_SOFT_FORK_SIGNALLING,
            prev_blockhash: self.tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.height,
            bits: CompactTarget::from_consensus(42),
            nonce: self.height,
        };
        let block = Block { header, txdata };
        self.tip = block.block_hash();
        self.node.monitors.block_connected(&block, self.height);
        self.node.channels.block_connected(&block, self.height);
        Ok(String::new())
    }

    /// How the channel with a peer is called, once it can be used.
    fn channel(&self, id: PublicKey) -> Option<String> {
        let usable = self.node.channels.list_usable_channels();
        let found = usable.iter().rfind(|channel| channel.counterparty.node_id == id)?;
        let of_anchors = found.channel_type.as_ref().is_some_and(|it| it.supports_anchors_zero_fee_htlc_tx());
        found.short_channel_id.filter(|_| of_anchors).map(|name| name.to_string())
    }

    fn invoices(&self, count: usize, msat: u64) -> Done<String> {
        let invoice = |_| {
            let made = self.node.channels.create_inbound_payment(Some(msat), 7200, None);
            let (hash, secret) = made.map_err(|()| "an invoice cannot be made")?;
            Ok(format!("{}{}", hash.0.to_lower_hex_string(), secret.0.to_lower_hex_string()))
        };
        Ok((0..count).map(invoice).collect::<Done<Vec<_>>>()?.join(" "))
    }

    /// The way that all payments take: node and channel of each hop.
    fn route(&mut self, msat: u64, hops: &[&str]) -> Done<String> {
        let last = hops.len() / 2 - 1;
        let hop = |(place, pair): (usize, &[&str])| {
            let [node, channel] = pair else { return Err("a hop is a node and a channel".into()) };
            let is_last = place == last;
            Ok(RouteHop {
                pubkey: PublicKey::from_str(node)?,
                node_features: NodeFeatures::empty(),
                short_channel_id: channel.parse()?,
                channel_features: ChannelFeatures::empty(),
                fee_msat: if is_last { msat } else { 1000 + msat * 100 / 1_000_000 },
                cltv_expiry_delta: if is_last { 42 } else { 80 },
                maybe_announced_channel: true,
            })
        };
        let hops = hops.chunks(2).enumerate().map(hop).collect::<Done<Vec<_>>>()?;
        let route = Route { paths: vec![Way { hops, blinded_tail: None }], route_params: None };
        self.sender = Some(Sender { route, shared: Arc::default(), thread: None });
        Ok(String::new())
    }

    fn start(&mut self, window: usize) -> Done<String> {
        let node = self.node.clone();
        self.sender()?.start(node, window)
    }
}

/// Payments in a closed loop.
struct Sender {
    route: Route,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Done<Vec<u64>>>>,
}

#[derive(Default)]
struct Shared {
    invoices: Mutex<VecDeque<(PaymentHash, PaymentSecret)>>,
    paid: AtomicU64,
    stopping: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sender {
    fn take(&self, invoices: &[&str]) -> Done<String> {
        let read = |text: &&str| {
            let (hash, secret) = text.split_at_checked(64).ok_or("a short invoice")?;
            Ok((PaymentHash(<[u8; 32]>::from_hex(hash)?), PaymentSecret(<[u8; 32]>::from_hex(secret)?)))
        };
        let read = invoices.iter().map(read).collect::<Done<Vec<_>>>()?;
        let mut waiting = locked(&self.shared.invoices);
        waiting.extend(read);
        Ok(waiting.len().to_string())
    }

    fn start(&mut self, node: Arc<Node>, window: usize) -> Done<String> {
        let (shared, route) = (self.shared.clone(), self.route.clone());
        shared.stopping.store(false, Ordering::Relaxed);
        self.thread = Some(std::thread::spawn(move || pay(&node, &shared, &route, window)));
        Ok(String::new())
    }

    /// Lets what is in flight arrive; says how long each payment took, in microseconds.
    fn stop(&mut self) -> Done<String> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("nothing was started")?;
        let took = thread.join().map_err(|_| "the sender panicked")??;
        Ok(took.iter().map(u64::to_string).collect::<Vec<_>>().join(" "))
    }
}

fn pay(node: &Node, shared: &Shared, route: &Route, window: usize) -> Done<Vec<u64>> {
    let heard = locked(&node.news);
    let mut begun: HashMap<PaymentHash, Instant> = HashMap::with_capacity(window);
    let (mut took, mut held, mut moved) = (Vec::new(), 0_usize, Instant::now());
    loop {
        let stopping = shared.stopping.load(Ordering::Relaxed);
        let free_at_sent = window < WAIT_UNTIL_GONE;
        while !stopping && (if free_at_sent { begun.len() } else { held }) < window {
            let (hash, secret) = locked(&shared.invoices).pop_front().ok_or("the invoices were too few")?;
            begun.insert(hash, Instant::now());
            held += 1;
            let fields = RecipientOnionFields::secret_only(secret);
            let sent = node.channels.send_payment_with_route(route.clone(), hash, fields, PaymentId(hash.0));
            sent.map_err(|fault| format!("a payment is not sent: {fault:?}"))?;
        }
        if stopping && begun.is_empty() && held == 0 {
            return Ok(took);
        }
        let mut news = match heard.recv_timeout(LOOK_AGAIN) {
            Ok(news) => Some(news),
            Err(RecvTimeoutError::Timeout) if moved.elapsed() < LIMIT => None,
            Err(fault) => return Err(format!("nothing is paid any more: {fault}").into()),
        };
        if news.is_some() {
            moved = Instant::now();
        }
        while let Some(one) = news {
            match one {
                News::Sent(hash) => {
                    let since = begun.remove(&hash).ok_or("a payment of nobody")?;
                    took.push(u64::try_from(since.elapsed().as_micros())?);
                    shared.paid.fetch_add(1, Ordering::Relaxed);
                }
                News::Gone => held = held.saturating_sub(1),
                News::Failed(fault) => return Err(fault.into()),
                News::Funding { .. } => {}
            }
            news = heard.try_recv().ok();
        }
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Done<Option<T>>) -> Done<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > LIMIT {
            return Err(format!("gave up waiting for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
