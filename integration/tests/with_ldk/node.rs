//! An LDK node as the peer, on the same bitcoind.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::hashes::{Hash, sha256};
use ldk_node::config::{AnchorChannelsConfig, Config};
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};
use ldk_node::logger::LogLevel;
use ldk_node::payment::{PaymentDetails, PaymentKind, PaymentStatus};
use ldk_node::{Builder, ChannelDetails, Event, Node, NodeError};
use outrigger_integration::bitcoind::free_port;
use outrigger_integration::{Bitcoind, Done, until};

use crate::meeting::{CAPACITY_SAT, Terms};

/// Time for anything that takes a few round trips or a block, on a busy machine. LDK looks for blocks every two
/// seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// What the two anchors of a commitment transaction hold (BOLT 3), in satoshi.
const ANCHORS_SAT: u64 = 2 * 330;

/// Seconds between two looks of LDK's at what it does every so often, and how many before the next are near.
const MINUTE: u64 = 60;
const LEAD: u64 = 6;
const DAY: u64 = 86_400;

/// The file that LDK writes its log to.
const LOG: &str = "ldk.log";

/// The file that LDK keeps its keys in.
const KEYS: &str = "keys_seed";

/// A node in this process, on a runtime of the test.
pub(crate) struct LdkNode {
    node: Node,
    directory: PathBuf,
    port: u16,
    /// Where bitcoind's RPC is, for this node.
    rpc_port: u16,
    /// What it has told and nobody has asked for yet.
    events: Mutex<Vec<Event>>,
    log: Mutex<Log>,
}

/// What was read of the node's log.
#[derive(Default)]
struct Log {
    read: usize,
    /// When the last of LDK's minutes began, in seconds of the day.
    minute: Option<u64>,
    /// How often LDK wanted another feerate for a channel.
    feerates: usize,
    /// How often it has pinged its peers.
    pings: usize,
}

impl Log {
    /// Reads what has come to it.
    fn read_on(&mut self, path: &Path) -> Done<()> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(u64::try_from(self.read)?))?;
        let mut news = Vec::new();
        file.read_to_end(&mut news)?;
        let whole = news.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole;
        for line in String::from_utf8_lossy(news.get(..whole).unwrap_or_default()).lines() {
            if line.contains("Calling ChannelManager's timer_tick_occurred") {
                self.minute = Some(second_of_day(line)?);
            } else if line.contains("qualifies for a feerate change") {
                self.feerates += 1;
            } else if line.contains("Calling PeerManager's timer_tick_occurred") {
                self.pings += 1;
            }
        }
        Ok(())
    }
}

/// When a line of the log was written, in universal time: `2025-01-31 23:59:59` and more.
fn second_of_day(line: &str) -> Done<u64> {
    let time = line.get(11..19).ok_or_else(|| format!("no time in {line}"))?;
    let parts: Vec<u64> = time.split(':').map(str::parse).collect::<Result<_, _>>()?;
    Ok(parts.iter().fold(0, |sum, part| sum * 60 + part))
}

/// How a payment of LDK's stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// LDK knows of none, or cannot tell yet.
    Pending,
    /// It has the preimage, in hex, where it tells one.
    Succeeded(Option<String>),
    Failed,
}

/// An invoice whose payment waits for [`LdkNode::claim`].
pub(crate) struct HoldInvoice {
    /// What to pay (BOLT 11).
    pub(crate) invoice: String,
    /// What the payer gets in the end: 32 bytes, hex.
    pub(crate) preimage: String,
    claim: (PaymentHash, u64, PaymentPreimage),
}

impl LdkNode {
    /// Starts a node with its data in `directory` that finds bitcoind at `rpc_port`.
    pub(crate) fn start(directory: &Path, bitcoind: &Bitcoind, rpc_port: u16) -> Done<Self> {
        let port = free_port()?;
        let node = build(directory, port, bitcoind, rpc_port)?;
        Ok(Self {
            node,
            directory: directory.to_owned(),
            port,
            rpc_port,
            events: Mutex::default(),
            log: Mutex::default(),
        })
    }

