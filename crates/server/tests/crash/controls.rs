//! The checks themselves: what they are there to find is found.

use std::io::{Read, Write, copy, sink};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::panic::AssertUnwindSafe;
use std::thread;
use std::time::Duration;

use frontrow_testkit::app::{Database, Sale};
use frontrow_testkit::postgres::Cluster;
use futures_util::FutureExt;
use reqwest::Method;
use serde_json::json;
use uuid::{NoContext, Timestamp, Uuid};

use crate::check::{Differences, check};
use crate::crowd::{Api, Crowd, OnSale, newcomer};
use crate::told::{Answer, Notes, Told, Tries};
use crate::trial::{Account, Trial, audit, say};

/// When tries are sent here, since 1970.
const SENT: Duration = Duration::from_millis(1_764_000_000_000);

/// An answer to a payment that was decided upon a millisecond before the try was sent, or with it.
fn answer(replayed: bool, decided: Duration) -> Told {
    let at = Timestamp::from_unix(NoContext, decided.as_secs(), decided.subsec_nanos());
    let body = json!({"reservationId": Uuid::nil(), "paymentId": Uuid::new_v7(at)});
    Told::Answer(Answer { status: 200, replayed, wait_token: None, body })
}

/// Whoever was told that nothing was changed, and then gets the answer of the first try, was told the untruth.
#[test]
fn an_effect_that_was_denied_is_noticed() {
    let noted = |tries: &[Told]| {
        let mut noted = Tries::default();
        tries.iter().try_for_each(|told| noted.note(SENT, told))
    };
    let before = SENT - Duration::from_millis(1);
    assert!(noted(&[Told::Unavailable, answer(true, before)]).is_err());
    assert!(noted(&[Told::NotSent, Told::Unavailable, answer(true, before)]).is_err());
    noted(&[Told::Unavailable, answer(false, SENT)]).unwrap();
    noted(&[Told::Unavailable, Told::Unknown, answer(true, before)]).unwrap();
    noted(&[Told::Unknown, Told::Unavailable, answer(false, SENT)]).unwrap();
    // Its own COMMIT was lost, and looked up.
    noted(&[Told::Unavailable, answer(true, SENT)]).unwrap();
}

const INTERNAL: &str = "500 Internal Server Error\r\nRetry-After: 1\r\n\r\n{\"code\":\"INTERNAL\"}";
const AWAY: &str = "503 Service Unavailable\r\nRetry-After: 1\r\n\r\n{\"code\":\"UNAVAILABLE\"}";
const AWAY_FOR_EVER: &str = "503 Service Unavailable\r\n\r\n{\"code\":\"UNAVAILABLE\"}";
const AWAY_FOR_NO_TIME: &str = "503 Service Unavailable\r\nRetry-After: 0\r\n\r\n{\"code\":\"UNAVAILABLE\"}";

/// For how long a service that is no good is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// A service that does this with every connection, until the test's process ends.
fn service(answer: impl Fn(TcpStream) + Copy + Send + 'static) -> Api {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = Api::new(format!("http://{}", listener.local_addr().unwrap()));
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || answer(connection));
        }
    });
    api
}

/// A service that says the same to everybody.
fn saying(answer: &'static str) -> Api {
    service(move |mut connection| {
        let _ = connection.read(&mut [0; 4_096]);
        let _ = write!(connection, "HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
        let _ = connection.shutdown(Shutdown::Write);
        // What is closed before everything was read loses its answer.
        let _ = copy(&mut connection, &mut sink());
    })
}

/// Whether the crowd of the trials takes this service for one that goes on, and the promises that it breaks in their eyes.
async fn judged(api: Api) -> (bool, Vec<String>) {
    let [concert_id, room_id, date_id, seat] = [1, 2, 3, 4].map(Uuid::from_u128);
    let on_sale = OnSale { sale: Sale { concert_id, room_id, date_id }, seats: vec![seat] };
    let crowd = Crowd::start(api, on_sale, 1, PATIENCE);
    let goes_on = AssertUnwindSafe(crowd.goes_on()).catch_unwind().await.is_ok();
    let (shared, lives) = crowd.stop().await;
    let account = Account { lives, shared, differences: Differences::default(), audit: None };
    (goes_on, account.broken())
}

/// A 500, and a 503 that does not say when to try again, break a promise. A 503 in order breaks none.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_should_not_be_is_noticed() {
    for (answer, complaint) in [
        (INTERNAL, "join answered 500 INTERNAL"),
        (AWAY_FOR_EVER, "join answered 503 UNAVAILABLE"),
        (AWAY_FOR_NO_TIME, "join answered 503 UNAVAILABLE"),
    ] {
        let (_, broken) = judged(saying(answer)).await;
        assert!(broken.iter().any(|line| line.starts_with(complaint)), "{answer}: {broken:#?}");
    }
    let (_, broken) = judged(saying(AWAY)).await;
    assert!(broken.iter().any(|line| line.ends_with("does not come back")), "it was asked: {broken:#?}");
    assert!(broken.iter().all(|line| !line.contains("answered")), "{broken:#?}");
}

