//! Concerts, dates and seats (seed: 예약 가능 날짜 / 좌석 API). Dates and seats lie behind the gate.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, VARY,
};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, rt};
use frontrow_app::{ConcertService, SeatMap, SeatsChanged};
use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{DateFilter, DateSummary, Offer, SeatFilter};
use frontrow_domain::seat::{FeedVersion, SeatSpot, SeatStatus};
use frontrow_domain::{ConcertId, Money, PerformanceDateId, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use crate::access::{gated, public_within, resource};
use crate::caller::Known;
use crate::dto::{Items, fresh, name_of};
use crate::etag::{self, Encoding};
use crate::gate::Passed;
use crate::openapi::{
    BEARER, GATE, PUBLIC, STORAGE, SeatConditions, SinceParams, StatusParams, WaitTokenHeader, names,
    problems,
};
use crate::overload::Class;
use crate::paging::Page;
use crate::problem::{Code, Problem};
use crate::query::{self, asks_for_all, path_id};
use crate::seats::{Album, AnswersOf, Delta, FEW_SEATS, OWN_DELTA_SEATS, Parts};

/// From which version on `since` tells what an answer does not.
pub(crate) const SEAT_MAP_VERSION: HeaderName = HeaderName::from_static("seat-map-version");

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource("/concerts", [(Method::GET, public_within(Class::Look, web::to(list_concerts)))]))
        .service(resource(
            "/concerts/{concertId}/performanceDates",
            [(Method::GET, gated(Class::Look, web::to(list_dates)))],
        ))
        .service(resource(
            "/concerts/{concertId}/performanceDates/{performanceDateId}/seats",
            [(Method::GET, gated(Class::Look, web::to(list_seats)))],
        ));
}

/// A concert.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConcertDto {
    concert_id: Uuid,
    title: String,
    venue: String,
    /// The waiting room in front of it.
    room_id: Uuid,
    /// Whether there are dates ahead (`startsAt` later than now), and every seat of them is sold. Held seats are unsold.
    sold_out: bool,
    /// The earliest `startsAt` ahead. Absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    next_date_at: Option<String>,
    /// The lowest price among the unsold seats (AVAILABLE or RESERVED) of the dates ahead, in minor units. Absent when there
    /// is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    from_price: Option<i64>,
}

impl ConcertDto {
    fn new(concert: &Concert, offer: Offer) -> Self {
        Self {
            concert_id: concert.id.get(),
            title: concert.title.as_str().to_owned(),
            venue: concert.venue.as_str().to_owned(),
            room_id: concert.room_id.get(),
            sold_out: offer.is_sold_out(),
            next_date_at: offer.next_date_at.map(|time| time.to_string()),
            from_price: offer.from_price.map(Money::minor_units),
        }
    }
}

problems! { ConcertsProblems: PUBLIC, STORAGE, &[Code::MalformedRequest] }

/// Lists concerts, each with what is left to sell (at most 1 s old).
#[utoipa::path(
    get, path = "/concerts", tag = "concerts", operation_id = "listConcerts",
    params(Page<ConcertId>),
    responses((status = 200, description = "A page of concerts.", body = Items<ConcertDto>), ConcertsProblems)
)]
pub(crate) async fn list_concerts(state: State, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let page = Page::<ConcertId>::parse(req.query_string())?;
    let concerts = &state.use_cases.concerts;
    let listed = patiently(|| concerts.list_concerts(page.after, page.fetch())).await?;
    let (listed, next) = page.cut(listed, |concert| concert.id);
    let ids: Vec<ConcertId> = listed.iter().map(|concert| concert.id).collect();
    let offers = patiently(|| concerts.offers(&ids)).await?;
    let items = listed.iter().zip(offers).collect();
    let items = Items::new((items, next), |(concert, offer)| ConcertDto::new(concert, offer));
    Ok(fresh(StatusCode::OK, &items))
}

/// The dates of a concert.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DatesDto {
    concert_id: Uuid,
    performance_dates: Vec<DateDto>,
}

/// A performance date.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DateDto {
    performance_date_id: Uuid,
    #[schema(format = DateTime)]
    starts_at: String,
    /// When sales start; at once when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    on_sale_at: Option<String>,
    total_seats: u64,
    available_seats: u64,
}

impl From<DateSummary> for DateDto {
    fn from(date: DateSummary) -> Self {
        Self {
            performance_date_id: date.id.get(),
            starts_at: date.starts_at.to_string(),
            on_sale_at: date.on_sale_at.map(|time| time.to_string()),
            total_seats: date.total_seats,
            available_seats: date.available_seats,
        }
    }
}

