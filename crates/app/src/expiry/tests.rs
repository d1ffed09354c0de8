use frontrow_domain::UnitOfWork;
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError};

use super::{BATCH, BATCHES_PER_PASS};
use crate::testing::{World, now, refusal, world};
use crate::{Expired, Expiry};

fn expiry(world: &World) -> Expiry {
    Expiry { committer: world.committer(), clock: world.clock() }
}

fn holds() -> UnitOfWork {
    let command = Command::ExpireHolds { now: now(), limit: BATCH };
    UnitOfWork { command: Some(command), ..UnitOfWork::default() }
}

fn tokens() -> UnitOfWork {
    let command = Command::ExpireTokens { now: now(), limit: BATCH };
    UnitOfWork { command: Some(command), ..UnitOfWork::default() }
}

#[tokio::test]
async fn each_sweep_goes_on_until_less_than_a_batch_is_left() {
    let world = world();
    world.will_come_to(CommandOutcome::HoldsExpired(BATCH));
    world.will_come_to(CommandOutcome::HoldsExpired(BATCH));
    world.will_come_to(CommandOutcome::HoldsExpired(BATCH - 1));
    world.will_come_to(CommandOutcome::TokensExpired(BATCH));
    world.will_come_to(CommandOutcome::TokensExpired(0));
    let expired = expiry(&world).run().await.unwrap();
    assert_eq!(expired, Expired { holds: 1_499, tokens: 500 });
    assert_eq!(world.works(), [holds(), holds(), holds(), tokens(), tokens()]);
}

#[tokio::test]
async fn a_backlog_of_holds_leaves_room_for_the_tokens() {
    let world = world();
    for _ in 0..BATCHES_PER_PASS {
        world.will_come_to(CommandOutcome::HoldsExpired(BATCH));
    }
    world.will_come_to(CommandOutcome::TokensExpired(3));
    let expired = expiry(&world).run().await.unwrap();
    assert_eq!(expired, Expired { holds: u64::from(BATCH) * u64::from(BATCHES_PER_PASS), tokens: 3 });
}

#[tokio::test]
async fn a_batch_that_fails_ends_its_sweep_but_not_the_other() {
    let world = self::world();
    world.will_come_to(CommandOutcome::HoldsExpired(BATCH));
    world.will_fail(CommitError::Unavailable("down".into()));
    world.will_come_to(CommandOutcome::TokensExpired(3));
    assert_eq!(refusal(expiry(&world).run().await), "Unavailable(\"down\")");
    assert_eq!(world.works(), [holds(), holds(), tokens()]);

    let world = self::world();
    world.will_commit();
    world.will_come_to(CommandOutcome::TokensExpired(0));
    let refused = refusal(expiry(&world).run().await);
    assert!(refused.starts_with("Internal"), "no outcome is a bug: {refused}");
}
