//! Access tokens: JWTs under configured keys, each of which fixes its algorithm (ADR 0009). What a token says of its own
//! algorithm is never followed, and what it says of its key only chooses among ours.

use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use frontrow_domain::ports::{AccessClaims, AccessTokens, InvalidAccessToken, NoIssuer, Role};
use frontrow_domain::{Timestamp, UserId};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::identity::{KeyRing, Secret, subject};

/// The types of an access token: what most write, and what RFC 9068 asks for. Many write none.
const TYPES: [&str; 2] = ["JWT", "at+jwt"];
/// The bits of an RSA key: RFC 7518 asks for 2,048; a longer one than these makes every check slow.
const RSA_BITS: RangeInclusive<usize> = 2_048..=4_096;
/// The claim that names the roles, unless another one is configured. Our own tokens have it.
const ROLE_CLAIM: &str = "role";

/// The keys that access tokens are checked with.
pub struct AccessKeys {
    keys: Vec<Key>,
    choice: Choice,
    expected: Expected,
    /// What signs, unless an outside provider does.
    signer: Option<Signer>,
}

/// What a token must say besides, where that is configured. Our own tokens say it, too.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Who issued it: `iss`.
    pub issuer: Option<String>,
    /// For whom: `aud`, or one of several.
    pub audience: Option<String>,
    /// The claim of an outside provider's tokens that names their roles, or its path with dots; `role` when absent. Of a
    /// token that names several roles the first of [`Role::NAMES`] counts; unknown names give no right.
    pub role_claim: Option<String>,
}

/// A file that holds no public key of a kind that is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA (2,048 to 4,096 bits), P-256 or Ed25519 public key in PEM")]
pub struct InvalidPublicKey;

/// A key that checks.
pub(super) struct Key {
    /// The `kid` of what it signed.
    pub(super) id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

/// Which keys a token is checked with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Those that it names; all where it names none, or one that is not there.
    Hinted,
    /// Those that it names; the only one where it names none.
    Named,
}

struct Signer {
    head: Header,
    key: EncodingKey,
}

/// The head as it is read. Whatever it offers as a key is not looked at.
#[derive(Deserialize)]
struct Head {
    alg: Algorithm,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

/// The claims as they are signed and read. Others are ignored.
#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<Value>,
}

impl AccessKeys {
    /// The server's own secrets: HS256, checks and signs. A token need not name its key, since any library that has the
    /// secret may make one.
    #[must_use]
    pub fn own(ring: impl Into<KeyRing>) -> Self {
        let ring = ring.into();
        let head = Header { kid: Some(ring.current.key_id()), ..Header::new(Algorithm::HS256) };
        let signer = Signer { head, key: EncodingKey::from_secret(ring.current.bytes()) };
        let keys = std::iter::once(&ring.current).chain(&ring.previous).map(Key::of).collect();
        Self { signer: Some(signer), ..Self::checking(keys, Choice::Hinted) }
    }

