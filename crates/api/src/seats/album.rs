//! Which picture is sent, and when it is drawn again.
//!
//! A map of few seats is drawn as soon as it has changed. One of many is drawn elsewhere, by one at a time, some ten times a
//! second while it changes: each new picture is one that everybody who looks has to fetch. Drawing takes no more than a fifth
//! of the time of one thread. Meanwhile the picture of before is sent, unless it is older than [`OLDEST`]. A map knows what
//! was true at most 150 ms ago, which makes the promised 250.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use actix_web::web;
use frontrow_app::{Failure, SeatMap, SeatsShown};
use frontrow_domain::ports::SeatFilter;
use frontrow_domain::seat::FeedVersion;
use frontrow_domain::{PerformanceDateId, Timestamp};

use super::delta::{Class, Delta, Deltas};
use super::{Parts, Picture};
use crate::etag::Encoding;
use crate::problem::Problem;

/// Up to so many seats are written at once, where the request is served: a matter of a millisecond.
pub(crate) const FEW_SEATS: usize = 2_000;
/// How old a picture of a map may be that has changed since.
const OLDEST: Duration = Duration::from_millis(100);
/// A picture of many seats does for at least so long; whoever comes between this age and [`OLDEST`] has the next one drawn, and
/// nobody has to wait for it.
const YOUNG: Duration = Duration::from_millis(80);
/// A map is not drawn again before so many times the time that drawing it took.
const REST: u32 = 4;

/// Albums, each with the map that its pictures are of.
type ByDate = HashMap<PerformanceDateId, (Weak<SeatMap>, Arc<Album>)>;

/// The pictures of every map that is there. Cloning shares them.
#[derive(Clone, Default)]
pub(crate) struct Albums(Arc<Mutex<ByDate>>);

impl Albums {
    /// The pictures of a map.
    pub(crate) fn of(&self, id: PerformanceDateId, map: &Arc<SeatMap>) -> Arc<Album> {
        let mut albums = lock(&self.0);
        match albums.get(&id) {
            Some((of, album)) if std::ptr::eq(of.as_ptr(), Arc::as_ptr(map)) => album.clone(),
            _ => {
                // Maps come and go seldom; pictures go with them.
                albums.retain(|_, (map, _)| map.strong_count() > 0);
                let album = Arc::new(Album::default());
                albums.insert(id, (Arc::downgrade(map), album.clone()));
                album
            }
        }
    }
}

/// The pictures of one map.
#[derive(Default)]
pub(crate) struct Album {
    all: Slot,
    available: Slot,
    deltas: Deltas,
}

#[derive(Default)]
struct Slot {
    newest: Mutex<Option<Arc<Picture>>>,
    /// Held by whoever draws.
    drawing: futures_util::lock::Mutex<()>,
}

impl Album {
    fn slot(&self, filter: SeatFilter) -> &Slot {
        match filter {
            SeatFilter::All => &self.all,
            SeatFilter::Available => &self.available,
        }
    }

    /// A picture of the map as it is at `now`, or was a moment ago.
    ///
    /// # Errors
    /// 503 when the map has been emptied meanwhile; else never, in effect: see [`Picture::draw`].
    pub(crate) async fn picture(
        self: &Arc<Self>,
        map: &Arc<SeatMap>,
        filter: SeatFilter,
        now: Timestamp,
    ) -> Result<Arc<Picture>, Problem> {
        let slot = self.slot(filter);
        let revision = map.revision(now);
        let newest = slot.newest();
        if let Some(picture) = newest.as_ref().filter(|picture| picture.revision() == revision) {
            return Ok(picture.clone());
        }
        let few = newest.as_ref().is_some_and(|picture| picture.seats() <= FEW_SEATS);
        if few {
            return slot.draw(shown(map, now)?, filter);
        }
        let _drawing = match newest.filter(|picture| picture.age() < OLDEST) {
            Some(picture) if picture.age() < picture.cost().saturating_mul(REST).max(YOUNG) => {
                return Ok(picture);
            }
            Some(picture) => match slot.drawing.try_lock() {
                Some(drawing) => drawing,
                None => return Ok(picture),
            },
            None => slot.drawing.lock().await,
        };
        // Somebody else may have drawn it meanwhile, of the same or a later moment.
        if let Some(picture) = slot.newest().filter(|picture| picture.revision() >= revision) {
            return Ok(picture);
        }
        let (album, shown) = (self.clone(), shown(map, now)?);
        let drawn = web::block(move || album.slot(filter).draw(shown, filter)).await;
        drawn.map_err(Problem::internal)?
    }

