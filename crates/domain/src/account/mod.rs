//! The wallet: an account with a history, and the payments made from it (seed: 잔액 충전, 결제).

use crate::ports::Role;
use crate::{EntryId, Money, PaymentId, ReservationId, SeatId, TicketId, Timestamp, UserId};

/// The most that one charge may add, in minor units.
pub const MAX_CHARGE: Money = match Money::new(10_000_000) {
    Ok(money) => money,
    Err(_) => Money::ZERO,
};

/// A user's account. Its id is the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Whose account.
    pub user_id: UserId,
    /// What is in it: the sum of its entries.
    pub balance: Money,
    /// How many entries it has. The last one has this number.
    pub entry_count: i64,
}

/// What an entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Money came in.
    Charge,
    /// A reservation was paid.
    Payment {
        /// Which one.
        reservation_id: ReservationId,
    },
}

/// A line of an account's history. Never changed or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which entry.
    pub id: EntryId,
    /// Whose account.
    pub user_id: UserId,
    /// Its number in the account, from 1, gapless: the order of the history.
    pub number: i64,
    /// What it records.
    pub kind: EntryKind,
    /// How much came in (charge) or went out (payment).
    pub amount: Money,
    /// The balance once it was made.
    pub balance_after: Money,
    /// When it was made.
    pub at: Timestamp,
}

/// What an account refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A charge of zero, or of more than [`MAX_CHARGE`].
    #[error("one charge must be from 1 to {max}", max = MAX_CHARGE)]
    InvalidAmount,
    /// The balance could not be stored.
    #[error("the balance would be larger than can be stored")]
    BalanceTooLarge,
    /// Less is there than is to be paid (seed: 잔액이 부족한 경우).
    #[error("the balance of {balance} is less than the {required} to be paid")]
    InsufficientBalance {
        /// What was to be paid.
        required: Money,
        /// What is there.
        balance: Money,
    },
}

/// Who may put money into a wallet. Real money comes in through a payment provider, whose backend is the cashier then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalletCharging {
    /// Its owner, and nobody else (seed: 잔액 충전).
    #[default]
    Owner,
    /// A cashier, for anybody. Not the owner, and no operator.
    Cashier,
}

/// Who may not charge a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChargingRefusal {
    /// It is somebody else's.
    #[error("a wallet is charged by its owner")]
    NotTheOwner,
    /// Only cashiers charge wallets.
    #[error("wallets are charged by a cashier: the access token does not have the role \"cashier\"")]
    NotACashier,
}

impl WalletCharging {
    /// Whether `caller`, who has this role, may charge the wallet of `owner`.
    ///
    /// # Errors
    /// [`ChargingRefusal`] says why not.
    pub fn permit(self, caller: UserId, role: Role, owner: UserId) -> Result<(), ChargingRefusal> {
        match self {
            Self::Owner if caller == owner => Ok(()),
            Self::Owner => Err(ChargingRefusal::NotTheOwner),
            Self::Cashier if role == Role::Cashier => Ok(()),
            Self::Cashier => Err(ChargingRefusal::NotACashier),
        }
    }
}

impl Account {
    /// The account of a user who never charged.
    #[must_use]
    pub const fn empty(user_id: UserId) -> Self {
        Self { user_id, balance: Money::ZERO, entry_count: 0 }
    }

    /// Adds money (seed: 유저 계좌 충전).
    ///
    /// # Errors
    /// [`AccountError::InvalidAmount`] or [`AccountError::BalanceTooLarge`].
    pub fn charge(self, id: EntryId, amount: Money, now: Timestamp) -> Result<(Self, Entry), AccountError> {
        if amount == Money::ZERO || amount > MAX_CHARGE {
            return Err(AccountError::InvalidAmount);
        }
        let balance = self.balance.plus(amount).ok_or(AccountError::BalanceTooLarge)?;
        Ok(self.entered(id, EntryKind::Charge, amount, balance, now))
    }

    /// Takes the price of a reservation (seed: 계좌 잔액 차감 요청).
    ///
    /// # Errors
    /// [`AccountError::InsufficientBalance`] when less is there.
    pub fn pay(
        self,
        id: EntryId,
        amount: Money,
        reservation_id: ReservationId,
        now: Timestamp,
    ) -> Result<(Self, Entry), AccountError> {
        let balance = self
            .balance
            .minus(amount)
            .ok_or(AccountError::InsufficientBalance { required: amount, balance: self.balance })?;
        Ok(self.entered(id, EntryKind::Payment { reservation_id }, amount, balance, now))
    }

