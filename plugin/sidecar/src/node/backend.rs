//! What the interface asks of the node, answered by its parts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{OutPoint, Txid};
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_channel::{Command, Refusal};
use outrigger_rpc_schema as schema;
use tokio::sync::{oneshot, watch};

use super::answers::{
    channel_info, channel_state, count, decoded, dial_fault, event, features, found, frozen_info, invoice_info,
    kind_text, payment_id_of, payment_info, refused, sat_per_vb, storage, store, terms, tip, wallet_fault,
};
use super::backups;
use super::chain_side::StoredWallet;
use super::forwards;
use super::keyed::Turns;
use crate::chain::calls::Calls;
use crate::chain::follow::ChainState;
use crate::chain::stop::StopFlag;
use crate::manager::terms::TermsChange;
use crate::manager::{ChannelView, Manager, PeerView};
use crate::net::Dialer;
use crate::payment::Payments;
use crate::rpc::{
    self, Answer, Backend, ChannelQuery, EventQuery, Fault, ForwardQuery, PeerAddress, PeerQuery, SendOrder,
    StatsQuery, Whose,
};
use crate::store::backup::Hub;
use crate::store::schema::Table;
use crate::store::{Batch, Held, Reader};
use crate::token::{Token, TokenId, TokenOrder, Tokens};

/// The parts that callers reach.
pub(super) struct Doorkeeper {
    pub(super) manager: Arc<Manager>,
    pub(super) payments: Arc<Payments>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) wallet: Arc<StoredWallet>,
    pub(super) reader: Reader,
    pub(super) dialer: Dialer,
    /// Invoices and payments under a key, one after the other. Held until the call's rows are durable: whoever repeats a key
    /// is answered from the file. Callers alone wait for it, never a peer.
    pub(super) turns: Turns,
    pub(super) chain: watch::Receiver<Option<ChainState>>,
    pub(super) events: watch::Receiver<u64>,
    /// Wakes whoever waits to ask bitcoind again.
    pub(super) stop: StopFlag,
    /// What was asked of bitcoind.
    pub(super) calls: Arc<Calls>,
    /// Who keeps the rows of channels elsewhere too.
    pub(super) sinks: Option<Arc<Hub>>,
    pub(super) identity: Identity,
}

/// What the operator chose for this node.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) alias: String,
    pub(super) network: &'static str,
    pub(super) addresses: Vec<String>,
}

impl Backend for Doorkeeper {
    async fn node_info(&self) -> Answer<schema::NodeInfoReport> {
        let (block_height, block_hash, _) = self.tip();
        let peers = self.manager.peers();
        Ok(schema::NodeInfoReport {
            node_id: self.manager.env().keys.node_id().to_string(),
            alias: self.identity.alias.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: self.identity.network.to_owned(),
            block_height,
            block_hash,
            addresses: self.identity.addresses.clone(),
            features: features(&Features::init()),
            peers: count(peers.iter().filter(|peer| peer.connected).count()),
            channels: count(peers.iter().map(|peer| peer.channels).sum()),
            store: store(self.manager.env().writer.stats()),
        })
    }

    async fn chain_status(&self) -> Answer<schema::ChainStatusReport> {
        let state = self.chain.borrow().clone();
        let (block_height, block_hash, target_height) = self.tip();
        let (state, reason) = match state {
            None => (schema::ChainState::WaitingForBitcoind, None),
            Some(ChainState::WaitingForBitcoind { reason }) => (schema::ChainState::WaitingForBitcoind, Some(reason)),
            Some(ChainState::Syncing { .. }) => (schema::ChainState::Syncing, None),
            Some(ChainState::Synced { .. }) => (schema::ChainState::Synced, None),
            Some(ChainState::Blind { reason }) => (schema::ChainState::Blind, Some(reason)),
        };
        let network = self.identity.network.to_owned();
        let (calls, budget) = super::answers::calls(&self.calls);
        Ok(schema::ChainStatusReport { network, state, reason, block_height, block_hash, target_height, calls, budget })
    }