    /// The public key of an outside identity provider: RSA is RS256, P-256 is ES256, Ed25519 is EdDSA. Checks only.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] for anything else, a private key included.
    pub fn outside(pem: &[u8]) -> Result<Self, InvalidPublicKey> {
        if pem.windows(11).any(|window| window == b"PRIVATE KEY") {
            return Err(InvalidPublicKey);
        }
        let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key));
        let known = rsa
            .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key)))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key)));
        let (algorithm, decoding) = known.map_err(|_| InvalidPublicKey)?;
        let key = Key::public(None, algorithm, decoding).ok_or(InvalidPublicKey)?;
        Ok(Self::checking(vec![key], Choice::Hinted))
    }

    pub(super) fn checking(keys: Vec<Key>, choice: Choice) -> Self {
        Self { keys, choice, expected: Expected::default(), signer: None }
    }

    /// Asks for more of every token, and says it in those that are issued here.
    #[must_use]
    pub fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// The claims of a token that one of the keys signed, decoded from base64. One text alone is the token, since base64 has one
    /// form here; only an ES256 signature may be written as either of two numbers.
    fn read(&self, token: &str) -> Option<Vec<u8>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let head: Head = parse(head)?;
        // What is critical is something that we do not know.
        if head.crit.is_some() || !head.typ.as_deref().is_none_or(is_access_token) {
            return None;
        }
        let mut chosen = self.keys.iter().filter(|key| self.chooses(key, head.kid.as_deref()));
        let is_signed = chosen.any(|key| key.signed(head.alg, signed, signature));
        is_signed.then(|| URL_SAFE_NO_PAD.decode(claims).ok()).flatten()
    }

    /// The user that a token is about: of our own the UUID that it says, of a provider's see [`subject::user_id`].
    fn user_id(&self, claims: &Claims) -> Option<UserId> {
        match self.signer {
            Some(_) => claims.sub.parse().ok().map(UserId::new),
            None => subject::user_id(&claims.sub, claims.iss.as_ref()),
        }
    }

    /// The role that all claims of a token give.
    fn role(&self, claims: &Map<String, Value>) -> Role {
        let configured = self.expected.role_claim.as_deref().filter(|_| self.signer.is_none());
        let names = match find(claims, configured.unwrap_or(ROLE_CLAIM)) {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        Role::among(&names)
    }

    fn chooses(&self, key: &Key, named: Option<&str>) -> bool {
        let is_named = |key: &Key| named.is_some() && key.id.as_deref() == named;
        match self.choice {
            _ if is_named(key) => true,
            Choice::Hinted => !self.keys.iter().any(is_named),
            Choice::Named => self.keys.len() == 1 && (named.is_none() || key.id.is_none()),
        }
    }
}

impl Key {
    fn of(secret: &Secret) -> Self {
        let decoding = DecodingKey::from_secret(secret.bytes());
        Self { id: Some(secret.key_id()), algorithm: Algorithm::HS256, decoding }
    }

    /// A public key, unless no token could ever be checked with it.
    pub(super) fn public(id: Option<String>, algorithm: Algorithm, decoding: DecodingKey) -> Option<Self> {
        let checks = || crypto::verify("", b"", &decoding, algorithm).is_ok();
        let is_good = match Jwk::from_decoding_key(&decoding, None).ok()?.algorithm {
            AlgorithmParameters::RSA(rsa) => RSA_BITS.contains(&bits(&URL_SAFE_NO_PAD.decode(rsa.n).ok()?)),
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => checks(),
            AlgorithmParameters::OctetKeyPair(_) => checks(),
            _ => false,
        };
        is_good.then_some(Self { id, algorithm, decoding })
    }

    /// Whether this key signed that, under its own algorithm.
    fn signed(&self, algorithm: Algorithm, signed: &str, signature: &str) -> bool {
        let check = || crypto::verify(signature, signed.as_bytes(), &self.decoding, self.algorithm);
        algorithm == self.algorithm && check().is_ok_and(|is_signed| is_signed)
    }
}

/// The bits of a number in big-endian bytes.
fn bits(number: &[u8]) -> usize {
    let leading: u32 = number.iter().map_while(|byte| (*byte == 0).then_some(8)).sum();
    let first = number.iter().find(|byte| **byte != 0).map_or(0, |byte| byte.leading_zeros());
    (number.len() * 8).saturating_sub(usize::try_from(leading + first).unwrap_or(usize::MAX))
}

/// Whether the type of a token may be that of an access token. Types have no case, and may be written in full.
fn is_access_token(typ: &str) -> bool {
    let full = "application/";
    let is_full = typ.get(..full.len()).is_some_and(|start| start.eq_ignore_ascii_case(full));
    let name = if is_full { typ.get(full.len()..).unwrap_or_default() } else { typ };
    TYPES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The claim of this name; else the one at the end of this path, whose names are separated by dots.
fn find<'a>(claims: &'a Map<String, Value>, claim: &str) -> Option<&'a Value> {
    let nested = || {
        let (first, rest) = claim.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |found, name| found.get(name))
    };
    claims.get(claim).or_else(nested)
}

