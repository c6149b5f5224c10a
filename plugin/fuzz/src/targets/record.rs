//! Rows and keys that the sidecar itself owns.

use std::fmt::{Debug, Display};

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Txid, hashes::Hash};
use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash, PaymentPreimage, PaymentSecret, ShortChannelId};
use outrigger_bolt::wire::{ChannelUpdate, Decode};
use outrigger_channel::{FailReason, Publication};
use outrigger_sidecar::store::backup::command::line_of_a_program;
use outrigger_sidecar::store::backup::directory::parse_name;
use outrigger_sidecar::store::backup::kept::CommittedRow;
use outrigger_sidecar::store::backup::refusals::Refusals;
use outrigger_sidecar::store::backup::sealed::{RecordKind, RecordName, Sealer};
use outrigger_sidecar::store::backup::verified::Verified;
use outrigger_sidecar::store::backup::{Followed, Image, RowChange, TipRecord, Update};
use outrigger_sidecar::store::channel_update;
use outrigger_sidecar::store::closed::ClosedRow;
use outrigger_sidecar::store::forward::{ForwardRow, ForwardTotals, TotalsKey};
use outrigger_sidecar::store::journal::image::{self, fresh};
use outrigger_sidecar::store::journal::{Epoch, JournalRow, rows};
use outrigger_sidecar::store::part::{PartHop, PartRow};
use outrigger_sidecar::store::replay::ReplayRow;
use outrigger_sidecar::store::row::{
    AgainRow, BroadcastRow, Downstream, EventRow, InvoiceRow, OperationRow, OperationState, OutcomeRow, Paid, PaidFor,
    PaymentRow, PaymentState, SettlementRow, SweepRow,
};
use outrigger_sidecar::store::schema::{
    Table, UnderWay, channel_key, htlc_key, numbered_key, parse_htlc_key, parse_numbered_key, parse_replay_height_key,
    replay_height_key,
};

use outrigger_sidecar::store::terms::TermsRow;
use outrigger_sidecar::store::token::{Charge, TokenRow};
use outrigger_sidecar::store::troubles::{Subject, Troubles};
use serde_json::json;

use super::Target;
use crate::allocation::{FLOOR, TRANSACTION_FLOOR, bounded_by};

