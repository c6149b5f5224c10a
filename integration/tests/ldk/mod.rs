//! An LDK node as the peer, on the same bitcoind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::hashes::{Hash, sha256};
use ldk_node::config::{AnchorChannelsConfig, Config};
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};
use ldk_node::payment::{PaymentDetails, PaymentKind, PaymentStatus};
use ldk_node::{Builder, ChannelDetails, Event, Node};
use outrigger_integration::bitcoind::free_port;
use outrigger_integration::{Bitcoind, Done, until};

/// Time for anything that takes a few round trips or a block, on a busy machine. LDK looks for blocks every two
/// seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// A node in this process, on a runtime of the test.
pub(crate) struct LdkNode {
    node: Node,
    directory: PathBuf,
    port: u16,
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
    /// Starts a node with its data in `directory`.
    pub(crate) fn start(directory: &Path, bitcoind: &Bitcoind) -> Done<Self> {
        let port = free_port()?;
        Ok(Self { node: build(directory, port, bitcoind)?, directory: directory.to_owned(), port })
    }

    /// Stops the node and starts it again with the same data.
    pub(crate) fn restart(self, bitcoind: &Bitcoind) -> Done<Self> {
        let Self { node, directory, port } = self;
        node.stop()?;
        drop(node);
        Ok(Self { node: build(&directory, port, bitcoind)?, directory, port })
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
    pub(crate) fn open(&self, node_id: &str, address: &str, funding_sat: u64, announce: bool) -> Done<()> {
        let (node_id, address) = (node_id.parse()?, socket(address)?);
        if announce {
            self.node.open_announced_channel(node_id, address, funding_sat, None, None)?;
        } else {
            self.node.open_channel(node_id, address, funding_sat, None, None)?;
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

    /// Closes a channel together with its peer.
    pub(crate) fn close(&self, channel_id: &str) -> Done<()> {
        let channel = self.channel(channel_id).ok_or("LDK has no such channel")?;
        Ok(self.node.close_channel(&channel.user_channel_id, channel.counterparty_node_id)?)
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
    pub(crate) fn hold_invoice(&self, amount_msat: u64, seed: u8) -> Done<HoldInvoice> {
        let preimage = PaymentPreimage([seed; 32]);
        let payment_hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
        let bolt11 = self.node.bolt11_payment();
        let invoice = bolt11.receive_for_hash(amount_msat, &description()?, 3600, payment_hash)?.to_string();
        Ok(HoldInvoice { invoice, preimage: hex(&preimage.0), claim: (payment_hash, amount_msat, preimage) })
    }

    /// Waits until the HTLC of a held invoice has come in and is irrevocably committed.
    pub(crate) async fn until_held(&self, held: &HoldInvoice) -> Done<()> {
        self.until_event("LDK to hold the HTLC", |event| match event {
            Event::PaymentClaimable { payment_hash, .. } => (*payment_hash == held.claim.0).then_some(()),
            _ => None,
        })
        .await
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

    /// Begins to pay an invoice.
    pub(crate) fn send(&self, invoice: &str) -> Done<()> {
        self.node.bolt11_payment().send(&bolt11(invoice)?, None)?;
        Ok(())
    }

    /// Waits until the payment of an invoice, sent or received, has ended; gives the preimage if it succeeded.
    pub(crate) async fn payment_end(&self, invoice: &str) -> Done<Option<String>> {
        until(LIMIT, "LDK's payment to end", async || {
            let Some(payment) = self.payment(invoice)? else { return Ok(None) };
            Ok(match payment.status {
                PaymentStatus::Pending => None,
                PaymentStatus::Failed => Some(None),
                PaymentStatus::Succeeded => Some(preimage(&payment.kind)),
            })
        })
        .await
    }

    fn payment(&self, invoice: &str) -> Done<Option<PaymentDetails>> {
        let payment_hash = PaymentHash(bolt11(invoice)?.payment_hash().to_byte_array());
        let is_it = |kind: &PaymentKind| matches!(kind, PaymentKind::Bolt11 { hash, .. } if *hash == payment_hash);
        Ok(self.node.list_payments().into_iter().find(|payment| is_it(&payment.kind)))
    }

    /// Takes events until one of them answers.
    async fn until_event<T>(&self, what: &str, answer: impl Fn(&Event) -> Option<T>) -> Done<T> {
        until(LIMIT, what, async || {
            while let Some(event) = self.node.next_event() {
                self.node.event_handled()?;
                if let Some(answer) = answer(&event) {
                    return Ok(Some(answer));
                }
            }
            Ok(None)
        })
        .await
    }
}

fn build(directory: &Path, port: u16, bitcoind: &Bitcoind) -> Done<Node> {
    // Its wallet pays no fees of anchors here, so that a node without coins takes a channel, too.
    let anchors = AnchorChannelsConfig { per_channel_reserve_sats: 0, ..AnchorChannelsConfig::default() };
    let config = Config { anchor_channels_config: Some(anchors), ..Config::default() };
    let (user, password) = bitcoind.credentials()?;
    let mut builder = Builder::from_config(config);
    builder.set_network(Network::Regtest);
    builder.set_storage_dir_path(directory.display().to_string());
    builder.set_filesystem_logger(Some(directory.join("ldk.log").display().to_string()), None);
    builder.set_listening_addresses(vec![socket(&format!("127.0.0.1:{port}"))?])?;
    builder.set_node_alias("ldk".to_owned())?;
    builder.set_chain_source_bitcoind_rpc("127.0.0.1".to_owned(), bitcoind.rpc_port(), user, password);
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

fn preimage(kind: &PaymentKind) -> Option<String> {
    match kind {
        PaymentKind::Bolt11 { preimage, .. } => preimage.map(|preimage| hex(&preimage.0)),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
