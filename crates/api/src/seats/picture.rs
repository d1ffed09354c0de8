//! Drawing: JSON, compression and the entity tag of the seats of a date.
//!
//! A picture is put together from pieces of [`PIECE_SEATS`] seats. The next picture of the same map takes over the pieces in
//! which nothing has changed, compressed ones too: a piece is compressed by itself, and what is compressed can be put together
//! as well, into one gzip member.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix_web::http::header::HeaderValue;
use actix_web::web::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};
use frontrow_app::{SeatsChanged, SeatsShown};
use frontrow_domain::ports::SeatFilter;
use frontrow_domain::seat::{FeedVersion, SeatLayout, SeatSpot, SeatStatus};
use sha2::{Digest, Sha256};

use super::Parts;
use crate::dto::name_of;
use crate::etag::Encoding;
use crate::problem::Problem;
use crate::routes::concerts::{SeatDto, SeatsSinceDto};

/// How many seats a piece has: fewer are less to draw again for one change, more compress better.
const PIECE_SEATS: usize = 64;
/// Part of every tag: to be changed with the way in which seats are written.
const FORMAT: &str = "seats 1";

const BEGINNING: &[u8] = b"{\"seats\":[";
const END: &[u8] = b"]}";

/// The seats of a date as some filter shows them.
pub(crate) struct Picture {
    filter: SeatFilter,
    layout: Arc<SeatLayout>,
    /// What the layout says, see [`digest_of`].
    layout_digest: [u8; 32],
    /// As drawn: where the filter shows AVAILABLE seats only, all the others are alike.
    statuses: Vec<SeatStatus>,
    pieces: Vec<Arc<Piece>>,
    revision: u64,
    version: FeedVersion,
    version_text: HeaderValue,
    tag: HeaderValue,
    zipped_tag: HeaderValue,
    plain: Parts,
    zipped: OnceLock<Parts>,
    /// The bodies of [`Self::since_unknown`].
    since_unknown: [OnceLock<Parts>; 2],
    /// Whether somebody wanted it compressed.
    zip_wanted: AtomicBool,
    drawn_at: Instant,
    cost: Duration,
}

/// The text of some seats, without the brackets around them.
struct Piece {
    plain: Bytes,
    zipped: OnceLock<(Bytes, Crc)>,
}

impl Picture {
    /// Draws what a map shows, over the picture of before if it is of the same seats.
    ///
    /// # Errors
    /// Never: everything is written to memory.
    pub(crate) fn draw(
        shown: SeatsShown,
        filter: SeatFilter,
        before: Option<&Self>,
    ) -> Result<Self, Problem> {
        let drawn_at = Instant::now();
        let before = before.filter(|before| Arc::ptr_eq(&before.layout, &shown.layout));
        let SeatsShown { layout, mut statuses, version, revision } = shown;
        if filter == SeatFilter::Available {
            for status in statuses.iter_mut().filter(|status| **status != SeatStatus::Available) {
                *status = SeatStatus::Unavailable;
            }
        }
        let pieces = draw_pieces(&layout, &statuses, filter, before)?;
        let layout_digest = before.map_or_else(|| digest_of(&layout), |before| before.layout_digest);
        let digest = tag_digest(layout_digest, filter, &statuses);
        let [tag, zipped_tag] =
            [Encoding::Identity, Encoding::Gzip].map(|encoding| tag(digest.clone(), encoding));
        let picture = Self {
            filter,
            layout_digest,
            plain: plain_from(&pieces),
            pieces,
            revision,
            version,
            version_text: HeaderValue::from(version.get()),
            tag: tag.map_err(Problem::internal)?,
            zipped_tag: zipped_tag.map_err(Problem::internal)?,
            zipped: OnceLock::new(),
            since_unknown: [OnceLock::new(), OnceLock::new()],
            zip_wanted: AtomicBool::new(false),
            drawn_at,
            cost: Duration::ZERO,
            layout,
            statuses,
        };
        if before.is_some_and(|before| before.zip_wanted.load(Ordering::Relaxed)) {
            picture.zip()?;
        }
        Ok(Self { cost: drawn_at.elapsed(), ..picture })
    }

