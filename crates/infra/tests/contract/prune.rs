//! What is over long since is deleted, and nothing else is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use frontrow_domain::ports::Committer;
use frontrow_domain::queue::{LineState, LineView, PlaceInLine, TicketNumber};
use frontrow_domain::unit_of_work::{
    Command, CommandOutcome, CommitError, Committed, PruneTokens, TokensPruned,
};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UnitOfWork, UserId};
use frontrow_infra::Storage;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::timeout;

use crate::fixture::{Fixture, HOLD, TTL, at, just_before, key};

impl Fixture {
    async fn prune(&self, room_id: RoomId, after: i64, before: Timestamp, limit: u32) -> TokensPruned {
        let prune = PruneTokens { room_id, after: TicketNumber(after), before, limit };
        match self.order(Command::PruneTokens(prune)).await {
            CommandOutcome::TokensPruned(pruned) => pruned,
            other => panic!("{other:?}"),
        }
    }

    async fn exists(&self, id: QueueTokenId) -> bool {
        self.storage.queue_tokens.find(id).await.unwrap().is_some()
    }

    async fn line(&self, id: RoomId) -> LineState {
        self.storage.queue_queries.lines_of(vec![id]).await.unwrap().lines.pop().unwrap()
    }
}

/// When a token that was admitted at time 1 has ended, and been stored so.
async fn all_expired(fixture: &Fixture) -> Timestamp {
    let end = at(1 + i64::from(TTL));
    fixture.order(Command::ExpireTokens { now: end, limit: 1_000 }).await;
    end
}

pub(crate) async fn ended_tokens_are_pruned_from_their_time_on(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let tokens = fixture.crowd(room, 3, at(0)).await;
    fixture.admit(room, 3, at(1)).await;
    let none = TokensPruned { deleted: 0, through: None };
    assert_eq!(fixture.prune(room, 0, at(1_000_000), 9).await, none, "they are ACTIVE");
    let end = all_expired(fixture).await;
    assert_eq!(fixture.prune(room, 0, just_before(end), 9).await, none, "kept a moment longer");
    assert_eq!(fixture.prune(room, 0, end, 9).await, TokensPruned { deleted: 2, through: None });
    let mut there = Vec::new();
    for token in &tokens {
        there.push(fixture.exists(token.id).await);
    }
    assert_eq!(there, [false, false, true], "the last one admitted says how far the line is");
}

pub(crate) async fn pruning_goes_on_where_it_was(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    fixture.crowd(room, 8, at(0)).await;
    fixture.admit(room, 8, at(1)).await;
    let end = all_expired(fixture).await;
    let (mut after, mut batches) = (TicketNumber(0), Vec::new());
    loop {
        let batch = fixture.prune(room, after.0, end, 3).await;
        batches.push(batch.deleted);
        let Some(through) = batch.through else { break };
        assert!(through > after);
        after = through;
    }
    assert_eq!(batches, [3, 3, 1], "no batch is larger than it may be");
}

pub(crate) async fn only_what_nobody_needs_is_pruned(fixture: &Fixture) {
    let sale = fixture.sale(3).await;
    let room = sale.room.id;
    let seats = sale.seat_ids();
    let paid = fixture.hold(&sale, &seats[..1], at(1)).await;
    fixture.pay(paid.value.id, at(1)).await;
    let lapsed = fixture.hold(&sale, &seats[1..2], at(1)).await;
    let idle = fixture.admitted(room, at(1)).await.value;
    let gone = fixture.crowd(room, 2, at(1)).await;
    fixture.leave(gone[0].id, at(1)).await;
    let last = fixture.admitted(room, at(1)).await.value;
    let ahead = fixture.crowd(room, 2, at(1)).await;
    fixture.leave(ahead[0].id, at(1)).await;
    let end = all_expired(fixture).await;
    fixture.order(Command::ExpireHolds { now: at(1 + HOLD), limit: 9 }).await;

    let before = fixture.line(room).await;
    assert_eq!(fixture.prune(room, 0, end, 100).await.deleted, 3);
    for (id, kept) in [
        (paid.value.token_id, true),
        (lapsed.value.token_id, true),
        (idle.id, false),
        (gone[0].id, false),
        (gone[1].id, false),
        (last.id, true),
        (ahead[0].id, true),
        (ahead[1].id, true),
    ] {
        assert_eq!(fixture.exists(id).await, kept, "{id}");
    }
    assert_eq!(fixture.line(room).await, before, "the line stands as it stood");

    // A node that starts now sees the line as it is.
    let mut view = LineView::new(before.room);
    view.advance(&before);
    for ticket in
        fixture.storage.queue_queries.departed_tickets(room, before.admitted_through, 10).await.unwrap()
    {
        view.departed(ticket);
    }
    view.departures_are_known(before.departures);
    assert_eq!(view.place(idle.ticket), PlaceInLine::Left);
    assert_eq!(view.place(ahead[0].ticket), PlaceInLine::Left);
    assert_eq!(view.place(ahead[1].ticket), PlaceInLine::Waiting { position: 1 });
}