    async fn metrics(&self) -> String {
        self.gather_metrics().await
    }

    async fn chain_feerates(&self) -> Answer<schema::ChainFeeratesReport> {
        let feerates = self.manager.env().chain.feerates();
        Ok(schema::ChainFeeratesReport {
            normal_sat_per_vb: sat_per_vb(feerates.normal),
            commitment_sat_per_vb: sat_per_vb(feerates.commitment),
            floor_sat_per_vb: sat_per_vb(feerates.floor),
        })
    }

    async fn chain_notify_block(&self) -> Answer<schema::ChainNotified> {
        self.stop.nudge();
        Ok(schema::ChainNotified { block_height: self.tip().0 })
    }

    async fn wallet_send(&self, order: SendOrder) -> Answer<schema::WalletSent> {
        self.send_coins(order).await
    }

    async fn wallet_wait(&self, txid: Txid, depth_blocks: u32, timeout: Duration) -> Answer<schema::WalletTransaction> {
        self.wait_for_block(txid, depth_blocks, timeout).await
    }

    async fn wallet_utxos(&self, after: Option<OutPoint>, count: usize) -> Answer<Vec<schema::WalletUtxo>> {
        let coins = self.coins(after, count);
        self.told().await;
        Ok(coins)
    }

    async fn peer_disconnect(&self, node_id: NodeId) -> Answer<bool> {
        Ok(self.dialer.disconnect(&node_id).await)
    }

    async fn invoice_list(&self, after: Option<PaymentHash>, count: usize) -> Answer<Vec<schema::InvoiceInfo>> {
        let rows = self.reader.invoices(after.as_ref(), count).map_err(storage)?;
        Ok(rows.into_iter().map(invoice_info).collect())
    }

    async fn invoice_decode(&self, invoice: String) -> Answer<schema::InvoiceDecoded> {
        decoded(&invoice, self.payments.network())
    }

    async fn payment_list(&self, after: Option<[u8; 32]>, count: usize) -> Answer<Vec<schema::PaymentInfo>> {
        let rows = self.reader.payments(after.as_ref(), count).map_err(storage)?;
        Ok(rows.into_iter().map(payment_info).collect())
    }

    async fn wallet_balance(&self) -> Answer<schema::WalletBalanceReport> {
        let balance = self.wallet.balance();
        Ok(schema::WalletBalanceReport {
            confirmed_sat: balance.confirmed.get(),
            unconfirmed_sat: balance.unconfirmed.get().saturating_add(balance.immature.get()),
            locked_sat: balance.locked.get(),
        })
    }

    async fn wallet_new_address(&self, idempotency_key: Option<String>) -> Answer<schema::WalletAddress> {
        self.give_address(idempotency_key).await
    }

    async fn peer_connect(&self, node_id: NodeId, address: PeerAddress) -> Answer<schema::PeerConnected> {
        self.require_synced()?;
        if node_id == self.manager.env().keys.node_id() {
            return Err(Fault::peer_is_self());
        }
        let address = address.to_string();
        let offered = self.dialer.connect(node_id, &address).await.map_err(dial_fault)?;
        self.dialer.keep(node_id, address.clone());
        let mut batch = Batch::default();
        batch.put(Table::PeerAddress, node_id.serialize().to_vec(), Some(address.into_bytes()));
        let (waiter, durable) = oneshot::channel();
        batch.hold(Held::Durable(waiter));
        self.manager.env().writer.submit(batch);
        // The writer drops the waiter only with the process.
        let _ = durable.await;
        Ok(schema::PeerConnected { node_id: node_id.to_string(), features: features(&offered) })
    }

    async fn peer_list(&self, query: PeerQuery) -> Answer<Vec<schema::PeerInfo>> {
        let mut peers = self.manager.peers();
        peers.retain(|peer| query.after.is_none_or(|after| peer.node_id > after));
        peers.sort_by_key(|peer| peer.node_id);
        peers.truncate(query.count);
        peers.into_iter().map(|peer| self.peer_info(peer)).collect()
    }

