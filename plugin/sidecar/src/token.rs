//! Tokens: one owner, entered under no peer lock. What they admit is decided from memory; what they have spent is counted
//! here first, and in the file by the transaction of the payment.

use std::collections::{BTreeMap, HashMap};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use outrigger_bolt::amount::Msat;
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::clock::{Clock, NoEntropy};
use crate::lock::Mutex;
use crate::store::row::EventRow;
use crate::store::schema::Table;
use crate::store::token::{Charge, Spent, TokenRow};

pub use crate::store::token::TokenId;
use crate::store::{Batch, Held};

/// How the text of a token begins: whoever finds one knows what it is.
const PREFIX: &str = "outr_";

/// Tokens that may be kept at once: each is in memory.
pub const MAX_TOKENS: usize = 1000;

/// The owner of tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<TokenId, Token>,
    /// Every name, so that pages are in their order.
    by_name: BTreeMap<String, TokenId>,
}

/// A token and what was spent with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub row: TokenRow,
    /// What its payments have cost, and pending ones may cost at most.
    pub spent: Msat,
}

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrder {
    pub name: String,
    /// A bit for each scope.
    pub scopes: u8,
    /// For how many seconds it is good; none for ever.
    pub expiry_secs: Option<u64>,
    pub budget: Option<Msat>,
}

/// What a caller that showed a token may do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub name: String,
    /// A bit for each scope.
    pub scopes: u8,
}

/// Why no token was made, or none revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error("there is a token of this name")]
    NameTaken,
    #[error("there are {MAX_TOKENS} tokens, and that is enough")]
    TooMany,
    #[error("there is no token of this name")]
    NotFound,
    #[error("{0}")]
    NoEntropy(#[from] NoEntropy),
}

/// Why a payment was not taken on with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCharged {
    #[error("the token was revoked, or has expired")]
    Gone,
    #[error("the payment may cost {asked} with its fees, and the token {name} may spend {left} more")]
    OverBudget { name: String, asked: Msat, left: Msat },
}

impl Tokens {
    /// Those that a start found, each with what was spent.
    pub fn found(tokens: impl IntoIterator<Item = (TokenRow, Msat)>) -> Self {
        let found = Self::default();
        {
            let mut known = found.known.lock();
            for (row, spent) in tokens {
                known.add(Token { row, spent });
            }
        }
        found
    }

    /// The token whose secret this text is. The time that it takes tells nothing of a secret.
    pub fn admit(&self, shown: &str) -> Option<TokenId> {
        let (id, secret) = parse(shown)?;
        let known = self.known.lock();
        let row = known.by_id.get(&id).map(|token| &token.row);
        // Where there is none as much is done.
        let (salt, hash) = row.map_or(([0; 16], [0; 32]), |row| (row.salt, row.hash));
        let is_it: bool = digest(&salt, secret.as_slice()).ct_eq(&hash).into();
        row.filter(|row| is_it && is_good(row)).map(|row| row.id)
    }

    /// What this token allows now; none where it was revoked or has expired.
    pub fn rights(&self, id: &TokenId) -> Option<Rights> {
        let known = self.known.lock();
        let row = known.by_id.get(id).map(|token| &token.row).filter(|row| is_good(row))?;
        Some(Rights { name: row.name.clone(), scopes: row.scopes })
    }

    /// Whether it is there: neither revoked nor never made. One that has expired is there until it is revoked.
    pub fn is_kept(&self, id: &TokenId) -> bool {
        self.known.lock().by_id.contains_key(id)
    }

    /// The first `count` tokens whose names come after `after`, by name.
    pub fn list(&self, after: Option<&str>, count: usize) -> Vec<Token> {
        let known = self.known.lock();
        let is_after = |name: &&String| after.is_none_or(|after| name.as_str() > after);
        let names = known.by_name.iter().filter(|(name, _)| is_after(name)).take(count);
        names.filter_map(|(_, id)| known.by_id.get(id).cloned()).collect()
    }

