//! What a node knows of the lines, so that asking costs no database call (ADR 0007).
//!
//! The views follow the database by [`Lines::refresh`], which the scheduler runs several times a second. What this node
//! commits itself is in them at once: [`WatchedCommitter`] sees to it. They answer reads alone; no write is decided by them.
//!
//! A refresh also reads the incarnation of the data. A new incarnation empties all that this node knows. A refresh that reads
//! less than the one before it begins a new incarnation (ADR 0018).
//!
//! Reads: a refresh is 1 read, 1 more when somebody left a line, and 1 more every few seconds. It reads the rooms that clients
//! asked for lately, and all with waiters every few seconds; a room without waiters that no client asks for is not read
//! (ADR 0023). A waiter's request costs none, unless the room was left out: then 1 refresh, which others share. A request
//! with a token that does not wait costs 1 read of the token, unless it was read or written here within a second. A waiter
//! that entered before the incarnation of the data began costs 1 read in all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use frontrow_domain::ports::{Clock, QueueQueries, QueueTokens, StoredLines, WaitClaims};
use frontrow_domain::queue::{LineState, LineView, PlaceInLine, QueueToken, QueueTokenState, Room};
use frontrow_domain::{QueueTokenId, RoomId, Timestamp, Version, Versioned};
use futures_util::lock::Mutex as AsyncMutex;

use self::known_line::KnownLine;
use self::known_tokens::KnownTokens;
use crate::Failure;
use crate::incarnation::{Generation, KnownIncarnation};

mod known_line;
mod known_tokens;
mod polls;
mod watched;

pub(crate) use self::polls::Polls;
pub use self::watched::WatchedCommitter;

/// How old a token may be to answer while the database is away, in seconds: whoever is through asks every half minute.
const TOKEN_ANSWERS_FOR_SECONDS: u64 = 120;
/// How old a token may be to answer without a look at the database, in seconds.
const TOKEN_FRESH_SECONDS: u64 = 1;
/// A token that entered within so many seconds after the incarnation began counts as older: clocks of nodes differ a little.
const INCARNATION_MARGIN_SECONDS: u32 = 5;
/// The most departures of a line, and tickets of those, in one read.
const BATCH: u32 = 10_000;
/// How often a refresh reads all rooms with waiters: those that are new, and those that another node has changed and no client
/// asks for here.
const ALL_EVERY: Duration = Duration::from_secs(5);

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) token: Versioned<QueueToken>,
    pub(crate) room: Room,
    /// 1 for the next to be admitted; of no meaning unless it waits.
    pub(crate) position: u64,
}

/// What a node knows of the lines and of tokens. Cloning shares it.
#[derive(Clone)]
pub struct Lines(Arc<Inner>);

struct Inner {
    queries: Arc<dyn QueueQueries>,
    tokens: Arc<dyn QueueTokens>,
    clock: Arc<dyn Clock>,
    views: RwLock<Views>,
    known: KnownTokens,
    incarnation: KnownIncarnation,
    polls: Mutex<Polls>,
    /// One refresh at a time.
    refreshing: AsyncMutex<()>,
    /// Refreshes that were begun, the last one that ended, and the last one that ended well.
    begun: AtomicU64,
    ended: AtomicU64,
    succeeded: AtomicU64,
}

#[derive(Default)]
struct Views {
    by_room: BTreeMap<RoomId, KnownLine>,
    /// Rooms that somebody waits for, to be read by the next refresh whatever else it reads; each with how many refreshes had
    /// begun when it was asked for last. They stay until one that began later has read them: a refresh may fail, or be
    /// dropped, and whoever waits for it makes the next one.
    wanted: BTreeMap<RoomId, u64>,
    /// When the last refresh that ended well was begun, and the last one that read all rooms.
    as_of: Option<Timestamp>,
    all_as_of: Option<Timestamp>,
}

/// What the view of its line says of a ticket.
#[derive(Clone, Copy)]
struct Seen {
    room: Room,
    place: PlaceInLine,
    position: u64,
    /// By which refresh the line was read last.
    read_by: u64,
}

