//! The row of a token, and what was spent with it.

use outrigger_bolt::amount::Msat;

use super::record::{BadRecord, RecordReader, RecordWriter};

/// Bytes of the name by which rows know a token.
pub const TOKEN_ID_LEN: usize = 8;

/// The name by which rows know a token, drawn at random.
pub type TokenId = [u8; TOKEN_ID_LEN];

/// A token. Its secret is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: TokenId,
    /// What the operator calls it; no two tokens have one name.
    pub name: String,
    /// Drawn at random for this token.
    pub salt: [u8; 16],
    /// SHA256 over salt and secret.
    pub hash: [u8; 32],
    /// A bit for each scope, as the interface numbers them.
    pub scopes: u8,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix seconds from which on it admits nobody.
    pub expires_at: Option<u64>,
    /// The most that payments made with it may cost together.
    pub budget: Option<Msat>,
}

impl TokenRow {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        RecordWriter::new(1)
            .put(0, self.id)
            .put(2, &self.name)
            .put(4, self.salt)
            .put(6, self.hash)
            .put(8, [self.scopes])
            .put(10, self.created_at.to_be_bytes())
            .put_some(12, self.expires_at.map(u64::to_be_bytes))
            .put_some(14, self.budget.map(|budget| budget.get().to_be_bytes()))
            .finish()
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            id: record.array(0, "id")?,
            name: record.text(2, "name")?,
            salt: record.array(4, "salt")?,
            hash: record.array(6, "hash")?,
            scopes: record.u8(8, "scopes")?,
            created_at: record.u64(10, "time")?,
            expires_at: record.u64_some(12, "expiry")?,
            budget: record.u64_some(14, "budget")?.map(Msat::new),
        };
        record.finish()?;
        Ok(row)
    }
}

/// What a payment counts for in the sum of the token that it was made with: while it is pending, the most that it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub token: TokenId,
    pub amount: Msat,
}

impl Charge {
    /// Bytes of a charge in a row: token, amount.
    pub const LEN: usize = TOKEN_ID_LEN + 8;

    /// As it stands in a row.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let both = self.token.into_iter().chain(self.amount.get().to_be_bytes());
        bytes.iter_mut().zip(both).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads it out of a row.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let mut token = [0; TOKEN_ID_LEN];
        token.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        let amount = bytes.iter().skip(TOKEN_ID_LEN).fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        Self { token, amount: Msat::new(amount) }
    }
}

/// What is added to what was spent with a token: the writer adds it up, since several payments have a part in one sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub more: Msat,
    pub less: Msat,
}

impl Spent {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.more = self.more.saturating_add(other.more);
        self.less = self.less.saturating_add(other.less);
    }

    /// The sum after it.
    pub fn applied(&self, sum: Msat) -> Msat {
        sum.saturating_add(self.more).saturating_sub(self.less)
    }
}
