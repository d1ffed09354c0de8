//! `frontrow restore`: what it refuses, what it keeps, and what is left of it when it is killed.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use frontrow_testkit::app::{execute_sqlite, query_sqlite};
use tempfile::tempdir;

use crate::binary::{Serving, command, run};
use crate::refused;
use crate::wallet::{Wallet, done, incarnation, names, served_once, stored};

/// A backup of a database with one charge, in a folder where that database has a second one by now. Returns
/// the entries.
async fn one_of_two_charges(folder: &Path) -> [uuid::Uuid; 2] {
    let serving = Serving::start(folder, "serve", &[]);
    let wallet = Wallet::open(&serving.address).await;
    let first = wallet.charge().await.expect("a charge");
    done(folder, "backup backup.db --with-secret");
    let second = wallet.charge().await.expect("a charge");
    let output = run(folder, "restore backup.db --replace", &[]);
    assert!(refused(&output).contains("served by another process"), "{output:?}");
    // A crash: the second charge is in the log alone.
    serving.kill();
    assert!(fs::metadata(folder.join("frontrow.db-wal")).unwrap().len() > 0);
    [first, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_the_old_database_with_its_log_and_begins_a_new_incarnation() {
    let folder = tempdir().unwrap();
    let database = folder.path().join("frontrow.db");
    let [first, second] = one_of_two_charges(folder.path()).await;
    let output = run(folder.path(), "restore backup.db", &[]);
    assert!(refused(&output).contains("--replace"), "{output:?}");
    let restored = done(folder.path(), "restore backup.db --replace");
    assert!(restored.stdout.contains("1 account entries"), "{restored:?}");

    assert_eq!(stored(&database, &[first, second]), 1);
    let kept: Vec<String> =
        names(folder.path()).into_iter().filter(|name| name.contains(".replaced-")).collect();
    let [old, log, marker] = kept.as_slice() else { panic!("the old file and its log are kept: {kept:?}") };
    assert_eq!([log.clone(), marker.clone()], ["-wal", ".marker"].map(|name| format!("{old}{name}")));
    assert!(restored.stdout.contains(old.as_str()), "{restored:?}");
    assert!(!folder.path().join("frontrow.db-wal").exists());
    let incarnations = [incarnation(&database), incarnation(&folder.path().join("backup.db"))];
    assert_ne!(incarnations[0], incarnations[1]);
    // What is kept is a database: with its log it has both.
    done(folder.path(), &format!("audit --database-url sqlite:{old}"));
    assert_eq!(stored(&folder.path().join(old), &[first, second]), 2);
    let log = served_once(folder.path()).await;
    assert!(!log.contains("incarnation"), "it has begun by the restore: {log}");
    assert_eq!(incarnation(&database), incarnations[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_refuses_what_is_no_backup_and_changes_nothing() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    done(folder.path(), "migrate");
    let many = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO accounts (user_id, balance, entry_count, version) SELECT randomblob(16), 0, 0, 1 FROM n";
    execute_sqlite(&path("frontrow.db"), many);
    done(folder.path(), "backup good.db");
    fs::write(path("empty.db"), "").unwrap();
    fs::write(path("text.db"), "this is no database, and longer than its header would be. ".repeat(90))
        .unwrap();
    execute_sqlite(&path("foreign.db"), "CREATE TABLE other (id INTEGER)");
    for (name, sql) in [
        ("newer.db", "INSERT INTO __diesel_schema_migrations (version) VALUES ('29990101000000')"),
        (
            "dangling.db",
            "PRAGMA foreign_keys = OFF; DELETE FROM accounts; PRAGMA ignore_check_constraints = ON;
            INSERT INTO entries (entry_id, user_id, number, kind, amount, balance_after, entered_at)
            VALUES (randomblob(16), randomblob(16), 1, 'CHARGE', 1, 1, 1)",
        ),
        ("log.db", "SELECT 1"),
    ] {
        fs::copy(path("good.db"), path(name)).unwrap();
        execute_sqlite(&path(name), sql);
    }
    fs::write(path("log.db-wal"), "a log").unwrap();
    let mut bytes = fs::read(path("good.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0);
    fs::write(path("damaged.db"), &bytes).unwrap();
    fs::write(path("short.db"), &bytes[..middle]).unwrap();

    let before = (names(folder.path()), fs::read(path("frontrow.db")).unwrap());
    for (name, word) in [
        ("missing.db", "missing.db"),
        ("empty.db", "not a frontrow database"),
        ("text.db", "not a database"),
        ("foreign.db", "not a frontrow database"),
        ("newer.db", "newer than this program"),
        ("dangling.db", "refer to rows that are missing"),
        ("damaged.db", "damaged"),
        ("short.db", "damaged"),
        ("log.db", "log.db-wal"),
        ("frontrow.db", "the database itself"),
    ] {
        let output = run(folder.path(), &format!("restore {name} --replace"), &[]);
        assert!(refused(&output).contains(word), "{name}: {output:?}");
    }
    let lacks_secret = run(folder.path(), "restore good.db --replace --with-secret", &[]);
    assert!(refused(&lacks_secret).contains("good.db.secret"), "{lacks_secret:?}");
    let names_but_the_lock = || names(folder.path()).into_iter().filter(|name| name != "frontrow.db.lock");
    assert!(names_but_the_lock().eq(before.0.into_iter().filter(|name| name != "frontrow.db.lock")));
    assert!(fs::read(path("frontrow.db")).unwrap() == before.1);
    // The control: a good one is taken.
    done(folder.path(), "restore good.db --replace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_an_older_schema_is_brought_up_to_date() {
    let (folder, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    let path = folder.path().join("frontrow.db");
    done(folder.path(), "migrate");
    // As before the incarnation was stored.
    let older =
        "DROP TABLE incarnation; DELETE FROM __diesel_schema_migrations WHERE version = '20261129000004'";
    execute_sqlite(&path, older);
    done(folder.path(), "backup old.db");
    done(elsewhere.path(), &format!("restore {}", folder.path().join("old.db").display()));
    assert_eq!(query_sqlite(&elsewhere.path().join("frontrow.db"), "SELECT count(*) FROM incarnation"), 1);
}

/// Wherever a restore is killed, the next start finds the old database with its log, or the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_leaves_the_old_or_the_new_database() {
    let origin = tempdir().unwrap();
    let entries = one_of_two_charges(origin.path()).await;
    let mut found = [0, 0];
    let mut takes = Duration::ZERO;
    for trial in 0..12 {
        let folder = tempdir().unwrap();
        for name in names(origin.path()).iter().filter(|name| !name.ends_with("-shm")) {
            fs::copy(origin.path().join(name), folder.path().join(name)).unwrap();
        }
        let begun = Instant::now();
        let mut restore = command(folder.path(), "restore backup.db --replace", &[]);
        let mut child = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The first one is not killed; some are in the second half of its time, and some at their last steps.
        if trial == 0 {
            assert!(child.wait().unwrap().success());
            takes = begun.elapsed();
        } else if trial < 5 {
            thread::sleep(takes / 2 + takes * trial / 10);
        } else {
            let record = || fs::read_to_string(folder.path().join("frontrow.db.marker")).unwrap();
            while record().contains("\"restored\":null") && child.try_wait().unwrap().is_none() {
                thread::yield_now();
            }
            thread::sleep(Duration::from_micros(700) * (trial - 5));
        }
        let _ = child.kill();
        child.wait().unwrap();
        served_once(folder.path()).await;
        done(folder.path(), "audit");
        let stored = stored(&folder.path().join("frontrow.db"), &entries);
        assert!((1..=2).contains(&stored), "trial {trial}: {stored} of both charges");
        found[stored - 1] += 1;
    }
    println!("{} trials left the new database, {} the old one", found[0], found[1]);
    assert!(found[1] > 0, "none was killed before it had replaced anything: {found:?}");
}
