//! Who is calling: guest sessions, bearers, roles.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use frontrow_domain::ports::Role;
use frontrow_testkit::app::{Buyer, SECRET, TestApp, id, sent, token};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{NOBODY, admin, ask, asked, enter, in_seconds, is_about, now, place, refused, time};

/// A JWT with these claims.
fn signed(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .unwrap()
}

/// A JWT that is not signed at all.
fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(claims))
}

fn claims_of(jwt: &str) -> Value {
    let payload = jwt.split('.').nth(1).expect("a JWT has three parts");
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Seconds since 1970, so many from now.
pub(crate) fn unix(seconds: i64) -> i64 {
    now().unix_micros() / 1_000_000 + seconds
}

/// A well-formed request of every call that needs a bearer, by anybody.
fn every_call(user_id: Uuid) -> Vec<(Method, String, Option<Value>)> {
    let section = json!({"section": "A", "grade": "R", "price": 1, "rows": 1, "seatsPerRow": 1});
    let date = json!({"startsAt": in_seconds(9_000), "sections": [section]});
    let dates = format!("/concerts/{NOBODY}/performanceDates");
    vec![
        (Method::POST, "/queue".into(), Some(json!({}))),
        (Method::GET, "/queue".into(), None),
        (Method::DELETE, "/queue".into(), None),
        (Method::GET, dates.clone(), None),
        (Method::GET, format!("{dates}/{NOBODY}/seats"), None),
        (
            Method::POST,
            "/reservations".into(),
            Some(json!({"performanceDateId": NOBODY, "seatIds": [NOBODY]})),
        ),
        (Method::GET, "/reservations".into(), None),
        (Method::GET, format!("/reservations/{NOBODY}"), None),
        (Method::DELETE, format!("/reservations/{NOBODY}"), None),
        (Method::POST, format!("/accounts/{user_id}/charge"), Some(json!({"amount": 1}))),
        (Method::GET, format!("/accounts/{user_id}"), None),
        (Method::GET, format!("/accounts/{user_id}/entries"), None),
        (Method::POST, "/pay".into(), Some(json!({"userId": user_id, "reservationId": NOBODY}))),
        (Method::POST, "/admin/concerts".into(), Some(json!({"title": "T", "venue": "V"}))),
        (Method::POST, format!("/admin/concerts/{NOBODY}/performanceDates"), Some(date)),
        (Method::GET, "/admin/rooms".into(), None),
        (Method::PATCH, format!("/admin/rooms/{NOBODY}"), Some(json!({"admitBatch": 5}))),
        (Method::POST, format!("/admin/rooms/{NOBODY}/admit"), Some(json!({"count": 1}))),
        (Method::GET, format!("/admin/performanceDates/{NOBODY}/sales"), None),
        (Method::GET, "/admin/audit-log".into(), None),
        (Method::POST, "/sessions/renew".into(), None),
    ]
}

pub(crate) async fn a_guest_session_is_a_user_with_a_token(app: &TestApp) {
    let session = asked(app.request(Method::POST, "/sessions"), 201).await.json();
    let user_id = id(&session, "userId");
    assert_eq!(user_id.get_version_num(), 7);
    let claims = claims_of(session["accessToken"].as_str().unwrap());
    assert_eq!(claims["sub"], json!(user_id));
    let expires_at = time(&session, "expiresAt");
    assert!(expires_at > now());
    assert_eq!(claims["exp"].as_i64().unwrap(), expires_at.unix_micros() / 1_000_000);
    assert_ne!(claims["role"], "admin");

    let other = asked(app.request(Method::POST, "/sessions"), 201).await.json();
    assert_ne!(id(&other, "userId"), user_id);
    let account = app.get(&format!("/accounts/{user_id}"));
    asked(account.bearer_auth(session["accessToken"].as_str().unwrap()), 200).await;
}

/// A line may be longer than a session: the place is the user's, not the token's.
pub(crate) async fn a_renewed_session_keeps_its_place_and_buys(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let before = app.waiting(&sale).await;
    let renewed = asked(app.request(Method::POST, "/sessions/renew").bearer_auth(&before.access_token), 201);
    let renewed = renewed.await.json();
    assert_eq!(id(&renewed, "userId"), before.user_id);
    let access_token = renewed["accessToken"].as_str().unwrap().to_owned();
    let expires_at = time(&renewed, "expiresAt");
    is_about(expires_at, 86_400);
    assert_eq!(claims_of(&access_token)["exp"].as_i64().unwrap(), expires_at.unix_micros() / 1_000_000);
    assert!(claims_of(&access_token).get("role").is_none());

    let buyer = Buyer { access_token, ..before.clone() };
    let place = place(app, &buyer).await;
    assert_eq!(place["tokenId"], crate::support::place(app, &before).await["tokenId"], "both are valid");
    let again = asked(enter(app, &buyer, &sale), 200).await;
    assert_eq!(Some(again.wait_token()), buyer.wait_token);
    app.admit(sale.room_id, 1).await;
    let seats = app.seats(&buyer, &sale).await;
    let reservation_id = app.hold(&buyer, &sale, &seats).await;
    app.charge(&buyer, 100).await;
    sent(app.pay(&buyer, reservation_id), 200).await;
    // And once more, by the renewed token.
    asked(app.request(Method::POST, "/sessions/renew").bearer_auth(&buyer.access_token), 201).await;
}

pub(crate) async fn only_a_valid_token_without_a_role_is_renewed(app: &TestApp) {
    let renew = || app.request(Method::POST, "/sessions/renew");
    refused(renew(), 401, "UNAUTHENTICATED").await;
    let user_id = app.guest().await.user_id;
    let expired = signed(&json!({"sub": user_id, "exp": unix(-1)}), Algorithm::HS256, SECRET);
    refused(renew().bearer_auth(expired), 401, "UNAUTHENTICATED").await;
    for role in ["admin", "cashier"] {
        let operator =
            signed(&json!({"sub": user_id, "exp": unix(60), "role": role}), Algorithm::HS256, SECRET);
        let problem = refused(renew().bearer_auth(operator), 403, "FORBIDDEN").await;
        assert!(problem["detail"].as_str().unwrap().contains("frontrow token"), "{problem}");
        assert!(problem.get("accessToken").is_none());
    }
    let user = signed(&json!({"sub": user_id, "exp": unix(60)}), Algorithm::HS256, SECRET);
    asked(renew().bearer_auth(user), 201).await;
}

pub(crate) async fn every_call_needs_a_bearer(app: &TestApp) {
    for (method, path, body) in every_call(app.guest().await.user_id) {
        for bearer in [None, Some("Bearer not.a.token")] {
            let mut request = app.request(method.clone(), &path);
            if let Some(body) = &body {
                request = request.json(body);
            }
            if let Some(bearer) = bearer {
                request = request.header("Authorization", bearer);
            }
            refused(request, 401, "UNAUTHENTICATED").await;
        }
    }
}

pub(crate) async fn a_bad_bearer_is_refused(app: &TestApp) {
    let user_id = app.guest().await.user_id;
    let good = json!({"sub": user_id, "exp": unix(600)});
    let fine = signed(&good, Algorithm::HS256, SECRET);
    let account = || app.get(&format!("/accounts/{user_id}"));
    asked(account().bearer_auth(&fine), 200).await;
    let (head, signature) = fine.rsplit_once('.').unwrap();
    let promoted = BASE64_URL_SAFE_NO_PAD.encode(json!({"sub": user_id, "exp": unix(900)}).to_string());
    let header = head.split('.').next().unwrap();
    for (what, authorization) in [
        ("empty", String::new()),
        ("no token", "Bearer ".into()),
        ("no scheme", fine.clone()),
        ("another scheme", "Basic dTpw".into()),
        ("rubbish", "Bearer rubbish".into()),
        (
            "expired",
            format!("Bearer {}", signed(&json!({"sub": user_id, "exp": unix(-1)}), Algorithm::HS256, SECRET)),
        ),
        (
            "another secret",
            format!("Bearer {}", signed(&good, Algorithm::HS256, "another secret that is long enough")),
        ),
        ("another algorithm", format!("Bearer {}", signed(&good, Algorithm::HS512, SECRET))),
        ("unsigned", format!("Bearer {}", unsigned(&good))),
        ("unsigned, with a signature", format!("Bearer {}{signature}", unsigned(&good))),
        ("signature cut off", format!("Bearer {head}.")),
        ("changed after signing", format!("Bearer {header}.{promoted}.{signature}")),
        ("never expires", format!("Bearer {}", signed(&json!({"sub": user_id}), Algorithm::HS256, SECRET))),
        ("nobody", format!("Bearer {}", signed(&json!({"exp": unix(600)}), Algorithm::HS256, SECRET))),
        (
            "no UUID",
            format!("Bearer {}", signed(&json!({"sub": "me", "exp": unix(600)}), Algorithm::HS256, SECRET)),
        ),
    ] {
        let answer = ask(account().header("Authorization", authorization)).await;
        assert_eq!(answer.status, 401, "{what}");
        answer.problem(401, "UNAUTHENTICATED");
    }
}

pub(crate) async fn a_bearer_is_good_until_it_expires(app: &TestApp) {
    let user_id = app.guest().await.user_id;
    let exp = unix(2);
    let short = signed(&json!({"sub": user_id, "exp": exp}), Algorithm::HS256, SECRET);
    let account = || app.get(&format!("/accounts/{user_id}")).bearer_auth(&short);
    asked(account(), 200).await;
    let expires_at = frontrow_domain::Timestamp::from_unix_micros(exp * 1_000_000).unwrap();
    crate::support::past(expires_at).await;
    refused(account(), 401, "UNAUTHENTICATED").await;
}

pub(crate) async fn a_user_id_may_be_any_uuid(app: &TestApp) {
    for text in ["9f1c24a6-6c4a-4d5e-8f21-3b0f2c6f7a11", "00000000-0000-0000-0000-000000000000", NOBODY] {
        let user_id: Uuid = text.parse().unwrap();
        let account = app.get(&format!("/accounts/{user_id}")).bearer_auth(token(user_id, Role::User));
        assert_eq!(asked(account, 200).await.json(), json!({"userId": user_id, "balance": 0}));
    }
}

pub(crate) async fn one_kind_of_token_is_never_the_other(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let mut buyer = app.active(&sale).await;
    let wait_token = buyer.wait_token.clone().unwrap();
    let account = app.get(&format!("/accounts/{}", buyer.user_id)).bearer_auth(&wait_token);
    refused(account, 401, "UNAUTHENTICATED").await;
    asked(buyer.own(app.get(&sale.seats_path())), 200).await;
    buyer.wait_token = Some(buyer.access_token.clone());
    ask(buyer.own(app.get(&sale.seats_path()))).await.sent_to_the_queue("WAIT_TOKEN_INVALID");
    refused(buyer.own(app.get("/queue")), 401, "WAIT_TOKEN_INVALID").await;
}

/// A JWT with these claims under any head, signed with the server's secret.
pub(crate) fn headed(head: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(head), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

pub(crate) async fn the_type_of_a_token_is_what_it_says(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let buyer = app.active(&sale).await;
    let wait_token = buyer.wait_token.clone().unwrap();
    let account = |bearer: &str| app.get(&format!("/accounts/{}", buyer.user_id)).bearer_auth(bearer);
    let head = wait_token.split('.').next().unwrap();
    let head: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(head).unwrap()).unwrap();
    assert_eq!(head["typ"], "wait+jwt");

    // Everything that either kind says, signed with the very secret: the type alone decides.
    let mut claims = claims_of(&wait_token);
    claims["exp"] = json!(unix(600));
    asked(account(&headed(&json!({"typ": "JWT", "alg": "HS256"}), &claims)), 200).await;
    let typed = headed(&json!({"typ": "wait+jwt", "alg": "HS256"}), &claims);
    refused(account(&typed), 401, "UNAUTHENTICATED").await;
    // And Wait-Tokens have a key of their own, so that a right head does not help the secret's holder either.
    for forged in [headed(&head, &claims), headed(&head, &claims_of(&wait_token)), typed] {
        let buyer = Buyer { wait_token: Some(forged), ..buyer.clone() };
        refused(buyer.own(app.get("/queue")), 401, "WAIT_TOKEN_INVALID").await;
        ask(buyer.own(app.get(&sale.seats_path()))).await.sent_to_the_queue("WAIT_TOKEN_INVALID");
    }
}

pub(crate) async fn any_library_with_the_secret_makes_access_tokens(app: &TestApp) {
    let user_id = app.guest().await.user_id;
    let claims = json!({"sub": user_id, "exp": unix(600), "iss": "whoever", "aud": ["whatever"]});
    for head in [
        json!({"alg": "HS256", "typ": "JWT"}),
        json!({"typ": "JWT", "alg": "HS256"}),
        json!({"alg": "HS256"}),
        json!({"alg": "HS256", "typ": "at+jwt"}),
        json!({"alg": "HS256", "kid": "a name of its own"}),
    ] {
        let account = app.get(&format!("/accounts/{user_id}")).bearer_auth(headed(&head, &claims));
        asked(account, 200).await;
    }
}

pub(crate) async fn operators_calls_are_for_operators(app: &TestApp) {
    let user_id = app.guest().await.user_id;
    let roles = [None, Some("user"), Some("cashier"), Some("ADMIN"), Some("root"), Some("")];
    for (method, path, body) in every_call(user_id).into_iter().filter(|call| call.1.starts_with("/admin")) {
        for role in roles {
            let mut claims = json!({"sub": user_id, "exp": unix(600)});
            if let Some(role) = role {
                claims["role"] = json!(role);
            }
            let bearer = signed(&claims, Algorithm::HS256, SECRET);
            let mut request = app.request(method.clone(), &path).bearer_auth(bearer);
            if let Some(body) = &body {
                request = request.json(body);
            }
            refused(request, 403, "FORBIDDEN").await;
        }
    }
    asked(admin(app, Method::GET, "/admin/rooms"), 200).await;
    assert_eq!(sent(app.get("/concerts"), 200).await["items"], json!([]), "no concert was made");
}

pub(crate) async fn everybody_acts_for_themselves_only(app: &TestApp) {
    let (me, other) = (app.guest().await, app.guest().await);
    app.charge(&other, 500).await;
    let account = format!("/accounts/{}", other.user_id);
    for bearer in [me.access_token.clone(), token(Uuid::from_u128(7), Role::Admin)] {
        let body = json!({"userId": other.user_id, "reservationId": NOBODY});
        for request in [
            app.get(&account),
            app.get(&format!("{account}/entries")),
            app.post(&format!("{account}/charge"), &json!({"amount": 5})),
            app.post("/pay", &body),
        ] {
            refused(request.bearer_auth(&bearer), 403, "NOT_YOUR_RESOURCE").await;
        }
    }
    assert_eq!(crate::support::balance(app, &other).await, 500);
}
