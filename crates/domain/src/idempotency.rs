//! Idempotency keys: a request that arrives twice has one effect and one answer (contract: `Idempotency-Key`).

use std::time::Duration;

use crate::{Timestamp, UserId};

/// How long a stored answer is given again.
pub const REPLAY_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// A client's name for one request: 1 to 255 printable ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// A text that is no [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to 255 printable ASCII characters")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// Checks a key.
    ///
    /// # Errors
    /// [`InvalidIdempotencyKey`] when it is empty, too long, or not printable ASCII.
    pub fn new(key: &str) -> Result<Self, InvalidIdempotencyKey> {
        let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if printable && (1..=255).contains(&key.len()) {
            Ok(Self(key.to_owned()))
        } else {
            Err(InvalidIdempotencyKey)
        }
    }

    /// The key as the client sent it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A digest of method, path and raw body: what a key was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// A request that carries an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    /// Whose request it is: keys of different users never meet.
    pub user_id: UserId,
    /// The client's name for it.
    pub key: IdempotencyKey,
    /// What was asked.
    pub fingerprint: Fingerprint,
}

/// The final bytes of an answer. Storage keeps them; only the transport reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The transport's status code.
    pub status: u16,
    /// The media type of `body`.
    pub content_type: String,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

/// A keyed request and its answer, stored in the same transaction as the effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// The request that was answered.
    pub request: KeyedRequest,
    /// What it was answered with.
    pub answer: Answer,
    /// When it was answered.
    pub created_at: Timestamp,
    /// From when on the key is free again: `created_at` + [`REPLAY_WINDOW`].
    pub expires_at: Timestamp,
}

/// A key was used before for another method, path or body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this idempotency key was used for another request")]
pub struct KeyReused;

impl IdempotencyRecord {
    /// Records an answer given at `now`.
    #[must_use]
    pub fn new(request: KeyedRequest, answer: Answer, now: Timestamp) -> Self {
        Self { request, answer, created_at: now, expires_at: now.plus(REPLAY_WINDOW) }
    }

    /// The stored answer, when the record still counts and is of the same request.
    ///
    /// # Errors
    /// [`KeyReused`] when the key was used for something else.
    pub fn replay(self, request: &KeyedRequest, now: Timestamp) -> Result<Option<Answer>, KeyReused> {
        if now >= self.expires_at {
            return Ok(None);
        }
        if self.request.fingerprint == request.fingerprint { Ok(Some(self.answer)) } else { Err(KeyReused) }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn request(body: u8) -> KeyedRequest {
        KeyedRequest {
            user_id: UserId::new(Uuid::nil()),
            key: IdempotencyKey::new("k").unwrap(),
            fingerprint: Fingerprint([body; 32]),
        }
    }

    #[test]
    fn keys_are_printable_ascii() {
        for good in ["a", " ~", &"x".repeat(255)] {
            assert!(IdempotencyKey::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "é", "a\tb", "\u{7f}", &"x".repeat(256)] {
            assert_eq!(IdempotencyKey::new(bad), Err(InvalidIdempotencyKey), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_is_replayed_for_a_day_to_the_same_request_only() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let answer = Answer { status: 200, content_type: "application/json".into(), body: b"{}".to_vec() };
        let record = IdempotencyRecord::new(request(1), answer.clone(), now);
        let last = Timestamp::from_unix_micros(record.expires_at.unix_micros() - 1).unwrap();
        assert_eq!(record.clone().replay(&request(1), last), Ok(Some(answer)));
        assert_eq!(record.clone().replay(&request(2), last), Err(KeyReused));
        assert_eq!(record.clone().replay(&request(1), record.expires_at), Ok(None));
        assert_eq!(record.clone().replay(&request(2), record.expires_at), Ok(None));
    }
}
