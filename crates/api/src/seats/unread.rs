//! Bound of the unread seat answers per caller (ADR 0008).
//!
//! The bodies of seat answers are shared, but a connection copies a part at a time into its write buffer. Without a bound, a
//! caller whose connections do not read costs such a copy for each of them. An answer counts from the moment it is made
//! until its body is dropped: after its last part was taken, or when the connection ends.
//!
//! Cost: a lock and a hash per counted answer, twice; none for 304 and small answers. The table holds one entry per caller
//! with an unread answer, so the number of connections bounds it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use frontrow_domain::UserId;

use crate::problem::{Code, Problem};

/// The most unread answers of a caller. A browser opens six connections per host, so that two browsers of one caller have
/// room, and a caller costs some 2 MiB at most.
const MAX_PER_CALLER: usize = 16;
/// The largest answer that is not counted, in bytes. The HTTP library keeps as much in the write buffer of a connection after
/// it has dropped a body, so that a smaller answer costs no more counted than not.
const MAX_UNCOUNTED_BYTES: usize = 32 * 1024;
/// The seconds after which a refused caller may try again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Concurrency limiter of unread answers, keyed by caller. Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct UnreadAnswers(Arc<Mutex<HashMap<UserId, usize>>>);

/// The limiter as one caller meets it.
pub(crate) struct AnswersOf<'a> {
    answers: &'a UnreadAnswers,
    user_id: UserId,
}

/// The share of one answer in its caller's count. Dropping it returns the share.
pub(crate) struct UnreadAnswer {
    answers: UnreadAnswers,
    user_id: UserId,
}

impl UnreadAnswers {
    /// The limiter for answers to a caller.
    pub(crate) const fn of(&self, user_id: UserId) -> AnswersOf<'_> {
        AnswersOf { answers: self, user_id }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        // No code that holds this lock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnswersOf<'_> {
    /// Counts an answer of so many bytes. `None` when it is too small to count.
    ///
    /// # Errors
    /// 429 when the caller has as many unread answers as it may.
    pub(crate) fn admit(&self, bytes: usize) -> Result<Option<UnreadAnswer>, Problem> {
        if bytes <= MAX_UNCOUNTED_BYTES {
            return Ok(None);
        }
        let mut counts = self.answers.counts();
        let unread = counts.entry(self.user_id).or_default();
        if *unread >= MAX_PER_CALLER {
            return Err(too_many());
        }
        *unread += 1;
        Ok(Some(UnreadAnswer { answers: self.answers.clone(), user_id: self.user_id }))
    }
}

fn too_many() -> Problem {
    let detail =
        format!("This caller has {MAX_PER_CALLER} answers that it has not read yet. Read or close them.");
    Problem::new(Code::RateLimited, detail).with_retry_after(RETRY_AFTER_SECONDS)
}

impl Drop for UnreadAnswer {
    fn drop(&mut self) {
        if let Entry::Occupied(mut unread) = self.answers.counts().entry(self.user_id) {
            *unread.get_mut() = unread.get().saturating_sub(1);
            if *unread.get() == 0 {
                unread.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use actix_web::HttpResponse;
    use actix_web::body::{BoxBody, MessageBody};
    use actix_web::web::Bytes;
    use futures_util::FutureExt;
    use futures_util::future::poll_fn;
    use uuid::Uuid;

    use super::super::Parts;
    use super::*;

    const LARGE: usize = MAX_UNCOUNTED_BYTES + 1;

    fn caller(number: u128) -> UserId {
        UserId::new(Uuid::from_u128(number))
    }

    fn admitted(answers: &UnreadAnswers, number: u128) -> Vec<UnreadAnswer> {
        (0..100).filter_map(|_| answers.of(caller(number)).admit(LARGE).ok().flatten()).collect()
    }

    #[test]
    fn a_caller_has_so_many_unread_answers_and_takes_no_share_of_another() {
        let answers = UnreadAnswers::default();
        let mut unread = admitted(&answers, 1);
        assert_eq!(unread.len(), MAX_PER_CALLER);
        assert_eq!(admitted(&answers, 2).len(), MAX_PER_CALLER, "another caller");
        unread.pop();
        assert_eq!(admitted(&answers, 1).len(), 1, "a dropped answer does not count");
        drop(unread);
        assert!(answers.counts().is_empty(), "a caller without unread answers is not in the table");
    }

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let answers = UnreadAnswers::default();
        let _unread = admitted(&answers, 1);
        let Err(problem) = answers.of(caller(1)).admit(LARGE) else { panic!("admitted") };
        let response = problem.response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers().get("Retry-After").unwrap(), "1");
    }

    #[test]
    fn small_answers_are_not_counted() {
        let answers = UnreadAnswers::default();
        let _unread = admitted(&answers, 1);
        assert!(matches!(answers.of(caller(1)).admit(MAX_UNCOUNTED_BYTES), Ok(None)));
    }

    fn sent(answers: &UnreadAnswers, bytes: usize) -> BoxBody {
        let body = Parts::new(vec![Bytes::from(vec![b'x'; bytes])]);
        let unread = answers.of(caller(1)).admit(bytes).unwrap_or_default();
        body.send(HttpResponse::Ok(), unread).into_body()
    }

    #[test]
    fn a_body_counts_until_it_is_dropped_however_many_parts_it_has() {
        for (bytes, counted) in [(10, 0), (MAX_UNCOUNTED_BYTES, 0), (LARGE, 1), (1 << 20, 1)] {
            let answers = UnreadAnswers::default();
            let count = || answers.counts().get(&caller(1)).copied().unwrap_or(0);
            let mut body = Box::pin(sent(&answers, bytes));
            let mut read = 0;
            while let Some(Some(Ok(part))) = poll_fn(|cx| body.as_mut().poll_next(cx)).now_or_never() {
                assert_eq!(count(), counted, "{bytes} bytes, of which {read} were taken");
                read += part.len();
            }
            assert_eq!(read, bytes);
            drop(body);
            assert_eq!(count(), 0);
            drop(sent(&answers, bytes));
            assert_eq!(count(), 0, "also when nothing was taken");
        }
    }

    #[test]
    fn counts_are_exact_when_workers_share_the_limiter() {
        let answers = UnreadAnswers::default();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let unread = admitted(&answers, 1);
                        assert!(unread.len() <= MAX_PER_CALLER);
                        assert!(answers.counts().values().all(|unread| *unread <= MAX_PER_CALLER));
                    }
                });
            }
        });
        assert!(answers.counts().is_empty(), "no count leaks");
    }
}
