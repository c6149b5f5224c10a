//! Onions that cannot be acted on, by the whole path of an HTLC: from the peer's `update_add_htlc` to the answer that it
//! gets. And onions that were processed before (FWD-17).

use std::sync::Arc;

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use outrigger_bolt::id::ShortChannelId;
use outrigger_bolt::onion::{Failure, ForwardPayload, Unwrapped, failure};
use outrigger_bolt::wire::{Message, UpdateFailMalformedHtlc};
use outrigger_channel::{Channel, Command, CommandId, FailReason, HtlcSource, Input};

use super::*;
use crate::manager::tests::{HEIGHT, Rogue, block_of};
use crate::store::schema::numbered_key;

/// Where the fields of a packet begin: version, key, payloads, HMAC.
const KEY: usize = 1;
const PAYLOADS: usize = 34;
const HMAC: usize = 1334;

/// A peer that is connected, has a channel, and will send one HTLC with any onion to the node.
struct Payer {
    rogue: Rogue,
    channel: Channel,
    invoice: InvoiceRow,
}

impl Payer {
    async fn new() -> Self {
        let mut rogue = Rogue::connect();
        let channel = rogue.open().await;
        let payments = Arc::new(payments(&rogue.bench));
        let invoice = invoice(&payments).await;
        let notices = rogue.bench.notices.clone();
        std::thread::spawn(move || payments.work(&notices));
        Self { rogue, channel, invoice }
    }

    fn good(&self) -> FinalPayload {
        terms(&self.rogue.bench, &self.invoice)
    }

    fn build(&self, payload: Vec<u8>) -> Built {
        onion_of(&self.rogue.bench, 8, payload, &self.invoice.payment_hash)
    }

    /// Sends the HTLC, keeps to the rules until it is irrevocably committed, and hears what becomes of it.
    async fn answer(&mut self, onion: [u8; 1366]) -> Message {
        let mut order = Some(Command::AddHtlc {
            amount: AMOUNT,
            payment_hash: self.invoice.payment_hash,
            cltv_expiry: expiry(&self.rogue.bench),
            onion: Box::new(onion),
            source: HtlcSource::Payment { payment_id: [1; 32], part: 0 },
        });
        loop {
            let message = self.rogue.hear().await;
            if let Message::UpdateFailHtlc(_) | Message::UpdateFailMalformedHtlc(_) | Message::UpdateFulfillHtlc(_) =
                message
            {
                return message;
            }
            self.rogue.step(&mut self.channel, Input::Message(&message));
            if self.channel.summary(HEIGHT + 1).state == "normal"
                && let Some(order) = order.take()
            {
                self.rogue.step(&mut self.channel, Input::Command(CommandId(1), order));
                self.rogue.step(&mut self.channel, Input::Command(CommandId(1), Command::Commit));
            }
        }
    }

