//! All that stands in a journal, as a start reads it, and what a start makes of it.

use std::io;

use bitcoin::hashes::{Hash, sha256};
use redb::StorageBackend;

use super::JournalRow;
use super::record::{self, Header, Key, PAGE};
use super::rows::{self, SealedRow};

/// The version of the journal's layout. A journal with a newer one is refused untouched.
pub(super) const FORMAT_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"outrjrnl";

/// Magic, version, id, bytes of a half, and the beginning of SHA256 over those.
const HEAD_LEN: usize = 8 + 2 + 16 + 8 + 8;

/// Bytes of a half that a start reads at the most: a file says how long it is.
const LONGEST_HALF: u64 = 1 << 26;

/// Where the records of an epoch begin.
pub(super) fn start_of(epoch: u64, half_len: usize) -> usize {
    let half = if epoch.is_multiple_of(2) { 0 } else { half_len };
    half.saturating_add(PAGE)
}

/// The first page of a journal.
fn head(id: &[u8; 16], half_len: usize) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
    head.extend_from_slice(id);
    head.extend_from_slice(&(half_len as u64).to_be_bytes());
    let digest = sha256::Hash::hash(&head).to_byte_array();
    head.extend(digest.iter().take(8));
    head
}

/// The bytes of a journal that is made for this row: no rows, and zeroes to its end, so that an append changes no metadata of
/// its file.
pub fn fresh(row: &JournalRow, half_len: usize) -> Vec<u8> {
    let at = start_of(row.epoch.number, half_len);
    let parts = [(0, head(&row.id, half_len)), (at, record::seal(&Key::new(&row.key), (row.epoch, 0), at, &[]))];
    let mut bytes = vec![0; half_len.saturating_mul(2).saturating_add(PAGE)];
    for (at, part) in parts {
        bytes.iter_mut().skip(at).zip(part).for_each(|(to, from)| *to = from);
    }
    bytes
}

/// A journal that was read.
#[derive(Debug)]
pub struct Image {
    id: [u8; 16],
    pub(super) half_len: usize,
    bytes: Vec<u8>,
}

/// Why a journal is no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoImage {
    /// Of a newer version.
    Newer(u16),
    /// In words.
    Damaged(&'static str),
}

/// What a journal is to the database that names it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes with it.
    Kept {
        /// What the database may lack, in its order.
        rows: Vec<SealedRow>,
        /// Whether the epoch has a record behind the one that begins it, with rows or without.
        is_begun: bool,
        /// Whether the last record was begun and is not whole: it is torn, and its batch was never released, or it is damaged.
        is_torn: bool,
    },
    /// It has seen a later database.
    Ahead,
    /// It is of another database.
    Foreign,
    /// It has not seen this one: an older journal, or that of another copy.
    Apart,
    /// What was made durable cannot be read.
    Damaged(String),
}

impl Image {
    /// Takes a journal apart. Nothing is believed of its records.
    pub fn of(bytes: Vec<u8>) -> Result<Self, NoImage> {
        const CUT: NoImage = NoImage::Damaged("it ends before its end");
        const NO_HEAD: NoImage = NoImage::Damaged("its first page is not as it was written");
        let head = bytes.get(..HEAD_LEN).ok_or(CUT)?;
        let (magic, rest) = head.split_first_chunk::<8>().ok_or(NO_HEAD)?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(NO_HEAD)?;
        let (id, rest) = rest.split_first_chunk::<16>().ok_or(NO_HEAD)?;
        let (half_len, _) = rest.split_first_chunk::<8>().ok_or(NO_HEAD)?;
        if magic != MAGIC {
            return Err(NO_HEAD);
        }
        let version = u16::from_be_bytes(*version);
        if version > FORMAT_VERSION {
            return Err(NoImage::Newer(version));
        }
        let half_len = usize::try_from(u64::from_be_bytes(*half_len)).map_err(|_| NO_HEAD)?;
        if self::head(id, half_len) != head {
            return Err(NO_HEAD);
        }
        let len = half_len.checked_mul(2).and_then(|len| len.checked_add(PAGE)).ok_or(NO_HEAD)?;
        if bytes.len() != len || !half_len.is_multiple_of(PAGE) || half_len == 0 {
            return Err(CUT);
        }
        Ok(Self { id: *id, half_len, bytes })
    }

    /// Reads a journal whole. A file that is longer than any journal is not read.
    pub(super) fn read(file: &dyn StorageBackend) -> io::Result<Result<Self, NoImage>> {
        let len = file.len()?;
        if len > 2 * LONGEST_HALF + PAGE as u64 {
            return Ok(Err(NoImage::Damaged("it is longer than any journal")));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        file.read(0, &mut bytes)?;
        Ok(Self::of(bytes))
    }

    /// Whether any record was written but the one that a journal is made with. Asked where no key is known.
    pub(super) fn was_used(&self) -> bool {
        let first = start_of(1, self.half_len);
        let mut pages = (PAGE..self.bytes.len()).step_by(PAGE).filter(|at| *at != first);
        pages.any(|at| record::stands_at(&self.bytes, at))
    }

    /// What it is to the database that has this row.
    pub fn judge(&self, row: &JournalRow) -> Verdict {
        if self.id != row.id {
            return Verdict::Foreign;
        }
        let key = Key::new(&row.key);
        let number = row.epoch.number;
        // The newest record of the epoch whose header stands, whole or not.
        let mut newest = None;
        for at in (PAGE..self.bytes.len()).step_by(PAGE) {
            let Some(header) = Header::at(&key, &self.bytes, at) else { continue };
            let next = number.saturating_add(1);
            // The next epoch is begun before the database knows of it.
            if header.epoch.number > next || (header.epoch.number == next && header.index > 0) {
                return Verdict::Ahead;
            }
            if header.epoch == row.epoch {
                newest = newest.max(Some(header.index));
            }
        }
        self.walk(&key, row, newest)
    }

    /// The rows of the epoch, record by record. What ends them is where nothing was written yet, or a record that is torn:
    /// the last, whose batch was never released. One that stands behind it says that it was, and is damaged.
    fn walk(&self, key: &Key, row: &JournalRow, newest: Option<u64>) -> Verdict {
        let (mut at, mut index, mut found) = (start_of(row.epoch.number, self.half_len), 0, Vec::new());
        let end = at.saturating_add(self.half_len);
        while at < end {
            let Some(header) = Header::at(key, &self.bytes, at) else { break };
            if header.epoch != row.epoch || header.index != index {
                break;
            }
            let Some(body) = header.body(key, &self.bytes, at) else { break };
            match rows::decode(body) {
                Ok(rows) => found.extend(rows),
                Err(fault) => return Verdict::Damaged(format!("record {index}: {fault}")),
            }
            (at, index) = (at.saturating_add(header.span()), index.saturating_add(1));
        }
        if newest.is_some_and(|newest| newest > index) {
            return Verdict::Damaged(format!(
                "record {index} is not as it was written, and later ones stand behind it"
            ));
        }
        let is_cut = |at| record::stands_at(&self.bytes, at) && Header::at(key, &self.bytes, at).is_none();
        let is_torn = !row.is_closed && (newest == Some(index) || (at < end && is_cut(at)));
        match (index, row.is_closed) {
            // The record that begins an epoch is durable before the database has its row.
            (0, false) => Verdict::Apart,
            (0, true) | (1.., _) => Verdict::Kept { rows: found, is_begun: index > 1, is_torn },
        }
    }
}
