//! What the operator was told is wrong, and was not told is right again: what a start goes on from.

use std::collections::BTreeSet;

use outrigger_bolt::id::NodeId;

/// What may be wrong, and become right by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The view of the chain.
    Chain,
    /// The room on the disk of the data directory.
    Disk,
    /// The sink of this name.
    Backup(String),
    /// The connection to a peer that has channels.
    Peer(NodeId),
}

/// Those that an event has called wrong, and none since has called right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles(pub BTreeSet<Subject>);

impl Troubles {
    /// The row in `meta`, if there is anything to remember: a line for each.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let line = |subject: &Subject| match subject {
            Subject::Chain => "chain".to_owned(),
            Subject::Disk => "disk".to_owned(),
            Subject::Backup(name) => format!("backup {name}"),
            Subject::Peer(node_id) => format!("peer {node_id}"),
        };
        let lines: Vec<_> = self.0.iter().map(line).collect();
        (!lines.is_empty()).then(|| lines.join("\n").into_bytes())
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<Self, &'static str> {
        let subject = |line: &str| match line.split_once(' ') {
            None if line == "chain" => Some(Subject::Chain),
            None if line == "disk" => Some(Subject::Disk),
            Some(("backup", name)) => Some(Subject::Backup(name.to_owned())),
            // As it is written, and in no other case of its letters.
            Some(("peer", hex)) => hex.parse().ok().filter(|peer: &NodeId| peer.to_string() == hex).map(Subject::Peer),
            None | Some(_) => None,
        };
        let text = std::str::from_utf8(row).map_err(|_| "troubles that are no text")?;
        let lines: Option<_> = text.split('\n').filter(|_| !text.is_empty()).map(subject).collect();
        lines.map(Self).ok_or("a trouble with something that is not known")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_remembered_and_a_malformed_row_is_told() {
        let hex = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let peer = Subject::Peer(hex.parse().unwrap());
        let troubles = Troubles([Subject::Chain, Subject::Disk, Subject::Backup("two words".to_owned()), peer].into());
        let row = troubles.encode().unwrap();
        assert_eq!(row, format!("chain\ndisk\nbackup two words\npeer {hex}").into_bytes());
        assert_eq!(Troubles::decode(&row), Ok(troubles));
        assert_eq!(Troubles::default().encode(), None);
        assert_eq!(Troubles::decode(b""), Ok(Troubles::default()));
        let upper = format!("peer {}", hex.to_uppercase());
        for malformed in
            [&b"\xff"[..], b"chains", b"chain 1", b"disk 1", b"backup", b"peer 02", b"chain\n", upper.as_bytes()]
        {
            assert!(Troubles::decode(malformed).is_err(), "{malformed:?}");
        }
    }
}
