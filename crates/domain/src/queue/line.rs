//! A line as it is known outside of the transactions that move it: enough to say who is where (ADR 0007).

use crate::Versioned;
use crate::queue::tickets::TicketSet;
use crate::queue::{QueueToken, QueueTokenState, Room, TicketNumber};

/// The counters of a line with its room, as stored at one moment. All but `waiting` only ever grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineState {
    /// The room.
    pub room: Versioned<Room>,
    /// How many wait.
    pub waiting: u64,
    /// The last ticket that was given.
    pub last_ticket: TicketNumber,
    /// The highest ticket that was ever admitted: nobody at or before it waits.
    pub admitted_through: TicketNumber,
    /// How many left the line without being admitted. Each has its number, from 1, in commit order.
    pub departures: i64,
}

impl LineState {
    /// How many of those behind the last one admitted have left the line.
    #[must_use]
    pub fn departed_in_line(&self) -> u64 {
        let behind = self.last_ticket.0.saturating_sub(self.admitted_through.0);
        u64::try_from(behind).unwrap_or(0).saturating_sub(self.waiting)
    }
}

/// Somebody who left a line without being admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// The number of the departure in its line.
    pub number: i64,
    /// Whose place was left.
    pub ticket: TicketNumber,
}

/// Where a ticket stands in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceInLine {
    /// It waits. 1 is the next to be admitted.
    Waiting {
        /// 1 for the next to be admitted.
        position: u64,
    },
    /// It is not in line any more: admitted, or given up.
    Left,
    /// The line has given no such ticket, as far as is known.
    Unknown,
}

/// What is known of a line. It is put together from pieces that may come late, twice or in any order, and every piece
/// only moves it forward: so nobody's position ever grows, and once all pieces are in, it is exact.
///
/// A ticket takes one bit, from the last one admitted to the last one that left: 125 kB at 1,000,000 waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineView {
    room: Versioned<Room>,
    last_ticket: i64,
    admitted_through: i64,
    departures_seen: i64,
    departed: TicketSet,
    /// How many members of `departed` are at or before `admitted_through`.
    departed_before: u64,
}

impl LineView {
    /// An empty line.
    #[must_use]
    pub fn new(room: Versioned<Room>) -> Self {
        Self {
            room,
            last_ticket: 0,
            admitted_through: 0,
            departures_seen: 0,
            departed: TicketSet::default(),
            departed_before: 0,
        }
    }

    /// The room.
    #[must_use]
    pub const fn room(&self) -> &Room {
        &self.room.value
    }

    /// The number up to which every departure is known.
    #[must_use]
    pub const fn departures_seen(&self) -> i64 {
        self.departures_seen
    }

    /// Takes in the counters of a moment. One before those that are known changes nothing.
    pub fn advance(&mut self, state: &LineState) {
        if state.room.version > self.room.version {
            self.room = state.room;
        }
        self.joined(state.last_ticket);
        self.admitted(state.admitted_through);
    }

    /// This ticket has been given, and all before it.
    pub fn joined(&mut self, ticket: TicketNumber) {
        self.last_ticket = self.last_ticket.max(ticket.0);
    }

    /// This ticket has been admitted: nobody at or before it waits.
    pub fn admitted(&mut self, through: TicketNumber) {
        if through.0 > self.admitted_through {
            self.admitted_through = through.0;
            self.departed.forget_below(through.0);
            self.departed_before = self.departed.count_below(through.0.saturating_add(1));
        }
    }

    /// The holder of this ticket has left the line without being admitted.
    pub fn departed(&mut self, ticket: TicketNumber) {
        if ticket.0 > self.admitted_through {
            self.departed.insert(ticket.0);
        }
    }

    /// Whether a token, as it was read or written by itself, is further on than the line knows.
    #[must_use]
    pub fn is_behind(&self, token: &QueueToken) -> bool {
        let place = self.place(token.ticket);
        if token.state == QueueTokenState::Wait {
            place == PlaceInLine::Unknown
        } else {
            place != PlaceInLine::Left
        }
    }

    /// Takes in a token as it was read or written by itself.
    pub fn met(&mut self, token: &QueueToken) {
        self.joined(token.ticket);
        match token.state {
            QueueTokenState::Wait => {}
            QueueTokenState::Expired { activated_at: None, .. } => self.departed(token.ticket),
            QueueTokenState::Active { .. } | QueueTokenState::Expired { .. } => self.admitted(token.ticket),
        }
    }

