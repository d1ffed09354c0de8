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
        /// From when on it is lapsed.
        expires_at: Timestamp,
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

impl QueueToken {
    /// The status at `now`: an ACTIVE token whose time is up is EXPIRED, whether or not a sweep has been by.
    #[must_use]
    pub fn status_at(&self, now: Timestamp) -> QueueTokenStatus {
        match self.state {
            QueueTokenState::Wait => QueueTokenStatus::Wait,
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
                Ok(Self { state: QueueTokenState::Active { activated_at: now, expires_at }, ..self })
            }
            QueueTokenState::Active { .. } => Err(QueueTokenError::AlreadyActive),
            QueueTokenState::Expired { .. } => Err(QueueTokenError::Expired),
        }
    }

    /// WAIT or ACTIVE -> EXPIRED: paid (seed: 큐 상태 변경 요청), given up, or lapsed. A lapsed one ended at its deadline.
    ///
    /// # Errors
    /// [`QueueTokenError::Expired`] when it is over already.
    pub fn expire(self, now: Timestamp) -> Result<Self, QueueTokenError> {
        let (activated_at, expires_at) = match self.state {
            QueueTokenState::Wait => (None, now),
            QueueTokenState::Active { activated_at, expires_at } => (Some(activated_at), now.min(expires_at)),
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
        assert_eq!(active.state, QueueTokenState::Active { activated_at: at(10), expires_at: at(610) });
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
