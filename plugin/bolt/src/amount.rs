//! Amounts and feerates. A bare integer never stands for money: the unit is the type, and arithmetic is checked.

use std::fmt;
use std::iter::Sum;

/// An amount in millisatoshi, the unit of the channel plane (BOLT 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Msat(u64);

/// An amount in satoshi, the unit of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sat(u64);

/// A feerate in satoshi per 1000 weight units (BOLT 2, `feerate_per_kw`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeratePerKw(u32);

impl Msat {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// From a count of millisatoshi.
    pub const fn new(msat: u64) -> Self {
        Self(msat)
    }

    /// The count of millisatoshi.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What is asked for forwarding this amount: a base in millisatoshi and a share in millionths, rounded down (BOLT 7,
    /// "HTLC Fees"). `None` where no amount is that large.
    pub fn forwarding_fee(self, base_msat: u32, proportional_millionths: u32) -> Option<Self> {
        let share = u128::from(self.0).checked_mul(u128::from(proportional_millionths))? / 1_000_000;
        u64::try_from(share.checked_add(u128::from(base_msat))?).ok().map(Self)
    }

    /// The whole satoshis, rounded down as every on-chain output is (BOLT 3).
    pub const fn to_sat_floor(self) -> Sat {
        Sat(self.0 / 1000)
    }

    /// The sum, or `None` on overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` where it would be negative.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// The difference, or zero where it would be negative.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or the largest amount on overflow.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sat {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// From a count of satoshi.
    pub const fn new(sat: u64) -> Self {
        Self(sat)
    }

    /// The count of satoshi.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The same amount in millisatoshi, or `None` on overflow.
    pub const fn to_msat(self) -> Option<Msat> {
        match self.0.checked_mul(1000) {
            Some(msat) => Some(Msat(msat)),
            None => None,
        }
    }

    /// The sum, or `None` on overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` where it would be negative.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }

    /// The difference, or zero where it would be negative.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or the largest amount on overflow.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl FeeratePerKw {
    /// The lowest feerate that bitcoind relays by default (BOLT 3: 253 sat per kiloweight).
    pub const FLOOR: Self = Self(253);

    /// From satoshi per 1000 weight units.
    pub const fn new(sat_per_kw: u32) -> Self {
        Self(sat_per_kw)
    }

    /// Satoshi per 1000 weight units.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The fee of a transaction of this weight, rounded down (BOLT 3, "Fee Calculation").
    pub const fn fee(self, weight: u64) -> Sat {
        Sat((self.0 as u64).saturating_mul(weight) / 1000)
    }
}

impl From<Sat> for bitcoin::Amount {
    fn from(sat: Sat) -> Self {
        Self::from_sat(sat.0)
    }
}

impl From<bitcoin::Amount> for Sat {
    fn from(amount: bitcoin::Amount) -> Self {
        Self(amount.to_sat())
    }
}

impl Sum for Msat {
    /// Saturates: a sum that overflows is larger than any limit it is compared with.
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Msat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

impl fmt::Display for Sat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat", self.0)
    }
}

impl fmt::Display for FeeratePerKw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat/kw", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fwd_13_fees_on_a_grid_are_those_of_whole_numbers_and_never_overflow() {
        // Counted bit by bit, not by the formula.
        fn share(amount: u64, millionths: u32) -> u128 {
            let divided = (0..64).rev().fold((0u128, 0u128), |(whole, rest), bit| {
                let rest = rest * 2 + u128::from(amount >> bit & 1) * u128::from(millionths);
                (whole * 2 + rest / 1_000_000, rest % 1_000_000)
            });
            divided.0
        }
        for base in [0, 1, 999, u32::MAX] {
            for ppm in [0, 1, 999_999, 1_000_000, u32::MAX] {
                for amount in [0, 1, 999, 999_999, 1_000_000, 21_000_000 * 100_000_000_000, u64::MAX] {
                    let expected = u64::try_from(u128::from(base) + share(amount, ppm)).ok().map(Msat::new);
                    assert_eq!(Msat::new(amount).forwarding_fee(base, ppm), expected, "{base} {ppm} {amount}");
                }
            }
        }
    }
}
