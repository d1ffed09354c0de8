//! One effect and one answer for a request that arrives twice (contract: `Idempotency-Key`).
//!
//! The answer is stored in the transaction of its effect. Whoever finds its key taken, or is refused because its
//! twin was faster, reads that answer instead.

use std::future::Future;
use std::sync::Arc;

use frontrow_domain::Timestamp;
use frontrow_domain::idempotency::{Answer, IdempotencyRecord, KeyReused, KeyedRequest};
use frontrow_domain::ports::{Clock, IdempotencyRecords};

use crate::Failure;

/// How a use case gives its final answer: under which key, and as which bytes.
pub struct Keyed<'a, R> {
    /// The key the client sent, if it sent one.
    pub request: Option<KeyedRequest>,
    /// Turns the result into the bytes that are sent and stored.
    pub encode: &'a (dyn Fn(&R) -> Answer + Sync),
}

impl<R> Keyed<'_, R> {
    /// The answer for a result, and its record if there is a key.
    pub(crate) fn answer(&self, result: &R, now: Timestamp) -> (Answer, Option<IdempotencyRecord>) {
        let answer = (self.encode)(result);
        let record = self.request.clone().map(|request| IdempotencyRecord::new(request, answer.clone(), now));
        (answer, record)
    }
}

/// The bytes to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// Whether it is an earlier request's.
    pub replayed: bool,
}

/// Why no earlier answer can be given.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The key was used for another request.
    #[error(transparent)]
    KeyReused(KeyReused),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(Failure),
}

/// Finds earlier answers.
#[derive(Clone)]
pub struct Idempotency {
    records: Arc<dyn IdempotencyRecords>,
    clock: Arc<dyn Clock>,
}

impl Idempotency {
    /// Reads records by these ports.
    #[must_use]
    pub fn new(records: Arc<dyn IdempotencyRecords>, clock: Arc<dyn Clock>) -> Self {
        Self { records, clock }
    }

    /// The answer that an earlier request with this key got. One read.
    ///
    /// # Errors
    /// [`ReplayError::KeyReused`] when that was another request.
    pub async fn replay(&self, request: &KeyedRequest) -> Result<Option<Reply>, ReplayError> {
        let record = self.records.find(request.user_id, &request.key).await;
        let Some(record) = record.map_err(|error| ReplayError::Failure(error.into()))? else {
            return Ok(None);
        };
        let answer = record.replay(request, self.clock.now()).map_err(ReplayError::KeyReused)?;
        Ok(answer.map(|answer| Reply { answer, replayed: true }))
    }

    /// The answer of `attempt`, or, when it failed and the key has an answer by now, that one: the twin of this
    /// request was faster, or a commit whose outcome was unknown did take effect.
    ///
    /// A refusal counts only once it is known that it is not the twin's doing. A failure says more than the failure to
    /// look for the twin does.
    pub(crate) async fn once<E: From<ReplayError>>(
        &self,
        request: Option<KeyedRequest>,
        attempt: impl Future<Output = Result<Answer, E>>,
        is_failure: impl FnOnce(&E) -> bool,
    ) -> Result<Reply, E> {
        let refusal = match attempt.await {
            Ok(answer) => return Ok(Reply { answer, replayed: false }),
            Err(refusal) => refusal,
        };
        let Some(request) = request else { return Err(refusal) };
        match self.replay(&request).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(refusal),
            Err(ReplayError::Failure(_)) if is_failure(&refusal) => Err(refusal),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
