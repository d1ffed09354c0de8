//! A database that was replaced by hand, next to the log of the one before.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use frontrow_testkit::app::{execute_sqlite, query_sqlite};
use tempfile::tempdir;
use tokio::time::sleep;

use crate::binary::{Serving, run};
use crate::wallet::{Charging, Wallet, done, incarnation, served_once, stored};
use crate::{get, refused};

const SERVE: &str = "serve --bind 127.0.0.1:0";

fn log_of(folder: &Path) -> u64 {
    fs::metadata(folder.join("frontrow.db-wal")).map_or(0, |log| log.len())
}

/// The bytes of a database and its log.
fn both(folder: &Path) -> [Vec<u8>; 2] {
    ["frontrow.db", "frontrow.db-wal"].map(|name| fs::read(folder.join(name)).unwrap())
}

/// Checks that no command opens a database with the log of another, and that none changes either.
#[track_caller]
fn assert_refused_by_all(folder: &Path) {
    let before = both(folder);
    for command in
        [SERVE, "serve --no-migrate --bind 127.0.0.1:0", "migrate", "audit", "backup b.db", "load --people 1"]
    {
        let output = run(folder, command, &[]);
        let line = output.stderr.lines().last().unwrap_or_default();
        assert_eq!(output.code, Some(2), "{command}: {output:?}");
        assert!(line.contains("was replaced") && line.contains("frontrow restore"), "{command}: {output:?}");
        assert!(both(folder) == before, "{command} changed the files");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_next_to_the_log_of_a_crash_is_refused() {
    let folder = tempdir().unwrap();
    let [database, copy] = ["frontrow.db", "copy.db"].map(|name| folder.path().join(name));
    let serving = Serving::start(folder.path(), "serve", &[]);
    let first = Wallet::open(&serving.address).await.charge().await.unwrap();
    assert_eq!(serving.stop().0, Some(0));
    fs::copy(&database, &copy).unwrap();
    let serving = Serving::start(folder.path(), "serve", &[]);
    let second = Wallet::open(&serving.address).await.charge().await.unwrap();
    serving.kill();
    assert!(log_of(folder.path()) > 0);
    fs::copy(&database, folder.path().join("crashed.db")).unwrap();
    fs::copy(&copy, &database).unwrap();
    assert_refused_by_all(folder.path());

    // The control: without the record of the marker, SQLite undoes the copy and nothing is said.
    let unmarked = tempdir().unwrap();
    for name in ["frontrow.db", "frontrow.db-wal"] {
        fs::copy(folder.path().join(name), unmarked.path().join(name)).unwrap();
    }
    served_once(unmarked.path()).await;
    assert_eq!(stored(&unmarked.path().join("frontrow.db"), &[first, second]), 2, "the copy has one");

    // Either way out leads on: the file that was there before, or the copy without the log.
    fs::copy(folder.path().join("crashed.db"), &database).unwrap();
    let serving = Serving::start(folder.path(), "serve", &[]);
    let log = serving.kill();
    assert!(log.contains("integrity of"), "{log}");
    assert_eq!(stored(&database, &[first, second]), 2);
    let before = incarnation(&database);
    fs::copy(&copy, &database).unwrap();
    let _ = fs::remove_file(folder.path().join("frontrow.db-wal"));
    let log = served_once(folder.path()).await;
    assert!(log.contains("begins a new incarnation"), "{log}");
    assert_eq!(stored(&database, &[first, second]), 1);
    assert_ne!(incarnation(&database), before);
}

/// A copy of the same session, from before SQLite began its log anew: the log lacks what was written in
/// between.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_live_file_next_to_a_later_log_is_refused() {
    let folder = tempdir().unwrap();
    let [database, copy] = ["frontrow.db", "copy.db"].map(|name| folder.path().join(name));
    let serving = Serving::start(folder.path(), "serve", &[]);
    let wallet = Wallet::open(&serving.address).await;
    let first = wallet.charge().await.unwrap();
    fs::copy(&database, &copy).unwrap();
    let marked = |before: Vec<u8>| async move {
        for _ in 0..300 {
            sleep(Duration::from_millis(100)).await;
            if fs::read(folder.path().join("frontrow.db.marker")).unwrap() != before {
                return folder;
            }
        }
        panic!("a log that begins anew brings no new marker");
    };
    // The log of the first charge was marked, or is within a second.
    sleep(Duration::from_secs(3)).await;
    let record = fs::read(database.with_file_name("frontrow.db.marker")).unwrap();
    execute_sqlite(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
    let second = wallet.charge().await.unwrap();
    let folder = marked(record).await;
    serving.kill();
    fs::copy(&database, folder.path().join("crashed.db")).unwrap();
    fs::copy(&copy, &database).unwrap();
    assert_refused_by_all(folder.path());
    // The control: the file itself goes on.
    fs::copy(folder.path().join("crashed.db"), &database).unwrap();
    served_once(folder.path()).await;
    assert_eq!(stored(&database, &[first, second]), 2);
}

/// `cp` over a file keeps its inode.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_over_the_served_file_stops_the_sale() {
    let folder = tempdir().unwrap();
    let [database, copy] = ["frontrow.db", "copy.db"].map(|name| folder.path().join(name));
    let serving = Serving::start(folder.path(), "serve", &[]);
    let wallet = Wallet::open(&serving.address).await;
    let first = wallet.charge().await.unwrap();
    done(folder.path(), "backup backup.db");
    assert_eq!(serving.stop().0, Some(0));
    fs::copy(&database, &copy).unwrap();

    // The control: a file that is its own is trusted, whenever SQLite writes its log into it.
    let serving = Serving::start(folder.path(), "serve", &[]);
    let charging = Charging::start(&serving.address, 2).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        charging.more(5).await;
        execute_sqlite(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
        sleep(Duration::from_millis(150)).await;
        let ready = get(&serving.address, "/readyz", "").await;
        assert_eq!(ready.0, 200, "{ready:?}");
    }
    let acknowledged = charging.stop().await;
    assert_eq!(stored(&database, &acknowledged), acknowledged.len());

    let wallet = wallet.at(&serving.address);
    fs::copy(&copy, &database).unwrap();
    let replaced = Instant::now();
    while get(&serving.address, "/readyz", "").await.0 == 200 {
        assert!(replaced.elapsed() < Duration::from_secs(30), "an overwritten file is served");
        sleep(Duration::from_millis(20)).await;
    }
    println!("noticed after {:?}", replaced.elapsed());
    let (status, problem) = get(&serving.address, "/readyz", "").await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 503 && detail.contains("overwritten"), "{problem}");
    assert_eq!(wallet.charge().await, None);
    assert_eq!(wallet.balance().await.0, 503);
    // Also when the contents are back: what SQLite has in memory and in its log is of two files.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(wallet.charge().await, None);
    let output = run(folder.path(), "backup after.db", &[]);
    assert!(refused(&output).contains("overwritten"), "{output:?}");

    // An end in order writes the log into the copy: that is a mixture, and has an accepted marker.
    let (code, log) = serving.stop();
    assert!(code == Some(0) && log.contains("overwritten"), "{log}");
    for command in [SERVE, "migrate", "audit", "backup b.db", "load --people 1"] {
        let output = run(folder.path(), command, &[]);
        assert_eq!(output.code, Some(2), "{command}: {output:?}");
        assert!(output.stderr.contains("overwritten"), "{command}: {output:?}");
    }
    done(folder.path(), "restore backup.db --replace");
    served_once(folder.path()).await;
    assert_eq!(stored(&database, &[first]), 1);
}

