//! Parts that stand in channels: a set over as many peers is claimed in all of them or in none, whatever a crash leaves.

use outrigger_bolt::wire::Message;
use outrigger_channel::{Channel, Command, CommandId, HtlcSource, Input};

use super::*;
use crate::manager::tests::{HEIGHT, Rogue};

/// Peers with a channel each, which send a part each.
struct Payers {
    bench: Arc<Bench>,
    invoice: InvoiceRow,
    payers: Vec<(Rogue, Channel)>,
}

impl Payers {
    async fn new(count: u16) -> Self {
        let bench = Arc::new(Bench::new());
        let payments = Arc::new(payments(&bench));
        let invoice = invoice(&payments).await;
        let notices = bench.notices.clone();
        std::thread::spawn(move || payments.work(&notices));
        let mut payers = Vec::new();
        for number in 0..count {
            let mut rogue = Rogue::meet(bench.clone(), 20 + number).that_keeps_its_word();
            let channel = rogue.open_normal().await;
            payers.push((rogue, channel));
        }
        Self { bench, invoice, payers }
    }

    /// The payer of this number sends so much of the invoice, signed.
    fn send(&mut self, number: usize, amount: u64) {
        let payload = FinalPayload { amt_to_forward: Msat::new(amount), ..terms(&self.bench, &self.invoice) };
        let payload = Payload::Final(payload).encode().unwrap();
        let session = 50 + u8::try_from(number).unwrap();
        let order = Command::AddHtlc {
            amount: Msat::new(amount),
            payment_hash: self.invoice.payment_hash,
            cltv_expiry: expiry(&self.bench),
            onion: Box::new(onion_of(&self.bench, session, payload, &self.invoice.payment_hash).packet.to_bytes()),
            source: HtlcSource::Payment { payment_id: [1; 32], part: 0 },
        };
        let (rogue, channel) = &mut self.payers[number];
        rogue.step(channel, Input::Command(CommandId(1), order));
        rogue.step(channel, Input::Command(CommandId(1), Command::Commit));
        assert_eq!(channel.rows().htlcs.len(), 1, "{number} {amount}");
    }

    /// The payer keeps to the rules until its HTLC stands irrevocably on the node's side too, and was looked at.
    async fn committed(&mut self, number: usize) {
        let (rogue, channel) = &mut self.payers[number];
        while !matches!(hear(rogue, channel).await, Message::CommitmentSigned(_)) {}
        rogue.dealt_with().await;
        self.bench.at_rest().await;
    }

    async fn answer(&mut self, number: usize) -> Message {
        let (rogue, channel) = &mut self.payers[number];
        loop {
            let message = hear(rogue, channel).await;
            if matches!(message, Message::UpdateFulfillHtlc(_) | Message::UpdateFailHtlc(_)) {
                return message;
            }
        }
    }

    /// The decisions in the file, by payer.
    async fn decisions(&self, bench: &Bench) -> Vec<Option<SettlementRow>> {
        all_durable(bench).await;
        self.payers.iter().map(|(_, channel)| bench.reader.settlement(&channel.id(), 0).unwrap()).collect()
    }
}

async fn hear(rogue: &mut Rogue, channel: &mut Channel) -> Message {
    let message = rogue.hear().await;
    rogue.step(channel, Input::Message(&message));
    rogue.step(channel, Input::Command(CommandId(1), Command::Commit));
    message
}

const PARTS: [u64; 5] = [100_000, 200_000, 300_000, 399_999, 1];

#[tokio::test(flavor = "multi_thread")]
async fn per_1_a_set_over_five_peers_is_claimed_in_all_of_them() {
    let mut payers = Payers::new(5).await;
    for (number, amount) in PARTS[..4].iter().enumerate() {
        payers.send(number, *amount);
        payers.committed(number).await;
    }
    assert_eq!(payers.decisions(&payers.bench).await, [const { None }; 5], "a millisatoshi is missing");
    payers.send(4, PARTS[4]);
    payers.committed(4).await;
    for number in 0..5 {
        let answer = payers.answer(number).await;
        let Message::UpdateFulfillHtlc(fulfill) = answer else { panic!("{number}: {answer:?}") };
        assert_eq!(fulfill.payment_preimage, payers.invoice.preimage);
    }
    let paid = payers.bench.reader.invoice(&payers.invoice.payment_hash).unwrap().unwrap().paid;
    assert_eq!(paid.map(|paid| paid.amount), Some(AMOUNT));
}

#[tokio::test(flavor = "multi_thread")]
async fn per_1_pay_3_a_start_makes_a_set_anew_and_claims_it_whole() {
    let mut payers = Payers::new(3).await;
    for (number, amount) in [300_000, 300_000].into_iter().enumerate() {
        payers.send(number, amount);
        payers.committed(number).await;
    }
    let again = payers.bench.started_again_as_it_was().await;
    let payments = Arc::new(payments(&again));
    let (worker, notices) = (payments.clone(), again.notices.clone());
    std::thread::spawn(move || worker.work(&notices));
    again.manager.resume();
    let (rogue, channel) = &mut payers.payers[2];
    rogue.step(channel, Input::Disconnected);
    rogue.reconnect(again.clone());
    rogue.step(channel, Input::Connected(&outrigger_bolt::features::Features::init()));
    while !channel.summary(HEIGHT + 1).connected {
        hear(rogue, channel).await;
    }
    assert_eq!(payers.decisions(&again).await, [const { None }; 3]);
    payers.send(2, 400_000);
    let answer = payers.answer(2).await;
    assert!(matches!(answer, Message::UpdateFulfillHtlc(_)), "{answer:?}");
    // The channels of the others have yet to be re-established: their decisions stand, by the same transaction.
    let fulfil = Some(SettlementRow::Fulfil(payers.invoice.preimage));
    assert_eq!(payers.decisions(&again).await, [fulfil.clone(), fulfil.clone(), fulfil.clone()]);
    // And another start tells the channels of them.
    let third = again.started_again_as_it_was().await;
    third.manager.resume();
    let (rogue, channel) = &mut payers.payers[0];
    rogue.step(channel, Input::Disconnected);
    rogue.reconnect(third.clone());
    rogue.step(channel, Input::Connected(&outrigger_bolt::features::Features::init()));
    let answer = payers.answer(0).await;
    assert!(matches!(answer, Message::UpdateFulfillHtlc(_)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_3_fwd_18_a_set_is_not_claimed_once_the_channel_of_a_part_has_failed() {
    let mut payers = Payers::new(2).await;
    payers.send(0, 600_000);
    payers.committed(0).await;
    let channel_id = payers.payers[0].1.id();
    payers.payers[0].0.tell(Message::Error(outrigger_bolt::wire::Error { channel_id, data: "gone".into() }));
    payers.payers[0].0.dealt_with().await;
    payers.send(1, 400_000);
    let answer = payers.answer(1).await;
    let Message::UpdateFailHtlc(_) = answer else { panic!("{answer:?}") };
    assert!(payers.bench.reader.invoice(&payers.invoice.payment_hash).unwrap().unwrap().paid.is_none());
}
