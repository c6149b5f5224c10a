//! One record of the journal: a header, whose check covers where it stands, and a body, whose check covers both. The checks
//! are keyed with what no peer knows, so nobody who chooses bytes of ours can make something that passes for a record.

use std::fmt;

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};

/// Records begin at multiples of so many bytes, so that no page is written twice in one epoch.
pub(super) const PAGE: usize = 4096;

const MAGIC: &[u8; 8] = b"outr-rec";

/// Bytes of a check: the beginning of an HMAC-SHA256.
const CHECK_LEN: usize = 16;

/// Magic, epoch (number, salt), index, length of the body, check of the header, check of the body.
const HEADER_LEN: usize = 8 + 8 + 16 + 8 + 4 + 2 * CHECK_LEN;

/// What the checks are made with.
#[derive(Clone)]
pub(super) struct Key(HmacEngine<sha256::Hash>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(HmacEngine::new(key))
    }

    fn check(&self, parts: &[&[u8]]) -> [u8; CHECK_LEN] {
        let mut engine = self.0.clone();
        parts.iter().for_each(|part| engine.input(part));
        let digest = Hmac::from_engine(engine).to_byte_array();
        let mut check = [0; CHECK_LEN];
        check.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        check
    }
}

/// A run of the journal, from one checkpoint to the next. The salt tells runs of one number apart, which two copies of a
/// directory may have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    pub number: u64,
    pub salt: [u8; 16],
}

/// What the header of a record says, which has passed its check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) epoch: Epoch,
    /// Counts the records of an epoch; 0 is the one that begins it.
    pub(super) index: u64,
    /// Bytes of the body.
    len: u32,
}

impl Header {
    /// The header of the record that stands at `at`, a multiple of [`PAGE`]; nothing where none passes its check there.
    pub(super) fn at(key: &Key, image: &[u8], at: usize) -> Option<Self> {
        Self::of(key, image.get(at..)?, at)
    }

    /// The same of the bytes that stand at `at` and behind it.
    pub(super) fn of(key: &Key, bytes: &[u8], at: usize) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        if magic != MAGIC {
            return None;
        }
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (salt, rest) = rest.split_first_chunk::<16>()?;
        let (index, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (check, _) = rest.split_first_chunk::<CHECK_LEN>()?;
        let epoch = Epoch { number: u64::from_be_bytes(*number), salt: *salt };
        let header = Self { epoch, index: u64::from_be_bytes(*index), len: u32::from_be_bytes(*len) };
        (key.check(&[&header.fields(at)]) == *check).then_some(header)
    }

    /// The body of the record that has this header, where it passes its check.
    pub(super) fn body<'a>(&self, key: &Key, image: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let rest = image.get(at.checked_add(HEADER_LEN - CHECK_LEN)?..)?;
        let (check, rest) = rest.split_first_chunk::<CHECK_LEN>()?;
        let body = rest.get(..self.len as usize)?;
        (key.check(&[&self.fields(at), body]) == *check).then_some(body)
    }

    /// Bytes from this record to the next.
    pub(super) fn span(&self) -> usize {
        span(self.len as usize)
    }

    /// What a check covers of a header: its place, and all that stands before the checks.
    fn fields(&self, at: usize) -> Vec<u8> {
        let mut fields = (at as u64).to_be_bytes().to_vec();
        fields.extend_from_slice(MAGIC);
        fields.extend_from_slice(&self.epoch.number.to_be_bytes());
        fields.extend_from_slice(&self.epoch.salt);
        fields.extend_from_slice(&self.index.to_be_bytes());
        fields.extend_from_slice(&self.len.to_be_bytes());
        fields
    }
}

/// Whether a record seems to begin at `at`; nothing is believed of it.
pub(super) fn stands_at(image: &[u8], at: usize) -> bool {
    image.get(at..).is_some_and(|rest| rest.starts_with(MAGIC))
}

/// Bytes of a record with a body of so many.
pub(super) fn span(body_len: usize) -> usize {
    body_len.saturating_add(HEADER_LEN).div_ceil(PAGE).saturating_mul(PAGE)
}

/// The bytes of a record that stands at `at`, up to the end of its last page.
pub(super) fn seal(key: &Key, (epoch, index): (Epoch, u64), at: usize, body: &[u8]) -> Vec<u8> {
    let header = Header { epoch, index, len: u32::try_from(body.len()).unwrap_or(u32::MAX) };
    let fields = header.fields(at);
    let mut bytes = Vec::with_capacity(span(body.len()));
    bytes.extend_from_slice(fields.get(8..).unwrap_or_default());
    bytes.extend_from_slice(&key.check(&[&fields]));
    bytes.extend_from_slice(&key.check(&[&fields, body]));
    bytes.extend_from_slice(body);
    bytes.resize(span(body.len()), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch { number: 7, salt: [3; 16] };

    #[test]
    fn a_record_is_read_where_it_was_written_and_nowhere_else() {
        let key = Key::new(&[1; 32]);
        let body = [5; 5000];
        let mut image = vec![0; PAGE];
        image.extend(seal(&key, (EPOCH, 2), PAGE, &body));
        assert_eq!(image.len(), 3 * PAGE);
        let header = Header::at(&key, &image, PAGE).unwrap();
        assert_eq!((header.epoch, header.index, header.span()), (EPOCH, 2, 2 * PAGE));
        assert_eq!(header.body(&key, &image, PAGE), Some(&body[..]));
        assert_eq!(Header::at(&key, &image[PAGE..], 0), None, "another place");
        assert_eq!(Header::at(&Key::new(&[2; 32]), &image, PAGE), None, "another key");
        for at in [0, 2 * PAGE, 3 * PAGE, usize::MAX] {
            assert_eq!(Header::at(&key, &image, at), None);
        }
    }

    #[test]
    fn bad_input_91_any_bit_of_a_record_is_noticed() {
        let key = Key::new(&[1; 32]);
        let whole = seal(&key, (EPOCH, 0), 0, b"a body");
        let read = |bytes: &[u8]| Header::at(&key, bytes, 0)?.body(&key, bytes, 0).map(<[u8]>::to_vec);
        assert_eq!(read(&whole), Some(b"a body".to_vec()));
        for bit in 0..(HEADER_LEN + 6) * 8 {
            let mut bent = whole.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bent), None, "bit {bit}");
        }
        for len in 0..HEADER_LEN + 6 {
            assert_eq!(read(&whole[..len]), None, "cut at {len}");
        }
    }
}
