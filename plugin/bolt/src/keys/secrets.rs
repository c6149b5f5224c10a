//! Per-commitment secrets: made from a seed, and kept in 49 entries (BOLT 3, "Per-commitment Secret Requirements"
//! and "Efficient Per-commitment Secret Storage").

use std::fmt;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SecretKey;

/// The index of commitment 0; each later commitment has an index one lower.
const FIRST_INDEX: u64 = (1 << 48) - 1;

/// One entry for each count of trailing zeros that a 48-bit index can have.
const SLOTS: usize = 49;

/// The secret of commitment `number`, which revokes that commitment once the other side has it.
///
/// Numbers from 2^48 - 1 on belong to no commitment. They still give a secret, one that no peer accepts and that
/// tells nothing about the seed, so a number from a peer's message may be passed as it is.
pub fn per_commitment_secret(seed: &[u8; 32], number: u64) -> SecretKey {
    let secret = match FIRST_INDEX.wrapping_sub(number) {
        // Index 0 would be the seed itself, from which all others follow.
        0 => sha256::Hash::hash(seed).to_byte_array(),
        index => derive_secret(seed, u64::BITS, index),
    };
    #[expect(clippy::expect_used, reason = "a SHA256 output that is no valid key has never been seen: chance 2^-127")]
    SecretKey::from_slice(&secret).expect("a hash is a valid secret key")
}

/// Secret `index`, given one whose index has the same bits from `bits` up and zeros below.
fn derive_secret(base: &[u8; 32], bits: u32, index: u64) -> [u8; 32] {
    let set_bits = (0..bits).rev().filter(|bit| index >> bit & 1 == 1);
    set_bits.fold(*base, |mut secret, bit| {
        if let Some(byte) = secret.get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
        sha256::Hash::hash(&secret).to_byte_array()
    })
}

/// The entry that a secret of this index belongs to.
fn slot_of(index: u64) -> u8 {
    u8::try_from(index.trailing_zeros().min(48)).unwrap_or(48)
}

/// Clears the bits of `index` below `bits`.
fn prefix(index: u64, bits: u8) -> u64 {
    index >> bits << bits
}

/// A received secret that cannot be one of the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretMismatch {
    /// Secrets come one after the other.
    #[error("secret of commitment {got} where that of commitment {expected} was due")]
    OutOfOrder {
        /// The number that is due.
        expected: u64,
        /// The number that was given.
        got: u64,
    },
    /// An earlier secret does not follow from this one: they are not made from one seed.
    #[error("secret of commitment {number} does not give the earlier secrets")]
    WrongSeries {
        /// The number of the refused secret.
        number: u64,
    },
}

/// Stored entries that no series of secrets could have left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored per-commitment secrets are inconsistent at entry {0}")]
pub struct CorruptSecrets(pub u8);

/// One stored entry: the latest secret whose index ends in as many zeros as the entry's place says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretSlot {
    /// The place in the store, 0 to 48.
    pub slot: u8,
    /// The commitment that the secret revokes.
    pub number: u64,
    /// The secret as the peer revealed it.
    pub secret: [u8; 32],
}

/// All secrets that the other side has revealed, in at most 49 entries.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretStore {
    slots: [Option<SecretSlot>; SLOTS],
    next: u64,
}

impl SecretStore {
    /// A store that expects the secret of commitment 0.
    pub const fn new() -> Self {
        Self { slots: [None; SLOTS], next: 0 }
    }

    /// The number of the commitment whose secret is due next; all before it are known.
    pub const fn next_number(&self) -> u64 {
        self.next
    }