    /// See [`frontrow_app::SeatMap::revision`].
    pub(crate) const fn revision(&self) -> u64 {
        self.revision
    }

    /// The version to ask with for what has changed since.
    pub(crate) const fn version(&self) -> &HeaderValue {
        &self.version_text
    }

    /// What it shows.
    pub(crate) const fn filter(&self) -> SeatFilter {
        self.filter
    }

    /// How many seats the map has.
    pub(crate) const fn seats(&self) -> usize {
        self.statuses.len()
    }

    /// How long ago the map looked so.
    pub(crate) fn age(&self) -> Duration {
        self.drawn_at.elapsed()
    }

    /// How long it took to draw.
    pub(crate) const fn cost(&self) -> Duration {
        self.cost
    }

    /// The strong entity tag of the body in this encoding: another body has another, on every node.
    pub(crate) const fn tag(&self, encoding: Encoding) -> &HeaderValue {
        match encoding {
            Encoding::Identity => &self.tag,
            Encoding::Gzip => &self.zipped_tag,
        }
    }

    /// The body as it is.
    pub(crate) const fn plain(&self) -> &Parts {
        &self.plain
    }

    /// The compressed body, once it has been made.
    pub(crate) fn zipped(&self) -> Option<&Parts> {
        self.zip_wanted.store(true, Ordering::Relaxed);
        self.zipped.get()
    }

    /// Makes the compressed body.
    ///
    /// # Errors
    /// Never: the compressor writes to memory.
    pub(crate) fn zip(&self) -> Result<(), Problem> {
        if self.zipped.get().is_none() {
            let zipped = self.zipped_from(BEGINNING)?;
            let _ = self.zipped.set(zipped);
        }
        Ok(())
    }

    /// The whole map as the answer to `since`, put together once for all callers.
    ///
    /// # Errors
    /// Never, see [`Picture::zip`].
    pub(crate) fn since_unknown(&self, encoding: Encoding) -> Result<Parts, Problem> {
        debug_assert!(self.filter == SeatFilter::All, "seats of every status are told");
        let [plain, zipped] = &self.since_unknown;
        let kept = match encoding {
            Encoding::Identity => plain,
            Encoding::Gzip => zipped,
        };
        if let Some(body) = kept.get() {
            return Ok(body.clone());
        }
        let beginning = format!("{{\"version\":{},\"full\":true,\"seats\":[", self.version.get());
        let body = match encoding {
            Encoding::Identity => self.plain.with_beginning(Bytes::from(beginning), BEGINNING.len()),
            Encoding::Gzip => self.zipped_from(beginning.as_bytes())?,
        };
        Ok(kept.get_or_init(|| body).clone())
    }

    fn zipped_from(&self, beginning: &[u8]) -> Result<Parts, Problem> {
        let mut zipper = Zipper::new();
        let (comma, comma_crc) = zipper.zip(b",", FlushCompress::Full)?;
        let (first, mut crc) = zipper.zip(beginning, FlushCompress::Full)?;
        let mut parts = vec![Bytes::from_static(GZIP_HEADER), first];
        for (at, piece) in self.pieces.iter().filter(|piece| !piece.plain.is_empty()).enumerate() {
            if at > 0 {
                parts.push(comma.clone());
                crc.combine(&comma_crc);
            }
            let (zipped, piece_crc) = piece.zipped(&mut zipper)?;
            parts.push(zipped.clone());
            crc.combine(piece_crc);
        }
        let (last, last_crc) = zipper.zip(END, FlushCompress::Finish)?;
        crc.combine(&last_crc);
        parts.push(last);
        let trailer: Vec<u8> = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
        parts.push(trailer.into());
        Ok(Parts::new(parts))
    }
}

fn plain_from(pieces: &[Arc<Piece>]) -> Parts {
    let mut parts = vec![Bytes::from_static(BEGINNING)];
    for (at, piece) in pieces.iter().filter(|piece| !piece.plain.is_empty()).enumerate() {
        if at > 0 {
            parts.push(Bytes::from_static(b","));
        }
        parts.push(piece.plain.clone());
    }
    parts.push(Bytes::from_static(END));
    Parts::new(parts)
}

