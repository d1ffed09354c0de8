use frontrow_domain::ports::{RoomOverview, Sales};
use frontrow_domain::queue::{DEFAULT_ROOM_ID, Room, RoomMode, RoomPolicy, RoomWithWaiters};
use frontrow_domain::unit_of_work::{Command, CommandOutcome, Committed};
use frontrow_domain::{Change, RoomId};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{
    ADMIN, BEARER, CONCERT, DATE, JSON, OTHER_ROOM, Ports, ask, concert, money, now, stored,
};

fn room() -> Room {
    let policy = RoomPolicy { max_active: Some(5), ..RoomPolicy::default() };
    Room::new(OTHER_ROOM, policy, now())
}

fn dates() -> String {
    format!("/admin/concerts/{CONCERT}/performanceDates")
}

fn sections(section: &str) -> String {
    format!("{{\"startsAt\":\"2030-01-01T00:00:00Z\",\"sections\":[{section}]}}")
}

const SECTION: &str = r#"{"section":"A","grade":"R","price":100,"rows":2,"seatsPerRow":3}"#;

#[actix_web::test]
async fn every_route_is_for_operators_and_says_so_after_400() {
    let state = Ports::new().state();
    let room = format!("/admin/rooms/{OTHER_ROOM}");
    let sales = format!("/admin/performanceDates/{DATE}/sales");
    for (method, target, bad_target, body) in [
        ("POST", "/admin/concerts".to_owned(), None, r#"{"title":"","venue":""}"#.to_owned()),
        ("POST", dates(), Some("/admin/concerts/x/performanceDates"), sections("")),
        ("GET", "/admin/rooms".to_owned(), Some("/admin/rooms?limit=0"), String::new()),
        ("PATCH", room.clone(), Some("/admin/rooms/x"), r#"{"admitBatch":0}"#.to_owned()),
        ("POST", format!("{room}/admit"), Some("/admin/rooms/x/admit"), r#"{"count":0}"#.to_owned()),
        ("GET", sales, Some("/admin/performanceDates/x/sales"), String::new()),
        ("GET", "/admin/audit-log".to_owned(), Some("/admin/audit-log?cursor=x"), String::new()),
    ] {
        ask(&state, method, &target, &[], body.clone()).await.assert_problem(401, "UNAUTHENTICATED");
        ask(&state, method, &target, &[BEARER, JSON], body.clone()).await.assert_problem(403, "FORBIDDEN");
        if let Some(bad) = bad_target {
            let answer = ask(&state, method, bad, &[BEARER, JSON], body.clone()).await;
            answer.assert_problem(400, "MALFORMED_REQUEST");
        }
        if method != "GET" {
            let answer = ask(&state, method, &target, &[BEARER], "[]").await;
            answer.assert_problem(400, "MALFORMED_REQUEST");
            let answer = ask(&state, method, &target, &[ADMIN, JSON], body).await;
            answer.assert_problem(422, "INVALID_REQUEST");
        }
    }
}

#[actix_web::test]
async fn concerts_are_made_with_and_without_a_room() {
    let mut ports = Ports::new();
    ports.committer.expect_commit().times(1).returning(|work| {
        assert!(work.rooms.is_empty());
        Ok(Committed::default())
    });
    ports.committer.expect_commit().times(1).returning(|work| {
        let policy = work.rooms[0].value().policy;
        let expected =
            RoomPolicy { admit_batch: 3, mode: RoomMode::Hold, max_active: None, ..RoomPolicy::default() };
        assert_eq!(policy, expected);
        Ok(Committed::default())
    });
    let state = ports.state();
    let plain = r#"{"title":" First Night ","venue":"Hall","room":null}"#;
    let answer = ask(&state, "POST", "/admin/concerts", &[ADMIN, JSON], plain).await;
    assert_eq!((answer.status, &answer.json()["roomId"]), (201, &DEFAULT_ROOM_ID.to_string().into()));
    assert!(answer.json()["concertId"].is_string());
    let own = r#"{"title":"T","venue":"V","room":{"admitBatch":3,"mode":"HOLD","maxActive":null}}"#;
    let answer = ask(&state, "POST", "/admin/concerts", &[ADMIN, JSON], own).await;
    assert_eq!(answer.status, 201);
    assert_ne!(answer.json()["roomId"], DEFAULT_ROOM_ID.to_string());
}

#[actix_web::test]
async fn concerts_are_checked() {
    let state = Ports::new().state();
    for (body, status, code) in [
        (r#"{"title":"T"}"#, 400, "MALFORMED_REQUEST"),
        (r#"{"title":1,"venue":"V"}"#, 400, "MALFORMED_REQUEST"),
        (r#"{"title":"T","venue":"V","room":[]}"#, 400, "MALFORMED_REQUEST"),
        (r#"{"title":"T","venue":"V","room":{"mode":"open"}}"#, 400, "MALFORMED_REQUEST"),
        (r#"{"title":"T","venue":"V","room":{"admitBatch":null}}"#, 400, "MALFORMED_REQUEST"),
        (r#"{"title":"T","venue":"V","room":{"admitBatch":"3"}}"#, 400, "MALFORMED_REQUEST"),
        (r#"{"title":" ","venue":"V"}"#, 422, "INVALID_REQUEST"),
        (r#"{"title":"T","venue":"a\u0000b"}"#, 422, "INVALID_REQUEST"),
        (r#"{"title":"T","venue":"V","room":{"admitBatch":0}}"#, 422, "INVALID_REQUEST"),
        (r#"{"title":"T","venue":"V","room":{"maxActive":99999999999999999999}}"#, 422, "INVALID_REQUEST"),
    ] {
        let answer = ask(&state, "POST", "/admin/concerts", &[ADMIN, JSON], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
    let body = r#"{"title":"T","venue":"V","room":{"maxWaiting":-1}}"#;
    let answer = ask(&state, "POST", "/admin/concerts", &[ADMIN, JSON], body).await;
    assert_eq!(answer.json()["field"], "maxWaiting");
}

#[actix_web::test]
async fn dates_are_made() {
    let mut ports = Ports::new();
    ports.concerts.expect_find().returning(|_| Ok(Some(concert(DEFAULT_ROOM_ID))));
    ports.committer.expect_commit().returning(|work| {
        assert_eq!((work.performance_dates.len(), work.seats.len()), (1, 6));
        Ok(Committed::default())
    });
    // A start in the past is the operator's own affair.
    let body =
        format!("{{\"startsAt\":\"2020-01-01T09:00:00+09:00\",\"onSaleAt\":null,\"sections\":[{SECTION}]}}");
    let answer = ask(&ports.state(), "POST", &dates(), &[ADMIN, JSON], body).await;
    assert_eq!((answer.status, &answer.json()["totalSeats"]), (201, &6.into()));
    assert!(answer.json()["performanceDateId"].is_string());
}

#[actix_web::test]
async fn dates_are_checked() {
    let mut ports = Ports::new();
    ports.concerts.expect_find().returning(|_| Ok(None));
    let state = ports.state();
    let with = |from: &str, to: &str| sections(&SECTION.replace(from, to));
    let on_sale = |at: &str| {
        let sections = sections(SECTION);
        sections.replacen('{', &format!("{{\"onSaleAt\":\"{at}\","), 1)
    };
    for (body, status, code) in [
        (sections(SECTION).replace("2030-01-01T00:00:00Z", "tomorrow"), 400, "MALFORMED_REQUEST"),
        (on_sale("2030-01-01"), 400, "MALFORMED_REQUEST"),
        (sections("[]"), 400, "MALFORMED_REQUEST"),
        (with(":100", ":1.5"), 400, "MALFORMED_REQUEST"),
        (with(",\"rows\":2", ""), 400, "MALFORMED_REQUEST"),
        (sections(""), 422, "INVALID_REQUEST"),
        (sections(&format!("{SECTION},{SECTION}")), 422, "INVALID_REQUEST"),
        (with(":100", ":-1"), 422, "INVALID_REQUEST"),
        (with(":100", ":9223372036854775808"), 422, "INVALID_REQUEST"),
        (with(":2,", ":0,"), 422, "INVALID_REQUEST"),
        (with(":3}", ":4294967296}"), 422, "INVALID_REQUEST"),
        (with(":2,", ":200000,"), 422, "INVALID_REQUEST"),
        (with("\"A\"", "\"\""), 422, "INVALID_REQUEST"),
        (on_sale("2030-01-01T00:00:00Z"), 422, "INVALID_REQUEST"),
        (on_sale("2029-12-31T23:59:59Z"), 404, "CONCERT_NOT_FOUND"),
    ] {
        let answer = ask(&state, "POST", &dates(), &[ADMIN, JSON], body.clone()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{body}");
    }
}

#[actix_web::test]
async fn rooms_are_listed_and_changed() {
    let mut ports = Ports::new();
    ports
        .admin_queries
        .expect_list_rooms()
        .returning(|_, _, _| Ok(vec![RoomOverview { room: room(), waiting: 7, active: 2 }]));
    ports.rooms.expect_find().returning(|_| Ok(Some(stored(room()))));
    ports
        .rooms
        .expect_find_with_waiters()
        .returning(|_| Ok(Some(RoomWithWaiters { room: stored(room()), waiting_since: None })));
    ports.committer.expect_commit().returning(|work| {
        if let Some(Change::Update(changed)) = work.rooms.first() {
            assert_eq!((changed.value.policy.max_active, changed.value.policy.admit_batch), (None, 10));
        }
        Ok(Committed::default())
    });
    ports
        .admin_queries
        .expect_find_room()
        .returning(|_, _| Ok(Some(RoomOverview { room: room(), waiting: 7, active: 2 })));
    let state = ports.state();
    let expected = json!({
        "roomId": OTHER_ROOM.to_string(), "admitBatch": 10, "admitIntervalSeconds": 600,
        "activeTtlSeconds": 600, "maxActive": 5, "maxWaiting": null, "waitGraceSeconds": null, "mode": "AUTO",
        "opensAt": null, "opensAtDerived": false, "waiting": 7, "active": 2, "nextTickAt": "2026-11-22T12:10:00Z",
    });
    let rooms = ask(&state, "GET", "/admin/rooms", &[ADMIN], "").await.json();
    assert_eq!(rooms, json!({"items": [expected]}));
    let target = format!("/admin/rooms/{OTHER_ROOM}");
    let changed = ask(&state, "PATCH", &target, &[ADMIN, JSON], r#"{"maxActive":null}"#).await;
    assert_eq!((changed.status, changed.json()), (200, expected));
}

#[actix_web::test]
async fn a_room_that_is_not_there() {
    let mut ports = Ports::new();
    ports.rooms.expect_find().returning(|_| Ok(None));
    ports.rooms.expect_find_with_waiters().returning(|_| Ok(None));
    let state = ports.state();
    let target = format!("/admin/rooms/{}", RoomId::new(Uuid::nil()));
    let patch = ask(&state, "PATCH", &target, &[ADMIN, JSON], "{}").await;
    patch.assert_problem(404, "NOT_FOUND");
    let invalid = ask(&state, "PATCH", &target, &[ADMIN, JSON], r#"{"admitBatch":0}"#).await;
    invalid.assert_problem(422, "INVALID_REQUEST");
    let admit = ask(&state, "POST", &format!("{target}/admit"), &[ADMIN, JSON], r#"{"count":1}"#).await;
    admit.assert_problem(404, "NOT_FOUND");
}

#[actix_web::test]
async fn waiters_are_admitted_by_hand() {
    let mut ports = Ports::new();
    ports.rooms.expect_find().returning(|_| Ok(Some(stored(room()))));
    ports.committer.expect_commit().returning(|work| {
        let Some(Command::Admit(admit)) = work.command else { panic!("{work:?}") };
        assert_eq!(admit.limit, 100_000);
        Ok(Committed { outcome: Some(CommandOutcome::Admitted(3)) })
    });
    let state = ports.state();
    let target = format!("/admin/rooms/{OTHER_ROOM}/admit");
    let answer = ask(&state, "POST", &target, &[ADMIN, JSON], r#"{"count":100000}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"admitted": 3})));
    for count in ["0", "-1", "100001", "99999999999999999999"] {
        let answer = ask(&state, "POST", &target, &[ADMIN, JSON], format!("{{\"count\":{count}}}")).await;
        answer.assert_problem(422, "INVALID_REQUEST");
    }
}

#[actix_web::test]
async fn sales_are_counted() {
    let mut ports = Ports::new();
    ports.admin_queries.expect_sales().times(1).returning(|_, _| {
        Ok(Some(Sales { available: 1, reserved: 2, unavailable: 3, amount_sold: money(400) }))
    });
    ports.admin_queries.expect_sales().returning(|_, _| Ok(None));
    let state = ports.state();
    let target = format!("/admin/performanceDates/{DATE}/sales");
    let sales = ask(&state, "GET", &target, &[ADMIN], "").await.json();
    assert_eq!(sales, json!({"available": 1, "reserved": 2, "unavailable": 3, "amountSold": 400}));
    ask(&state, "GET", &target, &[ADMIN], "").await.assert_problem(404, "PERFORMANCE_DATE_NOT_FOUND");
}
