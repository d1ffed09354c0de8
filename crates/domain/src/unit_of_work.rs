//! What one use case wants written, as a value: all of it in one database transaction, or nothing (ADR 0001).

use crate::account::{Account, Entry, Payment};
use crate::audit_log::AuditEntry;
use crate::concert::{Concert, PerformanceDate};
use crate::idempotency::IdempotencyRecord;
use crate::queue::{QueueToken, Room, RoomRefusal, TicketNumber};
use crate::reservation::Reservation;
use crate::seat::Seat;
use crate::{Change, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId, Version, Versioned};

/// Everything one use case writes.
///
/// Names each aggregate at most once, and none that its command works on. Versions are checked on every update and guard. Only what a decision needs is in here: the adapter adds no
/// rule of its own, except those of a [`Command`], which it takes from the domain under the room's lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitOfWork {
    /// The answer to the request, so that a repeat gets the same one.
    pub idempotency: Option<IdempotencyRecord>,
    /// What was read, not changed, and must still hold.
    pub guards: Vec<Guard>,
    /// Work on a line or on many rows, done by the adapter.
    pub command: Option<Command>,
    /// New and changed rooms.
    pub rooms: Vec<Change<Room>>,
    /// Changed queue tokens. New ones come from [`Command::Join`] alone. An unchanged value only bumps the version.
    pub queue_tokens: Vec<Versioned<QueueToken>>,
    /// New and changed accounts.
    pub accounts: Vec<Change<Account>>,
    /// New entries.
    pub entries: Vec<Entry>,
    /// New and changed reservations.
    pub reservations: Vec<Change<Reservation>>,
    /// New and changed seats.
    pub seats: Vec<Change<Seat>>,
    /// New payments with their tickets.
    pub payments: Vec<Payment>,
    /// New concerts.
    pub concerts: Vec<Concert>,
    /// New performance dates.
    pub performance_dates: Vec<PerformanceDate>,
    /// What an operator did by this unit, stored as [`AuditEntry::completed`] with the outcome of the command.
    pub audit_log: Vec<AuditEntry>,
}

impl UnitOfWork {
    /// The version that each aggregate must have for the unit to be written, in the order in which conflicts are
    /// reported: by kind, then by key. `None` for one that must be absent.
    #[must_use]
    pub fn expected_versions(&self) -> Vec<(AggregateRef, Option<Version>)> {
        const fn loaded<T>(change: &Change<T>) -> Option<Version> {
            match change {
                Change::Insert(_) => None,
                Change::Update(loaded) => Some(loaded.version),
            }
        }
        let guards = self.guards.iter().map(|guard| (guard.aggregate, Some(guard.version)));
        let rooms = self.rooms.iter().map(|room| (AggregateRef::Room(room.value().id), loaded(room)));
        let tokens =
            self.queue_tokens.iter().map(|t| (AggregateRef::QueueToken(t.value.id), Some(t.version)));
        let accounts = self.accounts.iter().map(|a| (AggregateRef::Account(a.value().user_id), loaded(a)));
        let reservations =
            self.reservations.iter().map(|r| (AggregateRef::Reservation(r.value().id), loaded(r)));
        let seats = self.seats.iter().map(|seat| (AggregateRef::Seat(seat.value().id), loaded(seat)));
        let mut expected: Vec<_> =
            guards.chain(rooms).chain(tokens).chain(accounts).chain(reservations).chain(seats).collect();
        expected.sort_by_key(|(aggregate, _)| *aggregate);
        expected
    }

    /// Who goes first where not all can: what is nearest to the end of a purchase.
    #[must_use]
    pub fn priority(&self) -> Priority {
        match &self.command {
            Some(
                Command::Join(_) | Command::Fill(_) | Command::PruneTokens(_) | Command::PruneAnswers { .. },
            ) => Priority::Join,
            // A few a second, each by one sweeper a node: they crowd nobody out, and others wait for what they free.
            Some(
                Command::Admit(_)
                | Command::PauseTokens(_)
                | Command::ExpireTokens { .. }
                | Command::ExpireHolds { .. }
                | Command::NotePolls { .. }
                | Command::GiveUpAbandoned(_),
            ) => Priority::Pay,
            None if !self.payments.is_empty() => Priority::Pay,
            None if self.reservations.is_empty() && self.queue_tokens.is_empty() => Priority::Pay,
            None => Priority::Hold,
        }
    }
}

/// Which unit of work goes first where there are more than can be written, and which is refused last (ADR 0015).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Newcomers, and what may be done at any time.
    Join,
    /// Holds, and what is given back: holds and places.
    Hold,
    /// Payments, the charges before them, what operators change, and what the scheduler does.
    Pay,
}