fn draw_pieces(
    layout: &SeatLayout,
    statuses: &[SeatStatus],
    filter: SeatFilter,
    before: Option<&Picture>,
) -> Result<Vec<Arc<Piece>>, Problem> {
    let draw = |(number, statuses): (usize, &[SeatStatus])| {
        let from = number.saturating_mul(PIECE_SEATS);
        let same = before.and_then(|before| {
            let then = before.statuses.get(from..from.saturating_add(statuses.len()))?;
            before.pieces.get(number).filter(|_| then == statuses)
        });
        match same {
            Some(piece) => Ok(piece.clone()),
            None => Piece::draw(layout, from, statuses, filter).map(Arc::new),
        }
    };
    statuses.chunks(PIECE_SEATS).enumerate().map(draw).collect()
}

impl Piece {
    fn draw(
        layout: &SeatLayout,
        from: usize,
        statuses: &[SeatStatus],
        filter: SeatFilter,
    ) -> Result<Self, Problem> {
        let mut text = Vec::new();
        for (at, status) in (from..).zip(statuses) {
            let is_shown = filter == SeatFilter::All || *status == SeatStatus::Available;
            if let Some(spot) = layout.spot(at).filter(|_| is_shown) {
                write_seat(&mut text, &spot, *status)?;
            }
        }
        Ok(Self { plain: Bytes::from(text), zipped: OnceLock::new() })
    }

    fn zipped(&self, zipper: &mut Zipper) -> Result<&(Bytes, Crc), Problem> {
        if self.zipped.get().is_none() {
            let _ = self.zipped.set(zipper.zip(&self.plain, FlushCompress::Full)?);
        }
        self.zipped.get().ok_or_else(|| Problem::internal("a compressed piece is gone"))
    }
}

fn write_seat(text: &mut Vec<u8>, spot: &SeatSpot<'_>, status: SeatStatus) -> Result<(), Problem> {
    if !text.is_empty() {
        text.push(b',');
    }
    serde_json::to_writer(text, &SeatDto::new(spot, status)).map_err(Problem::internal)
}

/// The answer to somebody who asks what has changed.
///
/// # Errors
/// Never: it is written to memory.
pub(crate) fn delta(changed: &SeatsChanged) -> Result<Vec<u8>, Problem> {
    let dto = |(at, status): &(usize, SeatStatus)| {
        changed.layout.spot(*at).map(|spot| SeatDto::new(&spot, *status))
    };
    let seats = changed.seats.iter().filter_map(dto).collect();
    let body = SeatsSinceDto { version: changed.version.get(), full: false, seats };
    serde_json::to_vec(&body).map_err(Problem::internal)
}

/// A gzip member of no name and no time.
const GZIP_HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// Compresses texts so that each can be read behind any other.
struct Zipper(Compress);

impl Zipper {
    fn new() -> Self {
        Self(Compress::new(Compression::fast(), false))
    }

    fn zip(&mut self, text: &[u8], flush: FlushCompress) -> Result<(Bytes, Crc), Problem> {
        let mut crc = Crc::new();
        crc.update(text);
        let mut zipped = Vec::with_capacity(text.len().saturating_div(2).saturating_add(64));
        let before = self.0.total_in();
        loop {
            let read = self.0.total_in().saturating_sub(before);
            let rest = usize::try_from(read).ok().and_then(|read| text.get(read..)).unwrap_or_default();
            self.0.compress_vec(rest, &mut zipped, flush).map_err(Problem::internal)?;
            // With room left everything has been read and written.
            if zipped.len() < zipped.capacity() {
                return Ok((Bytes::from(zipped), crc));
            }
            zipped.reserve(zipped.capacity().max(64));
        }
    }
}

/// All that a layout says. Seats never change, but a tag is to stand for what is sent, whoever has changed them.
fn digest_of(layout: &SeatLayout) -> [u8; 32] {
    let mut digest = Sha256::new();
    for spot in (0..layout.len()).filter_map(|at| layout.spot(at)) {
        digest.update(spot.id.get().as_bytes());
        for label in [spot.section, spot.grade] {
            digest.update(label.as_str());
            digest.update([0]);
        }
        digest.update(spot.row.to_le_bytes());
        digest.update(spot.number.to_le_bytes());
        digest.update(spot.price.minor_units().to_le_bytes());
    }
    digest.finalize().into()
}

