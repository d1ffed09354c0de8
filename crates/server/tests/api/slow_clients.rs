//! Clients that are too slow, too large or too many, on bare sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use frontrow::app::Settings;
use frontrow::http::ClientRules;
use frontrow_api::RateRules;
use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, settings};
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::task::spawn_blocking;

use crate::support::{asked, refused};

/// How long clients may take here.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest a cut may be in coming on a busy machine. Far below what the clients here would take.
const CUT_WITHIN: Duration = Duration::from_secs(60);

/// A server that gives clients little time, and its own work as much as it takes.
async fn impatient(database: &Database) -> TestApp {
    with(database, ClientRules { timeout: TIMEOUT, ..ClientRules::default() }).await
}

/// A server that gives its own work little time as well: it is done with what is asked here at once.
async fn hasty(database: &Database) -> TestApp {
    let work_within = 3 * TIMEOUT;
    with(database, ClientRules { timeout: TIMEOUT, work_within, ..ClientRules::default() }).await
}

async fn with(database: &Database, clients: ClientRules) -> TestApp {
    TestApp::start(Settings { clients, ..settings(database) }).await
}

fn connect(app: &TestApp) -> TcpStream {
    let url = app.url("");
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(CUT_WITHIN)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Whether the other side is gone, and what it said before.
fn read_to_the_end(stream: &mut TcpStream) -> (bool, String) {
    let (mut said, mut buffer) = (Vec::new(), [0; 65_536]);
    let gone = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => said.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    };
    (gone, String::from_utf8_lossy(&said).into_owned())
}

/// Sends the start, and then a byte at a time for as long as anybody takes it; what is heard meanwhile, and how long it took.
fn drip(mut stream: TcpStream, start: String, more: u8) -> (String, Duration) {
    let begin = Instant::now();
    stream.write_all(start.as_bytes()).unwrap();
    let mut answers = stream.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        while begin.elapsed() < 2 * CUT_WITHIN && stream.write_all(&[more]).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let (gone, said) = read_to_the_end(&mut answers);
    assert!(gone, "it still listens after {:?}; it said {said}", begin.elapsed());
    let took = begin.elapsed();
    dripping.join().unwrap();
    (said, took)
}

fn head(buyer: &Buyer, request: &str, more: &str) -> String {
    format!(
        "{request} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n{more}\r\n",
        buyer.access_token
    )
}

pub(crate) async fn a_head_that_drips_is_cut(database: &Database) {
    let app = impatient(database).await;
    let stream = connect(&app);
    let start = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned();
    let (said, took) = spawn_blocking(move || drip(stream, start, b'x')).await.unwrap();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    assert!(took >= TIMEOUT / 2, "whoever is within the time is not cut: {took:?}");
    app.stop().await;
}

