//! Answers that are the same for everybody who asks at the same moment: read once for all of them, and kept for when the
//! database is away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frontrow_domain::Timestamp;
use frontrow_domain::ports::{Clock, StorageError};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::flight::{Flight, Unread, caught, share};
use crate::incarnation::{Generation, KnownIncarnation};
use crate::outage::{Outlook, will_do};

/// The most answers that are kept.
const MOST: usize = 1_000;

/// Answers by what was asked. At most one read of each is under way and one more waits for it: a request joins a read only
/// before it is sent, so that nobody is told less than was true when he asked.
pub(crate) struct Kept<K, V> {
    slots: Mutex<BTreeMap<K, Arc<Mutex<Slot<V>>>>>,
    clock: Arc<dyn Clock>,
    incarnation: KnownIncarnation,
}

struct Slot<V> {
    asked_at: Timestamp,
    /// With the time and the generation that it was asked for in.
    answer: Option<(V, Timestamp, Generation)>,
    outlook: Outlook,
    /// The read that nobody has sent yet, or the last one that was sent.
    newest: Option<Flight<V>>,
    is_sent: bool,
}

impl<V> Slot<V> {
    /// The last answer, if it may still be told.
    fn fallback(&self, now: Timestamp, generation: Generation) -> Option<V>
    where
        V: Clone,
    {
        let (answer, as_of, of) = self.answer.as_ref()?;
        (*of == generation && will_do(*as_of, now)).then(|| answer.clone())
    }
}

impl<K, V> Kept<K, V>
where
    K: Ord + Copy + Send,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(clock: Arc<dyn Clock>, incarnation: KnownIncarnation) -> Self {
        Self { slots: Mutex::default(), clock, incarnation }
    }

    /// The answer of a read, sent now or shared with others; or the last one, while the database is away.
    ///
    /// # Errors
    /// [`Unread`] when there is no answer that may still be told.
    pub(crate) async fn ask<L>(&self, key: K, read: L) -> Result<V, Unread>
    where
        L: FnOnce(Timestamp) -> BoxFuture<'static, Result<V, StorageError>> + Send + 'static,
    {
        let slot = self.slot(key);
        let flight = {
            let mut held = lock(&slot);
            let (now, generation) = (self.clock.now(), self.incarnation.generation());
            if let Some(answer) = held.fallback(now, generation).filter(|_| held.outlook.is_away(now)) {
                // A read that everybody has turned away from goes on when somebody looks after it.
                let newest = held.newest.clone();
                drop(held);
                return Ok(newest.and_then(FutureExt::now_or_never).and_then(Result::ok).unwrap_or(answer));
            }
            match &held.newest {
                Some(unsent) if !held.is_sent => unsent.clone(),
                before => {
                    let before = before.clone();
                    let flight = self.launch(before, slot.clone(), read);
                    held.newest = Some(flight.clone());
                    held.is_sent = false;
                    flight
                }
            }
        };
        let answered = flight.await;
        let generation = self.incarnation.generation();
        answered.or_else(|unread| lock(&slot).fallback(self.clock.now(), generation).ok_or(unread))
    }

    fn launch<L>(&self, before: Option<Flight<V>>, slot: Arc<Mutex<Slot<V>>>, read: L) -> Flight<V>
    where
        L: FnOnce(Timestamp) -> BoxFuture<'static, Result<V, StorageError>> + Send + 'static,
    {
        let (clock, incarnation) = (self.clock.clone(), self.incarnation.clone());
        let flight = async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let (now, generation) = (clock.now(), incarnation.generation());
            {
                let mut slot = lock(&slot);
                slot.is_sent = true;
                slot.outlook.begin(now);
            }
            let answer = caught(read(now)).await;
            let mut slot = lock(&slot);
            slot.outlook.end(answer.is_ok(), clock.now());
            let answer = answer?;
            slot.answer = Some((answer.clone(), now, generation));
            Ok(answer)
        };
        share(flight)
    }

    fn slot(&self, key: K) -> Arc<Mutex<Slot<V>>> {
        let asked_at = self.clock.now();
        let mut slots = lock(&self.slots);
        if !slots.contains_key(&key) && slots.len() >= MOST {
            let oldest = slots.iter().min_by_key(|(_, slot)| lock(slot).asked_at).map(|(key, _)| *key);
            oldest.map(|oldest| slots.remove(&oldest));
        }
        let fresh =
            || Slot { asked_at, answer: None, outlook: Outlook::default(), newest: None, is_sent: true };
        let slot = slots.entry(key).or_insert_with(|| Arc::new(Mutex::new(fresh())));
        lock(slot).asked_at = asked_at;
        slot.clone()
    }
}

