//! The contract of a storage adapter: what the ports promise, and nothing of how an adapter keeps it.
//!
//! Every test is listed once in [`contract!`] and runs against every adapter. A new adapter is a function in
//! `adapters.rs` and a line at the end of this file. A test that is written but not listed is dead code, and so a
//! warning. Payments and tickets have no read port: that they were written shows by their constraints.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accounts;
mod adapters;
mod atomicity;
mod audit_log;
mod backstops;
mod batches;
mod concerts;
mod feeds;
mod fixture;
mod holds;
mod idempotency;
mod incarnation;
mod lines;
mod order;
mod pauses;
mod prune;
mod queue;
mod races;
mod reservations;
mod rooms;
mod snapshot;
mod versions;

/// Makes one test of each named case, for one adapter. No fixture means that the adapter cannot run here.
macro_rules! cases {
    ($adapter:ident; $($group:ident: $($case:ident),+;)+) => {
        $(mod $group {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(fixture) = crate::adapters::$adapter().await {
                    crate::$group::$case(&fixture).await;
                }
            })+
        })+
    };
}

macro_rules! contract {
    ($adapter:ident) => {
        mod $adapter {
            cases! { $adapter;
                rooms:
                    a_room_is_absent_until_it_is_inserted,
                    every_field_of_a_room_comes_back,
                    rooms_are_listed_by_id_in_pages,
                    a_room_is_due_from_its_tick_on,
                    a_tick_that_passed_before_the_first_waiter_is_not_due,
                    rooms_are_due_as_the_domain_says,
                    a_tick_too_far_ahead_is_found,
                    the_starts_of_sales_are_those_of_the_dates,
                    an_open_room_is_due_while_somebody_waits,
                    due_rooms_come_longest_due_first,
                    an_overview_counts_the_waiting_and_the_unlapsed;
                queue:
                    a_newcomer_waits_at_the_tail,
                    every_line_has_its_own_tickets,
                    joining_again_gives_the_same_token,
                    a_lapsed_token_is_expired_by_joining_again,
                    a_token_given_up_is_followed_by_one_at_the_tail,
                    a_closed_room_refuses_newcomers_only,
                    a_full_room_refuses_newcomers_only,
                    a_refused_newcomer_changes_nothing,
                    an_open_room_lets_straight_through,
                    an_open_room_lets_nobody_past_those_who_wait,
                    an_open_room_keeps_to_its_cap,
                    an_unknown_room_is_a_conflict,
                    admission_is_by_ticket,
                    admission_stops_at_the_cap,
                    admission_works_in_every_mode,
                    nobody_is_admitted_to_an_unknown_room,
                    lapsed_tokens_are_expired_in_batches,
                    every_state_of_a_token_comes_back,
                    the_extremes_of_time_come_back_in_tokens;
                lines:
                    a_line_counts_what_moves_it,
                    lines_are_read_by_room,
                    rooms_are_paged_by_id,
                    whoever_goes_straight_through_is_the_last_one_admitted,
                    paying_while_waiting_is_a_departure,
                    departures_are_read_from_where_one_was,
                    a_view_tells_who_is_where,
                    the_abandoned_near_the_head_are_given_up,
                    nobody_is_judged_by_what_was_seen_further_back,
                    clocks_start_again_where_nobody_is_judged,
                    only_waiters_are_given_up,
                    departures_are_gapless_when_many_leave_at_once,
                    a_crowd_is_put_at_the_tail_in_order;
                incarnation:
                    lines_come_with_the_incarnation_of_the_data,
                    an_incarnation_begins_after_the_one_that_is_named;
                concerts:
                    concerts_and_dates_are_absent_until_inserted,
                    every_field_of_a_concert_comes_back,
                    every_field_of_a_date_comes_back,
                    concerts_are_listed_by_id_in_pages,
                    dates_are_listed_by_start,
                    reservable_dates_start_later_and_have_a_seat_left,
                    dates_count_lapsed_holds_as_free,
                    an_offer_is_the_lowest_unsold_price_of_the_dates_ahead,
                    offers_are_of_their_own_concerts,
                    every_field_of_a_seat_comes_back,
                    seats_are_loaded_by_id,
                    a_stadium_is_written_and_read_at_once,
                    seats_are_listed_by_place,
                    seats_are_shown_as_they_are_now,
                    sales_are_counted_as_they_are_now,
                    storage_answers;
                feeds:
                    a_date_has_a_feed,
                    a_date_made_whole_is_of_the_first_version,
                    every_change_of_a_seat_is_told,
                    every_way_a_hold_lapses_is_told,
                    a_feed_tells_of_its_own_date_alone,
                    what_is_refused_is_not_told,
                    a_feed_does_not_know_the_future,
                    a_follower_misses_nothing;
                reservations:
                    a_reservation_is_absent_until_it_is_inserted,
                    every_field_of_a_reservation_comes_back,
                    the_seats_of_a_reservation_are_ordered,
                    a_reservation_is_seen_by_its_user_alone,
                    a_view_shows_the_status_of_now,
                    own_reservations_are_listed_newest_first_in_pages,
                    a_paid_reservation_shows_its_tickets,
                    live_seats_are_held_unlapsed_or_bought,
                    a_payment_is_written_whole,
                    a_cancelled_seat_sells_again;
                holds:
                    lapsed_holds_are_expired_in_batches,
                    a_hold_expires_with_all_its_seats,
                    only_unpaid_holds_expire,
                    a_lapsed_hold_gives_way_in_one_unit;
                accounts:
                    an_account_is_absent_until_its_first_entry,
                    every_field_of_an_account_comes_back,
                    every_field_of_an_entry_comes_back,
                    entries_are_listed_newest_first_in_pages;
                idempotency:
                    a_record_is_absent_until_it_is_written,
                    every_byte_of_an_answer_comes_back,
                    keys_of_different_users_never_meet,
                    a_used_key_is_refused_until_it_expires,
                    an_expired_record_is_replaced,
                    an_expired_record_stays_when_its_heir_fails;
                audit_log:
                    every_field_of_what_was_done_comes_back,
                    what_was_done_is_listed_newest_first_in_pages,
                    an_admission_says_how_many_it_came_to,
                    an_action_that_fails_is_not_recorded,
                    an_entry_is_recorded_once;
                pauses:
                    a_pause_keeps_the_time_that_remains,
                    a_pause_never_shortens_a_token,
                    paused_tokens_count_as_active,
                    a_paused_token_ends_when_it_is_given_up,
                    a_hold_that_was_decided_before_a_pause_conflicts,
                    no_hold_slips_past_a_pause,
                    a_pause_of_no_room_is_a_conflict;
                prune:
                    ended_tokens_are_pruned_from_their_time_on,
                    pruning_goes_on_where_it_was,
                    only_what_nobody_needs_is_pruned,
                    numbers_go_on_after_pruning,
                    answers_past_their_time_are_pruned_in_batches,
                    traffic_goes_on_while_much_is_pruned,
                    a_prune_that_locks_everybody_out_is_noticed;
                versions:
                    an_inserted_aggregate_has_the_first_version,
                    every_update_is_one_more_version,
                    an_update_of_another_version_is_a_conflict,
                    an_update_of_an_absent_aggregate_is_a_conflict,
                    an_insert_of_a_present_aggregate_is_a_conflict,
                    a_guard_that_holds_changes_nothing,
                    a_guard_of_another_version_is_a_conflict,
                    a_guard_of_an_absent_aggregate_is_a_conflict,
                    an_empty_unit_of_work_is_committed;
                order:
                    faults_are_reported_by_stage,
                    conflicts_are_reported_by_kind,
                    conflicts_of_one_kind_are_reported_by_id;
                atomicity:
                    a_unit_that_fails_leaves_nothing_behind,
                    a_unit_that_fails_leaves_its_neighbours_alone,
                    a_dropped_commit_is_whole_or_absent;
                batches:
                    an_account_twice_in_a_batch_is_charged_once,
                    a_seat_twice_in_a_batch_is_held_once,
                    a_key_twice_in_a_batch_counts_once,
                    one_that_fails_leaves_255_alone;
                backstops:
                    one_live_hold_per_seat,
                    no_hold_of_a_sold_seat,
                    no_revival_of_a_hold_whose_seat_is_taken,
                    one_live_token_per_room_and_user,
                    one_entry_per_number,
                    one_payment_per_reservation,
                    one_payment_per_entry,
                    one_ticket_per_seat,
                    one_seat_per_place,
                    rows_that_never_change_are_inserted_once,
                    a_concert_has_a_room,
                    a_date_has_a_concert,
                    a_seat_has_a_date,
                    a_taken_seat_has_a_reservation,
                    a_reservation_has_a_date_a_room_a_token_and_seats,
                    an_entry_has_an_account,
                    an_entry_of_a_payment_has_a_reservation,
                    a_payment_has_a_reservation_an_account_and_an_entry,
                    a_ticket_has_a_seat;
                races:
                    tickets_have_no_gap_or_twin,
                    one_user_joining_at_once_gets_one_token,
                    a_room_is_never_filled_past_its_limit,
                    an_open_room_is_never_opened_past_its_cap,
                    admissions_never_pass_the_cap,
                    admissions_take_each_waiter_once_and_in_order,
                    a_tick_is_claimed_once,
                    the_waiting_are_counted_right,
                    tokens_are_expired_once,
                    holds_are_expired_once,
                    one_update_of_a_version_wins,
                    one_insert_of_an_account_wins,
                    one_seat_goes_to_one_buyer,
                    crossing_holds_end,
                    payment_or_expiry,
                    payment_or_cancellation,
                    one_payment_of_many,
                    taking_over_or_expiry,
                    one_use_of_a_key_wins,
                    one_seat_in_a_place_wins,
                    nobody_sees_half_a_payment;
            }
        }
    };
}

contract!(memory);
contract!(sqlite);
contract!(postgres);
