//! Access tokens of an outside identity provider (`--identity-public-key`).

use frontrow_testkit::app::{Database, SECRET, TestApp, settings};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ask, asked, now, refused};

const ED25519_PRIVATE: &str = include_str!("../../../infra/src/identity/test_keys/ed25519_private.pem");
const ED25519_PUBLIC: &str = include_str!("../../../infra/src/identity/test_keys/ed25519_public.pem");
const RSA_PRIVATE: &str = include_str!("../../../infra/src/identity/test_keys/rsa_private.pem");
const RSA_PUBLIC: &str = include_str!("../../../infra/src/identity/test_keys/rsa_public.pem");

async fn start(database: &Database, public_key: &str) -> TestApp {
    let identity_public_key = Some(public_key.as_bytes().to_vec());
    TestApp::start(frontrow::app::Settings { identity_public_key, ..settings(database) }).await
}

fn claims(user_id: Uuid) -> Value {
    json!({"sub": user_id, "exp": now().unix_micros() / 1_000_000 + 600})
}

fn by_provider(claims: &Value, algorithm: Algorithm) -> String {
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED25519_PRIVATE.as_bytes()),
        _ => EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()),
    };
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key.unwrap()).unwrap()
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

async fn only_the_provider_is_believed(app: &TestApp, right: Algorithm, pem: &str, wrong: &[Algorithm]) {
    ask(app.request(Method::POST, "/sessions")).await.any_problem(404);
    let user_id = Uuid::from_u128(0x9f1c24a6_6c4a_4d5e_8f21_3b0f2c6f7a11);
    let account = || app.get(&format!("/accounts/{user_id}"));
    let bearer = by_provider(&claims(user_id), right);
    asked(account().bearer_auth(&bearer), 200).await;

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
