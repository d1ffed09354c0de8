//! Wait-Tokens: JWTs signed with a key of their own (seed: TokenProvider).
//!
//! A poll is little more than the check of its Wait-Token, and a million people poll with a million different tokens, so
//! that no cache helps. All of them have the same head, so the check compares that as bytes, and neither parses it nor
//! chooses an algorithm by it: an HMAC over 290 bytes and one small parse, a third of what a general JWT reader takes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontrow_domain::ports::{InvalidWaitToken, TokenProvider, WaitClaims};
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UserId};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::identity::Secret;

/// What the key is derived for. Another version of the claims needs another purpose.
const PURPOSE: &str = "frontrow wait token 1";
/// The head of every token. The type tells at one look what a token is.
const HEAD: &str = r#"{"typ":"wait+jwt","alg":"HS256"}"#;
/// The most bytes that the claims take: three UUIDs, two numbers, their names.
const MAX_CLAIMS: usize = 256;
/// The bytes of a signature.
const SIGNATURE: usize = 32;

/// Signs and checks Wait-Tokens with HS256.
pub struct WaitTokens {
    /// The encoded head, with the dot behind it.
    head: String,
    /// The keyed state before the first byte.
    mac: Hmac<Sha256>,
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
        // An HMAC's key is a block of its hash, filled up with zeros.
        let mut block = [0; 64];
        block.iter_mut().zip(secret.derived(PURPOSE)).for_each(|(to, byte)| *to = byte);
        Self { head: format!("{}.", URL_SAFE_NO_PAD.encode(HEAD)), mac: Hmac::new(&block.into()) }
    }

    fn read(&self, token: &str) -> Option<WaitClaims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let claims = signed.strip_prefix(&self.head)?;
        let mut bytes = [0; SIGNATURE];
        if URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes) != Ok(SIGNATURE) {
            return None;
        }
        // Compares in constant time.
        self.mac.clone().chain_update(signed).verify_slice(&bytes).ok()?;
        let mut json = [0; MAX_CLAIMS];
        let length = URL_SAFE_NO_PAD.decode_slice(claims, &mut json).ok()?;
        let claims: Claims = serde_json::from_slice(json.get(..length)?).ok()?;
        Some(WaitClaims {
            token_id: QueueTokenId::new(claims.jti),
            room_id: RoomId::new(claims.room),
            user_id: UserId::new(claims.sub),
            ticket: TicketNumber(claims.ticket),
            entered_at: Timestamp::from_unix_micros(claims.entered)?,
        })
    }
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
        // Plain numbers and UUIDs always serialise; a token without claims would open nothing.
        let json = serde_json::to_vec(&claims).unwrap_or_default();
        let mut token = self.head.clone();
        URL_SAFE_NO_PAD.encode_string(json, &mut token);
        let signature = self.mac.clone().chain_update(&token).finalize().into_bytes();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }

    fn verify(&self, token: &str) -> Result<WaitClaims, InvalidWaitToken> {
        self.read(token).ok_or(InvalidWaitToken)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::Algorithm;

    use super::*;
    use crate::identity::access_tokens::without_times;

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
    fn the_longest_claims_fit() {
        let longest = WaitClaims {
            token_id: QueueTokenId::new(Uuid::max()),
            ticket: TicketNumber(i64::MIN),
            entered_at: Timestamp::MIN,
            ..claims()
        };
        assert_eq!(tokens("a").verify(&tokens("a").issue(&longest)), Ok(longest));
    }

    #[test]
    fn a_token_is_a_jwt_that_anybody_with_the_key_can_read() {
        let secret = Secret::new(&"a".repeat(32)).unwrap();
        let key = jsonwebtoken::DecodingKey::from_secret(&secret.derived(PURPOSE));
        let token = WaitTokens::new(&secret).issue(&claims());
        let decoded = jsonwebtoken::decode::<Claims>(&token, &key, &without_times(Algorithm::HS256)).unwrap();
        assert_eq!(decoded.header.typ.as_deref(), Some("wait+jwt"));
        assert_eq!((decoded.claims.jti, decoded.claims.ticket), (Uuid::from_u128(1), 4));
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
