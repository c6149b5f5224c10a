//! The rows of a record of the journal: what the database is to hold under each key. Values are absolute, so that rows which
//! are applied twice are as those that are applied once.

use super::super::record::BadRecord;
use super::super::schema::Table;

/// The length that stands for a row that is deleted.
const DELETED: u32 = u32::MAX;

/// One row as the database holds it, its check behind it; or none, where it is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    pub table: Table,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// The bytes of rows: for each run of one table the table's name and the number of rows, and then each row's key and value
/// behind their lengths.
pub fn encode(rows: &[SealedRow]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for rows in rows.chunk_by(|one, next| one.table == next.table) {
        let Some(table) = rows.first().map(|row| row.table.name().as_bytes()) else { continue };
        bytes.push(table.len() as u8);
        bytes.extend_from_slice(table);
        bytes.extend_from_slice(&(rows.len() as u32).to_be_bytes());
        for row in rows {
            let value = row.value.as_deref();
            let len = value.map_or(DELETED, |value| value.len() as u32);
            bytes.extend_from_slice(&(row.key.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&row.key);
            bytes.extend_from_slice(value.unwrap_or_default());
        }
    }
    bytes
}

/// Reads what [`encode`] wrote. A table that is not known is refused: its rows would be lost.
pub fn decode(bytes: &[u8]) -> Result<Vec<SealedRow>, BadRecord> {
    let (mut rest, mut rows) = (bytes, Vec::new());
    while let Some((len, after)) = rest.split_first() {
        rest = after;
        let name = take(&mut rest, usize::from(*len))?;
        let table = Table::named(name).ok_or(BadRecord::Malformed("table"))?;
        for _ in 0..number(&mut rest)? {
            let (key_len, value_len) = (number(&mut rest)?, number(&mut rest)?);
            let key = take(&mut rest, key_len as usize)?.to_vec();
            let value = match value_len {
                DELETED => None,
                len => Some(take(&mut rest, len as usize)?.to_vec()),
            };
            rows.push(SealedRow { table, key, value });
        }
    }
    Ok(rows)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], BadRecord> {
    let (taken, left) = rest.split_at_checked(len).ok_or(BadRecord::Truncated)?;
    *rest = left;
    Ok(taken)
}

fn number(rest: &mut &[u8]) -> Result<u32, BadRecord> {
    let (number, left) = rest.split_first_chunk().ok_or(BadRecord::Truncated)?;
    *rest = left;
    Ok(u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<SealedRow> {
        let row = |table, key: &[u8], value: Option<&[u8]>| SealedRow {
            table,
            key: key.to_vec(),
            value: value.map(<[u8]>::to_vec),
        };
        vec![
            row(Table::Htlc, b"a key", Some(b"a value")),
            row(Table::Htlc, b"", Some(b"")),
            row(Table::Htlc, b"gone", None),
            row(Table::Event, &[0; 8], Some(&[7; 300])),
        ]
    }

    #[test]
    fn rows_read_back_in_their_order() {
        assert_eq!(decode(&encode(&rows())), Ok(rows()));
        assert_eq!(decode(&encode(&[])), Ok(Vec::new()));
    }

    #[test]
    fn prs_2_no_bytes_make_rows_panic_or_memory_grow() {
        let whole = encode(&rows());
        for len in 1..whole.len() {
            let cut = decode(&whole[..len]);
            assert!(cut.is_err() || cut.is_ok_and(|rows| rows.len() < 4), "cut at {len}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0xff;
            drop(decode(&bent));
        }
        let mut many = whole[..5].to_vec();
        many.extend([0xff; 4]);
        assert_eq!(decode(&many), Err(BadRecord::Truncated));
        assert_eq!(decode(&[1, b'?', 0, 0, 0, 0]), Err(BadRecord::Malformed("table")));
    }
}