    /// Takes the next secret and returns the entry that changed, after checking that it gives all earlier ones.
    pub fn insert(&mut self, number: u64, secret: [u8; 32]) -> Result<u8, SecretMismatch> {
        if number != self.next || number >= FIRST_INDEX {
            return Err(SecretMismatch::OutOfOrder { expected: self.next, got: number });
        }
        let index = FIRST_INDEX.saturating_sub(number);
        let slot = slot_of(index);
        let lower = self.slots.iter().flatten().filter(|known| known.slot < slot);
        for known in lower {
            let known_index = FIRST_INDEX.saturating_sub(known.number);
            if derive_secret(&secret, u32::from(slot), known_index) != known.secret {
                return Err(SecretMismatch::WrongSeries { number });
            }
        }
        if let Some(entry) = self.slots.get_mut(usize::from(slot)) {
            *entry = Some(SecretSlot { slot, number, secret });
        }
        self.next = number.saturating_add(1);
        Ok(slot)
    }

    /// The secret of commitment `number`, or `None` where it is not known yet.
    pub fn get(&self, number: u64) -> Option<[u8; 32]> {
        if number >= self.next {
            return None;
        }
        let index = FIRST_INDEX.checked_sub(number)?;
        let ancestor = self.slots.iter().flatten().find(|known| {
            let known_index = FIRST_INDEX.saturating_sub(known.number);
            prefix(index, known.slot) == known_index
        })?;
        Some(derive_secret(&ancestor.secret, u32::from(ancestor.slot), index))
    }

    /// The entries in use, for the rows on disk.
    pub fn slots(&self) -> impl Iterator<Item = &SecretSlot> {
        self.slots.iter().flatten()
    }

    /// A store from the rows on disk, in any order; refused unless they are exactly what some series leaves.
    pub fn from_slots(slots: impl IntoIterator<Item = SecretSlot>) -> Result<Self, CorruptSecrets> {
        let mut store = Self::new();
        for slot in slots {
            let corrupt = CorruptSecrets(slot.slot);
            if slot.number >= FIRST_INDEX || slot_of(FIRST_INDEX.saturating_sub(slot.number)) != slot.slot {
                return Err(corrupt);
            }
            let entry = store.slots.get_mut(usize::from(slot.slot)).ok_or(corrupt)?;
            if entry.replace(slot).is_some() {
                return Err(corrupt);
            }
            store.next = store.next.max(slot.number.saturating_add(1));
        }
        store.check_complete()?;
        Ok(store)
    }

    /// Every entry that a series of this length fills is there, and the later secrets give the earlier ones.
    fn check_complete(&self) -> Result<(), CorruptSecrets> {
        let lowest = FIRST_INDEX.saturating_sub(self.next).saturating_add(1);
        for (place, entry) in (0u8..).zip(&self.slots) {
            let expected = lowest_index_in(place, lowest);
            let found = entry.map(|known| FIRST_INDEX.saturating_sub(known.number));
            if found != expected {
                return Err(CorruptSecrets(place));
            }
            let Some(known) = entry else { continue };
            let later = self.slots().find(|later| {
                let later_index = FIRST_INDEX.saturating_sub(later.number);
                later.slot > place && found.map(|index| prefix(index, later.slot)) == Some(later_index)
            });
            let derived =
                later.map(|later| derive_secret(&later.secret, u32::from(later.slot), found.unwrap_or_default()));
            if derived.is_some_and(|derived| derived != known.secret) {
                return Err(CorruptSecrets(place));
            }
        }
        Ok(())
    }
}

/// The lowest index at or above `lowest` that belongs to entry `place`, if a commitment has it.
fn lowest_index_in(place: u8, lowest: u64) -> Option<u64> {
    let step = 1u64 << place;
    let rounded = lowest.checked_next_multiple_of(step)?;
    let index = if slot_of(rounded) == place { rounded } else { rounded.checked_add(step)? };
    (index <= FIRST_INDEX).then_some(index)
}

impl Default for SecretStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStore").field("next_number", &self.next).finish_non_exhaustive()
    }
}

impl fmt::Debug for SecretSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSlot").field("slot", &self.slot).field("number", &self.number).finish_non_exhaustive()
    }
}
