//! Payments of the node to a payee that is reached over two peers, by the messages that those hear.

use std::task::Poll;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, Secp256k1};
use outrigger_bolt::id::{PaymentPreimage, PaymentSecret, ShortChannelId};
use outrigger_bolt::invoice::{self, Description, HintHop};
use outrigger_bolt::onion::{Failure, ForwardPayload, failure};
use outrigger_bolt::wire::{Message, UpdateAddHtlc};
use outrigger_channel::{Channel, Command, CommandId, FailReason, Input};

use super::*;
use crate::manager::tests::{HEIGHT, Rogue, peel};
use crate::store::room::Found;
use crate::store::row::{AgainRow, PaidFor};

mod budget;

const LIMIT: Duration = Duration::from_secs(30);

/// What the node can spend with each peer is a little less than what they have pushed to it: 400,000,000 msat.
const ONE_CHANNEL: u64 = 300_000_000;
const TWO_CHANNELS: u64 = 600_000_000;
const FOUR_CHANNELS: u64 = 1_500_000_000;

const BASE: u32 = 1000;

struct Payer {
    bench: Arc<Bench>,
    payments: Arc<Payments>,
    peers: Vec<(Rogue, Channel)>,
}

/// An HTLC as a peer heard of it.
struct Heard {
    peer: usize,
    add: UpdateAddHtlc,
    forward: ForwardPayload,
    last: FinalPayload,
    /// Of the peer, and of the payee.
    secrets: [[u8; 32]; 2],
}

fn payee() -> SecretKey {
    SecretKey::from_slice(&[77; 32]).unwrap()
}

fn payee_id() -> NodeId {
    NodeId::new(PublicKey::from_secret_key(&Secp256k1::new(), &payee()))
}

fn preimage() -> PaymentPreimage {
    PaymentPreimage([78; 32])
}

impl Payer {
    async fn new(count: u16) -> Self {
        let bench = Arc::new(Bench::new());
        let payments = Arc::new(payments(&bench));
        let (worker, notices) = (payments.clone(), bench.notices.clone());
        std::thread::spawn(move || worker.work(&notices));
        let mut peers = Vec::new();
        for number in 0..count {
            let mut rogue = Rogue::meet(bench.clone(), 20 + number).that_keeps_its_word();
            let channel = rogue.open_normal().await;
            peers.push((rogue, channel));
        }
        Self { bench, payments, peers }
    }

    /// The node dies, starts again, and its peers come back.
    async fn restart(&mut self) {
        self.start_again().await;
        let (worker, notices) = (self.payments.clone(), self.bench.notices.clone());
        std::thread::spawn(move || worker.work(&notices));
        for peer in 0..self.peers.len() {
            self.come_back(peer).await;
        }
    }

    /// The node dies and starts again. Nobody works on payments, and no peer is there.
    async fn start_again(&mut self) {
        self.bench = self.bench.started_again_as_it_was().await;
        let found = self.bench.load();
        let rows = found.channels.iter().flat_map(|loaded| loaded.channel.rows().htlcs.values());
        let sources: Vec<_> = rows.filter_map(|row| row.source).collect();
        let carried = |id: &[u8; 32], part: u16| sources.contains(&HtlcSource::Payment { payment_id: *id, part });
        let tokens = Arc::new(crate::token::Tokens::found(found.tokens));
        let (pending, parts, outcomes) = (found.pending_payments, found.parts, found.outcomes);
        let unfinished = Unfinished { pending, parts, outcomes, tokens };
        let (manager, reader, events) =
            (self.bench.manager.clone(), self.bench.reader.clone(), self.bench.events.clone());
        self.payments = Arc::new(Payments::new(manager, reader, terms_of_node(), events, unfinished, carried));
    }

    async fn come_back(&mut self, peer: usize) {
        let (rogue, channel) = &mut self.peers[peer];
        rogue.step(channel, Input::Disconnected);
        rogue.reconnect(self.bench.clone());
        rogue.step(channel, Input::Connected(&outrigger_bolt::features::Features::init()));
        rogue.until(channel, |channel, _| channel.summary(HEIGHT + 1).connected).await;
        // The node may have yet to take in what the peer has said last.
        let (manager, id) = (self.bench.manager.clone(), channel.id());
        let in_step = async {
            while !manager.channel(&id).is_some_and(|view| view.summary.connected) {
                manager.env().writer.barrier().await;
            }
        };
        tokio::time::timeout(LIMIT, in_step).await.expect("the node is in step too");
    }

    /// What a start would find: the numbers of parts, and how many outcomes.
    fn left(&self) -> (Vec<u16>, usize) {
        let found = self.bench.load();
        (found.parts.iter().map(|((_, part), _)| *part).collect(), found.outcomes.len())
    }

    /// The rows of a payment of which the first peer's channel signed nothing.
    fn begun_and_not_signed(&self, id: [u8; 32], max_fee: u64, secs: u64) {
        let now = Clock::now_unix();
        let whom = PaidFor::Invoice(self.invoice(ONE_CHANNEL, false));
        let row = PaymentRow {
            payment_id: id,
            payment_hash: preimage().payment_hash(),
            destination: payee_id(),
            amount: Msat::new(ONE_CHANNEL),
            created_at: now - 1,
            next_part: 1,
            again: Some(AgainRow { whom, max_fee: Msat::new(max_fee), until: now + secs }),
            charge: None,
            lost: Msat::ZERO,
            state: PaymentState::Pending,
        };
        let route = vec![PartHop { node: self.peers[0].0.id(), channel: None }];
        let (sends, amount) = (Msat::new(ONE_CHANNEL + u64::from(BASE)), Msat::new(ONE_CHANNEL));
        let part = PartRow { sends, amount, channel: self.peers[0].1.id(), route };
        let mut batch = Batch::default();
        batch.put(Table::Payment, id.to_vec(), Some(row.encode()));
        batch.begin(&UnderWay::Payment(id));
        batch.put(Table::Part, PartRow::key(&id, 0), Some(part.encode()));
        self.bench.manager.env().writer.submit(batch);
    }

