//! What operators did. An entry is written in the unit of work of the action that it records, and never touched again.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::concert::{Concert, PerformanceDate, SeatPlan};
use crate::queue::{RoomMode, RoomPolicy};
use crate::unit_of_work::CommandOutcome;
use crate::{AuditEntryId, ConcertId, Money, PerformanceDateId, RoomId, Timestamp, UserId};

/// An action of an operator, with what it was done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAction {
    /// A concert was made.
    CreateConcert(ConcertId),
    /// A performance date was made.
    CreatePerformanceDate(PerformanceDateId),
    /// The policy of a room was changed.
    ChangeRoom(RoomId),
    /// Waiters of a room were admitted by hand.
    AdmitWaiters(RoomId),
}

impl OperatorAction {
    /// The name of the action in the contract and in storage.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateConcert(_) => "CREATE_CONCERT",
            Self::CreatePerformanceDate(_) => "CREATE_PERFORMANCE_DATE",
            Self::ChangeRoom(_) => "CHANGE_ROOM",
            Self::AdmitWaiters(_) => "ADMIT_WAITERS",
        }
    }

    /// What it was done to.
    #[must_use]
    pub const fn target(self) -> Uuid {
        match self {
            Self::CreateConcert(id) => id.get(),
            Self::CreatePerformanceDate(id) => id.get(),
            Self::ChangeRoom(id) | Self::AdmitWaiters(id) => id.get(),
        }
    }

    /// The action of this name, done to this.
    #[must_use]
    pub fn named(name: &str, target: Uuid) -> Option<Self> {
        let actions = [
            Self::CreateConcert(ConcertId::new(target)),
            Self::CreatePerformanceDate(PerformanceDateId::new(target)),
            Self::ChangeRoom(RoomId::new(target)),
            Self::AdmitWaiters(RoomId::new(target)),
        ];
        actions.into_iter().find(|action| action.name() == name)
    }
}

/// One fact of a state: what JSON can say, without floats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// There is none, or no limit.
    Absent,
    /// A count, an amount or a duration.
    Number(i64),
    /// A name, an id or a time.
    Text(String),
    /// Several parts.
    List(Vec<Facts>),
}

/// What there was, or is now, by field, as the contract names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts(pub BTreeMap<String, Fact>);

/// Who did what, when, and what it was before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Which entry. Later ones have higher ids.
    pub id: AuditEntryId,
    /// When.
    pub at: Timestamp,
    /// The operator.
    pub user_id: UserId,
    /// What was done to what.
    pub action: OperatorAction,
    /// What there was; `None` where something was made.
    pub before: Option<Facts>,
    /// What there is now.
    pub after: Facts,
}

/// An operator, at a moment, about to act: what every entry has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acting {
    /// The id of the entry.
    pub id: AuditEntryId,
    /// When.
    pub at: Timestamp,
    /// The operator.
    pub user_id: UserId,
}

impl Acting {
    /// A concert is made, with a room of its own where there is a policy.
    #[must_use]
    pub fn creates_concert(self, concert: &Concert, own_room: Option<&RoomPolicy>) -> AuditEntry {
        let mut after = vec![
            text("title", concert.title.as_str()),
            text("venue", concert.venue.as_str()),
            text("roomId", concert.room_id),
        ];
        after.extend(own_room.map(policy_facts).unwrap_or_default());
        self.entry(OperatorAction::CreateConcert(concert.id), None, after)
    }

    /// A date is made with these seats.
    #[must_use]
    pub fn creates_date(self, date: &PerformanceDate, seats: &SeatPlan) -> AuditEntry {
        let sections = seats.sections().iter().map(|section| {
            facts(vec![
                text("section", section.section.as_str()),
                text("grade", section.grade.as_str()),
                money("price", section.price),
                number("rows", section.rows),
                number("seatsPerRow", section.seats_per_row),
            ])
        });
        let after = vec![
            text("concertId", date.concert_id),
            text("startsAt", date.starts_at),
            date.on_sale_at.map_or_else(|| absent("onSaleAt"), |at| text("onSaleAt", at)),
            ("sections".to_owned(), Fact::List(sections.collect())),
        ];
        self.entry(OperatorAction::CreatePerformanceDate(date.id), None, after)
    }

