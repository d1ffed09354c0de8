//! Nobody makes a token without a key: good tokens of every kind are changed in every way that we know of, and no text
//! but the very ones that were issued is taken.
//!
//! `FRONTROW_FORGE_MUTATIONS` says how many (20,000), `FRONTROW_FORGE_SEED` of which seed, `FRONTROW_FORGE_CASE` tries one
//! case alone. Careless verifiers stand beside ours: each must be found out, or this would prove nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Instant;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};
use frontrow_domain::ports::{
    AccessClaims, AccessTokens, InvalidAccessToken, NoIssuer, Role, TokenProvider, WaitClaims,
};
use frontrow_domain::queue::TicketNumber;
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, UserId};
use frontrow_infra::identity::{AccessKeys, Expected, KeyRing, Secret, VerifiedTokens, WaitTokens};
use frontrow_testkit::forge::{Forger, Forgery, Tally};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto};
use serde_json::{Value, json};
use uuid::Uuid;

const RSA_PRIVATE: &str = include_str!("../src/identity/test_keys/rsa_private.pem");
const RSA_PUBLIC: &str = include_str!("../src/identity/test_keys/rsa_public.pem");
const ED_PRIVATE: &str = include_str!("../src/identity/test_keys/ed25519_private.pem");
const ED_PUBLIC: &str = include_str!("../src/identity/test_keys/ed25519_public.pem");
const EC_PRIVATE: &str = include_str!("../src/identity/test_keys/ec_private.pem");
const EC_PUBLIC: &str = include_str!("../src/identity/test_keys/ec_public.pem");
/// The forger's own keys. No verifier has them.
const FORGERS: [&str; 2] = [
    include_str!("../src/identity/test_keys/ed25519_other_private.pem"),
    include_str!("../src/identity/test_keys/ec_other_private.pem"),
];

/// How many forgeries are tried where nothing else is said.
const FORGERIES: u64 = 20_000;
/// How many a careless verifier is tried with.
const CONTROLS: u64 = 2_000;

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T20:00:00Z").unwrap()
}

fn in_an_hour() -> i64 {
    now().plus_seconds(3_600).unix_micros() / 1_000_000
}

fn secret(letter: &str) -> Secret {
    Secret::new(&letter.repeat(40)).unwrap()
}

/// Signs with `b`, believes `a`.
fn ring() -> KeyRing {
    KeyRing::new(secret("b"), [secret("a")]).unwrap()
}

fn expected() -> Expected {
    let (issuer, audience) = (Some("https://id.example.com".into()), Some("frontrow".into()));
    Expected { issuer, audience, ..Expected::default() }
}

/// A token of an outside provider.
fn by_provider(claims: &Value, algorithm: Algorithm, kid: Option<&str>) -> String {
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()),
        _ => EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()),
    };
    let header = Header { kid: kid.map(ToOwned::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &key.unwrap()).unwrap()
}

/// A token that any library makes of a secret.
fn by_hand(claims: &Value, header: &Header, letter: &str) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(letter.repeat(40).as_bytes())).unwrap()
}

fn key_set() -> AccessKeys {
    let jwk = |private: EncodingKey, algorithm, kid: &str| {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&private, algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(kid);
        jwk
    };
    let rsa = jwk(EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap(), Algorithm::RS256, "r");
    let ed = jwk(EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap(), Algorithm::EdDSA, "e");
    let ec = jwk(EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap(), Algorithm::ES256, "c");
    AccessKeys::key_set(json!({"keys": [rsa, ed, ec]}).to_string().as_bytes()).unwrap()
}

