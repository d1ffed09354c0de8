//! Nothing secret is in the log, however much is logged.

use std::io::{Read, Write};
use std::net::TcpStream;

use frontrow_testkit::app::{Database, id, sent};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::binary::{Serving, run};
use crate::{SECRET, url};

/// A token that was never issued: whoever tries one has perhaps mistyped a good one.
const FORGED: &str = "eyJhbGciOiJub25lIn0.bm90LWEtZ29vZC10b2tlbg.c2lnbmVkLWJ5LW5vYm9keQ";

/// What may not be told, and what it is.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    /// A token, and its signature alone: with it and a guess of the rest, it would be made again.
    fn token(&mut self, what: &'static str, token: &str) {
        let signature = token.rsplit('.').next().unwrap();
        assert!(signature.len() >= 16, "{what}: {token}");
        self.0.push((what, token.to_owned()));
        self.0.push((what, signature.to_owned()));
    }

    /// What of it a log tells, with the line.
    fn told<'a>(&self, log: &'a str) -> Vec<(&'static str, &'a str)> {
        let told = self.0.iter().map(|(what, secret)| {
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            line.map(|line| (*what, line))
        });
        told.flatten().collect()
    }
}

/// Somebody who buys everything there is, and tries what must fail.
struct Visit {
    client: Client,
    base: String,
    secrets: Secrets,
}

impl Visit {
    fn request(&self, method: Method, path: &str, bearer: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(bearer)
    }

    fn post(&self, path: &str, bearer: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path, bearer).json(body)
    }

    async fn purchase(&mut self, operator: &str) -> (String, String) {
        let concert = json!({"title": "A Concert", "venue": "A Hall", "room": {}});
        let concert = sent(self.post("/admin/concerts", operator, &concert), 201).await;
        let (concert_id, room_id) = (id(&concert, "concertId"), id(&concert, "roomId"));
        let section = json!({"section": "A", "grade": "R", "price": 100, "rows": 1, "seatsPerRow": 2});
        let date = json!({"startsAt": "2999-12-31T20:00:00Z", "sections": [section]});
        let dates = format!("/admin/concerts/{concert_id}/performanceDates");
        let date_id = id(&sent(self.post(&dates, operator, &date), 201).await, "performanceDateId");

        let session = sent(self.client.post(format!("{}/sessions", self.base)), 201).await;
        let (user_id, bearer) = (id(&session, "userId"), session["accessToken"].as_str().unwrap().to_owned());
        self.secrets.token("a guest's access token", &bearer);
        let entering = self.post("/queue", &bearer, &json!({"concertId": concert_id}));
        let entered = entering.send().await.unwrap();
        assert_eq!(entered.status(), 201);
        let wait_token = entered.headers()["Wait-Token"].to_str().unwrap().to_owned();
        self.secrets.token("a Wait-Token", &wait_token);
        let admit = format!("/admin/rooms/{room_id}/admit");
        sent(self.post(&admit, operator, &json!({"count": 1})), 200).await;

        let gated =
            |method, path: &str| self.request(method, path, &bearer).header("Wait-Token", &wait_token);
        sent(gated(Method::GET, "/queue"), 200).await;
        let seats = format!("/concerts/{concert_id}/performanceDates/{date_id}/seats");
        let seats = sent(gated(Method::GET, &seats), 200).await;
        let hold = json!({"performanceDateId": date_id, "seatIds": [seats["seats"][0]["seatId"]]});
        let held = sent(gated(Method::POST, "/reservations").json(&hold), 201).await;
        let charge = format!("/accounts/{user_id}/charge");
        let pay = json!({"userId": user_id, "reservationId": id(&held, "reservationId")});
        for (path, body) in [(charge.as_str(), json!({"amount": 500})), ("/pay", pay)] {
            for _ in 0..2 {
                sent(self.post(path, &bearer, &body).header("Idempotency-Key", path), 200).await;
            }
        }
        sent(self.request(Method::GET, "/admin/audit-log", operator), 200).await;
        (bearer, wait_token)
    }

    /// Requests that are refused, with good and forged tokens in all places.
    async fn mischief(&mut self, bearer: &str, wait_token: &str) {
        self.secrets.token("a forged token", FORGED);
        let text = format!("{{\"amount\": \"{bearer}\", \"userId\": \"{wait_token}\"");
        let wrong =
            json!({"userId": bearer, "reservationId": wait_token, "concertId": FORGED, "amount": bearer});
        for (bearer, wait_token) in [
            (bearer, FORGED),
            (FORGED, wait_token),
            (wait_token, bearer),
            (bearer, "\u{7f}"),
            (bearer, wait_token),
        ] {
            for (method, path) in [
                (Method::GET, "/queue"),
                (Method::DELETE, "/queue"),
                (Method::POST, "/queue"),
                (Method::POST, "/reservations"),
                (Method::POST, "/pay"),
                (Method::POST, "/accounts/x/charge"),
                (Method::GET, "/admin/rooms"),
                (Method::GET, "/nothing"),
                (Method::PUT, "/pay"),
            ] {
                let request = || {
                    let request =
                        self.request(method.clone(), path, bearer).header("Idempotency-Key", wait_token);
                    request.header("Wait-Token", wait_token)
                };
                for request in [
                    request().json(&wrong),
                    request().body(text.clone()),
                    request().body(vec![b'x'; 100_000]),
                ] {
                    if let Ok(request) = request.build() {
                        let status = self.client.execute(request).await.unwrap().status().as_u16();
                        assert!(status < 500, "{method} {path}: {status}");
                    }
                }
            }
        }
        // Heads that cannot be read.
        let address = self.base.strip_prefix("http://").unwrap().to_owned();
        for head in [
            format!(
                "GET /queue HTTP/1.1\r\nAuthorization: Bearer {bearer}\r\nWait-Token: {wait_token}\u{1}\r\n\r\n"
            ),
            format!("GET /queue HTTP/9\r\nAuthorization: Bearer {bearer}\r\n\r\n"),
            format!("Bearer {bearer}\r\n\r\n"),
        ] {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let _ = stream.read(&mut [0; 64]);
        }
    }
}

