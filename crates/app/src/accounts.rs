//! The wallet: charge, balance, history (seed: AccountService, 잔액 충전 / 잔액 조회).
//!
//! Reads and writes: a charge is 1 read and 1 commit; balance and history are 1 read each.

use std::sync::Arc;

use frontrow_domain::account::{Account, AccountError, ChargingRefusal, Entry, WalletCharging};
use frontrow_domain::idempotency::{Answer, KeyReused};
use frontrow_domain::ports::{AccountQueries, Accounts, Clock, Committer, IdGenerator};
use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{Change, EntryId, Money, UnitOfWork, UserId, Version, Versioned};

use crate::{Caller, Failure, Idempotency, Keyed, ReplayError, Reply};

/// A charge that was made (seed: 충전액, 일시, 충전 후 잔액).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargeReceipt {
    /// The entry it made: amount, time and balance after.
    pub entry: Entry,
}

/// The right to charge one wallet. Only [`AccountService::permit_charge`] gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargePermit {
    owner: UserId,
}

/// Why a charge was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChargeError {
    /// The amount cannot be charged.
    #[error(transparent)]
    InvalidAmount(AccountError),
    /// Another charge or payment was faster. Not retried: a double click must not charge twice (seed: 낙관락 충돌시).
    #[error("the account has just changed")]
    Conflict,
    /// See [`KeyReused`].
    #[error(transparent)]
    KeyReused(KeyReused),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<ReplayError> for ChargeError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::KeyReused(reused) => Self::KeyReused(reused),
            ReplayError::Failure(failure) => Self::Failure(failure),
        }
    }
}

/// The seed's AccountService.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct AccountService {
    pub charging: WalletCharging,
    pub accounts: Arc<dyn Accounts>,
    pub queries: Arc<dyn AccountQueries>,
    pub committer: Arc<dyn Committer>,
    pub idempotency: Idempotency,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
}

impl AccountService {
    /// Lets a caller charge the wallet of `owner`, if that is who charges wallets here.
    ///
    /// # Errors
    /// [`ChargingRefusal`] for everybody else.
    pub fn permit_charge(&self, caller: Caller, owner: UserId) -> Result<ChargePermit, ChargingRefusal> {
        self.charging.permit(caller.user_id, caller.role, owner).map(|()| ChargePermit { owner })
    }

    /// Adds money to the account of a user.
    ///
    /// # Errors
    /// [`ChargeError`] says why not; nothing changed then.
    pub async fn charge(
        &self,
        permit: ChargePermit,
        amount: Money,
        keyed: Keyed<'_, ChargeReceipt>,
    ) -> Result<Reply, ChargeError> {
        let user_id = permit.owner;
        let request = keyed.request.clone();
        let attempt = self.charge_once(user_id, amount, &keyed);
        let is_failure = |error: &ChargeError| matches!(error, ChargeError::Failure(_));
        self.idempotency.once(request, attempt, is_failure).await
    }

    /// What is in the account of a user; nothing before the first charge.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn balance(&self, user_id: UserId) -> Result<Money, Failure> {
        let account = self.accounts.find(user_id).await?;
        Ok(account.map_or(Money::ZERO, |account| account.value.balance))
    }

    /// Up to `limit` entries with a number below `before`, newest first.
    ///
    /// # Errors
    /// [`Failure`] alone.
    pub async fn list_entries(
        &self,
        user_id: UserId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, Failure> {
        Ok(self.queries.list_entries(user_id, before, limit).await?)
    }

    async fn charge_once(
        &self,
        user_id: UserId,
        amount: Money,
        keyed: &Keyed<'_, ChargeReceipt>,
    ) -> Result<Answer, ChargeError> {
        let (account, version) = load(&*self.accounts, user_id).await?;
        let now = self.clock.now();
        let entry_id = EntryId::new(self.ids.next_id());
        let (account, entry) = account.charge(entry_id, amount, now).map_err(ChargeError::InvalidAmount)?;
        let (answer, idempotency) = keyed.answer(&ChargeReceipt { entry }, now);
        let work = UnitOfWork {
            idempotency,
            accounts: vec![change(account, version)],
            entries: vec![entry],
            ..UnitOfWork::default()
        };
        match self.committer.commit(work).await {
            Ok(_) => Ok(answer),
            Err(CommitError::Conflict(_) | CommitError::DuplicateIdempotencyKey) => {
                Err(ChargeError::Conflict)
            }
            Err(error) => Err(Failure::from(error).into()),
        }
    }
}

/// The account of a user and the version it has, if it is stored yet.
pub(crate) async fn load(
    accounts: &dyn Accounts,
    user_id: UserId,
) -> Result<(Account, Option<Version>), Failure> {
    let stored = accounts.find(user_id).await?;
    Ok(match stored {
        Some(Versioned { value, version }) => (value, Some(version)),
        None => (Account::empty(user_id), None),
    })
}

/// Stores an account over the version that [`load`] gave.
pub(crate) fn change(account: Account, version: Option<Version>) -> Change<Account> {
    match version {
        Some(version) => Change::Update(Versioned::new(account, version)),
        None => Change::Insert(account),
    }
}

#[cfg(test)]
mod tests;
