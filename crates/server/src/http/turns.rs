//! Whose turn it is to be read.
//!
//! A worker polls its connections first come, first served, and takes those that another thread has woken, because storage
//! answered them, only once in a while as long as there are others. In a storm there always are: a request that was let in
//! would wait for thousands of newcomers to be refused first. So only so many connections are read in a turn. The others
//! wait here, in order, and the next turn begins when nobody who was let in is left to go on (ADR 0015).
//!
//! Where fewer come than that, nobody waits, and a request costs a comparison and a subtraction.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_web::rt;
use tokio::runtime::Handle;
use tokio::task::yield_now;

/// How many connections are read in a turn: some milliseconds' work. Fewer make smaller batches for storage.
const READS: usize = 256;
/// How often the worker lets those go on who were let in, before the next turn begins nevertheless: some 60 of them each
/// time, so nobody waits for ever.
const ROUNDS: usize = 16;

/// The turns of one worker. Cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct Turns(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    /// How many connections are read in a turn, and how many more in this one.
    reads: usize,
    left: usize,
    /// Who waits: each with the ticket that follows the one before.
    waiting: VecDeque<Waker>,
    /// The ticket of the next one to come.
    next: usize,
}

/// Where a connection is. Who reads may read on, until there is nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It has nothing to say.
    Idle,
    /// It waits for its turn, with this ticket.
    Waiting(usize),
    /// It is its turn.
    Reading,
}

impl Default for Turns {
    fn default() -> Self {
        Self::of(READS)
    }
}

impl Turns {
    /// Turns of so many reads.
    pub(super) fn of(reads: usize) -> Self {
        Self(Rc::new(RefCell::new(State { reads, left: reads, waiting: VecDeque::new(), next: 0 })))
    }

    /// Ready when a connection that has something to say may be read; else its task is woken once it may. It runs on the
    /// worker's own runtime.
    pub(super) fn poll(&self, place: &mut Place, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        *place = match *place {
            Place::Idle if state.left == 0 => {
                if state.waiting.is_empty() {
                    rt::spawn(self.clone().take());
                }
                Place::Waiting(state.queue(context.waker()))
            }
            Place::Idle => {
                state.left -= 1;
                Place::Reading
            }
            Place::Waiting(ticket) if state.is_queued(ticket, context.waker()) => Place::Waiting(ticket),
            Place::Waiting(_) | Place::Reading => Place::Reading,
        };
        if *place == Place::Reading { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes turn after turn, as long as anybody waits.
    async fn take(self) {
        let metrics = Handle::current().metrics();
        loop {
            for _ in 0..ROUNDS {
                yield_now().await;
                if metrics.global_queue_depth() == 0 {
                    break;
                }
            }
            let mut state = self.0.borrow_mut();
            state.turn();
            if state.waiting.is_empty() {
                return;
            }
        }
    }
}

impl State {
    fn queue(&mut self, waker: &Waker) -> usize {
        self.waiting.push_back(waker.clone());
        let ticket = self.next;
        self.next = self.next.wrapping_add(1);
        ticket
    }

    /// Whether this ticket has not been called yet.
    fn is_queued(&mut self, ticket: usize, waker: &Waker) -> bool {
        let first = self.next.wrapping_sub(self.waiting.len());
        let queued = self.waiting.get_mut(ticket.wrapping_sub(first));
        queued.map(|queued| queued.clone_from(waker)).is_some()
    }

    /// Calls those who come first.
    fn turn(&mut self) {
        let called = self.waiting.len().min(self.reads);
        self.waiting.drain(..called).for_each(Waker::wake);
        self.left = self.reads - called;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::sync::oneshot;

    use super::*;

    /// As a worker of actix runs its connections.
    fn on_a_worker<T>(test: impl Future<Output = T>) -> T {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(test)
    }

    async fn read(turns: &Turns, place: &mut Place) {
        poll_fn(|context| turns.poll(place, context)).await;
    }

    #[test]
    fn all_are_read_in_order_and_so_many_in_a_turn() {
        let order = on_a_worker(async {
            let (turns, order) = (Turns::of(3), Rc::new(RefCell::new(Vec::new())));
            let readers: Vec<_> = (0..10)
                .map(|number| {
                    let (turns, order) = (turns.clone(), order.clone());
                    rt::spawn(async move {
                        read(&turns, &mut Place::Idle).await;
                        order.borrow_mut().push(number);
                    })
                })
                .collect();
            yield_now().await;
            assert_eq!(*order.borrow(), [0, 1, 2], "the first turn");
            for reader in readers {
                reader.await.unwrap();
            }
            order.take()
        });
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn who_reads_reads_on_and_who_is_gone_holds_nobody_up() {
        on_a_worker(async {
            let (turns, mut place) = (Turns::of(1), Place::Idle);
            for _ in 0..5 {
                read(&turns, &mut place).await;
            }
            let context = Context::from_waker(Waker::noop());
            assert!(turns.poll(&mut Place::Idle, &context).is_pending(), "it is gone at once");
            for _ in 0..5 {
                read(&turns, &mut Place::Idle).await;
            }
        });
    }

    /// How many of a crowd that asks again and again are read before all go on who were let in.
    fn read_before_all_go_on(turns: Turns) -> usize {
        on_a_worker(async move {
            let reads = Rc::new(Cell::new(0));
            let crowd = (0..1_000).map(|_| {
                let (turns, reads) = (turns.clone(), reads.clone());
                async move {
                    loop {
                        read(&turns, &mut Place::Idle).await;
                        reads.set(reads.get() + 1);
                        yield_now().await;
                    }
                }
            });
            crowd.for_each(|one| drop(rt::spawn(one)));
            let (storage, let_in): (Vec<_>, Vec<_>) = (0..400).map(|_| oneshot::channel::<()>()).unzip();
            let let_in: Vec<_> = let_in.into_iter().map(rt::spawn).collect();
            while reads.get() < 5_000 {
                yield_now().await;
            }
            // Nothing runs on this thread while another one wakes them all.
            let answers = std::thread::spawn(|| storage.into_iter().for_each(|one| one.send(()).unwrap()));
            answers.join().unwrap();
            let before = reads.get();
            for one in let_in {
                one.await.unwrap().unwrap();
            }
            reads.get() - before
        })
    }

    #[test]
    fn who_was_let_in_goes_on_before_newcomers_are_read() {
        let read = read_before_all_go_on(Turns::default());
        assert!(read <= 2 * READS, "{read} newcomers were read first");
        let without_turns = read_before_all_go_on(Turns::of(usize::MAX));
        assert!(without_turns > 10 * READS, "only {without_turns}: nothing is seen here");
    }
}