impl Priority {
    /// All, the first to go first.
    pub const ALL: [Self; 3] = [Self::Pay, Self::Hold, Self::Join];
}

/// Names one versioned aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AggregateRef {
    /// A room.
    Room(RoomId),
    /// A queue token.
    QueueToken(QueueTokenId),
    /// The account of a user.
    Account(UserId),
    /// A reservation.
    Reservation(ReservationId),
    /// A seat.
    Seat(SeatId),
}

/// An aggregate that was read, not changed, and whose version must still hold at the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// Which aggregate.
    pub aggregate: AggregateRef,
    /// The version that was read.
    pub version: Version,
}

/// Work that is not a change of a few known aggregates. The adapter does it under the lock of the room's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Takes a place in a line, or finds the one the user has.
    Join(Join),
    /// Admits waiters from the head of a line, in order.
    Admit(Admit),
    /// Begins or ends the pause of the ACTIVE tokens of a room, all of them.
    PauseTokens(PauseTokens),
    /// Expires up to `limit` ACTIVE tokens whose time is up at `now`.
    ExpireTokens {
        /// The time to judge by.
        now: Timestamp,
        /// The most to expire.
        limit: u32,
    },
    /// Expires up to `limit` RESERVED reservations whose deadline has passed at `now`, and frees their seats.
    ExpireHolds {
        /// The time to judge by.
        now: Timestamp,
        /// The most to expire.
        limit: u32,
    },
    /// Notes that the holders of these tokens polled at `now`. Those that wait no more are left alone, and so may be some
    /// that others work on at this moment. No line is locked, and no version changes: this is no decision about a token.
    NotePolls {
        /// Whose holders polled; none twice.
        tokens: Vec<QueueTokenId>,
        /// The time to note.
        now: Timestamp,
    },
    /// Gives up the places near the head of a line whose holders stay away.
    GiveUpAbandoned(GiveUpAbandoned),
    /// Puts a crowd at the tail of a line, for tests and sizing.
    Fill(Fill),
    /// Deletes tokens of a line that ended long ago.
    PruneTokens(PruneTokens),
    /// Deletes up to `limit` answers that are no longer given again at `now`.
    PruneAnswers {
        /// The time to judge by.
        now: Timestamp,
        /// The most to delete.
        limit: u32,
    },
}

/// Looks at the `limit` tokens of a line after one, by ticket, and deletes those of them that ended at `before` or
/// earlier. Kept are those under which something was reserved, and the last one admitted with all behind it: by them
/// others know where they stand. No line is locked; what others work on at this moment is left to the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneTokens {
    /// The line.
    pub room_id: RoomId,
    /// The ticket to go on after; 0 at first.
    pub after: TicketNumber,
    /// Who ended later is kept.
    pub before: Timestamp,
    /// The most to look at.
    pub limit: u32,
}

/// Begins or ends the pause of every live ACTIVE token of a room, by [`QueueToken::paused`] and [`QueueToken::resumed`], and
/// moves the versions of those that change. A hold writes the version of its token: so one that meets a pause conflicts, and
/// is decided anew. No token becomes ACTIVE meanwhile: the room's line is locked, and the room changes with the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseTokens {
    /// The room.
    pub room_id: RoomId,
    /// Whether the pause begins; else it ends.
    pub begins: bool,
    /// When.
    pub now: Timestamp,
}

/// Puts newcomers at the tail of a line, all of them waiting, whatever the room's mode and limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The line.
    pub room_id: RoomId,
    /// The ids of the tokens and whose they are, in the order of the line. None of them is in line already.
    pub people: Vec<(QueueTokenId, UserId)>,
    /// When.
    pub now: Timestamp,
}

/// Gives up the places near the head of a line whose holders stay away. A waiter about to be admitted who was never seen
/// there counts as seen `now`: nobody is judged by the time spent further back, where polls are rare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GiveUpAbandoned {
    /// The line.
    pub room_id: RoomId,
    /// How many waiters, from the head, are judged.
    pub window: u32,
    /// Whoever was last seen at this time or before is gone. `None` judges nobody, has everybody in the window seen `now`, and
    /// everybody behind it never: for when polls may have gone unnoted, or the window was larger.
    pub gone_since: Option<Timestamp>,
    /// When.
    pub now: Timestamp,
}

/// Takes a place in a line. The adapter asks [`crate::queue::RoomPolicy::entrance`] under the line's lock, numbers the
/// token last, and expires a lapsed token of the same user first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// The id of the token, if one is made.
    pub token_id: QueueTokenId,
    /// The line.
    pub room_id: RoomId,
    /// Who joins.
    pub user_id: UserId,
    /// When.
    pub now: Timestamp,
}