    /// Stops the node and starts it again with the same data.
    pub(crate) fn restart(self, bitcoind: &Bitcoind) -> Done<Self> {
        let directory = self.directory.clone();
        self.restart_in(bitcoind, directory)
    }

    /// Stops the node and starts one with the same keys at the same place that knows of no channel.
    pub(crate) fn forgetful(self, bitcoind: &Bitcoind, directory: &Path) -> Done<Self> {
        std::fs::copy(self.directory.join(KEYS), directory.join(KEYS))?;
        self.restart_in(bitcoind, directory.to_owned())
    }

    fn restart_in(self, bitcoind: &Bitcoind, directory: PathBuf) -> Done<Self> {
        let Self { node, directory: before, port, rpc_port, events, log } = self;
        node.stop()?;
        drop(node);
        let log = if directory == before { log } else { Mutex::default() };
        Ok(Self { node: build(&directory, port, bitcoind, rpc_port)?, directory, port, rpc_port, events, log })
    }

    /// The node's public key.
    pub(crate) fn node_id(&self) -> String {
        self.node.node_id().to_string()
    }

    /// Where peers reach it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Mines to the node's wallet until it has mature coins, and waits until it sees them.
    pub(crate) async fn fund(&self, bitcoind: &Bitcoind) -> Done<()> {
        let address = self.node.onchain_payment().new_address()?.to_string();
        bitcoind.mine(1, &address).await?;
        bitcoind.mine_to_nobody(100).await?;
        until(LIMIT, "LDK to see its coins", async || {
            self.node.sync_wallets()?;
            Ok((self.spendable_sat() > 0).then_some(()))
        })
        .await
    }

    /// Waits until the node has seen bitcoind's best block.
    pub(crate) async fn until_synced_with(&self, bitcoind: &Bitcoind) -> Done<()> {
        let height = bitcoind.height().await?;
        until(LIMIT, &format!("LDK to reach block {height}"), async || {
            self.node.sync_wallets()?;
            Ok((self.node.status().current_best_block.height >= height).then_some(()))
        })
        .await
    }

    /// What the wallet may spend, in satoshi.
    pub(crate) fn spendable_sat(&self) -> u64 {
        self.node.list_balances().spendable_onchain_balance_sats
    }

    /// What the wallet and the channels hold, in satoshi.
    pub(crate) fn total_sat(&self) -> u64 {
        let balances = self.node.list_balances();
        balances.total_onchain_balance_sats + balances.total_lightning_balance_sats
    }

    /// Whether the node is connected to it.
    pub(crate) fn is_connected_to(&self, node_id: &str) -> bool {
        self.node.list_peers().iter().any(|peer| peer.is_connected && peer.node_id.to_string() == node_id)
    }

    /// Connects to a node, unless it is connected, and asks it for a channel, which is announced where that is said.
    pub(crate) fn open(&self, node_id: &str, address: &str, terms: Terms) -> Done<()> {
        let (node_id, address) = (node_id.parse()?, socket(address)?);
        let push_msat = Some(terms.push_msat);
        if terms.announce {
            self.node.open_announced_channel(node_id, address, CAPACITY_SAT, push_msat, None)?;
        } else {
            self.node.open_channel(node_id, address, CAPACITY_SAT, push_msat, None)?;
        }
        Ok(())
    }

    /// Waits until a funding transaction is signed; gives the channel's name and the transaction's id.
    pub(crate) async fn until_channel_pending(&self) -> Done<(String, String)> {
        self.until_event("LDK to have a channel pending", |event| match event {
            Event::ChannelPending { channel_id, funding_txo, .. } => {
                Some(Ok((channel_id.to_string(), funding_txo.txid.to_string())))
            }
            Event::ChannelClosed { reason, .. } => Some(Err(format!("LDK gave the channel up: {reason:?}").into())),
            _ => None,
        })
        .await?
    }

    /// Has the node ask for feerates now.
    pub(crate) fn ask_for_fees(&self) -> Done<()> {
        Ok(self.node.sync_wallets()?)
    }

    /// How often the node wanted another feerate for a channel that it opened, since its first start.
    pub(crate) fn feerates_asked_for(&self) -> Done<usize> {
        Ok(self.read_log()?.feerates)
    }

