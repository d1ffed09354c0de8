//! Real races over HTTP: many clients at once against the very server that ships, on SQLite, and on two nodes that share
//! one PostgreSQL and take the requests in turns.
//!
//! Every race counts who won, because one in which everybody is refused proves nothing, and every race ends with an
//! audit of the database. `controls` runs some of the same races with a protection switched off, where they must fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod arena;
mod controls;
mod failures;
mod lapsed;
mod lapsing;
mod line;
mod money;
mod seats;

/// Makes one test of each named race, on one ground. `holding` says for how many seconds a hold lasts.
macro_rules! races {
    ($ground:ident; $($group:ident, holding $seconds:literal: $($race:ident),+;)+) => {
        $(mod $group {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $race() {
                let ground = crate::arena::Ground::$ground;
                if let Some(mut arena) = crate::arena::Arena::open(ground, $seconds).await {
                    crate::$group::$race(&mut arena).await;
                    arena.close().await;
                }
            })+
        })+
    };
}

macro_rules! on {
    ($module:ident, $ground:ident) => {
        mod $module {
            races! { $ground;
                seats, holding 300:
                    one_seat_goes_to_one_of_32,
                    overlapping_holds_share_no_seat,
                    nobody_passes_the_limit_by_asking_at_once,
                    a_house_is_sold_out_without_a_seat_sold_twice,
                    one_key_makes_one_reservation,
                    pay_or_cancel,
                    cancelling_at_once_gives_the_seat_back_once;
                money, holding 300:
                    a_hundred_payments_take_the_money_once,
                    a_hundred_payments_with_one_key_have_one_answer,
                    every_charge_that_is_acknowledged_counts,
                    one_first_charge_of_many_wins,
                    charges_with_one_key_count_once,
                    one_key_for_many_charges_fits_one,
                    payments_and_charges_of_one_account_add_up;
                line, holding 300:
                    one_person_asking_64_times_has_one_place,
                    one_batch_a_tick,
                    active_ones_never_pass_the_limit,
                    a_hold_of_the_room_counts_on_every_node,
                    joining_leaving_and_admitting_at_once,
                    paying_while_leaving_and_entering_again;
                lapsing, holding 1:
                    paying_around_the_deadline;
                lapsed, holding 300:
                    one_of_32_takes_a_lapsed_hold_over,
                    a_lapsing_token_is_no_hindrance_to_a_payment;
                failures, holding 300:
                    a_dropped_reservation_is_whole_or_absent,
                    a_dropped_payment_is_whole_or_absent,
                    a_stopped_server_keeps_what_it_acknowledged;
            }
        }
    };
}

on!(sqlite, Sqlite);
on!(postgres, Postgres);
