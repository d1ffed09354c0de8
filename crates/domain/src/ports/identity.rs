//! Time, ids and queue tokens: what would make the use cases impure if they took it themselves.

use uuid::Uuid;

use crate::queue::{QueueToken, TicketNumber};
use crate::{QueueTokenId, RoomId, Timestamp, UserId};

/// The time of a request. Never goes back, except by a confirmed step of the clock that it follows: the machine's, or the
/// database's where several nodes share one.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Makes the ids of one cell, which is one database and all that is stored in it.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait IdGenerator: Send + Sync {
    /// A new UUID v7 with the number of the cell, greater than all ids that this generator has made before.
    fn next_id(&self) -> Uuid;
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A buyer: acts for itself.
    User,
    /// An operator.
    Admin,
    /// A payment backend: charges wallets, where [`crate::account::WalletCharging`] says so. Otherwise a buyer.
    Cashier,
}

impl Role {
    /// The roles that a token names, as it names them. A token without one of these is a user's.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Admin, "admin"), (Self::Cashier, "cashier")];

    /// The role of a token that names these: the first of [`Role::NAMES`] among them, whatever their order.
    #[must_use]
    pub fn among(names: &[&str]) -> Self {
        let found = Self::NAMES.iter().find(|(_, known)| names.contains(known));
        found.map_or(Self::User, |(role, _)| *role)
    }

    /// What a token says of the role; nothing of a user's.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(role, _)| *role == self).map(|(_, name)| *name)
    }
}

/// What an access token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessClaims {
    /// Who calls.
    pub user_id: UserId,
    /// What the caller may do.
    pub role: Role,
    /// From when on the token is no good.
    pub expires_at: Timestamp,
}

/// A text that is no good access token at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid access token")]
pub struct InvalidAccessToken;

/// Access tokens come from an outside identity provider, so none can be made here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("access tokens are issued by an outside identity provider")]
pub struct NoIssuer;

/// Checks access tokens, and makes them unless an outside identity provider does. The algorithm is fixed by the key.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait AccessTokens: Send + Sync {
    /// Checks the signature and the times of a token at `now`.
    ///
    /// # Errors
    /// [`InvalidAccessToken`] whatever is wrong with it.
    fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken>;

    /// Signs claims.
    ///
    /// # Errors
    /// [`NoIssuer`] when an outside provider issues the tokens.
    fn issue(&self, claims: &AccessClaims) -> Result<String, NoIssuer>;
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
    /// Signs claims. The same claims give the same text as long as the key that signs is the same.
    fn issue(&self, claims: &WaitClaims) -> String;

    /// Checks the signature and reads the claims. Says nothing of the token's state.
    ///
    /// # Errors
    /// [`InvalidWaitToken`] for anything that [`TokenProvider::issue`] did not make with this key or one before it.
    fn verify(&self, token: &str) -> Result<WaitClaims, InvalidWaitToken>;
}
