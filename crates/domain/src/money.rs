//! Money: whole minor units of the one configured currency, never a float (ADR 0005).

use std::fmt;

/// An amount of money, zero or more, in minor units (for KRW: won).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(i64);

/// An amount below zero where money was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an amount of money cannot be below zero")]
pub struct NegativeMoney;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount that can be stored.
    pub const MAX: Self = Self(i64::MAX);

    /// Takes an amount in minor units.
    ///
    /// # Errors
    /// [`NegativeMoney`] below zero.
    pub const fn new(minor_units: i64) -> Result<Self, NegativeMoney> {
        if minor_units < 0 { Err(NegativeMoney) } else { Ok(Self(minor_units)) }
    }

    /// The amount in minor units.
    #[must_use]
    pub const fn minor_units(self) -> i64 {
        self.0
    }

    /// The sum, or `None` when it cannot be stored.
    #[must_use]
    pub const fn plus(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// What is left after `other` is taken away, or `None` when that is more than there is.
    #[must_use]
    pub const fn minus(self, other: Self) -> Option<Self> {
        if other.0 > self.0 { None } else { Some(Self(self.0 - other.0)) }
    }

    /// The sum of many amounts, or `None` when it cannot be stored.
    pub fn total(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::plus)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn money_is_never_negative(units in any::<i64>()) {
            prop_assert_eq!(Money::new(units).is_ok(), units >= 0);
        }

        #[test]
        fn what_is_added_can_be_taken_away(a in 0..=i64::MAX, b in 0..=i64::MAX) {
            let (a, b) = (Money(a), Money(b));
            match a.plus(b) {
                Some(sum) => {
                    prop_assert_eq!(sum.minus(b), Some(a));
                    prop_assert_eq!(b.plus(a), Some(sum));
                }
                None => prop_assert!(i128::from(a.0) + i128::from(b.0) > i128::from(i64::MAX)),
            }
        }

        #[test]
        fn more_than_there_is_cannot_be_taken(a in 0..=i64::MAX, b in 0..=i64::MAX) {
            prop_assert_eq!(Money(a).minus(Money(b)).is_some(), b <= a);
        }

        #[test]
        fn a_total_is_exact_or_absent(amounts in prop::collection::vec(0..=i64::MAX, 0..6)) {
            let exact: i128 = amounts.iter().copied().map(i128::from).sum();
            let total = Money::total(amounts.into_iter().map(Money));
            prop_assert_eq!(total.map(|t| i128::from(t.0)), (exact <= i128::from(i64::MAX)).then_some(exact));
        }
    }
}
