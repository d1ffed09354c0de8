//! Payment (seed: PaymentService, 결제 시퀀스): one unit of work, so that all of it happens or nothing.
//!
//! Reads and writes: 4 reads in 2 steps (reservation and account; seats and token), 1 commit. Safe to repeat, so a
//! conflict is decided anew by the new state.

use std::sync::Arc;

use frontrow_domain::account::{AccountError, Payment, Ticket};
use frontrow_domain::idempotency::{Answer, KeyReused};
use frontrow_domain::ports::{Accounts, Clock, Committer, IdGenerator, QueueTokens, Reservations, Seats};
use frontrow_domain::queue::{QueueToken, QueueTokenError};
use frontrow_domain::reservation::{Reservation, ReservationError};
use frontrow_domain::seat::{Seat, SeatError};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{
    Change, EntryId, Money, PaymentId, ReservationId, TicketId, Timestamp, UnitOfWork, UserId, Version,
    Versioned,
};
use futures_util::future::try_join;

use crate::{Failure, Idempotency, Keyed, MAX_ATTEMPTS, ReplayError, Reply, accounts};

/// A payment that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayReceipt {
    /// The payment.
    pub payment: Payment,
    /// The balance after it.
    pub balance: Money,
}

/// Why a payment was refused. Nothing changed then.
#[derive(Debug, thiserror::Error)]
pub enum PayError {
    /// There is no such reservation of this user (seed: No Resource Found Exception).
    #[error("there is no such reservation")]
    ReservationNotFound,
    /// The reservation cannot be paid any more (seed: Illegal State Exception).
    #[error(transparent)]
    Reservation(ReservationError),
    /// Less is in the account than is to be paid (seed: 잔액이 부족한 경우).
    #[error("the balance of {balance} is less than the {required} to be paid")]
    InsufficientBalance {
        /// What was to be paid.
        required: Money,
        /// What is there.
        balance: Money,
    },
    /// Others were faster, again and again.
    #[error("what was to be paid kept changing")]
    Conflict,
    /// See [`KeyReused`].
    #[error(transparent)]
    KeyReused(KeyReused),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<ReplayError> for PayError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::KeyReused(reused) => Self::KeyReused(reused),
            ReplayError::Failure(failure) => Self::Failure(failure),
        }
    }
}

/// What a payment is decided by.
struct Loaded {
    reservation: Versioned<Reservation>,
    account: frontrow_domain::account::Account,
    account_version: Option<Version>,
    seats: Vec<Versioned<Seat>>,
    token: Option<Versioned<QueueToken>>,
}

/// The seed's PaymentService.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct PaymentService {
    pub reservations: Arc<dyn Reservations>,
    pub accounts: Arc<dyn Accounts>,
    pub seats: Arc<dyn Seats>,
    pub tokens: Arc<dyn QueueTokens>,
    pub committer: Arc<dyn Committer>,
    pub idempotency: Idempotency,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
}

impl PaymentService {
    /// Pays a reservation: the account debited, the reservation DONE, its seats UNAVAILABLE, the payer's token EXPIRED.
    ///
    /// # Errors
    /// [`PayError`] says why not; nothing changed then.
    pub async fn pay(
        &self,
        user_id: UserId,
        reservation_id: ReservationId,
        keyed: Keyed<'_, PayReceipt>,
    ) -> Result<Reply, PayError> {
        let request = keyed.request.clone();
        let attempt = self.pay_once(user_id, reservation_id, &keyed);
        let is_failure = |error: &PayError| matches!(error, PayError::Failure(_));
        self.idempotency.once(request, attempt, is_failure).await
    }

    async fn pay_once(
        &self,
        user_id: UserId,
        reservation_id: ReservationId,
        keyed: &Keyed<'_, PayReceipt>,
    ) -> Result<Answer, PayError> {
        for _ in 0..MAX_ATTEMPTS {
            let loaded = self.load(user_id, reservation_id).await?;
            let now = self.clock.now();
            let Some((mut work, receipt)) = self.decide(loaded, now)? else { continue };
            let (answer, record) = keyed.answer(&receipt, now);
            work.idempotency = record;
            match self.committer.commit(work).await {
                Ok(_) => return Ok(answer),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::DuplicateIdempotencyKey) => return Err(PayError::Conflict),
                Err(error) => return Err(Failure::from(error).into()),
            }
        }
        Err(PayError::Conflict)
    }

    /// Loads all that counts, and refuses what can never be paid before it loads the rest.
    async fn load(&self, user_id: UserId, id: ReservationId) -> Result<Loaded, PayError> {
        let reservation = async { self.reservations.find(id).await.map_err(Failure::from) };
        let account = accounts::load(&*self.accounts, user_id);
        let (reservation, (account, account_version)) = try_join(reservation, account).await?;
        let own = reservation.filter(|reservation| reservation.value.user_id == user_id);
        let reservation = own.ok_or(PayError::ReservationNotFound)?;
        reservation.value.clone().pay(self.clock.now()).map_err(PayError::Reservation)?;
        let seats = self.seats.find_many(reservation.value.seat_ids());
        let token = self.tokens.find_live(reservation.value.room_id, user_id);
        let (seats, token) = try_join(seats, token).await.map_err(Failure::from)?;
        Ok(Loaded { reservation, account, account_version, seats, token })
    }

    /// The whole payment as one unit of work; `None` when what was loaded does not fit together, because it changed
    /// between two of the loads.
    fn decide(&self, loaded: Loaded, now: Timestamp) -> Result<Option<(UnitOfWork, PayReceipt)>, PayError> {
        let Loaded { reservation, account, account_version, seats, token } = loaded;
        let reservation = reservation.try_map(|r| r.pay(now)).map_err(PayError::Reservation)?;
        let id = reservation.value.id;
        let sold = seats.into_iter().map(|seat| seat.try_map(|seat| seat.sell(id)).map(Change::Update));
        let Ok(seats) = sold.collect::<Result<Vec<_>, SeatError>>() else { return Ok(None) };
        let amount = reservation.value.total_amount;
        let entry_id = EntryId::new(self.ids.next_id());
        let (account, entry) =
            account.pay(entry_id, amount, id, now).map_err(|error| insufficient(&error, amount))?;
        let token = token.map(|token| token.try_map(|token| token.expire(now))).transpose();
        let Ok(token) = token.map_err(|_: QueueTokenError| ()) else { return Ok(None) };
        let ticket = |seat_id| Ticket { id: TicketId::new(self.ids.next_id()), seat_id };
        let payment = Payment {
            id: PaymentId::new(self.ids.next_id()),
            reservation_id: id,
            user_id: reservation.value.user_id,
            entry_id,
            amount,
            paid_at: now,
            tickets: reservation.value.seat_ids().into_iter().map(ticket).collect(),
        };
        let work = UnitOfWork {
            queue_tokens: token.into_iter().collect(),
            accounts: vec![accounts::change(account, account_version)],
            entries: vec![entry],
            reservations: vec![Change::Update(reservation)],
            seats,
            payments: vec![payment.clone()],
            ..UnitOfWork::default()
        };
        Ok(Some((work, PayReceipt { payment, balance: account.balance })))
    }
}

fn insufficient(error: &AccountError, required: Money) -> PayError {
    match *error {
        AccountError::InsufficientBalance { required, balance } => {
            PayError::InsufficientBalance { required, balance }
        }
        AccountError::InvalidAmount | AccountError::BalanceTooLarge => {
            PayError::Failure(Failure::Internal(format!("{required} could not be taken: {error}")))
        }
    }
}

#[cfg(test)]
mod tests;
