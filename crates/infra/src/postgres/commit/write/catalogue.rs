//! Rooms, concerts and dates: what operators make, and what a tick moves; and what operators did. Few rows at a time.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use frontrow_domain::audit_log::AuditEntry;
use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::queue::Room;
use frontrow_domain::unit_of_work::CommandOutcome;
use frontrow_domain::{Change, RoomId, Version, Versioned};

use super::Failure;
use crate::postgres::cached::Cached;
use crate::postgres::session::Session;
use crate::sql::rows::{AuditRow, ConcertRow, PerformanceDateRow, RoomRow};
use crate::sql::schema::{audit_log, concerts, lines, performance_dates, rooms};
use crate::sql::types::DbId;

/// A unit has one room, so these are written one by one.
pub(super) async fn write_rooms(connection: &mut Session, changes: &[Change<Room>]) -> Result<(), Failure> {
    for change in changes {
        let written = match change {
            Change::Insert(room) => insert_room(connection, room).await?,
            Change::Update(room) => update_room(connection, room).await?,
        };
        if written == 0 {
            // Another node was faster, and has committed. The next attempt sees it.
            return Err(Failure::Again("a room has come in or moved on".into()));
        }
    }
    Ok(())
}

async fn insert_room(connection: &mut Session, room: &Room) -> QueryResult<usize> {
    let insert = diesel::insert_into(rooms::table)
        .values(RoomRow::new(room, Version::FIRST))
        .on_conflict(rooms::room_id)
        .do_nothing();
    if Cached(insert).execute(connection).await? == 0 {
        return Ok(0);
    }
    insert_line(connection, room.id).await
}

async fn insert_line(connection: &mut Session, id: RoomId) -> QueryResult<usize> {
    let line = (lines::room_id.eq(DbId(id.get())), lines::last_ticket.eq(0), lines::waiting.eq(0));
    Cached(diesel::insert_into(lines::table).values(line)).execute(connection).await
}

async fn update_room(connection: &mut Session, room: &Versioned<Room>) -> QueryResult<usize> {
    let row = RoomRow::new(&room.value, room.version.next());
    let update = diesel::update(rooms::table)
        .filter(rooms::room_id.eq(row.room_id))
        .filter(rooms::version.eq(room.version.get()))
        .set(&row);
    Cached(update).execute(connection).await
}

/// Their text grows with their number, so that they are not kept prepared; operators make one at a time.
pub(super) async fn insert_concerts(connection: &mut Session, made: &[Concert]) -> Result<(), Failure> {
    if !made.is_empty() {
        let rows: Vec<ConcertRow> = made.iter().map(Into::into).collect();
        diesel::insert_into(concerts::table).values(rows).execute(connection).await?;
    }
    Ok(())
}

/// See [`insert_concerts`].
pub(super) async fn insert_dates(connection: &mut Session, made: &[PerformanceDate]) -> Result<(), Failure> {
    if !made.is_empty() {
        let rows: Vec<PerformanceDateRow> = made.iter().map(Into::into).collect();
        diesel::insert_into(performance_dates::table).values(rows).execute(connection).await?;
    }
    Ok(())
}

/// See [`insert_concerts`].
pub(super) async fn insert_audit_log(
    connection: &mut Session,
    made: &[AuditEntry],
    outcome: Option<CommandOutcome>,
) -> Result<(), Failure> {
    if !made.is_empty() {
        let rows: Vec<AuditRow> = made.iter().map(|entry| AuditRow::new(entry, outcome)).collect();
        diesel::insert_into(audit_log::table).values(rows).execute(connection).await?;
    }
    Ok(())
}
