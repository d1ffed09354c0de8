//! Storage, or the check of access tokens, with one protection taken out: the mistakes that others have made (each is one that was found in a real system).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use frontrow_domain::ports::{
    AccessClaims, AccessTokens, Committer, InvalidAccessToken, NoIssuer, Reservations, StorageError,
};
use frontrow_domain::reservation::{Holdings, Reservation, ReservationStatus};
use frontrow_domain::seat::SeatState;
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommitError, Committed};
use frontrow_domain::{
    Change, PerformanceDateId, ReservationId, Timestamp, UnitOfWork, UserId, Version, Versioned,
};
use frontrow_infra::Storage;

/// Which protection is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Every update is written over whatever version is there.
    WritesBlindly,
    /// A charge that met another one is done again over what is there.
    RetriesCharges,
    /// A hold is stored, but its seats are not marked.
    HoldsNoSeat,
    /// The sweep of holds frees sold seats too.
    FreesSoldSeats,
    /// The sweep of holds runs by a clock that is a second ahead.
    SweepsEarly,
    /// A hold is judged by a deadline that is a millisecond late.
    JudgesLate,
    /// Admission does not look at how many are ACTIVE.
    IgnoresMaxActive,
    /// A payment leaves the payer's token alone.
    KeepsTheToken,
    /// Answers are not stored under their keys.
    ForgetsKeys,
    /// Nobody has any live seat as yet.
    CountsNoLiveSeats,
    /// A payment takes no money.
    TakesNoMoney,
    /// Nobody notes who polls.
    ForgetsPolls,
    /// A place is given up ten seconds before the grace is over.
    GivesUpEarly,
    /// Tokens are deleted that ended just now.
    PrunesTokensEarly,
    /// Answers are deleted that are given again for a day yet.
    PrunesAnswersEarly,
    /// An access token is good for an hour longer.
    KnowsGuestsTooLong,
}

impl Mutation {
    pub(crate) const ALL: [Self; 16] = [
        Self::WritesBlindly,
        Self::RetriesCharges,
        Self::HoldsNoSeat,
        Self::FreesSoldSeats,
        Self::SweepsEarly,
        Self::JudgesLate,
        Self::IgnoresMaxActive,
        Self::KeepsTheToken,
        Self::ForgetsKeys,
        Self::CountsNoLiveSeats,
        Self::TakesNoMoney,
        Self::ForgetsPolls,
        Self::GivesUpEarly,
        Self::PrunesTokensEarly,
        Self::PrunesAnswersEarly,
        Self::KnowsGuestsTooLong,
    ];
}

struct Mutant {
    mutation: Mutation,
    storage: Storage,
    dates: Mutex<BTreeSet<PerformanceDateId>>,
}

/// Storage with this mistake.
pub(crate) fn mutated(storage: Storage, mutation: Mutation) -> Storage {
    let mutant = Arc::new(Mutant { mutation, storage: storage.clone(), dates: Mutex::default() });
    Storage { committer: mutant.clone(), reservations: mutant, ..storage }
}

#[async_trait]
impl Committer for Mutant {
    async fn commit(&self, mut work: UnitOfWork) -> Result<Committed, CommitError> {
        self.dates.lock().unwrap().extend(work.performance_dates.iter().map(|date| date.id));
        let (is_hold, is_payment) = (is_hold(&work), !work.payments.is_empty());
        if let Some(command) = &mut work.command {
            self.mistake(command);
        }
        match self.mutation {
            Mutation::WritesBlindly => self.renew_versions(&mut work).await,
            Mutation::RetriesCharges => return self.charge_again(work).await,
            Mutation::HoldsNoSeat if is_hold => work.seats.clear(),
            Mutation::FreesSoldSeats if matches!(work.command, Some(Command::ExpireHolds { .. })) => {
                self.free_sold_seats().await;
            }
            Mutation::KeepsTheToken if is_payment => work.queue_tokens.clear(),
            Mutation::ForgetsKeys => work.idempotency = None,
            Mutation::TakesNoMoney if is_payment => self.give_the_money_back(&mut work).await,
            _ => {}
        }
        self.storage.committer.commit(work).await
    }
}

impl Mutant {
    /// What is wrong with a command.
    fn mistake(&self, command: &mut Command) {
        match (self.mutation, command) {
            (Mutation::SweepsEarly, Command::ExpireHolds { now, .. }) => *now = now.plus_seconds(1),
            (Mutation::IgnoresMaxActive, Command::Admit(admit)) => admit.max_active = None,
            (Mutation::ForgetsPolls, Command::NotePolls { tokens, .. }) => tokens.clear(),
            (Mutation::GivesUpEarly, Command::GiveUpAbandoned(sweep)) => {
                sweep.gone_since = sweep.gone_since.map(|gone_since| gone_since.plus_seconds(10));
            }
            (Mutation::PrunesTokensEarly, Command::PruneTokens(prune)) => {
                prune.before = prune.before.plus_seconds(3_600);
            }
            (Mutation::PrunesAnswersEarly, Command::PruneAnswers { now, .. }) => {
                *now = now.plus_seconds(24 * 60 * 60);
            }
            _ => {}
        }
    }

