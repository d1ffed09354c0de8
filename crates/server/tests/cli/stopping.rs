//! How long the binary takes to stop, whatever clients do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::binary::Serving;

/// Well below the 10 s that requests have which are worked on, for a busy machine.
const STOPS_WITHIN: Duration = Duration::from_secs(8);

/// A client that has sent this, and sends nothing more.
fn sent(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// What the server says until the connection ends.
fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

/// The beginning of a guest's charge.
async fn charge(address: &str) -> String {
    let client = Client::builder().no_proxy().build().unwrap();
    let session = client.post(format!("http://{address}/sessions")).send().await.unwrap();
    let session: Value = session.json().await.unwrap();
    let (user, token) = (session["userId"].as_str().unwrap(), session["accessToken"].as_str().unwrap());
    format!(
        "POST /accounts/{user}/charge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\n"
    )
}

/// Takes the write lock of the database, so that a write is worked on for so long.
fn locked(folder: &Path, time: Duration) -> thread::JoinHandle<()> {
    let path = folder.join("frontrow.db");
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").unwrap();
    thread::spawn(move || {
        thread::sleep(time);
        connection.batch_execute("ROLLBACK").unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_requests_delay_the_stop_by_5_seconds_at_most() {
    let folder = tempdir().unwrap();
    let serving = Serving::start(folder.path(), "serve", &[]);
    let address = serving.address.clone();
    let (half, whole) = (charge(&address).await, charge(&address).await);
    let half_head = sent(&address, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half");
    let half_body = sent(&address, &format!("{half}Content-Length: 100\r\n\r\n{{"));
    let half_chunks = sent(&address, &format!("{half}Transfer-Encoding: chunked\r\n\r\n5\r\n{{"));
    let idle = sent(&address, "");
    let lock = locked(folder.path(), Duration::from_millis(2_500));
    let body = json!({"amount": 5}).to_string();
    let worked_on = sent(&address, &format!("{whole}Content-Length: {}\r\n\r\n{body}", body.len()));
    thread::sleep(Duration::from_millis(1_000));

    let begin = Instant::now();
    let (code, log) = tokio::task::spawn_blocking(move || serving.stop()).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < STOPS_WITHIN, "it took {took:?}");
    lock.join().unwrap();
    let worked_on = rest(worked_on);
    assert!(worked_on.starts_with("HTTP/1.1 200") && worked_on.contains("\"balance\":5"), "{worked_on}");
    for late in [half_body, half_chunks] {
        let said = rest(late);
        assert!(said.starts_with("HTTP/1.1 408") && said.contains("REQUEST_TIMEOUT"), "{said}");
    }
    assert_eq!((rest(half_head), rest(idle)), (String::new(), String::new()));
}
