//! Expiry of tokens and holds. Nobody depends on it for the truth: every decision judges deadlines by its own clock.
//! It makes the stored state say the same, in bounded batches, and any number of nodes may run it.

use std::sync::Arc;

use frontrow_domain::UnitOfWork;
use frontrow_domain::ports::{Clock, Committer};
use frontrow_domain::unit_of_work::{Command, CommandOutcome};

use crate::Failure;

/// The most that one transaction expires.
const BATCH: u32 = 500;
/// The most transactions of one pass: a backlog is worked off over several, so that admission gets its turn.
const BATCHES_PER_PASS: u32 = 40;

/// What one pass expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// ACTIVE tokens whose time was up.
    pub tokens: u64,
    /// Holds whose deadline had passed.
    pub holds: u64,
}

/// Expires whatever has lapsed.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct Expiry {
    pub committer: Arc<dyn Committer>,
    pub clock: Arc<dyn Clock>,
}

impl Expiry {
    /// One pass, repeated until less than a batch remains.
    ///
    /// # Errors
    /// [`Failure`] of the first sweep that could not be finished; the batches before are written.
    pub async fn run(&self) -> Result<Expired, Failure> {
        let now = self.clock.now();
        // Neither keeps the other from running.
        let holds = self.sweep(Command::ExpireHolds { now, limit: BATCH }).await;
        let tokens = self.sweep(Command::ExpireTokens { now, limit: BATCH }).await;
        Ok(Expired { holds: holds?, tokens: tokens? })
    }

    async fn sweep(&self, command: Command) -> Result<u64, Failure> {
        let mut expired = 0_u64;
        for _ in 0..BATCHES_PER_PASS {
            let work = UnitOfWork { command: Some(command.clone()), ..UnitOfWork::default() };
            let outcome = self.committer.commit(work).await?.outcome;
            let Some(CommandOutcome::TokensExpired(batch) | CommandOutcome::HoldsExpired(batch)) = outcome
            else {
                return Err(Failure::Internal(format!("expiry came to {outcome:?}")));
            };
            expired = expired.saturating_add(u64::from(batch));
            if batch < BATCH {
                break;
            }
        }
        Ok(expired)
    }
}

#[cfg(test)]
mod tests;
