//! Channels that are over: what is left of them, what they answer, and that they cost nothing (CST-20, FND-8).

use std::collections::BTreeMap;

use outrigger_bolt::tx::commitment::CommitmentPlan;
use outrigger_bolt::wire::{AcceptChannel, ChannelReestablish, FundingCreated, OpenChannel};
use redb::{ReadableDatabase, ReadableTableMetadata};

use super::*;
use crate::store::schema::Table;

/// Rows in each table.
fn census(bench: &Bench) -> BTreeMap<Table, u64> {
    let transaction = bench.db.begin_read().unwrap();
    let count = |table: &Table| (*table, transaction.open_table(table.definition()).unwrap().len().unwrap());
    Table::ALL.iter().map(count).collect()
}

/// An empty block of this height.
pub(super) fn mine(bench: &Bench, height: u32) {
    bench.manager.block_connected(height, &block_of(vec![coinbase()]));
}

/// Waits for the channel to be in this state: what it asks of the chain is told once its rows are durable.
async fn reaches(bench: &Bench, channel: &ChannelId, state: &str) {
    let stands = || bench.manager.channel(channel).unwrap().summary.state;
    bench.until(&format!("the channel is {state}, from {}", stands()), || stands() == state).await;
}

/// Waits for the rows to be in history and the channel to be out of memory.
async fn forgotten(bench: &Bench, channel: &ChannelId) {
    bench.until("the channel is out of memory", || bench.manager.channel(channel).is_none()).await;
}

impl Rogue {
    /// Closes the channel together with the node, and gives the transaction.
    pub(super) async fn close(&mut self, channel: &mut Channel) -> Transaction {
        while channel.summary(HEIGHT + 1).state != "normal" {
            let message = self.hear().await;
            self.step(channel, Input::Message(&message));
        }
        let order = Command::Shutdown { script: script(), feerate: FeeratePerKw::new(1500) };
        self.step(channel, Input::Command(CommandId(1), order));
        while !matches!(channel.phase(), Phase::Closing { wanted: None, .. }) {
            let message = self.hear().await;
            self.step(channel, Input::Message(&message));
        }
        channel.phase().closes_to_publish()[0].clone()
    }

    /// Opens a channel, closes it, and buries the close under a hundred blocks.
    pub(super) async fn open_close_and_bury(&mut self) -> (Channel, u32) {
        let mut channel = self.open().await;
        let close = self.close(&mut channel).await;
        let height = HEIGHT + 2;
        self.bench.manager.block_connected(height, &block_of(vec![coinbase(), close]));
        reaches(&self.bench, &channel.id(), "closing").await;
        mine(&self.bench, height + 5);
        reaches(&self.bench, &channel.id(), "closed").await;
        mine(&self.bench, height + 98);
        assert!(
            self.bench.manager.channel(&channel.id()).is_some(),
            "one block more, and no reorganisation reaches it"
        );
        mine(&self.bench, height + 99);
        forgotten(&self.bench, &channel.id()).await;
        (channel, height + 99)
    }

    pub(super) fn reestablish(&self, channel: &Channel) -> Message {
        let head = &channel.rows().head;
        Message::ChannelReestablish(ChannelReestablish {
            channel_id: channel.id(),
            next_commitment_number: head.local_number + 1,
            next_revocation_number: head.remote_number,
            your_last_per_commitment_secret: PerCommitmentSecret([0; 32]),
            my_current_per_commitment_point: self.signer.per_commitment_point(head.local_number),
        })
    }

    /// The next messages but those that only a live channel sends.
    async fn hear_of(&mut self, channel: ChannelId) -> Message {
        loop {
            let message = self.hear().await;
            let is_old = matches!(message, Message::Shutdown(_) | Message::ClosingComplete(_) | Message::ClosingSig(_));
            if message.channel_id() == Some(channel) && !is_old {
                return message;
            }
        }
    }

