//! Forged tokens over HTTP: what the parsers of headers and the routes make of them. Each kind of token is refused with
//! its own answer, and nothing fails. `crates/infra/tests/forge.rs` tries far more of them on the verifiers alone.

use frontrow_domain::ports::Role;
use frontrow_testkit::app::{Buyer, TestApp, token};
use frontrow_testkit::forge::Forger;
use reqwest::RequestBuilder;
use reqwest::header::HeaderValue;
use serde_json::json;
use uuid::Uuid;

use crate::identity::{headed, unix};
use crate::support::ask;

/// How many forgeries are tried.
const FORGERIES: usize = 300;
/// Where their numbers begin.
const SEED: u64 = 4;

const ED25519_PUBLIC: &str = include_str!("../../../infra/src/identity/test_keys/ed25519_public.pem");
const FORGERS: &str = include_str!("../../../infra/src/identity/test_keys/ed25519_other_private.pem");

/// A request with this text in a header; `None` where no header can carry it.
fn with(request: RequestBuilder, header: &str, text: &str) -> Option<RequestBuilder> {
    Some(request.header(header, HeaderValue::from_bytes(text.as_bytes()).ok()?))
}

pub(crate) async fn forged_tokens_open_nothing(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (mine, other) = (app.active(&sale).await, app.active(&sale).await);
    let operator = token(Uuid::from_u128(1), Role::Admin);
    let good = [&mine, &other].map(|buyer| [Some(buyer.access_token.clone()), buyer.wait_token.clone()]);
    let good = good.into_iter().flatten().flatten().chain([operator]).collect();
    let worthless = [("JWT", -1), ("wait+jwt", 600)].map(|(typ, seconds)| {
        let claims = json!({"sub": mine.user_id, "role": "admin", "exp": unix(seconds)});
        headed(&json!({"typ": typ, "alg": "HS256"}), &claims)
    });
    let forger = Forger::new(SEED, good, worthless.into(), &[ED25519_PUBLIC], &[FORGERS]);
    let bare = Buyer { wait_token: None, ..mine.clone() };
    let mut tried = 0;
    for forgery in forger.forgeries(0) {
        let (case, text) = (forgery.case, forgery.text.as_str());
        // A header's value is trimmed, and one with nothing in it is none.
        if forger.is_issued(text.trim()) || text.trim().is_empty() {
            continue;
        }
        let bearer = format!("Bearer {text}");
        let own = |path: &str| bare.own(app.get(path));
        let (Some(account), Some(rooms), Some(place), Some(seats)) = (
            with(app.get(&format!("/accounts/{}", mine.user_id)), "Authorization", &bearer),
            with(app.get("/admin/rooms"), "Authorization", &bearer),
            with(own("/queue"), "Wait-Token", text),
            with(own(&sale.seats_path()), "Wait-Token", text),
        ) else {
            continue;
        };
        let context = format!("seed {SEED}, case {case} {:?}", forgery.ways);
        for (request, status, code) in [
            (account, 401, "UNAUTHENTICATED"),
            (rooms, 401, "UNAUTHENTICATED"),
            (place, 401, "WAIT_TOKEN_INVALID"),
            (seats, 301, "WAIT_TOKEN_INVALID"),
        ] {
            let answer = ask(request).await;
            assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{context}");
        }
        tried += 1;
        if tried == FORGERIES {
            break;
        }
    }
    // The good ones are as good as before.
    assert_eq!(ask(mine.own(app.get(&sale.seats_path()))).await.status, 200);
}
