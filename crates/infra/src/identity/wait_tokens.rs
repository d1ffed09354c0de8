//! Wait-Tokens: JWTs signed with a key of their own (seed: TokenProvider).
//!
//! A poll is little more than the check of its Wait-Token, and a million people poll with a million different tokens, so
//! that no cache helps. All that a key signs have the same head, so the check compares that as bytes, and neither parses
//! it nor chooses an algorithm by it: an HMAC over 240 bytes behind a head that was hashed once, and one small parse, a
//! third of what a general JWT reader takes. A ring of several keys has several heads; still one HMAC is taken.

use std::iter;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontrow_domain::ports::{InvalidWaitToken, TokenProvider, WaitClaims};
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UserId};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::identity::{KeyRing, Secret};

/// What the key is derived for. Another version of the claims needs another purpose.
const PURPOSE: &str = "frontrow wait token 1";
/// The most bytes that the claims take: three UUIDs, two numbers, their names.
const MAX_CLAIMS: usize = 256;
/// The bytes of a signature.
const SIGNATURE: usize = 32;

/// Signs and checks Wait-Tokens with HS256.
pub struct WaitTokens {
    /// Signs.
    current: Key,
    /// Signed once.
    previous: Vec<Key>,
}

/// What one secret makes of tokens.
struct Key {
    /// The encoded head, with the dot behind it.
    head: String,
    /// The keyed state behind the head.
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
    /// Signs with a key derived from the current secret of `ring`, and believes those of the previous ones.
    ///
    /// The same claims give the same text as long as the secret stays. After a rotation they give another one; the old
    /// text stays good until its secret leaves the ring.
    #[must_use]
    pub fn new(ring: impl Into<KeyRing>) -> Self {
        let ring = ring.into();
        Self { current: Key::new(&ring.current), previous: ring.previous.iter().map(Key::new).collect() }
    }

    fn read(&self, token: &str) -> Option<WaitClaims> {
        let mut keys = iter::once(&self.current).chain(&self.previous);
        keys.find_map(|key| Some((key, token.strip_prefix(&key.head)?)))
            .and_then(|(key, rest)| key.read(rest))
    }
}