    async fn assert_answers(&mut self, channel: &Channel) {
        self.tell(self.reestablish(channel));
        let answer = self.hear_of(channel.id()).await;
        let Message::ChannelReestablish(answer) = answer else { panic!("{answer:?}") };
        assert_eq!(answer.next_commitment_number, channel.rows().head.remote_number + 1);
        assert_eq!(answer.next_revocation_number, channel.rows().head.local_number);
        let error = self.hear_of(channel.id()).await;
        let Message::Error(error) = error else { panic!("{error:?}") };
        assert_eq!(error.data.to_string(), "the channel is closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cst_20_bad_input_59_a_channel_in_history_answers_from_its_stub() {
    let mut rogue = Rogue::connect();
    let (channel, height) = rogue.open_close_and_bury().await;
    rogue.assert_answers(&channel).await;
    // Out of memory, out of the index, out of every table that a start reads.
    let bench = &rogue.bench;
    bench.assert_counted(0);
    assert!(every_channel(&bench.manager).is_empty());
    assert!(bench.manager.deliver().registered(&channel.id()).is_none());
    let funding = channel.rows().params.funding;
    assert!(bench.manager.deliver().index().lock().spender_concerns(&funding).is_empty());
    let rows = census(bench);
    for (table, count) in &rows {
        let expected = match table {
            Table::ClosedChannel => 1,
            Table::Meta | Table::Event => *count,
            _ => 0,
        };
        assert_eq!(*count, expected, "{table:?}");
    }
    // It is shown still.
    let stub = bench.reader.closed(&channel.id()).unwrap().unwrap();
    let view = bench.manager.view_of(&stub);
    assert_eq!((view.summary.state, view.peer, view.channel_id), ("closed", peer_id(), channel.id()));
    assert_eq!(view.summary.local, channel.rows().head.local_commitment.to_remote);
    let listed = bench.reader.closed_after(None, Some(&peer_id()), 10).unwrap();
    assert_eq!(listed.iter().map(Channel::id).collect::<Vec<_>>(), [channel.id()]);
    assert!(bench.reader.closed_after(Some(&channel.id()), None, 10).unwrap().is_empty());

    // After a restart, 2016 blocks later.
    let restarted = bench.restarted();
    assert!(every_channel(&restarted.manager).is_empty());
    mine(&restarted, height + 2016);
    let mut rogue = Rogue::connect_to(restarted);
    rogue.assert_answers(&channel).await;
    rogue.reconnect(rogue.bench.clone());
    rogue.assert_answers(&channel).await;
}

/// Two nodes that hold a channel for over would tell each other their numbers, each for the other's, as long as they are connected.
#[tokio::test(flavor = "multi_thread")]
async fn cst_20_dos_a_channel_that_is_over_answers_once_on_each_connection() {
    // In memory and failed: on each connection its numbers and its error come unasked, and the error once more.
    let mut rogue = Rogue::connect();
    let channel = rogue.open_normal().await;
    let fail = Command::Fail { reason: "by order".to_owned() };
    assert!(rogue.bench.manager.command(channel.id(), fail).await.is_ok());
    rogue.reconnect(rogue.bench.clone());
    let kinds = |heard: Vec<Message>| heard.iter().map(Message::name).collect::<Vec<_>>();
    assert_eq!(kinds(rogue.dealt_with().await), ["channel_reestablish", "error"]);
    rogue.tell(rogue.reestablish(&channel));
    assert_eq!(kinds(rogue.dealt_with().await), ["error"]);
    rogue.tell(rogue.reestablish(&channel));
    assert!(rogue.dealt_with().await.is_empty());
    rogue.reconnect(rogue.bench.clone());
    rogue.tell(rogue.reestablish(&channel));
    assert_eq!(kinds(rogue.dealt_with().await), ["channel_reestablish", "error", "error"]);

    // In history, where its row is read for it.
    let mut rogue = Rogue::connect();
    let (channel, _) = rogue.open_close_and_bury().await;
    rogue.reconnect(rogue.bench.clone());
    for _ in 0..2 {
        rogue.assert_answers(&channel).await;
        rogue.tell(rogue.reestablish(&channel));
        rogue.tell(rogue.reestablish(&channel));
        assert!(rogue.dealt_with().await.is_empty());
        rogue.reconnect(rogue.bench.clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_59_a_channel_that_nobody_knows_is_answered_with_an_error_alone() {
    let mut rogue = Rogue::connect();
    let (channel, _) = rogue.open_close_and_bury().await;
    // Another peer asks for the channel of the first.
    let stranger = NodeId::new(SecretKey::from_slice(&[8; 32]).unwrap().public_key(&Secp256k1::new()));
    let (sender, queue) = outbox(1 << 20);
    let manager = rogue.bench.manager.clone();
    let connection = manager.connected(stranger, Origin::Peer, &manager.our_init(), sender).unwrap();
    manager.messages(&stranger, connection, vec![Heard { message: rogue.reestablish(&channel), bytes: 100 }]);
    rogue.queue = queue;
    rogue.waiting.clear();
    let Message::Error(error) = rogue.hear().await else { panic!("an error") };
    assert_eq!((error.channel_id, error.data.to_string().as_str()), (channel.id(), "unknown channel"));
    assert!(rogue.bench.reader.closed(&channel.id()).unwrap().is_some(), "nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn fnd_8_a_channel_that_was_never_funded_leaves_no_row() {
    let mut rogue = Rogue::connect();
    let before = census(&rogue.bench);
    let (opening, _) = rogue.negotiate().await;
    let channel = opening.channel_id;
    mine(&rogue.bench, HEIGHT + 2016);
    forgotten(&rogue.bench, &channel).await;
    let mut after = census(&rogue.bench);
    // What the operator was told stays told.
    after.insert(Table::Event, before[&Table::Event]);
    assert_eq!(after, before);
}

/// A `funding_created` for any outpoint, with a valid signature.
fn created_for(
    open: &OpenChannel,
    accept: &AcceptChannel,
    params: &ChannelParams,
    signer: &Layered<Unchained>,
) -> FundingCreated {
    let funding = params.funding;
    let theirs = Basepoints {
        funding_pubkey: accept.funding_pubkey,
        revocation: accept.revocation_basepoint,
        payment: accept.payment_basepoint,
        delayed_payment: accept.delayed_payment_basepoint,
        htlc: accept.htlc_basepoint,
    };
    let ours = signer.basepoints();
    let keys = CommitmentKeys::derive(&theirs, ours, &accept.first_per_commitment_point).unwrap();
    let plan = CommitmentPlan {
        funding_outpoint: funding,
        number: 0,
        opener_payment_basepoint: ours.payment,
        accepter_payment_basepoint: theirs.payment,
        owner_is_opener: false,
        to_self_delay: open.to_self_delay,
        dust_limit: accept.dust_limit_satoshis,
        feerate: open.feerate_per_kw,
        to_owner: open.push_msat,
        to_other: open.funding_satoshis.to_msat().unwrap().saturating_sub(open.push_msat),
        htlcs: &[],
        keys: &keys,
        owner_funding_pubkey: theirs.funding_pubkey,
        other_funding_pubkey: ours.funding_pubkey,
    };
    let commitment = CommitmentTx::build(&plan).unwrap();
    let mut params = params.clone();
    (params.local.basepoints, params.remote.basepoints) = (*ours, theirs);
    let (signature, _) = signer.sign_remote_commitment(&params, &commitment, &keys);
    FundingCreated {
        temporary_channel_id: open.temporary_channel_id,
        funding_txid: funding.txid,
        funding_output_index: u16::try_from(funding.vout).unwrap(),
        signature,
    }
}

impl Rogue {
    /// Opens another channel on the funding output of this one. Gives all that the node says to `funding_created`.
    async fn open_on(&mut self, channel: &Channel, temporary: u8) -> Vec<Message> {
        let (_, open) = Opening::open(self.wish(temporary), &self.context(HEIGHT)).unwrap();
        self.tell(open.clone());
        let Message::OpenChannel(open) = open else { panic!("{open:?}") };
        let accept = self.hear_of(open.temporary_channel_id).await;
        let Message::AcceptChannel(accept) = accept else { panic!("{accept:?}") };
        let created = created_for(&open, &accept, &channel.rows().params, &self.signer);
        self.tell(Message::FundingCreated(created));
        self.dealt_with().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_35_a_funding_output_serves_one_channel_for_ever() {
    let refusal = "this funding output belongs to another channel";
    let mut rogue = Rogue::connect();
    let (birth, _) = rogue.negotiate().await;
    let before = rogue.bench.manager.channel(&birth.channel_id).unwrap();
    let refused = |answers: Vec<Message>, temporary: u8| {
        let [Message::Error(error)] = answers.as_slice() else { panic!("{answers:?}") };
        assert_eq!(error.data.to_string(), refusal);
        // BOLT 1: before `funding_signed` an opening has its temporary name, and the other one is that of a channel which lives on.
        assert_eq!(error.channel_id, ChannelId([temporary; 32]));
    };
    refused(rogue.open_on(&birth.channel, 8).await, 8);
    // The name of the opening is free again, and the one of the channel was never used for it.
    refused(rogue.open_on(&birth.channel, 8).await, 8);
    // Nor for a channel with somebody else.
    let mut other = Rogue::meet(rogue.bench.clone(), 10);
    refused(other.open_on(&birth.channel, 11).await, 11);
    // The channel that has the output lives on, as it was.
    let after = rogue.bench.manager.channel(&birth.channel_id).unwrap();
    assert_eq!(after.summary, before.summary);
    assert_eq!(every_channel(&rogue.bench.manager).len(), 1);

    // Neither is it free once the channel is history.
    let mut rogue = Rogue::connect();
    let (channel, _) = rogue.open_close_and_bury().await;
    refused(rogue.open_on(&channel, 9).await, 9);
    assert!(every_channel(&rogue.bench.manager).is_empty());
    assert!(rogue.bench.load().channels.is_empty(), "nothing is stored");
}

/// However often a peer is announced, each channel has one worker's state, and the newest connection has it alone.
#[tokio::test(flavor = "multi_thread")]
async fn fnd_9_connections_that_pile_up_start_a_channel_once() {
    let mut rogue = Rogue::connect();
    let (birth, _) = rogue.negotiate().await;
    let manager = rogue.bench.manager.clone();
    for _ in 0..5 {
        // No word of the older connection's end, and an opening under way on each.
        let (_, open) = Opening::open(rogue.wish(9), &rogue.context(HEIGHT)).unwrap();
        rogue.tell(open);
        let (sender, queue) = outbox(1 << 20);
        rogue.connection = manager.connected(peer_id(), Origin::Peer, &manager.our_init(), sender).unwrap();
        rogue.queue = queue;
        rogue.waiting.clear();
        let message = rogue.hear().await;
        assert!(matches!(&message, Message::ChannelReestablish(m) if m.channel_id == birth.channel_id), "{message:?}");
    }
    rogue.tell(rogue.reestablish(&birth.channel));
    assert!(manager.command(birth.channel_id, Command::Commit).await.is_ok());
    let view = manager.channel(&birth.channel_id).unwrap();
    assert!(view.summary.connected, "the newest connection is in step");
    assert_eq!(every_channel(&manager).len(), 1);
    assert_eq!(rogue.bench.load().channels.len(), 1);
    // The openings of the older connections are gone: their name is free.
    let (_, open) = Opening::open(rogue.wish(9), &rogue.context(HEIGHT)).unwrap();
    rogue.tell(open);
    assert!(matches!(rogue.hear_of(ChannelId([9; 32])).await, Message::AcceptChannel(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_32_accept_channel_for_an_unknown_opening_is_warned_of() {
    let mut rogue = Rogue::connect();
    let (_, open) = Opening::open(rogue.wish(7), &rogue.context(HEIGHT)).unwrap();
    rogue.tell(open);
    let Message::AcceptChannel(accept) = rogue.hear().await else { panic!("accept_channel") };
    let unasked = AcceptChannel { temporary_channel_id: ChannelId([1; 32]), ..accept };
    rogue.tell(Message::AcceptChannel(unasked));
    let Message::Warning(warning) = rogue.hear().await else { panic!("a warning") };
    assert_eq!(warning.data.to_string(), "accept_channel for an opening that we do not know");
    assert!(matches!(rogue.queue.next().await, Next::Closed(_)), "and the connection ends");
    assert!(rogue.bench.load().channels.is_empty(), "nothing is stored");
}
