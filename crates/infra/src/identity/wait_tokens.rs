//! Wait-Tokens: JWTs signed with a key of their own (seed: TokenProvider).

use frontrow_domain::ports::{InvalidWaitToken, TokenProvider, WaitClaims};
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::Secret;

/// What the key is derived for. Another version of the claims needs another purpose.
const PURPOSE: &str = "frontrow wait token 1";
/// The JWT type, so that one look tells what a token is.
const TYPE: &str = "wait+jwt";

/// Signs and checks Wait-Tokens with HS256.
pub struct WaitTokens {
    header: Header,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

/// The claims as they are signed. Field order is part of the token's bytes.
#[derive(Serialize, Deserialize)]
struct Claims {
    jti: Uuid,
    room: Uuid,
    sub: Uuid,
    ticket: i64,
    /// When the place was taken, in microseconds since 1970.
    entered: i64,
}

impl WaitTokens {
    /// Signs with a key derived from `secret`.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        let key = secret.derived(PURPOSE);
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
        Self {
            header,
            encoding: EncodingKey::from_secret(&key),
            decoding: DecodingKey::from_secret(&key),
            validation: without_times(Algorithm::HS256),
        }
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

impl TokenProvider for WaitTokens {
    fn issue(&self, claims: &WaitClaims) -> String {
        let claims = Claims {
            jti: claims.token_id.get(),
            room: claims.room_id.get(),
            sub: claims.user_id.get(),
            ticket: claims.ticket.0,
            entered: claims.entered_at.unix_micros(),
        };
        // Plain numbers and UUIDs always serialise, and an HMAC takes any key; an empty token opens nothing.
        jsonwebtoken::encode(&self.header, &claims, &self.encoding).unwrap_or_default()
    }

    fn verify(&self, token: &str) -> Result<WaitClaims, InvalidWaitToken> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation);
        let decoded = decoded.map_err(|_| InvalidWaitToken)?;
        if decoded.header.typ.as_deref() != Some(TYPE) {
            return Err(InvalidWaitToken);
        }
        let claims = decoded.claims;
        Ok(WaitClaims {
            token_id: QueueTokenId::new(claims.jti),
            room_id: RoomId::new(claims.room),
            user_id: UserId::new(claims.sub),
            ticket: TicketNumber(claims.ticket),
            entered_at: Timestamp::from_unix_micros(claims.entered).ok_or(InvalidWaitToken)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(secret: &str) -> WaitTokens {
        WaitTokens::new(&Secret::new(&secret.repeat(32)).unwrap())
    }

    fn claims() -> WaitClaims {
        WaitClaims {
            token_id: QueueTokenId::new(Uuid::from_u128(1)),
            room_id: RoomId::new(Uuid::from_u128(2)),
            user_id: UserId::new(Uuid::from_u128(3)),
            ticket: TicketNumber(4),
            entered_at: Timestamp::parse("2026-11-22T20:00:00.123456Z").unwrap(),
        }
    }

    #[test]
    fn a_token_says_what_was_signed_and_is_the_same_each_time() {
        let token = tokens("a").issue(&claims());
        assert_eq!(tokens("a").issue(&claims()), token);
        assert_eq!(tokens("a").verify(&token), Ok(claims()));
    }

    #[test]
    fn nothing_else_is_believed() {
        let token = tokens("a").issue(&claims());
        assert_eq!(tokens("b").verify(&token), Err(InvalidWaitToken), "another secret");
        let parts: Vec<&str> = token.split('.').collect();
        let other = tokens("a").issue(&WaitClaims { ticket: TicketNumber(1), ..claims() });
        let other: Vec<&str> = other.split('.').collect();
        let swapped = format!("{}.{}.{}", parts[0], other[1], parts[2]);
        assert_eq!(tokens("a").verify(&swapped), Err(InvalidWaitToken), "swapped claims");
        // {"typ":"wait+jwt","alg":"none"}
        let unsigned = format!("eyJ0eXAiOiJ3YWl0K2p3dCIsImFsZyI6Im5vbmUifQ.{}.", parts[1]);
        for bad in ["", ".", "..", "token", unsigned.as_str(), &token[1..], &token[..token.len() - 1]] {
            assert_eq!(tokens("a").verify(bad), Err(InvalidWaitToken), "{bad}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let token = tokens("a").issue(&claims());
        for index in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[index] ^= 1 << bit;
                let Ok(forged) = String::from_utf8(bytes) else { continue };
                assert_eq!(tokens("a").verify(&forged), Err(InvalidWaitToken), "bit {bit} of byte {index}");
            }
        }
    }
}
