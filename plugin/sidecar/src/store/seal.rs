//! A check behind every row, so that a bit that flipped on disk is noticed when the row is read: redb checks its pages only
//! when it repairs (bad input 91).

use bitcoin::hashes::{Hash, HashEngine, sha256};

use super::schema::Table;

/// Bytes of a check: the beginning of a SHA256 over table, key and row.
const CHECK_LEN: usize = 8;

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of table {0:?} is not as it was written: the disk or its memory is damaged")]
pub struct Damaged(pub Table);

/// The row with its check behind it.
pub fn seal(table: Table, key: &[u8], row: &[u8]) -> Vec<u8> {
    let mut sealed = row.to_vec();
    sealed.extend_from_slice(&check(table, key, row));
    sealed
}

/// The row whose check stands behind it.
pub fn unseal<'a>(table: Table, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let (row, found) = sealed.split_last_chunk::<CHECK_LEN>().ok_or(Damaged(table))?;
    if *found == check(table, key, row) { Ok(row) } else { Err(Damaged(table)) }
}

fn check(table: Table, key: &[u8], row: &[u8]) -> [u8; CHECK_LEN] {
    let mut engine = sha256::Hash::engine();
    engine.input(table.name().as_bytes());
    engine.input(&(key.len() as u64).to_be_bytes());
    engine.input(key);
    engine.input(row);
    let digest = sha256::Hash::from_engine(engine).to_byte_array();
    let mut check = [0; CHECK_LEN];
    check.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_91_any_bit_of_a_row_its_key_or_its_table_is_noticed() {
        let sealed = seal(Table::Invoice, b"key", b"a row");
        assert_eq!(unseal(Table::Invoice, b"key", &sealed), Ok(&b"a row"[..]));
        for bit in 0..sealed.len() * 8 {
            let mut bent = sealed.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(Table::Invoice, b"key", &bent), Err(Damaged(Table::Invoice)), "bit {bit}");
        }
        assert!(unseal(Table::Payment, b"key", &sealed).is_err() && unseal(Table::Invoice, b"kez", &sealed).is_err());
        assert!(unseal(Table::Invoice, b"", &[]).is_err());
    }
}