/// Whether it refuses everybody in order, hangs up, or is not there: it does not come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_come_back_is_noticed() {
    let nobody = Api::new("http://127.0.0.1:1".to_owned());
    for (how, api) in [("refuses", saying(AWAY)), ("hangs up", service(drop)), ("is not there", nobody)] {
        let (goes_on, broken) = judged(api).await;
        assert!(!goes_on, "who {how} is taken for one that goes on");
        assert!(broken.iter().any(|line| line.ends_with("does not come back")), "{how}: {broken:#?}");
    }
}

/// Who takes a request and says nothing is not waited for in silence.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_come_is_noticed() {
    let silent = service(|mut connection| drop(copy(&mut connection, &mut sink())));
    let notes = Notes::default();
    let look = silent.request(Method::GET, "/concerts", &newcomer(1));
    assert!(matches!(notes.send_within(PATIENCE, "look", look).await, Told::Unknown));
    assert_eq!(notes.breaches(), [format!("look: no answer within {PATIENCE:?}")]);
}

/// An acknowledgement too many is a loss, an effect too many a surplus, half an effect both and a breach of the audit.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_doubled_or_half_is_found() {
    let database = Database::sqlite();
    let url = database.url();
    let mut trial = Trial::open("control", database, &url).await;
    trial.crowd(Duration::ZERO).await;
    trial.goes_on().await;
    let account = trial.account().await;
    assert!(account.differences.is_empty() && account.audit.is_none(), "{:#?}", account.differences);
    let lives = account.lives;
    let buyer = lives.iter().position(|life| life.of("DONE").next().is_some()).expect("somebody bought");

    // Acknowledged, and never written.
    let mut told = lives.clone();
    told[buyer].charges.push((Uuid::from_u128(7), 5));
    let found = check(&trial.api, &trial.database, &trial.sale, &told).await;
    assert!(found.lost.iter().any(|line| line.contains(&Uuid::from_u128(7).to_string())), "{found:#?}");

    // Written, and never acknowledged.
    let mut told = lives.clone();
    let forgotten = told[buyer].charges.pop().unwrap();
    let found = check(&trial.api, &trial.database, &trial.sale, &told).await;
    assert!(found.surplus.iter().any(|line| line.contains(&forgotten.0.to_string())), "{found:#?}");

    // Half of a payment.
    let ticket = "DELETE FROM tickets WHERE ticket_id = (SELECT min(ticket_id) FROM tickets)";
    trial.database.execute(ticket).await;
    let found = check(&trial.api, &trial.database, &trial.sale, &lives).await;
    assert!(!found.lost.is_empty(), "{found:#?}");
    assert!(audit(&trial.node).is_some_and(|found| found.contains("ticket")), "the audit finds it too");
}

/// It ends with its cluster all the same, which kills whoever does not go.
const WAL_WRITER_STANDS_STILL: &str = "DO $$ BEGIN EXECUTE format(
    'COPY (SELECT 1) TO PROGRAM ''cat > /dev/null; kill -STOP %s''',
    (SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter')); END $$";

/// A database that acknowledges before it is durable loses something in a crash, and it is found.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_lose_is_found_out() {
    let Some(cluster) = Cluster::start_private().await else { return };
    let database = Database::on(&cluster).await;
    // Before the node's sessions begin: what is committed is written to the disk by the way, if nothing comes between.
    let name = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$";
    database.execute(name).await;
    // Nobody else may write the log by the way: neither who writes pages, nor who does nothing but that every ten seconds.
    database.execute("ALTER SYSTEM SET bgwriter_lru_maxpages = 0").await;
    database.execute("SELECT pg_reload_conf()").await;
    let url = database.url();
    let mut trial = Trial::open("control: synchronous_commit = off", database, &url).await;
    // There is something to buy after the crash.
    trial.database.execute("CHECKPOINT").await;
    trial.database.execute(WAL_WRITER_STANDS_STILL).await;
    trial.crowd(Duration::ZERO).await;
    cluster.stop_immediate().await;
    cluster.start().await;
    trial.node.becomes_ready().await;
    let account = trial.account().await;
    let lost = account.differences.lost.len();
    say(&format!("control: {lost} losses were found, {:?}", account.differences.lost.first()));
    assert!(lost > 0, "a database that loses was taken for one that does not");
}
