//! The answer to a COMMIT is lost on its way, by a proxy that cuts the wire at that very message.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use frontrow_domain::unit_of_work::CommitError;
use frontrow_domain::{UnitOfWork, UserId};
use frontrow_infra::Storage;
use frontrow_infra::postgres::{Postgres, PostgresOptions};
use frontrow_testkit::postgres::{TestDatabase, database};
use futures_util::future::join_all;

use crate::MIGRATED;
use crate::fixture::{Fixture, at, money};

/// What happens to the next COMMIT that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server does it, and its answer is lost.
    Answer,
    /// It never reaches the server.
    Commit,
}

/// A wire to a server that can be cut.
#[derive(Clone)]
struct Wire {
    server: String,
    next: Arc<Mutex<Option<Cut>>>,
    cuts: Arc<AtomicUsize>,
}

impl Wire {
    /// Gives the wire, and the address of its near end. It ends with the test's process.
    fn to(server: &str) -> (Self, String) {
        let wire = Self { server: server.to_owned(), next: Arc::default(), cuts: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = wire.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.clone().carry(client);
            }
        });
        (wire, address)
    }

    fn cut(&self, cut: Cut) {
        *self.next.lock().unwrap() = Some(cut);
    }

    fn carry(self, client: TcpStream) {
        let server = TcpStream::connect(&self.server).unwrap();
        let (to_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let cut = Arc::new(Mutex::new(None));
        let cut_back = cut.clone();
        thread::spawn(move || self.carry_requests(client, server, &cut));
        thread::spawn(move || carry_answers(from_server, to_client, &cut_back));
    }

    fn carry_requests(&self, mut client: TcpStream, mut server: TcpStream, cut: &Mutex<Option<Cut>>) {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(length @ 1..) = client.read(&mut buffer) {
            let request = &buffer[..length];
            if request.windows(6).any(|text| text == b"COMMIT") {
                *cut.lock().unwrap() = self.next.lock().unwrap().take();
            }
            let now = *cut.lock().unwrap();
            self.cuts.fetch_add(usize::from(now.is_some()), Ordering::SeqCst);
            if now == Some(Cut::Commit) || server.write_all(request).is_err() {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
    }
}

fn carry_answers(mut server: TcpStream, mut client: TcpStream, cut: &Mutex<Option<Cut>>) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        if cut.lock().unwrap().is_some() || client.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

/// An adapter at the end of a wire.
struct Wired {
    database: TestDatabase,
    wire: Wire,
    fixture: Fixture,
}

async fn wired() -> Option<Wired> {
    let database = database(&MIGRATED).await?;
    let url = database.url();
    let server = url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let (wire, address) = Wire::to(&server);
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}sslmode=disable", url.replace(&server, &address));
    let postgres = Postgres::connect(&url, PostgresOptions::default()).await.unwrap();
    let fixture = Fixture::new(Storage::new(Arc::new(postgres)), ());
    Some(Wired { database, wire, fixture })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_found_out_and_done_once() {
    let Some(Wired { database, wire, fixture }) = wired().await else { return };
    for (n, cut) in (1..).zip([Cut::Answer, Cut::Commit, Cut::Answer]) {
        let user = fixture.id(UserId::new);
        wire.cut(cut);
        fixture.commit(fixture.charge_work(user, None, 5, at(1))).await.unwrap();
        assert_eq!(wire.cuts.load(Ordering::SeqCst), n, "the wire was cut");
        assert_eq!(fixture.account(user).await.value.balance, money(5));
        let entries = database.query_i64("SELECT count(*) FROM entries").await.unwrap();
        assert_eq!(usize::try_from(entries).unwrap(), n, "{cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_in_a_lost_batch_hears_what_became_of_it() {
    let Some(Wired { database: _database, wire, fixture }) = wired().await else { return };
    let room = fixture.default_room().await;
    for cut in [Cut::Answer, Cut::Commit] {
        wire.cut(cut);
        let works: Vec<UnitOfWork> =
            (0..50).map(|_| fixture.join_work(room.id, fixture.id(UserId::new), at(1))).collect();
        for outcome in join_all(works.into_iter().map(|work| fixture.commit(work))).await {
            outcome.unwrap();
        }
    }
    assert_eq!(wire.cuts.load(Ordering::SeqCst), 2);
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 100);
}

/// Giving up a place inserts nothing that could tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_without_a_witness_is_unknown() {
    let Some(Wired { database: _database, wire, fixture }) = wired().await else { return };
    let room = fixture.default_room().await;
    let waiting = fixture.join(room.id, fixture.id(UserId::new), at(1)).await;
    let left = fixture.token(waiting.id).await.try_map(|token| token.expire(at(2))).unwrap();
    wire.cut(Cut::Answer);
    let outcome = fixture.commit(UnitOfWork { queue_tokens: vec![left], ..Default::default() }).await;
    assert!(matches!(outcome, Err(CommitError::OutcomeUnknown(_))), "{outcome:?}");
    assert_eq!(fixture.in_room(room.id, at(1)).await.0, 0, "it did happen");
}