    async fn renew_versions(&self, work: &mut UnitOfWork) {
        work.guards.clear();
        for token in &mut work.queue_tokens {
            let stored = self.storage.queue_tokens.find(token.value.id).await.unwrap();
            token.version = stored.unwrap().version;
        }
        for change in &mut work.accounts {
            let stored = self.storage.accounts.find(change.value().user_id).await.unwrap();
            renew(change, stored.map(|account| account.version));
        }
        for change in &mut work.reservations {
            let stored = self.storage.reservations.find(change.value().id).await.unwrap();
            renew(change, stored.map(|reservation| reservation.version));
        }
        for change in &mut work.seats {
            let stored = self.storage.seats.find_many(vec![change.value().id]).await.unwrap();
            renew(change, stored.first().map(|seat| seat.version));
        }
    }

    async fn charge_again(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let committed = self.storage.committer.commit(work.clone()).await;
        let is_charge = work.payments.is_empty() && !work.entries.is_empty();
        if !is_charge || !matches!(committed, Err(CommitError::Conflict(AggregateRef::Account(_)))) {
            return committed;
        }
        let mut entry = work.entries[0];
        let stored = self.storage.accounts.find(entry.user_id).await.unwrap().unwrap();
        let mut account = stored.value;
        account.balance = account.balance.plus(entry.amount).unwrap();
        account.entry_count += 1;
        (entry.number, entry.balance_after) = (account.entry_count, account.balance);
        let accounts = vec![Change::Update(Versioned::new(account, stored.version))];
        self.storage.committer.commit(UnitOfWork { accounts, entries: vec![entry], ..work }).await
    }

    async fn free_sold_seats(&self) {
        let dates = self.dates.lock().unwrap().clone();
        for date in dates {
            let of_it = self.storage.seat_feeds.load(date).await.unwrap().unwrap();
            for mut seat in of_it.seats {
                if matches!(seat.value.state, SeatState::Unavailable { .. }) {
                    seat.value.state = SeatState::Available;
                    let work = UnitOfWork { seats: vec![Change::Update(seat)], ..UnitOfWork::default() };
                    self.storage.committer.commit(work).await.unwrap();
                }
            }
        }
    }

    async fn give_the_money_back(&self, work: &mut UnitOfWork) {
        for change in &mut work.accounts {
            if let Change::Update(account) = change {
                let stored = self.storage.accounts.find(account.value.user_id).await.unwrap();
                account.value.balance = stored.unwrap().value.balance;
            }
        }
    }
}

#[async_trait]
impl Reservations for Mutant {
    async fn find(&self, id: ReservationId) -> Result<Option<Versioned<Reservation>>, StorageError> {
        let mut found = self.storage.reservations.find(id).await?;
        if let (Mutation::JudgesLate, Some(reservation)) = (self.mutation, &mut found) {
            let late = std::time::Duration::from_millis(1);
            reservation.value.hold_expires_at = reservation.value.hold_expires_at.plus(late);
        }
        Ok(found)
    }

    async fn holdings(
        &self,
        user_id: UserId,
        performance_date_id: PerformanceDateId,
        now: Timestamp,
    ) -> Result<Holdings, StorageError> {
        if self.mutation == Mutation::CountsNoLiveSeats {
            return Ok(Holdings::default());
        }
        self.storage.reservations.holdings(user_id, performance_date_id, now).await
    }
}

fn is_hold(work: &UnitOfWork) -> bool {
    let made = |change: &Change<Reservation>| matches!(change, Change::Insert(made) if made.status == ReservationStatus::Reserved);
    work.reservations.iter().any(made)
}

/// Takes the version that is stored now.
fn renew<T>(change: &mut Change<T>, stored: Option<Version>) {
    if let (Change::Update(loaded), Some(version)) = (change, stored) {
        loaded.version = version;
    }
}

/// Checks access tokens by a clock that is an hour behind.
pub(crate) struct Lenient(pub(crate) Arc<dyn AccessTokens>);

impl AccessTokens for Lenient {
    fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        self.0.verify(token, now.minus_seconds(3_600))
    }

    fn issue(&self, claims: &AccessClaims) -> Result<String, NoIssuer> {
        self.0.issue(claims)
    }
}
