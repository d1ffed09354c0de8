//! Backup and verification of a file, and the marker in its header.
//!
//! A copy is made by `VACUUM INTO`: in one read transaction, next to a server that goes on writing. It is
//! compact, complete without a log, and not in WAL mode. While it is made the log of the original cannot
//! begin anew, so it grows by what is written meanwhile.

use std::fs;
use std::path::Path;

use diesel::QueryResult;
use diesel::connection::SimpleConnection;
use diesel::prelude::{Connection, QueryableByName, RunQueryDsl};
use diesel::result::Error as DieselError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::SqliteConnection;

use super::connection::{self, Verification};
use super::error::said_by;
use super::{Contents, OpenError};

/// Copies a file, which may be in use, into `target`, which is missing or empty, and sets the marker of the
/// copy.
pub(super) fn copy(source: &Path, target: &Path, marker: i32) -> Result<(), OpenError> {
    connection::require_file(source)?;
    let into = connection::absolute(target)?;
    connection::with_auditor(source, |connection| {
        connection::require_known_schema(connection)?;
        // It keeps SQLite from writing the copy, too.
        connection.batch_execute("PRAGMA query_only = OFF")?;
        sql_query("VACUUM INTO ?").bind::<Text, _>(into.as_str()).execute(connection)?;
        Ok(())
    })?;
    let mut copy = SqliteConnection::establish(&into)?;
    Ok(set_marker(&mut copy, marker)?)
}

/// The largest file whose indexes are compared with their tables after an unclean end, when a server waits to
/// start: that takes three times as long as the check of their pages alone, some 2 s of a processor per 100
/// MiB (ADR 0020).
const INDEXES_UP_TO: u64 = 256 << 20;

/// Checks the integrity of a file, its foreign keys, and that its schema is one of this program. Says what is
/// in it.
pub(super) fn verify(path: &Path, verification: Verification) -> Result<Contents, OpenError> {
    connection::require_file(path)?;
    let is_large = fs::metadata(path).is_ok_and(|file| file.len() > INDEXES_UP_TO);
    let check_of = match verification {
        Verification::WithLog if is_large => "quick_check",
        Verification::WithLog | Verification::WithoutLog => "integrity_check",
    };
    let connection = connection::connect_verifier(path, verification);
    connection.and_then(|mut connection| check(&mut connection, check_of)).map_err(|error| match error {
        OpenError::Setup(error) if said_by(&error).is_some_and(tells_of_damage) => {
            OpenError::Damaged(error.to_string())
        }
        other => other,
    })
}

/// What SQLite says of a file that it cannot make sense of.
fn tells_of_damage(said: &str) -> bool {
    said.contains("malformed") || said.contains("not a database")
}

fn check(connection: &mut SqliteConnection, check: &'static str) -> Result<Contents, OpenError> {
    connection::require_known_schema(connection)?;
    let complaints = format!("SELECT {check} AS text FROM pragma_{check}");
    let complaints: Vec<Line> = sql_query(complaints).load(connection)?;
    if let Some(complaint) = complaints.iter().find(|complaint| complaint.text != "ok") {
        return Err(OpenError::Damaged(complaint.text.replace('\n', " ")));
    }
    let dangling = count(connection, "pragma_foreign_key_check")?;
    if dangling > 0 {
        return Err(OpenError::Damaged(format!("{dangling} rows refer to rows that are missing")));
    }
    Ok(Contents {
        seats: count(connection, "seats")?,
        reservations: count(connection, "reservations")?,
        payments: count(connection, "payments")?,
        entries: count(connection, "entries")?,
    })
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn count(connection: &mut SqliteConnection, table: &'static str) -> QueryResult<i64> {
    let count = format!("SELECT count(*) AS count FROM {table}");
    Ok(sql_query(count).get_result::<Count>(connection)?.count)
}

/// Sets the marker of a file, and begins a new incarnation of its data if that is asked for, in one
/// transaction.
pub(super) fn mark(path: &Path, marker: i32, new_incarnation: bool) -> Result<(), OpenError> {
    connection::require_file(path)?;
    let mut connection = connection::connect(path)?;
    if new_incarnation {
        connection::require_schema(&mut connection)?;
    }
    connection.immediate_transaction::<_, DieselError, _>(|connection| {
        if new_incarnation {
            connection.batch_execute(NEW_INCARNATION)?;
        }
        set_marker(connection, marker)
    })?;
    Ok(())
}

/// Microseconds since 1970, as every time in the database.
const NEW_INCARNATION: &str = "
    UPDATE incarnation SET incarnation_id = randomblob(16),
        started_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000
";

/// The marker is the `user_version` of the file's header, which SQLite keeps for its user.
fn set_marker(connection: &mut SqliteConnection, marker: i32) -> QueryResult<()> {
    connection.batch_execute(&format!("PRAGMA user_version = {marker}"))
}

/// Whether there are concerts in a file. A file that is missing, or without tables, has none.
pub(super) fn holds_concerts(path: &Path) -> Result<bool, OpenError> {
    if connection::require_file(path).is_err() {
        return Ok(false);
    }
    connection::with_auditor(path, |connection| {
        let has_tables = count(connection, "sqlite_master WHERE type = 'table' AND name = 'concerts'")? > 0;
        Ok(has_tables && count(connection, "(SELECT 1 FROM concerts LIMIT 1)")? > 0)
    })
}