    /// The policy of a room changes.
    #[must_use]
    pub fn changes_room(self, id: RoomId, before: &RoomPolicy, after: &RoomPolicy) -> AuditEntry {
        let before = Some(facts(policy_facts(before)));
        self.entry(OperatorAction::ChangeRoom(id), before, policy_facts(after))
    }

    /// Up to `count` waiters are admitted. How many that were, [`AuditEntry::completed`] says.
    #[must_use]
    pub fn admits(self, id: RoomId, count: u32) -> AuditEntry {
        self.entry(OperatorAction::AdmitWaiters(id), None, vec![number("count", count)])
    }

    fn entry(self, action: OperatorAction, before: Option<Facts>, after: Vec<(String, Fact)>) -> AuditEntry {
        let Self { id, at, user_id } = self;
        AuditEntry { id, at, user_id, action, before, after: facts(after) }
    }
}

impl AuditEntry {
    /// The entry as it is stored, once it is known what the command of its unit of work came to.
    #[must_use]
    pub fn completed(&self, outcome: Option<CommandOutcome>) -> Self {
        let mut entry = self.clone();
        if let Some(CommandOutcome::Admitted(admitted)) = outcome {
            entry.after.0.extend([number("admitted", admitted)]);
        }
        entry
    }
}

fn facts(facts: Vec<(String, Fact)>) -> Facts {
    Facts(facts.into_iter().collect())
}

fn policy_facts(policy: &RoomPolicy) -> Vec<(String, Fact)> {
    let limit = |name: &str, limit: Option<u32>| limit.map_or_else(|| absent(name), |n| number(name, n));
    let mode = RoomMode::NAMES.iter().find(|(mode, _)| *mode == policy.mode).map_or("", |(_, name)| name);
    vec![
        number("admitBatch", policy.admit_batch),
        number("admitIntervalSeconds", policy.admit_interval_seconds),
        number("activeTtlSeconds", policy.active_ttl_seconds),
        limit("maxActive", policy.max_active),
        limit("maxWaiting", policy.max_waiting),
        limit("waitGraceSeconds", policy.wait_grace_seconds),
        policy.opens_at.map_or_else(|| absent("opensAt"), |at| text("opensAt", at)),
        text("mode", mode),
    ]
}

fn text(name: &str, value: impl ToString) -> (String, Fact) {
    (name.to_owned(), Fact::Text(value.to_string()))
}

fn number(name: &str, value: u32) -> (String, Fact) {
    (name.to_owned(), Fact::Number(value.into()))
}

fn money(name: &str, value: Money) -> (String, Fact) {
    (name.to_owned(), Fact::Number(value.minor_units()))
}

fn absent(name: &str) -> (String, Fact) {
    (name.to_owned(), Fact::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: RoomId = RoomId::new(Uuid::from_u128(3));

    fn acting() -> Acting {
        Acting {
            id: AuditEntryId::new(Uuid::from_u128(1)),
            at: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
            user_id: UserId::new(Uuid::from_u128(2)),
        }
    }

    #[test]
    fn a_change_of_a_room_tells_both_policies() {
        let before = RoomPolicy::default();
        let after = RoomPolicy { admit_batch: 20, max_active: Some(7), mode: RoomMode::Hold, ..before };
        let entry = acting().changes_room(ROOM, &before, &after);
        assert_eq!(entry.action, OperatorAction::ChangeRoom(ROOM));
        let before = entry.before.unwrap();
        assert_eq!(before.0.len(), 8, "every field of a policy");
        let differing = |of: &Facts, other: &Facts| -> Vec<(String, Fact)> {
            let differs = |(name, fact): &(&String, &Fact)| other.0.get(*name) != Some(*fact);
            of.0.iter().filter(differs).map(|(name, fact)| (name.clone(), fact.clone())).collect()
        };
        assert_eq!(
            differing(&before, &entry.after),
            [number("admitBatch", 10), absent("maxActive"), text("mode", "AUTO")]
        );
        assert_eq!(
            differing(&entry.after, &before),
            [number("admitBatch", 20), number("maxActive", 7), text("mode", "HOLD")]
        );
    }

    #[test]
    fn only_a_command_adds_what_it_came_to() {
        let entry = acting().admits(ROOM, 10);
        assert_eq!(entry.completed(None), entry);
        let done = entry.completed(Some(CommandOutcome::Admitted(4)));
        assert_eq!(done.after, facts(vec![number("count", 10), number("admitted", 4)]));
    }
}