pub(crate) async fn a_later_head_that_drips_is_cut(database: &Database) {
    let app = hasty(database).await;
    let first = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let start = format!("{first}GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let mut answered = 0;
    for _ in 0..5 {
        let (stream, start) = (connect(&app), start.clone());
        let (said, _) = spawn_blocking(move || drip(stream, start, b'x')).await.unwrap();
        answered = said.matches("HTTP/1.1 200").count();
        // On a machine that stands still for so long, the first one may be too late as well.
        if !said.starts_with("HTTP/1.1 408") {
            break;
        }
    }
    assert_eq!(answered, 1, "the first one was whole");
    app.stop().await;
}

/// It would be read for far longer than is waited here.
pub(crate) async fn whoever_calls_too_often_is_told_before_the_body_has_come(database: &Database) {
    let rates = RateRules { per_address: Some("1/m".parse().unwrap()), ..RateRules::default() };
    let app = with(database, ClientRules { rates, timeout: 10 * CUT_WITHIN, ..ClientRules::default() }).await;
    asked(app.get("/concerts"), 200).await;
    let mut stream = connect(&app);
    let said = spawn_blocking(move || {
        stream.write_all(b"POST /pay HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{").unwrap();
        let mut said = [0; 12];
        stream.read_exact(&mut said).map(|()| String::from_utf8_lossy(&said).into_owned())
    });
    assert_eq!(said.await.unwrap().unwrap(), "HTTP/1.1 429");
    app.stop().await;
}

pub(crate) async fn a_body_that_drips_is_cut_and_changes_nothing(database: &Database) {
    let app = hasty(database).await;
    let buyer = app.guest().await;
    let charge = format!("POST /accounts/{}/charge", buyer.user_id);
    let sized = head(&buyer, &charge, "Content-Length: 5000\r\n") + "{\"amount\":5";
    let chunked = head(&buyer, &charge, "Transfer-Encoding: chunked\r\n") + "1388\r\n{\"amount\":5";
    for start in [sized, chunked] {
        let stream = connect(&app);
        let (said, took) = spawn_blocking(move || drip(stream, start, b' ')).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 408") && said.contains("REQUEST_TIMEOUT"), "{said}");
        assert!(took >= TIMEOUT / 2, "{took:?}");
    }
    assert_eq!(crate::support::balance(&app, &buyer).await, 0);
    app.stop().await;
}

async fn wide_sale(app: &TestApp) -> (Sale, Buyer) {
    let sale = app.sale(json!({}), 200, 250).await;
    let buyer = app.active(&sale).await;
    (sale, buyer)
}

/// Whoever asks for much and reads nothing of it would hold its memory for ever.
pub(crate) async fn who_does_not_read_is_cut(database: &Database) {
    let app = impatient(database).await;
    let (sale, buyer) = wide_sale(&app).await;
    let whole = asked(buyer.own(app.get(&sale.seats_path())), 200).await.body.len();
    let wait_token = buyer.wait_token.clone().unwrap();
    let asking =
        head(&buyer, &format!("GET {}", sale.seats_path()), &format!("Wait-Token: {wait_token}\r\n"));
    let mut stream = connect(&app);
    let (gone, read) = spawn_blocking(move || {
        for _ in 0..8 {
            stream.write_all(asking.as_bytes()).unwrap();
        }
        std::thread::sleep(TIMEOUT * 6);
        let (gone, said) = read_to_the_end(&mut stream);
        (gone, said.len())
    })
    .await
    .unwrap();
    assert!(whole > 2_000_000, "{whole} bytes fit into the buffers of the kernel");
    assert!(gone && read < 8 * whole, "{read} of {} bytes came all the same", 8 * whole);
    app.stop().await;
}

/// The control: whoever reads slowly but steadily gets all of it.
pub(crate) async fn who_reads_steadily_gets_all(database: &Database) {
    let app = impatient(database).await;
    let (sale, buyer) = wide_sale(&app).await;
    let whole = asked(buyer.own(app.get(&sale.seats_path())), 200).await.body.len();
    let more = format!("Wait-Token: {}\r\nConnection: close\r\n", buyer.wait_token.clone().unwrap());
    let asking = head(&buyer, &format!("GET {}", sale.seats_path()), &more);
    let mut stream = connect(&app);
    let read = spawn_blocking(move || {
        stream.write_all(asking.as_bytes()).unwrap();
        let (mut read, mut buffer) = (0, vec![0; 256 * 1_024]);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return read,
                more => read += more,
            }
            std::thread::sleep(TIMEOUT / 20);
        }
    })
    .await
    .unwrap();
    assert!(read > whole, "{read} of {whole} bytes and a head");
    app.stop().await;
}

/// The most unread answers of a caller.
const UNREAD: usize = 16;

