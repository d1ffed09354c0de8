use std::io::Read;

use frontrow_domain::ports::{DateFilter, DateSummary, Offer, SeatNews, SeatsOfDate};
use frontrow_domain::queue::{DEFAULT_ROOM_ID, QueueTokenState};
use frontrow_domain::seat::{FeedVersion, Seat, SeatState, SeatUpdate};
use frontrow_domain::{ReservationId, SeatId, Timestamp, Version};
use futures_util::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    BEARER, CONCERT, DATE, OTHER_ROOM, Ports, WAIT_TOKEN, active, ask, concert, date, money, now, place,
    stored,
};

const PASS: [(&str, &str); 2] = [BEARER, WAIT_TOKEN];

fn dates() -> String {
    format!("/concerts/{CONCERT}/performanceDates")
}

fn seats() -> String {
    format!("/concerts/{CONCERT}/performanceDates/{DATE}/seats")
}

/// Many seats; one of them is sold.
fn with_seats(count: u32) -> Ports {
    let mut ports = Ports::with_token(active());
    ports.concerts.expect_find_date().returning(|_| Ok(Some((date(), concert(DEFAULT_ROOM_ID)))));
    ports.seat_feeds.expect_load().returning(move |_| {
        let sold = SeatState::Unavailable { reservation_id: ReservationId::new(Uuid::from_u128(9)) };
        let seat = |number: u32| Seat {
            id: SeatId::new(Uuid::from_u128(number.into())),
            performance_date_id: DATE,
            place: place(number),
            state: if number == 1 { sold } else { SeatState::Available },
        };
        let seats = (1..=count).map(|number| stored(seat(number))).collect();
        Ok(Some(SeatsOfDate { seats, version: FeedVersion::new(7) }))
    });
    ports
}

#[actix_web::test]
async fn concerts_are_public() {
    let mut ports = Ports::new();
    ports.concert_queries.expect_list_concerts().returning(|_, _| Ok(vec![concert(OTHER_ROOM)]));
    ports.concert_queries.expect_offers().returning(|ids, _| {
        let offer = Offer { next_date_at: Some(now()), from_price: Some(money(70)) };
        Ok(ids.into_iter().map(|id| (id, offer)).collect())
    });
    let state = ports.state();
    let expected = json!({"items": [{
        "concertId": CONCERT.to_string(), "title": "First Night", "venue": "Hall",
        "roomId": OTHER_ROOM.to_string(), "soldOut": false, "nextDateAt": "2026-11-22T12:00:00Z",
        "fromPrice": 70,
    }]});
    assert_eq!(ask(&state, "GET", "/concerts", &[], "").await.json(), expected);
    ask(&state, "GET", "/concerts?limit=0", &[], "").await.assert_problem(400, "MALFORMED_REQUEST");
}

#[actix_web::test]
async fn dates_and_seats_lie_behind_the_gate() {
    let waiting = Ports::with_token(QueueTokenState::Wait).state();
    // A bad path comes after the gate.
    for target in [dates(), seats(), "/concerts/x/performanceDates".to_owned()] {
        ask(&waiting, "GET", &target, &[], "").await.assert_problem(401, "UNAUTHENTICATED");
        ask(&waiting, "GET", &target, &[BEARER], "").await.assert_problem(301, "WAIT_TOKEN_MISSING");
        ask(&waiting, "GET", &target, &PASS, "").await.assert_problem(301, "WAIT_TOKEN_NOT_ACTIVE");
    }
    let passed = Ports::with_token(active()).state();
    for target in [
        "/concerts/x/performanceDates".to_owned(),
        format!("/concerts/{CONCERT}/performanceDates/x/seats"),
        format!("{}?status=AVAILABLE", seats()),
        format!("{}?status=", dates()),
    ] {
        ask(&passed, "GET", &target, &PASS, "").await.assert_problem(400, "MALFORMED_REQUEST");
    }
    let mut ports = Ports::with_token(active());
    ports.concerts.expect_find().returning(|_| Ok(Some(concert(OTHER_ROOM))));
    ports.concerts.expect_find_date().returning(|_| Ok(None));
    let elsewhere = ports.state();
    ask(&elsewhere, "GET", &dates(), &PASS, "").await.assert_problem(301, "WAIT_TOKEN_INVALID");
    ask(&elsewhere, "GET", &seats(), &PASS, "").await.assert_problem(404, "PERFORMANCE_DATE_NOT_FOUND");
    let mut ports = Ports::with_token(active());
    ports.concerts.expect_find().returning(|_| Ok(None));
    let unknown = ports.state();
    ask(&unknown, "GET", &dates(), &PASS, "").await.assert_problem(404, "CONCERT_NOT_FOUND");
}

