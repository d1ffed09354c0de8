//! The same with one protection taken out, where it must fail, and within the ordinary number of histories: so it is the
//! protections that the run proves.

use crate::ground::{Adapter, Ground};
use crate::mutants::Mutation;
use crate::run::{Failed, Setting, seed};

/// As many as an ordinary run has on memory.
const CASES: u32 = 256;
const STEPS: usize = 60;

fn caught(mutation: Mutation) -> Failed {
    let ground = Ground::open(Adapter::Memory).unwrap();
    let setting = Setting::new(&ground, Some(mutation));
    let failed = setting.run(CASES, STEPS, seed()).expect_err("nothing was noticed");
    // What is printed is the mistake's: it fails again, and without the mistake it does not.
    assert!(setting.replay(&failed.steps, || ()).is_err(), "{failed:?}");
    assert_eq!(Setting::new(&ground, None).replay(&failed.steps, || ()), Ok(()), "{failed:?}");
    failed
}

macro_rules! controls {
    ($($name:ident: $mutation:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            let failed = caught(Mutation::$mutation);
            println!("{} steps: {}", failed.steps.len(), failed.as_regression());
        })+

        #[test]
        fn every_mutation_has_a_control() {
            assert_eq!([$(Mutation::$mutation),+], Mutation::ALL);
        }
    };
}

controls! {
    updates_without_versions_are_noticed: WritesBlindly,
    charges_that_are_retried_are_noticed: RetriesCharges,
    holds_that_mark_no_seat_are_noticed: HoldsNoSeat,
    sold_seats_that_are_freed_are_noticed: FreesSoldSeats,
    a_sweep_that_is_early_is_noticed: SweepsEarly,
    a_deadline_that_is_late_is_noticed: JudgesLate,
    an_admission_without_the_cap_is_noticed: IgnoresMaxActive,
    a_token_that_outlives_its_payment_is_noticed: KeepsTheToken,
    keys_that_are_forgotten_are_noticed: ForgetsKeys,
    a_limit_that_counts_nothing_is_noticed: CountsNoLiveSeats,
    a_payment_for_nothing_is_noticed: TakesNoMoney,
    polls_that_are_not_noted_are_noticed: ForgetsPolls,
    a_place_that_is_given_up_early_is_noticed: GivesUpEarly,
    tokens_that_are_deleted_early_are_noticed: PrunesTokensEarly,
    answers_that_are_deleted_early_are_noticed: PrunesAnswersEarly,
    a_session_that_outlives_its_end_is_noticed: KnowsGuestsTooLong,
}