/// Admits waiters from the head of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admit {
    /// The line.
    pub room_id: RoomId,
    /// The most to admit.
    pub limit: u32,
    /// The most that may be ACTIVE at `now` once they are admitted; the adapter counts under the line's lock.
    pub max_active: Option<u32>,
    /// How long each stays ACTIVE, in seconds.
    pub active_ttl_seconds: u32,
    /// When.
    pub now: Timestamp,
}

/// What a [`Command`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    /// A new token was made.
    Joined(QueueToken),
    /// The user had this live token in that room.
    AlreadyJoined(QueueToken),
    /// So many were admitted.
    Admitted(u32),
    /// The pause of so many tokens began or ended.
    TokensPaused(u32),
    /// So many tokens were expired.
    TokensExpired(u32),
    /// So many polls were noted.
    PollsNoted(u32),
    /// So many places were given up.
    GivenUp(u32),
    /// All of a crowd are in line.
    Filled,
    /// So many reservations were expired.
    HoldsExpired(u32),
    /// So many of the tokens looked at were deleted.
    TokensPruned(TokensPruned),
    /// So many answers were deleted.
    AnswersPruned(u32),
}

/// What a [`PruneTokens`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokensPruned {
    /// How many tokens were deleted.
    pub deleted: u32,
    /// The last ticket that was looked at; `None` where there is none left to look at.
    pub through: Option<TicketNumber>,
}

/// A unit of work that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Committed {
    /// What the unit's command came to, if it had one.
    pub outcome: Option<CommandOutcome>,
}

/// A cause that only a log reader wants.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a unit of work was not written. Every adapter looks in the order of the variants, so that all report alike.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The idempotency key has an answer that still counts: read it.
    #[error("the idempotency key has been used")]
    DuplicateIdempotencyKey,
    /// An update or guard met another version, an insert an aggregate that is there: load and decide again.
    #[error("{0:?} has changed since it was loaded")]
    Conflict(AggregateRef),
    /// A room takes no newcomers.
    #[error("the room takes no newcomers")]
    Refused(#[source] RoomRefusal),
    /// A constraint of the database said no: the code is wrong, the data is safe.
    #[error("the constraint {constraint} would be broken")]
    Backstop {
        /// The constraint, as the schema names it where the database tells, else what it said.
        constraint: String,
    },
    /// Storage cannot be reached, or has no room for more work. Nothing was written.
    #[error("storage is unavailable")]
    Unavailable(#[source] Source),
    /// The answer to the commit was lost: all of it was written, or nothing.
    #[error("the outcome of the commit is unknown")]
    OutcomeUnknown(#[source] Source),
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::account::Account;
    use crate::{EntryId, Money, PaymentId};

    fn commanded(command: Command) -> UnitOfWork {
        UnitOfWork { command: Some(command), ..UnitOfWork::default() }
    }

    #[test]
    fn what_is_nearest_to_the_end_of_a_purchase_goes_first() {
        let id = Uuid::from_u128(1);
        let (room_id, user_id, now) = (RoomId::new(id), UserId::new(id), Timestamp::MIN);
        let join = Join { token_id: QueueTokenId::new(id), room_id, user_id, now };
        assert_eq!(commanded(Command::Join(join)).priority(), Priority::Join);
        assert_eq!(commanded(Command::PruneAnswers { now, limit: 1 }).priority(), Priority::Join);
        assert_eq!(commanded(Command::ExpireHolds { now, limit: 1 }).priority(), Priority::Pay);
        let token = QueueToken {
            id: QueueTokenId::new(id),
            room_id,
            user_id,
            ticket: TicketNumber(1),
            entered_at: now,
            state: crate::queue::QueueTokenState::Wait,
        };
        let mut work =
            UnitOfWork { queue_tokens: vec![Versioned::new(token, Version::FIRST)], ..Default::default() };
        assert_eq!(work.priority(), Priority::Hold, "a place is given back");
        work.payments.push(Payment {
            id: PaymentId::new(id),
            reservation_id: ReservationId::new(id),
            user_id,
            entry_id: EntryId::new(id),
            amount: Money::ZERO,
            paid_at: now,
            tickets: Vec::new(),
        });
        assert_eq!(work.priority(), Priority::Pay, "a payment ends the token as well");
        let charge =
            UnitOfWork { accounts: vec![Change::Insert(Account::empty(user_id))], ..Default::default() };
        assert_eq!(charge.priority(), Priority::Pay);
    }

    #[test]
    fn all_priorities_are_listed_the_first_first() {
        assert!(Priority::ALL.is_sorted_by(|a, b| a > b));
    }
}
