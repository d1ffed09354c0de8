//! Detection of a connection pooler that shares sessions of the server among open connections.
//!
//! In transaction or statement mode (PgBouncer, pgcat, Odyssey) each transaction runs in whatever session is
//! free. Settings, prepared statements and anything else of a session would be lost at random, and be met by
//! other clients. Two connections that are open at the same time are never served by one process of the
//! server otherwise, and each of them keeps its process. The process ids are compared before anything is set.

use super::error::ConnectError;
use super::hosts::{Opening, Reached};
use super::server_check::{Demands, STATE};
use super::target::Target;

/// The name in the server's activity view.
const APPLICATION_NAME: &str = "frontrow start-up check";

/// How often both connections are asked. A pooler without other clients is found out by the first question;
/// among others, each question meets another session with a probability of its own.
const ROUNDS: usize = 4;

/// Fails if a connection to this target is not a session of a server.
///
/// # Errors
/// [`ConnectError::TransactionPooling`], and whatever keeps a first connection from being used.
pub(super) async fn refuse_shared_sessions(target: &Target, demands: &Demands) -> Result<(), ConnectError> {
    let opening = Opening { application_name: APPLICATION_NAME, statements: STATE, demands };
    let first = target.reach(opening).await?;
    let second = match target.reach_again(first.place, opening).await {
        // A server that grants one connection is its own answer.
        Err(ConnectError::TooManyConnections { .. }) => return Ok(()),
        second => second?,
    };
    let (place, backends) = (first.place, [first.state.backend, second.state.backend]);
    let server = target.server_at(place);
    if backends[0] == backends[1] || !keep_sessions([first, second], &server).await? {
        return Err(ConnectError::TransactionPooling { server });
    }
    Ok(())
}

/// Whether each connection is served by the process that served it before.
async fn keep_sessions(connections: [Reached; 2], server: &str) -> Result<bool, ConnectError> {
    let mut connections = connections;
    for _ in 0..ROUNDS {
        for connection in &mut connections {
            let answer = connection.ask(STATE).await;
            let answer = answer.map_err(|error| ConnectError::of(server.to_owned(), error))?;
            if answer.is_some_and(|state| state.backend != connection.state.backend) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
