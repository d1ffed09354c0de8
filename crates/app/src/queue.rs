//! The waiting room: enter, look up, leave (seed: QueueService, 유저 대기열 토큰 발급/조회 기능).
//!
//! Reads and writes: entering is 1 commit, whose Join finds a live place as well; a concert that is not known yet is 1 read
//! more, and the offer of a concert with a room of its own 1 read twice a second and node, see [`Offers`]. Being refused
//! as sold out is 1 read (the user's live token) and no commit. Looking up is no read while WAIT, and at most 1 a second and
//! token after that; leaving is 1 read and 1 commit. Positions come from [`Lines`], whatever the length of the line.
//!
//! A newcomer is refused in this order: unknown concert, sold out, room closed, room full. Sold out comes before the room's
//! own refusals because those ask the client to come back later, which would be for nothing.

use std::fmt;
use std::sync::Arc;

use frontrow_domain::ports::{
    Clock, Committer, Concerts, IdGenerator, QueueTokens, TokenProvider, WaitClaims,
};
use frontrow_domain::queue::{
    DEFAULT_ROOM_ID, QueueToken, QueueTokenStatus, RoomMode, RoomRefusal, estimated_wait_seconds,
    poll_after_seconds,
};
use frontrow_domain::unit_of_work::{AggregateRef, Command, CommandOutcome, CommitError, Join};
use frontrow_domain::{ConcertId, QueueTokenId, RoomId, Timestamp, UnitOfWork, UserId, Versioned};

use crate::lines::Standing;
use crate::{Failure, Gate, GateError, Lines, MAX_ATTEMPTS, Offers};

/// Where somebody stands in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePlace {
    /// The token.
    pub token: QueueToken,
    /// Its status now.
    pub status: QueueTokenStatus,
    /// 1 for the next to be admitted, 0 once not waiting.
    pub position: u64,
    /// How long until it is admitted, in seconds; absent while the room admits nobody.
    pub estimated_wait_seconds: Option<u64>,
    /// After how many seconds to ask again.
    pub poll_after_seconds: u64,
    /// Whether the sale of the room is paused.
    pub sale_paused: bool,
}

impl QueuePlace {
    fn new(standing: &Standing, now: Timestamp) -> Self {
        let token = standing.token.value;
        let status = token.status_at(now);
        let position = if status == QueueTokenStatus::Wait { standing.position } else { 0 };
        let room = standing.room.caught_up(Some(token.entered_at), now);
        Self {
            token,
            status,
            position,
            estimated_wait_seconds: estimated_wait_seconds(&room, position, now),
            poll_after_seconds: poll_after_seconds(status, position, &room, token.id, now),
            sale_paused: room.policy.mode == RoomMode::Paused,
        }
    }
}

/// A place that was just taken or found.
#[derive(Clone, PartialEq, Eq)]
pub struct Entered {
    /// The place.
    pub place: QueuePlace,
    /// The signed token for the `Wait-Token` header. A secret: `Debug` leaves it out.
    pub wait_token: String,
    /// Whether the place is new.
    pub is_new: bool,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, is_new, .. } = self;
        f.debug_struct("Entered").field("place", place).field("is_new", is_new).finish_non_exhaustive()
    }
}

/// Why somebody cannot enter.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// There is no such concert.
    #[error("there is no such concert")]
    ConcertNotFound,
    /// Every seat of every date ahead is sold, and the user has no live place.
    #[error("every seat of this concert is sold; one that is given back can be joined for within a second")]
    SoldOut,
    /// The room takes no newcomers.
    #[error(transparent)]
    Refused(RoomRefusal),
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Why a place cannot be looked up or given up.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// No Wait-Token came with the request.
    #[error("a Wait-Token is required")]
    Missing,
    /// The Wait-Token is forged, of another server, or another user's.
    #[error("the Wait-Token is not valid")]
    Invalid,
    /// The Wait-Token was issued by this server, and storage does not know it: its data went back, or the token was pruned.
    #[error("the place in line is gone: enter the waiting room again")]
    Gone,
    /// See [`Failure`].
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<GateError> for LookUpError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Missing => Self::Missing,
            GateError::Gone => Self::Gone,
            GateError::Invalid | GateError::NotActive | GateError::Expired => Self::Invalid,
            GateError::Failure(failure) => Self::Failure(failure),
        }
    }
}

/// The seed's QueueService.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the port of its type")]
pub struct QueueService {
    pub gate: Gate,
    pub provider: Arc<dyn TokenProvider>,
    pub concerts: Arc<dyn Concerts>,
    pub offers: Offers,
    pub tokens: Arc<dyn QueueTokens>,
    pub lines: Lines,
    pub committer: Arc<dyn Committer>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn IdGenerator>,
}