/// Good tokens of every kind, and who takes them.
fn good_tokens() -> Vec<(String, &'static [&'static str])> {
    let (old, new) = (AccessKeys::own(&secret("a")), AccessKeys::own(ring()));
    let (old_wait, new_wait) = (WaitTokens::new(&secret("a")), WaitTokens::new(ring()));
    let mut tokens: Vec<(String, &'static [&'static str])> = Vec::new();
    for (nth, role) in [(1, Role::User), (2, Role::User), (3, Role::Admin)] {
        let claims = AccessClaims {
            user_id: UserId::new(Uuid::from_u128(nth)),
            role,
            expires_at: now().plus_seconds(3_600),
        };
        for keys in [&old, &new] {
            tokens.push((keys.issue(&claims).unwrap(), &["own"]));
        }
        let expecting = AccessKeys::own(ring()).expecting(expected());
        tokens.push((expecting.issue(&claims).unwrap(), &["own", "own, expecting"]));
        let bare = json!({"sub": Uuid::from_u128(nth), "exp": in_an_hour()});
        tokens.push((by_hand(&bare, &Header::new(Algorithm::HS256), "b"), &["own"]));
        let named = Header { typ: None, kid: Some("theirs".into()), ..Header::new(Algorithm::HS256) };
        tokens.push((by_hand(&bare, &named, "b"), &["own"]));
        for room in [1, 2] {
            let claims = WaitClaims {
                token_id: QueueTokenId::new(Uuid::from_u128(nth << 8 | room)),
                room_id: RoomId::new(Uuid::from_u128(room)),
                user_id: claims.user_id,
                ticket: TicketNumber(77),
                entered_at: now(),
            };
            for keys in [&old_wait, &new_wait] {
                tokens.push((keys.issue(&claims), &["Wait-Token"]));
            }
        }
    }
    let claims = json!({"sub": Uuid::from_u128(1), "exp": in_an_hour(), "nbf": 1, "role": "admin",
        "iss": "https://id.example.com", "aud": ["other", "frontrow"]});
    for (algorithm, kid, takers) in [
        (Algorithm::RS256, None, ["RSA"].as_slice()),
        (Algorithm::RS256, Some("r"), &["RSA", "key set"]),
        (Algorithm::EdDSA, None, &["Ed25519"]),
        (Algorithm::EdDSA, Some("e"), &["Ed25519", "key set"]),
        (Algorithm::ES256, None, &["P-256"]),
        (Algorithm::ES256, Some("c"), &["P-256", "key set"]),
    ] {
        tokens.push((by_provider(&claims, algorithm, kid), takers));
        for sub in ["00000000-0000-0000-0000-000000000002", "auth0|2"] {
            let other = json!({"sub": sub, "exp": in_an_hour()});
            tokens.push((by_provider(&other, algorithm, kid), takers));
        }
    }
    tokens.push((by_hand(&strict_claims(), &Header::new(Algorithm::HS256), "c"), &["strict"]));
    tokens
}

/// Who believes nobody but `c`, and that not without all claims.
fn strict(expected: Expected) -> AccessKeys {
    AccessKeys::own(&secret("c")).expecting(expected)
}

/// All that is asked for there.
fn strict_claims() -> Value {
    json!({"sub": Uuid::from_u128(1), "exp": in_an_hour(), "nbf": in_an_hour() - 7_200,
        "iss": "https://id.example.com", "aud": "frontrow"})
}

/// Tokens that are signed in order, and worthless: each for what it says in this one place.
fn worthless_tokens() -> Vec<(&'static str, String)> {
    let but = |name: &str, value: Value| {
        let mut claims = strict_claims();
        claims[name] = value;
        by_hand(&claims, &Header::new(Algorithm::HS256), "c")
    };
    let typed = |typ: &str, claims: &Value| {
        by_hand(claims, &Header { typ: Some(typ.into()), ..Header::new(Algorithm::HS256) }, "b")
    };
    let place = json!({"jti": Uuid::from_u128(9), "room": Uuid::from_u128(1), "sub": Uuid::from_u128(1),
        "ticket": 1, "entered": 0});
    vec![
        ("exp", but("exp", json!(in_an_hour() - 3_600))),
        ("nbf", but("nbf", json!(in_an_hour() - 1_800))),
        ("iss", but("iss", json!("https://id.example.org"))),
        ("iss", but("iss", json!(null))),
        ("aud", but("aud", json!(["other"]))),
        ("aud", but("aud", json!(null))),
        ("the type of an access token", typed("wait+jwt", &strict_claims())),
        ("the type of a Wait-Token", typed("JWT", &place)),
    ]
}

/// Says whether a token is good.
type Takes = Box<dyn Fn(&str) -> bool>;

/// Everybody who checks tokens.
fn verifiers() -> Vec<(&'static str, Takes)> {
    fn access(tokens: impl AccessTokens + 'static) -> Takes {
        Box::new(move |token| tokens.verify(token, now()).is_ok())
    }
    let wait = WaitTokens::new(ring());
    let outside = |pem: &str| AccessKeys::outside(pem.as_bytes()).unwrap();
    vec![
        ("own", access(VerifiedTokens::new(AccessKeys::own(ring())))),
        ("own, expecting", access(AccessKeys::own(ring()).expecting(expected()))),
        ("Wait-Token", Box::new(move |token| wait.verify(token).is_ok())),
        ("RSA", access(VerifiedTokens::new(outside(RSA_PUBLIC)))),
        ("Ed25519", access(VerifiedTokens::new(outside(ED_PUBLIC)))),
        ("P-256", access(VerifiedTokens::new(outside(EC_PUBLIC)))),
        ("key set", access(key_set())),
        ("strict", access(VerifiedTokens::new(strict(expected())))),
    ]
}

fn setting<T: FromStr<Err: Debug>>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}: {error:?}")))
}

