//! Two hundred seeds in which every promise is kept, though everything goes wrong; and protections switched off, which must
//! show.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it saw"
)]

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use frontrow_sim::{Counts, Deeds, Fault, Mutation, Options, Report, run};

/// How many seeds are run.
const SEEDS: u64 = 200;
/// Among how many seeds a protection that is off must show.
const CONTROLS: u64 = 200;

/// What must have happened in some of them.
const DEEDS: [&str; 12] = [
    "a join",
    "a join that nobody heard of",
    "an admission",
    "the expiry of tokens",
    "the expiry of holds",
    "a sweep of abandoned places",
    "a charge",
    "a hold",
    "a payment",
    "a cancellation",
    "a leave",
    "a change of a room",
];

/// Runs these seeds on all cores.
fn run_all(seeds: std::ops::Range<u64>) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mine = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        mine.take_while(|seed| *seed < seeds.end).map(|seed| run(seed, Options::default())).collect()
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| -> Vec<Report> { worker.join().unwrap() }).collect()
    })
}

#[test]
fn every_promise_is_kept_whatever_goes_wrong() {
    let reports = run_all(0..SEEDS);
    assert_eq!(u64::try_from(reports.len()), Ok(SEEDS));
    let mut faults = Counts::default();
    for report in &reports {
        faults.merge(&report.faults);
    }
    let mut deeds = Deeds::new();
    for (deed, count) in reports.iter().flat_map(|report| &report.deeds) {
        *deeds.entry(deed).or_default() += count;
    }
    println!("{SEEDS} seeds; injected: {faults}; written: {deeds:?}");
    let broken = reports.iter().filter_map(|report| Some((report.seed, report.violation.as_ref()?)));
    let broken: Vec<_> = broken.collect();
    assert!(broken.is_empty(), "replay with `frontrow-sim --trace --seed`: {broken:?}");
    for (fault, name, _) in Fault::ALL {
        assert!(faults.of(fault) > 0, "no {name} was injected");
    }
    // Where everybody is refused, nothing goes wrong.
    for deed in DEEDS {
        assert!(deeds.get(deed).is_some_and(|count| *count > 0), "there was not once {deed}: {deeds:?}");
    }
}

#[test]
fn the_same_seed_takes_the_same_steps() {
    let digests = |seed| [0, 0].map(|_| run(seed, Options::default()).digest);
    let all: Vec<[u64; 2]> = (0..6).map(digests).collect();
    for (seed, [one, other]) in all.iter().enumerate() {
        assert_eq!(one, other, "seed {seed}");
    }
    assert!(all[0] != all[1], "another seed takes other steps");
}

/// Some seed of the first few must show that `mutation` breaks one of `promises`.
fn must_show(mutation: Mutation, promises: &[&str]) {
    let options = Options { mutation: Some(mutation), ..Options::default() };
    let mut seen = Vec::new();
    for seed in 0..CONTROLS {
        let Some(violation) = run(seed, options).violation else { continue };
        if promises.iter().any(|promise| violation.contains(promise)) {
            println!("{mutation:?} shows with seed {seed}: {violation}");
            return;
        }
        seen.push(violation);
    }
    panic!("{mutation:?} does not show as one of {promises:?} with {CONTROLS} seeds, but as {seen:?}");
}

/// Each mutation, and as what it must show: every list of promises, by one of them.
macro_rules! controls {
    ($($name:ident: $mutation:ident $([$($promise:literal),+])+;)+) => {
        $(#[test]
        fn $name() {
            $(must_show(Mutation::$mutation, &[$($promise),+]);)+
        })+

        #[test]
        fn every_mutation_has_a_control() {
            assert_eq!([$(Mutation::$mutation),+], Mutation::ALL);
        }
    };
}

controls! {
    unchecked_versions_show: VersionsUnchecked
        ["audit:", "backstop", "a reservation changed otherwise", "a token changed otherwise"];
    a_record_in_a_transaction_of_its_own_shows: RecordApart ["without its idempotency record"];
    admission_over_max_active_shows: MaxActiveIgnored ["more are ACTIVE than maxActive"];
    an_expiry_that_frees_paid_seats_shows: ExpiryFreesPaidSeats
        ["audit: a live reservation owns each of its seats"];
    a_lost_answer_told_as_a_failure_shows: LostAnswerIsFailure ["it was said that nothing was written"];
    admission_from_the_tail_shows: AdmitsFromTheTail ["out of order"];
    a_join_that_is_told_as_old_shows: JoinToldAsOld ["a join is said to be new: false"];
    a_lapsed_hold_that_may_be_paid_beside_others_shows: LapsedHoldsLeft ["more seats than allowed"];
    a_line_that_stands_still_shows: AdmitsNobody ["somebody waits for ever"];
    holds_that_never_end_show: ExpiresNoHold ["there is no rest"];
    polls_that_are_forgotten_show: PollsForgotten ["whose holder polled as told"];
    what_is_written_after_all_shows: WritesLate ["charges, and does not know of"];
    a_lost_unit_told_as_written_shows: LostUnitIsWritten
        ["an acknowledged request has 0 effects"]
        ["a place that was given up is still there"]
        ["an acknowledged policy is not stored"]
        ["a cancelled reservation is", "a reservation is paid and cancelled"];
    a_place_that_is_told_wrongly_shows: PlaceToldWrongly
        ["the same place got two Wait-Tokens"] ["has a place that is not stored, or not the last"];
    tokens_that_are_read_a_step_behind_show: TokensReadBehind
        ["said (Active, "] ["lets somebody in after the payment it took"];
    tokens_that_are_not_found_show: TokensNotFound ["an internal error: "];
    keys_that_are_forgotten_show: KeysForgotten
        ["is refused when it comes again"] ["an idempotency key has had 2 effects"];
    an_answer_without_its_effect_shows: EffectLost ["audit: what is answered again was done"];
    answers_that_are_cut_short_show: AnswersCutShort ["a request got two answers"];
    held_seats_told_as_free_show: HeldToldAsFree ["shows seats as free that it has held"];
}