impl QueueService {
    /// Takes a place in the room of a concert, or in the global room; whoever has a live one gets that again. It is not
    /// looked for before: the Join does so in any case, with those of many others.
    ///
    /// # Errors
    /// [`EnterError`] says why not.
    pub async fn enter(&self, user_id: UserId, concert_id: Option<ConcertId>) -> Result<Entered, EnterError> {
        let mut is_gone = false;
        for _ in 0..MAX_ATTEMPTS {
            let generation = self.lines.generation();
            let room_id = match concert_id {
                Some(concert_id) => self.room_to_enter(user_id, concert_id).await?,
                None => DEFAULT_ROOM_ID,
            };
            let Some(entered) = self.join(room_id, user_id).await? else {
                // A concert that is known has a room, unless the data has gone back to before either was made.
                if std::mem::replace(&mut is_gone, true) || concert_id.is_none() {
                    return Err(concert_id.map_or_else(no_room, |_| EnterError::ConcertNotFound));
                }
                self.lines.incarnation().report_gone_back(generation);
                self.lines.refresh().await?;
                continue;
            };
            // A place that was there may have been paid with or given up meanwhile.
            if entered.is_new || entered.place.status != QueueTokenStatus::Expired {
                return Ok(entered);
            }
        }
        Err(Failure::Unavailable("each place found was given up at once".into()).into())
    }

    /// Where the holder of a Wait-Token stands.
    ///
    /// # Errors
    /// [`LookUpError`] says why not.
    pub async fn look_up(
        &self,
        user_id: UserId,
        wait_token: Option<&str>,
    ) -> Result<QueuePlace, LookUpError> {
        let claims = self.gate.own_claims(user_id, wait_token)?;
        let standing = self.lines.standing(&claims).await?.ok_or(LookUpError::Gone)?;
        Ok(QueuePlace::new(&standing, self.clock.now()))
    }

    /// Gives a place up. Doing so again changes nothing.
    ///
    /// # Errors
    /// [`LookUpError`] says why not.
    pub async fn leave(&self, user_id: UserId, wait_token: Option<&str>) -> Result<(), LookUpError> {
        for _ in 0..MAX_ATTEMPTS {
            let token = self.gate.find_own(user_id, wait_token).await?;
            let Some(work) = leaving(token, self.clock.now()) else { return Ok(()) };
            match self.committer.commit(work).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(Failure::from(error).into()),
            }
        }
        Err(Failure::Unavailable("the place kept changing while it was given up".into()).into())
    }

    /// The room of a concert, unless nothing is left to sell there. The global room is never refused: it serves others too.
    async fn room_to_enter(&self, user_id: UserId, concert_id: ConcertId) -> Result<RoomId, EnterError> {
        let concert = self.concerts.find(concert_id).await.map_err(Failure::from)?;
        let room_id = concert.ok_or(EnterError::ConcertNotFound)?.room_id;
        let is_open = room_id == DEFAULT_ROOM_ID
            || !self.offers.is_sold_out(concert_id).await
            || self.has_live_place(room_id, user_id).await?;
        if is_open { Ok(room_id) } else { Err(EnterError::SoldOut) }
    }

    async fn has_live_place(&self, room_id: RoomId, user_id: UserId) -> Result<bool, Failure> {
        let live = self.tokens.find_live(room_id, user_id).await?;
        Ok(live.is_some_and(|token| token.value.is_live(self.clock.now())))
    }

    /// `None` when there is no such room.
    async fn join(&self, room_id: RoomId, user_id: UserId) -> Result<Option<Entered>, EnterError> {
        let token_id = QueueTokenId::new(self.ids.next_id());
        let join = Join { token_id, room_id, user_id, now: self.clock.now() };
        let work = UnitOfWork { command: Some(Command::Join(join)), ..UnitOfWork::default() };
        let committed = match self.committer.commit(work).await {
            Ok(committed) => committed,
            Err(CommitError::Refused(refusal)) => return Err(EnterError::Refused(refusal)),
            Err(CommitError::Conflict(AggregateRef::Room(_))) => return Ok(None),
            Err(error) => return Err(Failure::from(error).into()),
        };
        let (token, is_new) = match committed.outcome {
            Some(CommandOutcome::Joined(token)) => (token, true),
            Some(CommandOutcome::AlreadyJoined(token)) => (token, false),
            other => return Err(Failure::Internal(format!("joining came to {other:?}")).into()),
        };
        self.entered(&WaitClaims::from(&token), is_new).await.map(Some)
    }

    async fn entered(&self, claims: &WaitClaims, is_new: bool) -> Result<Entered, EnterError> {
        let standing = self.lines.standing(claims).await?;
        // Only data that has gone back since the commit loses a token that was written.
        let lost = || Failure::Unavailable(format!("queue token {} is gone", claims.token_id).into());
        let standing = standing.ok_or_else(lost)?;
        let place = QueuePlace::new(&standing, self.clock.now());
        Ok(Entered { place, wait_token: self.provider.issue(claims), is_new })
    }
}

fn no_room() -> EnterError {
    Failure::Unavailable("there is no global waiting room".into()).into()
}

/// The work of giving a place up; nothing when it is over already.
fn leaving(token: Versioned<QueueToken>, now: Timestamp) -> Option<UnitOfWork> {
    let expired = token.try_map(|token| token.expire(now)).ok()?;
    Some(UnitOfWork { queue_tokens: vec![expired], ..UnitOfWork::default() })
}

#[cfg(test)]
mod tests;