#[actix_web::test]
async fn dates_are_listed() {
    let mut ports = Ports::with_token(active());
    ports.concerts.expect_find().returning(|_| Ok(Some(concert(DEFAULT_ROOM_ID))));
    ports.concert_queries.expect_list_dates().returning(|_, filter, _| {
        let on_sale_at = (filter == DateFilter::All).then(now);
        Ok(vec![DateSummary { id: DATE, starts_at: now(), on_sale_at, total_seats: 2, available_seats: 1 }])
    });
    let state = ports.state();
    let date = json!({
        "performanceDateId": DATE.to_string(), "startsAt": "2026-11-22T12:00:00Z",
        "totalSeats": 2, "availableSeats": 1,
    });
    let answer = ask(&state, "GET", &dates(), &PASS, "").await;
    assert_eq!(answer.json(), json!({"concertId": CONCERT.to_string(), "performanceDates": [date]}));
    let all = ask(&state, "GET", &format!("{}?status=all", dates()), &PASS, "").await.json();
    assert_eq!(all["performanceDates"][0]["onSaleAt"], "2026-11-22T12:00:00Z");
}

#[actix_web::test]
async fn seats_are_listed_by_filter() {
    let state = with_seats(2).state();
    let free = ask(&state, "GET", &seats(), &PASS, "").await;
    let expected = json!({"seats": [{
        "seatId": Uuid::from_u128(2).to_string(), "section": "A", "row": 1, "number": 2, "grade": "R",
        "price": 100, "status": "AVAILABLE",
    }]});
    assert_eq!(free.json(), expected);
    assert_eq!(free.header("content-type"), "application/json");
    assert_eq!(free.header("cache-control"), "private, no-cache");
    assert_eq!(free.header("vary"), "Accept-Encoding");
    let all = ask(&state, "GET", &format!("{}?status=all", seats()), &PASS, "").await;
    assert_eq!(all.json()["seats"].as_array().unwrap().len(), 2);
    assert_eq!(all.json()["seats"][0]["status"], "UNAVAILABLE");
    assert_ne!(all.header("etag"), free.header("etag"));
}

/// Few seats are packed by the worker, many elsewhere: the answer is the same.
#[actix_web::test]
async fn seats_have_a_strong_tag_per_encoding() {
    for count in [50, 1_500] {
        let state = with_seats(count).state();
        let plain = ask(&state, "GET", &seats(), &PASS, "").await;
        let [bearer, pass] = PASS;
        let accept = ("Accept-Encoding", "br, gzip");
        let packed = ask(&state, "GET", &seats(), &[bearer, pass, accept], "").await;
        assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "gzip"));
        assert_eq!(packed.header("vary"), "Accept-Encoding");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, plain.body);
        let (tag, packed_tag) = (plain.header("etag"), packed.header("etag"));
        assert!(tag.starts_with('"') && tag != packed_tag, "{tag} {packed_tag}");

        for named in [tag.to_owned(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let headers = [bearer, pass, ("If-None-Match", named.as_str())];
            let known = ask(&state, "GET", &seats(), &headers, "").await;
            assert_eq!((known.status, known.header("etag"), known.body.len()), (304, tag, 0), "{named}");
            assert_eq!(known.header("cache-control"), "private, no-cache");
            assert_eq!(known.header("vary"), "Accept-Encoding");
        }
        for other in [packed_tag, "\"x\""] {
            let headers = [bearer, pass, ("If-None-Match", other)];
            assert_eq!(ask(&state, "GET", &seats(), &headers, "").await.status, 200, "{other}");
        }
        let both = [bearer, pass, accept, ("If-None-Match", packed_tag)];
        assert_eq!(ask(&state, "GET", &seats(), &both, "").await.status, 304);

        let another_node = with_seats(count).state();
        assert_eq!(ask(&another_node, "GET", &seats(), &PASS, "").await.header("etag"), tag);
        let other_seats = with_seats(count + 1).state();
        assert_ne!(ask(&other_seats, "GET", &seats(), &PASS, "").await.header("etag"), tag);
    }
}

