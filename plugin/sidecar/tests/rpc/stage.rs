//! A served node that remembers what it was asked, and raw access to its doors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::{OutPoint, Txid};
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_rpc_schema as schema;
use outrigger_rpc_schema::{Client, MethodInfo};
use outrigger_sidecar::manager::terms::TermsChange;
use outrigger_sidecar::rpc::{
    Answer, Backend, ChannelQuery, Doors, EventQuery, Fault, ForwardQuery, InvoiceOrder, OpenOrder, PaymentOrder,
    PaymentTarget, PeerAddress, PeerQuery, Place, SendOrder, Server, StatsQuery, Whose, start,
};
use outrigger_sidecar::token::{Token, TokenId, TokenOrder, Tokens};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

pub(crate) const NODE_ID: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";

/// A node that remembers its orders.
#[derive(Default)]
pub(crate) struct Recorder {
    pub orders: Mutex<Vec<String>>,
    pub tokens: Tokens,
    events: Mutex<Vec<schema::Event>>,
    news: watch::Sender<u64>,
    /// Events up to this one are no longer kept.
    pub gap: AtomicU64,
    /// How often events were read.
    pub pages: AtomicUsize,
    /// An opening with the key `slow` says here that it has begun, and goes on when `released`.
    pub begun: Notify,
    pub released: Notify,
    pub finished: Notify,
}

impl Recorder {
    /// The next event happens.
    pub(crate) fn happens(&self, kind: schema::EventKind, message: &str) {
        let mut events = self.events.lock();
        let seq = events.len() as u64 + 1;
        let event = json!({ "seq": seq, "at": 1, "kind": kind, "message": message });
        events.push(serde_json::from_value(event).expect("an event"));
        drop(events);
        self.news.send_replace(seq);
    }

    fn note(&self, order: impl std::fmt::Debug) {
        self.orders.lock().push(format!("{order:?}"));
    }
}

impl Backend for Recorder {
    async fn node_info(&self) -> Answer<schema::NodeInfoReport> {
        Err(Fault::internal("not asked for in these tests"))
    }

    async fn chain_status(&self) -> Answer<schema::ChainStatusReport> {
        Err(Fault::internal("not asked for in these tests"))
    }

    async fn metrics(&self) -> String {
        "# TYPE a gauge\na 1\n".to_owned()
    }

    async fn wallet_balance(&self) -> Answer<schema::WalletBalanceReport> {
        self.note("wallet_balance");
        Ok(schema::WalletBalanceReport { confirmed_sat: 1, unconfirmed_sat: 2, locked_sat: 3 })
    }

    async fn wallet_new_address(&self, _: Option<String>) -> Answer<schema::WalletAddress> {
        Ok(schema::WalletAddress { address: "bcrt1qexample".to_owned() })
    }

    async fn peer_connect(&self, node_id: NodeId, address: PeerAddress) -> Answer<schema::PeerConnected> {
        self.note(&address);
        Ok(schema::PeerConnected { node_id: node_id.to_string(), features: String::new() })
    }

    async fn chain_feerates(&self) -> Answer<schema::ChainFeeratesReport> {
        let (normal_sat_per_vb, commitment_sat_per_vb, floor_sat_per_vb) = (6, 4, 2);
        Ok(schema::ChainFeeratesReport { normal_sat_per_vb, commitment_sat_per_vb, floor_sat_per_vb })
    }

    async fn chain_notify_block(&self) -> Answer<schema::ChainNotified> {
        self.note("chain_notify_block");
        Ok(schema::ChainNotified { block_height: Some(7) })
    }

    async fn wallet_send(&self, order: SendOrder) -> Answer<schema::WalletSent> {
        if order.idempotency_key == "taken" {
            return Err(Fault::idempotency_conflict(&order.idempotency_key));
        }
        self.note(&order);
        let (op_id, txid) = ("1".to_owned(), "00".repeat(32));
        Ok(schema::WalletSent { op_id, txid, state: schema::SendState::Pending })
    }

    async fn wallet_wait(&self, txid: Txid, depth_blocks: u32, timeout: Duration) -> Answer<schema::WalletTransaction> {
        self.note((depth_blocks, timeout));
        let (txid, state) = (txid.to_string(), schema::SendState::Confirmed);
        Ok(schema::WalletTransaction { txid, state, confirmed_height: Some(7), depth_blocks })
    }

