//! A log that cannot be written costs lines and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::time::{Instant, sleep};

use crate::binary::{Killed, Serving, command, run, start};

const LONG: Duration = Duration::from_secs(60);

fn client() -> Client {
    Client::builder().no_proxy().timeout(LONG).build().unwrap()
}

/// Waits until a server answers that it is ready.
pub(crate) async fn ready(address: &str) {
    let deadline = Instant::now() + LONG;
    let is_ready = |answer: &Response| answer.status() == 200;
    while !client().get(format!("http://{address}/readyz")).send().await.is_ok_and(|answer| is_ready(&answer))
    {
        assert!(Instant::now() < deadline, "it is not ready");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn posted(address: &str, path: &str, bearer: &str, body: Value) -> Response {
    let request = client().post(format!("http://{address}{path}")).bearer_auth(bearer).json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201, "{path}");
    response
}

/// Somebody in line.
struct Joiner {
    access_token: String,
    wait_token: String,
}

impl Joiner {
    async fn join(address: &str, concert: &Value) -> Self {
        let session: Value = posted(address, "/sessions", "", json!({})).await.json().await.unwrap();
        let access_token = session["accessToken"].as_str().unwrap().to_owned();
        let joined =
            posted(address, "/queue", &access_token, json!({"concertId": concert["concertId"]})).await;
        let wait_token = joined.headers()["Wait-Token"].to_str().unwrap().to_owned();
        Self { access_token, wait_token }
    }

    async fn is_admitted(&self, address: &str) {
        let deadline = Instant::now() + LONG;
        loop {
            let asked = client().get(format!("http://{address}/queue")).bearer_auth(&self.access_token);
            let asked = asked.header("Wait-Token", &self.wait_token).send().await.unwrap();
            let place: Value = asked.json().await.unwrap();
            if place["status"] == "ACTIVE" {
                return;
            }
            assert!(Instant::now() < deadline, "not admitted: {place}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Each admission is a line of the log: three joiners are admitted, one a second, and the server stops in order.
async fn admits_three_and_stops(folder: &Path, (mut server, address): (Killed, String)) {
    ready(&address).await;
    let token = run(folder, "token --role admin", &[]).stdout;
    let room = json!({"admitBatch": 1, "admitIntervalSeconds": 1});
    let concert = json!({"title": "A Concert", "venue": "A Hall", "room": room});
    let concert = posted(&address, "/admin/concerts", token.trim(), concert).await.json().await.unwrap();
    let mut joiners = Vec::new();
    for _ in 0..3 {
        joiners.push(Joiner::join(&address, &concert).await);
    }
    for joiner in joiners {
        joiner.is_admitted(&address).await;
    }
    ready(&address).await;
    server.signal("-TERM");
    assert_eq!(server.wait("serve"), Some(0));
}

fn until_listening(reader: PipeReader) -> BufReader<PipeReader> {
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it does not listen");
    }
    reader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_has_gone_stops_nothing() {
    let folder = tempdir().unwrap();
    let (reader, writer) = pipe().unwrap();
    let started = start(command(folder.path(), "serve", &[]), writer);
    drop(until_listening(reader));
    admits_three_and_stops(folder.path(), started).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_stops_nothing() {
    let folder = tempdir().unwrap();
    let full: File = OpenOptions::new().write(true).open("/dev/full").unwrap();
    admits_three_and_stops(folder.path(), start(command(folder.path(), "serve", &[]), full)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_has_stalled_stops_nothing() {
    let folder = tempdir().unwrap();
    let (reader, writer) = pipe().unwrap();
    // Some hundred lines fill a pipe.
    let started = start(command(folder.path(), "serve", &[("FRONTROW_LOG", "trace")]), writer);
    let stalled = until_listening(reader);
    admits_three_and_stops(folder.path(), started).await;
    drop(stalled);
}

/// A refused request is a warning, and there may be thousands a second.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_has_a_line_a_second_and_says_how_many_there_were() {
    const REFUSED: usize = 400;
    let folder = tempdir().unwrap();
    let serving = Serving::start(folder.path(), "serve", &[("NO_COLOR", "1")]);
    let session = posted(&serving.address, "/sessions", "", json!({})).await.json::<Value>().await.unwrap();
    let path = format!("/accounts/{}/charge", session["userId"].as_str().unwrap());
    std::fs::rename(folder.path().join("frontrow.db"), folder.path().join("away.db")).unwrap();
    let (client, began) = (client(), Instant::now());
    for _ in 0..REFUSED {
        let charge = client.post(format!("http://{}{path}", serving.address)).json(&json!({"amount": 5}));
        let charge = charge.bearer_auth(session["accessToken"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(charge.status(), 503);
        assert_eq!(
            client.get(format!("http://{}/readyz", serving.address)).send().await.unwrap().status(),
            503
        );
    }
    // The last report comes within a second.
    sleep(Duration::from_millis(2_500)).await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let (code, log) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
    // The passes go on to write, and fail, meanwhile.
    for (what, at_least) in [
        ("mapping: storage is unavailable", REFUSED),
        ("not ready", REFUSED),
        ("a batch of commits failed", 2),
    ] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(what)).collect();
        assert!((1..=seconds).contains(&lines.len()), "{what}: {} lines in {seconds} s", lines.len());
        let suppressed =
            |line: &&str| line.split_once("suppressed=").and_then(|(_, n)| n.trim().parse::<usize>().ok());
        let counted: usize = lines.iter().filter_map(suppressed).sum();
        assert!(counted + lines.len() >= at_least, "{what}: {counted} were counted\n{log}");
    }
}
