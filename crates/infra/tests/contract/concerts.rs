//! Concerts, dates and seats: stored, listed, counted.

use frontrow_domain::concert::{Concert, PerformanceDate};
use frontrow_domain::ports::{DateFilter, DateSummary, Offer, Sales, SeatFilter, Writability};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState, SeatStatus};
use frontrow_domain::{
    Change, ConcertId, Money, PerformanceDateId, SeatId, Timestamp, UnitOfWork, Version, Versioned,
};

use crate::fixture::{Fixture, HOLD, START, Sale, all_pages, at, just_before, label, money};
use crate::rooms::by_first_byte;

/// Labels in the order of their bytes, which is no language's order.
const LABELS: [&str; 8] = ["'; --", "10", "2", "B", "a", "é", "가 나 다", "🎟️"];

async fn dates(
    fixture: &Fixture,
    concert: ConcertId,
    filter: DateFilter,
    now: Timestamp,
) -> Vec<DateSummary> {
    fixture.storage.concert_queries.list_dates(concert, filter, now).await.unwrap()
}

async fn reservable(fixture: &Fixture, sale: &Sale, now: Timestamp) -> Vec<PerformanceDateId> {
    let dates = dates(fixture, sale.concert.id, DateFilter::Reservable, now).await;
    dates.iter().map(|date| date.id).collect()
}

async fn statuses(fixture: &Fixture, sale: &Sale, now: Timestamp) -> Vec<SeatStatus> {
    let seats = list(fixture, sale.date.id, SeatFilter::All, now).await;
    seats.iter().map(|seat| seat.status).collect()
}

/// A seat as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SeatView {
    id: SeatId,
    place: SeatPlace,
    status: SeatStatus,
}

async fn list(
    fixture: &Fixture,
    date: PerformanceDateId,
    filter: SeatFilter,
    now: Timestamp,
) -> Vec<SeatView> {
    let loaded = fixture.storage.seat_feeds.load(date).await.unwrap();
    let seats = loaded.into_iter().flat_map(|date| date.seats).map(|seat| seat.value);
    let view = |seat: Seat| SeatView { id: seat.id, status: seat.status_at(now), place: seat.place };
    let mut seats: Vec<SeatView> = seats.map(view).collect();
    seats.retain(|seat| filter == SeatFilter::All || seat.status == SeatStatus::Available);
    seats.sort_by(|a, b| place_order(a).cmp(&place_order(b)));
    seats
}

fn place_order(seat: &SeatView) -> (&str, u32, u32) {
    (seat.place.section.as_str(), seat.place.row, seat.place.number)
}

async fn insert_seat(fixture: &Fixture, seat: &Seat) {
    let insert = Change::Insert(seat.clone());
    fixture.write(UnitOfWork { seats: vec![insert], ..Default::default() }).await;
}

/// Four seats: free, held until [`HOLD`], sold, free after a cancellation.
async fn mixed_sale(fixture: &Fixture) -> Sale {
    let sale = fixture.sale(4).await;
    let ids = sale.seat_ids();
    fixture.hold(&sale, &ids[1..2], at(0)).await;
    let sold = fixture.hold(&sale, &ids[2..3], at(0)).await;
    fixture.pay(sold.value.id, at(1)).await;
    let cancelled = fixture.hold(&sale, &ids[3..], at(0)).await;
    let work = fixture.end_work(cancelled.value.id, at(1)).await;
    fixture.write(work).await;
    sale
}

pub(crate) async fn concerts_and_dates_are_absent_until_inserted(fixture: &Fixture) {
    let (concert, date) = (fixture.id(ConcertId::new), fixture.id(PerformanceDateId::new));
    assert_eq!(fixture.storage.concerts.find(concert).await.unwrap(), None);
    assert_eq!(fixture.storage.concerts.find_date(date).await.unwrap(), None);
    assert_eq!(fixture.storage.concert_queries.list_concerts(None, 10).await.unwrap(), []);
    assert_eq!(dates(fixture, concert, DateFilter::All, at(0)).await, []);
    assert_eq!(list(fixture, date, SeatFilter::All, at(0)).await, []);
    assert_eq!(fixture.storage.admin_queries.sales(date, at(0)).await.unwrap(), None);
}

