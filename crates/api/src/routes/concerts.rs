//! Concerts, dates and seats (seed: 예약 가능 날짜 / 좌석 API). Dates and seats lie behind the gate.

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, VARY};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use frontrow_domain::concert::Concert;
use frontrow_domain::ports::{DateFilter, DateSummary, SeatFilter, SeatView};
use frontrow_domain::seat::SeatStatus;
use frontrow_domain::{ConcertId, PerformanceDateId};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::State;
use crate::access::{gated, public, resource};
use crate::dto::{Items, fresh, name_of};
use crate::etag::{self, Encoding};
use crate::gate::Passed;
use crate::openapi::{
    BEARER, CursorParams, GATE, PUBLIC, STORAGE, SeatConditions, StatusParams, WaitTokenHeader, names,
    problems,
};
use crate::paging::Page;
use crate::problem::{Code, Problem};
use crate::query::{asks_for_all, path_id};

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(resource("/concerts", [(Method::GET, public(web::to(list_concerts)))]))
        .service(resource(
            "/concerts/{concertId}/performanceDates",
            [(Method::GET, gated(web::to(list_dates)))],
        ))
        .service(resource(
            "/concerts/{concertId}/performanceDates/{performanceDateId}/seats",
            [(Method::GET, gated(web::to(list_seats)))],
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
}

impl From<Concert> for ConcertDto {
    fn from(concert: Concert) -> Self {
        Self {
            concert_id: concert.id.get(),
            title: concert.title.as_str().to_owned(),
            venue: concert.venue.as_str().to_owned(),
            room_id: concert.room_id.get(),
        }
    }
}

problems! { ConcertsProblems: PUBLIC, STORAGE, &[Code::MalformedRequest] }

/// The concerts.
#[utoipa::path(
    get, path = "/concerts", tag = "concerts", operation_id = "listConcerts",
    params(CursorParams),
    responses((status = 200, description = "A page of concerts.", body = Items<ConcertDto>), ConcertsProblems)
)]
pub(crate) async fn list_concerts(state: State, req: HttpRequest) -> Result<HttpResponse, Problem> {
    let page = Page::<ConcertId>::parse(req.query_string())?;
    let concerts = state.use_cases.concerts.list_concerts(page.after, page.fetch()).await?;
    let items = Items::new(page.cut(concerts, |concert| concert.id), ConcertDto::from);
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
    let dates = state.use_cases.concerts.list_dates(&pass, concert_id, filter).await?;
    let performance_dates = dates.into_iter().map(DateDto::from).collect();
    Ok(fresh(StatusCode::OK, &DatesDto { concert_id: concert_id.get(), performance_dates }))
}

/// The seats of a date.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SeatsDto<'a> {
    seats: Vec<SeatDto<'a>>,
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

impl<'a> From<&'a SeatView> for SeatDto<'a> {
    fn from(seat: &'a SeatView) -> Self {
        Self {
            seat_id: seat.id.get(),
            section: seat.place.section.as_str(),
            row: seat.place.row,
            number: seat.place.number,
            grade: seat.place.grade.as_str(),
            price: seat.place.price.minor_units(),
            status: name_of(&SeatStatus::NAMES, seat.status),
        }
    }
}

/// The seats as they are sent.
struct SeatMap {
    tag: String,
    encoding: Encoding,
    /// Absent when the client has it already.
    body: Option<Vec<u8>>,
}

impl SeatMap {
    /// With more seats than this the work is done on another thread: a worker has other clients to serve.
    const MANY_SEATS: usize = 1_000;

    fn new(seats: &[SeatView], filter: SeatFilter, headers: &HeaderMap) -> Result<Self, Problem> {
        let seats = SeatsDto { seats: seats.iter().map(SeatDto::from).collect() };
        let body = serde_json::to_vec(&seats).map_err(Problem::internal)?;
        let encoding = Encoding::choose(headers, body.len());
        let variant = match filter {
            SeatFilter::All => "all",
            SeatFilter::Available => "available",
        };
        let tag = etag::tag(variant, encoding, &body);
        let body = match encoding {
            _ if etag::is_named(headers, &tag) => None,
            Encoding::Identity => Some(body),
            Encoding::Gzip => Some(etag::gzip(&body).map_err(Problem::internal)?),
        };
        Ok(Self { tag, encoding, body })
    }

    fn response(self) -> HttpResponse {
        let status = if self.body.is_some() { StatusCode::OK } else { StatusCode::NOT_MODIFIED };
        let mut response = HttpResponse::build(status);
        response.insert_header((ETAG, self.tag));
        response.insert_header((VARY, "Accept-Encoding"));
        response.insert_header((CACHE_CONTROL, "private, no-cache"));
        let Some(body) = self.body else { return response.finish() };
        if self.encoding != Encoding::Identity {
            response.insert_header((CONTENT_ENCODING, self.encoding.name()));
        }
        response.insert_header((CONTENT_TYPE, "application/json"));
        response.body(body)
    }
}

problems! {
    SeatsProblems: BEARER, GATE,
    &[Code::MalformedRequest, Code::ConcertNotFound, Code::PerformanceDateNotFound]
}

/// The AVAILABLE seats of a date, or all of them.
#[utoipa::path(
    get, path = "/concerts/{concertId}/performanceDates/{performanceDateId}/seats", tag = "concerts",
    operation_id = "listSeats",
    params(
        ("concertId" = Uuid, Path, description = "The concert."),
        ("performanceDateId" = Uuid, Path, description = "The performance date."),
        StatusParams, WaitTokenHeader, SeatConditions,
    ),
    responses(
        (status = 200, description = "The seats, by section, row and number.", body = SeatsDto<'_>, headers(
            ("ETag" = String, description = "Strong; of this status filter and encoding."),
            ("Vary" = String), ("Cache-Control" = String),
        )),
        (status = 304, description = "The client has them already.", headers(
            ("ETag" = String), ("Vary" = String), ("Cache-Control" = String),
        )),
        SeatsProblems,
    ),
    security(("bearer" = [], "waitToken" = []))
)]
pub(crate) async fn list_seats(
    state: State,
    Passed(pass): Passed,
    req: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let concert_id = path_id(&req, "concertId", ConcertId::new)?;
    let date_id = path_id(&req, "performanceDateId", PerformanceDateId::new)?;
    let filter = if asks_for_all(&req)? { SeatFilter::All } else { SeatFilter::Available };
    let seats = state.use_cases.concerts.list_seats(&pass, concert_id, date_id, filter).await?;
    let map = if seats.len() > SeatMap::MANY_SEATS {
        let headers = req.headers().clone();
        let map = web::block(move || SeatMap::new(&seats, filter, &headers)).await;
        map.map_err(Problem::internal)??
    } else {
        SeatMap::new(&seats, filter, req.headers())?
    };
    Ok(map.response())
}