pub(super) fn targets() -> Vec<Target> {
    vec![
        of("record_broadcast", BroadcastRow::decode, BroadcastRow::encode, broadcasts),
        of("record_settlement", SettlementRow::decode, SettlementRow::encode, settlements),
        of("record_outcome", OutcomeRow::decode, OutcomeRow::encode, || {
            let row = |outcome| OutcomeRow { part: 3, payment_hash: PaymentHash([1; 32]), outcome };
            settlements().into_iter().map(Some).chain([None]).map(row).collect()
        }),
        of("record_payment", PaymentRow::decode, PaymentRow::encode, payments),
        of("record_token", TokenRow::decode, TokenRow::encode, || {
            let row = |expires_at, budget: Option<u64>| TokenRow {
                id: [1; 8],
                name: "shop".into(),
                salt: [2; 16],
                hash: [3; 32],
                scopes: 4,
                created_at: 7,
                expires_at,
                budget: budget.map(Msat::new),
            };
            vec![row(None, None), row(Some(8), Some(9))]
        }),
        of("record_invoice", InvoiceRow::decode, InvoiceRow::encode, || vec![invoice()]),
        of("record_operation", OperationRow::decode, OperationRow::encode, operations),
        of("record_event", EventRow::decode, EventRow::encode, || {
            vec![EventRow::new(7, "channel_failed", serde_json::json!({ "message": "why" }))]
        }),
        of("record_backup_image", Image::decode, Image::encode, || vec![image()]),
        of("record_backup_update", Update::decode, Update::encode, || {
            let key = channel_key(&ChannelId([1; 32]));
            let change = |value| RowChange { table: Table::ChannelHead, key: key.clone(), value };
            let changes = vec![change(Some(vec![7; 40])), change(None)];
            vec![Update { channel: ChannelId([1; 32]), after: 4, id: 5, changes }]
        }),
        of("record_refusals", Refusals::decode, |row| row.encode().unwrap_or_default(), || {
            vec![Refusals([("one".to_owned(), ChannelId([1; 32])), ("two words".to_owned(), ChannelId([2; 32]))].into())]
        }),
        of("record_verified", Verified::decode, |row| row.encode().unwrap_or_default(), || {
            vec![Verified([("one".to_owned(), 1_800_000_000), ("two words".to_owned(), 1)].into())]
        }),
        of("record_troubles", Troubles::decode, |row| row.encode().unwrap_or_default(), || {
            let all = [Subject::Chain, Subject::Disk, Subject::Backup("two words".to_owned()), Subject::Peer(node(2))];
            vec![Troubles(all.into())]
        }),
        of("record_backup_tip", TipRecord::decode, TipRecord::encode, || {
            let peers = vec![(node(2), "host:9735".to_owned())];
            let hash = bitcoin::BlockHash::from_byte_array([5; 32]);
            let channels = Some(vec![(ChannelId([1; 32]), 5)]);
            let (network, node_id) = ("regtest".into(), node(1));
            vec![TipRecord { network, node_id, height: 288, hash, at_unix: 7, peers, channels }]
        }),
        of("record_followed", Followed::decode, Followed::encode, || {
            vec![Followed { height: 800_000, hash: bitcoin::BlockHash::from_byte_array([7; 32]) }]
        }),
        of("record_persist", CommittedRow::decode, CommittedRow::encode, || vec![CommittedRow { number: 41, id: 97 }]),
        of("record_replay", ReplayRow::decode, ReplayRow::encode, || {
            vec![ReplayRow { channel: ChannelId([1; 32]), htlc_id: 7, until: 800 }]
        }),
        of(
            "record_channel_update",
            channel_update::decode,
            |update| channel_update::encode(update).expect("an update that was read fits"),
            || ChannelUpdate::decode_value(&super::wire::payload("sh841128448")).into_iter().collect(),
        ),
        of("record_part", PartRow::decode, PartRow::encode, || {
            let (sends, amount) = (Msat::new(1001), Msat::new(1000));
            let hop = |number, channel: Option<u64>| PartHop {
                node: node(number),
                channel: channel.map(ShortChannelId::from_u64),
            };
            let row = |route| PartRow { sends, amount, channel: ChannelId([9; 32]), route };
            vec![row(vec![hop(1, None)]), row(vec![hop(2, None), hop(1, Some(7))])]
        }),
        of("record_forward", ForwardRow::decode, ForwardRow::encode, || {
            let (incoming, outgoing) = (downstream(), Downstream { amount: Msat::new(999), ..downstream() });
            vec![ForwardRow { incoming, outgoing, settled_at: 1_700_000_000 }]
        }),
        of("record_forward_totals", ForwardTotals::decode, ForwardTotals::encode, || {
            let (incoming, outgoing) = (Msat::new(1000), Msat::new(999));
            vec![ForwardTotals { settled: 1, incoming, outgoing, refused: 2, failed: 3 }]
        }),
        of(
            "record_forwarding_terms",
            TermsRow::decode,
            // None is written where nothing was set; read, a row without fields says the same.
            |terms| terms.encode().unwrap_or_else(|| vec![1]),
            || {
                let (cltv_expiry_delta, fee_base_msat, fee_proportional_millionths) = (Some(40), Some(7), Some(9));
                let (htlc_minimum, htlc_maximum) = (Some(Msat::new(1)), Some(Msat::ZERO));
                let fees =
                    TermsRow { cltv_expiry_delta, fee_base_msat, fee_proportional_millionths, ..Default::default() };
                vec![TermsRow { htlc_minimum, htlc_maximum, ..fees }, TermsRow::default()]
            },
        ),
        of("record_sweep", SweepRow::decode, SweepRow::encode, || {
            vec![SweepRow { tx: super::row::spend(), fee: Sat::new(7), since_height: 600 }]
        }),
        of("record_closed_channel", ClosedRow::decode, ClosedRow::encode, || {
            let rows = &super::row::past().1.channel;
            vec![ClosedRow { params: rows.params.clone(), head: rows.head.clone() }]
        }),
        of("record_journal", JournalRow::decode, JournalRow::encode, || vec![journal_row()]),
        of(
            "journal_rows",
            rows::decode,
            |found| rows::encode(found),
            || {
                let row = |value| rows::SealedRow { table: Table::Htlc, key: vec![1; 41], value };
                vec![vec![row(Some(vec![2; 60])), row(None)]]
            },
        ),
        Target::new("journal", journal, || vec![fresh(&journal_row(), JOURNAL_HALF)]),
        Target::new("backup_names", backup_names, || {
            let names = ["full-00000000000000000001.sealed", "update-00000000000000000001-00000000000000000002.sealed"];
            names.map(|name| name.as_bytes().to_vec()).to_vec()
        }),
        Target::new("backup_sealed", backup_sealed, || {
            let seal = |content: &[u8]| sealer().seal(&RecordName::full(ChannelId([1; 32]), 7), content);
            vec![seal(b""), seal(&[7; 600])]
        }),
        Target::new("backup_program", backup_program, || {
            let completion = json!({ "channel_id": "07".repeat(32), "update_id": 7 });
            let lines = [
                json!({ "jsonrpc": "2.0", "id": 1, "result": { "answer": "completed" } }),
                json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": 7, "message": "away" } }),
                json!({ "jsonrpc": "2.0", "method": "channel_monitor_updated", "params": completion }),
            ];
            lines.map(|line| line.to_string().into_bytes()).to_vec()
        }),
        Target::new("record_keys", keys, || vec![vec![0; 41], vec![1; 36], vec![1, b'k']]),
    ]
}