/// Asks for the seats in one of the three ways in which all of them are sent, on a connection with a small receive buffer,
/// and reads only the status of the answer.
async fn asking_for_all_seats(app: &TestApp, sale: &Sale, buyer: &Buyer, way: usize) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    // A set size is not adapted: what is unread stays in the server.
    socket.set_recv_buffer_size(8_192).unwrap();
    let server = app.url("").strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(server).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(CUT_WITHIN)).unwrap();
    let query = ["", "?status=all", "?since=0"][way % 3];
    let wait_token = format!("Wait-Token: {}\r\n", buyer.wait_token.clone().unwrap());
    let asking = head(buyer, &format!("GET {}{query}", sale.seats_path()), &wait_token);
    let asked = spawn_blocking(move || {
        stream.write_all(asking.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (stream, String::from_utf8_lossy(&status).into_owned())
    });
    asked.await.unwrap()
}

pub(crate) async fn unread_answers_of_a_caller_are_bounded(database: &Database) {
    let app = with(database, ClientRules { timeout: 10 * CUT_WITHIN, ..ClientRules::default() }).await;
    let (sale, buyer) = wide_sale(&app).await;
    let other = app.active(&sale).await;

    // The control: answers that are read are not counted.
    for way in 0..2 * UNREAD {
        let query = ["?status=all", "?since=0"][way % 2];
        asked(buyer.own(app.get(&format!("{}{query}", sale.seats_path()))), 200).await;
    }

    let (mut unread, mut statuses) = (Vec::new(), Vec::new());
    for way in 0..40 {
        let (stream, status) = asking_for_all_seats(&app, &sale, &buyer, way).await;
        unread.push(stream);
        statuses.push(status);
    }
    let expected = (0..40).map(|n| if n < UNREAD { "HTTP/1.1 200" } else { "HTTP/1.1 429" });
    assert_eq!(statuses, expected.collect::<Vec<_>>());
    let refusal = asked(buyer.own(app.get(&sale.seats_path())), 429).await;
    assert_eq!(refusal.json()["code"], "RATE_LIMITED");
    assert_eq!(refusal.header("Retry-After"), Some("1"));

    let own_dates = format!("/concerts/{}/performanceDates", sale.concert_id);
    asked(buyer.own(app.get(&own_dates)), 200).await;
    let (_stream, status) = asking_for_all_seats(&app, &sale, &other, 0).await;
    assert_eq!(status, "HTTP/1.1 200", "another caller is served");

    drop(unread);
    let begin = Instant::now();
    while asking_for_all_seats(&app, &sale, &buyer, 0).await.1 != "HTTP/1.1 200" {
        assert!(begin.elapsed() < CUT_WITHIN, "answers of ended connections still count");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.stop().await;
}

/// Sends this on a connection of its own, and reads the start of the answer.
pub(crate) async fn ask_bare(app: &TestApp, request: &str) -> (TcpStream, String) {
    let (mut stream, request) = (connect(app), request.to_owned());
    let asked = spawn_blocking(move || {
        // It may hang up before it has read all of it.
        let _ = stream.write_all(request.as_bytes());
        let mut start = [0; 12];
        let _ = stream.read_exact(&mut start);
        (stream, String::from_utf8_lossy(&start).into_owned())
    });
    asked.await.unwrap()
}

pub(crate) async fn heads_have_limits(app: &TestApp) {
    let long = "x".repeat(200_000);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    for (what, request, expected) in [
        ("a long header", format!("GET /concerts HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), "431"),
        ("many headers", format!("GET /concerts HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "431"),
        ("an endless URL", format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "431"),
        ("a long URL", format!("GET /concerts?{} HTTP/1.1\r\nHost: x\r\n\r\n", &long[..9_000]), "414"),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", &long[..9_000]), "414"),
        ("no HTTP", "\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        ("two lengths", "POST /pay HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".into(), "400"),
        (
            "a length and chunks",
            "POST /pay HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            "400",
        ),
    ] {
        let (_, said) = ask_bare(app, &request).await;
        assert_eq!(said, format!("HTTP/1.1 {expected}"), "{what}");
    }
    let answer = app.get(&format!("/concerts?{}", &long[..9_000]));
    refused(answer, 414, "URI_TOO_LONG").await;
    asked(app.get(&format!("/concerts?x={}", &long[..7_000])), 200).await;
}

/// A server may ignore that somebody would rather speak something else (RFC 9110, 7.8).
pub(crate) async fn who_wants_another_protocol_is_answered_at_once(app: &TestApp) {
    let buyer = app.guest().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let post = format!("POST /accounts/{}/charge", buyer.user_id);
    let charge = |more: &str, body: &str| head(&buyer, &post, &format!("{upgrade}{more}\r\n")) + body;
    let sized = charge("Content-Length: 12", "{\"amount\":5}");
    let large = charge("Content-Length: 70000", &" ".repeat(70_000));
    let chunked = charge("Transfer-Encoding: chunked", "c\r\n{\"amount\":9}\r\n0\r\n\r\n");
    let begin = Instant::now();
    for (request, expected) in [
        (head(&buyer, "GET /healthz", upgrade), "200"),
        (head(&buyer, "GET /concerts", "Upgrade: WebSocket\r\n"), "200"),
        (head(&buyer, "GET /concerts", "Connection: Upgrade\r\nUpgrade: h2c\r\n"), "200"),
        (head(&buyer, "GET /nowhere", upgrade), "404"),
        (head(&buyer, "PUT /concerts", upgrade), "405"),
        (head(&buyer, "CONNECT /concerts", ""), "405"),
        (head(&buyer, "CONNECT x:80", ""), "404"),
        (head(&buyer, &post, upgrade), "400"),
        (sized.clone(), "200"),
        (large, "413"),
        (chunked, "200"),
    ] {
        let (_, start) = ask_bare(app, &request).await;
        assert_eq!(start, format!("HTTP/1.1 {expected}"), "{}", &request[..request.len().min(500)]);
    }
    // What follows may be of the other protocol: it is not taken for a request, nor for more of the body.
    let (mut stream, start) = ask_bare(app, &(sized + "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let (gone, rest) = spawn_blocking(move || read_to_the_end(&mut stream)).await.unwrap();
    assert_eq!((start.as_str(), gone), ("HTTP/1.1 200", true));
    assert!(!rest.contains("HTTP/1.1"), "{rest}");
    assert_eq!(crate::support::balance(app, &buyer).await, 5 + 9 + 5);
    assert!(begin.elapsed() < ClientRules::default().timeout, "nobody waited for more");
}

pub(crate) async fn deep_bodies_are_refused(app: &TestApp) {
    let buyer = app.guest().await;
    let charge = format!("/accounts/{}/charge", buyer.user_id);
    let post = |path: &str, body: String| {
        let request = app.request(reqwest::Method::POST, path).header("Content-Type", "application/json");
        buyer.own(request.body(body))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for levels in [40, 9_000] {
            let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            for body in [
                deep.clone(),
                format!("{{\"amount\":{deep}}}"),
                format!("{{\"amount\":5,\"unknown\":{deep}}}"),
                format!("{{\"amount\":5,\"unknown\":{}", open.repeat(levels)),
            ] {
                for path in ["/queue", &charge, "/pay", "/reservations"] {
                    let answer = crate::support::ask(post(path, body.clone())).await;
                    // Reservations are gated: there, the missing Wait-Token comes first.
                    let expected = if path == "/reservations" { 301 } else { 400 };
                    assert_eq!(answer.status, expected, "{path}: {levels} levels");
                }
            }
        }
    }
    for number in ["9".repeat(60_000), format!("1e{}", "9".repeat(1_000)), "-".to_owned() + &"9".repeat(400)]
    {
        let answer = crate::support::ask(post(&charge, format!("{{\"amount\":{number}}}"))).await;
        assert!([400, 422].contains(&answer.status), "{}", answer.status);
    }
    assert_eq!(crate::support::balance(app, &buyer).await, 0);
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";

/// The start of the answer, if one arrives in time.
fn answers(mut stream: &TcpStream, within: Duration) -> Option<[u8; 12]> {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).is_ok().then_some(start)
}

pub(crate) async fn connections_beyond_the_limit_wait(database: &Database) {
    let (max_connections, max_connections_per_address) = (Some(2), Some(2));
    let clients = ClientRules { max_connections, max_connections_per_address, ..ClientRules::default() };
    let app = with(database, clients).await;
    let held: Vec<TcpStream> = (0..2).map(|_| connect(&app)).collect();
    for mut stream in &held {
        stream.write_all(HEALTH).unwrap();
        assert_eq!(answers(stream, CUT_WITHIN), Some(*b"HTTP/1.1 200"));
    }
    let mut third = connect(&app);
    third.write_all(HEALTH).unwrap();
    assert_eq!(answers(&third, Duration::from_secs(2)), None, "it waits");
    drop(held);
    assert_eq!(answers(&third, CUT_WITHIN), Some(*b"HTTP/1.1 200"), "until another one goes");
    drop(third);
    app.stop().await;
}

/// A connection of a client at this address, on which a request was sent.
async fn asking_from(app: &TestApp, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), 0)).unwrap();
    let server = app.url("").strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(server).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    // A connection over the cap may be gone already.
    let _ = stream.write_all(HEALTH);
    stream
}

/// A server for four connections, of which one address has two; two more were asked for.
async fn crowded_by_one(database: &Database, per_address: usize) -> (TestApp, Vec<TcpStream>) {
    let (max_connections, max_connections_per_address) = (Some(4), Some(per_address));
    let clients = ClientRules { max_connections, max_connections_per_address, ..ClientRules::default() };
    let app = with(database, clients).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let stream = asking_from(&app, 1).await;
        if answers(&stream, CUT_WITHIN).is_some() {
            held.push(stream);
        }
    }
    (app, held)
}

pub(crate) async fn an_address_cannot_take_all_connections(database: &Database) {
    let (app, held) = crowded_by_one(database, 2).await;
    assert_eq!(held.len(), 2, "connections over the cap are closed");
    let other = asking_from(&app, 2).await;
    assert_eq!(answers(&other, CUT_WITHIN), Some(*b"HTTP/1.1 200"), "another address is served");
    drop(held);
    let begin = Instant::now();
    while answers(&asking_from(&app, 1).await, CUT_WITHIN).is_none() {
        assert!(begin.elapsed() < CUT_WITHIN, "ended connections still count");
    }
    drop(other);
    app.stop().await;

    // The control: without an effective cap the other address waits.
    let (app, held) = crowded_by_one(database, 4).await;
    assert_eq!(held.len(), 4);
    let other = asking_from(&app, 2).await;
    assert_eq!(answers(&other, Duration::from_secs(2)), None);
    drop((held, other));
    app.stop().await;
}

pub(crate) async fn a_connection_that_sends_nothing_is_cut(database: &Database) {
    let app = with(database, ClientRules::default()).await;
    let mut silent = connect(&app);
    let begin = Instant::now();
    let (gone, said) = spawn_blocking(move || read_to_the_end(&mut silent)).await.unwrap();
    assert!(gone, "it is still open after {:?}", begin.elapsed());
    assert!(begin.elapsed() >= Duration::from_secs(4) && said.is_empty(), "{:?}: {said}", begin.elapsed());
    app.stop().await;
}

pub(crate) async fn trusted_proxies_may_hold_connections(database: &Database) {
    let trusted_proxies = "127.0.0.1".parse().unwrap();
    let rates = RateRules { trusted_proxies, ..RateRules::default() };
    let max_connections_per_address = Some(1);
    let clients = ClientRules { rates, max_connections_per_address, ..ClientRules::default() };
    let app = with(database, clients).await;
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(&app)).collect();
    tokio::time::sleep(Duration::from_secs(8)).await;
    for stream in &mut held {
        stream.write_all(HEALTH).unwrap();
        assert_eq!(answers(stream, CUT_WITHIN), Some(*b"HTTP/1.1 200"), "idle for more than 5 s");
    }
    drop(held);
    app.stop().await;
}
