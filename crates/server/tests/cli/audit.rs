//! `frontrow audit` names every invariant that was broken by hand, on both databases.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use frontrow::app::Settings;
use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::{Database, TestApp, execute_sqlite, sent, settings};
use frontrow_testkit::postgres::{Template, database};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::binary::{Output, run};
use crate::breaches::BREACHES;
use crate::broken;

/// Somebody has paid, somebody holds, somebody gave a hold back, some wait, somebody is let in. What can have a key has one.
async fn a_busy_sale(url: DatabaseUrl) {
    let app = TestApp::start(Settings { database: url, ..settings(&Database::sqlite()) }).await;
    let sale = app.sale(json!({}), 1, 8).await;
    let (paid, holding, gone) = (app.active(&sale).await, app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&paid, &sale).await;
    app.charge(&paid, 500).await;
    let charge = app.post(&format!("/accounts/{}/charge", paid.user_id), &json!({"amount": 500}));
    sent(paid.own(charge).header("Idempotency-Key", "charge"), 200).await;
    let held = sent(app.reserve(&paid, &sale, &seats[..2]).header("Idempotency-Key", "hold"), 201).await;
    let reservation_id = frontrow_testkit::app::id(&held, "reservationId");
    sent(app.pay(&paid, reservation_id).header("Idempotency-Key", "pay"), 200).await;
    app.hold(&holding, &sale, &seats[2..4]).await;
    let cancelled = app.hold(&gone, &sale, &seats[4..6]).await;
    sent(gone.own(app.delete(&format!("/reservations/{cancelled}"))), 204).await;
    for _ in 0..3 {
        app.waiting(&sale).await;
    }
    let left = app.waiting(&sale).await;
    sent(left.own(app.delete("/queue")), 204).await;
    app.stop().await;
}

/// A copy of the sale, to be broken by hand: nothing in the database says no any more.
enum Copy {
    Sqlite(PathBuf),
    Postgres(Database),
}

impl Copy {
    async fn break_it(&self, how: &str) {
        const NO_ID: &str = r#"'{"paymentId":"not an id but of the length of one"}'"#;
        let (random, early, late, nonsense, unprotected) = match self {
            Self::Sqlite(_) => {
                let unprotected = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON";
                ("randomblob(16)", "1", "4102444800000000", format!("CAST({NO_ID} AS BLOB)"), unprotected)
            }
            Self::Postgres(_) => {
                let unprotected = "DO $$ DECLARE c record; BEGIN FOR c IN
                    SELECT conrelid::regclass AS owner, conname FROM pg_constraint
                    WHERE contype IN ('c', 'f') AND connamespace = 'public'::regnamespace
                    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.owner, c.conname); END LOOP; END $$";
                let (early, late) = ("to_timestamp(1)", "to_timestamp(4102444800)");
                ("gen_random_uuid()", early, late, format!("{NO_ID}::bytea"), unprotected)
            }
        };
        let how = how.replace("{random}", random).replace("{early}", early).replace("{late}", late);
        let how = how.replace("{nonsense}", &nonsense);
        let sql = format!("{unprotected}; {how}");
        match self {
            Self::Sqlite(path) => execute_sqlite(path, &sql),
            Self::Postgres(database) => database.execute(&sql).await,
        }
    }

    fn audit(&self, folder: &Path, options: &str) -> Output {
        let url = match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(database) => crate::url(database),
        };
        run(folder, &format!("audit {options}"), &[("FRONTROW_DATABASE_URL", &url)])
    }
}

/// The document of an audit that could be made.
pub(crate) fn document(output: &Output) -> Value {
    let document: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(output.code, Some(if document["clean"] == json!(true) { 0 } else { 1 }), "{output:?}");
    document
}

/// The findings of one invariant.
#[track_caller]
pub(crate) fn finding<'a>(document: &'a Value, name: &str) -> &'a Value {
    let findings = document["invariants"].as_array().unwrap();
    findings.iter().find(|finding| finding["name"] == json!(name)).unwrap_or_else(|| panic!("no {name}"))
}

#[track_caller]
fn assert_clean(copy: &Copy, database: &str) {
    let folder = tempdir().unwrap();
    let clean = document(&copy.audit(folder.path(), "--json"));
    assert_eq!((&clean["clean"], &clean["database"]), (&json!(true), &json!(database)), "{clean:#}");
    assert!(clean["auditedAt"].as_str().unwrap().starts_with("20"), "{clean:#}");
    let findings = clean["invariants"].as_array().unwrap();
    for finding in findings {
        assert_eq!((&finding["breaches"], &finding["examples"]), (&json!(0), &json!([])), "{finding}");
        assert!(finding["checked"].as_i64().unwrap() > 0, "{finding}: there is nothing to break");
    }
    let names: BTreeSet<&str> = findings.iter().map(|finding| finding["name"].as_str().unwrap()).collect();
    let broken_here = BREACHES.iter().map(|(name, _)| *name).chain(["reference"]).collect();
    assert_eq!(names, broken_here, "every invariant is broken below");
    let table = copy.audit(folder.path(), "");
    assert_eq!((table.code, broken(&table)), (Some(0), Vec::new()), "{}", table.stdout);
    assert_eq!(table.stdout.lines().filter(|line| line.contains(" ok ")).count(), names.len());
}