/// A second name of the file, as a backup by hard links makes it, keeps a later log from being marked.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_marked_is_a_warning_of_readiness() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("frontrow.db");
    let serving = Serving::start(folder.path(), "serve", &[]);
    let wallet = Wallet::open(&serving.address).await;
    wallet.charge().await.unwrap();
    execute_sqlite(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
    fs::hard_link(&database, folder.path().join("hard.db")).unwrap();
    let begun = Instant::now();
    let check = loop {
        wallet.charge().await.expect("the node serves");
        let (status, ready) = get(&serving.address, "/readyz", "").await;
        assert_eq!(status, 200, "{ready}");
        let checks = ready["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "log marker").unwrap().clone();
        if check["status"] != "ok" {
            break check;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{ready}");
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(check["status"], "warning", "{check}");
    assert!(check["detail"].as_str().unwrap().contains("not completed"), "{check}");
    let record = fs::read_to_string(folder.path().join("frontrow.db.marker")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert!(record["accepted"].as_array().unwrap().len() <= 3, "failures add no markers: {record}");
    // The control: it is marked once that is possible.
    fs::remove_file(folder.path().join("hard.db")).unwrap();
    let begun = Instant::now();
    loop {
        let ready = get(&serving.address, "/readyz", "").await.1;
        let checks = ready["checks"].as_array().unwrap();
        if checks.iter().all(|check| check["status"] == "ok") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{ready}");
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(serving.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_database_is_found_by_its_integrity_after_a_crash() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("frontrow.db");
    done(folder.path(), "migrate");
    let many = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO accounts (user_id, balance, entry_count, version) SELECT randomblob(16), 0, 0, 1 FROM n";
    execute_sqlite(&database, many);
    let serving = Serving::start(folder.path(), "serve", &[]);
    Wallet::open(&serving.address).await.charge().await.unwrap();
    serving.kill();
    let mut bytes = fs::read(&database).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0);
    fs::write(&database, &bytes).unwrap();
    let before = both(folder.path());
    for command in [SERVE, "migrate", "backup b.db", "load --people 1"] {
        let output = run(folder.path(), command, &[]);
        let line = output.stderr.lines().last().unwrap_or_default();
        assert_eq!(output.code, Some(2), "{command}: {output:?}");
        assert!(line.contains("damaged") && line.contains("frontrow restore"), "{command}: {output:?}");
        assert!(both(folder.path()) == before, "{command} changed the files");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_database_is_refused() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let serving = Serving::start(folder.path(), "serve", &[]);
    Wallet::open(&serving.address).await.charge().await.unwrap();
    serving.kill();
    fs::rename(path("frontrow.db"), path("away.db")).unwrap();
    let log = fs::read(path("frontrow.db-wal")).unwrap();
    for _ in 0..2 {
        let output = run(folder.path(), SERVE, &[]);
        assert!(refused(&output).contains("frontrow.db-wal"), "{output:?}");
        assert!(fs::read(path("frontrow.db-wal")).unwrap() == log, "SQLite would have deleted it");
        fs::write(path("frontrow.db"), "").unwrap();
    }
    fs::rename(path("away.db"), path("frontrow.db")).unwrap();
    served_once(folder.path()).await;
    assert_eq!(query_sqlite(&path("frontrow.db"), "SELECT count(*) FROM entries"), 1);
}

/// The control of all the above: what was not replaced is never refused, however it ends, and its incarnation
/// stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_not_replaced_starts_after_every_end() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("frontrow.db");
    let (mut entries, mut incarnations) = (Vec::new(), Vec::new());
    for round in 0..4 {
        let serving = Serving::start(folder.path(), "serve", &[]);
        let wallet = Wallet::open(&serving.address).await;
        entries.push(wallet.charge().await.unwrap());
        done(folder.path(), "audit");
        incarnations.push(incarnation(&database));
        if round % 2 == 0 {
            // Also after the log was begun anew, and before that was noticed.
            execute_sqlite(&database, "PRAGMA wal_checkpoint(TRUNCATE)");
            entries.push(wallet.charge().await.unwrap());
            let log = serving.kill();
            assert!(!log.contains("incarnation"), "{log}");
        } else {
            let (code, log) = serving.stop();
            assert_eq!(code, Some(0));
            assert!(log.contains("integrity of"), "the end before was a crash: {log}");
        }
    }
    for command in ["migrate", "audit", "load --people 1"] {
        done(folder.path(), command);
    }
    let log = served_once(folder.path()).await;
    assert!(!log.contains("integrity of") && !log.contains("incarnation"), "{log}");
    incarnations.dedup();
    assert_eq!((incarnations.len(), stored(&database, &entries)), (1, entries.len()));
}