problems! { DatesProblems: BEARER, GATE, &[Code::MalformedRequest, Code::ConcertNotFound] }

/// The dates of a concert that can be reserved: those that start after now and have a seat left.
#[utoipa::path(
    get, path = "/concerts/{concertId}/performanceDates", tag = "concerts", operation_id = "listPerformanceDates",
    params(("concertId" = Uuid, Path, description = "The concert."), StatusParams, WaitTokenHeader),
    responses((status = 200, description = "The dates, by start.", body = DatesDto), DatesProblems),
    security(("bearer" = [], "waitToken" = []))
)]
pub(crate) async fn list_dates(
    state: State,
    Passed(pass): Passed,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let concert_id = path_id(&req, "concertId", ConcertId::new)?;
    let filter = if asks_for_all(&req)? { DateFilter::All } else { DateFilter::Reservable };
    let concerts = &state.use_cases.concerts;
    let dates = patiently(|| concerts.list_dates(&pass, concert_id, filter)).await?;
    let performance_dates = dates.into_iter().map(DateDto::from).collect();
    Ok(fresh(StatusCode::OK, &DatesDto { concert_id: concert_id.get(), performance_dates }))
}

/// The seats of a date.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes a body that is put together from pieces")]
pub(crate) struct SeatsDto<'a> {
    seats: Vec<SeatDto<'a>>,
}

/// What has changed of the seats of a date.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeatsSinceDto<'a> {
    /// What to ask with next.
    pub(crate) version: i64,
    /// Whether these are all seats, because what has changed since then is not known, or is a good part of them.
    pub(crate) full: bool,
    /// Seats of every status; some of them may not have changed.
    pub(crate) seats: Vec<SeatDto<'a>>,
}

/// A seat.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeatDto<'a> {
    seat_id: Uuid,
    section: &'a str,
    row: u32,
    number: u32,
    grade: &'a str,
    /// In minor units.
    price: i64,
    #[schema(schema_with = seat_status_names)]
    status: &'static str,
}

fn seat_status_names() -> utoipa::openapi::Object {
    names(&SeatStatus::NAMES)
}

impl<'a> SeatDto<'a> {
    /// Shows a seat with this status.
    pub(crate) fn new(spot: &SeatSpot<'a>, status: SeatStatus) -> Self {
        Self {
            seat_id: spot.id.get(),
            section: spot.section.as_str(),
            row: spot.row,
            number: spot.number,
            grade: spot.grade.as_str(),
            price: spot.price.minor_units(),
            status: name_of(&SeatStatus::NAMES, status),
        }
    }
}

problems! {
    SeatsProblems: BEARER, GATE,
    &[Code::MalformedRequest, Code::ConcertNotFound, Code::PerformanceDateNotFound]
}

/// The AVAILABLE seats of a date, or all of them, as they were at most 250 ms ago.
///
/// With `since` only what has changed is told: seats of every status, whatever `status` says, of which some may not have
/// changed. Start with `since=0`, and go on with the version of each answer. An answer to `since` is not to be kept.
///
/// A caller with 16 unread answers of more than 32 KiB gets no further one (429 `RATE_LIMITED`) until it reads or closes one.
#[utoipa::path(
    get, path = "/concerts/{concertId}/performanceDates/{performanceDateId}/seats", tag = "concerts",
    operation_id = "listSeats",
    params(
        ("concertId" = Uuid, Path, description = "The concert."),
        ("performanceDateId" = Uuid, Path, description = "The performance date."),
        StatusParams, SinceParams, WaitTokenHeader, SeatConditions,
    ),
    responses(
        (status = 200, description = "The seats, by section, row and number.", body = SeatsDto<'_>, headers(
            ("ETag" = String, description = "Strong; of this status filter and encoding. None with `since`."),
            ("Seat-Map-Version" = i64, description = "A version from which on `since` tells what this answer does not. None with `since`."),
            ("Vary" = String), ("Cache-Control" = String),
        )),
        (status = 304, description = "The client has them already.", headers(
            ("ETag" = String), ("Seat-Map-Version" = i64), ("Vary" = String), ("Cache-Control" = String),
        )),
        SeatsProblems,
    ),
    security(("bearer" = [], "waitToken" = []))
)]
pub(crate) async fn list_seats(
    state: State,
    known: Known,
    Passed(pass): Passed,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let concert_id = path_id(&req, "concertId", ConcertId::new)?;
    let date_id = path_id(&req, "performanceDateId", PerformanceDateId::new)?;
    let filter = if asks_for_all(&req)? { SeatFilter::All } else { SeatFilter::Available };
    let since = query::since(&req)?;
    let concerts = &state.use_cases.concerts;
    let map = patiently(|| concerts.seat_map(&pass, concert_id, date_id)).await?;
    let album = state.albums.of(date_id, &map);
    let answers = state.unread_answers.of(known.user_id());
    match since {
        None => seats_as_they_are(&req, (&album, &map), filter, concerts.now(), &answers).await,
        Some(since) => seats_since(&req, (&album, &map), since, concerts, &answers).await,
    }
}

