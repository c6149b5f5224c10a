//! `channel_update` both ways, and the commitment feerate that follows the estimate.

use bitcoin::secp256k1::Message as Digest;
use outrigger_bolt::id::ShortChannelId;
use outrigger_bolt::wire::{ChannelUpdate, Warning};

use super::*;
use crate::clock::Clock;
use crate::store::channel_update::{self, UpdateOf};
use crate::store::schema::Table;

const DONT_FORWARD_AND_MUST_BE_ONE: u8 = 3;

/// The updates heard so far, in order; each is the node's own.
fn updates(peer: &mut Rogue) -> Vec<ChannelUpdate> {
    let verifier = Secp256k1::verification_only();
    let node = peer.bench.manager.env().keys.node_id();
    let read = |message| {
        let Message::Gossip(gossip) = message else { panic!("{message:?}") };
        let update = ChannelUpdate::from_gossip(&gossip).unwrap().unwrap();
        assert!(update.is_signed_by(&verifier, node.public_key()));
        update
    };
    std::mem::take(&mut peer.gossip).into_iter().map(read).collect()
}

/// Re-establishes the channel on a new connection to this node, and gives the updates heard.
async fn reestablished(peer: &mut Rogue, channel: &mut Channel, bench: Arc<Bench>) -> Vec<ChannelUpdate> {
    peer.step(channel, Input::Disconnected);
    peer.reconnect(bench);
    peer.step(channel, Input::Connected(&Features::init()));
    peer.until(channel, |channel, message| {
        matches!(message, Message::ChannelReady(_)) && channel.summary(HEIGHT + 1).connected
    })
    .await;
    assert!(peer.dealt_with().await.is_empty());
    updates(peer)
}

fn scid(channel: &Channel) -> ShortChannelId {
    channel.rows().head.short_channel_id.unwrap()
}

/// What the peer asks for forwarding to the node.
fn of_peer(peer: &Rogue, channel: &Channel, timestamp: u64, change: impl FnOnce(&mut ChannelUpdate)) -> ChannelUpdate {
    let (us, node) = (peer.id, peer.bench.manager.env().keys.node_id());
    let mut update = ChannelUpdate {
        signature: Signature::from_compact(&[1; 64]).unwrap(),
        chain_hash: policy().chain_hash,
        short_channel_id: scid(channel),
        timestamp: u32::try_from(timestamp).unwrap(),
        message_flags: DONT_FORWARD_AND_MUST_BE_ONE,
        channel_flags: u8::from(us.serialize() > node.serialize()),
        cltv_expiry_delta: 40,
        htlc_minimum_msat: Msat::new(1),
        fee_base_msat: 7,
        fee_proportional_millionths: 9,
        htlc_maximum_msat: Msat::new(900_000_000),
        extension: Default::default(),
    };
    change(&mut update);
    let digest: Digest = update.digest().unwrap();
    update.signature = Secp256k1::new().sign_ecdsa(&digest, &peer.secret);
    update
}

/// The peer says it, and the node has dealt with it.
async fn say(peer: &mut Rogue, update: ChannelUpdate) {
    peer.tell(update.into_message().unwrap());
    assert!(peer.dealt_with().await.is_empty());
}

async fn kept(bench: &Bench) -> Option<ChannelUpdate> {
    bench.durable().await;
    bench.load().channels.remove(0).updates.remote
}