    /// The payee's invoice, with a way over each peer.
    fn invoice(&self, amount: u64, basic_mpp: bool) -> String {
        self.invoice_by(&payee(), amount, basic_mpp)
    }

    fn invoice_by(&self, payee: &SecretKey, amount: u64, basic_mpp: bool) -> String {
        let hint = |(place, (rogue, _)): (usize, &(Rogue, Channel))| {
            vec![HintHop {
                node: rogue.id(),
                short_channel_id: ShortChannelId::from_u64(place as u64 + 1),
                fee_base_msat: BASE,
                fee_proportional_millionths: 0,
                cltv_expiry_delta: 40,
            }]
        };
        let terms = invoice::Terms {
            network: Network::Regtest,
            timestamp: Clock::now_unix(),
            payment_hash: preimage().payment_hash(),
            payment_secret: PaymentSecret([79; 32]),
            amount: Some(Msat::new(amount)),
            description: Description::Text("oars".to_owned()),
            expiry_secs: 3600,
            min_final_cltv_expiry_delta: 40,
            payment_metadata: None,
            route_hints: self.peers.iter().enumerate().map(hint).collect(),
            basic_mpp,
        };
        terms.sign_with_key(payee).unwrap()
    }

    fn order(&self, amount: u64, basic_mpp: bool) -> PayOrder {
        let whom = Whom::Invoice { invoice: self.invoice(amount, basic_mpp), amount: None };
        PayOrder { whom, max_fee: None, timeout: LIMIT, route: None, idempotency: None, payer: None }
    }

    async fn send(&self, order: PayOrder) -> [u8; 32] {
        self.payments.send(order).await.unwrap().payment_id
    }

    async fn hear(&mut self, peer: usize) -> Message {
        let (rogue, channel) = &mut self.peers[peer];
        let message = rogue.hear().await;
        rogue.step(channel, Input::Message(&message));
        rogue.step(channel, Input::Command(CommandId(1), Command::Commit));
        message
    }

    /// The peer keeps to the rules until an HTLC of the node's stands irrevocably.
    async fn offered(&mut self, peer: usize) -> Heard {
        let add = loop {
            if let Message::UpdateAddHtlc(add) = self.hear(peer).await {
                break add;
            }
        };
        while !self.peers[peer].0.holds(&self.peers[peer].1, add.id) {
            self.hear(peer).await;
        }
        let peeled = self.peers[peer].0.peel(&add);
        let Payload::Forward(forward) = Payload::decode(&peeled.payload, false).unwrap() else { panic!("forward") };
        let last = peel(&payee(), &peeled.next.unwrap().to_bytes(), &add.payment_hash);
        let secrets = [peeled.shared_secret, last.shared_secret];
        let Payload::Final(last) = Payload::decode(&last.payload, last.next.is_none()).unwrap() else { panic!("last") };
        Heard { peer, add, forward, last, secrets }
    }

    async fn settle(&mut self, heard: &Heard, order: Command) {
        let (rogue, channel) = &mut self.peers[heard.peer];
        rogue.step(channel, Input::Command(CommandId(1), order));
        rogue.step(channel, Input::Command(CommandId(1), Command::Commit));
        while self.peers[heard.peer].1.rows().htlcs.keys().any(|key| key.id == heard.add.id) {
            self.hear(heard.peer).await;
        }
        self.peers[heard.peer].0.dealt_with().await;
    }

    async fn fulfil(&mut self, heard: &Heard) {
        self.settle(heard, Command::Fulfill { htlc_id: heard.add.id, preimage: preimage() }).await;
    }

    /// Fails it in the name of the peer, or of the payee behind it.
    async fn fail(&mut self, heard: &Heard, by_payee: bool, why: &Failure) {
        let reason = if by_payee {
            failure::wrap(&heard.secrets[0], failure::create(&heard.secrets[1], why))
        } else {
            failure::create(&heard.secrets[0], why)
        };
        let order = Command::FailHtlc { htlc_id: heard.add.id, reason: FailReason::Encrypted(reason) };
        self.settle(heard, order).await;
    }

    async fn end(&self, payment_id: &[u8; 32]) -> PaymentState {
        let waited = tokio::time::timeout(LIMIT, self.payments.wait(payment_id)).await.expect("it ends");
        waited.unwrap().unwrap().state
    }

    /// Waits until so many HTLCs of the payment are in flight.
    async fn until_in_flight(&self, id: &[u8; 32], count: usize) {
        let in_flight = || self.payments.state.lock().pending.get(id).map_or(0, |pending| pending.flights.len());
        let reached = async {
            while in_flight() != count {
                all_durable(&self.bench).await;
            }
        };
        tokio::time::timeout(LIMIT, reached).await.expect("it is taken in");
    }

    /// Waits until nothing of any payment is left, in memory or for a start to look at.
    async fn assert_done(&self) {
        let left = async || {
            all_durable(&self.bench).await;
            let found = self.bench.load();
            let in_memory = self.payments.state.lock().pending.len();
            in_memory + found.pending_payments.len() + found.parts.len() + found.outcomes.len()
        };
        let none_left = async { while left().await > 0 {} };
        tokio::time::timeout(LIMIT, none_left).await.expect("nothing is left");
    }
}

const TOO_MUCH: Failure = Failure::TemporaryChannelFailure { channel_update: Vec::new() };

