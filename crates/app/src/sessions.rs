//! Who is calling: guest sessions, and the access token of every other call.

use std::sync::Arc;

use frontrow_domain::ports::{AccessClaims, AccessTokens, Clock, IdGenerator, NoIssuer, Role};
use frontrow_domain::{Timestamp, UserId};

/// Somebody who is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Who it is.
    pub user_id: UserId,
    /// What it may do.
    pub role: Role,
}

/// No access token, or one that is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a valid access token is required")]
pub struct Unauthenticated;

/// Why a session is not renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// See [`NoIssuer`].
    #[error(transparent)]
    NoIssuer(#[from] NoIssuer),
    /// The access token has a role: renewing would make a stolen one last for ever.
    #[error("an access token with a role is not renewed; an operator makes a new one with `frontrow token`")]
    HasRole,
}

/// A guest's session.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose session it is.
    pub user_id: UserId,
    /// Its access token. A secret: no `Debug`.
    pub access_token: String,
    /// From when on the token is no good.
    pub expires_at: Timestamp,
}

/// Opens sessions and tells callers.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct SessionService {
    pub tokens: Arc<dyn AccessTokens>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
}

impl SessionService {
    /// How long a guest's access token is good, in seconds.
    pub const GUEST_SECONDS: u32 = 24 * 60 * 60;

    /// Makes a user and an access token for it.
    ///
    /// # Errors
    /// [`NoIssuer`] when an outside identity provider issues the tokens.
    pub fn open(&self) -> Result<Session, NoIssuer> {
        self.session_of(UserId::new(self.ids.next_id()))
    }

    /// Makes a new access token for a user without a role, so that places in line outlast a session. The token that the caller
    /// came with stays valid until it expires.
    ///
    /// # Errors
    /// [`RenewError`] says why not. Where an outside provider issues the tokens it is that, whatever the role.
    pub fn renew(&self, caller: Caller) -> Result<Session, RenewError> {
        let session = self.session_of(caller.user_id)?;
        match caller.role {
            Role::User => Ok(session),
            Role::Admin | Role::Cashier => Err(RenewError::HasRole),
        }
    }

    fn session_of(&self, user_id: UserId) -> Result<Session, NoIssuer> {
        // A token's `exp` has whole seconds, and so has what the client is told.
        let end = self.clock.now().plus_seconds(Self::GUEST_SECONDS).unix_micros();
        let expires_at = Timestamp::from_unix_micros(end - end.rem_euclid(1_000_000)).ok_or(NoIssuer)?;
        let claims = AccessClaims { user_id, role: Role::User, expires_at };
        Ok(Session { user_id, access_token: self.tokens.issue(&claims)?, expires_at })
    }

    /// Who sent this access token.
    ///
    /// # Errors
    /// [`Unauthenticated`] without a good one.
    pub fn caller(&self, access_token: Option<&str>) -> Result<Caller, Unauthenticated> {
        let token = access_token.ok_or(Unauthenticated)?;
        let claims = self.tokens.verify(token, self.clock.now()).map_err(|_| Unauthenticated)?;
        Ok(Caller { user_id: claims.user_id, role: claims.role })
    }
}

#[cfg(test)]
mod tests;
