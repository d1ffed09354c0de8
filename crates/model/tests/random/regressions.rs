//! Histories that went wrong once, and some that show what a history is.

use frontrow_model::{Operation::*, Patch, Step, Step::*};

use crate::ground::{Adapter, Ground};
use crate::run::Setting;

fn replay(steps: Vec<Step>) {
    for adapter in [Adapter::Memory, Adapter::Sqlite, Adapter::Postgres] {
        let Some(ground) = Ground::open(adapter) else { continue };
        let replayed = Setting::new(&ground, None).replay(&steps, || ());
        replayed.unwrap_or_else(|why| panic!("{adapter:?}: {why}"));
    }
}

/// A test of each history, on every adapter.
macro_rules! history {
    ($($name:ident: $steps:expr),+ $(,)?) => {
        $(#[test]
        fn $name() {
            replay($steps);
        })+
    };
}

history! {
    a_purchase: vec![
        Alone(Enter { call: 1, user: 2, concert: Some(1) }),
        Alone(Admit { room: 1, count: 1 }),
        Alone(Reserve { call: 2, user: 2, token: Some(1), date: 0, seats: vec![1, 0], key: Some(0) }),
        Alone(Charge { call: 3, user: 2, amount: 250, key: None }),
        Together(vec![
            Pay { call: 4, user: 2, reservation: 2, key: Some(1) },
            Pay { call: 5, user: 2, reservation: 2, key: Some(1) },
        ]),
        Alone(Cancel { user: 2, reservation: 2 }),
    ],
    a_hold_that_lapses_gives_way_to_another: vec![
        Alone(Enter { call: 1, user: 0, concert: Some(1) }),
        Alone(Admit { room: 1, count: 1 }),
        Alone(Reserve { call: 2, user: 0, token: Some(1), date: 0, seats: vec![0, 2], key: None }),
        Alone(Wait { micros: 300_000_000 }),
        Together(vec![
            Reserve { call: 3, user: 0, token: Some(1), date: 0, seats: vec![2], key: None },
            Pay { call: 4, user: 0, reservation: 2, key: None },
            Sweep,
        ]),
        Alone(Pay { call: 5, user: 0, reservation: 3, key: None }),
    ],
    a_newcomer_is_refused_once_all_is_sold: vec![
        Alone(Enter { call: 1, user: 2, concert: Some(3) }),
        Alone(Admit { room: 1, count: 1 }),
        Alone(Reserve { call: 2, user: 2, token: Some(1), date: 3, seats: vec![12, 11], key: None }),
        Alone(Wait { micros: 2_000_000 }),
        Alone(Enter { call: 3, user: 0, concert: Some(3) }),
        Alone(Pay { call: 4, user: 2, reservation: 2, key: Some(1) }),
        Alone(Enter { call: 5, user: 1, concert: Some(3) }),
        Alone(Wait { micros: 1_500_000 }),
        Alone(FindReservation { user: 2, reservation: 2 }),
        Alone(Enter { call: 6, user: 3, concert: Some(3) }),
        Alone(Enter { call: 7, user: 0, concert: Some(3) }),
        // Another concert in the same room.
        Alone(Enter { call: 8, user: 3, concert: Some(1) }),
        Alone(Enter { call: 9, user: 3, concert: Some(3) }),
    ],
    tickets_are_found_after_the_answer_of_the_payment_is_forgotten: vec![
        Alone(Enter { call: 1, user: 2, concert: Some(1) }),
        Alone(Admit { room: 1, count: 1 }),
        Alone(Reserve { call: 2, user: 2, token: Some(1), date: 0, seats: vec![4, 1, 0], key: None }),
        Alone(Pay { call: 3, user: 2, reservation: 2, key: Some(1) }),
        Alone(Wait { micros: 25 * 3_600_000_000 }),
        Alone(Prune),
        Alone(Pay { call: 4, user: 2, reservation: 2, key: Some(1) }),
        Alone(FindReservation { user: 2, reservation: 2 }),
        Alone(ListReservations { user: 2 }),
    ],
}

/// They were near the head of the line while a tick admitted five, and are not once it admits one. What was noted of them then is
/// nothing to judge them by when their turn comes near again. The room is changed before its first tick is due, so that it
/// admits nobody then.
#[test]
fn nobody_is_judged_by_the_time_further_back() {
    let enter = |call, user| Alone(Enter { call, user, concert: Some(1) });
    let admits = |batch| {
        let patch = Patch { admit_batch: Some(batch), ..Patch::default() };
        Alone(ChangeRoom { room: 1, patch })
    };
    let watch = |seconds| Alone(Watch { seconds, polling: None });
    replay(vec![
        enter(1, 0),
        enter(2, 1),
        enter(3, 2),
        enter(4, 3),
        admits(5),
        watch(45),
        admits(1),
        watch(125),
    ]);
}

/// Reservation and account are read at two moments. A payment that sees another one's effect on the balance, but not on the
/// reservation, must not be told that money is short. Each round they meet in another way.
#[test]
fn whoever_pays_twice_is_told_that_it_is_paid() {
    let ground = Ground::open(Adapter::Memory).unwrap();
    for first in 10..60 {
        let pay = |call| Pay { call, user: 2, reservation: 2, key: None };
        let steps = [
            Alone(Enter { call: 1, user: 2, concert: Some(1) }),
            Alone(Admit { room: 1, count: 1 }),
            Alone(Reserve { call: 2, user: 2, token: Some(1), date: 0, seats: vec![0, 1, 3], key: None }),
            Together(vec![pay(first), pay(first + 1), pay(first + 2)]),
        ];
        let replayed = Setting::new(&ground, None).replay(&steps, || ());
        assert_eq!(replayed, Ok(()), "{first}");
    }
}

/// Seats and what the user has of the date are read at two moments. Whoever finds the very seat taken that they hold themselves since
/// then is told of the limit, as in every order; and of nothing at all that was given back meanwhile. Each round they meet in another way.
#[test]
fn whoever_took_the_seat_themselves_is_told_of_the_limit() {
    let ground = Ground::open(Adapter::Memory).unwrap();
    for first in 10..60 {
        let reserve = |call, seats| Reserve { call, user: 2, token: Some(1), date: 0, seats, key: None };
        let steps = [
            Alone(Enter { call: 1, user: 2, concert: Some(1) }),
            Alone(Admit { room: 1, count: 1 }),
            Together(vec![reserve(first, vec![0, 1, 2]), reserve(first + 1, vec![0, 1, 3])]),
            Together(vec![
                reserve(first + 2, vec![0]),
                Cancel { user: 2, reservation: first },
                Cancel { user: 2, reservation: first + 1 },
            ]),
        ];
        let replayed = Setting::new(&ground, None).replay(&steps, || ());
        assert_eq!(replayed, Ok(()), "{first}");
    }
}
