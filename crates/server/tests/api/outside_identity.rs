//! Access tokens of an outside identity provider (`--identity-public-key`, `--identity-jwks`), and what they must say.

use std::fs;
use std::path::Path;

use frontrow::tokens::{Provider, TokenSettings};
use frontrow_infra::identity::Expected;
use frontrow_testkit::app::{Database, SECRET, TestApp, own_tokens, settings, token};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ask, asked, becomes, now, refused};

const ED25519_PRIVATE: &str = include_str!("../../../infra/src/identity/test_keys/ed25519_private.pem");
const ED25519_PUBLIC: &str = include_str!("../../../infra/src/identity/test_keys/ed25519_public.pem");
const EC_PRIVATE: &str = include_str!("../../../infra/src/identity/test_keys/ec_private.pem");
const EC_PUBLIC: &str = include_str!("../../../infra/src/identity/test_keys/ec_public.pem");
const RSA_PRIVATE: &str = include_str!("../../../infra/src/identity/test_keys/rsa_private.pem");
const RSA_PUBLIC: &str = include_str!("../../../infra/src/identity/test_keys/rsa_public.pem");

async fn start(database: &Database, public_key: &str) -> TestApp {
    start_with(database, Some(Provider::PublicKey(public_key.as_bytes().to_vec())), Expected::default()).await
}

async fn start_with(database: &Database, provider: Option<Provider>, expected: Expected) -> TestApp {
    let tokens = TokenSettings { provider, expected, ..own_tokens(SECRET, &[]) };
    TestApp::start(frontrow::app::Settings { tokens, ..settings(database) }).await
}

fn claims(user_id: Uuid) -> Value {
    json!({"sub": user_id, "exp": now().unix_micros() / 1_000_000 + 600})
}

/// The provider's own half of a key.
fn private(algorithm: Algorithm) -> EncodingKey {
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()),
        _ => EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()),
    };
    key.unwrap()
}

fn by_provider(claims: &Value, algorithm: Algorithm) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &private(algorithm)).unwrap()
}

fn by_secret(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

pub(crate) async fn eddsa(database: &Database) {
    let app = start(database, ED25519_PUBLIC).await;
    only_the_provider_is_believed(&app, Algorithm::EdDSA, ED25519_PUBLIC, &[Algorithm::RS256]).await;
    app.stop().await;
}

pub(crate) async fn rs256(database: &Database) {
    let app = start(database, RSA_PUBLIC).await;
    let others = [Algorithm::EdDSA, Algorithm::RS512, Algorithm::PS256];
    only_the_provider_is_believed(&app, Algorithm::RS256, RSA_PUBLIC, &others).await;
    app.stop().await;
}

pub(crate) async fn es256(database: &Database) {
    let app = start(database, EC_PUBLIC).await;
    let others = [Algorithm::EdDSA, Algorithm::RS256];
    only_the_provider_is_believed(&app, Algorithm::ES256, EC_PUBLIC, &others).await;
    app.stop().await;
}

/// `kim` of `https://id`, as KEYS.md maps it.
const KIM: &str = "7576bb61-c2a6-5d1a-b531-63d968377cfa";

pub(crate) async fn a_subject_that_is_no_uuid_is_mapped_to_one(database: &Database) {
    let app = start(database, EC_PUBLIC).await;
    let bearer = |sub: &str, issuer: &str| {
        let mut claims = claims(SOMEBODY);
        (claims["sub"], claims["iss"]) = (json!(sub), json!(issuer));
        by_provider(&claims, Algorithm::ES256)
    };
    let kim = bearer("kim", "https://id");
    let entered = asked(app.request(Method::POST, "/queue").bearer_auth(&kim), 201).await;
    assert_eq!(entered.json()["userId"], json!(KIM));
    let charge = |bearer: &str| {
        let charge = app.request(Method::POST, &format!("/accounts/{KIM}/charge"));
        charge.bearer_auth(bearer).json(&json!({"amount": 5}))
    };
    asked(charge(&kim), 200).await;
    // The same name at another issuer, and the mapped id as a name, are other users.
    for other in
        [bearer("kim", "https://other"), bearer(KIM, "https://id"), bearer(&SOMEBODY.to_string(), "x")]
    {
        refused(charge(&other), 403, "NOT_YOUR_RESOURCE").await;
        assert_eq!(asked(app.request(Method::POST, "/queue").bearer_auth(&other), 201).await.status, 201);
    }
    app.stop().await;
}

pub(crate) async fn roles_are_read_under_the_configured_claim(database: &Database) {
    let provider = Provider::PublicKey(EC_PUBLIC.as_bytes().to_vec());
    let expected = Expected { role_claim: Some("realm_access.roles".into()), ..Expected::default() };
    let app = start_with(database, Some(provider), expected).await;
    let with = |more: Value| {
        let mut claims = claims(SOMEBODY);
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.get("/admin/rooms").bearer_auth(by_provider(&claims, Algorithm::ES256))
    };
    asked(with(json!({"realm_access": {"roles": ["offline_access", "admin"]}})), 200).await;
    for other in [json!({}), json!({"role": "admin"}), json!({"realm_access": {"roles": ["cashier"]}})] {
        refused(with(other), 403, "FORBIDDEN").await;
    }
    app.stop().await;
}

async fn only_the_provider_is_believed(app: &TestApp, right: Algorithm, pem: &str, wrong: &[Algorithm]) {
    ask(app.request(Method::POST, "/sessions")).await.any_problem(404);
    let user_id = Uuid::from_u128(0x9f1c24a6_6c4a_4d5e_8f21_3b0f2c6f7a11);
    let account = || app.get(&format!("/accounts/{user_id}"));
    let bearer = by_provider(&claims(user_id), right);
    asked(account().bearer_auth(&bearer), 200).await;
    refused(app.request(Method::POST, "/sessions/renew").bearer_auth(&bearer), 404, "NOT_FOUND").await;

    let mut refused_bearers = vec![by_secret(&claims(user_id), SECRET), by_secret(&claims(user_id), pem)];
    refused_bearers.extend(wrong.iter().map(|algorithm| by_provider(&claims(user_id), *algorithm)));
    for bearer in refused_bearers {
        refused(account().bearer_auth(bearer), 401, "UNAUTHENTICATED").await;
    }

    // The line and the role work as ever.
    let entered = asked(app.request(Method::POST, "/queue").bearer_auth(&bearer), 201).await;
    let place = app.get("/queue").bearer_auth(&bearer).header("Wait-Token", entered.wait_token());
    assert_eq!(asked(place, 200).await.json()["userId"], json!(user_id));
    refused(app.get("/admin/rooms").bearer_auth(&bearer), 403, "FORBIDDEN").await;
    let mut operator = claims(user_id);
    operator["role"] = json!("admin");
    asked(app.get("/admin/rooms").bearer_auth(by_provider(&operator, right)), 200).await;
}

/// A key as a provider publishes it.
fn jwk(algorithm: Algorithm, kid: &str) -> Value {
    let jwk = Jwk::from_encoding_key(&private(algorithm), algorithm).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = json!(kid);
    jwk
}

fn named(claims: &Value, algorithm: Algorithm, kid: &str) -> String {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &private(algorithm)).unwrap()
}

