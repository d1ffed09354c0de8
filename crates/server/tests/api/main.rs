//! The contract of the API, over HTTP, on both databases.
//!
//! Every case is listed once in [`contract!`] and runs on each. A case that is written but not listed is dead code,
//! and so a warning. Without a PostgreSQL its half is skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod accounts;
mod admin;
mod audit_log;
mod bad_input;
mod browsers;
mod cashiers;
mod checks;
mod concerts;
mod forge;
mod gate;
mod idempotency;
mod identity;
mod lapsing;
mod lines;
mod nodes;
mod openings;
mod outage;
mod outside_identity;
mod payment;
mod queue;
mod rate_limits;
mod readiness;
mod reservations;
mod restart;
mod rooms;
mod rotation;
mod seats;
mod seats_since;
mod service;
mod silence;
mod slow_clients;
mod sold_out;
mod support;

use frontrow_testkit::app::Database;

async fn sqlite() -> Option<Database> {
    Some(Database::sqlite())
}

async fn postgres() -> Option<Database> {
    Database::postgres().await
}

/// Makes one test of each case of each group.
macro_rules! cases {
    ($database:ident, $how:ident; $($group:ident: $($case:ident),+;)+) => {
        $(mod $group {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                crate::support::$how(crate::$database().await, crate::$group::$case).await;
            })+
        })+
    };
}