    async fn wallet_utxos(&self, after: Option<OutPoint>, count: usize) -> Answer<Vec<schema::WalletUtxo>> {
        let first = after.map_or(0, |after| after.vout + 1);
        let utxo = |vout| schema::WalletUtxo {
            outpoint: format!("{}:{vout}", "00".repeat(32)),
            amount_sat: 1,
            address: "bcrt1qexample".to_owned(),
            confirmed_height: None,
            locked: false,
        };
        Ok((first..5).map(utxo).take(count).collect())
    }

    async fn peer_disconnect(&self, node_id: NodeId) -> Answer<bool> {
        self.note(node_id);
        Ok(true)
    }

    async fn invoice_list(&self, _: Option<PaymentHash>, _: usize) -> Answer<Vec<schema::InvoiceInfo>> {
        Ok(Vec::new())
    }

    async fn invoice_decode(&self, _: String) -> Answer<schema::InvoiceDecoded> {
        Err(Fault::invoice_invalid("not one"))
    }

    async fn payment_list(&self, _: Option<[u8; 32]>, _: usize) -> Answer<Vec<schema::PaymentInfo>> {
        Ok(Vec::new())
    }

    async fn peer_list(&self, _: PeerQuery) -> Answer<Vec<schema::PeerInfo>> {
        Ok(Vec::new())
    }

    async fn channel_open(&self, order: OpenOrder) -> Answer<schema::ChannelOpened> {
        if order.idempotency_key == "taken" {
            return Err(Fault::idempotency_conflict(&order.idempotency_key));
        }
        if order.idempotency_key == "slow" {
            self.begun.notify_one();
            self.released.notified().await;
            self.finished.notify_one();
        }
        self.note(&order);
        Ok(schema::ChannelOpened {
            op_id: "1".to_owned(),
            state: schema::OpenState::Opening,
            channel_id: None,
            funding_txid: None,
            failure: None,
        })
    }

    async fn channel_open_wait(
        &self,
        op_id: [u8; 16],
        whose: Whose,
        timeout: Duration,
    ) -> Answer<schema::ChannelOpened> {
        self.note((op_id[0], whose, timeout));
        Err(Fault::operation_not_found("1"))
    }

    async fn channel_list(&self, query: ChannelQuery) -> Answer<Vec<schema::ChannelInfo>> {
        let first = query.after.map_or(0, |after| after.0[31] + 1);
        Ok((first..5).map(|number| channel(ChannelId([number; 32]))).take(query.count).collect())
    }

    async fn channel_get(&self, channel_id: ChannelId) -> Answer<schema::ChannelInfo> {
        Err(Fault::channel_not_found(&channel_id))
    }

    async fn channel_wait(
        &self,
        channel_id: ChannelId,
        state: schema::ChannelState,
        timeout: Duration,
    ) -> Answer<schema::ChannelInfo> {
        self.note((state, timeout));
        Err(Fault::channel_not_found(&channel_id))
    }

    async fn channel_close(
        &self,
        channel_id: ChannelId,
        feerate: Option<FeeratePerKw>,
    ) -> Answer<schema::ChannelClosing> {
        self.note(feerate);
        Ok(schema::ChannelClosing { channel_id: channel_id.to_string(), state: schema::ChannelState::ShuttingDown })
    }

    async fn channel_force_close(&self, channel_id: ChannelId) -> Answer<schema::ChannelForceClosing> {
        let (channel_id, state) = (channel_id.to_string(), schema::ChannelState::Failed);
        Ok(schema::ChannelForceClosing { channel_id, state, closing_txid: None })
    }

    async fn channel_set_policy(&self, _: ChannelId, change: TermsChange) -> Answer<schema::ForwardingTerms> {
        self.note(change);
        Ok(schema::ForwardingTerms {
            cltv_delta_blocks: 80,
            fee_base_msat: 1,
            fee_proportional_millionths: 2,
            htlc_minimum_msat: 3,
            htlc_maximum_msat: None,
        })
    }

    async fn forward_list(&self, query: ForwardQuery) -> Answer<Vec<schema::ForwardInfo>> {
        self.note(query);
        Ok(Vec::new())
    }

    async fn backup_status(&self) -> Answer<schema::BackupReport> {
        Ok(schema::BackupReport::default())
    }
    async fn forward_stats(&self, query: StatsQuery) -> Answer<schema::ForwardReport> {
        self.note(query);
        Ok(schema::ForwardReport::default())
    }

    async fn invoice_create(&self, order: InvoiceOrder) -> Answer<schema::InvoiceCreated> {
        self.note(order);
        Ok(schema::InvoiceCreated {
            invoice: "lnbcrt1".to_owned(),
            payment_hash: "00".repeat(32),
            expires_at: 1,
            route_hints: 0,
        })
    }

