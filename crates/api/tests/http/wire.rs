//! What only a real connection shows.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use actix_web::{App, HttpServer, rt};

use crate::harness::Ports;

/// Sends the head, then the body in one go, and only then listens; as many clients do.
fn exchange(address: SocketAddr, head: &str, body: &[u8]) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(body).unwrap();
    let _ = connection.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

#[actix_web::test]
async fn a_client_that_sends_too_much_still_hears_why() {
    let state = Ports::new().state();
    let server =
        HttpServer::new(move || App::new().app_data(state.clone()).configure(frontrow_api::configure))
            .workers(1)
            .disable_signals()
            // Left to itself, the server lingers for this long after an early answer; no client is to depend on that.
            .client_disconnect_timeout(Duration::ZERO)
            .bind(("127.0.0.1", 0))
            .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    rt::spawn(server);
    let client = thread::spawn(move || {
        let head = |target: &str, more: &str| {
            format!(
                "POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\nConnection: close\r\n{more}\r\n"
            )
        };
        for bytes in [64 * 1024 + 1, 1 << 20, 10 << 20] {
            let body = vec![b'x'; bytes];
            let sized = format!("Content-Length: {bytes}\r\n");
            let answer = exchange(address, &head("/pay", &sized), &body);
            assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("PAYLOAD_TOO_LARGE"), "{answer}");
            let answer = exchange(address, &head("/nothing", &sized), &body);
            assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
            let answer = exchange(address, &head("/concerts", &sized), &body);
            assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
            let mut chunked = format!("{bytes:x}\r\n").into_bytes();
            chunked.extend(&body);
            chunked.extend(b"\r\n0\r\n\r\n");
            let answer = exchange(address, &head("/pay", "Transfer-Encoding: chunked\r\n"), &chunked);
            assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        }
        let head = "HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = exchange(address, head, b"");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "no body: {answer}");
    });
    while !client.is_finished() {
        rt::time::sleep(Duration::from_millis(10)).await;
    }
    handle.stop(false).await;
    client.join().unwrap();
}
