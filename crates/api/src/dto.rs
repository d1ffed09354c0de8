//! Parts of answers that several resources share.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use frontrow_domain::SeatId;
use frontrow_domain::account::Ticket;
use frontrow_domain::seat::SeatPlace;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A JSON answer that no cache keeps: it depends on the caller, or on the moment.
pub(crate) fn fresh(status: StatusCode, body: &impl Serialize) -> HttpResponse {
    HttpResponse::build(status).insert_header((CACHE_CONTROL, "no-store")).json(body)
}

/// 204, not to be kept either.
pub(crate) fn nothing() -> HttpResponse {
    HttpResponse::NoContent().insert_header((CACHE_CONTROL, "no-store")).finish()
}

/// The contract's name of a value, by the domain's list of names.
pub(crate) fn name_of<T: Copy + PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names.iter().find(|(named, _)| *named == value).map_or("", |(_, name)| *name)
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Items<T: ToSchema> {
    pub(crate) items: Vec<T>,
    /// Where the next page starts; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) next_cursor: Option<String>,
}

impl<T: ToSchema> Items<T> {
    /// Makes a page of what [`crate::paging::Page::cut`] gave.
    pub(crate) fn new<S>((items, next_cursor): (Vec<S>, Option<String>), dto: impl Fn(S) -> T) -> Self {
        Self { items: items.into_iter().map(dto).collect(), next_cursor }
    }
}

/// A seat of a reservation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReservedSeatDto<'a> {
    seat_id: Uuid,
    section: &'a str,
    row: u32,
    number: u32,
    grade: &'a str,
    /// In minor units.
    price: i64,
}

impl<'a> ReservedSeatDto<'a> {
    /// Shows a seat.
    pub(crate) fn new(id: SeatId, place: &'a SeatPlace) -> Self {
        Self {
            seat_id: id.get(),
            section: place.section.as_str(),
            row: place.row,
            number: place.number,
            grade: place.grade.as_str(),
            price: place.price.minor_units(),
        }
    }
}

/// The right to one seat.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TicketDto {
    ticket_id: Uuid,
    seat_id: Uuid,
}

impl From<&Ticket> for TicketDto {
    fn from(ticket: &Ticket) -> Self {
        Self { ticket_id: ticket.id.get(), seat_id: ticket.seat_id.get() }
    }
}

#[cfg(test)]
mod tests {
    use frontrow_domain::queue::{QueueTokenStatus, RoomMode};
    use frontrow_domain::reservation::ReservationStatus;
    use frontrow_domain::seat::SeatStatus;

    use super::*;

    #[test]
    fn every_status_has_its_name() {
        assert_eq!(name_of(&QueueTokenStatus::NAMES, QueueTokenStatus::Wait), "WAIT");
        assert_eq!(name_of(&SeatStatus::NAMES, SeatStatus::Unavailable), "UNAVAILABLE");
        assert_eq!(name_of(&ReservationStatus::NAMES, ReservationStatus::Cancelled), "CANCELLED");
        assert_eq!(name_of(&RoomMode::NAMES, RoomMode::Hold), "HOLD");
    }
}