    /// The body of a picture in an encoding.
    ///
    /// # Errors
    /// Never, in effect: see [`Picture::zip`].
    pub(crate) async fn body(&self, picture: &Arc<Picture>, encoding: Encoding) -> Result<Parts, Problem> {
        if encoding == Encoding::Identity {
            return Ok(picture.plain().clone());
        }
        if let Some(zipped) = picture.zipped() {
            return Ok(zipped.clone());
        }
        if picture.seats() <= FEW_SEATS {
            picture.zip()?;
        } else {
            // One at a time: the others wait for what the first makes.
            let _zipping = self.slot(picture.filter()).drawing.lock().await;
            let picture = picture.clone();
            web::block(move || picture.zip()).await.map_err(Problem::internal)??;
        }
        picture.zipped().cloned().ok_or_else(|| Problem::internal("a compressed picture is gone"))
    }

    /// All seats for somebody who asked what has changed, but since when nobody knows.
    ///
    /// # Errors
    /// As [`Self::picture`]; else never, in effect: see [`Picture::since_unknown`].
    pub(crate) async fn since_unknown(
        self: &Arc<Self>,
        map: &Arc<SeatMap>,
        encoding: Encoding,
        now: Timestamp,
    ) -> Result<Parts, Problem> {
        let picture = self.picture(map, SeatFilter::All, now).await?;
        if encoding == Encoding::Identity || picture.seats() <= FEW_SEATS {
            return picture.since_unknown(encoding);
        }
        // Compresses the pieces that are shared; the rest is little.
        self.body(&picture, encoding).await?;
        picture.since_unknown(encoding)
    }

    /// The delta for a caller that lacks the changes of `seats` seats since a version, shared with others that lack about as
    /// much. `None` where it is to get the whole map instead.
    ///
    /// # Errors
    /// Never, in effect: see [`Delta::render`].
    pub(crate) async fn delta(
        self: &Arc<Self>,
        map: &Arc<SeatMap>,
        (since, seats): (FeedVersion, usize),
        accepted: Encoding,
        now: Timestamp,
    ) -> Result<Option<Arc<Delta>>, Problem> {
        let (class, revision) = (Class::of(seats, accepted), map.revision(now));
        let current = || self.deltas.find(class, since).filter(|delta| does(delta, revision));
        if let Some(delta) = current() {
            return Ok(Some(delta));
        }
        if seats <= FEW_SEATS {
            return self.render(map, (since, class), accepted, now);
        }
        // One at a time: the others wait for what the first renders.
        let _rendering = self.deltas.rendering.lock().await;
        if let Some(delta) = current() {
            return Ok(Some(delta));
        }
        let (album, map) = (self.clone(), map.clone());
        let rendered = web::block(move || album.render(&map, (since, class), accepted, now)).await;
        rendered.map_err(Problem::internal)?
    }

    fn render(
        &self,
        map: &SeatMap,
        (since, class): (FeedVersion, Class),
        accepted: Encoding,
        now: Timestamp,
    ) -> Result<Option<Arc<Delta>>, Problem> {
        if !self.deltas.has_room() {
            return Ok(None);
        }
        let Some(changed) = map.changed_since_or_earlier(since, now) else { return Ok(None) };
        let delta = Arc::new(Delta::render(&changed, accepted)?);
        self.deltas.insert(class, &delta);
        Ok(Some(delta))
    }
}

/// Whether a delta is still sent: the map has not changed since, or there are many seats and it is young.
fn does(delta: &Delta, revision: u64) -> bool {
    let youth = delta.cost().saturating_mul(REST).clamp(YOUNG, OLDEST);
    delta.revision() == revision || (delta.seats() > FEW_SEATS && delta.age() < youth)
}

fn shown(map: &SeatMap, now: Timestamp) -> Result<SeatsShown, Problem> {
    map.shown(now).ok_or_else(|| Failure::Unavailable("a seat map has been emptied".into()).into())
}

impl Slot {
    fn newest(&self) -> Option<Arc<Picture>> {
        lock(&self.newest).clone()
    }

    fn draw(&self, shown: SeatsShown, filter: SeatFilter) -> Result<Arc<Picture>, Problem> {
        let before = self.newest();
        let picture = Arc::new(Picture::draw(shown, filter, before.as_deref())?);
        let mut newest = lock(&self.newest);
        // Of two that draw at once the later moment counts.
        if newest.as_ref().is_none_or(|newest| newest.revision() <= picture.revision()) {
            *newest = Some(picture.clone());
        }
        Ok(picture)
    }
}

/// Nothing that is done under these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
