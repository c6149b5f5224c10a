//! Gives every channel of a stopped node the history of many HTLCs that are long over, as rows that payments would have
//! left: for the benchmark, whose channels are young. `grow-history DIRECTORY NETWORK NODE_ID HTLCS`, where the directory is the
//! one with the database. The commitments stay as few as they are, so the channels go on.

use std::path::Path;

use bitcoin::hashes::{Hash, sha256};
use outrigger_bolt::amount::Msat;
use outrigger_bolt::id::{ChannelId, NodeId, PaymentHash};
use outrigger_channel::{Evidence, HtlcKey, Offerer, Row};
use outrigger_sidecar::store::schema::{Table, htlc_key};
use outrigger_sidecar::store::seal::seal;
use outrigger_sidecar::store::{StoreError, open};
use redb::{Database, ReadableDatabase, ReadableTable};

/// Where the ids of the HTLCs begin: no channel gets there by itself.
const FIRST_ID: u64 = 1 << 40;

/// Channels that are written by one transaction.
const TOGETHER: usize = 20;

type Fault = Box<dyn std::error::Error>;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, network, node_id, htlcs] = arguments.as_slice() else {
        return Err("usage: grow-history DIRECTORY NETWORK NODE_ID HTLCS".into());
    };
    let node_id = NodeId::from_slice(&hex::decode(node_id)?)?;
    let db = open(Path::new(directory), network, &node_id)?;
    let (channels, htlcs) = (channels(&db)?, htlcs.parse()?);
    for some in channels.chunks(TOGETHER) {
        write(&db, some, htlcs)?;
    }
    println!("{} channels have {htlcs} HTLCs more behind them", channels.len());
    Ok(())
}

fn channels(db: &Database) -> Result<Vec<ChannelId>, StoreError> {
    let mut found = Vec::new();
    for entry in db.begin_read()?.open_table(Table::ChannelParams.definition())?.iter()? {
        found.extend(entry?.0.value().first_chunk().map(|channel| ChannelId(*channel)));
    }
    Ok(found)
}

/// What scripts of revoked commitments need of each HTLC is all that is kept of it for ever.
fn write(db: &Database, channels: &[ChannelId], htlcs: u64) -> Result<(), StoreError> {
    let transaction = db.begin_write()?;
    {
        let mut table = transaction.open_table(Table::Evidence.definition())?;
        for channel in channels {
            for number in 0..htlcs {
                let offerer = if number % 2 == 0 { Offerer::Local } else { Offerer::Remote };
                let key = htlc_key(channel, HtlcKey { offerer, id: FIRST_ID + number });
                let hash = sha256::Hash::hash(&key).to_byte_array();
                let evidence =
                    Evidence { payment_hash: PaymentHash(hash), cltv_expiry: 700, amount: Msat::new(360_000 + number) };
                table.insert(key.as_slice(), seal(Table::Evidence, &key, &evidence.encode()).as_slice())?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
