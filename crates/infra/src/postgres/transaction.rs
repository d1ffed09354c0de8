//! A transaction that can never be left open in the pool.

use std::time::Duration;

use diesel::QueryResult;
use diesel::result::Error as DieselError;
use diesel_async::SimpleAsyncConnection;

use super::connection::Connection;
use super::session::Session;

/// Ends a transaction durably. A COMMIT may wait for a synchronous replica for as long as it takes: cancelled by the
/// statement timeout, it would be acknowledged with a mere warning.
pub(super) const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// A transaction from before its BEGIN on. Its connection returns to the pool once the server has said that the
/// transaction is over, and by no other way: dropped before that, the connection is closed, and the server rolls back.
pub(super) struct Transaction {
    connection: Option<Connection>,
}

/// Why a transaction is not known to be committed.
#[derive(Debug)]
pub(super) enum CommitFailure {
    /// COMMIT was never sent: nothing was written.
    NotSent(DieselError),
    /// COMMIT was sent and its answer was lost, or was an error.
    Unanswered(DieselError),
}

impl Transaction {
    /// A transaction on this connection, not begun yet.
    pub(super) const fn new(connection: Connection) -> Self {
        Self { connection: Some(connection) }
    }

    /// Sends BEGIN, with the longest that a statement waits for a lock. What is sent on [`Transaction::shared`] after that, in
    /// the order of sending, is inside, whether or not the answer has come.
    pub(super) async fn begin(&self, lock_wait: Duration) -> QueryResult<()> {
        let mut shared = self.shared()?;
        let milliseconds = lock_wait.as_millis().max(1);
        shared.batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = {milliseconds}")).await
    }

    /// The connection, for statements that are sent without waiting for the answers to those before.
    ///
    /// They are executed in the order in which they are first polled, also those that have to be prepared first: a
    /// statement waits for the preparation of those before it. Texts without preparation (BEGIN, COMMIT) do not.
    pub(super) fn shared(&self) -> QueryResult<&Session> {
        self.connection.as_deref().ok_or(DieselError::NotInTransaction)
    }

    /// The connection, for statements inside the transaction.
    pub(super) fn connection(&mut self) -> QueryResult<&mut Session> {
        self.connection.as_deref_mut().ok_or(DieselError::NotInTransaction)
    }

    /// Makes all of it durable. Every statement before must have succeeded: after a failed one the server answers
    /// COMMIT with success, and rolls back.
    pub(super) async fn commit(mut self) -> Result<(), CommitFailure> {
        let connection = self.connection().map_err(CommitFailure::NotSent)?;
        if connection.is_broken() {
            return Err(CommitFailure::NotSent(DieselError::BrokenTransactionManager));
        }
        connection.batch_execute(COMMIT).await.map_err(CommitFailure::Unanswered)?;
        self.connection = None;
        Ok(())
    }

    /// Undoes all of it. When the server does not confirm that, the connection is closed instead, which does. Returns
    /// whether the server has confirmed it.
    pub(super) async fn rollback(mut self) -> bool {
        let Ok(connection) = self.connection() else { return false };
        let is_confirmed = connection.batch_execute("ROLLBACK").await.is_ok();
        if is_confirmed {
            self.connection = None;
        }
        is_confirmed
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }
}