pub(crate) async fn every_field_of_a_concert_comes_back(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let longest = "가".repeat(200);
    for (title, venue) in [("Tannhäuser", "Oper"), ("🎟️ \"x\" \\ %_ '; --", longest.as_str())] {
        let id = fixture.id(ConcertId::new);
        let concert = Concert { id, title: label(title), venue: label(venue), room_id: room.id };
        fixture.write(UnitOfWork { concerts: vec![concert.clone()], ..Default::default() }).await;
        assert_eq!(fixture.storage.concerts.find(id).await.unwrap(), Some(concert.clone()));
        let listed = fixture.storage.concert_queries.list_concerts(None, 10).await.unwrap();
        assert_eq!(listed.last(), Some(&concert));
    }
}

pub(crate) async fn every_field_of_a_date_comes_back(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let concert = fixture.new_concert(room.id).await;
    for (starts_at, on_sale_at) in
        [(Timestamp::MIN, None), (at(1), Some(just_before(at(1)))), (Timestamp::MAX, Some(Timestamp::MIN))]
    {
        let id = fixture.id(PerformanceDateId::new);
        let date = PerformanceDate::new(id, concert.id, starts_at, on_sale_at).unwrap();
        fixture.write(UnitOfWork { performance_dates: vec![date], ..Default::default() }).await;
        let found = fixture.storage.concerts.find_date(id).await.unwrap();
        assert_eq!(found, Some((date, concert.clone())));
        let listed = dates(fixture, concert.id, DateFilter::All, at(0)).await;
        let summary = DateSummary { id, starts_at, on_sale_at, total_seats: 0, available_seats: 0 };
        assert_eq!(listed.last(), Some(&summary));
        assert_eq!(fixture.storage.admin_queries.sales(id, at(0)).await.unwrap(), Some(Sales::default()));
    }
}

pub(crate) async fn concerts_are_listed_by_id_in_pages(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let ids = by_first_byte().map(ConcertId::new);
    for n in [2, 4, 0, 3, 1] {
        let concert = Concert { id: ids[n], title: label("t"), venue: label("v"), room_id: room.id };
        fixture.write(UnitOfWork { concerts: vec![concert], ..Default::default() }).await;
    }
    for limit in [1, 2, 5, 100] {
        let page = async |after| fixture.storage.concert_queries.list_concerts(after, limit).await.unwrap();
        let listed = all_pages(usize::try_from(limit).unwrap(), |c: &Concert| c.id, page).await;
        assert_eq!(listed.iter().map(|concert| concert.id).collect::<Vec<_>>(), ids);
    }
    assert_eq!(fixture.storage.concert_queries.list_concerts(None, 0).await.unwrap(), []);
}

pub(crate) async fn dates_are_listed_by_start(fixture: &Fixture) {
    let room = fixture.default_room().await;
    let concert = fixture.new_concert(room.id).await;
    let other = fixture.new_concert(room.id).await;
    let mut ids = Vec::new();
    for second in [30, 10, 20, 10] {
        ids.push(fixture.new_date(concert.id, at(second)).await.id);
    }
    fixture.new_date(other.id, at(15)).await;
    let listed = dates(fixture, concert.id, DateFilter::All, at(100)).await;
    let listed: Vec<_> = listed.iter().map(|date| date.id).collect();
    assert_eq!(listed, [ids[1], ids[3], ids[2], ids[0]], "past ones too");
}

