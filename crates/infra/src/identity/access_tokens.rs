//! Access tokens: JWTs under one configured key, whose kind fixes the algorithm. What a token says of its own
//! algorithm is never followed.

use std::time::Duration;

use frontrow_domain::ports::{AccessClaims, AccessTokens, InvalidAccessToken, NoIssuer, Role};
use frontrow_domain::{Timestamp, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Number;
use uuid::Uuid;

use crate::identity::Secret;

/// The key that access tokens are checked with.
pub struct AccessKey {
    decoding: DecodingKey,
    validation: Validation,
    /// The key to sign with, unless an outside provider does.
    encoding: Option<EncodingKey>,
}

/// A file that holds no public key of a kind that is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA or Ed25519 public key in PEM")]
pub struct InvalidPublicKey;

/// The claims as they are signed and read. Others are ignored.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    exp: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
}

impl AccessKey {
    /// The server's own secret: HS256, checks and signs.
    #[must_use]
    pub fn own(secret: &Secret) -> Self {
        Self {
            decoding: DecodingKey::from_secret(secret.bytes()),
            validation: without_times(Algorithm::HS256),
            encoding: Some(EncodingKey::from_secret(secret.bytes())),
        }
    }

    /// The public key of an outside identity provider: RSA is RS256, Ed25519 is EdDSA. Checks only.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] for anything else, a private key included.
    pub fn outside(pem: &[u8]) -> Result<Self, InvalidPublicKey> {
        if pem.windows(11).any(|window| window == b"PRIVATE KEY") {
            return Err(InvalidPublicKey);
        }
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (key, Algorithm::RS256));
        let known = rsa.or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA)));
        let (decoding, algorithm) = known.map_err(|_| InvalidPublicKey)?;
        Ok(Self { decoding, validation: without_times(algorithm), encoding: None })
    }
}

/// Checks the signature under one algorithm and leaves times to the caller, who has the right clock.
pub(crate) fn without_times(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl AccessTokens for AccessKey {
    fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation);
        let claims = decoded.map_err(|_| InvalidAccessToken)?.claims;
        let expires_at = time_of(&claims.exp).ok_or(InvalidAccessToken)?;
        let begins_at = claims.nbf.as_ref().map(|nbf| time_of(nbf).ok_or(InvalidAccessToken)).transpose()?;
        if now >= expires_at || begins_at.is_some_and(|begins_at| now < begins_at) {
            return Err(InvalidAccessToken);
        }
        let role = Role::named(claims.role.as_deref());
        Ok(AccessClaims { user_id: UserId::new(claims.sub), role, expires_at })
    }

    fn issue(&self, claims: &AccessClaims) -> Result<String, NoIssuer> {
        let key = self.encoding.as_ref().ok_or(NoIssuer)?;
        let claims = Claims {
            sub: claims.user_id.get(),
            exp: Number::from(claims.expires_at.unix_micros().div_euclid(1_000_000)),
            nbf: None,
            role: claims.role.name().map(str::to_owned),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, key).map_err(|_| NoIssuer)
    }
}