impl Lines {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(queries: Arc<dyn QueueQueries>, tokens: Arc<dyn QueueTokens>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            queries,
            tokens,
            clock,
            views: RwLock::default(),
            known: KnownTokens::new(),
            incarnation: KnownIncarnation::default(),
            polls: Mutex::default(),
            refreshing: AsyncMutex::new(()),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            succeeded: AtomicU64::new(0),
        }))
    }

    /// Takes in what was committed up to now. Several who ask at once share one that began after they asked.
    ///
    /// # Errors
    /// [`Failure`] when the lines cannot be read; what was known before still answers for a while.
    pub async fn refresh(&self) -> Result<(), Failure> {
        let inner = &*self.0;
        let begun_before = inner.begun.load(Ordering::SeqCst);
        let _turn = inner.refreshing.lock().await;
        let ended = inner.ended.load(Ordering::SeqCst);
        if ended > begun_before {
            return if inner.succeeded.load(Ordering::SeqCst) == ended {
                Ok(())
            } else {
                Err(Failure::Unavailable("the lines could not be read".into()))
            };
        }
        let this = inner.begun.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        let done = self.load(this).await;
        if done.is_ok() {
            inner.succeeded.store(this, Ordering::SeqCst);
        }
        inner.ended.store(this, Ordering::SeqCst);
        done
    }

    /// The incarnation of the data that this node's knowledge is of, to be shared by its caches.
    #[must_use]
    pub fn incarnation(&self) -> KnownIncarnation {
        self.0.incarnation.clone()
    }

    async fn load(&self, this: u64) -> Result<(), Failure> {
        let now = self.0.clock.now();
        let (rooms, reads_all) = self.rooms_to_read(now);
        let states = self.read_states(&rooms, reads_all, now).await?;
        let mut behind = Vec::new();
        for state in &states {
            match self.advance(state) {
                None => self.load_line(state, now).await?,
                Some(seen) if seen < state.departures => behind.push((state.room.value.id, seen)),
                Some(_) => {}
            }
        }
        while !behind.is_empty() {
            behind = self.load_departures(behind).await?;
        }
        self.write(|views| {
            for state in &states {
                if let Some(line) = views.by_room.get_mut(&state.room.value.id) {
                    line.was_read(*state, now, this);
                }
            }
            views.wanted.retain(|_, begun| *begun >= this);
            views.as_of = Some(now);
            if reads_all {
                views.all_as_of = Some(now);
            }
        });
        Ok(())
    }

    /// The lines of these rooms, and with `reads_all` of all that have waiters, in an incarnation in which they have not gone
    /// back.
    async fn read_states(
        &self,
        rooms: &BTreeSet<RoomId>,
        reads_all: bool,
        now: Timestamp,
    ) -> Result<Vec<LineState>, Failure> {
        let Inner { queries, incarnation, .. } = &*self.0;
        let mut stored = self.read_stored(rooms, reads_all).await?;
        let is_the_same = incarnation.current() == Some(stored.incarnation);
        if is_the_same && (incarnation.is_reported_gone_back() || self.has_gone_back(&stored, rooms)) {
            tracing::warn!(
                "the stored data has gone back, as by a restored backup: a new incarnation begins"
            );
            queries.begin_incarnation(stored.incarnation.id, now).await?;
            stored = self.read_stored(rooms, reads_all).await?;
        }
        if incarnation.adopt(stored.incarnation) {
            tracing::warn!(incarnation = %stored.incarnation.id, "another incarnation of the data: caches are emptied");
            self.polls(Polls::clear);
            self.write(|views| {
                *views = Views { wanted: std::mem::take(&mut views.wanted), ..Views::default() }
            });
        }
        Ok(stored.lines)
    }

    async fn read_stored(&self, rooms: &BTreeSet<RoomId>, reads_all: bool) -> Result<StoredLines, Failure> {
        let queries = &self.0.queries;
        if !reads_all {
            return Ok(queries.lines_of(rooms.iter().copied().collect()).await?);
        }
        let mut stored = queries.lines().await?;
        let read: BTreeSet<_> = stored.lines.iter().map(|state| state.room.value.id).collect();
        let others: Vec<_> = rooms.difference(&read).copied().collect();
        if !others.is_empty() {
            let more = queries.lines_of(others).await?;
            if more.incarnation != stored.incarnation {
                return Err(Failure::Unavailable("the data was replaced while it was read".into()));
            }
            stored.lines.extend(more.lines);
        }
        Ok(stored)
    }

    /// Whether any of these rooms that was read before is gone, or any line has a counter that is lower than it was.
    fn has_gone_back(&self, stored: &StoredLines, rooms: &BTreeSet<RoomId>) -> bool {
        let states: BTreeMap<_, _> = stored.lines.iter().map(|state| (state.room.value.id, state)).collect();
        let views = self.0.views.read().unwrap_or_else(PoisonError::into_inner);
        let mut known = views.by_room.iter();
        known.any(|(id, line)| match states.get(id) {
            Some(state) => line.is_ahead_of(state),
            None => rooms.contains(id) && line.was_read_before(),
        })
    }

    /// Which rooms a refresh reads, and whether all others with waiters as well: those are due again after a while, and when
    /// the clock was turned back.
    fn rooms_to_read(&self, now: Timestamp) -> (BTreeSet<RoomId>, bool) {
        self.write(|views| {
            let lately = |as_of: Timestamp| as_of <= now && now.since(as_of) < ALL_EVERY;
            let reads_all = !views.all_as_of.is_some_and(lately);
            let watched = views.by_room.iter().filter(|(_, line)| line.is_watched(now));
            let rooms = watched.map(|(room_id, _)| room_id).chain(views.wanted.keys()).copied().collect();
            (rooms, reads_all)
        })
    }

    /// Takes in the counters of a line that is known, and says up to which number its departures are.
    fn advance(&self, state: &LineState) -> Option<i64> {
        self.write(|views| {
            let view = &mut views.by_room.get_mut(&state.room.value.id)?.view;
            view.advance(state);
            Some(view.departures_seen())
        })
    }

    /// A line that is not known yet shows when all of it is. Of its departures only those behind the last one admitted
    /// count, and mostly there are none. Some may be later than its counters: they come a second time, and do no harm.
    async fn load_line(&self, state: &LineState, now: Timestamp) -> Result<(), Failure> {
        let room_id = state.room.value.id;
        let mut view = LineView::new(state.room);
        view.advance(state);
        let mut after = state.admitted_through;
        let mut is_behind = state.departed_in_line() > 0;
        while is_behind {
            let tickets = self.0.queries.departed_tickets(room_id, after, BATCH).await?;
            tickets.iter().for_each(|ticket| view.departed(*ticket));
            after = tickets.last().copied().unwrap_or(after);
            is_behind = is_full(tickets.len());
        }
        view.departures_are_known(state.departures);
        self.write(|views| views.by_room.insert(room_id, KnownLine::new(view, now)));
        Ok(())
    }

    /// Takes in the next departures of lines, and says which have more.
    async fn load_departures(&self, behind: Vec<(RoomId, i64)>) -> Result<Vec<(RoomId, i64)>, Failure> {
        let found = self.0.queries.departures(behind, BATCH).await?;
        let mut read: BTreeMap<RoomId, (usize, i64)> = BTreeMap::new();
        self.write(|views| {
            for (room_id, departure) in found {
                let Some(line) = views.by_room.get_mut(&room_id) else { continue };
                line.view.departed(departure.ticket);
                line.view.departures_are_known(departure.number);
                let (count, last) = read.entry(room_id).or_default();
                *count = count.saturating_add(1);
                *last = departure.number;
            }
        });
        let more = read.into_iter().filter(|(_, (count, _))| is_full(*count));
        Ok(more.map(|(room_id, (_, last))| (room_id, last)).collect())
    }

    /// Where the token behind these claims stands; `None` when there is no such token of that user.
    ///
    /// # Errors
    /// [`Failure`] when what is known is too old and storage cannot be read.
    pub(crate) async fn standing(&self, claims: &WaitClaims) -> Result<Option<Standing>, Failure> {
        let now = self.0.clock.now();
        let Some(Seen { room, place, position, .. }) = self.see(claims, now).await? else { return Ok(None) };
        let token = match place {
            PlaceInLine::Waiting { .. } if self.may_be_lost(claims) => self.verified(claims, now).await?,
            PlaceInLine::Waiting { .. } => Some(waiting(claims)),
            PlaceInLine::Left | PlaceInLine::Unknown => {
                self.token(claims, place == PlaceInLine::Left, now).await?
            }
        };
        let Some(token) = token.filter(|token| token.value.user_id == claims.user_id) else {
            return Ok(None);
        };
        if let PlaceInLine::Waiting { position } = place
            && token.value.state == QueueTokenState::Wait
            && room.policy.notes_polls_at(position)
        {
            self.polls(|polls| polls.note(claims.token_id, now));
        }
        Ok(Some(Standing { token, room, position }))
    }

    /// Whether the data may not know a token although it was signed: it entered before this incarnation of the data began, and
    /// has not been found since.
    fn may_be_lost(&self, claims: &WaitClaims) -> bool {
        let Inner { incarnation, known, .. } = &*self.0;
        let is_older = incarnation.current().is_some_and(|incarnation| {
            claims.entered_at < incarnation.started_at.plus_seconds(INCARNATION_MARGIN_SECONDS)
        });
        is_older && !known.is_known_stored(claims.token_id, incarnation.generation())
    }

    /// The token that a line takes for a waiting one, as it is stored; `None` when there is none in this place.
    async fn verified(
        &self,
        claims: &WaitClaims,
        now: Timestamp,
    ) -> Result<Option<Versioned<QueueToken>>, Failure> {
        let generation = self.generation();
        let token = self.0.tokens.find(claims.token_id).await?;
        let token = token.filter(|token| WaitClaims::from(&token.value) == *claims);
        Ok(token.map(|token| {
            self.0.known.note_stored(claims.token_id, generation);
            if token.value.state == QueueTokenState::Wait { token } else { self.keep(token, now, generation) }
        }))
    }

    /// What the view of its line says of a ticket. A line that was left out by the last refresh is read first; what is known of
    /// it must do while storage is away.
    async fn see(&self, claims: &WaitClaims, now: Timestamp) -> Result<Option<Seen>, Failure> {
        let seen = self.look(claims, now);
        if seen.is_some_and(|seen| self.is_of_the_last_refresh(&seen)) {
            return Ok(seen);
        }
        // Counted under the lock: a refresh that began later has not looked yet at what is wanted.
        self.write(|views| views.wanted.insert(claims.room_id, self.0.begun.load(Ordering::SeqCst)));
        match self.refresh().await {
            Ok(()) => Ok(self.look(claims, now)),
            Err(error) => seen.map(Some).ok_or(error),
        }
    }

    /// Whether no refresh has left out this line since it was read. After one that failed there is no better.
    fn is_of_the_last_refresh(&self, seen: &Seen) -> bool {
        // In this order: one that ends well meanwhile must not look like one that failed.
        let ended = self.0.ended.load(Ordering::SeqCst);
        let succeeded = self.0.succeeded.load(Ordering::SeqCst);
        seen.read_by >= succeeded || succeeded < ended
    }

    /// What the view of its line says of a ticket; `None` when there is no view, or it is too old.
    fn look(&self, claims: &WaitClaims, now: Timestamp) -> Option<Seen> {
        let views = self.0.views.read().unwrap_or_else(PoisonError::into_inner);
        let line = views.by_room.get(&claims.room_id)?;
        line.is_asked_for(now);
        let (view, read_by) = (&line.view, line.read_by());
        line.answers(now).then(|| Seen {
            room: *view.room(),
            place: view.place(claims.ticket),
            position: view.position(claims.ticket),
            read_by,
        })
    }

    /// The token behind these claims, as it was within the last second; longer ago while storage is away. One that is
    /// known to have left the line (`has_left`) is not looked for among those that waited when they were read.
    async fn token(
        &self,
        claims: &WaitClaims,
        has_left: bool,
        now: Timestamp,
    ) -> Result<Option<Versioned<QueueToken>>, Failure> {
        let generation = self.generation();
        let known = self.0.known.get(claims.token_id, generation);
        let newest = known.map(|known| known.token.version);
        let known = known.filter(|known| !has_left || known.token.value.state != QueueTokenState::Wait);
        // A deadline that passes may have been moved: by a pause of the sale.
        let is_over =
            |token: &QueueToken| matches!(token.state, QueueTokenState::Active { .. }) && !token.is_live(now);
        let fresh = known.filter(|known| known.age_seconds(now) < TOKEN_FRESH_SECONDS);
        if let Some(known) = fresh.filter(|known| !is_over(&known.token.value)) {
            return Ok(Some(known.token));
        }
        match self.0.tokens.find(claims.token_id).await {
            Ok(token) => Ok(token.map(|token| {
                if newest.is_some_and(|newest| token.version < newest) {
                    self.0.incarnation.report_gone_back(generation);
                }
                self.keep(token, now, generation)
            })),
            Err(error) => match known.filter(|known| known.age_seconds(now) < TOKEN_ANSWERS_FOR_SECONDS) {
                Some(known) => Ok(Some(known.token)),
                None => Err(error.into()),
            },
        }
    }

    /// The generation of what is read or written from now on.
    pub(crate) fn generation(&self) -> Generation {
        self.0.incarnation.generation()
    }

    /// Takes in a token that was just read or written. The read or the commit began in this generation.
    pub(crate) fn remember(&self, token: Versioned<QueueToken>, generation: Generation) {
        if token.value.state == QueueTokenState::Wait {
            self.0.known.note_stored(token.value.id, generation);
            self.meet(&token.value, generation);
        } else {
            self.keep(token, self.0.clock.now(), generation);
        }
    }

    /// Remembers a token, and gives back what is known of it now.
    fn keep(
        &self,
        token: Versioned<QueueToken>,
        now: Timestamp,
        generation: Generation,
    ) -> Versioned<QueueToken> {
        let known = self.0.known.put(token, now, generation);
        self.meet(&known.value, generation);
        known
    }

    /// Moves a line on that is behind one of its tokens: what was told of the token is not taken back when counters that were
    /// read before come in late. A line that is not known yet is read as a whole later on.
    fn meet(&self, token: &QueueToken, generation: Generation) {
        let is_behind = {
            let views = self.0.views.read().unwrap_or_else(PoisonError::into_inner);
            views.by_room.get(&token.room_id).is_some_and(|line| line.view.is_behind(token))
        };
        if is_behind {
            self.write(|views| {
                let line = views.by_room.get_mut(&token.room_id).filter(|_| generation == self.generation());
                line.map(|line| line.view.met(token))
            });
        }
    }

    /// Lets go of a token, so that it is read the next time.
    fn forget(&self, id: QueueTokenId) {
        self.0.known.remove(id);
    }

    /// Drops the tokens of a room, all of which may have changed.
    fn forget_room(&self, room_id: RoomId) {
        self.0.known.remove_room(room_id);
    }

    /// The rooms in which abandoned places are given up; `None` when what is known is older than `seconds`.
    pub(crate) fn rooms_with_grace(&self, seconds: u64, now: Timestamp) -> Option<Vec<Room>> {
        let views = self.0.views.read().unwrap_or_else(PoisonError::into_inner);
        views.as_of.filter(|as_of| now.since(*as_of).as_secs() < seconds)?;
        let lines = views.by_room.values().filter(|line| line.gives_up_places());
        Some(lines.map(|line| *line.view.room()).collect())
    }

    pub(crate) fn polls<T>(&self, work: impl FnOnce(&mut Polls) -> T) -> T {
        work(&mut self.0.polls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, work: impl FnOnce(&mut Views) -> T) -> T {
        work(&mut self.0.views.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A token that waits is as it was made: nothing is written to it before it leaves the line.
fn waiting(claims: &WaitClaims) -> Versioned<QueueToken> {
    let WaitClaims { token_id, room_id, user_id, ticket, entered_at } = *claims;
    let state = QueueTokenState::Wait;
    Versioned::new(QueueToken { id: token_id, room_id, user_id, ticket, entered_at, state }, Version::FIRST)
}

/// Whether a read of so many may have left some.
fn is_full(count: usize) -> bool {
    u32::try_from(count).unwrap_or(u32::MAX) >= BATCH
}

#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tests;