fn image() -> Image {
    let mut image = Image::new("regtest", node(1), ChannelId([1; 32]), 5);
    for (table, value) in [(Table::ChannelHead, vec![1; 40]), (Table::MonitorHead, vec![2; 40])] {
        image.rows.insert((table, channel_key(&image.channel)), value);
    }
    image
}

fn of<T: Debug + PartialEq + 'static, E: Display + 'static>(
    name: &'static str,
    decode: fn(&[u8]) -> Result<T, E>,
    encode: fn(&T) -> Vec<u8>,
    samples: fn() -> Vec<T>,
) -> Target {
    let floor = if ["record_broadcast", "record_closed_channel", "record_sweep"].contains(&name) {
        TRANSACTION_FLOOR
    } else {
        FLOOR
    };
    let body = move |data: &[u8]| match bounded_by(floor, data.len(), || decode(data)) {
        Ok(row) => match decode(&encode(&row)) {
            Ok(again) => assert_eq!(again, row, "read, written, read"),
            Err(fault) => panic!("what we write cannot be read: {fault}"),
        },
        Err(fault) => assert!(!fault.to_string().is_empty()),
    };
    Target::new(name, body, move || samples().iter().map(encode).collect())
}

/// Bytes of a half of a journal that is small.
const JOURNAL_HALF: usize = 2 * 4096;

fn journal_row() -> JournalRow {
    JournalRow { id: [1; 16], key: [2; 32], epoch: Epoch { number: 4, salt: [3; 16] }, is_closed: false }
}

fn journal(data: &[u8]) {
    if let Ok(image) = bounded_by(FLOOR, data.len(), || image::Image::of(data.to_vec())) {
        drop(bounded_by(FLOOR, data.len(), || image.judge(&journal_row())));
    }
}

/// A file's name is that of one record, or of none.
fn backup_names(data: &[u8]) {
    let Ok(file) = std::str::from_utf8(data) else { return };
    if let Some(name) = parse_name(&ChannelId([1; 32]), file) {
        let again = match name.kind {
            RecordKind::Update => format!("update-{:020}-{:020}.sealed", name.from, name.id),
            RecordKind::Full | RecordKind::Tip => format!("{}-{:020}.sealed", name.kind.word(), name.id),
        };
        assert_eq!(again, file);
    }
}

fn sealer() -> Sealer {
    Sealer::new(&[1; 32], "regtest", &node(1))
}

