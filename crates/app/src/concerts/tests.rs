use std::sync::Arc;

use frontrow_domain::ports::{
    ConcertQueries, DateFilter, DateSummary, MockConcertQueries, SeatFilter, SeatView,
};
use frontrow_domain::seat::{SeatState, SeatStatus};

use crate::ConcertService;
use crate::testing::{
    CONCERT, DATE, Load, OTHER_CONCERT, OTHER_DATE, OTHER_ROOM, ROOM, World, at, concert, date, now, refusal,
    seat, seat_id, world,
};

fn service(world: &World, queries: MockConcertQueries) -> ConcertService {
    let queries: Arc<dyn ConcertQueries> = Arc::new(queries);
    ConcertService { concerts: world.concerts(), queries, clock: world.clock() }
}

/// A service whose read models must not be asked.
fn refusing(world: &World) -> ConcertService {
    service(world, MockConcertQueries::new())
}

fn summary() -> DateSummary {
    DateSummary { id: DATE, starts_at: at(9_000), on_sale_at: None, total_seats: 6, available_seats: 5 }
}

#[tokio::test]
async fn concerts_are_listed_from_where_the_caller_is() {
    let mut queries = MockConcertQueries::new();
    queries
        .expect_list_concerts()
        .withf(|after, limit| (*after, *limit) == (Some(OTHER_CONCERT), 7))
        .returning(|_, _| Ok(vec![concert(CONCERT, ROOM)]));
    let listed = service(&world(), queries).list_concerts(Some(OTHER_CONCERT), 7).await.unwrap();
    assert_eq!(listed, [concert(CONCERT, ROOM)]);
}

#[tokio::test]
async fn dates_are_listed_by_the_filter_and_the_clock() {
    for filter in [DateFilter::Reservable, DateFilter::All] {
        let world = world();
        let mut queries = MockConcertQueries::new();
        queries
            .expect_list_dates()
            .withf(move |id, given, at| (*id, *given, *at) == (CONCERT, filter, now()))
            .returning(|_, _, _| Ok(vec![summary()]));
        let pass = world.pass().await;
        let listed = service(&world, queries).list_dates(&pass, CONCERT, filter).await.unwrap();
        assert_eq!(listed, [summary()]);
    }
}

#[tokio::test]
async fn seats_are_listed_by_the_filter_and_the_clock() {
    let view =
        SeatView { id: seat_id(1), place: seat(1, SeatState::Available).place, status: SeatStatus::Reserved };
    for filter in [SeatFilter::Available, SeatFilter::All] {
        let (world, shown) = (world(), view.clone());
        let mut queries = MockConcertQueries::new();
        queries
            .expect_list_seats()
            .withf(move |id, given, at| (*id, *given, *at) == (DATE, filter, now()))
            .returning(move |_, _, _| Ok(vec![shown.clone()]));
        let pass = world.pass().await;
        let listed = service(&world, queries).list_seats(&pass, CONCERT, DATE, filter).await.unwrap();
        assert_eq!(listed, std::slice::from_ref(&view));
        assert_eq!(world.take_loads(), [Load::Date]);
    }
}

#[tokio::test]
async fn the_pass_of_another_room_shows_nothing() {
    let world = world();
    let pass = world.pass().await;
    world.facts().concerts.insert(CONCERT, concert(CONCERT, OTHER_ROOM));
    let service = refusing(&world);
    assert_eq!(refusal(service.list_dates(&pass, CONCERT, DateFilter::All).await), "WrongRoom(WrongRoom)");
    assert_eq!(
        refusal(service.list_seats(&pass, CONCERT, DATE, SeatFilter::All).await),
        "WrongRoom(WrongRoom)"
    );
}

/// The contract's order: an unknown concert or date comes before a token of another room.
#[tokio::test]
async fn what_does_not_exist_is_said_before_the_room_is_judged() {
    let world = world();
    let pass = world.pass().await;
    world.facts().concerts.insert(CONCERT, concert(CONCERT, OTHER_ROOM));
    let service = refusing(&world);
    let dates = service.list_dates(&pass, OTHER_CONCERT, DateFilter::All).await;
    assert_eq!(refusal(dates), "ConcertNotFound");
    for (concert_id, date_id, expected) in [
        (OTHER_CONCERT, DATE, "ConcertNotFound"),
        (OTHER_CONCERT, OTHER_DATE, "ConcertNotFound"),
        (CONCERT, OTHER_DATE, "PerformanceDateNotFound"),
    ] {
        let seats = service.list_seats(&pass, concert_id, date_id, SeatFilter::All).await;
        assert_eq!(refusal(seats), expected, "{concert_id} {date_id}");
    }
}

#[tokio::test]
async fn a_date_of_another_concert_is_not_found() {
    let world = world();
    let pass = world.pass().await;
    world.facts().concerts.insert(OTHER_CONCERT, concert(OTHER_CONCERT, ROOM));
    world.facts().dates.insert(DATE, date(DATE));
    let seats = refusing(&world).list_seats(&pass, OTHER_CONCERT, DATE, SeatFilter::All).await;
    assert_eq!(refusal(seats), "PerformanceDateNotFound");
}

#[tokio::test]
async fn storage_that_is_away_is_a_failure() {
    let world = world();
    let pass = world.pass().await;
    let service = refusing(&world);
    world.facts().down = Some(Load::Concert);
    let dates = refusal(service.list_dates(&pass, CONCERT, DateFilter::All).await);
    assert!(dates.starts_with("Failure(Unavailable"), "{dates}");
    world.facts().down = Some(Load::Date);
    let seats = refusal(service.list_seats(&pass, CONCERT, DATE, SeatFilter::All).await);
    assert!(seats.starts_with("Failure(Unavailable"), "{seats}");
}