#[tokio::test(flavor = "multi_thread")]
async fn our_update_is_told_once_both_are_ready_and_after_every_reestablish() {
    let mut peer = Rogue::connect();
    let mut channel = peer.open_normal().await;
    let told = updates(&mut peer);
    let [first] = told.as_slice() else { panic!("{told:?}") };
    let bench = peer.bench.clone();
    let again = reestablished(&mut peer, &mut channel, bench).await;
    assert_eq!(again, told, "nothing changed, so nothing new is said");
    let node = peer.bench.manager.env().keys.node_id();
    assert_eq!(first.chain_hash, policy().chain_hash);
    assert_eq!(first.short_channel_id, channel.rows().params.scid_alias, "the alias that the peer gave");
    assert!(u64::from(first.timestamp).abs_diff(Clock::now_unix()) < 60);
    assert_eq!(first.message_flags, DONT_FORWARD_AND_MUST_BE_ONE);
    assert_eq!(first.channel_flags, u8::from(node.serialize() > peer.id.serialize()), "the direction, not disabled");
    assert_eq!((first.cltv_expiry_delta, first.fee_base_msat, first.fee_proportional_millionths), (80, 1000, 100));
    assert_eq!((first.htlc_minimum_msat, first.htlc_maximum_msat), (Msat::new(1), Msat::new(1_000_000_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_told_before_both_are_ready() {
    let mut peer = Rogue::connect();
    let (_channel, _tx) = peer.fund().await;
    assert!(peer.dealt_with().await.is_empty());
    assert_eq!(updates(&mut peer), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn clk_1_an_update_after_a_restart_is_later_than_the_last_whatever_the_clock_says() {
    let mut peer = Rogue::connect();
    let mut channel = peer.open_normal().await;
    // The same policy after a crash: the same update.
    let same = peer.bench.started_again(forwarding_policy()).await;
    let told = reestablished(&mut peer, &mut channel, same).await;
    let last = told.last().unwrap().clone();
    // Another policy within the same second.
    let other = ForwardingPolicy { fee_base_msat: 2000, htlc_maximum: Some(Msat::new(5)), ..forwarding_policy() };
    let changed = peer.bench.started_again(other).await;
    let told = reestablished(&mut peer, &mut channel, changed).await;
    let [update] = told.as_slice() else { panic!("{told:?}") };
    assert!(update.timestamp > last.timestamp);
    assert_eq!((update.fee_base_msat, update.htlc_maximum_msat), (2000, Msat::new(5)));
    // The last one was told when the clock stood two years ahead.
    let ahead = ChannelUpdate { timestamp: last.timestamp + 2 * 365 * 86_400, ..update.clone() };
    let mut batch = Batch::default();
    let key = UpdateOf::Local.key(&channel.id());
    batch.put(Table::ChannelUpdate, key, Some(channel_update::encode(&ahead).unwrap()));
    peer.bench.manager.env().writer.submit(batch);
    let back = peer.bench.started_again(forwarding_policy()).await;
    let told = reestablished(&mut peer, &mut channel, back).await;
    assert_eq!(told.iter().map(|update| update.timestamp).collect::<Vec<_>>(), [ahead.timestamp + 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peers_update_is_kept_over_a_restart_and_leads_payers_to_us() {
    let mut peer = Rogue::connect();
    let channel = peer.open_normal().await;
    assert!(peer.bench.manager.route_hints().is_empty(), "nothing is known of what the peer asks");
    let update = of_peer(&peer, &channel, 1000, |_| {});
    say(&mut peer, update.clone()).await;
    assert_eq!(kept(&peer.bench).await, Some(update.clone()));
    let bench = peer.bench.started_again(forwarding_policy()).await;
    let hints = bench.manager.route_hints();
    let [hint] = hints.as_slice() else { panic!("{hints:?}") };
    let [hop] = hint.as_slice() else { panic!("{hint:?}") };
    assert_eq!((hop.node, hop.short_channel_id), (peer.id, channel.rows().params.scid_alias));
    assert_eq!((hop.fee_base_msat, hop.fee_proportional_millionths, hop.cltv_expiry_delta), (7, 9, 40));

    // The peer may name the channel by our alias.
    let alias = channel.rows().head.remote_scid_alias.unwrap();
    let by_alias = of_peer(&peer, &channel, 1002, |update| update.short_channel_id = alias);
    say(&mut peer, by_alias.clone()).await;
    assert_eq!(kept(&peer.bench).await, Some(by_alias));

    // A later one that disables the channel leads nobody here.
    let mut peer = Rogue::connect();
    let channel = peer.open_normal().await;
    let disabled = of_peer(&peer, &channel, 1001, |update| update.channel_flags |= 2);
    say(&mut peer, disabled.clone()).await;
    assert_eq!(kept(&peer.bench).await, Some(disabled));
    assert!(peer.bench.manager.route_hints().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_of_a_peer_that_are_old_strange_or_not_its_own_change_nothing() {
    let mut peer = Rogue::connect();
    let channel = peer.open_normal().await;
    let good = of_peer(&peer, &channel, 1000, |_| {});
    say(&mut peer, good.clone()).await;
    let tomorrow = Clock::now_unix() + 2 * 86_400;
    let strange = [
        of_peer(&peer, &channel, 0, |_| {}),
        of_peer(&peer, &channel, 999, |update| update.fee_base_msat = 1),
        of_peer(&peer, &channel, 1000, |update| update.fee_base_msat = 1),
        of_peer(&peer, &channel, tomorrow, |_| {}),
        of_peer(&peer, &channel, 1001, |update| update.short_channel_id = ShortChannelId::from_u64(1)),
        of_peer(&peer, &channel, 1001, |update| update.chain_hash = ChainHash::BITCOIN),
        of_peer(&peer, &channel, 1001, |update| update.channel_flags ^= 1),
        of_peer(&peer, &channel, 1001, |update| update.htlc_minimum_msat = Msat::new(900_000_001)),
        of_peer(&peer, &channel, 1001, |update| update.htlc_maximum_msat = Msat::new(1_000_000_001)),
    ];
    for update in strange {
        say(&mut peer, update.clone()).await;
        assert_eq!(kept(&peer.bench).await, Some(good.clone()), "{update:?}");
    }
    // Cut short, it is gossip that cannot be read.
    peer.tell(Message::decode(&[&258u16.to_be_bytes()[..], &[1; 60]].concat()).unwrap());
    // One that the peer did not sign costs it the connection, and never the channel.
    let forged = ChannelUpdate { fee_base_msat: 1, ..of_peer(&peer, &channel, 1001, |_| {}) };
    peer.tell(forged.into_message().unwrap());
    let Message::Warning(Warning { channel_id, data }) = peer.hear().await else { panic!("a warning") };
    assert_eq!(
        (channel_id, data.to_string().as_str()),
        (channel.id(), "the signature of a channel_update is not yours")
    );
    assert!(matches!(peer.queue.next().await, Next::Closed(_)));
    assert_eq!(kept(&peer.bench).await, Some(good));
    assert_eq!(every_channel(&peer.bench.manager)[0].summary.state, "normal");
}

fn estimate(commitment: u32) -> Feerates {
    Feerates { commitment: FeeratePerKw::new(commitment), ..feerates() }
}

fn proposed(messages: &[Message]) -> Vec<u32> {
    let feerate = |message: &Message| match message {
        Message::UpdateFee(update) => Some(update.feerate_per_kw.get()),
        _ => None,
    };
    messages.iter().filter_map(feerate).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_opener_follows_the_estimate_one_change_at_a_time() {
    let mut peer = Rogue::connect();
    let mut channel = peer.is_opened_to(Msat::ZERO).await;
    let manager = peer.bench.manager.clone();
    // A fallback is no estimate, and what is near enough moves nothing (FEE-4).
    manager.set_feerates(estimate(5000), false);
    manager.set_feerates(estimate(1249), true);
    manager.set_feerates(estimate(801), true);
    assert!(peer.dealt_with().await.is_empty());
    assert!(peer.dealt_with().await.is_empty(), "nor when the visit had ended");
    manager.set_feerates(estimate(1250), true);
    let said = [peer.hear().await, peer.hear().await];
    assert_eq!(proposed(&said), [1250]);
    assert!(matches!(said[1], Message::CommitmentSigned(_)), "signed in the same visit");
    manager.set_feerates(estimate(3000), true);
    assert!(peer.dealt_with().await.is_empty(), "one change at a time");
    assert!(peer.dealt_with().await.is_empty(), "nor when the visit had ended");
    for message in &said {
        peer.step(&mut channel, Input::Message(message));
    }
    peer.step(&mut channel, Input::Command(CommandId(1), Command::Commit));
    let said = [peer.hear().await, peer.hear().await, peer.hear().await];
    assert!(matches!(said[0], Message::RevokeAndAck(_)), "{said:?}");
    assert_eq!(proposed(&said), [3000], "in the visit that ends the change before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_was_not_connected_follows_when_it_is_reestablished() {
    let mut peer = Rogue::connect();
    let mut channel = peer.is_opened_to(Msat::ZERO).await;
    let manager = peer.bench.manager.clone();
    manager.disconnected(&peer.id, peer.connection);
    manager.set_feerates(estimate(500), true);
    let bench = peer.bench.clone();
    peer.step(&mut channel, Input::Disconnected);
    peer.reconnect(bench);
    peer.step(&mut channel, Input::Connected(&Features::init()));
    peer.until(&mut channel, |_, message| matches!(message, Message::ChannelReady(_))).await;
    assert_eq!(proposed(&peer.dealt_with().await), [500]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepter_proposes_nothing_and_an_opener_no_more_than_it_can_pay_or_signs_for() {
    let mut peer = Rogue::connect();
    peer.open_normal().await;
    peer.bench.manager.set_feerates(estimate(5000), true);
    assert!(peer.dealt_with().await.is_empty());
    assert!(peer.dealt_with().await.is_empty(), "nor when the visit had ended");

    let mut peer = Rogue::connect();
    peer.is_opened_to(Msat::ZERO).await;
    peer.bench.manager.set_feerates(estimate(4_000_000), true);
    // A tenth of the channel's 500,000 sat less both anchors, rounded up to the next satoshi, over the weight with the 30 HTLCs
    // that the peer accepts.
    let capped = ((50_000 - 660 + 1) * 1000 - 1) / (1124 + 172 * 30);
    assert_eq!(proposed(&[peer.hear().await]), [capped]);

    let mut peer = Rogue::connect();
    peer.is_opened_to(Msat::new(485_000_000)).await;
    peer.bench.manager.set_feerates(estimate(20_000), true);
    // 15,000 sat less the reserve of 5,000 and both anchors, rounded up to the next satoshi, over the weight with one HTLC.
    let payable = ((15_000 - 5_000 - 660 + 1) * 1000 - 1) / (1124 + 172);
    assert!(payable < capped);
    assert_eq!(proposed(&[peer.hear().await]), [payable]);
}