    async fn invoice_get(&self, payment_hash: PaymentHash) -> Answer<schema::InvoiceInfo> {
        Err(Fault::invoice_not_found(&payment_hash))
    }

    async fn payment_send(&self, order: PaymentOrder) -> Answer<schema::PaymentSent> {
        self.note(&order);
        let PaymentTarget::Invoice { .. } = order.target else { return Err(Fault::payment_to_self()) };
        Ok(schema::PaymentSent {
            payment_id: "7".to_owned(),
            payment_hash: "00".repeat(32),
            state: schema::PaymentState::Pending,
        })
    }

    async fn payment_wait(&self, _: String, timeout: Duration) -> Answer<schema::PaymentInfo> {
        tokio::time::sleep(timeout).await;
        Err(Fault::payment_not_found("7"))
    }

    async fn payment_get(&self, payment_id: String) -> Answer<schema::PaymentInfo> {
        Err(Fault::payment_not_found(&payment_id))
    }

    async fn payment_abandon(&self, payment_id: String, _: Option<TokenId>) -> Answer<schema::PaymentInfo> {
        Err(Fault::payment_not_found(&payment_id))
    }

    async fn event_list(&self, query: EventQuery) -> Answer<schema::EventPage> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        let (after, events) = (query.after_seq.unwrap_or(0), self.events.lock());
        let oldest = self.gap.load(Ordering::Relaxed);
        if after < oldest {
            return Err(Fault::event_gap(oldest));
        }
        let items: Vec<_> = events.iter().filter(|event| event.seq > after).take(query.limit).cloned().collect();
        let next_seq = items.last().map_or(after, |event| event.seq);
        Ok(schema::EventPage { items, next_seq })
    }

    fn event_news(&self) -> Answer<(u64, watch::Receiver<u64>)> {
        let news = self.news.subscribe();
        let newest = *news.borrow();
        Ok((newest, news))
    }

    fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    async fn token_create(&self, order: TokenOrder) -> Answer<schema::TokenCreated> {
        let (name, expires) = (order.name.clone(), order.expiry_secs);
        let (text, row, _) = self.tokens.create(order, drop).map_err(|_| Fault::token_name_taken(&name))?;
        assert_eq!(row.expires_at.is_some(), expires.is_some());
        Ok(schema::TokenCreated { name, token: text.to_string(), expires_at: row.expires_at })
    }

    async fn token_list(&self, after: Option<&str>, count: usize) -> Answer<Vec<Token>> {
        Ok(self.tokens.list(after, count))
    }

    async fn token_revoke(&self, name: &str) -> Answer<()> {
        self.tokens.revoke(name, drop).map(drop).map_err(|_| Fault::token_not_found(name))
    }
}

fn channel(channel_id: ChannelId) -> schema::ChannelInfo {
    schema::ChannelInfo {
        channel_id: channel_id.to_string(),
        node_id: NODE_ID.to_owned(),
        state: schema::ChannelState::Normal,
        frozen_reason: None,
        reason: None,
        stalled: false,
        connected: true,
        funding_outpoint: format!("{}:0", "00".repeat(32)),
        short_channel_id: None,
        capacity_sat: 0,
        local_msat: 0,
        remote_msat: 0,
        spendable_msat: 0,
        receivable_msat: 0,
        htlcs: 0,
        channel_type: String::new(),
        commitment_number: 0,
        is_opener: true,
        announce: false,
        needed_blocks: None,
        closing_txid: None,
        forwarding: None,
    }
}

/// A page at this origin may call too.
pub(crate) const PAGE: &str = "http://page.example";

fn place(address: SocketAddr) -> Place {
    Place { origins: vec![PAGE.to_owned()], hosts: vec!["Node.Example:443".to_owned()], ..Place::at(address) }
}

/// A served node, and raw access to its port.
pub(crate) struct Stage {
    pub server: Server,
    pub doors: Arc<Doors<Recorder>>,
    pub node: Arc<Recorder>,
    pub directory: TempDir,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub status: u16,
    /// The head, in small letters.
    pub head: String,
    pub body: String,
}

impl HttpAnswer {
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// Code and kind of the error that a JSON-RPC answer carries.
    pub(crate) fn error(&self) -> (i64, String) {
        let error = &self.json()["error"];
        (error["code"].as_i64().expect("a code"), error["data"]["kind"].as_str().unwrap_or_default().to_owned())
    }

