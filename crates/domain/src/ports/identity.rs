//! Time, ids and queue tokens: what would make the use cases impure if they took it themselves.

use uuid::Uuid;

use crate::queue::{QueueToken, TicketNumber};
use crate::{QueueTokenId, RoomId, Timestamp, UserId};

/// The time of a request. Nodes on PostgreSQL follow the database's clock.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Makes ids.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait IdGenerator: Send + Sync {
    /// A UUID v7 that was never given before, ordered by time.
    fn next_id(&self) -> Uuid;
}

/// What a Wait-Token says: stored facts only, so that it is the same, byte for byte, whenever it is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitClaims {
    /// The token it stands for.
    pub token_id: QueueTokenId,
    /// The line.
    pub room_id: RoomId,
    /// Whose place it is. Nobody else can use it.
    pub user_id: UserId,
    /// The number in the line.
    pub ticket: TicketNumber,
    /// When the place was taken.
    pub entered_at: Timestamp,
}

impl From<&QueueToken> for WaitClaims {
    fn from(token: &QueueToken) -> Self {
        Self {
            token_id: token.id,
            room_id: token.room_id,
            user_id: token.user_id,
            ticket: token.ticket,
            entered_at: token.entered_at,
        }
    }
}

/// A text that this server never issued as a Wait-Token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Wait-Token of this server")]
pub struct InvalidWaitToken;

/// Signs and checks Wait-Tokens (seed: TokenProvider, 토큰 발급).
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait TokenProvider: Send + Sync {
    /// Signs claims. The same claims give the same text.
    fn issue(&self, claims: &WaitClaims) -> String;

    /// Checks the signature and reads the claims. Says nothing of the token's state.
    ///
    /// # Errors
    /// [`InvalidWaitToken`] for anything that [`TokenProvider::issue`] did not make with this key.
    fn verify(&self, token: &str) -> Result<WaitClaims, InvalidWaitToken>;
}