    /// All departures up to this number are in.
    pub fn departures_are_known(&mut self, through: i64) {
        self.departures_seen = self.departures_seen.max(through);
    }

    /// Where a ticket stands.
    #[must_use]
    pub fn place(&self, ticket: TicketNumber) -> PlaceInLine {
        if ticket.0 <= self.admitted_through || self.departed.contains(ticket.0) {
            return PlaceInLine::Left;
        }
        if ticket.0 > self.last_ticket {
            return PlaceInLine::Unknown;
        }
        PlaceInLine::Waiting { position: self.position(ticket) }
    }

    /// The position of a ticket that waits, 1 for the next to be admitted: ticket - admitted - departed in between.
    #[must_use]
    pub fn position(&self, ticket: TicketNumber) -> u64 {
        let behind = u64::try_from(ticket.0.saturating_sub(self.admitted_through)).unwrap_or(0);
        let departed = self.departed.count_below(ticket.0).saturating_sub(self.departed_before);
        behind.saturating_sub(departed).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::queue::{DEFAULT_ROOM_ID, RoomPolicy};
    use crate::{Timestamp, Version};

    fn room(version: i64) -> Versioned<Room> {
        let room = Room::new(DEFAULT_ROOM_ID, RoomPolicy::default(), Timestamp::MIN);
        Versioned::new(room, Version::new(version))
    }

    /// A line as storage has it: written to be read.
    #[derive(Debug, Clone, Default)]
    struct Stored {
        waiting: BTreeSet<i64>,
        departed: Vec<i64>,
        last_ticket: i64,
        admitted_through: i64,
    }

    impl Stored {
        fn join(&mut self, people: i64) {
            self.waiting.extend(self.last_ticket + 1..=self.last_ticket + people);
            self.last_ticket += people;
        }

        fn admit(&mut self, people: i64) {
            for _ in 0..people {
                if let Some(ticket) = self.waiting.pop_first() {
                    self.admitted_through = ticket;
                }
            }
        }

        fn leave(&mut self, nth: usize) {
            if let Some(ticket) = self.waiting.iter().nth(nth % self.waiting.len().max(1)).copied() {
                self.waiting.remove(&ticket);
                self.departed.push(ticket);
            }
        }

        fn state(&self) -> LineState {
            LineState {
                room: room(1),
                waiting: u64::try_from(self.waiting.len()).unwrap(),
                last_ticket: TicketNumber(self.last_ticket),
                admitted_through: TicketNumber(self.admitted_through),
                departures: i64::try_from(self.departed.len()).unwrap(),
            }
        }

        /// Where tickets 1 and up stand, and two that were never given.
        fn places(&self) -> Vec<PlaceInLine> {
            let mut places = vec![PlaceInLine::Left; usize::try_from(self.last_ticket).unwrap()];
            for (ticket, position) in self.waiting.iter().zip(1..) {
                places[usize::try_from(ticket - 1).unwrap()] = PlaceInLine::Waiting { position };
            }
            places.extend([PlaceInLine::Unknown; 2]);
            places
        }
    }

    /// Takes in all that came after what the view knows.
    fn refresh(view: &mut LineView, stored: &Stored) {
        view.advance(&stored.state());
        let seen = usize::try_from(view.departures_seen()).unwrap();
        for ticket in stored.departed.iter().skip(seen) {
            view.departed(TicketNumber(*ticket));
        }
        view.departures_are_known(stored.state().departures);
    }

    fn positions(view: &LineView, stored: &Stored) -> Vec<PlaceInLine> {
        (1..=stored.last_ticket + 2).map(|ticket| view.place(TicketNumber(ticket))).collect()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(i64),
        Admit(i64),
        Leave(usize),
        Refresh,
        Late(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..300_i64).prop_map(Step::Join),
            (1..200_i64).prop_map(Step::Admit),
            any::<usize>().prop_map(Step::Leave),
            any::<usize>().prop_map(Step::Leave),
            any::<usize>().prop_map(Step::Leave),
            Just(Step::Refresh),
            any::<usize>().prop_map(Step::Late),
        ]
    }