/// The list. A `served` case gets a server with the default settings, an `unserved` one an empty database.
macro_rules! contract {
    ($database:ident) => {
        mod $database {
            mod served {
                cases! { $database, served;
                    accounts:
                        an_account_starts_empty,
                        a_charge_is_added_and_remembered,
                        the_history_comes_in_pages,
                        impossible_amounts_are_refused,
                        charges_that_meet_are_refused_never_lost_or_doubled;
                    admin:
                        a_concert_with_a_room_gets_one_of_its_own,
                        bad_concerts_and_dates_are_not_made,
                        deceptive_texts_are_refused,
                        texts_are_stored_in_nfc,
                        sales_follow_every_step;
                    audit_log:
                        every_action_is_recorded,
                        what_is_refused_is_not_recorded,
                        changes_that_meet_make_a_chain;
                    bad_input:
                        unknown_paths_are_not_found,
                        no_disguised_path_gets_past_a_proxys_path_rule,
                        other_methods_are_refused_and_the_allowed_ones_named,
                        bodies_are_json,
                        bodies_are_small,
                        nothing_makes_it_fail;
                    browsers:
                        no_page_of_another_origin_may_call_by_default,
                        every_answer_is_what_it_says_and_in_no_frame;
                    cashiers:
                        by_default_a_wallet_is_charged_by_its_owner;
                    checks:
                        of_a_hold,
                        of_gated_reads,
                        of_a_payment,
                        of_a_charge,
                        of_operators_calls;
                    concerts:
                        concerts_are_public,
                        concerts_come_in_pages,
                        a_page_has_20_unless_told,
                        a_bad_page_is_refused,
                        dates_tell_times_and_seats,
                        dates_are_those_to_come_with_a_seat_left,
                        dates_count_the_seats_that_are_left,
                        unknown_concerts_and_dates_are_not_found,
                        a_date_is_made_of_sections;
                    forge:
                        forged_tokens_open_nothing;
                    gate:
                        without_a_token_there_is_no_way_in,
                        a_forged_token_is_no_token,
                        a_token_serves_its_owner_alone,
                        a_token_serves_its_room_alone,
                        who_waits_waits,
                        an_expired_token_opens_nothing,
                        a_token_lapses_by_the_clock,
                        what_is_not_gated_needs_no_wait_token;
                    idempotency:
                        a_charge_is_replayed,
                        a_hold_and_its_payment_are_replayed,
                        a_key_belongs_to_one_request,
                        a_key_belongs_to_one_path,
                        a_key_belongs_to_one_user,
                        a_refusal_leaves_the_key_free,
                        a_key_is_printable_and_short,
                        twins_get_one_answer;
                    identity:
                        a_guest_session_is_a_user_with_a_token,
                        a_renewed_session_keeps_its_place_and_buys,
                        only_a_valid_token_without_a_role_is_renewed,
                        every_call_needs_a_bearer,
                        a_bad_bearer_is_refused,
                        a_bearer_is_good_until_it_expires,
                        a_user_id_may_be_any_uuid,
                        one_kind_of_token_is_never_the_other,
                        the_type_of_a_token_is_what_it_says,
                        any_library_with_the_secret_makes_access_tokens,
                        operators_calls_are_for_operators,
                        everybody_acts_for_themselves_only;
                    payment:
                        a_payment_changes_everything_at_once,
                        the_last_coin_pays,
                        the_live_token_of_that_room_ends,
                        without_a_live_token_it_is_paid_all_the_same,
                        too_poor_changes_nothing,
                        an_unknown_reservation_changes_nothing,
                        for_somebody_else_changes_nothing,
                        a_cancelled_hold_changes_nothing,
                        paying_again_changes_nothing,
                        malformed_payments_are_refused,
                        one_of_many_payments_wins,
                        two_holds_are_paid_from_one_account,
                        payment_and_cancellation_do_not_both_win;
                    queue:
                        a_newcomer_gets_a_token_and_a_place,
                        a_concert_leads_to_its_room,
                        entering_again_gives_the_same_token,
                        one_user_entering_at_once_gets_one_token,
                        positions_count_those_ahead,
                        the_wait_is_estimated_by_the_formula,
                        an_admitted_place_looks_so,
                        a_place_can_be_given_up,
                        after_the_end_there_is_a_new_token_at_the_tail,
                        looking_needs_the_own_token,
                        on_hold_newcomers_wait_for_who_knows_how_long,
                        a_closed_room_refuses_newcomers_only,
                        an_open_room_lets_everyone_in,
                        a_full_room_refuses_newcomers_only,
                        a_full_room_is_not_overfilled_by_a_crowd,
                        a_body_is_optional_but_not_arbitrary;
                    rate_limits:
                        nobody_is_limited_by_default;
                    readiness:
                        readiness_tells_the_age_of_every_pass;
                    reservations:
                        a_hold_says_what_is_held,
                        all_seats_or_none,
                        a_seat_goes_to_one_of_many,
                        an_own_hold_is_a_taken_seat_and_keeps_its_deadline,
                        impossible_holds_are_refused,
                        malformed_holds_are_refused,
                        a_users_seats_on_a_date_are_limited,
                        parallel_holds_keep_to_the_limit,
                        a_date_is_held_only_while_on_sale,
                        a_hold_can_be_given_back,
                        what_is_paid_is_not_given_back,
                        own_reservations_come_in_pages,
                        a_paid_reservation_shows_its_tickets,
                        a_hold_outlives_its_token;
                    openings:
                        no_tick_admits_before_the_opening,
                        an_opening_is_set_moved_and_cleared,
                        the_dates_of_a_concert_open_its_own_room,
                        a_pause_stops_the_sale_and_keeps_what_is_held;
                    rooms:
                        a_room_is_made_with_the_defaults_of_the_contract,
                        rooms_are_counted_and_listed_in_pages,
                        a_tick_admits_a_batch_in_order_and_banks_nothing,
                        never_more_than_max_active,
                        an_open_room_keeps_to_max_active,
                        operators_admit_in_every_mode,
                        operators_admit_a_count_of_a_room,
                        a_change_names_what_it_changes,
                        an_impossible_change_changes_nothing,
                        a_changed_interval_moves_the_next_tick,
                        a_changed_mode_holds_within_a_second;
                    seats:
                        seats_are_the_available_ones_unless_told,
                        an_answer_that_is_known_is_not_sent_again,
                        a_change_changes_the_etag,
                        seats_are_zipped_for_who_takes_that;
                    service:
                        it_is_alive_and_ready,
                        the_description_is_complete;
                    slow_clients:
                        heads_have_limits,
                        who_wants_another_protocol_is_answered_at_once,
                        deep_bodies_are_refused;
                    sold_out:
                        a_sold_out_concert_takes_no_newcomers,
                        the_global_room_takes_people_for_sold_out_concerts,
                        the_list_tells_the_next_date_and_the_lowest_price;
                }
            }
            mod unserved {
                cases! { $database, unserved;
                    accounts:
                        a_balance_never_overflows;
                    browsers:
                        pages_of_configured_origins_may_call;
                    cashiers:
                        only_a_cashier_charges_where_it_is_configured,
                        a_cashier_may_do_nothing_else_for_others,
                        a_cashiers_key_is_its_own_and_of_one_wallet;
                    lapsing:
                        a_lapsed_hold_reads_as_lapsed_at_once,
                        a_lapsed_hold_gives_way_at_once,
                        a_lapsed_hold_cannot_be_given_back,
                        a_cancelled_hold_does_not_lapse,
                        what_is_paid_does_not_lapse,
                        the_limits_of_holds_are_configured;
                    lines:
                        an_admission_shows_at_once_where_it_was_made_and_soon_elsewhere,
                        a_place_given_up_shows_at_once_where_it_was_and_soon_elsewhere,
                        modes_take_effect_on_every_node,
                        what_entering_says_holds_for_polls,
                        an_abandoned_place_is_given_up;
                    openings:
                        a_pause_holds_on_every_node,
                        a_tick_that_a_wrong_clock_wrote_heals;
                    outside_identity:
                        eddsa,
                        rs256,
                        es256,
                        a_subject_that_is_no_uuid_is_mapped_to_one,
                        roles_are_read_under_the_configured_claim,
                        a_key_set_is_followed_without_a_restart,
                        issuer_and_audience_are_asked_for_where_that_is_configured;
                    payment:
                        a_lapsed_hold_changes_nothing;
                    rate_limits:
                        a_caller_has_its_rate,
                        an_address_has_its_rate_before_anything_else,
                        a_trusted_proxy_names_its_client;
                    readiness:
                        a_database_without_a_table_is_not_ready;
                    restart:
                        answers_and_tokens_are_the_same_after_a_restart,
                        options_do_not_change_the_room_of_a_later_start;
                    rotation:
                        a_rotation_logs_nobody_out;
                    seats_since:
                        what_has_changed_makes_the_whole;
                    slow_clients:
                        a_head_that_drips_is_cut,
                        a_later_head_that_drips_is_cut,
                        whoever_calls_too_often_is_told_before_the_body_has_come,
                        a_body_that_drips_is_cut_and_changes_nothing,
                        who_does_not_read_is_cut,
                        who_reads_steadily_gets_all,
                        unread_answers_of_a_caller_are_bounded,
                        connections_beyond_the_limit_wait,
                        an_address_cannot_take_all_connections,
                        a_connection_that_sends_nothing_is_cut,
                        trusted_proxies_may_hold_connections;
                }
            }
        }
    };
}

contract!(sqlite);
contract!(postgres);