impl Key {
    fn new(secret: &Secret) -> Self {
        // The type tells at one look what a token is, and the id which key signed it.
        let head = format!(r#"{{"typ":"wait+jwt","alg":"HS256","kid":"{}"}}"#, secret.key_id());
        let head = format!("{}.", URL_SAFE_NO_PAD.encode(head));
        // An HMAC's key is a block of its hash, filled up with zeros.
        let mut block = [0; 64];
        block.iter_mut().zip(secret.derived(PURPOSE)).for_each(|(to, byte)| *to = byte);
        let mac = Hmac::new(&block.into()).chain_update(&head);
        Self { head, mac }
    }

    /// Checks and reads what stands behind the head. One text alone is the token: base64 has one form here.
    fn read(&self, rest: &str) -> Option<WaitClaims> {
        let (claims, signature) = rest.split_once('.')?;
        let mut bytes = [0; SIGNATURE];
        if URL_SAFE_NO_PAD.decode_slice(signature, &mut bytes) != Ok(SIGNATURE) {
            return None;
        }
        // Compares in constant time.
        self.mac.clone().chain_update(claims).verify_slice(&bytes).ok()?;
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

    fn sign(&self, claims: &Claims) -> String {
        // Plain numbers and UUIDs always serialise; a token without claims would open nothing.
        let json = serde_json::to_vec(claims).unwrap_or_default();
        let mut token = self.head.clone();
        URL_SAFE_NO_PAD.encode_string(json, &mut token);
        let claims = token.get(self.head.len()..).unwrap_or_default();
        let signature = self.mac.clone().chain_update(claims).finalize().into_bytes();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

impl TokenProvider for WaitTokens {
    fn issue(&self, claims: &WaitClaims) -> String {
        self.current.sign(&Claims {
            jti: claims.token_id.get(),
            room: claims.room_id.get(),
            sub: claims.user_id.get(),
            ticket: claims.ticket.0,
            entered: claims.entered_at.unix_micros(),
        })
    }

    fn verify(&self, token: &str) -> Result<WaitClaims, InvalidWaitToken> {
        self.read(token).ok_or(InvalidWaitToken)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_claimed_is_signed_and_read(
            (token, room, user) in any::<(u128, u128, u128)>(),
            ticket in any::<i64>(),
            entered in Timestamp::MIN.unix_micros()..=Timestamp::MAX.unix_micros(),
        ) {
            let claims = WaitClaims {
                token_id: QueueTokenId::new(Uuid::from_u128(token)),
                room_id: RoomId::new(Uuid::from_u128(room)),
                user_id: UserId::new(Uuid::from_u128(user)),
                ticket: TicketNumber(ticket),
                entered_at: Timestamp::from_unix_micros(entered).unwrap(),
            };
            prop_assert_eq!(tokens("a").verify(&tokens("a").issue(&claims)), Ok(claims));
        }

        #[test]
        fn no_other_text_is_a_token(
            text in prop_oneof![".*", "[A-Za-z0-9_-]{0,60}(\\.[A-Za-z0-9_-]{0,60}){0,3}"],
            behind in "[A-Za-z0-9_=.-]{0,400}",
            (at, part) in (any::<Index>(), ".{0,8}"),
        ) {
            let good = tokens("a").issue(&claims());
            let at = at.index(good.len());
            let mut spliced = good.clone();
            spliced.replace_range(at..(at + part.len()).min(good.len()), &part);
            // The head alone is public, and the same in all tokens.
            let headed = format!("{}{behind}", tokens("a").current.head);
            for other in [text, headed, spliced].iter().filter(|other| **other != good) {
                prop_assert_eq!(tokens("a").verify(other), Err(InvalidWaitToken), "{}", other);
            }
        }

        #[test]
        fn other_claims_are_none_even_under_the_right_key(claims in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            r#"\{("(jti|room|sub|ticket|entered)":"?[0-9a-f-]{0,40}"?,?){0,5}\}?"#.prop_map(String::into_bytes),
        ]) {
            let key = tokens("a").current;
            let claims = URL_SAFE_NO_PAD.encode(claims);
            let signature = URL_SAFE_NO_PAD.encode(key.mac.chain_update(&claims).finalize().into_bytes());
            let token = format!("{}{claims}.{signature}", key.head);
            prop_assert_eq!(tokens("a").verify(&token), Err(InvalidWaitToken));
        }
    }

    /// For claims that have no `exp`.
    fn without_times() -> Validation {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation
    }

    fn secret(letter: &str) -> Secret {
        Secret::new(&letter.repeat(32)).unwrap()
    }

    fn tokens(letter: &str) -> WaitTokens {
        WaitTokens::new(&secret(letter))
    }

    /// Signs with the first, believes the others.
    fn ring(letters: &[&str]) -> WaitTokens {
        let previous = letters[1..].iter().map(|letter| secret(letter));
        WaitTokens::new(KeyRing::new(secret(letters[0]), previous).unwrap())
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
        let key = DecodingKey::from_secret(&secret("a").derived(PURPOSE));
        let token = tokens("a").issue(&claims());
        let decoded = jsonwebtoken::decode::<Claims>(&token, &key, &without_times()).unwrap();
        assert_eq!(decoded.header.typ.as_deref(), Some("wait+jwt"));
        assert_eq!(decoded.header.kid, Some(secret("a").key_id()));
        assert_eq!((decoded.claims.jti, decoded.claims.ticket), (Uuid::from_u128(1), 4));
    }

    #[test]
    fn a_rotated_ring_believes_what_was_signed_before_and_signs_anew() {
        let (old, new) = (tokens("a").issue(&claims()), tokens("b").issue(&claims()));
        let rotated = ring(&["b", "a"]);
        assert_eq!(rotated.verify(&old), Ok(claims()));
        assert_eq!(rotated.issue(&claims()), new, "the same text as long as the current secret stays");
        assert_eq!(ring(&["b", "x", "a"]).issue(&claims()), new, "whatever came before");
        assert_ne!(old, new);
        // Before the new secret signs anywhere, every node believes it: no node refuses another's token on the way.
        assert_eq!(ring(&["a", "b"]).verify(&new), Ok(claims()));
        assert_eq!(tokens("b").verify(&old), Err(InvalidWaitToken), "the previous secret has left the ring");
    }

    #[test]
    fn a_key_signs_under_its_own_name_alone() {
        let (old, new) = (tokens("a").issue(&claims()), tokens("b").issue(&claims()));
        let (old, new) = (old.split_once('.').unwrap(), new.split_once('.').unwrap());
        for renamed in [format!("{}.{}", new.0, old.1), format!("{}.{}", old.0, new.1)] {
            assert_eq!(ring(&["b", "a"]).verify(&renamed), Err(InvalidWaitToken));
        }
    }

    #[test]
    fn another_type_is_no_wait_token_even_under_the_right_key() {
        let key = EncodingKey::from_secret(&secret("a").derived(PURPOSE));
        let typed = |typ: &str| {
            let header =
                Header { kid: Some(secret("a").key_id()), typ: Some(typ.into()), ..Header::default() };
            let wait = claims();
            let claims = Claims {
                jti: wait.token_id.get(),
                room: wait.room_id.get(),
                sub: wait.user_id.get(),
                ticket: wait.ticket.0,
                entered: wait.entered_at.unix_micros(),
            };
            jsonwebtoken::encode(&header, &claims, &key).unwrap()
        };
        assert_eq!(tokens("a").verify(&typed("JWT")), Err(InvalidWaitToken));
        assert_eq!(
            tokens("a").verify(&typed("wait+jwt")),
            Ok(claims()),
            "the type is all that is wrong with it"
        );
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