    /// Makes a token and gives its text, once what is returned beside it has resolved.
    pub fn create(
        &self,
        order: TokenOrder,
        submit: impl FnOnce(Batch),
    ) -> Result<(Zeroizing<String>, TokenRow, oneshot::Receiver<()>), TokenFault> {
        let secret = Zeroizing::new(Clock::random_bytes::<32>()?);
        let (id, salt) = (Clock::random_bytes()?, Clock::random_bytes()?);
        let now = Clock::now_unix();
        let row = TokenRow {
            id,
            name: order.name,
            salt,
            hash: digest(&salt, secret.as_slice()),
            scopes: order.scopes,
            created_at: now,
            expires_at: order.expiry_secs.map(|secs| now.saturating_add(secs)),
            budget: order.budget,
        };
        let mut known = self.known.lock();
        if known.by_name.contains_key(&row.name) || known.by_id.contains_key(&row.id) {
            return Err(TokenFault::NameTaken);
        }
        if known.by_id.len() >= MAX_TOKENS {
            return Err(TokenFault::TooMany);
        }
        let (mut batch, durable) = awaited();
        batch.put(Table::Token, row.id.to_vec(), Some(row.encode()));
        batch.put(Table::TokenSpent, row.id.to_vec(), Some(Msat::ZERO.get().to_be_bytes().to_vec()));
        batch.event(EventRow::new(now, "token_created", json!({ "message": row.name.clone() })));
        known.add(Token { row: row.clone(), spent: Msat::ZERO });
        // Under the owner's lock: the rows of a name are queued in the order in which they were decided.
        submit(batch);
        Ok((text(&row.id, &secret), row, durable))
    }

    /// Takes a token back. From here on it admits nobody; what is returned resolves once that is durable.
    pub fn revoke(&self, name: &str, submit: impl FnOnce(Batch)) -> Result<oneshot::Receiver<()>, TokenFault> {
        let mut known = self.known.lock();
        let id = known.by_name.remove(name).ok_or(TokenFault::NotFound)?;
        known.by_id.remove(&id);
        let (mut batch, durable) = awaited();
        batch.put(Table::Token, id.to_vec(), None);
        batch.put(Table::TokenSpent, id.to_vec(), None);
        batch.event(EventRow::new(Clock::now_unix(), "token_revoked", json!({ "message": name })));
        submit(batch);
        Ok(durable)
    }

    /// Counts the most that a payment may cost, in the transaction that begins it (PAY-10).
    pub fn charge(&self, batch: &mut Batch, id: &TokenId, most: Msat) -> Result<Charge, NotCharged> {
        let mut known = self.known.lock();
        let token = known.by_id.get_mut(id).filter(|token| is_good(&token.row)).ok_or(NotCharged::Gone)?;
        // Without a budget the sum must still fit, so that what comes back of it is told right.
        let left = token.row.budget.unwrap_or(Msat::new(u64::MAX)).saturating_sub(token.spent);
        if most > left {
            return Err(NotCharged::OverBudget { name: token.row.name.clone(), asked: most, left });
        }
        token.spent = token.spent.saturating_add(most);
        batch.spend(*id, Spent { more: most, less: Msat::ZERO });
        Ok(Charge { token: *id, amount: most })
    }

    /// Counts what a payment costs now, in the transaction that writes its row. A token that is no more has no sum.
    pub fn settle(&self, batch: &mut Batch, charge: &mut Charge, now: Msat) {
        if charge.amount == now {
            return;
        }
        let change = Spent { more: now.saturating_sub(charge.amount), less: charge.amount.saturating_sub(now) };
        charge.amount = now;
        if let Some(token) = self.known.lock().by_id.get_mut(&charge.token) {
            token.spent = change.applied(token.spent);
            batch.spend(charge.token, change);
        }
    }
}

impl Known {
    fn add(&mut self, token: Token) {
        self.by_name.insert(token.row.name.clone(), token.row.id);
        self.by_id.insert(token.row.id, token);
    }
}

fn is_good(row: &TokenRow) -> bool {
    row.expires_at.is_none_or(|at| Clock::now_unix() < at)
}

fn awaited() -> (Batch, oneshot::Receiver<()>) {
    let (waiter, durable) = oneshot::channel();
    let mut batch = Batch::default();
    batch.hold(Held::Durable(waiter));
    (batch, durable)
}

/// A secret has 256 random bits: no hash need be slow, and no two tokens have one salt.
fn digest(salt: &[u8; 16], secret: &[u8]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(salt);
    engine.input(secret);
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn text(id: &TokenId, secret: &Zeroizing<[u8; 32]>) -> Zeroizing<String> {
    let (id, secret) = (hex::encode(id), Zeroizing::new(hex::encode(secret.as_slice())));
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len().saturating_add(id.len() + 1 + secret.len())));
    [PREFIX, &id, "_", &secret].iter().for_each(|part| text.push_str(part));
    text
}

