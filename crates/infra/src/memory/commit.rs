//! A unit of work: checked and written on a copy of the state, which replaces the state when all of it went well.

use std::collections::BTreeMap;

use async_trait::async_trait;
use frontrow_domain::idempotency::IdempotencyRecord;
use frontrow_domain::ports::Committer;
use frontrow_domain::queue::{QueueToken, QueueTokenState};
use frontrow_domain::unit_of_work::{AggregateRef, CommandOutcome, CommitError, Committed, UnitOfWork};
use frontrow_domain::{Change, Version, Versioned};

use super::{Memory, State, constraints};

#[async_trait]
impl Committer for Memory {
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        let mut state = self.state();
        let mut next = state.clone();
        let outcome = next.apply(work)?;
        next.move_feeds_on(&state);
        *state = next;
        Ok(Committed { outcome })
    }
}

impl State {
    /// The steps are in the order in which [`CommitError`] is to be reported.
    fn apply(&mut self, work: UnitOfWork) -> Result<Option<CommandOutcome>, CommitError> {
        if let Some(record) = &work.idempotency {
            self.require_free_key(record)?;
        }
        self.require_versions(&work)?;
        let outcome = work.command.as_ref().map(|command| self.execute(command)).transpose()?;
        self.write(work, outcome)?;
        constraints::check(self)?;
        Ok(outcome)
    }

    fn require_free_key(&self, new: &IdempotencyRecord) -> Result<(), CommitError> {
        let key = (new.request.user_id, new.request.key.clone());
        match self.idempotency_records.get(&key) {
            Some(old) if old.expires_at > new.created_at => Err(CommitError::DuplicateIdempotencyKey),
            _ => Ok(()),
        }
    }

    fn require_versions(&self, work: &UnitOfWork) -> Result<(), CommitError> {
        let expected = work.expected_versions();
        let lost = expected.into_iter().find(|(aggregate, version)| self.version_of(*aggregate) != *version);
        lost.map_or(Ok(()), |(aggregate, _)| Err(CommitError::Conflict(aggregate)))
    }

    fn version_of(&self, aggregate: AggregateRef) -> Option<Version> {
        match aggregate {
            AggregateRef::Room(id) => self.rooms.get(&id).map(|row| row.version),
            AggregateRef::QueueToken(id) => self.queue_tokens.get(&id).map(|row| row.version),
            AggregateRef::Account(id) => self.accounts.get(&id).map(|row| row.version),
            AggregateRef::Reservation(id) => self.reservations.get(&id).map(|row| row.version),
            AggregateRef::Seat(id) => self.seats.get(&id).map(|row| row.version),
        }
    }

    fn write(&mut self, work: UnitOfWork, outcome: Option<CommandOutcome>) -> Result<(), CommitError> {
        if let Some(record) = work.idempotency {
            self.idempotency_records.insert((record.request.user_id, record.request.key.clone()), record);
        }
        store(&mut self.rooms, work.rooms, |room| room.id);
        for token in work.queue_tokens {
            self.store_token(token);
        }
        store(&mut self.accounts, work.accounts, |account| account.user_id);
        store(&mut self.reservations, work.reservations, |reservation| reservation.id);
        store(&mut self.seats, work.seats, |seat| seat.id);
        add(&mut self.entries, work.entries, |entry| entry.id, "entries_pkey")?;
        add(&mut self.payments, work.payments, |payment| payment.id, "payments_pkey")?;
        add(&mut self.concerts, work.concerts, |concert| concert.id, "concerts_pkey")?;
        add(&mut self.performance_dates, work.performance_dates, |date| date.id, "performance_dates_pkey")?;
        let log = work.audit_log.iter().map(|entry| entry.completed(outcome)).collect();
        add(&mut self.audit_log, log, |entry| entry.id, "audit_log_pkey")
    }
}

impl State {
    /// Stores a token one version on. One that leaves the line without being admitted gets the next departure.
    pub(super) fn store_token(&mut self, token: Versioned<QueueToken>) {
        let Versioned { value, version } = token;
        let stored = self.queue_tokens.insert(value.id, Versioned::new(value, version.next()));
        let waited = stored.is_some_and(|stored| stored.value.state == QueueTokenState::Wait);
        if waited && matches!(value.state, QueueTokenState::Expired { activated_at: None, .. }) {
            self.departures.insert(value.id, self.last_departure(value.room_id).saturating_add(1));
        }
    }
}

fn store<K: Ord, T>(
    table: &mut BTreeMap<K, Versioned<T>>,
    changes: impl IntoIterator<Item = Change<T>>,
    key: impl Fn(&T) -> K,
) {
    for change in changes {
        let row = match change {
            Change::Insert(value) => Versioned::new(value, Version::FIRST),
            Change::Update(loaded) => Versioned::new(loaded.value, loaded.version.next()),
        };
        table.insert(key(&row.value), row);
    }
}

/// Adds rows that never change.
fn add<K: Ord, T>(
    table: &mut BTreeMap<K, T>,
    rows: Vec<T>,
    key: impl Fn(&T) -> K,
    constraint: &str,
) -> Result<(), CommitError> {
    for row in rows {
        if table.insert(key(&row), row).is_some() {
            return Err(constraints::broken(constraint));
        }
    }
    Ok(())
}
