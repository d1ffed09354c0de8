//! Waiting lines and their tokens.

use std::collections::{BTreeMap, BTreeSet};

use frontrow_domain::RoomId;
use frontrow_domain::queue::{QueueToken, QueueTokenState, RoomMode};

use super::{Counted, Invariant, State, count};
use crate::memory::{is_stored_live, was_admitted};

pub(super) const INVARIANTS: [Invariant; 6] = [
    (
        "token-state",
        "a token has the times of its status: those of its admission and of its end",
        admissions_end_later,
    ),
    (
        "token-paused",
        "tokens are paused while their room is PAUSED, and no others",
        pauses_are_those_of_rooms,
    ),
    ("token-live-once", "at most one live queue token a room and user", one_live_token),
    ("line-order", "nobody waits behind somebody who came later and was admitted", nobody_is_passed),
    (
        "line-tickets",
        "tickets of a room are numbered without a gap, pruned ones counted in",
        tickets_are_numbered,
    ),
    (
        "line-departures",
        "whoever left a line without being admitted has a departure, numbered without a gap, pruned ones counted in",
        departures_are_numbered,
    ),
];

fn tokens(state: &State) -> impl Iterator<Item = &QueueToken> {
    state.queue_tokens.values().map(|row| &row.value)
}

/// The tokens of each room.
fn lines(state: &State) -> BTreeMap<RoomId, Vec<&QueueToken>> {
    let mut lines: BTreeMap<_, Vec<&QueueToken>> =
        state.rooms.keys().map(|room_id| (*room_id, Vec::new())).collect();
    for token in tokens(state) {
        lines.entry(token.room_id).or_default().push(token);
    }
    lines
}

/// A state has the times that belong to it, or it could not be here.
fn admissions_end_later(state: &State) -> Counted {
    count(tokens(state), |token| match token.state {
        QueueTokenState::Active { activated_at, expires_at, paused_at } => {
            expires_at <= activated_at || paused_at.is_some_and(|paused_at| expires_at <= paused_at)
        }
        QueueTokenState::Wait | QueueTokenState::Expired { .. } => false,
    })
}

/// An ACTIVE token that is not paused in a PAUSED room had expired before the pause.
fn pauses_are_those_of_rooms(state: &State) -> Counted {
    let is_paused = |token: &QueueToken| token.require_unpaused().is_err();
    count(tokens(state), |token| {
        let room = state.rooms.get(&token.room_id);
        is_paused(token) && room.is_none_or(|room| room.value.policy.mode != RoomMode::Paused)
    })
}

fn one_live_token(state: &State) -> Counted {
    let mut seen = BTreeSet::new();
    let live = state.queue_tokens.values().filter(|row| is_stored_live(row.value.state));
    let first: Vec<bool> = live.map(|row| seen.insert((row.value.room_id, row.value.user_id))).collect();
    count(first, |is_first| !is_first)
}

fn nobody_is_passed(state: &State) -> Counted {
    let passed = lines(state).into_values().flat_map(|tokens| {
        let last_admitted = tokens.iter().filter(|token| was_admitted(token)).map(|token| token.ticket).max();
        let waiting = tokens.into_iter().filter(|token| token.state == QueueTokenState::Wait);
        waiting.map(move |token| Some(token.ticket) < last_admitted)
    });
    count(passed, |is_passed| *is_passed)
}

/// Each once; the last one is as high as there are, with those that were pruned.
fn tickets_are_numbered(state: &State) -> Counted {
    count(lines(state), |(room_id, tokens)| {
        let numbers: BTreeSet<i64> = tokens.iter().map(|token| token.ticket.0).collect();
        let given = state.pruned_in(*room_id).tokens.saturating_add(number_of(&numbers));
        numbers.len() != tokens.len() || numbers.last().copied().unwrap_or(0) != given
    })
}

/// Each once; where none were pruned, the last one is as high as there are.
fn departures_are_numbered(state: &State) -> Counted {
    let left =
        |token: &QueueToken| matches!(token.state, QueueTokenState::Expired { activated_at: None, .. });
    let (checked, unnumbered) =
        count(tokens(state), |token| left(token) != state.departures.contains_key(&token.id));
    let (_, gaps) = count(lines(state), |(room_id, tokens)| {
        let departures: Vec<_> = tokens.iter().filter_map(|token| state.departures.get(&token.id)).collect();
        let numbers: BTreeSet<i64> = departures.iter().map(|number| **number).collect();
        let pruned = state.pruned_in(*room_id).departures;
        let (last, given) =
            (numbers.last().copied().unwrap_or(0), pruned.saturating_add(number_of(&numbers)));
        numbers.len() != departures.len() || last > given || last < given && pruned == 0
    });
    (checked, unnumbered.saturating_add(gaps))
}

fn number_of<T>(items: &BTreeSet<T>) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}
