//! All that anybody can see.

use crate::{DateSeen, EntrySeen, Model, Place, ReservationSeen, RoomSeen, SalesSeen, SeatStatus};

/// All that anybody can see at one moment, in an order that is the same however it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Every token, by name.
    pub places: Vec<Place>,
    /// Every room.
    pub rooms: Vec<RoomSeen>,
    /// Every date.
    pub dates: Vec<DateSeen>,
    /// Every seat.
    pub seats: Vec<SeatStatus>,
    /// The reservations of each user, by name.
    pub reservations: Vec<Vec<ReservationSeen>>,
    /// The balance of each user.
    pub balances: Vec<i64>,
    /// The history of each user, oldest first.
    pub entries: Vec<Vec<EntrySeen>>,
    /// The sales of each date.
    pub sales: Vec<SalesSeen>,
}

impl Model {
    /// All that anybody can see now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let users = 0..self.users;
        Snapshot {
            places: self.places().collect(),
            rooms: self.rooms_seen(),
            dates: self.dates_seen().map(|(_, date)| date).collect(),
            seats: self.seat_statuses(),
            reservations: users.clone().map(|user| self.reservations_of(user).collect()).collect(),
            balances: users.clone().map(|user| self.balance(user)).collect(),
            entries: users.map(|user| self.history(user).to_vec()).collect(),
            sales: (0..self.dates.len()).map(|date| self.sales_of(date)).collect(),
        }
    }
}

impl Snapshot {
    /// What is otherwise than `expected`, one line a difference.
    #[must_use]
    pub fn differences(&self, expected: &Self) -> Vec<String> {
        let mut found = Vec::new();
        compare(&mut found, "place", &self.places, &expected.places);
        compare(&mut found, "room", &self.rooms, &expected.rooms);
        compare(&mut found, "date", &self.dates, &expected.dates);
        compare(&mut found, "seat", &self.seats, &expected.seats);
        compare(&mut found, "reservations of user", &self.reservations, &expected.reservations);
        compare(&mut found, "balance of user", &self.balances, &expected.balances);
        compare(&mut found, "entries of user", &self.entries, &expected.entries);
        compare(&mut found, "sales of date", &self.sales, &expected.sales);
        found
    }
}

fn compare<T: PartialEq + std::fmt::Debug>(found: &mut Vec<String>, what: &str, got: &[T], expected: &[T]) {
    for index in 0..got.len().max(expected.len()) {
        let (got, expected) = (got.get(index), expected.get(index));
        if got != expected {
            found.push(format!("{what} {index}:\n     is {got:?}\n  model {expected:?}"));
        }
    }
}
