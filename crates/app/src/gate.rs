//! The gate in front of everything that sells (seed: TokenValidatorFilter).

use std::sync::Arc;

use frontrow_domain::ports::{Clock, QueueTokens, TokenProvider, WaitClaims};
use frontrow_domain::queue::{QueueToken, QueueTokenError, SalePaused};
use frontrow_domain::{RoomId, Timestamp, UserId, Versioned};

use crate::{Failure, Lines};

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// No Wait-Token came with the request.
    #[error("a Wait-Token is required")]
    Missing,
    /// The Wait-Token is forged, of another server, or another user's.
    #[error("the Wait-Token is not valid")]
    Invalid,
    /// The Wait-Token was issued by this server, and storage does not know it: its data went back, or the token was pruned.
    #[error("the place in line is gone: enter the waiting room again")]
    Gone,
    /// Its holder still waits.
    #[error("the Wait-Token is not active yet")]
    NotActive,
    /// It was paid with, given up, or has lapsed.
    #[error("the Wait-Token has expired")]
    Expired,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<QueueTokenError> for GateError {
    fn from(error: QueueTokenError) -> Self {
        match error {
            QueueTokenError::NotActive => Self::NotActive,
            QueueTokenError::AlreadyActive | QueueTokenError::Expired => Self::Expired,
        }
    }
}

/// The token is of another room than the one in front of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Wait-Token is of another waiting room")]
pub struct WrongRoom;

/// Proof that somebody passed the gate. Only [`Gate`] makes one, and gated use cases ask for it.
#[derive(Debug, Clone, Copy)]
pub struct GatePass {
    token: Versioned<QueueToken>,
}

impl GatePass {
    /// Whose pass it is.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.token.value.user_id
    }

    /// The token with the version that was judged.
    pub(crate) fn token(&self) -> Versioned<QueueToken> {
        self.token
    }

    /// Checks that the sale is not paused. The token knows: its version guards this too.
    pub(crate) fn require_unpaused(&self) -> Result<(), SalePaused> {
        self.token.value.require_unpaused()
    }

    /// Checks that the pass is of this room.
    pub(crate) fn require_room(&self, room_id: RoomId) -> Result<(), WrongRoom> {
        if self.token.value.room_id == room_id { Ok(()) } else { Err(WrongRoom) }
    }
}

/// Checks Wait-Tokens against their stored state: one read a check; or by what this node knows, where nothing is written.
#[derive(Clone)]
pub struct Gate {
    provider: Arc<dyn TokenProvider>,
    tokens: Arc<dyn QueueTokens>,
    lines: Lines,
    clock: Arc<dyn Clock>,
}

impl Gate {
    /// Checks by these ports.
    #[must_use]
    pub fn new(
        provider: Arc<dyn TokenProvider>,
        tokens: Arc<dyn QueueTokens>,
        lines: Lines,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { provider, tokens, lines, clock }
    }

    /// Lets `user_id` in with this Wait-Token. The room is for the use case to check: only it knows which one counts.
    ///
    /// # Errors
    /// [`GateError`] says why not.
    pub async fn check(&self, user_id: UserId, wait_token: Option<&str>) -> Result<GatePass, GateError> {
        let token = self.find_own(user_id, wait_token).await?;
        admit(token, self.clock.now())
    }

    /// Lets `user_id` in to look, by what this node knows: at most a second old, longer while storage is away. What this
    /// node itself has committed counts at once. Nobody is kept waiting by that: another node may have let them in a
    /// moment ago, so who seems to wait is looked up.
    ///
    /// # Errors
    /// [`GateError`] says why not.
    pub async fn check_to_look(
        &self,
        user_id: UserId,
        wait_token: Option<&str>,
    ) -> Result<GatePass, GateError> {
        let claims = self.own_claims(user_id, wait_token)?;
        let standing = self.lines.standing(&claims).await?.ok_or(GateError::Gone)?;
        let judged = admit(standing.token, self.clock.now());
        if !matches!(judged, Err(GateError::NotActive)) {
            return judged;
        }
        let generation = self.lines.generation();
        let Ok(token) = self.tokens.find(claims.token_id).await else { return judged };
        let token = token.filter(|token| token.value.user_id == user_id).ok_or(GateError::Gone)?;
        self.lines.remember(token, generation);
        admit(token, self.clock.now())
    }

    /// Judges a pass again by the token's state as it is now, before a decision is taken anew.
    pub(crate) async fn renew(&self, pass: &GatePass) -> Result<GatePass, GateError> {
        let token = self.tokens.find(pass.token.value.id).await.map_err(Failure::from)?;
        admit(token.ok_or(GateError::Gone)?, self.clock.now())
    }

    /// The stored token behind a Wait-Token of `user_id`, in whatever state.
    pub(crate) async fn find_own(
        &self,
        user_id: UserId,
        wait_token: Option<&str>,
    ) -> Result<Versioned<QueueToken>, GateError> {
        let claims = self.own_claims(user_id, wait_token)?;
        let token = self.tokens.find(claims.token_id).await.map_err(Failure::from)?;
        token.filter(|token| token.value.user_id == user_id).ok_or(GateError::Gone)
    }

    /// What a Wait-Token of `user_id` says.
    pub(crate) fn own_claims(
        &self,
        user_id: UserId,
        wait_token: Option<&str>,
    ) -> Result<WaitClaims, GateError> {
        let wait_token = wait_token.ok_or(GateError::Missing)?;
        let claims = self.provider.verify(wait_token).map_err(|_| GateError::Invalid)?;
        if claims.user_id == user_id { Ok(claims) } else { Err(GateError::Invalid) }
    }
}

fn admit(token: Versioned<QueueToken>, now: Timestamp) -> Result<GatePass, GateError> {
    token.value.require_active(now)?;
    Ok(GatePass { token })
}

#[cfg(test)]
mod tests;