fn parse(shown: &str) -> Option<(TokenId, Zeroizing<[u8; 32]>)> {
    let (id, secret) = shown.strip_prefix(PREFIX)?.split_once('_')?;
    let (mut name, mut bytes) = (TokenId::default(), Zeroizing::new([0; 32]));
    hex::decode_to_slice(id, &mut name).ok()?;
    hex::decode_to_slice(secret, bytes.as_mut_slice()).ok()?;
    // One text each: hex in capitals is another.
    let is_lowercase = !shown.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lowercase.then_some((name, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(name: &str) -> TokenOrder {
        TokenOrder { name: name.to_owned(), scopes: 1, expiry_secs: None, budget: Some(Msat::new(10)) }
    }

    #[test]
    fn rpc_5_no_row_and_no_text_of_a_token_tells_its_secret() {
        let tokens = Tokens::default();
        let (text, row, _) = tokens.create(order("a"), drop).unwrap();
        let secret = text.rsplit('_').next().unwrap();
        let told = [format!("{tokens:?} {row:?}"), hex::encode(row.encode())].concat();
        assert!(!told.contains(secret) && secret.len() == 64);
        let bytes = hex::decode(secret).unwrap();
        assert_ne!(row.hash, digest(&[0; 16], &bytes), "the hash is salted");
        let again = tokens.create(order("b"), drop).unwrap().1;
        assert!(again.salt != row.salt && again.id != row.id);
    }

    #[test]
    fn a_token_is_good_until_it_expires() {
        let tokens = Tokens::default();
        let (text, row, _) = tokens.create(TokenOrder { expiry_secs: Some(1000), ..order("a") }, drop).unwrap();
        assert_eq!(tokens.admit(&text), Some(row.id));
        let old = TokenRow { expires_at: Some(Clock::now_unix()), ..row };
        let tokens = Tokens::found([(old.clone(), Msat::ZERO)]);
        assert_eq!((tokens.admit(&text), tokens.rights(&old.id)), (None, None));
        let refused = tokens.charge(&mut Batch::default(), &old.id, Msat::ZERO);
        assert_eq!(refused, Err(NotCharged::Gone));
        assert_eq!(tokens.list(None, 9).len(), 1, "it is shown until it is taken back");
    }

    #[test]
    fn pay_10_a_budget_is_spent_to_the_millisatoshi_and_comes_back() {
        let (tokens, mut batch) = (Tokens::default(), Batch::default());
        let row = tokens.create(order("a"), drop).unwrap().1;
        let mut six = tokens.charge(&mut batch, &row.id, Msat::new(6)).unwrap();
        let refused = tokens.charge(&mut batch, &row.id, Msat::new(5)).unwrap_err();
        let (asked, left) = (Msat::new(5), Msat::new(4));
        assert_eq!(refused, NotCharged::OverBudget { name: "a".to_owned(), asked, left });
        tokens.charge(&mut batch, &row.id, Msat::new(4)).unwrap();
        tokens.settle(&mut batch, &mut six, Msat::new(2));
        tokens.settle(&mut batch, &mut six, Msat::new(2));
        assert_eq!((six.amount, tokens.list(None, 1)[0].spent), (Msat::new(2), Msat::new(6)));
    }

    #[test]
    fn pay_10_what_a_token_without_a_budget_has_spent_is_told_right_whatever_it_may_cost() {
        let (tokens, mut batch) = (Tokens::default(), Batch::default());
        let row = tokens.create(TokenOrder { budget: None, ..order("a") }, drop).unwrap().1;
        tokens.charge(&mut batch, &row.id, Msat::new(50)).unwrap();
        let most = Msat::new(u64::MAX);
        assert!(matches!(tokens.charge(&mut batch, &row.id, most), Err(NotCharged::OverBudget { .. })));
        assert_eq!(tokens.list(None, 1)[0].spent, Msat::new(50));
    }

    #[test]
    fn law_6_there_are_no_more_tokens_than_are_kept_in_memory() {
        let tokens = Tokens::default();
        for number in 0..MAX_TOKENS {
            tokens.create(order(&number.to_string()), drop).unwrap();
        }
        assert_eq!(tokens.create(order("more"), drop).unwrap_err(), TokenFault::TooMany);
        drop(tokens.revoke("7", drop).unwrap());
        tokens.create(order("more"), drop).unwrap();
    }
}