    async fn channel_open(&self, order: rpc::OpenOrder) -> Answer<schema::ChannelOpened> {
        self.open_channel(order).await
    }

    async fn channel_open_wait(
        &self,
        op_id: [u8; 16],
        whose: Whose,
        timeout: Duration,
    ) -> Answer<schema::ChannelOpened> {
        self.wait_for_opening(op_id, whose, timeout).await
    }

    async fn channel_list(&self, query: ChannelQuery) -> Answer<Vec<schema::ChannelInfo>> {
        let ChannelQuery { state, node_id, after, count: most } = query;
        let is_wanted = |view: &ChannelView| state.is_none_or(|state| channel_state(view.summary.state) == state);
        let mut channels = self.manager.channels(node_id.as_ref(), after.as_ref(), most, is_wanted);
        self.told().await;
        if state.is_none_or(|state| state == schema::ChannelState::Closed) {
            let closed = self.reader.closed_after(after.as_ref(), node_id.as_ref(), most);
            let known: BTreeSet<_> = channels.iter().map(|view| view.channel_id).collect();
            let history = closed.map_err(storage)?.into_iter().filter(|channel| !known.contains(&channel.id()));
            channels.extend(history.map(|channel| self.manager.view_of(&channel)));
        }
        let frozen = self.manager.env().frozen.of(node_id).filter(|channel| {
            after.is_none_or(|after| channel.channel_id > after)
                && state.is_none_or(|state| state == schema::ChannelState::Frozen)
        });
        let mut infos: Vec<_> = channels.into_iter().map(|view| (view.channel_id, channel_info(view))).collect();
        infos.extend(frozen.map(|channel| (channel.channel_id, frozen_info(channel))));
        infos.sort_by_key(|(id, _)| *id);
        infos.truncate(most);
        Ok(infos.into_iter().map(|(_, info)| info).collect())
    }

    async fn channel_get(&self, channel_id: ChannelId) -> Answer<schema::ChannelInfo> {
        if let Some(frozen) = self.manager.env().frozen.get(&channel_id) {
            return Ok(frozen_info(frozen));
        }
        let view = self.manager.channel(&channel_id);
        self.told().await;
        let view = match view {
            Some(view) => Some(view),
            None => self.closed_channel(&channel_id)?,
        };
        view.map(channel_info).ok_or_else(|| Fault::channel_not_found(&channel_id))
    }

    async fn channel_wait(
        &self,
        channel_id: ChannelId,
        state: schema::ChannelState,
        timeout: Duration,
    ) -> Answer<schema::ChannelInfo> {
        self.wait_for_channel(channel_id, state, timeout).await
    }

    async fn channel_close(
        &self,
        channel_id: ChannelId,
        feerate: Option<FeeratePerKw>,
    ) -> Answer<schema::ChannelClosing> {
        if self.manager.env().frozen.contains(&channel_id) {
            return Err(refused(&channel_id, &Refusal::Frozen));
        }
        let before = match self.manager.channel(&channel_id) {
            Some(view) => view,
            None => self.closed_channel(&channel_id)?.ok_or_else(|| Fault::channel_not_found(&channel_id))?,
        };
        self.require_current()?;
        if before.summary.state == "closed" {
            return Err(refused(&channel_id, &Refusal::Ended));
        }
        let is_closing = matches!(before.summary.state, "shutting_down" | "closing");
        // Asked again without a feerate, it only tells how far the close is; with one, it changes or replaces the close.
        if !is_closing || feerate.is_some() {
            let script = match before.summary.shutdown_script {
                Some(fixed) => fixed,
                None => self.wallet.new_address(|_, _| ()).await.map_err(wallet_fault)?.script_pubkey(),
            };
            let feerate = feerate.unwrap_or_else(|| self.manager.env().chain.feerates().normal);
            let answer = self.manager.command(channel_id, Command::Shutdown { script, feerate }).await;
            answer.map_err(|refusal| refused(&channel_id, &refusal))?;
        }
        let state = self.channel_get(channel_id).await?.state;
        Ok(schema::ChannelClosing { channel_id: channel_id.to_string(), state })
    }