fn parse<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

impl Expected {
    fn is_met(&self, claims: &Claims) -> bool {
        let is_issuer = |wanted: &String| claims.iss.as_ref().is_some_and(|iss| iss == wanted);
        let is_audience = |wanted: &String| match &claims.aud {
            Some(Value::Array(several)) => several.iter().any(|one| one == wanted),
            aud => aud.as_ref().is_some_and(|aud| aud == wanted),
        };
        self.issuer.as_ref().is_none_or(is_issuer) && self.audience.as_ref().is_none_or(is_audience)
    }
}

impl AccessTokens for AccessKeys {
    fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        let json = self.read(token).ok_or(InvalidAccessToken)?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|_| InvalidAccessToken)?;
        let expires_at = time_of(&claims.exp).ok_or(InvalidAccessToken)?;
        let begins_at = claims.nbf.as_ref().map(|nbf| time_of(nbf).ok_or(InvalidAccessToken)).transpose()?;
        let is_time = now < expires_at && begins_at.is_none_or(|begins_at| now >= begins_at);
        if !is_time || !self.expected.is_met(&claims) {
            return Err(InvalidAccessToken);
        }
        let user_id = self.user_id(&claims).ok_or(InvalidAccessToken)?;
        let all = serde_json::from_slice(&json).map_err(|_| InvalidAccessToken)?;
        Ok(AccessClaims { user_id, role: self.role(&all), expires_at })
    }

    fn issue(&self, claims: &AccessClaims) -> Result<String, NoIssuer> {
        let signer = self.signer.as_ref().ok_or(NoIssuer)?;
        let claims = Claims {
            sub: claims.user_id.get().to_string(),
            exp: Number::from(claims.expires_at.unix_micros().div_euclid(1_000_000)),
            nbf: None,
            role: claims.role.name().map(Value::from),
            iss: self.expected.issuer.clone().map(Value::from),
            aud: self.expected.audience.clone().map(Value::from),
        };
        jsonwebtoken::encode(&signer.head, &claims, &signer.key).map_err(|_| NoIssuer)
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
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    proptest! {
        #[test]
        fn whoever_is_claimed_is_signed_and_read(
            user in any::<u128>(),
            role in prop::sample::select(vec![Role::User, Role::Admin, Role::Cashier]),
            seconds in 1..=u32::MAX,
        ) {
            let user_id = UserId::new(Uuid::from_u128(user));
            let claims = AccessClaims { user_id, role, expires_at: now().plus_seconds(seconds) };
            prop_assert_eq!(own().verify(&own().issue(&claims).unwrap(), now()), Ok(claims));
        }

        #[test]
        fn no_other_text_is_a_token(
            text in prop_oneof![".*", "[A-Za-z0-9_-]{0,60}(\\.[A-Za-z0-9_-]{0,60}){0,3}"],
            (at, part) in (any::<Index>(), ".{0,8}"),
        ) {
            let good = own().issue(&somebody()).unwrap();
            let at = at.index(good.len());
            let mut spliced = good.clone();
            spliced.replace_range(at..(at + part.len()).min(good.len()), &part);
            for other in [text, spliced].iter().filter(|other| **other != good) {
                prop_assert_eq!(own().verify(other, now()), Err(InvalidAccessToken), "{}", other);
            }
        }

        #[test]
        fn a_token_counts_between_the_times_that_it_says(exp in numbers(), nbf in prop::option::of(numbers())) {
            let claims = json!({"sub": Uuid::from_u128(7), "exp": exp, "nbf": nbf});
            let verified = own().verify(&signed(&claims, Algorithm::HS256, SECRET.as_bytes()), now());
            let now = Number::from(seconds(now())).as_f64().unwrap();
            let of = |number: &Number| number.as_f64().unwrap();
            let has_begun = nbf.as_ref().is_none_or(|nbf| (0.0..=now).contains(&of(nbf)));
            // No token lasts for 2^64 seconds.
            let is_time = has_begun && now < of(&exp) && of(&exp) < 1.8e19;
            prop_assert_eq!(verified.is_ok(), is_time, "{}", claims);
        }

        #[test]
        fn other_claims_are_none_even_under_the_right_key(claims in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"\{("(sub|exp|nbf|role)":"?[0-9a-f-]{0,40}"?,?){0,4}\}?"#.prop_map(String::into_bytes),
        ]) {
            let token = as_written(r#"{"alg":"HS256"}"#, claims, SECRET);
            prop_assert_eq!(own().verify(&token, now()), Err(InvalidAccessToken));
        }

        #[test]
        fn any_file_is_a_public_key_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            pem in prop::sample::select(vec![RSA_PUBLIC, ED25519_PUBLIC, EC_PUBLIC]),
            (at, part) in (any::<Index>(), prop::collection::vec(any::<u8>(), 0..8)),
        ) {
            let at = at.index(pem.len());
            let mut spliced = pem.as_bytes().to_vec();
            spliced.splice(at..(at + part.len()).min(pem.len()), part);
            for file in [&bytes, &spliced] {
                let read = AccessKeys::outside(file).map(|keys| keys.count());
                prop_assert!(matches!(read, Ok(1) | Err(InvalidPublicKey)));
            }
        }
    }

    /// Times as a token may say them: any number, and those about now.
    fn numbers() -> impl Strategy<Value = Number> {
        let about_now = seconds(now()) - 3..=seconds(now()) + 3;
        prop_oneof![
            any::<i64>().prop_map(Number::from),
            any::<u32>().prop_map(Number::from),
            about_now.prop_map(Number::from),
            prop::num::f64::NORMAL.prop_filter_map("finite", Number::from_f64),
        ]
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    fn own() -> AccessKeys {
        AccessKeys::own(&secret(SECRET))
    }

    /// Signs with the first, believes the second.
    fn rotated(current: &str, previous: &str) -> AccessKeys {
        AccessKeys::own(KeyRing::new(secret(current), [secret(previous)]).unwrap())
    }

    fn somebody() -> AccessClaims {
        AccessClaims {
            user_id: UserId::new(Uuid::from_u128(7)),
            role: Role::User,
            expires_at: now().plus_seconds(60),
        }
    }

    /// A good token of somebody, under any head and key.
    fn headed(head: &Value, key: &str) -> String {
        let claims = json!({"sub": Uuid::from_u128(7), "exp": seconds(now()) + 60});
        as_written(&head.to_string(), claims.to_string(), key)
    }

    /// Any head and claims, as they are written, under a key.
    fn as_written(head: &str, claims: impl AsRef<[u8]>, key: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(key.as_bytes());
        let signature = crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{signed}.{signature}")
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
        let outside = AccessKeys::outside(ED25519_PUBLIC.as_bytes()).unwrap();
        let confused = signed(&claims, Algorithm::HS256, ED25519_PUBLIC.as_bytes());
        assert_eq!(outside.verify(&confused, now()), Err(InvalidAccessToken));
    }

    #[test]
    fn a_rotated_ring_believes_what_was_signed_before_and_signs_anew() {
        let (old, new) =
            (own().issue(&somebody()).unwrap(), rotated(OTHER, SECRET).issue(&somebody()).unwrap());
        for token in [&old, &new] {
            assert_eq!(rotated(OTHER, SECRET).verify(token, now()), Ok(somebody()));
            // Before the new secret signs anywhere, every node believes it.
            assert_eq!(rotated(SECRET, OTHER).verify(token, now()), Ok(somebody()));
        }
        assert_eq!(own().verify(&new, now()), Err(InvalidAccessToken));
        let alone = AccessKeys::own(&secret(OTHER));
        assert_eq!(
            alone.verify(&old, now()),
            Err(InvalidAccessToken),
            "the previous secret has left the ring"
        );
        assert_eq!(alone.verify(&new, now()), Ok(somebody()));
    }

    #[test]
    fn a_token_need_not_name_its_key_but_is_held_to_a_name_that_is_known() {
        let ring = rotated(OTHER, SECRET);
        let verify = |head: Value, key| ring.verify(&headed(&head, key), now()).is_ok();
        for key in [SECRET, OTHER] {
            assert!(verify(json!({"alg": "HS256", "typ": "JWT"}), key), "any library writes this");
            assert!(verify(json!({"alg": "HS256"}), key), "no type is needed");
            assert!(verify(json!({"alg": "HS256", "kid": "mine"}), key), "somebody else's name says nothing");
            assert!(verify(json!({"alg": "HS256", "kid": secret(key).key_id()}), key));
        }
        assert!(!verify(json!({"alg": "HS256", "kid": secret(OTHER).key_id()}), SECRET));
        assert!(!verify(json!({"alg": "HS256", "kid": secret(SECRET).key_id()}), OTHER));
        assert!(!verify(json!({"alg": "HS256", "kid": 7}), SECRET), "a name is text");
        assert!(!verify(json!({"alg": "HS256"}), "another secret that is long enough"));
    }

    #[test]
    fn another_type_is_no_access_token_even_under_the_right_key() {
        let verify = |typ: Value| own().verify(&headed(&json!({"alg": "HS256", "typ": typ}), SECRET), now());
        for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"] {
            assert_eq!(verify(json!(typ)), Ok(somebody()), "{typ}");
        }
        for typ in
            ["wait+jwt", "", "JWS", "id+jwt", "application/", "application/wait+jwt", "大application/JWT"]
        {
            assert_eq!(verify(json!(typ)), Err(InvalidAccessToken), "{typ}");
        }
        assert_eq!(verify(json!(["JWT"])), Err(InvalidAccessToken));
    }

    #[test]
    fn what_is_critical_and_unknown_is_refused() {
        let head = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
        assert_eq!(own().verify(&headed(&head, SECRET), now()), Err(InvalidAccessToken));
        let head = json!({"alg": "HS256", "jku": "https://example.com/keys", "x5c": []});
        assert_eq!(
            own().verify(&headed(&head, SECRET), now()),
            Ok(somebody()),
            "other keys are not looked at"
        );
    }

    #[test]
    fn issuer_and_audience_are_asked_for_where_that_is_configured() {
        let expecting = |issuer: Option<&str>, audience: Option<&str>| {
            let [issuer, audience] = [issuer, audience].map(|text| text.map(ToOwned::to_owned));
            own().expecting(Expected { issuer, audience, role_claim: None })
        };
        let token = |more: Value| {
            let mut claims = json!({"sub": Uuid::from_u128(7), "exp": seconds(now()) + 60});
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            signed(&claims, Algorithm::HS256, SECRET.as_bytes())
        };
        let asked = expecting(Some("https://id"), Some("frontrow"));
        for good in [json!("frontrow"), json!(["other", "frontrow"])] {
            let token = token(json!({"iss": "https://id", "aud": good}));
            assert!(asked.verify(&token, now()).is_ok());
            assert!(own().verify(&token, now()).is_ok(), "nothing is asked for");
        }
        for bad in [
            json!({}),
            json!({"iss": "https://id"}),
            json!({"aud": "frontrow"}),
            json!({"iss": "https://id/", "aud": "frontrow"}),
            json!({"iss": ["https://id"], "aud": "frontrow"}),
            json!({"iss": "https://id", "aud": "Frontrow"}),
            json!({"iss": "https://id", "aud": []}),
            json!({"iss": "https://id", "aud": ["frontrow2", ["frontrow"]]}),
            json!({"iss": "https://id", "aud": {"frontrow": "frontrow"}}),
        ] {
            assert_eq!(asked.verify(&token(bad.clone()), now()), Err(InvalidAccessToken), "{bad}");
            assert!(own().verify(&token(bad), now()).is_ok(), "nothing is asked for");
        }
        assert!(
            expecting(Some("https://id"), None).verify(&token(json!({"iss": "https://id"})), now()).is_ok()
        );
        assert!(expecting(None, Some("frontrow")).verify(&token(json!({"aud": "frontrow"})), now()).is_ok());
        // Our own tokens say what we ask for.
        assert_eq!(asked.verify(&asked.issue(&somebody()).unwrap(), now()), Ok(somebody()));
        assert!(asked.verify(&own().issue(&somebody()).unwrap(), now()).is_err());
    }

    #[test]
    fn claims_that_come_twice_are_no_claims() {
        let claims =
            format!(r#"{{"sub":"{0}","sub":"{0}","exp":{1}}}"#, Uuid::from_u128(7), seconds(now()) + 60);
        assert_eq!(
            own().verify(&as_written(r#"{"alg":"HS256"}"#, claims, SECRET), now()),
            Err(InvalidAccessToken)
        );
    }

    #[test]
    fn an_outside_provider_signs_and_we_only_check() {
        let claims = json!({"sub": Uuid::from_u128(7), "exp": seconds(now()) + 60, "role": "admin"});
        let key = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
        let outside = AccessKeys::outside(ED25519_PUBLIC.as_bytes()).unwrap();
        let verified = outside.verify(&token, now()).unwrap();
        assert_eq!(verified.role, Role::Admin);
        assert_eq!(outside.issue(&verified), Err(NoIssuer));
        assert_eq!(own().verify(&token, now()), Err(InvalidAccessToken));

        let key = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
        let rsa = AccessKeys::outside(RSA_PUBLIC.as_bytes()).unwrap();
        let token = |algorithm| jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap();
        assert!(rsa.verify(&token(Algorithm::RS256), now()).is_ok());
        assert_eq!(rsa.verify(&token(Algorithm::RS512), now()), Err(InvalidAccessToken));

        let key = EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap();
        let ec = AccessKeys::outside(EC_PUBLIC.as_bytes()).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap();
        assert_eq!(ec.verify(&token, now()).unwrap(), verified);
        assert_eq!(rsa.verify(&token, now()), Err(InvalidAccessToken));
        let confused = signed(&claims, Algorithm::HS256, EC_PUBLIC.as_bytes());
        assert_eq!(ec.verify(&confused, now()), Err(InvalidAccessToken));
    }

    /// What a provider says of a subject.
    fn by_provider(more: Value, role_claim: Option<&str>) -> Result<AccessClaims, InvalidAccessToken> {
        let mut claims = json!({"sub": "kim", "exp": seconds(now()) + 60, "iss": "https://id"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let key = EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
        let role_claim = role_claim.map(ToOwned::to_owned);
        let outside = AccessKeys::outside(ED25519_PUBLIC.as_bytes()).unwrap();
        outside.expecting(Expected { role_claim, ..Expected::default() }).verify(&token, now())
    }

    #[test]
    fn a_providers_subject_that_is_no_uuid_is_mapped() {
        let id = |more: Value| by_provider(more, None).map(|claims| claims.user_id.get().to_string());
        assert_eq!(id(json!({})).as_deref(), Ok("7576bb61-c2a6-5d1a-b531-63d968377cfa"));
        assert_ne!(id(json!({})), id(json!({"iss": "https://other"})), "issuers do not share users");
        let uuid = Uuid::from_u128(7).to_string();
        assert_eq!(id(json!({"sub": uuid})), Ok(uuid));
        for bad in
            [json!({"sub": ""}), json!({"sub": 7}), json!({"sub": null}), json!({"iss": ["https://id"]})]
        {
            assert_eq!(id(bad.clone()), Err(InvalidAccessToken), "{bad}");
        }
        let own_token = json!({"sub": "kim", "exp": seconds(now()) + 60});
        let own_token = signed(&own_token, Algorithm::HS256, SECRET.as_bytes());
        assert_eq!(own().verify(&own_token, now()), Err(InvalidAccessToken), "our own name users by UUID");
    }

    #[test]
    fn roles_are_read_under_the_configured_claim() {
        use Role::{Admin, Cashier, User};
        let keycloak = json!({"realm_access": {"roles": ["offline_access", "cashier"]}});
        let auth0 = json!({"https://example.com/roles": ["admin"]});
        for (claim, more, expected) in [
            (None, json!({"role": "admin"}), Admin),
            (None, json!({"role": ["cashier", "admin"]}), Admin),
            (None, json!({"role": ["admin", "cashier"]}), Admin),
            (None, json!({"role": ["buyer", 7, null, ["admin"], "cashier"]}), Cashier),
            (None, json!({"role": "door"}), User),
            (None, json!({"role": "admin cashier"}), User),
            (None, json!({"role": {"admin": true}}), User),
            (None, json!({"role": 7}), User),
            (None, keycloak.clone(), User),
            (Some("realm_access.roles"), keycloak.clone(), Cashier),
            (Some("realm_access"), keycloak.clone(), User),
            (Some("realm_access.roles.0"), keycloak, User),
            (Some("https://example.com/roles"), auth0, Admin),
            // The exact name is looked for first.
            (Some("a.b"), json!({"a.b": "cashier", "a": {"b": "admin"}}), Cashier),
            // The default claim counts only where it is configured.
            (Some("roles"), json!({"role": "admin"}), User),
            (Some("."), json!({"": {"": "admin"}}), Admin),
        ] {
            assert_eq!(by_provider(more.clone(), claim).unwrap().role, expected, "{claim:?} of {more}");
        }
        let claims = AccessClaims { role: Admin, ..somebody() };
        let own = own().expecting(Expected { role_claim: Some("roles".into()), ..Expected::default() });
        assert_eq!(own.verify(&own.issue(&claims).unwrap(), now()), Ok(claims), "our own say `role`");
    }

    #[test]
    fn a_number_has_its_bits() {
        let of = |bytes: &[u8]| bits(bytes);
        assert_eq!(
            [of(&[]), of(&[0, 0]), of(&[1]), of(&[0, 0x80]), of(&[1, 0]), of(&[255; 256])],
            [0, 0, 1, 8, 9, 2048]
        );
    }

    #[test]
    fn other_files_are_no_public_key() {
        let others =
            [ED25519_PRIVATE, RSA_PRIVATE, EC_PRIVATE, P384_PUBLIC, SECP256K1_PUBLIC, RSA_SHORT_PUBLIC];
        for pem in ["", "hello"].into_iter().chain(others) {
            assert_eq!(AccessKeys::outside(pem.as_bytes()).err(), Some(InvalidPublicKey), "{pem}");
        }
    }

    // Keys made for these tests alone.
    const ED25519_PRIVATE: &str = include_str!("test_keys/ed25519_private.pem");
    const ED25519_PUBLIC: &str = include_str!("test_keys/ed25519_public.pem");
    const RSA_PRIVATE: &str = include_str!("test_keys/rsa_private.pem");
    const RSA_PUBLIC: &str = include_str!("test_keys/rsa_public.pem");
    const RSA_SHORT_PUBLIC: &str = include_str!("test_keys/rsa_short_public.pem");
    const EC_PRIVATE: &str = include_str!("test_keys/ec_private.pem");
    const EC_PUBLIC: &str = include_str!("test_keys/ec_public.pem");
    const P384_PUBLIC: &str = include_str!("test_keys/ec_p384_public.pem");
    const SECP256K1_PUBLIC: &str = include_str!("test_keys/ec_secp256k1_public.pem");
}