/// Bytes that open are those that sealing what they hold gives.
fn backup_sealed(data: &[u8]) {
    let name = RecordName::full(ChannelId([1; 32]), 7);
    match bounded_by(FLOOR, data.len(), || sealer().open(&name, data)) {
        Ok(content) => assert_eq!(sealer().seal(&name, &content), data),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// Any line of a program has an outcome, and words of bounded length where it is a fault.
fn backup_program(data: &[u8]) {
    if let Err(fault) = line_of_a_program(data) {
        assert!((1..8192).contains(&fault.to_string().len()));
    }
}

fn keys(data: &[u8]) {
    if let Some((channel, htlc)) = parse_htlc_key(data) {
        assert_eq!(htlc_key(&channel, htlc), data);
    }
    if let Some((channel, number)) = parse_numbered_key(data) {
        assert_eq!(numbered_key(&channel, number), data);
    }
    if let Some((height, onion)) = parse_replay_height_key(data) {
        assert_eq!(replay_height_key(height, &onion), data);
    }
    if let Some((payment_id, part)) = PartRow::parse_key(data) {
        assert_eq!(PartRow::key(&payment_id, part), data);
    }
    if let Some(name) = TotalsKey::parse(data) {
        assert_eq!(name.encode(), data);
    }
    if let Some(begun) = UnderWay::parse(data) {
        assert_eq!(begun.key(), data);
    }
}

fn broadcasts() -> Vec<BroadcastRow> {
    vec![BroadcastRow { channel: ChannelId([1; 32]), what: Publication::MutualClose, tx: super::row::spend() }]
}

fn downstream() -> Downstream {
    Downstream { channel: ChannelId([4; 32]), htlc_id: 5, amount: Msat::new(6) }
}

fn settlements() -> Vec<SettlementRow> {
    vec![
        SettlementRow::Fulfil(PaymentPreimage([1; 32])),
        SettlementRow::FulfilledDownstream(PaymentPreimage([1; 32]), downstream()),
        SettlementRow::Fail(FailReason::Encrypted(vec![1; 292])),
        SettlementRow::Fail(FailReason::Malformed { sha256_of_onion: [2; 32], failure_code: 0xc005 }),
        SettlementRow::FailedDownstream(Some(FailReason::Encrypted(vec![3; 292])), downstream()),
        SettlementRow::FailedDownstream(None, downstream()),
    ]
}

fn node(byte: u8) -> NodeId {
    NodeId::new(SecretKey::from_slice(&[byte; 32]).expect("a key").public_key(&Secp256k1::new()))
}

fn payments() -> Vec<PaymentRow> {
    let destination = node(1);
    let states = [
        PaymentState::Pending,
        PaymentState::Succeeded { preimage: PaymentPreimage([3; 32]), fee: Msat::new(5), at: 8 },
        PaymentState::Failed { kind: "no_route".into(), message: "there is none".into(), at: 9 },
    ];
    let again = |whom| Some(AgainRow { whom, max_fee: Msat::new(6), until: 70 });
    let invoice = again(PaidFor::Invoice("lnbcrt1".into()));
    let keysend = again(PaidFor::Keysend(PaymentPreimage([4; 32])));
    let row = |state| PaymentRow {
        payment_id: [1; 32],
        payment_hash: PaymentHash([2; 32]),
        destination,
        amount: Msat::new(1000),
        created_at: 7,
        next_part: 0,
        again: None,
        charge: Some(Charge { token: [5; 8], amount: Msat::new(1006) }),
        lost: Msat::ZERO,
        state,
    };
    let pending = [invoice, keysend].map(|again| PaymentRow { again, next_part: 9, ..row(PaymentState::Pending) });
    states.into_iter().map(row).chain(pending).collect()
}

fn invoice() -> InvoiceRow {
    InvoiceRow {
        payment_hash: PaymentHash([1; 32]),
        preimage: PaymentPreimage([2; 32]),
        payment_secret: PaymentSecret([3; 32]),
        amount: Some(Msat::new(1000)),
        created_at: 1,
        expires_at: 2,
        min_final_cltv_expiry: 40,
        invoice: Some("lnbcrt1".into()),
        description: "oars".into(),
        label: Some("a label".into()),
        paid: Some(Paid { amount: Msat::new(1000), at: 5 }),
    }
}

fn operations() -> Vec<OperationRow> {
    let states = [
        OperationState::Opening,
        OperationState::Pending { channel_id: ChannelId([4; 32]), funding_txid: Txid::from_byte_array([5; 32]) },
        OperationState::Failed { reason: "no".into() },
        OperationState::Interrupted,
        OperationState::Payment { payment_id: [6; 32] },
        OperationState::Invoice { payment_hash: PaymentHash([7; 32]) },
        OperationState::Sent { txid: Txid::from_byte_array([8; 32]) },
        OperationState::Address { address: "bcrt1q".into() },
    ];
    let row = |state| OperationRow { idempotency_key: "key".into(), op_id: [1; 16], body: [2; 32], state };
    states.into_iter().map(row).collect()
}