    async fn channel_force_close(&self, channel_id: ChannelId) -> Answer<schema::ChannelForceClosing> {
        if self.manager.env().frozen.contains(&channel_id) {
            return Err(refused(&channel_id, &Refusal::Frozen));
        }
        let before = self.channel_get(channel_id).await?;
        if before.state != schema::ChannelState::Closed {
            // What this file could publish is revoked, and would forfeit the channel.
            self.require_current()?;
            let reason = "closed by its operator".to_owned();
            let answer = self.manager.command(channel_id, Command::Fail { reason }).await;
            answer.map_err(|refusal| refused(&channel_id, &refusal))?;
        }
        let schema::ChannelInfo { channel_id, state, closing_txid, .. } = self.channel_get(channel_id).await?;
        Ok(schema::ChannelForceClosing { channel_id, state, closing_txid })
    }

    async fn channel_set_policy(&self, channel_id: ChannelId, change: TermsChange) -> Answer<schema::ForwardingTerms> {
        let policy = match self.manager.set_terms(channel_id, change).await {
            Err(Refusal::UnknownChannel) if self.closed_channel(&channel_id)?.is_some() => Err(Refusal::Ended),
            Err(Refusal::UnknownChannel) => return Err(Fault::channel_not_found(&channel_id)),
            answer => answer,
        };
        policy.map(terms).map_err(|refusal| refused(&channel_id, &refusal))
    }

    async fn invoice_create(&self, order: rpc::InvoiceOrder) -> Answer<schema::InvoiceCreated> {
        self.create_invoice(order).await
    }

    async fn invoice_get(&self, payment_hash: PaymentHash) -> Answer<schema::InvoiceInfo> {
        self.stored_invoice(&payment_hash).map(invoice_info)
    }

    async fn payment_send(&self, order: rpc::PaymentOrder) -> Answer<schema::PaymentSent> {
        self.send_payment(order).await
    }

    async fn payment_abandon(&self, payment_id: String, only_of: Option<TokenId>) -> Answer<schema::PaymentInfo> {
        self.abandon_payment(payment_id, only_of).await
    }

    async fn payment_wait(&self, payment_id: String, timeout: Duration) -> Answer<schema::PaymentInfo> {
        let id = payment_id_of(&payment_id)?;
        match tokio::time::timeout(timeout, self.payments.wait(&id)).await {
            Ok(ended) => found(ended, &payment_id),
            Err(_) => self.payment_get(payment_id).await,
        }
    }

    async fn payment_get(&self, payment_id: String) -> Answer<schema::PaymentInfo> {
        found(self.payments.get(&payment_id_of(&payment_id)?), &payment_id)
    }

    async fn forward_list(&self, query: ForwardQuery) -> Answer<Vec<schema::ForwardInfo>> {
        forwards::list(&self.reader, query)
    }

    async fn forward_stats(&self, query: StatsQuery) -> Answer<schema::ForwardReport> {
        forwards::stats(&self.reader, query, self.manager.relaying())
    }

    async fn backup_status(&self) -> Answer<schema::BackupReport> {
        Ok(backups::report(self.sinks.as_deref(), self.manager.env().is_restored()))
    }