/// Nothing that is done under these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::testing::{World, incarnation_of, world};

    /// Reads that say the how manieth they are, each with a permit.
    struct Reads {
        world: World,
        kept: Kept<u8, usize>,
        incarnation: KnownIncarnation,
        sent: Arc<AtomicUsize>,
        open: Arc<Semaphore>,
        is_away: Arc<AtomicBool>,
    }

    impl Reads {
        fn new(permits: usize) -> Self {
            let world = world();
            let incarnation = KnownIncarnation::default();
            incarnation.adopt(incarnation_of(1));
            let kept = Kept::new(world.clock(), incarnation.clone());
            let (sent, open) = (Arc::default(), Arc::new(Semaphore::new(permits)));
            Self { world, kept, incarnation, sent, open, is_away: Arc::default() }
        }

        async fn ask(&self) -> Result<usize, Unread> {
            let (sent, open, is_away) = (self.sent.clone(), self.open.clone(), self.is_away.clone());
            let read = move |_| {
                let number = sent.fetch_add(1, Ordering::SeqCst) + 1;
                let answer = async move {
                    open.acquire().await.unwrap().forget();
                    let away = || StorageError::Unavailable("away".into());
                    if is_away.load(Ordering::SeqCst) { Err(away()) } else { Ok(number) }
                };
                answer.boxed()
            };
            self.kept.ask(1, read).await
        }

        fn pass_time(&self, millis: u64) {
            let mut facts = self.world.facts();
            facts.now = facts.now.plus(Duration::from_millis(millis));
        }
    }

    #[tokio::test]
    async fn a_read_is_joined_only_before_it_is_sent() {
        let reads = Reads::new(0);
        let (mut first, mut second, mut third) =
            (Box::pin(reads.ask()), Box::pin(reads.ask()), Box::pin(reads.ask()));
        assert!((&mut first).now_or_never().is_none(), "the first read is sent");
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        assert_eq!(reads.sent.load(Ordering::SeqCst), 1, "one at a time");
        reads.open.add_permits(2);
        let (first, second, third) = futures_util::future::join3(first, second, third).await;
        assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (1, 2, 2));
    }

    #[tokio::test]
    async fn the_last_answer_does_for_a_while() {
        let reads = Reads::new(usize::MAX >> 4);
        assert_eq!(reads.ask().await.unwrap(), 1);
        reads.is_away.store(true, Ordering::SeqCst);
        assert_eq!(reads.ask().await.unwrap(), 1);
        assert_eq!(reads.ask().await.unwrap(), 1);
        assert_eq!(reads.sent.load(Ordering::SeqCst), 2, "nobody tries again so soon");
        reads.pass_time(30_001);
        assert!(reads.ask().await.is_err());
        reads.is_away.store(false, Ordering::SeqCst);
        assert_eq!(reads.ask().await.unwrap(), 4);
    }

    #[tokio::test]
    async fn an_answer_of_an_earlier_incarnation_does_not() {
        let reads = Reads::new(usize::MAX >> 4);
        assert_eq!(reads.ask().await.unwrap(), 1);
        reads.is_away.store(true, Ordering::SeqCst);
        assert_eq!(reads.ask().await.unwrap(), 1, "the control");
        reads.incarnation.adopt(incarnation_of(2));
        assert!(reads.ask().await.is_err());
    }

    #[tokio::test]
    async fn nobody_waits_long_and_a_late_answer_counts() {
        let reads = Reads::new(1);
        assert_eq!(reads.ask().await.unwrap(), 1);
        assert!(reads.ask().now_or_never().is_none(), "it goes away while it waits");
        reads.pass_time(151);
        assert_eq!(reads.ask().await.unwrap(), 1);
        reads.open.add_permits(1);
        assert_eq!(reads.ask().await.unwrap(), 2, "the read that was left alone has gone on");
    }
}