async fn seats_as_they_are(
    req: &HttpRequest,
    (album, map): (&Arc<Album>, &Arc<SeatMap>),
    filter: SeatFilter,
    now: Timestamp,
    answers: &AnswersOf<'_>,
) -> Result<HttpResponse, Problem> {
    let picture = album.picture(map, filter, now).await?;
    let encoding = Encoding::choose(req.headers(), picture.plain().len());
    let tag = picture.tag(encoding);
    let is_known = etag::is_named(req.headers(), tag);
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = HttpResponse::build(status);
    response.insert_header((ETAG, tag.clone()));
    response.insert_header((SEAT_MAP_VERSION, picture.version().clone()));
    response.insert_header((VARY, HeaderValue::from_static("Accept-Encoding")));
    response.insert_header((CACHE_CONTROL, HeaderValue::from_static("private, no-cache")));
    if is_known {
        return Ok(response.finish());
    }
    send(response, encoding, album.body(&picture, encoding).await?, answers)
}

async fn seats_since(
    req: &HttpRequest,
    (album, map): (&Arc<Album>, &Arc<SeatMap>),
    since: FeedVersion,
    concerts: &ConcertService,
    answers: &AnswersOf<'_>,
) -> Result<HttpResponse, Problem> {
    if since > map.version() {
        // Another node may be ahead. If none is, the version is made up, or older than the database.
        patiently(|| concerts.look_again()).await;
    }
    let now = concerts.now();
    let mut response = HttpResponse::build(StatusCode::OK);
    response.insert_header((VARY, HeaderValue::from_static("Accept-Encoding")));
    response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    let accepted = Encoding::choose(req.headers(), usize::MAX);
    let changed = map.changed_since(since, now).filter(|changed| !is_better_told_whole(changed));
    let delta = match &changed {
        Some(changed) if changed.seats.len() <= OWN_DELTA_SEATS => {
            Some(Arc::new(Delta::render(changed, accepted)?))
        }
        Some(changed) => album.delta(map, (since, changed.seats.len()), accepted, now).await?,
        None => None,
    };
    match delta {
        Some(delta) => send(response, delta.encoding(), delta.body(), answers),
        None => send(response, accepted, album.since_unknown(map, accepted, now).await?, answers),
    }
}

/// The part of many seats above which a caller gets the whole map instead of a delta: after an outage many callers ask at
/// once, and the whole map is rendered already.
const BETTER_TOLD_WHOLE: usize = 4;

fn is_better_told_whole(changed: &SeatsChanged) -> bool {
    let (told, all) = (changed.seats.len(), changed.layout.len());
    told > FEW_SEATS && told.saturating_mul(BETTER_TOLD_WHOLE) > all
}

/// Sends a body, unless its caller has too many unread ones: 429.
fn send(
    mut response: HttpResponseBuilder,
    encoding: Encoding,
    body: Parts,
    answers: &AnswersOf<'_>,
) -> Result<HttpResponse, Problem> {
    let unread = answers.admit(body.len())?;
    if encoding != Encoding::Identity {
        response.insert_header((CONTENT_ENCODING, HeaderValue::from_static(encoding.name())));
    }
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    Ok(body.send(response, unread))
}

/// For how long an answer of the database is waited for where what is known already may do.
const PATIENCE: Duration = Duration::from_millis(200);

/// Asks, and asks again when there is no answer in time: by then it shows that the database is away, and what is known will do.
/// Where nothing is known the second time takes as long as it takes; a read that was begun is not begun again.
async fn patiently<T, F: Future<Output = T>>(ask: impl Fn() -> F) -> T {
    match rt::time::timeout(PATIENCE, ask()).await {
        Ok(answer) => answer,
        Err(_) => ask().await,
    }
}
