use std::sync::Arc;

use frontrow_domain::ports::{
    ConcertQueries, DateFilter, DateSummary, MockConcertQueries, MockSeatFeeds, SeatFeeds, SeatsOfDate,
    StorageError,
};
use frontrow_domain::seat::{FeedVersion, SeatState, SeatStatus};

use crate::incarnation::KnownIncarnation;
use crate::testing::{
    CONCERT, DATE, HELD, Load, OTHER_CONCERT, OTHER_DATE, OTHER_ROOM, ROOM, World, at, concert, date,
    held_by, now, refusal, seat, stored, world,
};
use crate::{ConcertService, Offers, SeatMaps};

fn service_with(world: &World, queries: MockConcertQueries, feeds: MockSeatFeeds) -> ConcertService {
    let queries: Arc<dyn ConcertQueries> = Arc::new(queries);
    let feeds: Arc<dyn SeatFeeds> = Arc::new(feeds);
    let offers = Offers::new(queries.clone(), world.clock(), KnownIncarnation::default());
    let seat_maps = SeatMaps::new(feeds, world.clock(), KnownIncarnation::default());
    ConcertService::new(world.concerts(), queries, offers, seat_maps, world.clock())
}

fn service(world: &World, queries: MockConcertQueries) -> ConcertService {
    service_with(world, queries, MockSeatFeeds::new())
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
async fn seats_are_shown_as_they_are_at_the_time() {
    let world = world();
    let mut feeds = MockSeatFeeds::new();
    feeds.expect_load().withf(|id| *id == DATE).returning(|_| {
        let seats = [held_by(HELD, 1_000), held_by(HELD, 1_001), SeatState::Available];
        let seats = (1..).zip(seats).map(|(n, state)| stored(seat(n, state), 2)).collect();
        Ok(Some(SeatsOfDate { seats, version: FeedVersion::new(3) }))
    });
    let pass = world.pass().await;
    let service = service_with(&world, MockConcertQueries::new(), feeds);
    let map = service.seat_map(&pass, CONCERT, DATE).await.unwrap();
    let shown = map.shown(service.now()).unwrap();
    assert_eq!(shown.statuses, [SeatStatus::Available, SeatStatus::Reserved, SeatStatus::Available]);
    assert_eq!(world.take_loads(), [Load::Date]);
}

/// What was listed last does while the database is away.
#[tokio::test]
async fn dates_are_listed_without_a_database_for_a_while() {
    let world = world();
    let mut queries = MockConcertQueries::new();
    queries.expect_list_dates().times(1).returning(|_, _, _| Ok(vec![summary()]));
    queries.expect_list_dates().returning(|_, _, _| Err(StorageError::Unavailable("away".into())));
    let pass = world.pass().await;
    let service = service(&world, queries);
    let listed = async || service.list_dates(&pass, CONCERT, DateFilter::Reservable).await.unwrap();
    assert_eq!(listed().await, [summary()]);
    assert_eq!(listed().await, [summary()]);
    world.facts().now = at(1_030);
    assert_eq!(listed().await, [summary()]);
    world.facts().now = at(1_031);
    let too_old = refusal(service.list_dates(&pass, CONCERT, DateFilter::Reservable).await);
    assert!(too_old.starts_with("Failure(Unavailable"), "{too_old}");
}

#[tokio::test]
async fn the_pass_of_another_room_shows_nothing() {
    let world = world();
    let pass = world.pass().await;
    world.facts().concerts.insert(CONCERT, concert(CONCERT, OTHER_ROOM));
    let service = refusing(&world);
    assert_eq!(refusal(service.list_dates(&pass, CONCERT, DateFilter::All).await), "WrongRoom(WrongRoom)");
    assert_eq!(refusal(service.seat_map(&pass, CONCERT, DATE).await.map(|_| ())), "WrongRoom(WrongRoom)");
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
        let seats = service.seat_map(&pass, concert_id, date_id).await.map(|_| ());
        assert_eq!(refusal(seats), expected, "{concert_id} {date_id}");
    }
}

#[tokio::test]
async fn a_date_of_another_concert_is_not_found() {
    let world = world();
    let pass = world.pass().await;
    world.facts().concerts.insert(OTHER_CONCERT, concert(OTHER_CONCERT, ROOM));
    world.facts().dates.insert(DATE, date(DATE));
    let seats = refusing(&world).seat_map(&pass, OTHER_CONCERT, DATE).await.map(|_| ());
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
    let seats = refusal(service.seat_map(&pass, CONCERT, DATE).await.map(|_| ()));
    assert!(seats.starts_with("Failure(Unavailable"), "{seats}");
}
