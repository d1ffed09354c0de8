//! How many instructions the hot pure functions take: `just bench-instructions`. Valgrind counts them, so that a
//! regression shows whatever else the machine does. A function that takes more than its limit fails the run.
//!
//! The limits stand here, and are upper bounds with room: no count has been taken for them yet. Who takes one sets them
//! some 10 % above it; who makes a function slower on purpose raises its limit in the same commit.
#![allow(missing_docs, unreachable_pub, reason = "the macros make items that have neither")]
#![allow(clippy::expect_used, reason = "what cannot be set up ends the run at once")]

use std::hint::black_box;

use frontrow_domain::ports::{
    AccessClaims, AccessTokens, InvalidAccessToken, InvalidWaitToken, Role, TokenProvider, WaitClaims,
};
use frontrow_domain::queue::{Room, RoomPolicy, TicketNumber, estimated_wait_seconds};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UserId};
use frontrow_infra::identity::{AccessKey, Secret, VerifiedTokens, WaitTokens};
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

#[library_benchmark(config = at_most(200))]
#[bench::due(args = (6_000), setup = room_at)]
#[bench::not_due(args = (0), setup = room_at)]
fn tick((room, now): (Room, Timestamp)) -> Option<(Room, u32)> {
    black_box(room.tick(black_box(now)))
}

#[library_benchmark(config = at_most(200))]
#[bench::of_the_millionth(args = (1), setup = room_at)]
fn estimate((room, now): (Room, Timestamp)) -> Option<u64> {
    black_box(estimated_wait_seconds(&room, black_box(1_000_000), now))
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

#[library_benchmark(config = at_most(60_000))]
#[bench::good(setup = wait_token)]
fn check_wait_token((tokens, token): (&WaitTokens, &String)) -> Result<WaitClaims, InvalidWaitToken> {
    black_box(tokens.verify(black_box(token)))
}

fn access_token() -> (AccessKey, String) {
    let key = AccessKey::own(&secret());
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

#[library_benchmark(config = at_most(60_000))]
#[bench::seen_first(setup = new_access_token)]
#[bench::seen_before(setup = known_access_token)]
fn check_access_token(
    (tokens, token): (&dyn AccessTokens, &String),
) -> Result<AccessClaims, InvalidAccessToken> {
    black_box(tokens.verify(black_box(token), now()))
}

library_benchmark_group!(name = line; benchmarks = tick, estimate);
library_benchmark_group!(name = tokens; benchmarks = check_wait_token, check_access_token);
main!(library_benchmark_groups = line, tokens);
