//! Group commit: units of work of all callers, many to a transaction. The steps are in the order in which
//! [`frontrow_domain::unit_of_work::CommitError`] is to be reported.

mod abandoned;
mod batch;
mod command;
mod failure;
mod fill;
mod find;
mod lock;
mod plan;
mod prune;
mod queue;
mod sideline;
mod stuck;
mod witness;
mod write;

use async_trait::async_trait;
use frontrow_domain::ports::Committer;
use frontrow_domain::unit_of_work::{CommitError, Committed, UnitOfWork};

pub(super) use self::batch::Writer;
pub(super) use self::queue::Committers;
use super::Postgres;

#[async_trait]
impl Committer for Postgres {
    /// Queued at once; a caller that goes away does not withdraw it.
    async fn commit(&self, work: UnitOfWork) -> Result<Committed, CommitError> {
        self.committers.commit(work).await
    }
}
