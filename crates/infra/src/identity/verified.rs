//! Access tokens that were checked before, so that a caller's next request costs no signature.

use frontrow_domain::Timestamp;
use frontrow_domain::ports::{AccessClaims, AccessTokens, InvalidAccessToken, NoIssuer};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

/// How many tokens are remembered: some 100 bytes each.
const REMEMBERED: usize = 65_536;

/// Remembers good tokens by their SHA-256, so that no token lies in memory. A bad one is never remembered, and so can
/// push nobody out. A remembered one still ends when it says.
pub struct VerifiedTokens<T> {
    tokens: T,
    known: Cache<[u8; 32], AccessClaims>,
}

impl<T: AccessTokens> VerifiedTokens<T> {
    /// Remembers what `tokens` finds good.
    #[must_use]
    pub fn new(tokens: T) -> Self {
        Self { tokens, known: Cache::new(REMEMBERED) }
    }
}

impl<T: AccessTokens> AccessTokens for VerifiedTokens<T> {
    fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        let digest = Sha256::digest(token).into();
        if let Some(claims) = self.known.get(&digest) {
            return if now < claims.expires_at { Ok(claims) } else { Err(InvalidAccessToken) };
        }
        let claims = self.tokens.verify(token, now)?;
        self.known.insert(digest, claims);
        Ok(claims)
    }

    fn issue(&self, claims: &AccessClaims) -> Result<String, NoIssuer> {
        self.tokens.issue(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use frontrow_domain::UserId;
    use frontrow_domain::ports::Role;
    use uuid::Uuid;

    use super::*;

    /// Believes texts that begin with "good", and counts its work.
    #[derive(Default)]
    struct Counting(AtomicU32);

    fn at(seconds: u32) -> Timestamp {
        Timestamp::from_unix_micros(0).unwrap().plus_seconds(seconds)
    }

    impl AccessTokens for Counting {
        fn verify(&self, token: &str, _: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if !token.starts_with("good") {
                return Err(InvalidAccessToken);
            }
            Ok(AccessClaims {
                user_id: UserId::new(Uuid::from_u128(1)),
                role: Role::User,
                expires_at: at(60),
            })
        }

        fn issue(&self, _: &AccessClaims) -> Result<String, NoIssuer> {
            Err(NoIssuer)
        }
    }

    #[test]
    fn a_good_token_is_checked_once_and_ends_when_it_says() {
        let tokens = VerifiedTokens::new(Counting::default());
        let first = tokens.verify("good", at(0)).unwrap();
        assert_eq!(tokens.verify("good", at(59)), Ok(first));
        assert_eq!(tokens.verify("good", at(60)), Err(InvalidAccessToken));
        assert_eq!(tokens.tokens.0.load(Ordering::Relaxed), 1);
        assert!(tokens.verify("good too", at(0)).is_ok());
        assert_eq!(tokens.tokens.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_bad_token_is_checked_each_time_and_pushes_nobody_out() {
        let tokens = VerifiedTokens::new(Counting::default());
        assert!(tokens.verify("good", at(0)).is_ok());
        for number in 0..REMEMBERED * 2 {
            assert_eq!(tokens.verify(&number.to_string(), at(0)), Err(InvalidAccessToken));
        }
        assert_eq!(tokens.known.len(), 1);
        assert_eq!(tokens.verify("0", at(0)), Err(InvalidAccessToken));
        let checked = u32::try_from(REMEMBERED * 2 + 2).unwrap();
        assert_eq!(tokens.tokens.0.load(Ordering::Relaxed), checked);
    }
}
