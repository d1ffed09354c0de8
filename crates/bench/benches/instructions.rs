//! How many instructions the hot pure functions take: `just bench-instructions`. Valgrind counts them, so that a
//! regression shows whatever else the machine does. A function that takes more than its limit fails the run.
//!
//! The limits stand some 10 % above what was counted on 2026-11-23; who makes a function slower on purpose raises its limit
//! in the same commit. Valgrind knows no instructions for SHA-256: the token checks hash without them here, and count more
//! than they take.
#![allow(missing_docs, unreachable_pub, reason = "the macros make items that have neither")]
#![allow(clippy::expect_used, reason = "what cannot be set up ends the run at once")]

use std::hint::black_box;

use frontrow_domain::ports::{
    AccessClaims, AccessTokens, InvalidAccessToken, InvalidWaitToken, Role, TokenProvider, WaitClaims,
};
use frontrow_domain::queue::{LineView, PlaceInLine, Room, RoomPolicy, TicketNumber, estimated_wait_seconds};
use frontrow_domain::seat::{FeedVersion, Seat, SeatImage, SeatPlace, SeatState, SeatUpdate, UnknownSeat};
use frontrow_domain::{
    Label, Money, PerformanceDateId, QueueTokenId, ReservationId, RoomId, SeatId, Timestamp, UserId, Version,
    Versioned,
};
use frontrow_infra::identity::{AccessKeys, Secret, VerifiedTokens, WaitTokens};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use uuid::Uuid;

/// Fails above so many instructions.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

fn now() -> Timestamp {
    Timestamp::from_unix_micros(1_800_000_000_000_000).expect("a time of our years")
}

fn secret() -> Secret {
    Secret::new("0123456789abcdef0123456789abcdef").expect("a secret that is long enough")
}

fn room() -> Room {
    Room::new(RoomId::new(Uuid::from_u128(1)), RoomPolicy::default(), now())
}

/// What is measured gets references that live for ever: to drop a value is not its work.
fn kept<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn room_at(seconds: u32) -> (Room, Timestamp) {
    (room(), now().plus_seconds(seconds))
}

#[library_benchmark(config = at_most(70))]
#[bench::due(args = (6_000), setup = room_at)]
#[bench::not_due(args = (0), setup = room_at)]
fn tick((room, now): (Room, Timestamp)) -> Option<(Room, u32)> {
    black_box(room.tick(black_box(now)))
}

#[library_benchmark(config = at_most(65))]
#[bench::of_the_millionth(args = (1), setup = room_at)]
fn estimate((room, now): (Room, Timestamp)) -> Option<u64> {
    black_box(estimated_wait_seconds(&room, black_box(1_000_000), now))
}

/// A line of a million, of whom every tenth has left.
fn long_line() -> &'static LineView {
    let room = Versioned::new(room(), Version::FIRST);
    let mut line = LineView::new(room);
    line.joined(TicketNumber(1_000_000));
    (1..=100_000).for_each(|nth| line.departed(TicketNumber(nth * 10)));
    kept(line)
}

#[library_benchmark(config = at_most(175))]
#[bench::of_the_last(setup = long_line)]
fn position(line: &LineView) -> PlaceInLine {
    black_box(line.place(black_box(TicketNumber(999_999))))
}

fn seat(number: u32) -> Versioned<Seat> {
    let label = |text| Label::new(text).expect("a short text");
    let price = Money::new(150_000).expect("no negative price");
    let place = SeatPlace {
        section: label("A"),
        row: number / 100 + 1,
        number: number % 100 + 1,
        grade: label("R"),
        price,
    };
    let seat = Seat {
        id: SeatId::new(Uuid::from_u128(u128::from(number) + 1)),
        performance_date_id: PerformanceDateId::new(Uuid::from_u128(9)),
        place,
        state: SeatState::Available,
    };
    Versioned::new(seat, Version::FIRST)
}

/// The image of 50,000 free seats, and one that is held.
fn full_house() -> (&'static mut SeatImage, SeatUpdate) {
    let seats: Vec<_> = (0..50_000).map(seat).collect();
    let image = Box::leak(Box::new(SeatImage::new(&seats, FeedVersion::FIRST)));
    let reservation_id = ReservationId::new(Uuid::from_u128(7));
    let state = SeatState::Reserved { reservation_id, hold_expires_at: now().plus_seconds(300) };
    (image, SeatUpdate { state, version: Version::FIRST.next(), ..SeatUpdate::of(&seat(25_000)) })
}

#[library_benchmark(config = at_most(1_650))]
#[bench::one_hold(setup = full_house)]
fn follow((image, update): (&mut SeatImage, SeatUpdate)) -> Result<(), UnknownSeat> {
    black_box(image.follow(black_box(&[update]), FeedVersion::FIRST.next()))
}

fn wait_token() -> (&'static WaitTokens, &'static String) {
    let tokens = WaitTokens::new(&secret());
    let token = tokens.issue(&WaitClaims {
        token_id: QueueTokenId::new(Uuid::from_u128(1)),
        room_id: RoomId::new(Uuid::from_u128(2)),
        user_id: UserId::new(Uuid::from_u128(3)),
        ticket: TicketNumber(123_456),
        entered_at: now(),
    });
    (kept(tokens), kept(token))
}

#[library_benchmark(config = at_most(30_000))]
#[bench::good(setup = wait_token)]
fn check_wait_token((tokens, token): (&WaitTokens, &String)) -> Result<WaitClaims, InvalidWaitToken> {
    black_box(tokens.verify(black_box(token)))
}

fn access_token() -> (AccessKeys, String) {
    let key = AccessKeys::own(&secret());
    let user_id = UserId::new(Uuid::from_u128(3));
    let claims = AccessClaims { user_id, role: Role::User, expires_at: now().plus_seconds(3_600) };
    let token = key.issue(&claims).expect("our own key signs");
    (key, token)
}

fn new_access_token() -> (&'static dyn AccessTokens, &'static String) {
    let (key, token) = access_token();
    (kept(key), kept(token))
}

fn known_access_token() -> (&'static dyn AccessTokens, &'static String) {
    let (key, token) = access_token();
    let tokens = VerifiedTokens::new(key);
    tokens.verify(&token, now()).expect("a good token");
    (kept(tokens), kept(token))
}

#[library_benchmark(config = at_most(39_000))]
#[bench::seen_first(setup = new_access_token)]
#[bench::seen_before(setup = known_access_token)]
fn check_access_token(
    (tokens, token): (&dyn AccessTokens, &String),
) -> Result<AccessClaims, InvalidAccessToken> {
    black_box(tokens.verify(black_box(token), now()))
}

library_benchmark_group!(name = line; benchmarks = tick, estimate, position);
library_benchmark_group!(name = seats; benchmarks = follow);
library_benchmark_group!(name = tokens; benchmarks = check_wait_token, check_access_token);
main!(library_benchmark_groups = line, seats, tokens);
