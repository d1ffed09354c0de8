//! A queue token: one person's place in one line. WAIT -> ACTIVE -> EXPIRED.

use crate::{QueueTokenId, RoomId, Timestamp, UserId};

/// A place in the order of a room, 1 for the first who ever joined. Gapless, in commit order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketNumber(pub i64);

/// The status of a token as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueTokenStatus {
    /// In line.
    Wait,
    /// Admitted: the gate is open.
    Active,
    /// Over: paid, lapsed or given up.
    Expired,
}

impl QueueTokenStatus {
    /// Every status with its name in the contract and in storage.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::Wait, "WAIT"), (Self::Active, "ACTIVE"), (Self::Expired, "EXPIRED")];
}

/// The state of a token as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueTokenState {
    /// In line.
    Wait,
    /// Admitted.
    Active {
        /// When it was admitted.
        activated_at: Timestamp,
        /// The deadline, exclusive. While paused, as it was when the pause began.
        expires_at: Timestamp,
        /// The start of the pause of its room, while that is PAUSED: the token does not expire meanwhile.
        paused_at: Option<Timestamp>,
    },
    /// Over.
    Expired {
        /// When it was admitted, if it ever was.
        activated_at: Option<Timestamp>,
        /// When it ended.
        expires_at: Timestamp,
    },
}

/// A person's place in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueToken {
    /// Which token.
    pub id: QueueTokenId,
    /// The line it is a place in.
    pub room_id: RoomId,
    /// Whose place it is.
    pub user_id: UserId,
    /// Its number in the line.
    pub ticket: TicketNumber,
    /// When it was taken.
    pub entered_at: Timestamp,
    /// Where it stands.
    pub state: QueueTokenState,
}

/// What a token's state forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueTokenError {
    /// It is not admitted yet.
    #[error("the queue token still waits")]
    NotActive,
    /// It was admitted before.
    #[error("the queue token is active already")]
    AlreadyActive,
    /// It is over.
    #[error("the queue token has expired")]
    Expired,
}

/// The sale of a room is paused: nothing new is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the sale is paused: no seats can be held and no waiters admitted until it resumes; what is held can be paid"
)]
pub struct SalePaused;