    /// Waits until the node's minute is over so soon that a payment that begins now is still pending then. At the end of each
    /// the node looks whether it wants another feerate, and there is no other way to have it do so.
    pub(crate) async fn until_minute_nears(&self) -> Done<()> {
        until(2 * LIMIT, "LDK's minute to be nearly over", async || {
            let Some(begun) = self.read_log()?.minute else { return Ok(None) };
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() % DAY;
            let age = (now + DAY - begun) % DAY;
            Ok((age >= MINUTE - LEAD).then_some(()))
        })
        .await
    }

    /// Waits until the node has just pinged: the next `ping`, which nobody expects among other messages, is ten seconds off.
    pub(crate) async fn until_pinged(&self) -> Done<()> {
        let before = self.read_log()?.pings;
        until(LIMIT, "LDK to ping", async || Ok((self.read_log()?.pings > before).then_some(()))).await
    }

    fn read_log(&self) -> Done<MutexGuard<'_, Log>> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.read_on(&self.directory.join(LOG))?;
        Ok(log)
    }

    /// The feerate of the commitment transactions, in satoshi per 1000 weight units.
    pub(crate) fn feerate(&self, channel_id: &str) -> Option<u32> {
        self.channel(channel_id).map(|channel| channel.feerate_sat_per_1000_weight)
    }

    /// Waits until the channel carries payments.
    pub(crate) async fn until_usable(&self, channel_id: &str) -> Done<()> {
        until(LIMIT, "LDK's channel to be usable", async || {
            self.node.sync_wallets()?;
            Ok(self.channel(channel_id).filter(|channel| channel.is_usable).map(drop))
        })
        .await
    }

    /// Waits until the node has taken in what its peer asks for forwarding over the channel: base fee in millisatoshi,
    /// millionths, and CLTV delta (BOLT 7, `channel_update`).
    pub(crate) async fn until_forwarding_known(&self, channel_id: &str) -> Done<(u32, u32, u16)> {
        until(LIMIT, "LDK to take in the peer's channel_update", async || {
            let Some(channel) = self.channel(channel_id) else { return Ok(None) };
            let base_msat = channel.counterparty_forwarding_info_fee_base_msat;
            let millionths = channel.counterparty_forwarding_info_fee_proportional_millionths;
            let delta = channel.counterparty_forwarding_info_cltv_expiry_delta;
            Ok(base_msat
                .zip(millionths)
                .zip(delta)
                .map(|((base_msat, millionths), delta)| (base_msat, millionths, delta)))
        })
        .await
    }

    /// The channel of this name, unless it is closed.
    pub(crate) fn channel(&self, channel_id: &str) -> Option<ChannelDetails> {
        self.node.list_channels().into_iter().find(|channel| channel.channel_id.to_string() == channel_id)
    }

    /// What the chain calls a channel, as `BxTxO`.
    pub(crate) fn short_channel_id(&self, channel_id: &str) -> Done<String> {
        let scid = self.channel(channel_id).and_then(|channel| channel.short_channel_id).ok_or("no id yet")?;
        Ok(format!("{}x{}x{}", scid >> 40, scid >> 16 & 0xff_ffff, scid & 0xffff))
    }

    /// Closes a channel together with its peer.
    /// Asked again while its monitor is being written, when it refuses.
    pub(crate) async fn close(&self, channel_id: &str) -> Done<()> {
        let channel = self.channel(channel_id).ok_or("LDK has no such channel")?;
        until(LIMIT, "LDK to begin a close", async || {
            match self.node.close_channel(&channel.user_channel_id, channel.counterparty_node_id) {
                Err(NodeError::ChannelClosingFailed) => Ok(None),
                begun => Ok(Some(begun?)),
            }
        })
        .await
    }

    /// Ends a channel alone: its commitment transaction goes on chain.
    pub(crate) fn force_close(&self, channel_id: &str) -> Done<()> {
        let channel = self.channel(channel_id).ok_or("LDK has no such channel")?;
        Ok(self.node.force_close_channel(&channel.user_channel_id, channel.counterparty_node_id, None)?)
    }

    /// Waits until LDK has given a channel up and tells its reason.
    pub(crate) async fn until_closed(&self, channel_id: &str) -> Done<String> {
        self.until_event("LDK to have closed the channel", |event| match event {
            Event::ChannelClosed { channel_id: closed, reason, .. } if closed.to_string() == channel_id => {
                Some(format!("{reason:?}"))
            }
            _ => None,
        })
        .await
    }

    /// Makes an invoice.
    pub(crate) fn invoice(&self, amount_msat: u64) -> Done<String> {
        Ok(self.node.bolt11_payment().receive(amount_msat, &description()?, 3600)?.to_string())
    }

    /// Makes an invoice whose payment waits to be claimed. `seed` makes its preimage.
    pub(crate) fn hold_invoice(&self, amount_msat: u64, seed: u64) -> Done<HoldInvoice> {
        let preimage = PaymentPreimage(sha256::Hash::hash(&seed.to_be_bytes()).to_byte_array());
        let payment_hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
        let bolt11 = self.node.bolt11_payment();
        let invoice = bolt11.receive_for_hash(amount_msat, &description()?, 3600, payment_hash)?.to_string();
        Ok(HoldInvoice { invoice, preimage: hex(&preimage.0), claim: (payment_hash, amount_msat, preimage) })
    }

    /// Waits until the HTLC of a held invoice has come in and is irrevocably committed.
    pub(crate) async fn until_held(&self, held: &HoldInvoice) -> Done<()> {
        self.until_event("LDK to hold the HTLC", |event| is_claimable(event, held)).await
    }

    /// Claims the HTLC of a held invoice.
    pub(crate) fn claim(&self, held: &HoldInvoice) -> Done<()> {
        let (payment_hash, amount_msat, preimage) = held.claim;
        Ok(self.node.bolt11_payment().claim_for_hash(payment_hash, amount_msat, preimage)?)
    }

    /// Fails the HTLC of a held invoice.
    pub(crate) fn fail(&self, held: &HoldInvoice) -> Done<()> {
        Ok(self.node.bolt11_payment().fail_for_hash(held.claim.0)?)
    }

    /// What LDK says is its own and the peer's in a channel, in millisatoshi; each absent where it is so small that it is
    /// all reserve. LDK leaves the reserve out of what can be sent, and of the opener's part the two anchors.
    pub(crate) fn shares(&self, channel_id: &str) -> Option<(Option<u64>, Option<u64>)> {
        let channel = self.channel(channel_id)?;
        let whole = |capacity_msat: u64, reserve_sat: u64, is_opener: bool| {
            let anchors_sat = if is_opener { ANCHORS_SAT } else { 0 };
            (capacity_msat > 0).then(|| capacity_msat + (reserve_sat + anchors_sat) * 1000)
        };
        let own_reserve_sat = channel.unspendable_punishment_reserve.unwrap_or_default();
        let own = whole(channel.outbound_capacity_msat, own_reserve_sat, channel.is_outbound);
        let peers_reserve_sat = channel.counterparty_unspendable_punishment_reserve;
        Some((own, whole(channel.inbound_capacity_msat, peers_reserve_sat, !channel.is_outbound)))
    }

    /// Begins to pay a node that has given no invoice; gives the payment hash in hex.
    pub(crate) fn send_unasked(&self, node_id: &str, amount_msat: u64) -> Done<String> {
        Ok(hex(&self.node.spontaneous_payment().send(amount_msat, node_id.parse()?, None)?.0))
    }

    /// Fails the HTLC of a held invoice if it has come in since this was asked last.
    pub(crate) fn fail_if_held(&self, held: &HoldInvoice) -> Done<()> {
        match self.take(|event| is_claimable(event, held))? {
            Some(()) => self.fail(held),
            None => Ok(()),
        }
    }

    /// Begins to pay an invoice.
    pub(crate) fn send(&self, invoice: &str) -> Done<()> {
        self.node.bolt11_payment().send(&bolt11(invoice)?, None)?;
        Ok(())
    }

    /// Waits until the payment of an invoice, sent or received, has ended; gives the preimage if it succeeded.
    pub(crate) async fn payment_end(&self, invoice: &str) -> Done<Option<String>> {
        let payment_hash = payment_hash(invoice)?;
        until(LIMIT, "LDK's payment to end", async || {
            Ok(match self.standing(&payment_hash) {
                Standing::Pending => None,
                Standing::Failed => Some(None),
                Standing::Succeeded(preimage) => Some(preimage),
            })
        })
        .await
    }

    /// How the payment of this hash stands, sent or received.
    pub(crate) fn standing(&self, payment_hash: &str) -> Standing {
        let is_it = |payment: &&PaymentDetails| hash(&payment.kind).is_some_and(|hash| hash == payment_hash);
        let payments = self.node.list_payments();
        match payments.iter().find(is_it) {
            None => Standing::Pending,
            Some(payment) => match payment.status {
                PaymentStatus::Pending => Standing::Pending,
                PaymentStatus::Failed => Standing::Failed,
                PaymentStatus::Succeeded => Standing::Succeeded(preimage(&payment.kind)),
            },
        }
    }

    /// The first event that answers, out of all that nobody has taken yet.
    fn take<T>(&self, answer: impl Fn(&Event) -> Option<T>) -> Done<Option<T>> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(event) = self.node.next_event() {
            self.node.event_handled()?;
            events.push(event);
        }
        let answers = events.iter().enumerate().find_map(|(at, event)| answer(event).map(|answer| (at, answer)));
        Ok(answers.map(|(at, answer)| {
            events.remove(at);
            answer
        }))
    }

    /// Waits for an event that answers.
    async fn until_event<T>(&self, what: &str, answer: impl Fn(&Event) -> Option<T>) -> Done<T> {
        until(LIMIT, what, async || self.take(&answer)).await
    }
}

