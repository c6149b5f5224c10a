//! HTLCs that one peer sends and that go on to another, by the messages that both hear.

use outrigger_bolt::onion::{self, Built, Failure, ForwardPayload, Hop, OnionPacket, Payload, Unwrapped, failure};
use outrigger_bolt::wire::{ChannelUpdate, UpdateFailHtlc};
use outrigger_channel::FailReason;

use super::sinks::{Manner, Node};
use super::*;
use crate::manager::relay::onions::{Seen, Unprocessed};
use crate::manager::relay::register;
use crate::manager::terms::{TermsChange, TermsRow};
use crate::store::Batch;
use crate::store::forward::{Direction, ForwardTotals};
use crate::store::room::Found;
use crate::store::row::{Downstream, SettlementRow};

const AMOUNT: Msat = Msat::new(10_000_000);
/// What the node asks: 1000 msat and 100 millionths.
const FEE: Msat = Msat::new(2000);
const DELTA: u32 = 80;
/// When the HTLC to the last peer expires.
const EXPIRY: u32 = HEIGHT + 100;

fn preimage(number: u8) -> PaymentPreimage {
    PaymentPreimage([number; 32])
}

/// What the sender sends, and what its onion tells the node.
#[derive(Clone, Copy)]
struct Send {
    number: u8,
    amount: Msat,
    expiry: u32,
    forward: ForwardPayload,
}

/// Two peers of one node with a channel each: what the first sends goes on to the second.
struct Chain {
    bench: Arc<Bench>,
    from: Rogue,
    incoming: Channel,
    to: Rogue,
    outgoing: Channel,
}

impl Chain {
    async fn new() -> Self {
        Self::through(Arc::new(Bench::new())).await
    }

    async fn through(bench: Arc<Bench>) -> Self {
        let mut from = Rogue::meet(bench.clone(), 9).that_keeps_its_word();
        let mut to = Rogue::meet(bench.clone(), 10).that_keeps_its_word();
        let incoming = from.open_normal().await;
        let outgoing = to.open_normal().await;
        Self { bench, from, incoming, to, outgoing }
    }

    fn scid(&self) -> ShortChannelId {
        // What the node calls the channel with the second peer, by the alias that it gave.
        self.outgoing.rows().head.remote_scid_alias.unwrap()
    }

    fn good(&self, number: u8) -> Send {
        let forward =
            ForwardPayload { amt_to_forward: AMOUNT, outgoing_cltv_value: EXPIRY, short_channel_id: self.scid() };
        Send { number, amount: AMOUNT.checked_add(FEE).unwrap(), expiry: EXPIRY + DELTA, forward }
    }

    /// The packet for the node and the last peer.
    fn onion(&self, send: &Send) -> Built {
        let node = *self.bench.manager.env().keys.node_id().public_key();
        let payloads =
            [(node, Payload::Forward(send.forward).encode().unwrap()), (*self.to.id.public_key(), vec![2, 0])];
        let hops = payloads.map(|(node, payload)| Hop { node, payload });
        let session_key = SecretKey::from_slice(&[send.number; 32]).unwrap();
        onion::build(&session_key, &hops, &preimage(send.number).payment_hash().0).unwrap()
    }

    /// The first peer sends the HTLC, signed.
    fn send(&mut self, send: &Send) -> Built {
        let built = self.onion(send);
        let order = Command::AddHtlc {
            amount: send.amount,
            payment_hash: preimage(send.number).payment_hash(),
            cltv_expiry: send.expiry,
            onion: Box::new(built.packet.to_bytes()),
            source: HtlcSource::Payment { payment_id: [send.number; 32], part: 0 },
        };
        self.from.step(&mut self.incoming, Input::Command(CommandId(1), order));
        self.from.step(&mut self.incoming, Input::Command(CommandId(1), Command::Commit));
        built
    }

    /// The first peer keeps to the rules until it hears what became of an HTLC.
    async fn answer(&mut self) -> Message {
        loop {
            let message = self.from.hear().await;
            self.from.step(&mut self.incoming, Input::Message(&message));
            self.from.step(&mut self.incoming, Input::Command(CommandId(1), Command::Commit));
            if matches!(message, Message::UpdateFulfillHtlc(_) | Message::UpdateFailHtlc(_)) {
                return message;
            }
        }
    }