fn forger(seed: u64) -> Forger {
    let tokens = good_tokens().into_iter().map(|(token, _)| token).collect();
    let worthless = worthless_tokens().into_iter().map(|(_, token)| token).collect();
    Forger::new(seed, tokens, worthless, &[RSA_PUBLIC, ED_PUBLIC, EC_PUBLIC], &FORGERS)
}

#[test]
fn a_good_token_is_taken_by_its_own_verifiers_alone() {
    let worthless = worthless_tokens().into_iter().map(|(_, token)| (token, [].as_slice()));
    for (token, takers) in good_tokens().into_iter().chain(worthless) {
        for (name, takes) in verifiers() {
            assert_eq!(takes(&token), takers.contains(&name), "{name}: {token}");
        }
    }
}

#[test]
fn no_forgery_is_accepted() {
    let seed = setting("FRONTROW_FORGE_SEED").unwrap_or(1);
    let (forger, verifiers) = (forger(seed), verifiers());
    // Those who remember what they have checked remember good tokens only.
    for (token, _) in good_tokens() {
        verifiers.iter().for_each(|(_, takes)| {
            takes(&token);
        });
    }
    let (first, count) = match setting("FRONTROW_FORGE_CASE") {
        Some(case) => (case, 1),
        None => (0, setting("FRONTROW_FORGE_MUTATIONS").unwrap_or(FORGERIES)),
    };
    let started = Instant::now();
    let tally = forger.run(first, count, |text| {
        verifiers.iter().find(|(_, takes)| takes(text)).map(|(name, _)| (*name).to_owned())
    });
    println!("{}", report(seed, &tally, started.elapsed().as_secs_f64()));
    assert!(tally.accepted.is_empty(), "forgeries were accepted");
    assert_eq!(tally.tried, count);
    assert!(tally.skipped * 10 <= count || count < 100, "too many cases give good tokens");
    assert!(count < FORGERIES || tally.ways.values().all(|tried| *tried > count / 50), "every way is tried");
}

fn report(seed: u64, tally: &Tally, seconds: f64) -> String {
    let mut text = format!(
        "seed {seed}: {} forgeries in {seconds:.1} s, {} cases gave a good token, {} accepted",
        tally.tried,
        tally.skipped,
        tally.accepted.len()
    );
    for (way, tried) in &tally.ways {
        text.push_str(&format!("\n  {tried:>9} {way}"));
    }
    for (forgery, who) in tally.accepted.iter().take(20) {
        let (case, ways, forged) = (forgery.case, &forgery.ways, &forgery.text);
        text.push_str(&format!(
            "\nACCEPTED by {who}: FRONTROW_FORGE_SEED={seed} FRONTROW_FORGE_CASE={case} {ways:?}\n  {forged:?}"
        ));
    }
    text
}

#[test]
fn a_case_can_be_tried_again() {
    let (first, second) = (forger(7), forger(7));
    for case in [0, 1, 999, u64::MAX] {
        assert_eq!(first.forge(case).text, second.forge(case).text);
    }
    let texts = |seed| forger(seed).forgeries(0).take(20).map(|forgery| forgery.text).collect::<Vec<_>>();
    assert_eq!(texts(7), texts(7));
    assert_ne!(texts(7), texts(8));
}

/// The forgeries that a careless verifier takes.
fn taken(takes: impl Fn(&str) -> bool) -> Vec<Forgery> {
    let tally = forger(1).run(0, CONTROLS, |text| takes(text).then(|| "careless".to_owned()));
    tally.accepted.into_iter().map(|(forgery, _)| forgery).collect()
}

/// Checks that a careless verifier takes forgeries, and that this way finds it out.
#[track_caller]
fn is_found_out(way: &str, takes: impl Fn(&str) -> bool) {
    let taken = taken(takes);
    let found = taken.iter().any(|forgery| forgery.ways.contains(&way));
    assert!(found, "{} were accepted, none by {way:?}", taken.len());
}

/// The control of everything: believes what a token says, whoever signed it.
struct Credulous;

impl AccessTokens for Credulous {
    fn verify(&self, token: &str, now: Timestamp) -> Result<AccessClaims, InvalidAccessToken> {
        let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Value>(token);
        let claims = claims.map_err(|_| InvalidAccessToken)?;
        let user_id = claims["sub"].as_str().and_then(|sub| sub.parse().ok()).ok_or(InvalidAccessToken)?;
        let is_live = claims["exp"].as_i64().is_some_and(|exp| exp > now.unix_micros() / 1_000_000);
        let claims = AccessClaims { user_id: UserId::new(user_id), role: Role::User, expires_at: now };
        if is_live { Ok(claims) } else { Err(InvalidAccessToken) }
    }