/// Breaks a copy, and checks that the audit names what was broken.
async fn assert_found(copy: &Copy, name: &str, how: &str) {
    copy.break_it(how).await;
    let folder = tempdir().unwrap();
    let found = document(&copy.audit(folder.path(), "--json"));
    assert_eq!(found["clean"], json!(false), "{how}");
    let finding = finding(&found, name);
    let (breaches, examples) =
        (finding["breaches"].as_u64().unwrap(), finding["examples"].as_array().unwrap());
    assert!(breaches > 0, "{name}: {how}\n{found:#}");
    assert_eq!(u64::try_from(examples.len()).unwrap(), breaches.min(10), "{finding}");
}

/// Every column that refers to a row of another table, with a way to make it refer to none.
fn dangling_references(sqlite: &Path) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Key {
        #[diesel(sql_type = Text)]
        child: String,
        #[diesel(sql_type = Text)]
        column: String,
    }
    let query = "SELECT m.name AS child, f.\"from\" AS \"column\" FROM sqlite_master m
        JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'";
    let mut connection = SqliteConnection::establish(sqlite.to_str().unwrap()).unwrap();
    let keys: Vec<Key> = diesel::sql_query(query).load(&mut connection).unwrap();
    let pruned = "INSERT INTO pruned_tokens (room_id, tokens, departures) VALUES ({random}, 1, 0)";
    let breaks = keys.iter().map(|Key { child, column }| match child.as_str() {
        "pruned_tokens" => pruned.to_owned(),
        _ => format!("UPDATE {child} SET {column} = {{random}}"),
    });
    breaks.collect()
}

/// All breaches: the invariant, and how it is broken.
fn breaches(references: &[String]) -> impl Iterator<Item = (&str, &str)> {
    BREACHES.into_iter().chain(references.iter().map(|how| ("reference", how.as_str())))
}

/// A busy sale in a file of this folder.
pub(crate) async fn sqlite_sale(folder: &Path) -> PathBuf {
    let original = folder.join("original.db");
    a_busy_sale(DatabaseUrl::Sqlite(original.clone())).await;
    original
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_every_breach_on_sqlite() {
    let folder = tempdir().unwrap();
    let original = sqlite_sale(folder.path()).await;
    let path = folder.path().join("copy.db");
    let fresh = || {
        let _ = std::fs::remove_file(&path);
        execute_sqlite(&original, &format!("VACUUM INTO '{}'", path.display()));
        Copy::Sqlite(path.clone())
    };
    assert_clean(&fresh(), "sqlite");
    let references = dangling_references(&original);
    assert!(references.len() > 20, "{references:?}");
    for (name, how) in breaches(&references) {
        assert_found(&fresh(), name, how).await;
    }
    // People read the promise, and below it which ones.
    let copy = fresh();
    copy.break_it("UPDATE accounts SET balance = balance + 1").await;
    let output = copy.audit(folder.path(), "");
    assert_eq!((output.code, broken(&output).len()), (Some(1), 2), "{}", output.stdout);
    assert!(broken(&output)[0].contains("a balance is the sum of its entries"), "{}", output.stdout);
    let below = output.stdout.lines().find(|line| line.starts_with("account-balance: "));
    assert_eq!(below.map(|line| line.split(": ").nth(1).unwrap().len()), Some(36), "{}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_finds_every_breach_on_postgresql() {
    let template = Template::new("busy_sale", |url| async move {
        a_busy_sale(DatabaseUrl::Postgres(url)).await;
        Ok(())
    });
    let Some(copy) = database(&template).await else { return };
    assert_clean(&Copy::Postgres(Database::Postgres(copy)), "postgresql");
    // The schemas are the same, but only SQLite tells of its keys that simply.
    let folder = tempdir().unwrap();
    let references = dangling_references(&sqlite_sale(folder.path()).await);
    for (name, how) in breaches(&references) {
        let copy = database(&template).await.expect("it was there before");
        assert_found(&Copy::Postgres(Database::Postgres(copy)), name, how).await;
    }
}

#[test]
fn an_audit_that_cannot_be_made_prints_no_document() {
    let folder = tempdir().unwrap();
    let output = run(folder.path(), "audit --json --database-url sqlite:missing.db", &[]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(2), ""), "{output:?}");
}
