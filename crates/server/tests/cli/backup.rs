//! `frontrow backup`: what is in a copy of a live database, and what it does not overwrite.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use frontrow_testkit::app::{Database, execute_sqlite};
use tempfile::tempdir;

use crate::binary::{Serving, run};
use crate::wallet::{Charging, Wallet, done, names, stored};
use crate::{SECRET, refused, url};

/// The control is a copy by `cp` of the same moment: what is in the log alone is missing from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_every_acknowledged_write() {
    let (folder, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    let [original, copy, backup] = ["frontrow.db", "cp.db", "backup.db"].map(|name| folder.path().join(name));
    let serving = Serving::start(folder.path(), "serve", &[]);
    let wallet = Wallet::open(&serving.address).await;
    wallet.charge().await.expect("a charge");
    let charging = Charging::start(&serving.address, 4).await;
    charging.more(200).await;
    let before = charging.acknowledged();
    fs::copy(&original, &copy).unwrap();
    let output = done(folder.path(), "backup backup.db --with-secret");
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    assert!(output.stdout.contains("backup.db is a backup of frontrow.db"), "{output:?}");
    // The server goes on meanwhile and afterwards.
    charging.more(50).await;
    let after = charging.stop().await;
    drop(serving);

    assert_eq!(stored(&backup, &before), before.len(), "a write that was acknowledged is missing");
    assert!(stored(&copy, &before) < before.len(), "the control: cp alone copies all there is");
    assert!(stored(&backup, &after) < after.len(), "the backup is of the moment when it was made");

    for (how, status) in [("", 401), ("--with-secret --replace", 200)] {
        let restore = format!("restore {} {how}", backup.display());
        done(elsewhere.path(), &restore);
        done(elsewhere.path(), "audit");
        let restored = Serving::start(elsewhere.path(), "serve", &[]);
        let (got, balance) = wallet.at(&restored.address).balance().await;
        assert_eq!(got, status, "tokens are good with their secret alone");
        assert!(status != 200 || balance == Some(1), "{balance:?}");
        assert_eq!(restored.stop().0, Some(0));
    }
    assert_eq!(stored(&elsewhere.path().join("frontrow.db"), &before), before.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_one_file_that_its_owner_alone_may_read() {
    let (folder, backups) = (tempdir().unwrap(), tempdir().unwrap());
    let path = backups.path().join("a.db");
    let serving = Serving::start(folder.path(), "serve", &[]);
    done(folder.path(), &format!("backup {} --with-secret", path.display()));
    assert_eq!(names(backups.path()), ["a.db", "a.db.secret"]);
    for name in ["a.db", "a.db.secret"] {
        let mode = fs::metadata(backups.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let secret = |path: &Path| fs::read_to_string(path).unwrap();
    let original = folder.path().join("frontrow.db.secret");
    assert_eq!(secret(&backups.path().join("a.db.secret")), secret(&original));
    // Not in WAL mode: to open it leaves nothing next to it.
    assert_eq!(&fs::read(&path).unwrap()[18..20], [1, 1]);
    assert_eq!(serving.stop().0, Some(0));
    // While nothing serves it, too; and of a backup itself.
    done(folder.path(), &format!("backup {} --overwrite", path.display()));
    let of_a_backup =
        format!("backup {} --database-url sqlite:{}", backups.path().join("b.db").display(), path.display());
    done(folder.path(), &of_a_backup);
    assert_eq!(names(backups.path()), ["a.db", "a.db.secret", "b.db"]);
}

/// By another user where the test runs as root; else by one who may write neither the file nor its folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_needs_no_right_to_write_the_database() {
    const ANOTHER_USER: u32 = 65_534;
    let (folder, backups) = (tempdir().unwrap(), tempdir().unwrap());
    let [program, backup] = ["frontrow", "backup.db"].map(|name| backups.path().join(name));
    fs::copy(env!("CARGO_BIN_EXE_frontrow"), &program).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(backups.path(), Permissions::from_mode(0o777)).unwrap();
    let serving = Serving::start(folder.path(), "serve", &[]);
    let entry = Wallet::open(&serving.address).await.charge().await.unwrap();
    let mut command = Command::new(&program);
    command.current_dir(folder.path()).env_clear().arg("backup").arg(&backup);
    if fs::metadata(folder.path()).unwrap().uid() == 0 {
        command.uid(ANOTHER_USER).gid(ANOTHER_USER);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stored(&backup, &[entry]), 1);
    assert_eq!(serving.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_overwrites_nothing_unasked() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let serving = Serving::start(folder.path(), "serve", &[]);
    fs::write(path("taken"), "precious").unwrap();
    fs::write(path("secret.secret"), "precious").unwrap();
    fs::write(path("used.db-wal"), "a log").unwrap();
    fs::create_dir(path("folder")).unwrap();
    std::os::unix::fs::symlink("taken", path("link")).unwrap();
    let before = names(folder.path());
    for (args, word) in [
        ("taken", "--overwrite"),
        ("secret --with-secret", "--overwrite"),
        ("frontrow.db --overwrite", "the original"),
        ("used.db", "used.db-wal"),
        ("used.db --overwrite", "used.db-wal"),
        ("folder", "a folder"),
        ("folder --overwrite", "a folder"),
        ("missing/a.db", "missing"),
        ("frontrow.db-wal --overwrite", "belongs to the database"),
        ("frontrow.db.lock --overwrite", "belongs to the database"),
        ("frontrow.db.marker --overwrite", "belongs to the database"),
        ("frontrow.db.secret --overwrite", "belongs to the database"),
        ("link --overwrite", "not a regular file"),
    ] {
        let output = run(folder.path(), &format!("backup {args}"), &[]);
        assert!(refused(&output).contains(word), "{args}: {output:?}");
    }
    assert_eq!(names(folder.path()), before, "nothing is left of a backup that was refused");
    assert_eq!(fs::read_to_string(path("taken")).unwrap(), "precious");
    done(folder.path(), "backup taken --overwrite");
    assert!(fs::read(path("taken")).unwrap().starts_with(b"SQLite format 3"));
    assert_eq!(serving.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_gives_no_backup() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("frontrow.db");
    done(folder.path(), "migrate");
    execute_sqlite(
        &path,
        "PRAGMA foreign_keys = OFF;
         INSERT INTO entries (entry_id, user_id, number, kind, amount, balance_after, entered_at)
         VALUES (randomblob(16), randomblob(16), 1, 'CHARGE', 1, 1, 1)",
    );
    let output = run(folder.path(), "backup a.db", &[]);
    assert!(refused(&output).contains("refer to rows that are missing"), "{output:?}");
    assert!(!folder.path().join("a.db").exists());
    fs::write(folder.path().join("other.db"), "").unwrap();
    let output = run(folder.path(), "backup a.db --database-url sqlite:other.db", &[]);
    assert!(refused(&output).contains("not a frontrow database"), "{output:?}");
    assert!(!folder.path().join("a.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_postgresql_is_left_to_its_own_programs() {
    let folder = tempdir().unwrap();
    let url = match Database::postgres().await {
        Some(database) => url(&database),
        None => "postgres://h/db".to_owned(),
    };
    for command in ["backup a.db", "restore a.db"] {
        let output =
            run(folder.path(), &format!("{command} --database-url {url}"), &[("FRONTROW_SECRET", SECRET)]);
        let line = refused(&output);
        for word in ["pg_basebackup", "pg_dump", "docs/BACKUP.md"] {
            assert!(line.contains(word), "{command}: {line}");
        }
    }
    assert_eq!(names(folder.path()), Vec::<String>::new());
}
