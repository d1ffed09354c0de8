//! The file of SQLite takes nothing: the disk is full or has become read-only, or somebody else has the lock. Reads go
//! on, writes are refused for now, and when it is over the node goes on by itself.
//!
//! What is simulated, and by what:
//!
//! | for | by | what a write meets |
//! |---|---|---|
//! | a full disk | a file system in memory that is filled up, where this process may mount one | `ENOSPC` |
//! | a quota of the process | a limit of the size of its files, which is that of the log now | `EFBIG`, after a signal that would end it |
//! | a file system that has become read-only | the same limit, of nothing | `EFBIG` at every write |
//! | a slow disk, another process | the lock, held for longer than the node waits for it | `SQLITE_BUSY` |

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::Database;
use frontrow_testkit::is_required;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::crowd::newcomer;
use crate::node::Node;
use crate::told::Told;
use crate::trial::{Trial, say};

/// For how long it takes nothing: longer than the node waits for a lock.
const FOR: Duration = Duration::from_secs(8);

async fn trial(name: &'static str, database: Database) -> Trial {
    let url = database.url();
    let mut trial = Trial::open(name, database, &url).await;
    trial.crowd(FOR * 3).await;
    trial
}

fn file(trial: &Trial) -> PathBuf {
    let DatabaseUrl::Sqlite(path) = trial.database.url() else { unreachable!("it is on SQLite") };
    path
}

/// The most that the node's files may have from now on, in bytes.
fn limit_files(trial: &Trial, bytes: &str) {
    let process = trial.node.process_id();
    let limited = Command::new("prlimit").args(["--pid", &process, &format!("--fsize={bytes}:")]).output();
    let limited = limited.expect("prlimit is part of every Linux");
    assert!(limited.status.success(), "{limited:?}");
}

/// While nothing is taken: nobody is told anything but 503, and what is stored can be looked at.
async fn assert_reads_go_on(trial: &Trial) {
    let life = newcomer(rand::random());
    let look = |path: &str| -> RequestBuilder { trial.api.request(Method::GET, path, &life) };
    for path in ["/concerts", &format!("/accounts/{}", life.user_id), "/reservations"] {
        let answer = look(path).timeout(Duration::from_secs(30)).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "GET {path}\n{}", trial.node.last_words());
    }
}

/// Nobody else's writes get through either, after those that had begun.
async fn assert_writes_are_refused(trial: &Trial) {
    let life = newcomer(rand::random());
    let join = trial.api.request(Method::POST, "/queue", &life);
    let join = join.json(&json!({"concertId": trial.sale.concert_id}));
    let told = trial.notes().send("join", join).await;
    assert!(matches!(told, Told::Unavailable | Told::Unknown), "{told:?}");
}

async fn taken_nothing(trial: &mut Trial, unavailable: &[&str]) {
    let heard = |trial: &Trial| unavailable.iter().map(|kind| trial.heard(kind)).sum::<u64>();
    let before = heard(trial);
    sleep(Duration::from_secs(1)).await;
    assert_reads_go_on(trial).await;
    sleep(FOR).await;
    assert!(heard(trial) > before, "nobody was refused: it takes something");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_file_sizes_is_a_full_disk() {
    let mut trial = trial("SQLite, files at their limit", Database::sqlite()).await;
    let mut log = file(&trial).into_os_string();
    log.push("-wal");
    let size = std::fs::metadata(&log).expect("there is a log").len();
    limit_files(&trial, &size.to_string());
    taken_nothing(&mut trial, &["unavailable (503)", "unknown (503)"]).await;
    limit_files(&trial, "unlimited");
    trial.goes_on().await;
    trial.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_can_be_read() {
    let mut trial = trial("SQLite, read-only", Database::sqlite()).await;
    limit_files(&trial, "0");
    taken_nothing(&mut trial, &["unavailable (503)", "unknown (503)"]).await;
    assert_writes_are_refused(&trial).await;
    limit_files(&trial, "unlimited");
    trial.goes_on().await;
    trial.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_held_by_another_process_is_waited_for_so_long() {
    let mut trial = trial("SQLite, locked by another", Database::sqlite()).await;
    let mut other = SqliteConnection::establish(file(&trial).to_str().unwrap()).unwrap();
    other.batch_execute("PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE").unwrap();
    taken_nothing(&mut trial, &["unavailable (503)"]).await;
    other.batch_execute("ROLLBACK").unwrap();
    trial.goes_on().await;
    trial.close().await;
}

/// A file system in memory that is unmounted with its owner.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, said aloud, where this process may mount nothing.
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = ["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "frontrow-test"];
        let mounted = match Command::new("mount").args(options).arg(folder.path()).output() {
            Ok(done) if done.status.success() => Ok(Self(folder)),
            Ok(refused) => Err(String::from_utf8_lossy(&refused.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        mounted_or_skipped(mounted, is_required("FRONTROW_REQUIRE_MOUNTS"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// From now on nothing can be opened for writing.
    fn make_read_only(&self) {
        let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()).output().unwrap();
        assert!(remounted.status.success(), "{remounted:?}");
    }
}

/// Passes on what was mounted. Otherwise says on standard error that the test is skipped, and why; where mounts are required,
/// it fails.
fn mounted_or_skipped(mounted: Result<SmallDisk, String>, is_required: bool) -> Option<SmallDisk> {
    if let Err(reason) = &mounted {
        assert!(!is_required, "FRONTROW_REQUIRE_MOUNTS is set, but nothing may be mounted: {reason}");
        say(&format!("the test on a disk of its own is skipped, since nothing may be mounted: {reason}"));
    }
    mounted.ok()
}

#[test]
#[should_panic(expected = "FRONTROW_REQUIRE_MOUNTS is set")]
fn without_mounts_that_are_required_a_test_fails() {
    let _ = mounted_or_skipped(Err("permission denied".to_owned()), true);
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_left_behind() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let database = Database::Sqlite(tempfile::tempdir_in(disk.path()).unwrap());
    let mut trial = trial("SQLite, disk full", database).await;
    let ballast = disk.path().join("ballast");
    // Fails when the disk is full.
    let filled = std::fs::write(&ballast, vec![0; 128 << 20]);
    assert!(filled.is_err());
    taken_nothing(&mut trial, &["unavailable (503)", "unknown (503)"]).await;
    std::fs::remove_file(&ballast).unwrap();
    trial.goes_on().await;
    trial.close().await;
}

/// A node that could take no order does not start, and says why.
#[test]
fn a_node_does_not_start_on_a_read_only_disk() {
    let Some(disk) = SmallDisk::mount(16) else { return };
    let node = Node::new(&DatabaseUrl::Sqlite(disk.path().join("test.db")));
    assert!(node.run("migrate").status.success());
    disk.make_read_only();
    for command in ["serve", "migrate"] {
        let output = node.run(command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
        assert_eq!(said.lines().count(), 1, "{command}: {said}");
    }
}