fn tag_digest(layout: [u8; 32], filter: SeatFilter, statuses: &[SeatStatus]) -> Sha256 {
    let mut digest = Sha256::new();
    digest.update(FORMAT);
    digest.update(match filter {
        SeatFilter::All => [0],
        SeatFilter::Available => [1],
    });
    digest.update(layout);
    let letters: Vec<u8> = statuses.iter().map(|status| first_letter(*status)).collect();
    digest.update(letters);
    digest
}

fn first_letter(status: SeatStatus) -> u8 {
    name_of(&SeatStatus::NAMES, status).bytes().next().unwrap_or_default()
}

fn tag(
    mut digest: Sha256,
    encoding: Encoding,
) -> Result<HeaderValue, impl std::error::Error + Send + Sync + 'static> {
    digest.update(encoding.name());
    let digest: [u8; 32] = digest.finalize().into();
    let mut tag = String::from("\"");
    for byte in digest.iter().take(16) {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    HeaderValue::try_from(tag)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use frontrow_domain::seat::{Seat, SeatImage, SeatPlace, SeatState, SeatUpdate};
    use frontrow_domain::{
        Label, Money, PerformanceDateId, ReservationId, SeatId, Timestamp, Version, Versioned,
    };
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn image(seats: u32) -> SeatImage {
        let seat = |n: u32| {
            let (section, grade) = (Label::new("가 \"A\"").unwrap(), Label::new("R").unwrap());
            let place = SeatPlace { section, row: 1, number: n, grade, price: Money::new(100).unwrap() };
            let performance_date_id = PerformanceDateId::new(id(1));
            let seat = Seat {
                id: SeatId::new(id(n.into())),
                performance_date_id,
                place,
                state: SeatState::Available,
            };
            Versioned::new(seat, Version::FIRST)
        };
        SeatImage::new(&(1..=seats).map(seat).collect::<Vec<_>>(), FeedVersion::new(3))
    }

    fn held() -> SeatState {
        SeatState::Reserved { reservation_id: ReservationId::new(id(9)), hold_expires_at: Timestamp::MAX }
    }

    fn sold() -> SeatState {
        SeatState::Unavailable { reservation_id: ReservationId::new(id(9)) }
    }

    fn change(image: &mut SeatImage, n: u128, state: SeatState, version: i64) {
        image.anticipate(&SeatUpdate { id: SeatId::new(id(n)), state, version: Version::new(version) });
    }

    fn shown(image: &SeatImage) -> SeatsShown {
        let (layout, statuses) = (image.layout().clone(), image.shown().to_vec());
        SeatsShown { layout, statuses, version: image.version(), revision: image.revision() }
    }

    fn draw(image: &SeatImage, filter: SeatFilter, before: Option<&Picture>) -> Picture {
        Picture::draw(shown(image), filter, before).ok().unwrap()
    }

    fn unzipped(parts: &Parts) -> Vec<u8> {
        let (zipped, mut text) = (parts.joined(), Vec::new());
        let mut reader = flate2::read::GzDecoder::new(zipped.as_slice());
        reader.read_to_end(&mut text).unwrap();
        assert!(reader.into_inner().is_empty(), "one member, and nothing behind it");
        text
    }

    /// Text, compressed text and tags are what a picture drawn from nothing has.
    fn assert_is_new(picture: &Picture, image: &SeatImage) {
        let new = draw(image, picture.filter(), None);
        assert_eq!(picture.plain().joined(), new.plain().joined());
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            assert_eq!(picture.tag(encoding), new.tag(encoding));
        }
        picture.zip().ok().unwrap();
        assert_eq!(unzipped(picture.zipped().unwrap()), new.plain().joined());
        assert_eq!(picture.plain().len(), new.plain().joined().len());
        assert_eq!(picture.zipped().unwrap().len(), picture.zipped().unwrap().joined().len());
    }

    #[test]
    fn a_picture_is_the_same_however_it_came_about() {
        for seats in [0, 1, 63, 64, 65, 300, 5_000] {
            for filter in [SeatFilter::All, SeatFilter::Available] {
                let mut image = image(seats);
                let mut picture = draw(&image, filter, None);
                assert_is_new(&picture, &image);
                let steps =
                    [(1, held()), (65, sold()), (1, SeatState::Available), (300, held()), (64, held())];
                for (version, (n, state)) in (2..).zip(steps) {
                    change(&mut image, n, state, version);
                    picture = draw(&image, filter, Some(&picture));
                    assert_is_new(&picture, &image);
                }
                // None is left in whole pieces.
                for n in 1..=u128::from(seats) {
                    change(&mut image, n, sold(), 99);
                }
                assert_is_new(&draw(&image, filter, Some(&picture)), &image);
            }
        }
    }

    #[test]
    fn a_picture_shows_the_seats_of_its_filter() {
        let mut image = image(3);
        change(&mut image, 2, held(), 2);
        let seat = |n: u128, status: &str| {
            json!({"seatId": id(n), "section": "가 \"A\"", "row": 1, "number": n, "grade": "R", "price": 100,
                "status": status})
        };
        let body = |filter| -> Value {
            serde_json::from_slice(&draw(&image, filter, None).plain().joined()).unwrap()
        };
        assert_eq!(
            body(SeatFilter::Available),
            json!({"seats": [seat(1, "AVAILABLE"), seat(3, "AVAILABLE")]})
        );
        let all = json!({"seats": [seat(1, "AVAILABLE"), seat(2, "RESERVED"), seat(3, "AVAILABLE")]});
        assert_eq!(body(SeatFilter::All), all);
    }

    #[test]
    fn what_has_not_changed_is_not_drawn_again() {
        let mut image = image(300);
        let before = draw(&image, SeatFilter::All, None);
        before.zip().ok().unwrap();
        assert!(before.zipped().is_some());
        change(&mut image, 65, held(), 2);
        let after = draw(&image, SeatFilter::All, Some(&before));
        let same: Vec<bool> = before
            .pieces
            .iter()
            .zip(&after.pieces)
            .map(|(before, after)| Arc::ptr_eq(before, after))
            .collect();
        assert_eq!(same, [true, false, true, true, true]);
        assert!(after.zipped().is_some(), "somebody wanted it compressed");
    }

    #[test]
    fn tags_tell_pictures_apart() {
        let mut image = image(10);
        let tags = |image: &SeatImage, filter| {
            let picture = draw(image, filter, None);
            [Encoding::Identity, Encoding::Gzip].map(|encoding| picture.tag(encoding).clone())
        };
        let (all, available) = (tags(&image, SeatFilter::All), tags(&image, SeatFilter::Available));
        let different: std::collections::BTreeSet<_> =
            all.iter().chain(&available).map(|tag| tag.to_str().unwrap().to_owned()).collect();
        assert_eq!(different.len(), 4);
        assert!(different.iter().all(|tag| tag.len() == 34 && tag.starts_with('"') && tag.ends_with('"')));
        change(&mut image, 5, held(), 2);
        let (all_held, available_held) = (tags(&image, SeatFilter::All), tags(&image, SeatFilter::Available));
        assert!(all_held != all && available_held != available);
        change(&mut image, 5, sold(), 3);
        assert_ne!(tags(&image, SeatFilter::All), all_held);
        assert_eq!(tags(&image, SeatFilter::Available), available_held, "it looks the same");
        change(&mut image, 5, SeatState::Available, 4);
        assert_eq!(tags(&image, SeatFilter::All), all);
    }

    #[test]
    fn who_asks_since_an_unknown_version_gets_all() {
        for seats in [0, 3, 5_000] {
            let image = image(seats);
            let picture = draw(&image, SeatFilter::All, None);
            let plain = picture.since_unknown(Encoding::Identity).ok().unwrap().joined();
            let zipped = unzipped(&picture.since_unknown(Encoding::Gzip).ok().unwrap());
            assert_eq!(zipped, plain);
            let body: Value = serde_json::from_slice(&plain).unwrap();
            let all: Value = serde_json::from_slice(&picture.plain().joined()).unwrap();
            assert_eq!(body, json!({"version": 3, "full": true, "seats": all["seats"]}));
        }
    }
}
