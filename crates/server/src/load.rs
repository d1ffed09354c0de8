//! `frontrow load`: a waiting room full of people who never come, beside whatever serves.

use std::sync::Arc;

use anyhow::{Result, bail};
use frontrow_domain::ports::{Clock, IdGenerator};
use frontrow_domain::queue::{DEFAULT_ROOM_ID, RoomPolicy};
use frontrow_domain::unit_of_work::{Command, CommitError, Fill};
use frontrow_domain::{QueueTokenId, RoomId, UnitOfWork, UserId};
use frontrow_infra::identity::UuidV7;

use crate::app::prepare;
use crate::backend::{Backend, DatabaseOptions, holds_concerts};
use crate::cli::{DatabaseUrl, LoadArgs};
use crate::file::check_log;

/// How many join at once: the line is locked for a part of a second, so that a server beside this one goes on.
const BLOCK: u32 = 10_000;

/// Puts people into a room, and says so. `policy` is that of the global room, should it have to be made.
///
/// # Errors
/// When the database cannot be reached or holds concerts, or there is no such room.
pub async fn load(args: LoadArgs, database: &DatabaseUrl, policy: RoomPolicy) -> Result<String> {
    let checked = database.clone();
    tokio::task::spawn_blocking(move || check_log(&checked)).await??;
    if !args.into_existing && holds_concerts(database).await? {
        bail!(
            "{database:?} holds concerts: with --into-existing people who never come wait in its line all the same"
        );
    }
    prepare(database, policy).await?;
    let backend = Backend::open(database, DatabaseOptions::for_preparation()).await?;
    let room_id = args.room.map_or(DEFAULT_ROOM_ID, RoomId::new);
    let filled = fill(&backend, room_id, args.people).await;
    backend.close().await;
    filled?;
    Ok(format!("{} people more wait in room {room_id}", args.people))
}

async fn fill(backend: &Backend, room_id: RoomId, people: u32) -> Result<()> {
    let (storage, clock) = (backend.storage(), Arc::new(backend.clock().await?));
    let ids = UuidV7::new(clock.clone());
    let mut left = people;
    while left > 0 {
        let block = left.min(BLOCK);
        let newcomer = |_| (QueueTokenId::new(ids.next_id()), UserId::new(ids.next_id()));
        let fill = Fill { room_id, people: (0..block).map(newcomer).collect(), now: clock.now() };
        let work = UnitOfWork { command: Some(Command::Fill(fill)), ..UnitOfWork::default() };
        match storage.committer.commit(work).await {
            Ok(_) => left -= block,
            Err(CommitError::Conflict(_)) => bail!("there is no waiting room {room_id}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
