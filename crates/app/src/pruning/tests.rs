use std::collections::BTreeSet;

use frontrow_domain::queue::{Room, RoomPolicy, TicketNumber};
use frontrow_domain::unit_of_work::{Command, CommandOutcome, CommitError, PruneTokens, TokensPruned};
use frontrow_domain::{RoomId, Version, Versioned};
use uuid::Uuid;

use super::{BATCH, BATCHES_PER_PASS};
use crate::testing::{World, now, refusal, world};
use crate::{Pruned, Pruning};

const KEPT: u32 = 3_600;

fn pruning(world: &World) -> Pruning {
    Pruning::new(world.queue_queries(), world.committer(), world.clock(), KEPT)
}

fn answers(deleted: u32) -> CommandOutcome {
    CommandOutcome::AnswersPruned(deleted)
}

fn tokens(deleted: u32, through: Option<i64>) -> CommandOutcome {
    CommandOutcome::TokensPruned(TokensPruned { deleted, through: through.map(TicketNumber) })
}

/// From which ticket on each batch of tokens looked.
fn looked_after(world: &World) -> Vec<i64> {
    let commands = world.works().into_iter().filter_map(|work| work.command);
    let prunes = commands.filter_map(|command| match command {
        Command::PruneTokens(PruneTokens { after, before, limit, .. }) => {
            assert_eq!((before, limit), (now().minus_seconds(KEPT), BATCH));
            Some(after.0)
        }
        _ => None,
    });
    prunes.collect()
}

#[tokio::test]
async fn each_kind_goes_on_until_less_than_a_batch_is_left() {
    let world = world();
    world.will_come_to(answers(BATCH));
    world.will_come_to(answers(3));
    world.will_come_to(tokens(BATCH, Some(500)));
    world.will_come_to(tokens(0, Some(1_000)));
    world.will_come_to(tokens(7, None));
    let pruned = pruning(&world).run().await.unwrap();
    assert_eq!(pruned, Pruned { answers: 503, tokens: 507 });
    assert_eq!(looked_after(&world), [0, 500, 1_000]);
}

#[tokio::test]
async fn a_pass_has_an_end_and_the_next_one_goes_on_there() {
    let world = world();
    let pruning = pruning(&world);
    world.will_come_to(answers(0));
    for batch in 1..=BATCHES_PER_PASS {
        world.will_come_to(tokens(1, Some(i64::from(batch))));
    }
    assert_eq!(pruning.run().await.unwrap().tokens, u64::from(BATCHES_PER_PASS));
    world.will_come_to(answers(0));
    world.will_fail(CommitError::Unavailable("down".into()));
    assert_eq!(refusal(pruning.run().await), "Unavailable(\"down\")");
    for outcome in [answers(0), tokens(0, None), answers(0), tokens(0, None)] {
        world.will_come_to(outcome);
    }
    pruning.run().await.unwrap();
    pruning.run().await.unwrap();
    let end = i64::from(BATCHES_PER_PASS);
    assert_eq!(
        looked_after(&world)[usize::try_from(BATCHES_PER_PASS).unwrap()..],
        [end, end, 0],
        "and then from the beginning"
    );
}

#[tokio::test]
async fn answers_that_cannot_be_pruned_do_not_keep_the_tokens() {
    let world = world();
    world.will_fail(CommitError::Unavailable("down".into()));
    world.will_come_to(tokens(1, None));
    assert_eq!(refusal(pruning(&world).run().await), "Unavailable(\"down\")");
    assert_eq!(looked_after(&world), [0]);
}

#[tokio::test]
async fn rooms_behind_a_page_of_small_ones_get_their_turn() {
    let world = world();
    let rooms: Vec<RoomId> = (1..=50).map(|n| RoomId::new(Uuid::from_u128(n))).collect();
    for id in &rooms {
        let room = Room::new(*id, RoomPolicy::default(), now());
        world.facts().rooms.insert(*id, Versioned::new(room, Version::FIRST));
    }
    let pruning = pruning(&world);
    for batches in [20, 20, 10] {
        world.will_come_to(answers(0));
        (0..batches).for_each(|_| world.will_come_to(tokens(0, None)));
        pruning.run().await.unwrap();
    }
    let commands = world.works().into_iter().filter_map(|work| work.command);
    let pruned: BTreeSet<RoomId> = commands
        .filter_map(|command| match command {
            Command::PruneTokens(PruneTokens { room_id, .. }) => Some(room_id),
            _ => None,
        })
        .collect();
    assert!(rooms.iter().all(|id| pruned.contains(id)), "{} of {}", pruned.len(), rooms.len());
}