pub(crate) async fn reservable_dates_start_later_and_have_a_seat_left(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let without_seats = fixture.new_date(sale.concert.id, at(START)).await;
    let opens_later = PerformanceDate::new(
        fixture.id(PerformanceDateId::new),
        sale.concert.id,
        at(START + 1),
        Some(at(START)),
    )
    .unwrap();
    fixture.write(UnitOfWork { performance_dates: vec![opens_later], ..Default::default() }).await;
    fixture.new_seats(opens_later.id, 2).await;

    assert_eq!(reservable(fixture, &sale, at(0)).await, [sale.date.id, opens_later.id]);
    assert_eq!(reservable(fixture, &sale, just_before(at(START))).await, [sale.date.id, opens_later.id]);
    assert_eq!(reservable(fixture, &sale, at(START)).await, [opens_later.id], "it starts");
    let all = dates(fixture, sale.concert.id, DateFilter::All, at(START)).await;
    let all: Vec<_> = all.iter().map(|date| (date.id, date.total_seats)).collect();
    assert_eq!(all, [(sale.date.id, 1), (without_seats.id, 0), (opens_later.id, 2)]);

    let held = fixture.hold(&sale, &sale.seat_ids(), at(0)).await;
    assert_eq!(reservable(fixture, &sale, at(0)).await, [opens_later.id], "no seat left");
    assert_eq!(reservable(fixture, &sale, at(HOLD)).await, [sale.date.id, opens_later.id], "lapsed");
    fixture.pay(held.value.id, at(1)).await;
    assert_eq!(reservable(fixture, &sale, at(HOLD)).await, [opens_later.id], "sold out");
}

pub(crate) async fn dates_count_lapsed_holds_as_free(fixture: &Fixture) {
    let sale = mixed_sale(fixture).await;
    fixture.another_date(sale.room, sale.concert.clone(), 3).await;
    for (now, available_seats) in [(at(1), 2), (just_before(at(HOLD)), 2), (at(HOLD), 3)] {
        for filter in [DateFilter::All, DateFilter::Reservable] {
            let listed = dates(fixture, sale.concert.id, filter, now).await;
            let PerformanceDate { id, starts_at, on_sale_at, .. } = sale.date;
            let expected = DateSummary { id, starts_at, on_sale_at, total_seats: 4, available_seats };
            assert_eq!(listed[0], expected, "{now}");
            assert_eq!((listed[1].total_seats, listed[1].available_seats), (3, 3));
        }
    }
}