    /// What the encrypted failure says that answers this packet.
    async fn failure(&mut self, built: Built) -> Failure {
        let answer = self.answer(built.packet.to_bytes()).await;
        let Message::UpdateFailHtlc(fail) = answer else { panic!("{answer:?}") };
        match failure::unwrap(&built.shared_secrets, &fail.reason) {
            Unwrapped::Attributed { hop: 0, failure } => failure,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_onion_that_is_right_is_fulfilled_on_this_path() {
    let mut payer = Payer::new().await;
    let onion = payer.build(Payload::Final(payer.good()).encode().unwrap()).packet.to_bytes();
    let answer = payer.answer(onion).await;
    let Message::UpdateFulfillHtlc(fulfill) = answer else { panic!("{answer:?}") };
    assert_eq!(fulfill.payment_preimage, payer.invoice.preimage);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_65_an_onion_of_wrong_version_key_or_hmac_is_answered_as_malformed() {
    const INVALID_VERSION: u16 = 0xc004;
    const INVALID_HMAC: u16 = 0xc005;
    const INVALID_KEY: u16 = 0xc006;
    type Bend = fn(&mut [u8; 1366]);
    let bends: [(Bend, u16); 5] = [
        (|onion| onion[0] = 1, INVALID_VERSION),
        (|onion| onion[KEY] = 5, INVALID_KEY),
        (|onion| onion[KEY + 1..PAYLOADS].fill(0xff), INVALID_KEY),
        (|onion| onion[PAYLOADS] ^= 1, INVALID_HMAC),
        (|onion| onion[HMAC] ^= 1, INVALID_HMAC),
    ];
    for (bend, failure_code) in bends {
        let mut payer = Payer::new().await;
        let mut onion = payer.build(Payload::Final(payer.good()).encode().unwrap()).packet.to_bytes();
        bend(&mut onion);
        let expected = UpdateFailMalformedHtlc {
            channel_id: payer.channel.id(),
            id: 0,
            sha256_of_onion: sha256::Hash::hash(&onion).to_byte_array(),
            failure_code,
        };
        assert_eq!(payer.answer(onion).await, Message::UpdateFailMalformedHtlc(expected));
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    parts.iter().for_each(|part| engine.input(part));
    Hmac::from_engine(engine).to_byte_array()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_66_a_payload_length_that_does_not_fit_is_answered_to_its_sender() {
    let starts: [&[u8]; 5] =
        [&[0], &[1, 7], &[0xfd, 0x05, 0x14], &[0xfe, 0xff, 0xff, 0xff, 0xff], &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]];
    for start in starts {
        let mut payer = Payer::new().await;
        // The payload is known, so the stream that hides it is too: what stands there can be chosen.
        let mut built = payer.build(vec![0; 1000]);
        let known = [&[0xfd, 0x03, 0xe8][..], &[0; 8]].concat();
        let mut onion = built.packet.to_bytes();
        for (byte, (wanted, was)) in onion[PAYLOADS..].iter_mut().zip(start.iter().zip(&known)) {
            *byte ^= wanted ^ was;
        }
        let mu = hmac(b"mu", &[&built.shared_secrets[0]]);
        let tag = hmac(&mu, &[&onion[PAYLOADS..HMAC], &payer.invoice.payment_hash.0]);
        onion[HMAC..].copy_from_slice(&tag);
        built.packet = onion::OnionPacket::from_bytes(&onion);
        let failure = payer.failure(built).await;
        assert_eq!(failure, Failure::InvalidOnionPayload { tlv_type: 0, offset: 0 }, "{start:02x?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_67_a_payload_that_cannot_be_acted_on_is_failed_to_its_sender() {
    let whole = |payload: FinalPayload| Payload::Final(payload).encode().unwrap();

    let mut payer = Payer::new().await;
    let good = whole(payer.good());
    let offset = u16::try_from(good.len()).unwrap();
    let unknown_even = payer.build([&good[..], &[100, 1, 0]].concat());
    assert_eq!(payer.failure(unknown_even).await, Failure::InvalidOnionPayload { tlv_type: 100, offset });

    let mut payer = Payer::new().await;
    let more = Msat::new(AMOUNT.get() + 1);
    let too_little = payer.build(whole(FinalPayload { amt_to_forward: more, ..payer.good() }));
    assert_eq!(payer.failure(too_little).await, Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt: AMOUNT });

    let mut payer = Payer::new().await;
    let cltv_expiry = expiry(&payer.rogue.bench);
    let later = FinalPayload { outgoing_cltv_value: cltv_expiry + 1, ..payer.good() };
    let too_early = payer.build(whole(later));
    assert_eq!(payer.failure(too_early).await, Failure::FinalIncorrectCltvExpiry { cltv_expiry });

    let mut payer = Payer::new().await;
    let forward = ForwardPayload {
        amt_to_forward: AMOUNT,
        outgoing_cltv_value: expiry(&payer.rogue.bench),
        short_channel_id: ShortChannelId::from_u64(7),
    };
    let node = *payer.rogue.bench.manager.env().keys.node_id().public_key();
    let hops = [Payload::Forward(forward).encode().unwrap(), good].map(|payload| Hop { node, payload });
    let session_key = SecretKey::from_slice(&[8; 32]).unwrap();
    let elsewhere = onion::build(&session_key, &hops, &payer.invoice.payment_hash.0).unwrap();
    assert_eq!(payer.failure(elsewhere).await, Failure::UnknownNextPeer);
}

/// The settlement of an HTLC in the file, as the answer that it is.
fn settlement(bench: &Bench, htlc_id: u64) -> SettlementRow {
    bench.reader.settlement(&ChannelId([2; 32]), htlc_id).unwrap().unwrap()
}

fn details(bench: &Bench, shared_secrets: &[[u8; 32]], htlc_id: u64) -> bool {
    let SettlementRow::Fail(FailReason::Encrypted(reason)) = settlement(bench, htlc_id) else { return false };
    let Unwrapped::Attributed { failure, .. } = failure::unwrap(shared_secrets, &reason) else { return false };
    matches!(failure, Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: AMOUNT, .. })
}

/// An invoice, an HTLC of it that fails because it brings too little, and the secrets of its onion.
async fn one_that_failed(bench: &Bench, payments: &Payments) -> (IncomingHtlc, Vec<[u8; 32]>) {
    let invoice = invoice(payments).await;
    let good = htlc(bench, &invoice, 0);
    let payload = Payload::Final(terms(bench, &invoice)).encode().unwrap();
    let secrets = onion_of(bench, 8, payload, &invoice.payment_hash).shared_secrets;
    tell(bench, payments, &IncomingHtlc { amount: Msat::new(AMOUNT.get() - 1), ..good.clone() });
    (good, secrets)
}

/// The first HTLC with an onion failed, and its invoice is open: only that the onion was seen fails the second.
#[tokio::test(flavor = "multi_thread")]
async fn bad_input_68_fwd_17_a_stored_onion_that_is_sent_again_after_a_restart_fails() {
    let bench = Bench::new();
    let first = payments(&bench);
    let (good, secrets) = one_that_failed(&bench, &first).await;
    // While the first decision may still be on its way to the file, and once it is there.
    tell(&bench, &first, &IncomingHtlc { htlc_id: 1, ..good.clone() });
    all_durable(&bench).await;
    tell(&bench, &first, &IncomingHtlc { htlc_id: 2, ..good.clone() });
    all_durable(&bench).await;
    drop(first);

    let bench = bench.restarted();
    let second = payments(&bench);
    tell(&bench, &second, &IncomingHtlc { htlc_id: 3, ..good.clone() });
    tell(&bench, &second, &IncomingHtlc { htlc_id: 3, channel: ChannelId([3; 32]), ..good.clone() });
    all_durable(&bench).await;
    for htlc_id in 1..4 {
        assert!(details(&bench, &secrets, htlc_id), "HTLC {htlc_id}: {:?}", settlement(&bench, htlc_id));
    }
    let on_another_channel = bench.reader.settlement(&ChannelId([3; 32]), 3).unwrap();
    assert!(matches!(on_another_channel, Some(SettlementRow::Fail(_))), "{on_another_channel:?}");
    assert!(second.invoice(&good.payment_hash).unwrap().unwrap().paid.is_none());
    // A fresh onion for the same invoice is no replay.
    let row = second.invoice(&good.payment_hash).unwrap().unwrap();
    tell(&bench, &second, &htlc(&bench, &row, 9));
    all_durable(&bench).await;
    assert!(matches!(settlement(&bench, 9), SettlementRow::Fulfil(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_68_an_htlc_that_a_start_tells_of_again_is_no_replay() {
    let bench = Bench::new();
    let first = payments(&bench);
    let (good, _) = one_that_failed(&bench, &first).await;
    // As if its settlement had been lost: the HTLC is judged again, by its onion that is in the set under its own name.
    let mut batch = Batch::default();
    batch.put(Table::Settlement, numbered_key(&good.channel, 0), None);
    bench.manager.env().writer.submit(batch);
    all_durable(&bench).await;
    drop(first);
    let bench = bench.restarted();
    let second = payments(&bench);
    tell(&bench, &second, &good);
    all_durable(&bench).await;
    assert!(matches!(settlement(&bench, 0), SettlementRow::Fulfil(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn fwd_17_the_set_forgets_what_has_expired_and_such_onions_fail_by_themselves() {
    let bench = Bench::new();
    let payments = payments(&bench);
    let (good, secrets) = one_that_failed(&bench, &payments).await;
    all_durable(&bench).await;
    let digest = sha256::Hash::hash(&secrets[0]).to_byte_array();
    assert!(bench.reader.replay(&digest).unwrap().is_some());
    assert_eq!(bench.reader.expired_replays(u32::MAX, 10).unwrap(), [(good.cltv_expiry, digest)]);

    bench.manager.block_connected(good.cltv_expiry + 1, &block_of(Vec::new()));
    let other = invoice(&payments).await;
    tell(&bench, &payments, &htlc(&bench, &other, 1));
    all_durable(&bench).await;
    assert_eq!(bench.reader.replay(&digest).unwrap(), None, "the next entry takes it away");
    assert_eq!(bench.reader.expired_replays(u32::MAX, 10).unwrap().len(), 1, "by both names");

    tell(&bench, &payments, &IncomingHtlc { htlc_id: 2, cltv_expiry: good.cltv_expiry + 300, ..good.clone() });
    all_durable(&bench).await;
    assert!(details(&bench, &secrets, 2), "{:?}", settlement(&bench, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_43_an_htlc_that_expires_too_late_is_failed_and_fills_no_set() {
    let bench = Bench::new();
    let payments = payments(&bench);
    let invoice = invoice(&payments).await;
    let good = htlc(&bench, &invoice, 0);
    let payload = Payload::Final(terms(&bench, &invoice)).encode().unwrap();
    let secrets = onion_of(&bench, 8, payload, &invoice.payment_hash).shared_secrets;
    tell(&bench, &payments, &IncomingHtlc { cltv_expiry: HEIGHT + 2017, ..good.clone() });
    all_durable(&bench).await;
    // BOLT 4: `expiry_too_far` is not for the final node to say.
    assert!(details(&bench, &secrets, 0), "{:?}", settlement(&bench, 0));
    assert_eq!(bench.reader.expired_replays(u32::MAX, 10).unwrap(), []);
    tell(&bench, &payments, &IncomingHtlc { htlc_id: 1, cltv_expiry: HEIGHT + 2016, ..good });
    all_durable(&bench).await;
    assert!(matches!(settlement(&bench, 1), SettlementRow::Fulfil(_)));
}

/// An empty or zero record of a payment in parts (N<0.14 crashed on one): the HTLC is failed, whichever amounts it names.
#[tokio::test(flavor = "multi_thread")]
async fn prs_10_a_payment_record_that_is_empty_or_names_nothing_fails_the_htlc() {
    let bench = Bench::new();
    let payments = payments(&bench);
    let invoice = invoice(&payments).await;
    let records: [&[u8]; 4] =
        [&[], &[8, 0], &[&[8, 32][..], &invoice.payment_secret.0].concat(), &[&[8, 33][..], &[0; 33]].concat()];
    for (htlc_id, record) in (0..).zip(records) {
        let height = expiry(&bench).to_be_bytes();
        let payload = [&[2, 3, 0x0f, 0x42, 0x40, 4, 2][..], &height[2..], record].concat();
        let session = 20 + u8::try_from(htlc_id).unwrap();
        let onion = Box::new(onion_of(&bench, session, payload, &invoice.payment_hash).packet.to_bytes());
        tell(&bench, &payments, &IncomingHtlc { onion, ..htlc(&bench, &invoice, htlc_id) });
        all_durable(&bench).await;
        assert!(matches!(settlement(&bench, htlc_id), SettlementRow::Fail(FailReason::Encrypted(_))), "{record:02x?}");
    }
    assert!(payments.invoice(&invoice.payment_hash).unwrap().unwrap().paid.is_none());
}