    /// What the failure says that the first peer hears, and who made it.
    async fn failure(&mut self, built: &Built) -> (usize, Failure) {
        let answer = self.answer().await;
        let Message::UpdateFailHtlc(UpdateFailHtlc { reason, .. }) = answer else { panic!("{answer:?}") };
        match failure::unwrap(&built.shared_secrets, &reason) {
            Unwrapped::Attributed { hop, failure } => (hop, failure),
            Unwrapped::Unattributable => panic!("nobody on the way made it"),
        }
    }

    /// Lets both peers keep to the rules until the second one hears of an HTLC.
    async fn offered(&mut self) -> UpdateAddHtlc {
        loop {
            let message = tokio::select! {
                message = self.from.hear() => {
                    self.from.step(&mut self.incoming, Input::Message(&message));
                    self.from.step(&mut self.incoming, Input::Command(CommandId(1), Command::Commit));
                    continue;
                }
                message = self.to.hear() => message,
            };
            self.to.step(&mut self.outgoing, Input::Message(&message));
            match message {
                Message::UpdateAddHtlc(add) => return add,
                _ => self.to.step(&mut self.outgoing, Input::Command(CommandId(1), Command::Commit)),
            }
        }
    }

    /// The second peer keeps to the rules until the HTLC stands irrevocably, and then gives this order.
    async fn then(&mut self, id: u64, order: Command) {
        while self.outgoing.incoming(id, &self.to.policy).is_none() {
            self.second_hears().await;
        }
        self.to.step(&mut self.outgoing, Input::Command(CommandId(1), order));
        self.to.step(&mut self.outgoing, Input::Command(CommandId(1), Command::Commit));
    }

    async fn second_hears(&mut self) {
        let message = self.to.hear().await;
        self.to.step(&mut self.outgoing, Input::Message(&message));
        self.to.step(&mut self.outgoing, Input::Command(CommandId(1), Command::Commit));
    }

    /// The first peer goes on until nothing is left of what it sent, and the node has all of it in its file.
    async fn settled(&mut self) {
        while !self.incoming.rows().htlcs.is_empty() {
            let message = self.from.hear().await;
            self.from.step(&mut self.incoming, Input::Message(&message));
            self.from.step(&mut self.incoming, Input::Command(CommandId(1), Command::Commit));
        }
        self.from.dealt_with().await;
        self.bench.durable().await;
    }

    fn totals(&self) -> Vec<ForwardTotals> {
        self.bench.reader.forward_totals((0, u32::MAX)).unwrap().into_values().collect()
    }

    /// The first peer connects to the node anew, and says where it stands.
    fn first_comes_back(&mut self, bench: Arc<Bench>) {
        self.bench = bench.clone();
        self.from.reconnect(bench);
        self.from.step(&mut self.incoming, Input::Disconnected);
        self.from.step(&mut self.incoming, Input::Connected(&Features::init()));
    }