#[actix_web::test]
async fn what_has_changed_is_asked_for_by_version() {
    let mut ports = with_seats(3);
    ports.seat_feeds.expect_versions().returning(|_| Ok(vec![(DATE, FeedVersion::new(7))]));
    let state = ports.state();
    let since =
        async |since: &str| ask(&state, "GET", &format!("{}?since={since}", seats()), &PASS, "").await;
    let plain = ask(&state, "GET", &seats(), &PASS, "").await;
    assert_eq!(plain.header("seat-map-version"), "7");
    let all = ask(&state, "GET", &format!("{}?status=all", seats()), &PASS, "").await.json();
    for unknown in ["0", "6", "8", "9223372036854775807"] {
        let answer = since(unknown).await;
        assert_eq!(answer.json(), json!({"version": 7, "full": true, "seats": all["seats"]}), "{unknown}");
        assert_eq!((answer.header("etag"), answer.header("cache-control")), ("", "no-store"));
    }
    assert_eq!(since("7").await.json(), json!({"version": 7, "full": false, "seats": []}));
    assert_eq!(since("7&status=all").await.json(), json!({"version": 7, "full": false, "seats": []}));
    for malformed in ["", "-1", "+1", "1.0", "x", "9223372036854775808", "1&since=2"] {
        since(malformed).await.assert_problem(400, "MALFORMED_REQUEST");
    }
}

/// A date of 10,000 seats, of which the next version holds so many.
async fn with_changes(changes: u32) -> actix_web::web::Data<frontrow_api::ApiState> {
    let mut ports = with_seats(10_000);
    ports.seat_feeds.expect_versions().returning(|_| Ok(vec![(DATE, FeedVersion::new(8))]));
    ports.seat_feeds.expect_news().returning(move |_, _| {
        let reservation_id = ReservationId::new(Uuid::from_u128(9));
        let state = SeatState::Reserved { reservation_id, hold_expires_at: Timestamp::MAX };
        let held = |number: u32| SeatUpdate {
            id: SeatId::new(Uuid::from_u128(number.into())),
            state,
            version: Version::FIRST.next(),
        };
        let updates = (2..changes + 2).map(held).collect();
        Ok(Some(SeatNews { updates, version: FeedVersion::new(8) }))
    });
    let state = ports.state();
    assert_eq!(ask(&state, "GET", &seats(), &PASS, "").await.header("seat-map-version"), "7");
    // Who knows more than the map has it look at the feed.
    let news = ask(&state, "GET", &format!("{}?since=8", seats()), &PASS, "").await.json();
    assert_eq!(news, json!({"version": 8, "full": false, "seats": []}));
    state
}

#[actix_web::test]
async fn much_that_has_changed_is_told_as_well() {
    let since = format!("{}?since=7", seats());
    let [bearer, pass] = PASS;
    let zipped = [bearer, pass, ("Accept-Encoding", "gzip")];
    for (changes, told) in [(10, 10), (2_000, 2_000), (2_001, 2_001), (2_500, 2_500), (2_501, 10_000)] {
        let state = with_changes(changes).await;
        let plain = ask(&state, "GET", &since, &PASS, "").await;
        let body = plain.json();
        let is_full = told == 10_000;
        assert_eq!((&body["version"], &body["full"]), (&json!(8), &json!(is_full)), "{changes}");
        let seats = body["seats"].as_array().unwrap();
        let held = |seat: &&Value| seat["status"] == "RESERVED";
        assert_eq!(
            (seats.len(), seats.iter().filter(held).count()),
            (told, usize::try_from(changes).unwrap()),
            "{changes}"
        );

        let packed = ask(&state, "GET", &since, &zipped, "").await;
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).unwrap();
        let encodings = (plain.header("content-encoding"), packed.header("content-encoding"));
        assert_eq!((encodings, unpacked == plain.body), (("", "gzip"), true), "{changes}");
    }
}

#[actix_web::test]
async fn much_that_has_changed_is_written_elsewhere() {
    let since = format!("{}?since=7", seats());
    for (changes, is_elsewhere) in [(2_000, false), (2_500, true)] {
        let state = with_changes(changes).await;
        // What is written here is there at the first look. What is written elsewhere is not, unless this thread rests meanwhile.
        let looks = (0..10).map(|_| ask(&state, "GET", &since, &PASS, "").now_or_never().is_none());
        assert_eq!(looks.collect::<Vec<_>>().contains(&true), is_elsewhere, "{changes}");
    }
}
