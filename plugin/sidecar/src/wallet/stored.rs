//! The wallet's rows: a version byte, then JSON.

use std::collections::BTreeSet;

use bdk_wallet::ChangeSet;
use bdk_wallet::chain::Merge;
use serde::{Deserialize, Serialize};

use super::WalletFault;

/// The version that is written.
const VERSION: u8 = 1;
/// Blocks below the tip whose hashes are kept; deeper than any reorganisation that is followed.
const REMEMBERED: u32 = 1000;

/// What the wallet knows of itself beside `bdk_wallet`'s rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// The block from which on all were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) looked_from: Option<u32>,
    /// Whether it looks far ahead for addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_wide: bool,
}

/// One change set, or many merged.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Whether a block was ever connected. Written once.
    #[serde(default)]
    pub(super) started: bool,
    /// The newest of each stands.
    #[serde(flatten)]
    pub(super) marks: Marks,
    /// `bdk_wallet`'s own change set.
    pub(super) bdk: ChangeSet,
}

impl Stored {
    /// The change sets in their order as one.
    pub(super) fn merge(rows: &[Vec<u8>]) -> Result<Self, WalletFault> {
        let mut merged = Self::default();
        for row in rows {
            let next = Self::decode(row)?;
            merged.started |= next.started;
            merged.marks.looked_from = next.marks.looked_from.or(merged.marks.looked_from);
            merged.marks.is_wide |= next.marks.is_wide;
            merged.bdk.merge(next.bdk);
        }
        Ok(merged)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        #[expect(clippy::expect_used, reason = "every map in it has keys that are strings or numbers")]
        serde_json::to_writer(&mut bytes, self).expect("a change set is JSON");
        bytes
    }

    fn decode(row: &[u8]) -> Result<Self, WalletFault> {
        match row.split_first() {
            Some((&VERSION, json)) => {
                serde_json::from_slice(json).map_err(|error| WalletFault::Damaged(error.to_string()))
            }
            Some((&version, _)) if version > VERSION => Err(WalletFault::Newer(version)),
            Some(_) | None => Err(WalletFault::Damaged("a row without a version".to_owned())),
        }
    }

    /// Forgets the hashes of old blocks that hold nothing of ours, so that a wallet does not grow with the chain.
    pub(super) fn prune(&mut self) {
        let blocks = &mut self.bdk.local_chain.blocks;
        blocks.retain(|_, hash| hash.is_some());
        let tip = blocks.last_key_value().map_or(0, |(height, _)| *height);
        let oldest = tip.saturating_sub(REMEMBERED);
        let anchors: BTreeSet<u32> =
            self.bdk.tx_graph.anchors.iter().map(|(anchor, _)| anchor.block_id.height).collect();
        blocks.retain(|height, _| *height == 0 || *height >= oldest || anchors.contains(height));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names stand for odd fields; what has to be understood raises the version.
    #[test]
    fn per_7_a_name_that_is_not_known_is_skipped_and_another_version_is_refused() {
        let stored =
            Stored { marks: Marks { looked_from: Some(7), is_wide: true }, started: true, ..Stored::default() };
        let row = stored.encode();
        let mut more = row.clone();
        more.pop();
        more.extend_from_slice(br#","of_a_release_to_come":[1,{"more":null}]}"#);
        for row in [&row, &more] {
            let read = Stored::merge(std::slice::from_ref(row)).unwrap();
            assert_eq!((read.started, read.marks, read.encode()), (true, stored.marks, stored.encode()));
        }
        let with_version = |version: u8| Stored::merge(&[[&[version], row.get(1..).unwrap()].concat()]);
        assert!(matches!(with_version(2), Err(WalletFault::Newer(2))));
        assert!(matches!(with_version(0), Err(WalletFault::Damaged(_))));
        assert!(matches!(Stored::merge(&[Vec::new()]), Err(WalletFault::Damaged(_))));
    }
}