    async fn event_list(&self, query: EventQuery) -> Answer<schema::EventPage> {
        let kinds: Vec<String> = query.kinds.iter().filter_map(kind_text).collect();
        let after = query.after_seq.unwrap_or(0);
        let (mut rows, mut next_seq) = self.reader.events(after, &kinds, query.limit).map_err(storage)?;
        // Looked at last: what went meanwhile may be missing above.
        let missing = self.reader.oldest_event().map_err(storage)?.unwrap_or(1).saturating_sub(1);
        if query.after_seq.is_some_and(|after| after < missing) {
            return Err(Fault::event_gap(missing));
        }
        if let Some(sinks) = &self.sinks {
            // Law 1: what a required backup does not have yet is told to nobody.
            let readable = *sinks.readable_events().borrow();
            rows.retain(|(seq, _)| *seq <= readable);
            next_seq = next_seq.min(readable.max(after));
        }
        let items = rows.into_iter().map(|(seq, row)| event(seq, row)).collect::<Answer<_>>()?;
        Ok(schema::EventPage { items, next_seq })
    }

    fn event_news(&self) -> Answer<(u64, watch::Receiver<u64>)> {
        if let Some(sinks) = &self.sinks {
            let readable = sinks.readable_events();
            let newest = *readable.borrow();
            return Ok((newest, readable));
        }
        Ok((self.reader.newest_event().map_err(storage)?, self.events.clone()))
    }

    fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    async fn token_create(&self, order: TokenOrder) -> Answer<schema::TokenCreated> {
        self.create_token(order).await
    }

    async fn token_list(&self, after: Option<&str>, count: usize) -> Answer<Vec<Token>> {
        let tokens = self.tokens.list(after, count);
        self.told().await;
        Ok(tokens)
    }

    async fn token_revoke(&self, name: &str) -> Answer<()> {
        self.revoke_token(name).await
    }
}

impl Doorkeeper {
    /// Law 1: what was read of channels, or done, is told once it is durable.
    pub(super) async fn told(&self) {
        self.manager.env().writer.barrier().await;
    }

    /// The newest block that the node has taken in: its height and hash, and the height that it is on its way to.
    pub(super) fn tip(&self) -> (Option<u32>, Option<String>, Option<u32>) {
        let state = self.chain.borrow().clone();
        tip(state.as_ref(), || self.wallet.tip())
    }

    /// A channel in history.
    fn closed_channel(&self, channel_id: &ChannelId) -> Answer<Option<ChannelView>> {
        let found = self.reader.closed(channel_id).map_err(storage)?;
        Ok(found.map(|channel| self.manager.view_of(&channel)))
    }

    pub(super) fn require_synced(&self) -> Answer<()> {
        if self.manager.env().chain.is_synced() {
            return Ok(());
        }
        Err(self.not_synced())
    }

    /// Nothing is begun on a file that is known to be old.
    pub(super) fn require_current(&self) -> Answer<()> {
        if self.manager.env().is_restored() { Err(Fault::restored()) } else { Ok(()) }
    }

    /// Nothing more is promised while the disk has too little room.
    pub(super) fn require_room(&self) -> Answer<()> {
        if self.manager.env().room.is_low() { Err(self.disk_low()) } else { Ok(()) }
    }

    /// What a call hears that would.
    pub(super) fn disk_low(&self) -> Fault {
        let found = self.manager.env().room.found();
        Fault::disk_low(found.free, found.wanted)
    }

    /// Why the node is not at the tip of the chain.
    pub(super) fn not_synced(&self) -> Fault {
        match self.chain.borrow().clone() {
            Some(ChainState::WaitingForBitcoind { reason }) => Fault::bitcoind_unavailable(reason),
            Some(ChainState::Blind { reason }) => Fault::chain_blind(reason),
            Some(ChainState::Syncing { .. } | ChainState::Synced { .. }) | None => Fault::chain_not_synced(),
        }
    }

    fn peer_info(&self, peer: PeerView) -> Answer<schema::PeerInfo> {
        Ok(schema::PeerInfo {
            node_id: peer.node_id.to_string(),
            connected: peer.connected,
            address: self.reader.peer_address(&peer.node_id).map_err(storage)?,
            features: peer.features.as_ref().map(features),
            channels: count(peer.channels),
        })
    }
}