pub(crate) async fn numbers_go_on_after_pruning(fixture: &Fixture) {
    let room = fixture.default_room().await.id;
    let crowd = fixture.crowd(room, 3, at(0)).await;
    fixture.leave(crowd[0].id, at(1)).await;
    fixture.leave(crowd[1].id, at(1)).await;
    fixture.admit(room, 1, at(1)).await;
    let end = all_expired(fixture).await;
    assert_eq!(fixture.prune(room, 0, end, 9).await.deleted, 2);
    let again = fixture.join(room, crowd[0].user_id, end).await;
    assert_eq!(again.ticket, TicketNumber(4), "who was pruned may come again, last");
    fixture.leave(again.id, end).await;
    let after = fixture.storage.queue_queries.departures(vec![(room, 2)], 9).await.unwrap();
    let numbers: Vec<(i64, i64)> = after.iter().map(|(_, d)| (d.number, d.ticket.0)).collect();
    assert_eq!(numbers, [(3, 4)], "no number is given twice");
    assert_eq!(fixture.line(room).await.departures, 3);
}

pub(crate) async fn answers_past_their_time_are_pruned_in_batches(fixture: &Fixture) {
    let users: Vec<UserId> = (0..5).map(|_| fixture.id(UserId::new)).collect();
    for (second, user) in (0..).zip(&users) {
        let record = fixture.record(*user, at(second));
        fixture.write(UnitOfWork { idempotency: Some(record), ..Default::default() }).await;
    }
    let end = fixture.record(users[3], at(3)).expires_at;
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(fixture.order(Command::PruneAnswers { now: end, limit: 3 }).await);
    }
    assert_eq!(batches, [3, 1, 0].map(CommandOutcome::AnswersPruned));
    for (number, user) in users.iter().enumerate() {
        let found = fixture.storage.idempotency_records.find(*user, &key()).await.unwrap();
        assert_eq!(found.is_some(), number == 4, "{number}");
    }
}

/// How many batches a crowd is pruned in, and the most that one of them takes.
const BATCHES: usize = 7;
const BATCH: u32 = 16;

/// Prunes a crowd while others join, hold and charge over and over. Between two batches it waits until all three were done
/// anew, or for so long in vain. Gives between how many nothing went on.
async fn standstills(fixture: &Fixture, patience: Duration) -> usize {
    let crowd = (BATCHES - 1) * usize::try_from(BATCH).unwrap() + 1;
    let room = fixture.default_room().await.id;
    let sale = fixture.sale(1).await;
    fixture.crowd(room, crowd, at(0)).await;
    fixture.admit(room, u32::MAX, at(1)).await;
    let end = all_expired(fixture).await;
    let is_over = AtomicBool::new(false);
    let (rounds, mut seen) = watch::channel(0);
    let traffic = async {
        while !is_over.load(Ordering::SeqCst) {
            fixture.join(room, fixture.id(UserId::new), end).await;
            let held = fixture.hold(&sale, &sale.seat_ids(), end).await.value.id;
            fixture.write(fixture.end_work(held, end).await).await;
            fixture.charge(fixture.id(UserId::new), 5, end).await;
            rounds.send_modify(|rounds| *rounds += 1);
            // An adapter without I/O would never let the other one go on.
            tokio::task::yield_now().await;
        }
    };
    let pruning = async {
        let (mut after, mut batches, mut deleted, mut standstills) = (0, 0, 0, 0);
        loop {
            let batch = fixture.prune(room, after, end, BATCH).await;
            assert!(batch.deleted <= BATCH, "no statement takes it all at once");
            (batches, deleted) = (batches + 1, deleted + batch.deleted);
            let Some(through) = batch.through else { break };
            after = through.0;
            // One round may have been under way.
            let anew = *seen.borrow() + 2;
            standstills += usize::from(timeout(patience, seen.wait_for(|n| *n >= anew)).await.is_err());
        }
        is_over.store(true, Ordering::SeqCst);
        assert_eq!((batches, usize::try_from(deleted).unwrap()), (BATCHES, crowd - 1));
        standstills
    };
    let ((), standstills) = futures_util::future::join(traffic, pruning).await;
    let joined = i64::try_from(crowd).unwrap() + *rounds.borrow();
    assert_eq!(fixture.line(room).await.last_ticket.0, joined, "nobody was refused");
    standstills
}

/// People join, hold and charge while everything before them is pruned.
pub(crate) async fn traffic_goes_on_while_much_is_pruned(fixture: &Fixture) {
    assert_eq!(standstills(fixture, Duration::from_secs(30)).await, 0);
}

/// An adapter that lets nobody else write from the first batch of a prune to the last.
struct Greedy {
    committer: Arc<dyn Committer>,
    turn: Arc<Mutex<()>>,
    kept: Mutex<Option<OwnedMutexGuard<()>>>,
}

#[async_trait]
impl Committer for Greedy {
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        if !matches!(work.command, Some(Command::PruneTokens(_))) {
            let _turn = self.turn.lock().await;
            return self.committer.commit(work).await;
        }
        let mut kept = self.kept.lock().await;
        if kept.is_none() {
            *kept = Some(self.turn.clone().lock_owned().await);
        }
        let committed = self.committer.commit(work).await?;
        if let Some(CommandOutcome::TokensPruned(TokensPruned { through: None, .. })) = committed.outcome {
            *kept = None;
        }
        Ok(committed)
    }
}

/// The control: nothing goes on beside a prune that keeps its lock.
pub(crate) async fn a_prune_that_locks_everybody_out_is_noticed(fixture: &Fixture) {
    let committer = fixture.storage.committer.clone();
    let greedy = Greedy { committer, turn: Arc::default(), kept: Mutex::default() };
    let storage = Storage { committer: Arc::new(greedy), ..fixture.storage.clone() };
    let found = standstills(&Fixture::new(storage, ()), Duration::from_millis(50)).await;
    assert_eq!(found, BATCHES - 1);
}