async fn offer(fixture: &Fixture, id: ConcertId, now: Timestamp) -> Offer {
    let found = fixture.storage.concert_queries.offers(vec![id], now).await.unwrap();
    let [(of, offer)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(*of, id);
    *offer
}

pub(crate) async fn an_offer_is_the_lowest_unsold_price_of_the_dates_ahead(fixture: &Fixture) {
    let sale = fixture.sale(3).await;
    let concert = sale.concert.id;
    let ids = sale.seat_ids();
    let from = |price: i64| Offer { next_date_at: Some(at(START)), from_price: Some(money(price)) };
    assert_eq!(offer(fixture, concert, at(0)).await, from(100));
    let first = fixture.hold(&sale, &ids[..1], at(0)).await;
    assert_eq!(offer(fixture, concert, at(0)).await, from(100), "a held seat is unsold");
    fixture.pay(first.value.id, at(1)).await;
    assert_eq!(offer(fixture, concert, at(1)).await, from(200));
    let rest = fixture.hold(&sale, &ids[1..], at(1)).await;
    assert_eq!(offer(fixture, concert, at(1)).await, from(200));
    assert!(!from(200).is_sold_out());
    fixture.pay(rest.value.id, at(2)).await;
    let sold_out = Offer { next_date_at: Some(at(START)), from_price: None };
    assert_eq!(offer(fixture, concert, just_before(at(START))).await, sold_out);
    assert!(sold_out.is_sold_out());
    assert_eq!(offer(fixture, concert, at(START)).await, Offer::default(), "it starts");
    assert!(!Offer::default().is_sold_out(), "without a date ahead nothing is sold out");

    // Refunds are a later matter; that a seat comes back is not.
    let Versioned { value, version } = fixture.seat(ids[2]).await;
    let seat = Versioned::new(Seat { state: SeatState::Available, ..value }, version);
    fixture.write(UnitOfWork { seats: vec![Change::Update(seat)], ..Default::default() }).await;
    assert_eq!(offer(fixture, concert, at(3)).await, from(300));
}

pub(crate) async fn offers_are_of_their_own_concerts(fixture: &Fixture) {
    let sale = fixture.sale(2).await;
    let without_dates = fixture.new_concert(sale.room.id).await.id;
    let other = fixture.sale(1).await;
    let unknown = fixture.id(ConcertId::new);
    // A second date, later and cheaper; and one that has no seat.
    let later = fixture.new_date(sale.concert.id, at(START + 10)).await;
    let free = Seat {
        id: fixture.id(SeatId::new),
        performance_date_id: later.id,
        place: SeatPlace { section: label("B"), row: 1, number: 1, grade: label("S"), price: Money::ZERO },
        state: SeatState::Available,
    };
    insert_seat(fixture, &free).await;
    fixture.new_date(sale.concert.id, at(START + 5)).await;

    let ids = vec![unknown, other.concert.id, without_dates, sale.concert.id];
    let mut offers = fixture.storage.concert_queries.offers(ids, at(0)).await.unwrap();
    offers.sort_by_key(|(id, _)| *id);
    let offered = |start: i64, price| Offer { next_date_at: Some(at(start)), from_price: Some(price) };
    let mut expected = vec![
        (unknown, Offer::default()),
        (other.concert.id, offered(START, money(100))),
        (without_dates, Offer::default()),
        (sale.concert.id, offered(START, Money::ZERO)),
    ];
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(offers, expected);
    assert_eq!(offer(fixture, sale.concert.id, at(START)).await, offered(START + 5, Money::ZERO));
    assert_eq!(fixture.storage.concert_queries.offers(vec![], at(0)).await.unwrap(), []);
}

pub(crate) async fn every_field_of_a_seat_comes_back(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let reservation_id = fixture.hold(&sale, &sale.seat_ids(), at(0)).await.value.id;
    let longest = "🎟".repeat(200);
    for (section, row, number, grade, price) in [
        ("VIP 석", 1, 200_000, longest.as_str(), Money::ZERO),
        (longest.as_str(), 200_000, 1, "'; --", Money::MAX),
    ] {
        let place = SeatPlace { section: label(section), row, number, grade: label(grade), price };
        let seat = Seat {
            id: fixture.id(SeatId::new),
            performance_date_id: sale.date.id,
            place: place.clone(),
            state: SeatState::Available,
        };
        insert_seat(fixture, &seat).await;
        assert_eq!(fixture.seat(seat.id).await, Versioned::new(seat.clone(), Version::FIRST));
        let view = SeatView { id: seat.id, place, status: SeatStatus::Available };
        assert!(list(fixture, sale.date.id, SeatFilter::All, at(0)).await.contains(&view));
        for state in [
            SeatState::Reserved { reservation_id, hold_expires_at: Timestamp::MIN },
            SeatState::Reserved { reservation_id, hold_expires_at: Timestamp::MAX },
            SeatState::Unavailable { reservation_id },
            SeatState::Available,
        ] {
            let loaded = fixture.seat(seat.id).await;
            let update = Versioned::new(Seat { state, ..seat.clone() }, loaded.version);
            let change = Change::Update(update.clone());
            fixture.write(UnitOfWork { seats: vec![change], ..Default::default() }).await;
            assert_eq!(fixture.seat(seat.id).await, Versioned::new(update.value, loaded.version.next()));
        }
    }
}

pub(crate) async fn seats_are_loaded_by_id(fixture: &Fixture) {
    let sale = fixture.sale(4).await;
    let ids = sale.seat_ids();
    let unknown = fixture.id(SeatId::new);
    let find = async |ids: &[SeatId]| {
        let seats = fixture.storage.seats.find_many(ids.to_vec()).await.unwrap();
        seats.into_iter().map(|seat| seat.value).collect::<Vec<_>>()
    };
    assert_eq!(find(&[]).await, []);
    assert_eq!(find(&[unknown]).await, []);
    assert_eq!(find(&ids).await, sale.seats);
    let scrambled = [ids[3], unknown, ids[0], ids[3]];
    assert_eq!(find(&scrambled).await, [sale.seats[0].clone(), sale.seats[3].clone()]);
}

/// More seats than a statement of either database has parameters.
pub(crate) async fn a_stadium_is_written_and_read_at_once(fixture: &Fixture) {
    const SEATS: u32 = 70_000;
    let sale = fixture.sale(SEATS).await;
    let loaded = fixture.seats(&sale.seat_ids()).await;
    assert!(loaded.into_iter().map(|seat| seat.value).eq(sale.seats.iter().cloned()));
    let listed = list(fixture, sale.date.id, SeatFilter::Available, at(0)).await;
    assert!(listed.iter().map(|seat| seat.id).eq(sale.seat_ids()));
    let counted = dates(fixture, sale.concert.id, DateFilter::Reservable, at(0)).await;
    assert_eq!((counted[0].total_seats, counted[0].available_seats), (SEATS.into(), SEATS.into()));
}

pub(crate) async fn seats_are_listed_by_place(fixture: &Fixture) {
    let sale = fixture.sale(1).await;
    let date = fixture.new_date(sale.concert.id, at(START)).await;
    let mut places = Vec::new();
    for section in LABELS {
        for (row, number) in [(1, 2), (1, 10), (2, 1), (10, 1)] {
            places.push((section, row, number));
        }
    }
    let mut scrambled = places.clone();
    scrambled.reverse();
    scrambled.rotate_left(7);
    for (section, row, number) in scrambled {
        let place = SeatPlace { section: label(section), row, number, grade: label("R"), price: money(1) };
        let id = fixture.id(SeatId::new);
        let seat = Seat { id, performance_date_id: date.id, place, state: SeatState::Available };
        insert_seat(fixture, &seat).await;
    }
    for filter in [SeatFilter::All, SeatFilter::Available] {
        let listed = list(fixture, date.id, filter, at(0)).await;
        let listed: Vec<_> =
            listed.iter().map(|s| (s.place.section.as_str(), s.place.row, s.place.number)).collect();
        assert_eq!(listed, places);
    }
}

pub(crate) async fn seats_are_shown_as_they_are_now(fixture: &Fixture) {
    use SeatStatus::{Available, Reserved, Unavailable};
    let sale = mixed_sale(fixture).await;
    let ids = sale.seat_ids();
    for (now, second, free) in [
        (just_before(at(HOLD)), Reserved, vec![ids[0], ids[3]]),
        (at(HOLD), Available, vec![ids[0], ids[1], ids[3]]),
    ] {
        assert_eq!(statuses(fixture, &sale, now).await, [Available, second, Unavailable, Available]);
        let available = list(fixture, sale.date.id, SeatFilter::Available, now).await;
        assert_eq!(available.iter().map(|seat| seat.id).collect::<Vec<_>>(), free);
        assert!(available.iter().all(|seat| seat.status == Available));
    }
    let lapsed = fixture.seat(ids[1]).await.value.state;
    assert!(matches!(lapsed, SeatState::Reserved { .. }), "reading changes nothing: {lapsed:?}");
}

pub(crate) async fn sales_are_counted_as_they_are_now(fixture: &Fixture) {
    let sale = mixed_sale(fixture).await;
    fixture.another_date(sale.room, sale.concert.clone(), 3).await;
    let sales = async |now| fixture.storage.admin_queries.sales(sale.date.id, now).await.unwrap().unwrap();
    let held = Sales { available: 2, reserved: 1, unavailable: 1, amount_sold: money(300) };
    assert_eq!(sales(just_before(at(HOLD))).await, held);
    assert_eq!(sales(at(HOLD)).await, Sales { available: 3, reserved: 0, ..held }, "lapsed is free");

    let rest = fixture.hold(&sale, &[sale.seats[0].id, sale.seats[3].id], at(1)).await;
    fixture.pay(rest.value.id, at(2)).await;
    let sold = Sales { available: 0, reserved: 1, unavailable: 3, amount_sold: money(800) };
    assert_eq!(sales(at(2)).await, sold);
}

pub(crate) async fn storage_answers(fixture: &Fixture) {
    assert_eq!(fixture.storage.health.writability().await.unwrap(), Writability::Writable);
}