    #[test]
    fn a_view_knows_who_is_next() {
        let mut stored = Stored::default();
        let mut view = LineView::new(room(1));
        assert_eq!(view.place(TicketNumber(1)), PlaceInLine::Unknown);
        stored.join(5);
        stored.leave(2);
        refresh(&mut view, &stored);
        let at = |view: &LineView| [1, 2, 3, 4, 5].map(|ticket| view.place(TicketNumber(ticket)));
        let waiting = |position| PlaceInLine::Waiting { position };
        assert_eq!(at(&view), [waiting(1), waiting(2), PlaceInLine::Left, waiting(3), waiting(4)]);
        assert_eq!(stored.state().departed_in_line(), 1);
        stored.admit(3);
        refresh(&mut view, &stored);
        let left = PlaceInLine::Left;
        assert_eq!(at(&view), [left, left, left, left, waiting(1)]);
        assert_eq!(stored.state().departed_in_line(), 0, "it is before the last one admitted");
    }

    #[test]
    fn the_newest_room_counts() {
        let mut view = LineView::new(room(4));
        let state = |version| LineState { room: room(version), ..Stored::default().state() };
        view.advance(&state(3));
        assert_eq!(view.room.version, Version::new(4));
        view.advance(&state(5));
        assert_eq!(view.room.version, Version::new(5));
    }

    #[test]
    fn a_million_waiters_take_less_than_a_quarter_of_a_megabyte() {
        let mut view = LineView::new(room(1));
        view.joined(TicketNumber(1_000_000));
        assert_eq!(view.departed.bytes(), 0, "nothing before somebody leaves");
        for ticket in (1..=1_000_000).step_by(3) {
            view.departed(TicketNumber(ticket));
        }
        assert_eq!(view.position(TicketNumber(1_000_000)), 1_000_000 - 333_333);
        assert!(view.departed.bytes() < 250_000, "{}", view.departed.bytes());
        view.admitted(TicketNumber(999_000));
        assert_eq!(view.position(TicketNumber(1_000_000)), 1_000 - 333);
        assert!(view.departed.bytes() < 1_000, "{}", view.departed.bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Whatever comes late, twice or from this node first: nobody moves back, and once all is in it is exact.
        #[test]
        fn positions_never_grow_and_are_exact_at_rest(steps in prop::collection::vec(step(), 1..60)) {
            let (mut stored, mut view) = (Stored::default(), LineView::new(room(1)));
            let mut history = vec![stored.clone()];
            for step in steps {
                let before = positions(&view, &stored);
                match step {
                    Step::Join(people) => stored.join(people),
                    Step::Admit(people) => stored.admit(people),
                    Step::Leave(nth) => {
                        stored.leave(nth);
                        // Half of the departures are this node's own, which it knows at once.
                        if let (true, Some(ticket)) = (nth % 2 == 0, stored.departed.last()) {
                            view.departed(TicketNumber(*ticket));
                        }
                    }
                    Step::Refresh => {
                        refresh(&mut view, &stored);
                        prop_assert_eq!(positions(&view, &stored), stored.places());
                    }
                    Step::Late(nth) => {
                        let old = history.get(nth % history.len()).unwrap().clone();
                        view.advance(&old.state());
                        for ticket in &old.departed {
                            view.departed(TicketNumber(*ticket));
                        }
                    }
                }
                for (before, after) in before.into_iter().zip(positions(&view, &stored)) {
                    match (before, after) {
                        (PlaceInLine::Waiting { position: before }, PlaceInLine::Waiting { position: after }) => {
                            prop_assert!(after <= before, "{} to {}", before, after);
                        }
                        (before, after) => prop_assert!(
                            before == after || before == PlaceInLine::Unknown || after == PlaceInLine::Left,
                            "{:?} to {:?}", before, after
                        ),
                    }
                }
                history.push(stored.clone());
            }
            refresh(&mut view, &stored);
            prop_assert_eq!(positions(&view, &stored), stored.places());
        }

        #[test]
        fn a_set_counts_like_a_naive_one(
            tickets in prop::collection::vec(0..20_000_i64, 0..400), floor in 0..20_000_i64, below in 0..21_000_i64,
        ) {
            let (mut set, mut naive) = (TicketSet::default(), BTreeSet::new());
            for ticket in tickets {
                set.insert(ticket);
                naive.insert(ticket);
            }
            let between = |set: &TicketSet| set.count_below(below.max(floor)) - set.count_below(floor);
            let expected = u64::try_from(naive.range(floor..below.max(floor)).count()).unwrap();
            prop_assert_eq!(between(&set), expected);
            set.forget_below(floor);
            prop_assert_eq!(between(&set), expected);
            for ticket in floor..floor + 600 {
                prop_assert_eq!(set.contains(ticket), naive.contains(&ticket));
            }
        }
    }
}