    fn entered(
        self,
        id: EntryId,
        kind: EntryKind,
        amount: Money,
        balance: Money,
        at: Timestamp,
    ) -> (Self, Entry) {
        let number = self.entry_count.saturating_add(1);
        let entry = Entry { id, user_id: self.user_id, number, kind, amount, balance_after: balance, at };
        (Self { balance, entry_count: number, ..self }, entry)
    }
}

/// The right to one seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Which ticket.
    pub id: TicketId,
    /// The seat it is for.
    pub seat_id: SeatId,
}

/// A payment of one reservation, all of it, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Which payment.
    pub id: PaymentId,
    /// What was paid.
    pub reservation_id: ReservationId,
    /// Who paid.
    pub user_id: UserId,
    /// The entry that took the money.
    pub entry_id: EntryId,
    /// How much: the reservation's total.
    pub amount: Money,
    /// When.
    pub paid_at: Timestamp,
    /// A ticket for every seat of the reservation.
    pub tickets: Vec<Ticket>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const USER: UserId = UserId::new(Uuid::from_u128(1));
    const ENTRY: EntryId = EntryId::new(Uuid::from_u128(2));
    const RESERVATION: ReservationId = ReservationId::new(Uuid::from_u128(3));

    fn money(units: i64) -> Money {
        Money::new(units).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-01-01T00:00:00Z").unwrap()
    }

    #[test]
    fn a_charge_adds_and_a_payment_takes() {
        let (account, charge) = Account::empty(USER).charge(ENTRY, money(100), now()).unwrap();
        assert_eq!(account, Account { user_id: USER, balance: money(100), entry_count: 1 });
        assert_eq!((charge.number, charge.kind, charge.balance_after), (1, EntryKind::Charge, money(100)));
        let (account, payment) = account.pay(ENTRY, money(100), RESERVATION, now()).unwrap();
        assert_eq!(account, Account { user_id: USER, balance: money(0), entry_count: 2 });
        assert_eq!(payment.kind, EntryKind::Payment { reservation_id: RESERVATION });
        assert_eq!((payment.number, payment.amount, payment.balance_after), (2, money(100), money(0)));
    }

    #[test]
    fn amounts_have_limits() {
        let account = Account::empty(USER);
        assert_eq!(account.charge(ENTRY, money(0), now()), Err(AccountError::InvalidAmount));
        assert_eq!(account.charge(ENTRY, money(10_000_001), now()), Err(AccountError::InvalidAmount));
        assert!(account.charge(ENTRY, money(10_000_000), now()).is_ok());
        let full = Account { balance: money(i64::MAX), ..account };
        assert_eq!(full.charge(ENTRY, money(1), now()), Err(AccountError::BalanceTooLarge));
        assert_eq!(
            account.pay(ENTRY, money(1), RESERVATION, now()),
            Err(AccountError::InsufficientBalance { required: money(1), balance: money(0) })
        );
    }

    #[test]
    fn a_free_seat_is_paid_from_an_empty_account() {
        let (account, _) = Account::empty(USER).pay(ENTRY, money(0), RESERVATION, now()).unwrap();
        assert_eq!(account.balance, Money::ZERO);
    }

    #[test]
    fn a_wallet_is_charged_by_its_owner_or_by_a_cashier_as_is_configured() {
        const OTHER: UserId = UserId::new(Uuid::from_u128(4));
        for role in [Role::User, Role::Admin, Role::Cashier] {
            assert_eq!(WalletCharging::Owner.permit(USER, role, USER), Ok(()), "{role:?}");
            let refused = WalletCharging::Owner.permit(OTHER, role, USER);
            assert_eq!(refused, Err(ChargingRefusal::NotTheOwner), "{role:?}");
            for caller in [USER, OTHER] {
                let permitted = WalletCharging::Cashier.permit(caller, role, USER);
                assert_eq!(permitted.is_ok(), role == Role::Cashier, "{role:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_balance_is_the_sum_of_the_entries(steps in prop::collection::vec((any::<bool>(), 0..20_000_000_i64), 0..40)) {
            let (mut account, mut sum, mut count) = (Account::empty(USER), 0, 0);
            for (charge, units) in steps {
                let done = if charge {
                    account.charge(ENTRY, money(units), now())
                } else {
                    account.pay(ENTRY, money(units), RESERVATION, now())
                };
                if let Ok((next, entry)) = done {
                    sum += if charge { units } else { -units };
                    count += 1;
                    prop_assert_eq!((entry.number, entry.balance_after), (count, next.balance));
                    account = next;
                }
                prop_assert_eq!((account.balance, account.entry_count), (money(sum), count));
            }
        }
    }
}