impl QueueToken {
    /// The status at `now`: an ACTIVE token whose time is up is EXPIRED, whether or not a sweep has been by. A paused one
    /// is ACTIVE.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> QueueTokenStatus {
        match self.state {
            QueueTokenState::Wait => QueueTokenStatus::Wait,
            QueueTokenState::Active { paused_at: Some(_), .. } => QueueTokenStatus::Active,
            QueueTokenState::Active { expires_at, .. } if now < expires_at => QueueTokenStatus::Active,
            QueueTokenState::Active { .. } | QueueTokenState::Expired { .. } => QueueTokenStatus::Expired,
        }
    }

    /// Whether the token still holds a place at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.status_at(now) != QueueTokenStatus::Expired
    }

    /// The gate's question (seed: TokenValidatorFilter, 토큰 대기 상태 확인).
    ///
    /// # Errors
    /// [`QueueTokenError::NotActive`] while it waits, [`QueueTokenError::Expired`] once it is over.
    pub fn require_active(&self, now: Timestamp) -> Result<(), QueueTokenError> {
        match self.status_at(now) {
            QueueTokenStatus::Wait => Err(QueueTokenError::NotActive),
            QueueTokenStatus::Active => Ok(()),
            QueueTokenStatus::Expired => Err(QueueTokenError::Expired),
        }
    }

    /// WAIT -> ACTIVE for `ttl_seconds` (seed: ACTIVE 스케쥴러).
    ///
    /// # Errors
    /// Only a waiting token can be admitted.
    pub fn admit(self, now: Timestamp, ttl_seconds: u32) -> Result<Self, QueueTokenError> {
        match self.state {
            QueueTokenState::Wait => {
                let expires_at = now.plus_seconds(ttl_seconds);
                let state = QueueTokenState::Active { activated_at: now, expires_at, paused_at: None };
                Ok(Self { state, ..self })
            }
            QueueTokenState::Active { .. } => Err(QueueTokenError::AlreadyActive),
            QueueTokenState::Expired { .. } => Err(QueueTokenError::Expired),
        }
    }

    /// Refuses what a pause of the sale forbids.
    ///
    /// # Errors
    /// [`SalePaused`] while the token is paused.
    pub fn require_unpaused(&self) -> Result<(), SalePaused> {
        if matches!(self.state, QueueTokenState::Active { paused_at: Some(_), .. }) {
            return Err(SalePaused);
        }
        Ok(())
    }

    /// The token as the pause of its room leaves it: an ACTIVE one keeps the time that remains. `None` where nothing changes.
    #[must_use]
    pub fn paused(self, now: Timestamp) -> Option<Self> {
        match self.state {
            QueueTokenState::Active { activated_at, expires_at, paused_at: None } if now < expires_at => {
                let state = QueueTokenState::Active { activated_at, expires_at, paused_at: Some(now) };
                Some(Self { state, ..self })
            }
            _ => None,
        }
    }

    /// The token as the end of the pause leaves it: the pause is added to its deadline. `None` where nothing changes.
    #[must_use]
    pub fn resumed(self, now: Timestamp) -> Option<Self> {
        match self.state {
            QueueTokenState::Active { activated_at, expires_at, paused_at: Some(paused_at) } => {
                let expires_at = expires_at.plus(now.since(paused_at));
                let state = QueueTokenState::Active { activated_at, expires_at, paused_at: None };
                Some(Self { state, ..self })
            }
            _ => None,
        }
    }

    /// WAIT or ACTIVE -> EXPIRED: paid (seed: 큐 상태 변경 요청), given up, or lapsed. A lapsed one ended at its deadline.
    ///
    /// # Errors
    /// [`QueueTokenError::Expired`] when it is over already.
    pub fn expire(self, now: Timestamp) -> Result<Self, QueueTokenError> {
        let (activated_at, expires_at) = match self.state {
            QueueTokenState::Wait => (None, now),
            QueueTokenState::Active { activated_at, paused_at: Some(_), .. } => (Some(activated_at), now),
            QueueTokenState::Active { activated_at, expires_at, .. } => {
                (Some(activated_at), now.min(expires_at))
            }
            QueueTokenState::Expired { .. } => return Err(QueueTokenError::Expired),
        };
        Ok(Self { state: QueueTokenState::Expired { activated_at, expires_at }, ..self })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000).unwrap()
    }

    fn waiting() -> QueueToken {
        QueueToken {
            id: QueueTokenId::new(Uuid::from_u128(1)),
            room_id: RoomId::new(Uuid::from_u128(2)),
            user_id: UserId::new(Uuid::from_u128(3)),
            ticket: TicketNumber(1),
            entered_at: at(0),
            state: QueueTokenState::Wait,
        }
    }

    #[test]
    fn legal_transitions() {
        let active = waiting().admit(at(10), 600).unwrap();
        let state = QueueTokenState::Active { activated_at: at(10), expires_at: at(610), paused_at: None };
        assert_eq!(active.state, state);
        let paid = active.expire(at(20)).unwrap();
        assert_eq!(paid.state, QueueTokenState::Expired { activated_at: Some(at(10)), expires_at: at(20) });
        let lapsed = active.expire(at(9_999)).unwrap();
        assert_eq!(
            lapsed.state,
            QueueTokenState::Expired { activated_at: Some(at(10)), expires_at: at(610) }
        );
        let left = waiting().expire(at(5)).unwrap();
        assert_eq!(left.state, QueueTokenState::Expired { activated_at: None, expires_at: at(5) });
    }

    #[test]
    fn illegal_transitions() {
        let active = waiting().admit(at(10), 600).unwrap();
        let expired = active.expire(at(20)).unwrap();
        assert_eq!(active.admit(at(11), 600), Err(QueueTokenError::AlreadyActive));
        assert_eq!(expired.admit(at(21), 600), Err(QueueTokenError::Expired));
        assert_eq!(expired.expire(at(21)), Err(QueueTokenError::Expired));
    }

    #[test]
    fn the_gate_opens_for_active_ones_until_their_deadline() {
        let active = waiting().admit(at(10), 600).unwrap();
        assert_eq!(waiting().require_active(at(10)), Err(QueueTokenError::NotActive));
        assert_eq!(active.require_active(at(609)), Ok(()));
        assert_eq!(active.require_active(at(610)), Err(QueueTokenError::Expired));
        assert_eq!(active.expire(at(20)).unwrap().require_active(at(20)), Err(QueueTokenError::Expired));
        assert!(waiting().is_live(Timestamp::MAX), "waiting never lapses");
        assert!(!active.is_live(at(610)));
    }

    #[test]
    fn a_paused_token_stays_active_and_gets_the_pause_back() {
        let active = waiting().admit(at(10), 600).unwrap();
        let paused = active.paused(at(600)).unwrap();
        assert_eq!(paused.require_active(at(9_999)), Ok(()), "past its deadline");
        assert_eq!((paused.require_unpaused(), active.require_unpaused()), (Err(SalePaused), Ok(())));
        assert_eq!(paused.paused(at(605)), None, "the first pause counts");
        let resumed = paused.resumed(at(9_600)).unwrap();
        let state = QueueTokenState::Active { activated_at: at(10), expires_at: at(9_610), paused_at: None };
        assert_eq!(resumed.state, state, "ten seconds are left, as before");
        assert_eq!(resumed.resumed(at(9_605)), None);
        assert_eq!(resumed.paused(at(9_605)).unwrap().resumed(at(9_605)).unwrap(), resumed, "no time passes");
        let left = paused.expire(at(5_000)).unwrap();
        let over = QueueTokenState::Expired { activated_at: Some(at(10)), expires_at: at(5_000) };
        assert_eq!(left.state, over, "given up or paid during the pause");
    }

    #[test]
    fn only_live_active_tokens_are_paused() {
        let active = waiting().admit(at(10), 600).unwrap();
        assert_eq!(waiting().paused(at(1)), None);
        assert_eq!(active.paused(at(610)), None, "expired at its deadline");
        assert_eq!(active.expire(at(20)).unwrap().paused(at(20)), None);
        assert_eq!((waiting().resumed(at(1)), active.resumed(at(20))), (None, None));
        assert_eq!(active.paused(at(20)).unwrap().resumed(at(15)).unwrap(), active, "a clock that is behind");
    }

    proptest! {
        #[test]
        fn whatever_happens_a_token_only_moves_forward(steps in prop::collection::vec((any::<bool>(), 0..1_000_i64), 0..12)) {
            let rank = |t: &QueueToken| match t.state {
                QueueTokenState::Wait => 0,
                QueueTokenState::Active { .. } => 1,
                QueueTokenState::Expired { .. } => 2,
            };
            let (mut token, mut now) = (waiting(), 0);
            for (admit, step) in steps {
                now += step;
                let next = if admit { token.admit(at(now), 600) } else { token.expire(at(now)) };
                if let Ok(next) = next {
                    prop_assert!(rank(&next) > rank(&token));
                    token = next;
                }
                prop_assert_eq!(token.ticket, TicketNumber(1));
            }
        }
    }
}