fn publish(path: &Path, keys: &[Value]) {
    fs::write(path, json!({"keys": keys}).to_string()).unwrap();
}

const SOMEBODY: Uuid = Uuid::from_u128(0x9f1c24a6_6c4a_4d5e_8f21_3b0f2c6f7a11);

fn account(app: &TestApp) -> RequestBuilder {
    app.get(&format!("/accounts/{SOMEBODY}"))
}

pub(crate) async fn a_key_set_is_followed_without_a_restart(database: &Database) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    publish(&path, &[jwk(Algorithm::RS256, "1")]);
    let app = start_with(database, Some(Provider::KeySet(path.clone())), Expected::default()).await;
    ask(app.request(Method::POST, "/sessions")).await.any_problem(404);
    let (first, second) =
        (named(&claims(SOMEBODY), Algorithm::RS256, "1"), named(&claims(SOMEBODY), Algorithm::EdDSA, "2"));
    let status = async |bearer: &str| ask(account(&app).bearer_auth(bearer)).await.status;
    asked(account(&app).bearer_auth(&first), 200).await;
    for bad in [
        second.clone(),
        named(&claims(SOMEBODY), Algorithm::RS256, "2"),
        named(&claims(SOMEBODY), Algorithm::EdDSA, "1"),
        by_secret(&claims(SOMEBODY), SECRET),
    ] {
        refused(account(&app).bearer_auth(bad), 401, "UNAUTHENTICATED").await;
    }

    // The provider goes over to another key: both are good for a while, then the new one alone.
    publish(&path, &[jwk(Algorithm::RS256, "1"), jwk(Algorithm::EdDSA, "2")]);
    becomes("the new key's token", 200, async || status(&second).await).await;
    asked(account(&app).bearer_auth(&first), 200).await;
    let in_line = asked(app.request(Method::POST, "/queue").bearer_auth(&first), 201).await.wait_token();
    publish(&path, &[jwk(Algorithm::EdDSA, "2")]);
    becomes("the old key's token", 401, async || status(&first).await).await;
    asked(account(&app).bearer_auth(&second), 200).await;
    let place = app.get("/queue").bearer_auth(&second).header("Wait-Token", &in_line);
    asked(place, 200).await;

    // A file that is broken changes nothing, however often it is looked at; the next good one counts.
    fs::write(&path, "{\"keys\": [").unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    asked(account(&app).bearer_auth(&second), 200).await;
    publish(&path, &[jwk(Algorithm::RS256, "1")]);
    becomes("the old key's token", 200, async || status(&first).await).await;
    refused(account(&app).bearer_auth(&second), 401, "UNAUTHENTICATED").await;
    app.stop().await;
}

pub(crate) async fn issuer_and_audience_are_asked_for_where_that_is_configured(database: &Database) {
    let (issuer, audience) = (Some("https://id".into()), Some("frontrow".into()));
    let expected = Expected { issuer, audience, ..Expected::default() };
    let provider = Provider::PublicKey(ED25519_PUBLIC.as_bytes().to_vec());
    let app = start_with(database, Some(provider), expected.clone()).await;
    let with = |issuer: &str, audience: Value| {
        let mut claims = claims(SOMEBODY);
        (claims["iss"], claims["aud"]) = (json!(issuer), audience);
        by_provider(&claims, Algorithm::EdDSA)
    };
    for audience in [json!("frontrow"), json!(["another", "frontrow"])] {
        asked(account(&app).bearer_auth(with("https://id", audience)), 200).await;
    }
    for bad in [
        by_provider(&claims(SOMEBODY), Algorithm::EdDSA),
        with("https://id", json!("another")),
        with("https://id", json!([])),
        with("https://another", json!("frontrow")),
    ] {
        refused(account(&app).bearer_auth(bad), 401, "UNAUTHENTICATED").await;
    }
    app.stop().await;

    // It holds for our own tokens, too, and they say it.
    let app = start_with(database, None, expected).await;
    let guest = app.guest().await;
    asked(guest.own(app.get(&format!("/accounts/{}", guest.user_id))), 200).await;
    let bare = token(SOMEBODY, frontrow_domain::ports::Role::User);
    refused(account(&app).bearer_auth(bare), 401, "UNAUTHENTICATED").await;
    app.stop().await;
}
