//! A SQLite file with several names, and audits of files by whoever may only read them.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use frontrow_testkit::app::execute_sqlite;
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::audit::{document, finding, sqlite_sale};
use crate::binary::{Output, Serving, run};
use crate::{get, refused};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_served_once_whatever_it_is_called() {
    let folder = tempdir().unwrap();
    let [file, link, hard] = ["a.db", "link.db", "hard.db"].map(|name| folder.path().join(name));
    let serving = Serving::start(folder.path(), "serve --database-url sqlite:a.db", &[]);
    symlink(&file, &link).unwrap();
    let by_link = run(folder.path(), "serve --database-url sqlite:link.db --bind 127.0.0.1:0", &[]);
    assert!(refused(&by_link).contains("served by another process"), "{by_link:?}");
    // What is kept beside the file is the same too.
    let token = run(folder.path(), "token --role admin --database-url sqlite:link.db", &[]);
    assert_eq!(get(&serving.address, "/admin/rooms", token.stdout.trim()).await.0, 200);

    fs::hard_link(&file, &hard).unwrap();
    for command in ["serve --bind 127.0.0.1:0", "migrate", "audit"] {
        for name in ["hard.db", "a.db"] {
            let output = run(folder.path(), &format!("{command} --database-url sqlite:{name}"), &[]);
            let said =
                if command.starts_with("serve") && name == "a.db" { "another process" } else { "hard links" };
            assert!(refused(&output).contains(said), "{command} {name}: {output:?}");
        }
    }
    fs::remove_file(&hard).unwrap();
    assert_eq!(run(folder.path(), "audit --database-url sqlite:link.db", &[]).code, Some(0));
    assert_eq!(serving.stop().0, Some(0));
}

/// Names and bytes of all that is in a folder.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_changes_no_file() {
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty.db"), "").unwrap();
    fs::write(path("text.db"), "this is no database, and longer than its header would be. ".repeat(9))
        .unwrap();
    execute_sqlite(&path("foreign.db"), "CREATE TABLE other (id INTEGER)");
    let sales = tempdir().unwrap();
    let sale = sqlite_sale(sales.path()).await;
    fs::copy(&sale, path("served.db")).unwrap();
    let vacuumed = path("own #1?%.db");
    execute_sqlite(&sale, &format!("VACUUM INTO '{}'", vacuumed.display()));
    let before = contents(folder.path());
    for name in ["empty.db", "text.db", "foreign.db"] {
        refused(&run(folder.path(), &format!("audit --database-url sqlite:{name}"), &[]));
    }
    // By the environment, since arguments are separated by blanks here. An absolute path may begin with any number of slashes.
    let absolute = format!("sqlite:////{}", vacuumed.display());
    for url in ["sqlite:served.db", "sqlite:own #1?%.db", &absolute] {
        assert_eq!(run(folder.path(), "audit", &[("FRONTROW_DATABASE_URL", url)]).code, Some(0), "{url}");
    }
    let missing = run(folder.path(), "audit --database-url sqlite:missing.db", &[]);
    assert!(refused(&missing).contains("missing.db is not there"), "{missing:?}");
    assert!(contents(folder.path()) == before);

    fs::create_dir_all(path("folder.db/inner")).unwrap();
    let no_file = run(folder.path(), "audit --database-url sqlite:folder.db", &[]);
    assert!(!refused(&no_file).contains("hard links"), "folders have many names: {no_file:?}");
}

/// A folder that everybody may look into, with a sale in it that nobody serves.
async fn sale_for_all() -> TempDir {
    let (folder, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    let sale = sqlite_sale(elsewhere.path()).await;
    fs::copy(sale, folder.path().join("a.db")).unwrap();
    // Whoever is not root cannot become somebody else, but may forbid himself to write.
    fs::set_permissions(folder.path().join("a.db"), Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_frontrow"), folder.path().join("frontrow")).unwrap();
    folder
}

fn audit_as_a_reader(folder: &Path, name: &str) -> Output {
    let mut command = Command::new(folder.join("frontrow"));
    command.current_dir(folder).env_clear().args(["audit", "--database-url", &format!("sqlite:{name}")]);
    if fs::metadata(folder).unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_read_a_file_may_audit_it_and_leaves_nothing() {
    let folder = sale_for_all().await;
    let [file, link] = ["a.db", "link.db"].map(|name| folder.path().join(name));
    symlink(&file, &link).unwrap();
    let before = names(folder.path());
    let audited = |code: i32| {
        for name in ["a.db", "link.db"] {
            let output = audit_as_a_reader(folder.path(), name);
            assert_eq!(output.code, Some(code), "{name}: {output:?}");
        }
    };
    // Neither may be written, the folder alone, the file alone.
    for (folder_mode, file_mode) in [(0o755, 0o444), (0o777, 0o444), (0o555, 0o666)] {
        fs::set_permissions(&file, Permissions::from_mode(file_mode)).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(folder_mode)).unwrap();
        audited(0);
        assert_eq!(names(folder.path()), before, "{folder_mode:o} {file_mode:o}");
    }
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    // What is in the log beside the file counts as well, as long as somebody has the file open.
    let mut writer = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    writer.batch_execute("UPDATE accounts SET balance = balance + 1").unwrap();
    audited(1);
    drop(writer);
    assert_eq!(names(folder.path()), before);
    audited(1);
}

/// No sum that a database can hold is what they come to.
#[tokio::test(flavor = "multi_thread")]
async fn sums_without_end_and_ids_that_are_none_are_breaches() {
    let folder = tempdir().unwrap();
    let original = sqlite_sale(folder.path()).await;
    for (name, how) in [
        ("date-sales", "UPDATE seats SET price = 9223372036854775807 WHERE status = 'UNAVAILABLE'"),
        ("reservation-total", "UPDATE reservation_seats SET price = 9223372036854775807"),
        ("account-balance", "UPDATE entries SET amount = 9223372036854775807"),
        ("entry-kind", "UPDATE entries SET entry_id = x'ff', kind = 'GIFT' WHERE number = 1"),
    ] {
        let copy = folder.path().join("copy.db");
        let _ = fs::remove_file(&copy);
        execute_sqlite(&original, &format!("VACUUM INTO '{}'", copy.display()));
        execute_sqlite(
            &copy,
            &format!("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; {how}"),
        );
        let found = document(&run(folder.path(), "audit --json --database-url sqlite:copy.db", &[]));
        let finding = finding(&found, name);
        assert!(finding["breaches"].as_i64().unwrap() > 0, "{how}: {found:#}");
        assert_eq!(finding["examples"], json!([]), "{how}");
    }
}