/// What a server writes to its log while somebody visits, and all that may not be in it.
async fn visited(database: &Database, format: &str) -> (String, Secrets) {
    let folder = tempdir().unwrap();
    let url = url(database);
    let env =
        [("FRONTROW_DATABASE_URL", url.as_str()), ("FRONTROW_SECRET", SECRET), ("FRONTROW_LOG", "trace")];
    let serving = Serving::start(folder.path(), &format!("serve --log-format {format}"), &env);
    let mut visit = Visit {
        client: Client::builder().no_proxy().build().unwrap(),
        base: format!("http://{}", serving.address),
        secrets: Secrets(vec![("the secret", SECRET.to_owned())]),
    };
    if let Some((_, password)) = url.split_once('@').and_then(|(head, _)| head.rsplit_once(':')) {
        visit.secrets.0.push(("the password of the database", password.to_owned()));
    }
    let operator = run(folder.path(), "token --role admin", &env).stdout.trim().to_owned();
    visit.secrets.token("an operator's access token", &operator);
    let (bearer, wait_token) = visit.purchase(&operator).await;
    visit.mischief(&bearer, &wait_token).await;
    let (code, log) = tokio::task::spawn_blocking(move || serving.stop()).await.unwrap();
    assert_eq!(code, Some(0));
    (log, visit.secrets)
}

async fn keeps_its_secrets(database: Option<Database>, format: &str) {
    let Some(database) = database else { return };
    let (log, secrets) = visited(&database, format).await;
    assert!(log.contains("TRACE"), "everything is logged");
    assert_eq!(secrets.told(&log), []);
    // The control: each of them would be found.
    for (what, secret) in &secrets.0 {
        let told = format!("{log}\n{{\"message\":\"got {secret}, said somebody\"}}\n");
        assert!(secrets.told(&told).iter().any(|(found, _)| found == what), "{what}");
    }
    for line in log.lines().filter(|_| format == "json") {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line.is_object());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_no_secret_on_sqlite() {
    for format in ["text", "json"] {
        keeps_its_secrets(Some(Database::sqlite()), format).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_no_secret_on_postgresql() {
    for format in ["text", "json"] {
        keeps_its_secrets(Database::postgres().await, format).await;
    }
}