#[tokio::test(flavor = "multi_thread")]
async fn pay_3_what_one_channel_cannot_send_goes_in_parts_and_succeeds_once() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(TWO_CHANNELS, true)).await;
    let parts = [payer.offered(0).await, payer.offered(1).await];
    let arrives: u64 = parts.iter().map(|part| part.last.amt_to_forward.get()).sum();
    assert_eq!(arrives, TWO_CHANNELS, "all of it and no more");
    for part in &parts {
        assert_eq!(part.add.payment_hash, preimage().payment_hash());
        let data = part.last.payment_data.unwrap();
        assert_eq!((data.total_msat.get(), data.payment_secret), (TWO_CHANNELS, PaymentSecret([79; 32])));
        assert_eq!(part.forward.amt_to_forward, part.last.amt_to_forward);
        assert_eq!(part.add.amount_msat.get(), part.forward.amt_to_forward.get() + u64::from(BASE));
        assert_eq!(part.last.outgoing_cltv_value, payer.bench.manager.env().chain.height() + 43);
        assert_eq!(part.add.cltv_expiry, part.forward.outgoing_cltv_value + 40);
    }
    payer.fulfil(&parts[1]).await;
    let PaymentState::Succeeded { preimage: proof, fee, .. } = payer.end(&id).await else { panic!("the proof") };
    assert_eq!((proof, fee.get()), (preimage(), 2 * u64::from(BASE)));
    assert_eq!(payer.payments.send(payer.order(TWO_CHANNELS, true)).await.unwrap().payment_id, id, "paid once");
    assert!(payer.payments.abandon(&id).is_none());
    payer.fulfil(&parts[0]).await;
    payer.assert_done().await;
    let events = payer.bench.reader.events(0, &["payment_succeeded".to_owned()], 10).unwrap().0;
    assert_eq!(events.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_4_a_part_that_fails_after_the_proof_is_not_paid_for() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(TWO_CHANNELS, true)).await;
    let parts = [payer.offered(0).await, payer.offered(1).await];
    payer.fulfil(&parts[0]).await;
    payer.end(&id).await;
    payer.fail(&parts[1], false, &TOO_MUCH).await;
    payer.assert_done().await;
    let PaymentState::Succeeded { fee, .. } = payer.end(&id).await else { panic!("it has succeeded") };
    assert_eq!(fee.get(), u64::from(BASE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payee_that_takes_no_parts_gets_none() {
    let payer = Payer::new(2).await;
    let refused = payer.payments.send(payer.order(TWO_CHANNELS, false)).await;
    assert!(matches!(refused, Err(SendFault::TooLarge { .. })), "{refused:?}");
    let refused = payer.payments.send(payer.order(FOUR_CHANNELS, true)).await;
    let Err(SendFault::TooLarge { spendable, asked }) = refused else { panic!("{refused:?}") };
    assert!(spendable.get() > TWO_CHANNELS && asked.get() == FOUR_CHANNELS, "what both can send is told");
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_9_the_fee_limit_holds_over_parts_and_retries_to_the_millisatoshi() {
    let mut payer = Payer::new(2).await;
    let fees = 2 * u64::from(BASE);
    for max_fee in [0, u64::from(BASE), fees - 1] {
        let order = PayOrder { max_fee: Some(Msat::new(max_fee)), ..payer.order(TWO_CHANNELS, true) };
        let refused = payer.payments.send(order).await;
        assert!(matches!(refused, Err(SendFault::FeeTooHigh { .. })), "{max_fee}: {refused:?}");
    }
    let order = PayOrder { max_fee: Some(Msat::new(u64::from(BASE) - 1)), ..payer.order(ONE_CHANNEL, true) };
    let refused = payer.payments.send(order).await;
    assert!(matches!(refused, Err(SendFault::FeeTooHigh { .. })), "{refused:?}");
    // Both ways take one part; after a failure the second must not cost more than was allowed for both.
    let order = PayOrder { max_fee: Some(Msat::new(fees)), ..payer.order(TWO_CHANNELS, true) };
    let id = payer.send(order).await;
    let parts = [payer.offered(0).await, payer.offered(1).await];
    payer.fail(&parts[0], false, &TOO_MUCH).await;
    payer.until_in_flight(&id, 1).await;
    // Half of what failed may be tried over the same way, and what that leaves over nothing else: two more fees.
    payer.fail(&parts[1], true, &Failure::MppTimeout).await;
    let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
    assert_eq!(kind, "temporary_channel_failure");
    assert!(message.contains(&payer.peers[0].0.id().to_string()), "{message}");
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_fails_is_followed_by_the_next_one() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(ONE_CHANNEL, false)).await;
    let first = payer.offered(0).await;
    payer.fail(&first, false, &TOO_MUCH).await;
    let second = payer.offered(1).await;
    assert_eq!(second.last.amt_to_forward.get(), ONE_CHANNEL);
    assert_ne!(first.add.onion_routing_packet, second.add.onion_routing_packet);
    payer.fulfil(&second).await;
    let PaymentState::Succeeded { fee, .. } = payer.end(&id).await else { panic!("it succeeds") };
    assert_eq!(fee.get(), u64::from(BASE));
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_payee_does_not_want_is_not_tried_again() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(ONE_CHANNEL, true)).await;
    let first = payer.offered(0).await;
    let why = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat::new(ONE_CHANNEL), height: HEIGHT };
    payer.fail(&first, true, &why).await;
    let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
    assert_eq!(kind, "incorrect_or_unknown_payment_details");
    assert!(message.contains(&payee_id().to_string()) && message.contains("ask for a new invoice"), "{message}");
    assert!(payer.peers[1].0.dealt_with().await.is_empty());
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_new_attempt_is_made_once_the_payment_is_abandoned_or_its_time_is_over() {
    for is_abandoned in [true, false] {
        let mut payer = Payer::new(2).await;
        let timeout = if is_abandoned { LIMIT } else { Duration::ZERO };
        let id = payer.send(PayOrder { timeout, ..payer.order(ONE_CHANNEL, true) }).await;
        let first = payer.offered(0).await;
        if is_abandoned {
            assert!(payer.payments.abandon(&id).is_some() && payer.payments.abandon(&id).is_some());
            assert!(payer.payments.abandon(&[9; 32]).is_none(), "there is no such payment");
        }
        assert!(payer.payments.get(&id).unwrap().unwrap().is_pending(), "the network decides");
        payer.fail(&first, false, &TOO_MUCH).await;
        let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
        assert_eq!(kind, "temporary_channel_failure");
        let why = if is_abandoned { "abandoned" } else { "timeout_secs had passed" };
        assert!(message.contains(why), "{message}");
        assert!(payer.peers[1].0.dealt_with().await.is_empty());
        payer.assert_done().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_payment_may_still_succeed() {
    let mut payer = Payer::new(1).await;
    let id = payer.send(payer.order(ONE_CHANNEL, true)).await;
    let first = payer.offered(0).await;
    assert!(payer.payments.abandon(&id).is_some());
    payer.fulfil(&first).await;
    assert!(matches!(payer.end(&id).await, PaymentState::Succeeded { .. }));
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_the_caller_gives_is_taken_as_it_is_and_once() {
    let mut payer = Payer::new(2).await;
    let hop = |node, channel: Option<u64>, amount, blocks| GivenHop {
        node,
        channel: channel.map(ShortChannelId::from_u64),
        amount: Msat::new(amount),
        blocks,
    };
    let route =
        vec![hop(payer.peers[1].0.id(), None, ONE_CHANNEL + 1, 100), hop(payee_id(), Some(4711), ONE_CHANNEL, 50)];
    let given = |route: &[GivenHop]| Some(route.to_vec());
    let order = PayOrder { route: given(&route), ..payer.order(ONE_CHANNEL, true) };
    // A millisatoshi above the limit; a channel that is none of ours with the peer.
    let refused = payer.payments.send(PayOrder { max_fee: Some(Msat::ZERO), ..order.clone() }).await;
    assert!(matches!(refused, Err(SendFault::FeeTooHigh { .. })), "{refused:?}");
    let foreign = vec![hop(payer.peers[1].0.id(), Some(1), ONE_CHANNEL + 1, 100), route[1]];
    let refused = payer.payments.send(PayOrder { route: given(&foreign), ..order.clone() }).await;
    assert!(matches!(refused, Err(SendFault::Route(BadRoute::NotOurs(_)))), "{refused:?}");
    let nobody = vec![hop(payee_id(), None, ONE_CHANNEL, 50)];
    let refused = payer.payments.send(PayOrder { route: given(&nobody), ..order.clone() }).await;
    assert!(matches!(refused, Err(SendFault::NoRoute(_))), "{refused:?}");

    let id = payer.send(PayOrder { max_fee: Some(Msat::new(1)), ..order.clone() }).await;
    let heard = payer.offered(1).await;
    let height = payer.bench.manager.env().chain.height();
    assert_eq!((heard.add.amount_msat.get(), heard.add.cltv_expiry), (ONE_CHANNEL + 1, height + 100));
    let expected = ForwardPayload {
        amt_to_forward: Msat::new(ONE_CHANNEL),
        outgoing_cltv_value: height + 50,
        short_channel_id: ShortChannelId::from_u64(4711),
    };
    assert_eq!((heard.forward, heard.last.outgoing_cltv_value), (expected, height + 50));
    payer.fail(&heard, false, &Failure::UnknownNextPeer).await;
    let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
    assert_eq!(kind, "unknown_next_peer");
    let channel = ShortChannelId::from_u64(4711).to_string();
    assert!(message.contains(&channel) && message.contains(&payer.peers[1].0.id().to_string()), "{message}");
    assert!(payer.peers[0].0.dealt_with().await.is_empty(), "no other way is taken");
    // It may be made again: over the channel of ours by its name.
    let name = payer.bench.manager.channel(&payer.peers[1].1.id()).unwrap().summary.short_channel_id.unwrap();
    let named = vec![GivenHop { channel: Some(name), ..route[0] }, route[1]];
    let again = payer.send(PayOrder { route: given(&named), ..order }).await;
    let heard = payer.offered(1).await;
    payer.fulfil(&heard).await;
    assert!(matches!(payer.end(&again).await, PaymentState::Succeeded { fee, .. } if fee.get() == 1));
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_by_a_channel_that_cannot_send_is_refused_by_its_name_while_another_can() {
    let mut payer = Payer::new(1).await;
    let mut second = payer.peers[0].0.open_normal().await;
    let peer = payer.peers[0].0.id();
    // In these tests all funding transactions stand at one place, and the name is the last one's.
    let name = payer.bench.manager.channel(&second.id()).unwrap().summary.short_channel_id.unwrap();
    let first = GivenHop { node: peer, channel: Some(name), amount: Msat::new(ONE_CHANNEL + 1), blocks: 100 };
    let last = GivenHop { node: payee_id(), channel: Some(ShortChannelId::from_u64(4711)), blocks: 50, ..first };
    let last = GivenHop { amount: Msat::new(ONE_CHANNEL), ..last };
    let order = |first| PayOrder { route: Some(vec![first, last]), ..payer.order(ONE_CHANNEL, true) };
    let (named, unnamed) = (order(first), order(GivenHop { channel: None, ..first }));
    let feerate = outrigger_bolt::amount::FeeratePerKw::new(1000);
    let close = Command::Shutdown { script: close_script(), feerate };
    payer.peers[0].0.step(&mut second, Input::Command(CommandId(1), close));
    payer.peers[0].0.dealt_with().await;
    let unfit = payer.bench.manager.channel(&second.id()).unwrap();
    assert_eq!((unfit.summary.state, unfit.summary.short_channel_id), ("shutting_down", Some(name)));
    assert_eq!(payer.bench.manager.channel_called(&peer, name), Some(second.id()));
    let refused = payer.payments.send(named).await;
    let Err(fault @ SendFault::Unusable(refused)) = refused else { panic!("{refused:?}") };
    assert!(refused == name && fault.to_string().contains(&name.to_string()), "{fault}");
    let id = payer.send(unnamed).await;
    let heard = payer.offered(0).await;
    payer.fulfil(&heard).await;
    assert!(matches!(payer.end(&id).await, PaymentState::Succeeded { .. }));
}

/// Where peers of these tests have fixed that their part of a close goes.
fn close_script() -> bitcoin::ScriptBuf {
    bitcoin::ScriptBuf::from_bytes([[0x00, 0x14].as_slice(), &[3; 20]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gave_no_invoice_is_paid_with_a_preimage_of_ours() {
    let mut payer = Payer::new(1).await;
    let node_id = payer.peers[0].0.id();
    let whom = Whom::Node { node_id, amount: Msat::new(ONE_CHANNEL) };
    let id = payer.send(PayOrder { whom: whom.clone(), ..payer.order(1, true) }).await;
    let add = loop {
        if let Message::UpdateAddHtlc(add) = payer.hear(0).await {
            break add;
        }
    };
    while !payer.peers[0].0.holds(&payer.peers[0].1, add.id) {
        payer.hear(0).await;
    }
    let peeled = payer.peers[0].0.peel(&add);
    let Payload::Final(last) = Payload::decode(&peeled.payload, peeled.next.is_none()).unwrap() else { panic!("last") };
    let preimage = last.keysend_preimage.unwrap();
    assert_eq!((preimage.payment_hash(), last.payment_data), (add.payment_hash, None));
    assert_eq!(last.amt_to_forward.get(), ONE_CHANNEL);
    let (rogue, channel) = &mut payer.peers[0];
    rogue.step(channel, Input::Command(CommandId(1), Command::Fulfill { htlc_id: add.id, preimage }));
    rogue.step(channel, Input::Command(CommandId(1), Command::Commit));
    while !payer.peers[0].1.rows().htlcs.is_empty() {
        payer.hear(0).await;
    }
    assert!(matches!(payer.end(&id).await, PaymentState::Succeeded { .. }));
    payer.assert_done().await;
    // More than one channel has is not split: the receiver could not tell that parts belong together.
    let whom = Whom::Node { node_id, amount: Msat::new(TWO_CHANNELS) };
    let refused = payer.payments.send(PayOrder { whom, ..payer.order(1, true) }).await;
    assert!(matches!(refused, Err(SendFault::TooLarge { .. })), "{refused:?}");
    let us = payer.bench.manager.env().keys.node_id();
    let whom = Whom::Node { node_id: us, amount: Msat::new(1) };
    let refused = payer.payments.send(PayOrder { whom, ..payer.order(1, true) }).await;
    assert!(matches!(refused, Err(SendFault::OwnInvoice)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_10_many_callers_at_once_never_spend_more_than_there_is() {
    let mut payer = Payer::new(1).await;
    let node_id = payer.peers[0].0.id();
    let whom = Whom::Node { node_id, amount: Msat::new(100_000_000) };
    let order = PayOrder { whom, ..payer.order(1, true) };
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (payments, order) = (payer.payments.clone(), order.clone());
        sends.spawn(async move { payments.send(order).await });
    }
    let begun: Vec<_> = sends.join_all().await.into_iter().filter_map(|sent| Some(sent.ok()?.payment_id)).collect();
    assert!(begun.len() >= 3);
    // Three of them fit what the node has.
    while spent(&payer) < 300_000_000 {
        payer.hear(0).await;
    }
    for id in begun {
        if let Some(PaymentState::Failed { kind, .. }) = ended_by_now(&payer, &id).await {
            assert_eq!(kind, "refused_by_channel");
        }
    }
    let late = payer.peers[0].0.dealt_with().await;
    assert!(!late.iter().any(|message| matches!(message, Message::UpdateAddHtlc(_))), "{late:?}");
    assert_eq!(spent(&payer), 300_000_000);
}

/// What stands in the commitments with the first peer.
fn spent(payer: &Payer) -> u64 {
    payer.peers[0].1.rows().htlcs.values().map(|row| row.amount.get()).sum()
}

async fn ended_by_now(payer: &Payer, id: &[u8; 32]) -> Option<PaymentState> {
    all_durable(&payer.bench).await;
    payer.payments.get(id).unwrap().map(|row| row.state).filter(|state| !matches!(state, PaymentState::Pending))
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_2_an_invoice_of_a_known_hash_that_names_another_payee_or_amount_is_refused() {
    let mut payer = Payer::new(1).await;
    let id = payer.send(payer.order(ONE_CHANNEL, false)).await;
    let other = SecretKey::from_slice(&[76; 32]).unwrap();
    let of_other = Whom::Invoice { invoice: payer.invoice_by(&other, ONE_CHANNEL, false), amount: None };
    for is_paid in [false, true] {
        let refused = payer.payments.send(payer.order(ONE_CHANNEL + 1, false)).await;
        let Err(SendFault::HashTaken { what: "amount", .. }) = refused else { panic!("{is_paid}: {refused:?}") };
        let order = PayOrder { whom: of_other.clone(), ..payer.order(1, false) };
        let refused = payer.payments.send(order).await;
        let Err(fault @ SendFault::HashTaken { what: "payee", .. }) = refused else { panic!("{is_paid}: {refused:?}") };
        assert!(fault.to_string().contains(&payee_id().to_string()), "{fault}");
        assert_eq!(payer.send(payer.order(ONE_CHANNEL, false)).await, id, "the same again is answered");
        if !is_paid {
            let heard = payer.offered(0).await;
            payer.fulfil(&heard).await;
            payer.end(&id).await;
        }
    }
    payer.assert_done().await;
}

/// While bitcoind is away nobody knows the height at which an HTLC would expire: no attempt is made.
#[tokio::test(flavor = "multi_thread")]
async fn btc_1_no_other_way_is_tried_while_the_chain_is_not_synced() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(ONE_CHANNEL, false)).await;
    let first = payer.offered(0).await;
    payer.bench.manager.env().chain.set_synced(false);
    payer.fail(&first, false, &TOO_MUCH).await;
    let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
    assert_eq!(kind, "temporary_channel_failure");
    assert!(message.contains("the chain is not synced yet"), "{message}");
    assert!(payer.peers[1].0.dealt_with().await.is_empty());
    payer.assert_done().await;
}

/// An attempt is a promise. One that stands comes to its end.
#[tokio::test(flavor = "multi_thread")]
async fn dsk_8_no_other_way_is_tried_while_the_disk_has_too_little_room() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(ONE_CHANNEL, false)).await;
    let first = payer.offered(0).await;
    payer.bench.manager.env().room.set(Found { free: 7, wanted: 9, is_low: true, has_ballast: true });
    payer.fail(&first, false, &TOO_MUCH).await;
    let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
    assert_eq!(kind, "temporary_channel_failure");
    assert!(message.contains("too little room for another payment"), "{message}");
    assert!(payer.peers[1].0.dealt_with().await.is_empty());
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_2_retries_go_on_after_a_start_and_no_part_has_the_number_of_another() {
    for is_abandoned in [false, true] {
        let mut payer = Payer::new(2).await;
        let id = payer.send(payer.order(ONE_CHANNEL, false)).await;
        let first = payer.offered(0).await;
        if is_abandoned {
            assert!(payer.payments.abandon(&id).is_some());
        }
        payer.restart().await;
        assert!(payer.payments.get(&id).unwrap().unwrap().is_pending());
        payer.fail(&first, false, &TOO_MUCH).await;
        if is_abandoned {
            assert!(
                matches!(payer.end(&id).await, PaymentState::Failed { .. }),
                "what nobody wants is not tried again"
            );
            let heard = payer.peers[1].0.dealt_with().await;
            assert!(!heard.iter().any(|message| matches!(message, Message::UpdateAddHtlc(_))), "{heard:?}");
        } else {
            let second = payer.offered(1).await;
            assert_eq!(second.last.amt_to_forward.get(), ONE_CHANNEL);
            let row = payer.payments.get(&id).unwrap().unwrap();
            let parts: Vec<u16> = payer.bench.load().parts.iter().map(|((_, part), _)| *part).collect();
            assert_eq!((parts, row.next_part), (vec![1], 2));
            payer.fulfil(&second).await;
            let PaymentState::Succeeded { fee, .. } = payer.end(&id).await else { panic!("it succeeds") };
            assert_eq!(fee.get(), u64::from(BASE));
        }
        payer.assert_done().await;
    }
}

/// The node died before its channel signed: nothing was paid, and the payment is made once its peer is there.
#[tokio::test(flavor = "multi_thread")]
async fn pay_2_what_was_never_signed_is_tried_again_after_a_start_within_fee_and_time() {
    for (secs, max_fee) in [(3600, u64::from(BASE)), (3600, u64::from(BASE) - 1), (0, u64::from(BASE))] {
        let mut payer = Payer::new(1).await;
        let id = [9; 32];
        payer.begun_and_not_signed(id, max_fee, secs);
        payer.restart().await;
        if secs > 0 && max_fee == u64::from(BASE) {
            let heard = payer.offered(0).await;
            assert_eq!(payer.left(), (vec![1], 0));
            payer.fulfil(&heard).await;
            assert!(matches!(payer.end(&id).await, PaymentState::Succeeded { .. }));
        } else {
            if secs > 0 {
                assert!(payer.payments.get(&id).unwrap().unwrap().is_pending());
                assert!(payer.payments.abandon(&id).is_some());
            }
            let PaymentState::Failed { kind, .. } = payer.end(&id).await else { panic!("it fails") };
            assert_eq!(kind, "interrupted");
            let heard = payer.peers[0].0.dealt_with().await;
            assert!(!heard.iter().any(|message| matches!(message, Message::UpdateAddHtlc(_))), "{heard:?}");
        }
        payer.assert_done().await;
    }
}

/// All of it is in flight: a start that finds it so makes no other attempt once the peers are in step, whoever looks.
#[tokio::test]
async fn pay_2_nothing_is_brought_twice_by_a_start_that_finds_all_of_it_in_flight() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(ONE_CHANNEL, false)).await;
    payer.offered(0).await;
    let clock = std::rc::Rc::new(super::parts::Still::default());
    let _stand_in = Clock::replace_on_this_thread(clock.clone());
    payer.start_again().await;
    for peer in 0..2 {
        payer.come_back(peer).await;
        payer.payments.state.lock().wait(id, Some(Clock::monotonic()));
        payer.payments.on_time();
        clock.pass(Duration::from_secs(1));
        all_durable(&payer.bench).await;
        assert_eq!(payer.left(), (vec![0], 0));
    }
    let pending = payer.payments.state.lock().pending.get(&id).map(|pending| pending.recipe.is_some());
    assert_eq!(pending, Some(true), "another attempt may be made once it fails");
}

/// The file may be an old copy, and a later one have paid over the other peer. The peer of the part that is known would say so.
#[tokio::test]
async fn bak_1_no_new_attempt_is_made_after_a_start_before_the_peers_of_known_parts_are_in_step() {
    let mut payer = Payer::new(2).await;
    let id = [9; 32];
    payer.begun_and_not_signed(id, u64::from(BASE), 3600);
    let clock = std::rc::Rc::new(super::parts::Still::default());
    let _stand_in = Clock::replace_on_this_thread(clock.clone());
    payer.start_again().await;
    payer.come_back(1).await;
    for _ in 0..3 {
        payer.payments.on_time();
        all_durable(&payer.bench).await;
        assert!(payer.payments.get(&id).unwrap().unwrap().is_pending());
        assert_eq!(payer.left(), (vec![0], 0), "a new attempt");
        clock.pass(Duration::from_secs(1));
    }
    payer.come_back(0).await;
    payer.payments.on_time();
    all_durable(&payer.bench).await;
    assert_eq!(payer.left(), (vec![1], 0));
}

/// The file may be an old copy, and a later one have signed for the part and paid. Who is told that nothing was paid pays again.
#[tokio::test]
async fn bak_1_pay_2_no_payment_is_said_to_be_unpaid_before_the_peers_of_its_parts_are_in_step() {
    for is_abandoned in [false, true] {
        let mut payer = Payer::new(2).await;
        let id = [9; 32];
        // Time is left only to the one that is abandoned.
        payer.begun_and_not_signed(id, u64::from(BASE), if is_abandoned { 3600 } else { 0 });
        let clock = std::rc::Rc::new(super::parts::Still::default());
        let _stand_in = Clock::replace_on_this_thread(clock.clone());
        // The second start asks as the first one did.
        for start in 0..2 {
            payer.start_again().await;
            payer.come_back(1).await;
            if is_abandoned {
                assert!(payer.payments.abandon(&id).is_some());
            }
            for _ in 0..3 {
                payer.payments.on_time();
                all_durable(&payer.bench).await;
                let row = payer.payments.get(&id).unwrap().unwrap();
                assert!(row.is_pending(), "start {start}: {row:?}");
                assert_eq!(payer.left(), (vec![0], 0), "start {start}");
                clock.pass(Duration::from_secs(1));
            }
        }
        payer.come_back(0).await;
        payer.payments.on_time();
        let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
        assert!(kind == "interrupted" && message.contains("safe to pay again"), "{message}");
        assert_eq!(message.contains("abandoned"), is_abandoned, "{message}");
        payer.assert_done().await;
    }
}

/// A channel that the operator closes while its peer is away proves nothing by that: the chain does.
#[tokio::test]
async fn bak_1_pay_2_a_channel_that_failed_proves_nothing_before_its_spend_is_seen() {
    let mut payer = Payer::new(1).await;
    let id = [9; 32];
    payer.begun_and_not_signed(id, u64::from(BASE), 0);
    let clock = std::rc::Rc::new(super::parts::Still::default());
    let _stand_in = Clock::replace_on_this_thread(clock.clone());
    payer.start_again().await;
    let channel = payer.peers[0].1.id();
    payer.bench.manager.command(channel, Command::Fail { reason: "the operator's".to_owned() }).await.unwrap();
    payer.payments.on_time();
    all_durable(&payer.bench).await;
    assert!(payer.payments.get(&id).unwrap().unwrap().is_pending());
    clock.pass(Duration::from_secs(1));
    payer.bench.spend_with_newest_commitment(&channel);
    payer.payments.on_time();
    let PaymentState::Failed { kind, .. } = payer.end(&id).await else { panic!("it fails") };
    assert_eq!(kind, "interrupted");
}

/// What one peer has answered while another is missed stays in the file as it is: the next start takes it in again.
#[tokio::test]
async fn bak_1_pay_2_what_ended_before_all_peers_are_in_step_is_found_again_by_the_next_start() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(TWO_CHANNELS, true)).await;
    let parts = [payer.offered(0).await, payer.offered(1).await];
    let clock = std::rc::Rc::new(super::parts::Still::default());
    let _stand_in = Clock::replace_on_this_thread(clock.clone());
    payer.start_again().await;
    payer.come_back(1).await;
    payer.fail(&parts[1], true, &Failure::MppTimeout).await;
    for _ in 0..2 {
        all_durable(&payer.bench).await;
        // Told of once more, as a peer that comes back may.
        payer.bench.notices.try_iter().for_each(|notice| payer.payments.take(notice));
        let found = payer.bench.load();
        for outcome in found.outcomes {
            payer.payments.settled((id, outcome.row.part), (outcome.channel, outcome.htlc_id), &outcome.row.outcome());
        }
        payer.payments.on_time();
        all_durable(&payer.bench).await;
        assert_eq!(payer.left(), (vec![0, 1], 1), "nothing is taken in, and nothing begun");
        payer.start_again().await;
    }
    payer.come_back(0).await;
    payer.come_back(1).await;
    clock.pass(Duration::from_secs(1));
    payer.payments.on_time();
    all_durable(&payer.bench).await;
    assert_eq!(payer.left(), (vec![0, 2], 0), "the one that failed goes again");
    assert_eq!(payer.offered(1).await.last.amt_to_forward, parts[1].last.amt_to_forward);
}

/// No other way is tried any more, and one part is in flight. The channel of the other, which ended before, is asked by each
/// start all the same: a later file may know that a part went over it again and paid.
#[tokio::test]
async fn bak_1_pay_2_the_channel_of_a_part_that_ended_is_asked_by_each_start_while_another_part_is_in_flight() {
    let mut payer = Payer::new(2).await;
    let id = payer.send(payer.order(TWO_CHANNELS, true)).await;
    let parts = [payer.offered(0).await, payer.offered(1).await];
    let clock = std::rc::Rc::new(super::parts::Still::default());
    let _stand_in = Clock::replace_on_this_thread(clock.clone());
    payer.start_again().await;
    payer.come_back(1).await;
    let height = payer.bench.manager.env().chain.height();
    let unwanted = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: parts[1].add.amount_msat, height };
    payer.fail(&parts[1], true, &unwanted).await;
    // The outcome is durable and nobody has taken it in; two starts do, which that peer does not see.
    for start in 0..2 {
        payer.start_again().await;
        all_durable(&payer.bench).await;
        assert!(payer.payments.get(&id).unwrap().unwrap().is_pending(), "start {start}");
        assert_eq!(payer.left(), (vec![0, 1], 1), "start {start}");
    }
    payer.come_back(0).await;
    payer.fail(&parts[0], true, &unwanted).await;
    let take_notices = |payer: &Payer| payer.bench.notices.try_iter().for_each(|notice| payer.payments.take(notice));
    all_durable(&payer.bench).await;
    take_notices(&payer);
    all_durable(&payer.bench).await;
    let row = payer.payments.get(&id).unwrap().unwrap();
    assert!(row.is_pending(), "nothing is in flight, and the other peer has yet to say that the file is new: {row:?}");
    payer.come_back(1).await;
    clock.pass(Duration::from_secs(1));
    payer.payments.on_time();
    let PaymentState::Failed { kind, .. } = payer.end(&id).await else { panic!("it fails") };
    assert_eq!(kind, "incorrect_or_unknown_payment_details");
    payer.assert_done().await;
}

/// While nothing can be done for a payment, nothing is written for it.
#[tokio::test]
async fn a_payment_that_waits_for_its_peers_costs_no_batch_a_second() {
    for comes_back in [false, true] {
        let mut payer = Payer::new(2).await;
        let id = [9; 32];
        // In step, its channel cannot carry what the invoice asks for.
        payer.begun_and_not_signed(id, 0, 3600);
        let clock = std::rc::Rc::new(super::parts::Still::default());
        let _stand_in = Clock::replace_on_this_thread(clock.clone());
        payer.start_again().await;
        if comes_back {
            payer.come_back(0).await;
            payer.payments.on_time();
        }
        all_durable(&payer.bench).await;
        let batches = || payer.bench.manager.env().writer.stats().batches.load(std::sync::atomic::Ordering::Relaxed);
        let before = batches();
        for _ in 0..20 {
            assert!(payer.payments.next_time().is_some(), "it is looked at again");
            clock.pass(Duration::from_secs(1));
            payer.payments.on_time();
        }
        all_durable(&payer.bench).await;
        let count = batches() - before;
        assert!(count < 10, "{count}: one that was waited for, and what peers may have left");
        assert!(payer.payments.get(&id).unwrap().unwrap().is_pending());
    }
}

/// Two parts of one number would have one session key. A row that does not say how many there were gets no more of them.
#[tokio::test]
async fn pay_2_a_row_without_the_number_of_the_next_part_is_read_and_makes_no_new_attempt() {
    let mut payer = Payer::new(1).await;
    let id = [9; 32];
    payer.begun_and_not_signed(id, u64::from(BASE), 3600);
    all_durable(&payer.bench).await;
    let whole = payer.payments.get(&id).unwrap().unwrap().encode();
    // Type, length and value of field 20.
    let count = [20, 2, 0, 1];
    let at = whole.windows(count.len()).position(|window| window == count).unwrap();
    let without = [&whole[..at], &whole[at + count.len()..]].concat();
    let mut batch = Batch::default();
    batch.put(Table::Payment, id.to_vec(), Some(without));
    payer.bench.manager.env().writer.submit(batch);
    let clock = std::rc::Rc::new(super::parts::Still::default());
    let _stand_in = Clock::replace_on_this_thread(clock.clone());
    payer.start_again().await;
    payer.payments.on_time();
    all_durable(&payer.bench).await;
    assert!(payer.payments.get(&id).unwrap().unwrap().is_pending(), "before the peer is in step");
    payer.come_back(0).await;
    clock.pass(Duration::from_secs(1));
    payer.payments.on_time();
    let PaymentState::Failed { kind, message, .. } = payer.end(&id).await else { panic!("it fails") };
    assert!(kind == "interrupted" && message.contains("nobody knows how many"), "{message}");
    assert!(payer.payments.next_time().is_none(), "it is planned no more");
    let heard = payer.peers[0].0.dealt_with().await;
    assert!(!heard.iter().any(|message| matches!(message, Message::UpdateAddHtlc(_))), "{heard:?}");
    payer.assert_done().await;
}

/// Polls a future so often, all that it waits for being durable in between, and drops it where it has not ended.
async fn polled<F: Future>(bench: &Bench, future: F, times: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        all_durable(bench).await;
    }
    None
}

/// Callers go away at each point at which they wait: nothing is done twice for it, and the next call goes on.
#[tokio::test(flavor = "multi_thread")]
async fn per_6_a_payment_whose_caller_goes_away_at_any_await_point_is_made_once() {
    for times in 0.. {
        let mut payer = Payer::new(1).await;
        let order = payer.order(ONE_CHANNEL, false);
        let sent = polled(&payer.bench, payer.payments.send(order.clone()), times).await;
        let id = payer.send(order).await;
        assert!(sent.as_ref().is_none_or(|sent| sent.as_ref().is_ok_and(|sent| sent.payment_id == id)), "{times}");
        let heard = payer.offered(0).await;
        for waits in 0..3 {
            let ended = polled(&payer.bench, payer.payments.wait(&id), waits).await;
            assert!(ended.is_none(), "the HTLC is in flight");
        }
        payer.fulfil(&heard).await;
        assert!(matches!(payer.end(&id).await, PaymentState::Succeeded { .. }), "{times}");
        let late = payer.peers[0].0.dealt_with().await;
        assert!(!late.iter().any(|message| matches!(message, Message::UpdateAddHtlc(_))), "{times}: {late:?}");
        payer.assert_done().await;
        if sent.is_some() {
            assert!(times > 1, "it waits for its row");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn per_6_an_order_or_an_invoice_whose_caller_goes_away_at_any_await_point_holds_up_no_later_one() {
    let payer = Payer::new(1).await;
    let channel = payer.peers[0].1.id();
    let manager = payer.bench.manager.clone();
    for times in 0.. {
        let answer = polled(&payer.bench, manager.command(channel, Command::Commit), times).await;
        assert_eq!(manager.command(channel, Command::Commit).await, Ok(outrigger_channel::Reply::Done), "{times}");
        if answer.is_some() {
            break;
        }
    }
    for times in 0.. {
        let (description, label, idempotency) = ("oars".to_owned(), None, None);
        let order = InvoiceOrder { amount: Some(AMOUNT), description, expiry_secs: 3600, label, idempotency };
        let made = polled(&payer.bench, payer.payments.create_invoice(order.clone()), times).await;
        let next = payer.payments.create_invoice(order).await.unwrap();
        assert!(payer.payments.invoice(&next.payment_hash).unwrap().is_some(), "{times}");
        if let Some(made) = made {
            assert!(payer.payments.invoice(&made.unwrap().payment_hash).unwrap().is_some());
            break;
        }
    }
}