    /// The same, of a call of this method.
    fn of(self, method: &str) -> Self {
        judge(method, &serde_json::from_str(&self.body).unwrap_or_default());
        self
    }
}

/// A method is refused with what the document lists for it.
pub(crate) fn judge(method: &str, answer: &Value) {
    if let (Some(method), Some(kind)) = (MethodInfo::named(method), answer["error"]["data"]["kind"].as_str()) {
        let is_listed = method.errors.iter().any(|listed| listed.name() == kind);
        assert!(is_listed, "{} may not be refused with {kind}", method.name);
    }
}

impl Stage {
    /// Just started: no node yet.
    pub(crate) async fn empty() -> Self {
        Self::at(place("127.0.0.1:0".parse().expect("an address"))).await
    }

    /// With its node, and the operator's page.
    pub(crate) async fn with_page() -> Self {
        let place = place("127.0.0.1:0".parse().expect("an address"));
        let stage = Self::at(Place { page: true, ..place }).await;
        stage.doors.open(Arc::clone(&stage.node));
        stage
    }

    async fn at(place: Place) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let doors = Doors::new("regtest");
        let secret = Zeroizing::new([7; 32]);
        let server = start(place, directory.path(), &secret, Arc::clone(&doors)).await.expect("starts");
        Self { server, doors, node: Arc::default(), directory }
    }

    /// With its node.
    pub(crate) async fn open() -> Self {
        let stage = Self::empty().await;
        stage.doors.open(Arc::clone(&stage.node));
        stage
    }

    pub(crate) fn client(&self) -> Client {
        Client::in_directory(self.directory.path()).expect("cookie and address are there")
    }

    pub(crate) fn orders(&self) -> Vec<String> {
        self.node.orders.lock().clone()
    }

    pub(crate) fn host(&self) -> String {
        format!("Host: {}", self.server.address())
    }

    pub(crate) fn authorization(&self) -> String {
        format!("Authorization: Basic {}", STANDARD.encode(format!("__cookie__:{}", "07".repeat(32))))
    }

    /// Sends a POST with the right headers and this body.
    pub(crate) async fn post(&self, body: &[u8]) -> HttpAnswer {
        let headers = [self.host(), self.authorization(), "Content-Type: application/json".to_owned()];
        self.send("POST", &headers, body).await
    }

    pub(crate) async fn rpc(&self, request: Value) -> HttpAnswer {
        self.post(request.to_string().as_bytes()).await
    }

    /// A token with these scopes.
    pub(crate) fn token(&self, name: &str, scopes: &[schema::Scope]) -> String {
        let bits = scopes
            .iter()
            .fold(0, |bits, scope| bits | 1 << schema::Scope::ALL.iter().position(|one| one == scope).expect("one"));
        let order = TokenOrder { name: name.to_owned(), scopes: bits, expiry_secs: None, budget: None };
        self.node.tokens.create(order, drop).expect("made").0.to_string()
    }

    /// Calls a method with these parameters, showing this token.
    pub(crate) async fn call_with(&self, token: &str, method: &str, params: Value) -> HttpAnswer {
        let headers =
            [self.host(), format!("Authorization: Bearer {token}"), "Content-Type: application/json".to_owned()];
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.send("POST", &headers, request.to_string().as_bytes()).await.of(method)
    }

    /// Calls a method with these parameters.
    pub(crate) async fn call(&self, method: &str, params: Value) -> HttpAnswer {
        self.rpc(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })).await.of(method)
    }

    pub(crate) async fn send(&self, verb: &str, headers: &[String], body: &[u8]) -> HttpAnswer {
        self.send_to("/", verb, headers, body).await
    }

    pub(crate) async fn send_to(&self, path: &str, verb: &str, headers: &[String], body: &[u8]) -> HttpAnswer {
        let mut head = format!("{verb} {path} HTTP/1.1\r\n");
        for header in headers {
            head.push_str(&format!("{header}\r\n"));
        }
        head.push_str(&format!("Connection: close\r\nContent-Length: {}\r\n\r\n", body.len()));
        self.exchange(&[head.as_bytes(), body].concat()).await
    }

    pub(crate) async fn exchange(&self, request: &[u8]) -> HttpAnswer {
        let socket = TcpStream::connect(self.server.address()).await.expect("connects");
        let (mut reader, mut writer) = socket.into_split();
        // A server that turns the head away may close before it has read the body.
        let _ = writer.write_all(request).await;
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        HttpAnswer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}
