//! The optimistic lock: every version a unit of work was decided on must still hold.

use frontrow_domain::unit_of_work::{AggregateRef, UnitOfWork};
use frontrow_domain::{Change, Version};

use super::failure::Failure;
use super::lock::Locked;

/// The version that each aggregate must have now; `None` for one that must be absent.
pub(super) fn expected_versions(
    work: &UnitOfWork,
) -> impl Iterator<Item = (AggregateRef, Option<Version>)> + '_ {
    let guards = work.guards.iter().map(|guard| (guard.aggregate, Some(guard.version)));
    let rooms = work.rooms.iter().map(|c| (AggregateRef::Room(c.value().id), loaded(c)));
    let tokens = work.queue_tokens.iter().map(|t| (AggregateRef::QueueToken(t.value.id), Some(t.version)));
    let accounts = work.accounts.iter().map(|c| (AggregateRef::Account(c.value().user_id), loaded(c)));
    let reservations = work.reservations.iter().map(|c| (AggregateRef::Reservation(c.value().id), loaded(c)));
    let seats = work.seats.iter().map(|c| (AggregateRef::Seat(c.value().id), loaded(c)));
    guards.chain(rooms).chain(tokens).chain(accounts).chain(reservations).chain(seats)
}

/// Refuses with the first aggregate, by kind and key, that is not as expected.
pub(super) fn require_versions(work: &UnitOfWork, locked: &Locked) -> Result<(), Failure> {
    let lost = expected_versions(work)
        .filter(|(aggregate, version)| locked.version_of(*aggregate) != *version)
        .map(|(aggregate, _)| aggregate);
    lost.min().map_or(Ok(()), |aggregate| Err(Failure::conflict(aggregate)))
}

const fn loaded<T>(change: &Change<T>) -> Option<Version> {
    match change {
        Change::Insert(_) => None,
        Change::Update(loaded) => Some(loaded.version),
    }
}