/// The time of a JWT's NumericDate: seconds since 1970, perhaps with a fraction. One beyond our years is the last.
fn time_of(seconds: &Number) -> Option<Timestamp> {
    if let Some(whole) = seconds.as_u64() {
        return Some(Timestamp::from_unix_micros(0)?.plus(Duration::from_secs(whole)));
    }
    let since_epoch = Duration::try_from_secs_f64(seconds.as_f64()?).ok()?;
    Some(Timestamp::from_unix_micros(0)?.plus(since_epoch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn own() -> AccessKey {
        AccessKey::own(&Secret::new(SECRET).unwrap())
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T20:00:00Z").unwrap()
    }

    fn seconds(time: Timestamp) -> i64 {
        time.unix_micros() / 1_000_000
    }

    fn signed(claims: &serde_json::Value, algorithm: Algorithm, key: &[u8]) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key)).unwrap()
    }

    #[test]
    fn what_is_issued_is_believed_until_its_end() {
        let user_id = UserId::new(Uuid::from_u128(7));
        for role in [Role::User, Role::Admin, Role::Cashier] {
            let claims = AccessClaims { user_id, role, expires_at: now().plus_seconds(60) };
            let token = own().issue(&claims).unwrap();
            assert_eq!(own().verify(&token, now().plus_seconds(59)), Ok(claims));
            assert_eq!(own().verify(&token, now().plus_seconds(60)), Err(InvalidAccessToken));
        }
    }

    #[test]
    fn claims_are_read_as_the_contract_says() {
        let sub = Uuid::from_u128(7);
        let exp = seconds(now()) + 60;
        let verify = |claims| own().verify(&signed(&claims, Algorithm::HS256, SECRET.as_bytes()), now());
        assert!(verify(json!({"sub": sub, "exp": exp})).is_ok());
        assert_eq!(verify(json!({"sub": sub, "exp": exp, "role": "admin"})).unwrap().role, Role::Admin);
        assert_eq!(verify(json!({"sub": sub, "exp": exp, "role": "root"})).unwrap().role, Role::User);
        assert!(verify(json!({"sub": sub, "exp": 1e15})).is_ok());
        for bad in [
            json!({"sub": sub}),
            json!({"exp": exp}),
            json!({"sub": "somebody", "exp": exp}),
            json!({"sub": sub, "exp": "tomorrow"}),
            json!({"sub": sub, "exp": -1}),
            json!({"sub": sub, "exp": seconds(now())}),
            json!({"sub": sub, "exp": exp, "nbf": seconds(now()) + 1}),
        ] {
            assert_eq!(verify(bad.clone()), Err(InvalidAccessToken), "{bad}");
        }
    }

    #[test]
    fn the_key_fixes_the_algorithm() {
        let claims = json!({"sub": Uuid::from_u128(7), "exp": seconds(now()) + 60});
        let other_hash = signed(&claims, Algorithm::HS512, SECRET.as_bytes());
        assert_eq!(own().verify(&other_hash, now()), Err(InvalidAccessToken));
        // The classic confusion: a public key used as the secret of an HMAC.
        let outside = AccessKey::outside(ED25519_PUBLIC.as_bytes()).unwrap();
        let confused = signed(&claims, Algorithm::HS256, ED25519_PUBLIC.as_bytes());
        assert_eq!(outside.verify(&confused, now()), Err(InvalidAccessToken));
    }

    #[test]
    fn an_outside_provider_signs_and_we_only_check() {
        let claims = json!({"sub": Uuid::from_u128(7), "exp": seconds(now()) + 60, "role": "admin"});
        let key = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
        let outside = AccessKey::outside(ED25519_PUBLIC.as_bytes()).unwrap();
        let verified = outside.verify(&token, now()).unwrap();
        assert_eq!(verified.role, Role::Admin);
        assert_eq!(outside.issue(&verified), Err(NoIssuer));
        assert_eq!(own().verify(&token, now()), Err(InvalidAccessToken));

        let key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
        let rsa = AccessKey::outside(RSA_PUBLIC.as_bytes()).unwrap();
        let token = |algorithm| jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap();
        assert!(rsa.verify(&token(Algorithm::RS256), now()).is_ok());
        assert_eq!(rsa.verify(&token(Algorithm::RS512), now()), Err(InvalidAccessToken));
    }

    #[test]
    fn other_files_are_no_public_key() {
        for pem in ["", "hello", ED25519_PRIVATE, RSA_PRIVATE, EC_PUBLIC] {
            assert_eq!(AccessKey::outside(pem.as_bytes()).err(), Some(InvalidPublicKey), "{pem}");
        }
    }

    // Keys made for these tests alone.
    const ED25519_PRIVATE: &str = include_str!("test_keys/ed25519_private.pem");
    const ED25519_PUBLIC: &str = include_str!("test_keys/ed25519_public.pem");
    const RSA_PRIVATE: &str = include_str!("test_keys/rsa_private.pem");
    const RSA_PUBLIC: &str = include_str!("test_keys/rsa_public.pem");
    const EC_PUBLIC: &str = include_str!("test_keys/ec_public.pem");
}