    fn issue(&self, _: &AccessClaims) -> Result<String, NoIssuer> {
        Err(NoIssuer)
    }
}

#[test]
fn who_does_not_check_signatures_is_found_out() {
    for way in ["other claims, the old signature", "another signature", "parts of other tokens"] {
        is_found_out(way, |token| Credulous.verify(token, now()).is_ok());
    }
}

/// The head and the two texts that a signature is checked by.
fn split(token: &str) -> Option<(Value, &str, &str)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let head = URL_SAFE_NO_PAD.decode(signed.split('.').next()?).ok()?;
    Some((serde_json::from_slice(&head).ok()?, signed, signature))
}

#[test]
fn who_believes_that_none_is_an_algorithm_is_found_out() {
    is_found_out("another algorithm", |token| {
        let is_none = |head: &Value| head["alg"].as_str().is_some_and(|alg| alg.eq_ignore_ascii_case("none"));
        split(token).is_some_and(|(head, ..)| is_none(&head)) && Credulous.verify(token, now()).is_ok()
    });
}

#[test]
fn who_takes_the_algorithm_from_the_token_is_found_out() {
    for public in [RSA_PUBLIC, EC_PUBLIC] {
        let key = DecodingKey::from_secret(public.as_bytes());
        is_found_out("a public key as the secret", |token| {
            let check = |signed: &str, signature| {
                crypto::verify(signature, signed.as_bytes(), &key, Algorithm::HS256)
            };
            split(token).is_some_and(|(_, signed, signature)| check(signed, signature).is_ok_and(|good| good))
        });
    }
}

#[test]
fn who_takes_the_key_from_the_token_is_found_out() {
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256] {
        is_found_out("signed by the forger", |token| {
            let Some((head, signed, signature)) = split(token) else { return false };
            let Ok(jwk) = serde_json::from_value::<Jwk>(head["jwk"].clone()) else { return false };
            let Ok(key) = DecodingKey::from_jwk(&jwk) else { return false };
            crypto::verify(signature, signed.as_bytes(), &key, algorithm).is_ok_and(|good| good)
        });
    }
}

#[test]
fn who_is_lax_with_base64_is_found_out() {
    let lax = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));
    let tokens = AccessKeys::own(ring());
    is_found_out("another spelling in base64", |token| {
        let Some((signed, signature)) = token.rsplit_once('.') else { return false };
        let Ok(bytes) = lax.decode(signature) else { return false };
        tokens.verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes)), now()).is_ok()
    });
}

#[test]
fn who_trims_a_token_is_found_out() {
    let tokens = AccessKeys::own(ring());
    is_found_out("strange characters", |token| tokens.verify(token.trim(), now()).is_ok());
}

/// Whether our secret signed it, whatever it says.
fn is_signed(token: &str) -> bool {
    let key = DecodingKey::from_secret("b".repeat(40).as_bytes());
    let check = |(_, signed, signature): (Value, &str, &str)| {
        crypto::verify(signature, signed.as_bytes(), &key, Algorithm::HS256)
    };
    split(token).is_some_and(|parts| check(parts).is_ok_and(|good| good))
}

/// Whether the claims are those of a place in line.
fn is_place(token: &str) -> bool {
    let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Value>(token).unwrap_or_default();
    ["jti", "room", "sub", "ticket", "entered"].iter().all(|name| claims.get(name).is_some())
}

/// Who looks at all but one thing: at no `exp` is ours when it was earlier, at no `nbf` when it will be later.
#[test]
fn who_does_not_look_everywhere_is_found_out() {
    let strict_at = |expected: Expected, time: i64| -> Takes {
        let time = Timestamp::from_unix_micros(time * 1_000_000).unwrap();
        Box::new(move |token| strict(expected.clone()).verify(token, time).is_ok())
    };
    let now = in_an_hour() - 3_600;
    let careless: [(&str, Takes); 6] = [
        ("exp", strict_at(expected(), now - 1_800)),
        ("nbf", strict_at(expected(), now + 2_700)),
        ("iss", strict_at(Expected { issuer: None, ..expected() }, now)),
        ("aud", strict_at(Expected { audience: None, ..expected() }, now)),
        (
            "the type of an access token",
            Box::new(|token| is_signed(token) && Credulous.verify(token, self::now()).is_ok()),
        ),
        ("the type of a Wait-Token", Box::new(|token| is_signed(token) && is_place(token))),
    ];
    let worthless = worthless_tokens();
    for (place, takes) in careless {
        let taken = taken(takes);
        let is_why = |forgery: &Forgery| worthless.contains(&(place, forgery.text.clone()));
        assert!(taken.iter().any(is_why), "{} were accepted, none for {place:?}", taken.len());
    }
}