fn is_claimable(event: &Event, held: &HoldInvoice) -> Option<()> {
    match event {
        Event::PaymentClaimable { payment_hash, .. } => (*payment_hash == held.claim.0).then_some(()),
        _ => None,
    }
}

fn build(directory: &Path, port: u16, bitcoind: &Bitcoind, rpc_port: u16) -> Done<Node> {
    // Its wallet pays no fees of anchors here, so that a node without coins takes a channel, too.
    let anchors = AnchorChannelsConfig { per_channel_reserve_sats: 0, ..AnchorChannelsConfig::default() };
    let config = Config { anchor_channels_config: Some(anchors), ..Config::default() };
    let (user, password) = bitcoind.credentials()?;
    let mut builder = Builder::from_config(config);
    builder.set_network(Network::Regtest);
    builder.set_storage_dir_path(directory.display().to_string());
    builder.set_filesystem_logger(Some(directory.join(LOG).display().to_string()), Some(LogLevel::Trace));
    builder.set_listening_addresses(vec![socket(&format!("127.0.0.1:{port}"))?])?;
    builder.set_node_alias("ldk".to_owned())?;
    builder.set_chain_source_bitcoind_rpc("127.0.0.1".to_owned(), rpc_port, user, password);
    let node = builder.build()?;
    node.start()?;
    Ok(node)
}

fn socket(address: &str) -> Done<SocketAddress> {
    address.parse().map_err(|fault| format!("{address}: {fault:?}").into())
}

fn bolt11(invoice: &str) -> Done<Bolt11Invoice> {
    invoice.parse().map_err(|fault| format!("{invoice}: {fault:?}").into())
}

fn description() -> Done<Bolt11InvoiceDescription> {
    let text = Description::new("integration".to_owned()).map_err(|fault| format!("{fault:?}"))?;
    Ok(Bolt11InvoiceDescription::Direct(text))
}

/// The payment hash of an invoice, in hex.
pub(crate) fn payment_hash(invoice: &str) -> Done<String> {
    Ok(hex(&bolt11(invoice)?.payment_hash().to_byte_array()))
}

fn hash(kind: &PaymentKind) -> Option<String> {
    match kind {
        PaymentKind::Bolt11 { hash, .. } | PaymentKind::Spontaneous { hash, .. } => Some(hex(&hash.0)),
        _ => None,
    }
}

fn preimage(kind: &PaymentKind) -> Option<String> {
    match kind {
        PaymentKind::Bolt11 { preimage, .. } | PaymentKind::Spontaneous { preimage, .. } => {
            preimage.map(|preimage| hex(&preimage.0))
        }
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