    /// The second peer goes on until nothing of the HTLC is left.
    async fn removed(&mut self) {
        while !self.outgoing.rows().htlcs.is_empty() {
            self.second_hears().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_htlc_goes_on_and_its_preimage_comes_back() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    chain.send(&send);
    let add = chain.offered().await;
    assert_eq!((add.amount_msat, add.cltv_expiry, add.payment_hash), (AMOUNT, EXPIRY, preimage(1).payment_hash()));
    let packet = OnionPacket::from_bytes(&add.onion_routing_packet);
    let ecdh = |point: &PublicKey| bitcoin::secp256k1::ecdh::SharedSecret::new(point, &chain.to.secret).secret_bytes();
    let peeled = onion::peel(ecdh, &packet, &add.payment_hash.0).unwrap();
    assert_eq!((peeled.payload, peeled.next), (vec![2, 0], None), "the packet for the last hop");
    chain.then(add.id, Command::Fulfill { htlc_id: add.id, preimage: preimage(1) }).await;
    // Before anything is signed for it, the preimage goes upstream.
    let answer = chain.answer().await;
    let Message::UpdateFulfillHtlc(fulfill) = answer else { panic!("{answer:?}") };
    assert_eq!((fulfill.id, fulfill.payment_preimage), (0, preimage(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_from_the_next_peer_is_wrapped_and_one_of_its_onion_is_told_in_our_name() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    let built = chain.send(&send);
    let add = chain.offered().await;
    let said = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: AMOUNT, height: 7 };
    let reason = FailReason::Encrypted(failure::create(&built.shared_secrets[1], &said));
    chain.then(add.id, Command::FailHtlc { htlc_id: add.id, reason }).await;
    chain.removed().await;
    assert_eq!(chain.failure(&built).await, (1, said));

    let send = chain.good(2);
    let built = chain.send(&send);
    let add = chain.offered().await;
    let sha256_of_onion = sha256::Hash::hash(add.onion_routing_packet.as_slice()).to_byte_array();
    let reason = FailReason::Malformed { sha256_of_onion, failure_code: 0xc005 };
    chain.then(add.id, Command::FailHtlc { htlc_id: add.id, reason }).await;
    chain.removed().await;
    assert_eq!(chain.failure(&built).await, (0, Failure::InvalidOnionHmac { sha256_of_onion }));
}

/// The update that a failure holds: the node's own, of the channel as the onion called it.
fn update_in(chain: &Chain, bytes: &[u8]) -> ChannelUpdate {
    let Message::Gossip(gossip) = Message::decode(bytes).unwrap() else { panic!("no gossip") };
    let update = ChannelUpdate::from_gossip(&gossip).unwrap().unwrap();
    let node = chain.bench.manager.env().keys.node_id();
    assert!(update.is_signed_by(&Secp256k1::verification_only(), node.public_key()));
    assert_eq!((update.short_channel_id, update.fee_base_msat), (chain.scid(), 1000));
    update
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_forward_is_told_with_what_is_asked() {
    let mut chain = Chain::new().await;
    let good = chain.good(1);
    let short = Msat::new(good.amount.get() - 1);
    let built = chain.send(&Send { amount: short, ..good });
    let (0, Failure::FeeInsufficient { htlc_msat, channel_update }) = chain.failure(&built).await else {
        panic!("fee")
    };
    assert_eq!(htlc_msat, short);
    update_in(&chain, &channel_update);

    let built = chain.send(&Send { number: 2, expiry: good.expiry - 1, ..good });
    let (0, Failure::IncorrectCltvExpiry { cltv_expiry, channel_update }) = chain.failure(&built).await else {
        panic!("expiry")
    };
    assert_eq!(cltv_expiry, EXPIRY);
    update_in(&chain, &channel_update);

    let soon = ForwardPayload { outgoing_cltv_value: HEIGHT + 4, ..good.forward };
    let built = chain.send(&Send { number: 3, forward: soon, ..good });
    let (0, Failure::ExpiryTooSoon { channel_update }) = chain.failure(&built).await else { panic!("too soon") };
    update_in(&chain, &channel_update);

    let large = ForwardPayload { amt_to_forward: Msat::new(450_000_000), ..good.forward };
    let brings = Msat::new(500_000_000);
    let built = chain.send(&Send { number: 4, amount: brings, forward: large, ..good });
    let (0, Failure::TemporaryChannelFailure { channel_update }) = chain.failure(&built).await else {
        panic!("more than we have")
    };
    update_in(&chain, &channel_update);

    let elsewhere = ForwardPayload { short_channel_id: ShortChannelId::from_u64(7), ..good.forward };
    let built = chain.send(&Send { number: 5, forward: elsewhere, ..good });
    assert_eq!(chain.failure(&built).await, (0, Failure::UnknownNextPeer));

    // None of them has spoilt anything.
    chain.send(&Send { number: 6, ..good });
    chain.offered().await;
}

/// HTLCs that this node offers for others, as a start would find them.
fn relayed(bench: &Bench) -> usize {
    let all = bench.load();
    let rows = all.channels.iter().flat_map(|loaded| loaded.channel.rows().htlcs.values());
    rows.filter(|row| matches!(row.source, Some(HtlcSource::Relayed { .. }))).count()
}

fn settled(bench: &Bench) -> usize {
    bench.load().channels.iter().map(|loaded| loaded.settlements.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn fwd_9_what_was_signed_downstream_is_under_way_after_a_start_and_is_offered_once() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    chain.send(&send);
    chain.offered().await;
    chain.bench.manager.disconnected(&chain.to.id, chain.to.connection);
    chain.bench.durable().await;
    assert_eq!((relayed(&chain.bench), settled(&chain.bench)), (1, 0));
    let again = chain.bench.started_again(forwarding_policy()).await;
    again.manager.resume();
    // What the start dispatches has been handled once a command to its channel is answered.
    let _answer = again.manager.command(chain.incoming.id(), Command::Commit).await;
    again.durable().await;
    assert_eq!((relayed(&again), settled(&again)), (1, 0), "nothing is offered anew, nothing fails");
}

#[tokio::test(flavor = "multi_thread")]
async fn fwd_9_what_was_never_signed_downstream_is_dispatched_anew() {
    let mut chain = Chain::new().await;
    let first = chain.good(1);
    chain.send(&first);
    chain.offered().await;
    // The second peer owes a revocation for the first, so this one is proposed and not signed.
    let second = chain.good(2);
    let built = chain.send(&second);
    loop {
        let message = tokio::select! {
            message = chain.from.hear() => {
                chain.from.step(&mut chain.incoming, Input::Message(&message));
                chain.from.step(&mut chain.incoming, Input::Command(CommandId(1), Command::Commit));
                continue;
            }
            message = chain.to.hear() => message,
        };
        if matches!(message, Message::UpdateAddHtlc(_)) {
            break;
        }
    }
    chain.bench.manager.disconnected(&chain.to.id, chain.to.connection);
    let (0, Failure::TemporaryChannelFailure { channel_update }) = chain.failure(&built).await else {
        panic!("the peer is away now")
    };
    update_in(&chain, &channel_update);
    chain.bench.durable().await;
    assert_eq!(relayed(&chain.bench), 1, "the first one stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_htlc_for_a_peer_that_is_away_fails_and_may_be_sent_again() {
    let mut chain = Chain::new().await;
    chain.bench.manager.disconnected(&chain.to.id, chain.to.connection);
    let send = chain.good(1);
    let built = chain.send(&send);
    let (0, Failure::TemporaryChannelFailure { channel_update }) = chain.failure(&built).await else { panic!("away") };
    update_in(&chain, &channel_update);
}

/// What stands is settled all the same.
#[tokio::test(flavor = "multi_thread")]
async fn dsk_8_nothing_more_is_handed_on_while_the_disk_has_too_little_room() {
    let mut chain = Chain::new().await;
    let first = chain.good(1);
    chain.send(&first);
    let standing = chain.offered().await;
    chain.bench.manager.env().room.set(Found { free: 7, wanted: 9, is_low: true, has_ballast: true });
    let send = chain.good(2);
    let built = chain.send(&send);
    assert_eq!(chain.failure(&built).await, (0, Failure::TemporaryNodeFailure));
    chain.then(standing.id, Command::Fulfill { htlc_id: standing.id, preimage: preimage(1) }).await;
    let answer = chain.answer().await;
    let Message::UpdateFulfillHtlc(fulfill) = answer else { panic!("{answer:?}") };
    assert_eq!((fulfill.id, fulfill.payment_preimage), (0, preimage(1)));
    chain.bench.manager.env().room.set(Found { free: 9, wanted: 9, is_low: false, has_ballast: true });
    let send = chain.good(3);
    chain.send(&send);
    chain.offered().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fwd_15_one_peer_cannot_fill_the_node_and_leaves_a_share_of_the_channel() {
    let mut chain = Chain::new().await;
    for number in 1..=5 {
        let send = chain.good(number);
        chain.send(&send);
        chain.offered().await;
    }
    let send = chain.good(6);
    let built = chain.send(&send);
    let full = Failure::TemporaryChannelFailure { channel_update: Vec::new() };
    assert_eq!(chain.failure(&built).await, (0, full), "five are what one peer may have");
}

#[tokio::test(flavor = "multi_thread")]
async fn fwd_18_an_htlc_of_a_channel_that_has_failed_is_not_handed_on() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    chain.send(&send);
    // The last signature, and the error right behind it: the HTLC is irrevocably committed and the channel gone.
    loop {
        let message = chain.from.hear().await;
        chain.from.step(&mut chain.incoming, Input::Message(&message));
        if matches!(message, Message::CommitmentSigned(_)) {
            break;
        }
    }
    let channel_id = chain.incoming.id();
    chain.from.tell(Message::Error(outrigger_bolt::wire::Error { channel_id, data: "gone".into() }));
    chain.from.dealt_with().await;
    chain.bench.durable().await;
    // Whatever was told of the HTLC is in the mailbox now, in front of this.
    assert!(chain.bench.manager.command(channel_id, Command::Commit).await.is_ok());
    assert_eq!(chain.bench.manager.channel(&channel_id).unwrap().summary.state, "failed");
    assert!(chain.to.dealt_with().await.is_empty(), "nothing is offered");
    assert_eq!((relayed(&chain.bench), settled(&chain.bench)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_95_fwd_9_what_a_frozen_channel_may_carry_is_neither_offered_again_nor_failed() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    chain.send(&send);
    chain.offered().await;
    let mut batch = Batch::default();
    let key = crate::store::schema::channel_key(&chain.outgoing.id());
    batch.put(crate::store::schema::Table::ChannelHead, key, Some(vec![99]));
    chain.bench.manager.env().writer.submit(batch);
    let again = chain.bench.started_again(forwarding_policy()).await;
    assert!(again.manager.env().frozen.contains(&chain.outgoing.id()));
    again.manager.resume();
    let _answer = again.manager.command(chain.incoming.id(), Command::Commit).await;
    again.durable().await;
    assert_eq!((relayed(&again), settled(&again)), (0, 0), "it stays undecided");
}

#[tokio::test(flavor = "multi_thread")]
async fn fwd_1_a_preimage_that_was_told_is_claimed_upstream_whatever_the_next_peer_says_after() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    let built = chain.send(&send);
    let add = chain.offered().await;
    while chain.outgoing.incoming(add.id, &chain.to.policy).is_none() {
        chain.second_hears().await;
    }
    // The preimage, and no signature for it.
    let fulfill = Command::Fulfill { htlc_id: add.id, preimage: preimage(1) };
    chain.to.step(&mut chain.outgoing, Input::Command(CommandId(1), fulfill));
    let answer = chain.answer().await;
    assert!(matches!(answer, Message::UpdateFulfillHtlc(_)), "{answer:?}");
    // On another connection it fails the same HTLC, by the rules.
    chain.to.step(&mut chain.outgoing, Input::Disconnected);
    chain.to.reconnect(chain.bench.clone());
    chain.to.step(&mut chain.outgoing, Input::Connected(&Features::init()));
    chain.to.until(&mut chain.outgoing, |channel, _| channel.summary(HEIGHT + 1).connected).await;
    let said = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: AMOUNT, height: 7 };
    let reason = FailReason::Encrypted(failure::create(&built.shared_secrets[1], &said));
    chain.then(add.id, Command::FailHtlc { htlc_id: add.id, reason }).await;
    chain.removed().await;
    chain.to.dealt_with().await;
    chain.bench.durable().await;
    let row = chain.bench.reader.settlement(&chain.incoming.id(), 0).unwrap();
    // What the next peer was offered came back.
    let offered = Downstream { channel: chain.outgoing.id(), htlc_id: 0, amount: Msat::ZERO };
    assert_eq!(row, Some(SettlementRow::FulfilledDownstream(preimage(1), offered)));
    chain.settled().await;
    let forwards = chain.bench.reader.forwards(None, Direction::OldestFirst, 9).unwrap();
    let [(_, forward)] = forwards.as_slice() else { panic!("{forwards:?}") };
    assert_eq!(
        (forward.incoming.amount, forward.outgoing.amount),
        (send.amount, Msat::ZERO),
        "nothing was paid for it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_is_told_once_when_its_fee_is_ours_whatever_is_repeated() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    chain.send(&send);
    let add = chain.offered().await;
    let fulfill = Command::Fulfill { htlc_id: add.id, preimage: preimage(1) };
    while chain.outgoing.incoming(add.id, &chain.to.policy).is_none() {
        chain.second_hears().await;
    }
    // The preimage is told, but nobody has signed that the HTLC goes: with the connection that is undone, and told again.
    chain.to.step(&mut chain.outgoing, Input::Command(CommandId(1), fulfill.clone()));
    chain.to.dealt_with().await;
    chain.to.step(&mut chain.outgoing, Input::Disconnected);
    chain.to.reconnect(chain.bench.clone());
    chain.to.step(&mut chain.outgoing, Input::Connected(&Features::init()));
    chain.to.until(&mut chain.outgoing, |channel, _| channel.summary(HEIGHT + 1).connected).await;
    let listed = |chain: &Chain| chain.bench.reader.forwards(None, Direction::OldestFirst, 9).unwrap();
    assert_eq!(listed(&chain), [], "the fee is not ours yet");
    chain.then(add.id, fulfill).await;
    chain.removed().await;
    let answer = chain.answer().await;
    assert!(matches!(answer, Message::UpdateFulfillHtlc(_)), "{answer:?}");
    chain.settled().await;
    let forwards = listed(&chain);
    let [(1, forward)] = forwards.as_slice() else { panic!("{forwards:?}") };
    assert_eq!((forward.incoming.channel, forward.incoming.htlc_id), (chain.incoming.id(), 0));
    assert_eq!((forward.outgoing.channel, forward.outgoing.htlc_id), (chain.outgoing.id(), add.id));
    assert_eq!((forward.incoming.amount, forward.outgoing.amount), (send.amount, AMOUNT));
    assert_eq!(chain.bench.reader.forwards(Some(1), Direction::OldestFirst, 9).unwrap(), []);
    assert_eq!(chain.bench.reader.forwards(None, Direction::NewestFirst, 9).unwrap(), forwards);
    assert_eq!(chain.bench.reader.forwards(Some(1), Direction::NewestFirst, 9).unwrap(), []);
    let settled = ForwardTotals { settled: 1, incoming: send.amount, outgoing: AMOUNT, ..ForwardTotals::default() };
    assert_eq!((chain.totals(), settled.fees()), (vec![settled], FEE));
    // One that fails behind us, and two that we refuse: over a channel that there is, and over one that there is not.
    let send = chain.good(2);
    chain.send(&send);
    let add = chain.offered().await;
    let reason = FailReason::Encrypted(vec![7; 292]);
    chain.then(add.id, Command::FailHtlc { htlc_id: add.id, reason }).await;
    chain.removed().await;
    chain.answer().await;
    chain.settled().await;
    let dear = chain.good(3);
    chain.send(&Send { amount: AMOUNT, ..dear });
    chain.answer().await;
    chain.settled().await;
    let elsewhere = ForwardPayload { short_channel_id: ShortChannelId::from_u64(7), ..dear.forward };
    chain.send(&Send { number: 4, forward: elsewhere, ..dear });
    chain.answer().await;
    chain.settled().await;
    let unknown = ForwardTotals::one_refused();
    assert_eq!(chain.totals(), [unknown, ForwardTotals { failed: 1, refused: 1, ..settled }]);
    // One that expires later than anybody needs, and one whose onion came before.
    chain.send(&Send { number: 5, expiry: HEIGHT + 3000, ..dear });
    chain.answer().await;
    chain.settled().await;
    assert_eq!(chain.totals(), [unknown, ForwardTotals { failed: 1, refused: 2, ..settled }]);
    chain.send(&send);
    chain.answer().await;
    chain.settled().await;
    assert_eq!(chain.totals(), [unknown, ForwardTotals { failed: 1, refused: 3, ..settled }]);
    assert_eq!(listed(&chain), forwards, "only what was earned is listed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_is_too_long_to_be_kept_is_told_in_our_name() {
    let mut chain = Chain::new().await;
    let send = chain.good(1);
    let built = chain.send(&send);
    let add = chain.offered().await;
    let reason = FailReason::Encrypted(vec![7; 4097]);
    chain.then(add.id, Command::FailHtlc { htlc_id: add.id, reason }).await;
    chain.removed().await;
    assert_eq!(chain.failure(&built).await, (0, Failure::PermanentChannelFailure));
    // One byte less goes on, and is for the origin to read.
    let send = chain.good(2);
    chain.send(&send);
    let add = chain.offered().await;
    let reason = FailReason::Encrypted(vec![7; 4096]);
    chain.then(add.id, Command::FailHtlc { htlc_id: add.id, reason }).await;
    chain.removed().await;
    let answer = chain.answer().await;
    let Message::UpdateFailHtlc(UpdateFailHtlc { reason, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(reason.len(), 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_of_a_channel_are_told_and_asked_and_those_before_are_good_for_a_while() {
    let mut chain = Chain::new().await;
    chain.to.dealt_with().await;
    chain.to.gossip.clear();
    let set = TermsRow { fee_base_msat: Some(5000), cltv_expiry_delta: Some(40), ..TermsRow::default() };
    let outgoing = chain.outgoing.id();
    let change = TermsChange { from_config: false, set };
    let policy = chain.bench.manager.set_terms(outgoing, change).await.unwrap();
    let kept = (policy.fee_base_msat, policy.cltv_expiry_delta, policy.fee_proportional_millionths);
    assert_eq!(kept, (5000, 40, 100));
    chain.to.dealt_with().await;
    let told = std::mem::take(&mut chain.to.gossip);
    let [Message::Gossip(gossip)] = told.as_slice() else { panic!("{told:?}") };
    let update = ChannelUpdate::from_gossip(gossip).unwrap().unwrap();
    assert_eq!((update.fee_base_msat, update.cltv_expiry_delta), (5000, 40), "the peer is told at once");
    // The fee of before, with the delta of before.
    let good = chain.good(1);
    chain.send(&good);
    chain.offered().await;
    // The delta of now with the fee of before is good by neither.
    let built = chain.send(&Send { number: 2, expiry: EXPIRY + 40, ..good });
    let (0, Failure::FeeInsufficient { channel_update, .. }) = chain.failure(&built).await else { panic!("fee") };
    let Message::Gossip(gossip) = Message::decode(&channel_update).unwrap() else { panic!("no gossip") };
    assert_eq!(ChannelUpdate::from_gossip(&gossip).unwrap().unwrap().fee_base_msat, 5000);
    // The fee of now with the delta of now.
    let amount = Msat::new(good.amount.get() + 4000);
    chain.send(&Send { number: 3, amount, expiry: EXPIRY + 40, ..good });
    chain.offered().await;
    let found = chain.bench.load();
    let terms = |id| found.channels.iter().find(|loaded| loaded.channel.id() == id).unwrap().terms;
    assert_eq!((terms(outgoing), terms(chain.incoming.id())), (set, TermsRow::default()), "of this channel alone");
    // And back to the config.
    let change =
        TermsChange { from_config: true, set: TermsRow { htlc_minimum: Some(Msat::new(2)), ..Default::default() } };
    let policy = chain.bench.manager.set_terms(outgoing, change).await.unwrap();
    assert_eq!((policy.fee_base_msat, policy.htlc_minimum), (1000, Msat::new(2)));
    let unknown = chain.bench.manager.set_terms(outrigger_bolt::id::ChannelId([9; 32]), change).await;
    assert_eq!(unknown, Err(Refusal::UnknownChannel));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_handed_on_of_a_channel_that_fails_in_the_same_visit() {
    for (fails, told) in [(false, 1_u8), (true, 0)] {
        let chain = Chain::new().await;
        let send = chain.good(1);
        let htlc = IncomingHtlc {
            channel: chain.incoming.id(),
            htlc_id: 0,
            amount: send.amount,
            payment_hash: preimage(1).payment_hash(),
            cltv_expiry: send.expiry,
            onion: Box::new(chain.onion(&send).packet.to_bytes()),
            over_exposed: false,
        };
        let error = outrigger_bolt::wire::Error { channel_id: chain.incoming.id(), data: "no more".into() };
        let manager = &chain.bench.manager;
        let visit = |peer: &mut Peer| {
            let mut drive = Drive::new(&manager.env, &manager.deliver);
            drive.dispatch(peer.node_id, htlc, Telling::New);
            if fails {
                let (connection, message) = (peer.connection(), Box::new(Message::Error(error)));
                drive.handle(peer, Mail::Message { connection, message, bytes: 0 });
            }
            drive.finish(peer)
        };
        let letters = manager.directory.with(&chain.from.id, visit).unwrap();
        assert_eq!((letters.len(), manager.relaying().htlcs), (usize::from(told), u32::from(told)), "{letters:?}");
    }
}

/// Two peers bring one onion at the same time: the file is read without a lock, and one of them is first all the same.
#[tokio::test(flavor = "multi_thread")]
async fn fwd_17_of_two_peers_that_bring_one_onion_at_once_one_is_first() {
    let bench = Bench::new();
    let env = bench.manager.env();
    for round in 0..100 {
        let process = |peer: u8| {
            let name = register::HtlcName { channel: ChannelId([peer; 32]), htlc_id: round };
            let mut secret = [7; 32];
            secret[..8].copy_from_slice(&round.to_be_bytes());
            let mut batch = Batch::default();
            let at = (HEIGHT + 10, HEIGHT);
            let processed = env.onions.process((&mut batch, &env.reader), &secret, name, at).unwrap();
            env.writer.submit(batch);
            processed
        };
        let both = std::thread::scope(|scope| {
            [1, 2].map(|peer| scope.spawn(move || process(peer))).map(|thread| thread.join().unwrap())
        });
        let first = both.iter().position(|processed| *processed == Ok(Seen::First)).expect("one is first");
        assert_eq!(both[1 - first], Err(Unprocessed::Replay), "round {round}");
        if round % 2 == 0 {
            bench.durable().await;
        }
        let (winner, loser) = if first == 0 { (1, 2) } else { (2, 1) };
        assert_eq!((process(winner), process(loser)), (Ok(Seen::Before), Err(Unprocessed::Replay)), "round {round}");
    }
}

/// The row that stands upstream names the channel downstream: after a start as before it, nothing is said of a failure that a backup
/// could yet take back.
#[tokio::test(flavor = "multi_thread")]
async fn fwd_9_per_2_a_failure_that_a_start_finds_waits_for_the_backups_of_the_channel_that_told_it() {
    let node = Node::new(Manner::Sound);
    let mut chain = Chain::through(node.bench.clone()).await;
    let send = chain.good(1);
    let built = chain.send(&send);
    let add = chain.offered().await;
    let said = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: AMOUNT, height: 7 };
    let reason = FailReason::Encrypted(failure::create(&built.shared_secrets[1], &said));
    chain.then(add.id, Command::FailHtlc { htlc_id: add.id, reason }).await;
    let (upstream, downstream) = (chain.incoming.id(), chain.outgoing.id());
    while !chain.outgoing.rows().htlcs.is_empty() {
        let message = chain.to.hear().await;
        if matches!(message, Message::CommitmentSigned(_)) {
            // The backup is late from the step on that makes the removal irrevocable.
            node.vault.is_now(Manner::SlowWith(downstream));
        }
        chain.to.step(&mut chain.outgoing, Input::Message(&message));
        chain.to.step(&mut chain.outgoing, Input::Command(CommandId(1), Command::Commit));
    }
    node.until("the failure's row", |node| settled(&node.bench) == 1).await;
    let row = chain.bench.reader.settlement(&upstream, 0).unwrap().unwrap();
    let SettlementRow::FailedDownstream(Some(_), offered) = row else { panic!("{row:?}") };
    assert_eq!((offered.channel, offered.htlc_id, offered.amount), (downstream, add.id, AMOUNT));
    let node = node.restarted(Manner::SlowWith(downstream)).await;
    node.bench.manager.resume();
    chain.first_comes_back(node.bench.clone());
    let heard = loop {
        let message = chain.from.hear().await;
        chain.from.step(&mut chain.incoming, Input::Message(&message));
        if matches!(message, Message::ChannelReestablish(_)) {
            break chain.from.dealt_with().await;
        }
    };
    assert!(!heard.iter().any(|message| matches!(message, Message::UpdateFailHtlc(_))), "{heard:?}");
    assert_eq!(settled(&node.bench), 1);
    node.until("a full write", |node| node.vault.has_open(&downstream)).await;
    node.vault.is_now(Manner::Sound);
    node.vault.catch_up();
    assert_eq!(chain.failure(&built).await, (1, said));
}

/// A preimage is told upstream before the next peer can time out: it waits for the upstream channel's own backups alone.
#[tokio::test(flavor = "multi_thread")]
async fn fwd_2_per_2_a_preimage_goes_upstream_while_the_backups_of_the_channel_that_told_it_complete_nothing() {
    let node = Node::new(Manner::Sound);
    let mut chain = Chain::through(node.bench.clone()).await;
    chain.send(&chain.good(1));
    let add = chain.offered().await;
    while chain.outgoing.incoming(add.id, &chain.to.policy).is_none() {
        chain.second_hears().await;
    }
    node.until("rest", |node| node.hub.is_drained()).await;
    let downstream = chain.outgoing.id();
    node.vault.is_now(Manner::SlowWith(downstream));
    let had = node.vault.kept()[&downstream];
    for height in HEIGHT + 2..HEIGHT + 8 {
        node.bench.manager.block_connected(height, &block_of(vec![coinbase()]));
    }
    chain.then(add.id, Command::Fulfill { htlc_id: add.id, preimage: preimage(1) }).await;
    let answer = chain.answer().await;
    let Message::UpdateFulfillHtlc(fulfill) = answer else { panic!("{answer:?}") };
    assert_eq!((fulfill.id, fulfill.payment_preimage), (0, preimage(1)));
    assert!(node.vault.has_open(&downstream));
    assert_eq!(node.vault.kept()[&downstream], had);
}
