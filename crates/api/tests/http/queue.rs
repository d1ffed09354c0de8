use frontrow_domain::ports::{Offer, StorageError};
use frontrow_domain::queue::{
    DEFAULT_ROOM_ID, QueueTokenState, QueueTokenStatus, Room, RoomPolicy, RoomRefusal, poll_after_seconds,
};
use frontrow_domain::unit_of_work::{CommandOutcome, CommitError, Committed};
use serde_json::json;

use crate::harness::{
    BEARER, CONCERT, JSON, OTHER_ROOM, Ports, TOKEN, USER, WAIT_TOKEN, active, ask, concert, line, now,
    stored, stored_lines, token,
};

fn newcomer() -> Ports {
    let mut ports = Ports::new();
    let before = token(QueueTokenState::Wait).ticket.0 - 1;
    ports.queue_queries.expect_lines().returning(move || Ok(stored_lines(vec![line(before)])));
    ports
}

#[actix_web::test]
async fn a_newcomer_gets_a_token_in_the_header() {
    let mut ports = newcomer();
    ports
        .committer
        .expect_commit()
        .returning(|_| Ok(Committed { outcome: Some(CommandOutcome::Joined(token(QueueTokenState::Wait))) }));
    let state = ports.state();
    let room = Room::new(DEFAULT_ROOM_ID, RoomPolicy::default(), now());
    let poll_after = poll_after_seconds(QueueTokenStatus::Wait, 1, &room, TOKEN, now());
    for (headers, body) in [
        (vec![BEARER], ""),
        (vec![BEARER, ("Content-Type", "text/plain")], ""),
        (vec![BEARER, JSON], "{}"),
        (vec![BEARER], "{\"concertId\":null,\"unknown\":1}"),
    ] {
        let answer = ask(&state, "POST", "/queue", &headers, body).await;
        assert_eq!(answer.status, 201, "{body}");
        assert_eq!(answer.header("wait-token"), "signed");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("retry-after"), poll_after.to_string());
        let expected = json!({
            "tokenId": TOKEN.to_string(), "roomId": DEFAULT_ROOM_ID.to_string(), "userId": USER.to_string(),
            "status": "WAIT", "position": 1, "estimatedWaitSeconds": 600,
            "enteredAt": "2026-11-22T12:00:00Z", "pollAfterSeconds": poll_after, "salePaused": false,
        });
        assert_eq!(answer.json(), expected);
    }
}

#[actix_web::test]
async fn whoever_is_in_line_gets_the_same_token() {
    let mut ports = Ports::new();
    ports
        .committer
        .expect_commit()
        .returning(|_| Ok(Committed { outcome: Some(CommandOutcome::AlreadyJoined(token(active()))) }));
    ports.tokens.expect_find().returning(|_| Ok(Some(stored(token(active())))));
    let answer = ask(&ports.state(), "POST", "/queue", &[BEARER], "").await;
    assert_eq!((answer.status, answer.header("wait-token")), (200, "signed"));
    assert_eq!(answer.header("retry-after"), "", "only while WAIT");
    let body = answer.json();
    assert_eq!((&body["status"], &body["position"]), (&"ACTIVE".into(), &0.into()));
    assert_eq!(body["activatedAt"], "2026-11-22T12:00:00Z");
    assert_eq!(body["expiresAt"], "2026-11-22T12:01:00Z");
}

#[actix_web::test]
async fn a_sold_out_concert_is_a_conflict_without_a_time_to_come_back() {
    let mut ports = newcomer();
    ports.concerts.expect_find().returning(|_| Ok(Some(concert(OTHER_ROOM))));
    ports.concert_queries.expect_offers().returning(|ids, _| {
        let sold_out = Offer { next_date_at: Some(now()), from_price: None };
        Ok(ids.into_iter().map(|id| (id, sold_out)).collect())
    });
    ports.tokens.expect_find_live().returning(|_, _| Ok(None));
    let body = json!({"concertId": CONCERT.to_string()}).to_string();
    let answer = ask(&ports.state(), "POST", "/queue", &[BEARER, JSON], body).await;
    answer.assert_problem(409, "SOLD_OUT");
    assert_eq!(answer.header("retry-after"), "");
}

#[actix_web::test]
async fn rooms_refuse_with_a_time_to_come_back() {
    for (refusal, code) in [(RoomRefusal::Closed, "ROOM_CLOSED"), (RoomRefusal::Full, "ROOM_FULL")] {
        let mut ports = newcomer();
        ports.committer.expect_commit().returning(move |_| Err(CommitError::Refused(refusal)));
        let answer = ask(&ports.state(), "POST", "/queue", &[BEARER], "").await;
        answer.assert_problem(503, code);
        assert_eq!(answer.header("retry-after"), "30");
    }
}

#[actix_web::test]
async fn entering_is_checked() {
    let mut ports = Ports::new();
    ports.concerts.expect_find().returning(|_| Ok(None));
    let state = ports.state();
    ask(&state, "POST", "/queue", &[], "x").await.assert_problem(401, "UNAUTHENTICATED");
    for body in ["x", "[]", "null", "{\"concertId\":1}", "{\"concertId\":\"x\"}"] {
        ask(&state, "POST", "/queue", &[BEARER], body).await.assert_problem(400, "MALFORMED_REQUEST");
    }
    let body = format!("{{\"concertId\":\"{CONCERT}\"}}");
    ask(&state, "POST", "/queue", &[BEARER], body).await.assert_problem(404, "CONCERT_NOT_FOUND");
}

#[actix_web::test]
async fn a_bad_wait_token_is_401_where_the_queue_itself_is_asked() {
    let state = Ports::new().state();
    for method in ["GET", "DELETE"] {
        ask(&state, method, "/queue", &[WAIT_TOKEN], "").await.assert_problem(401, "UNAUTHENTICATED");
        ask(&state, method, "/queue", &[BEARER], "").await.assert_problem(401, "WAIT_TOKEN_MISSING");
        let empty = [BEARER, ("Wait-Token", "")];
        ask(&state, method, "/queue", &empty, "").await.assert_problem(401, "WAIT_TOKEN_MISSING");
        for token in ["forged", "대기"] {
            let headers = [BEARER, ("Wait-Token", token)];
            ask(&state, method, "/queue", &headers, "").await.assert_problem(401, "WAIT_TOKEN_INVALID");
        }
        let other = [("Authorization", "Bearer other"), WAIT_TOKEN];
        ask(&state, method, "/queue", &other, "").await.assert_problem(401, "WAIT_TOKEN_INVALID");
    }
}

#[actix_web::test]
async fn an_ended_place_can_still_be_looked_up_and_given_up() {
    let ended = QueueTokenState::Expired { activated_at: None, expires_at: now() };
    let ports = Ports::with_token(ended);
    let state = ports.state();
    let answer = ask(&state, "GET", "/queue", &[BEARER, WAIT_TOKEN], "").await;
    let body = answer.json();
    assert_eq!((answer.status, &body["status"]), (200, &"EXPIRED".into()));
    assert_eq!(body["expiresAt"], "2026-11-22T12:00:00Z");
    assert!(body.get("activatedAt").is_none());
    let left = ask(&state, "DELETE", "/queue", &[BEARER, WAIT_TOKEN], "").await;
    assert_eq!((left.status, left.header("cache-control"), left.body.len()), (204, "no-store", 0));
}

#[actix_web::test]
async fn storage_that_is_away_is_503() {
    let mut ports = Ports::new();
    ports.queue_queries.expect_lines().returning(|| Err(StorageError::Unavailable("gone".into())));
    let answer = ask(&ports.state(), "GET", "/queue", &[BEARER, WAIT_TOKEN], "").await;
    answer.assert_problem(503, "UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(answer.json().get("outcome").is_none());

    let mut ports = newcomer();
    ports.committer.expect_commit().returning(|_| Err(CommitError::OutcomeUnknown("lost".into())));
    let answer = ask(&ports.state(), "POST", "/queue", &[BEARER], "").await;
    answer.assert_problem(503, "UNAVAILABLE");
    assert_eq!(answer.json()["outcome"], "unknown");

    let mut ports = Ports::new();
    ports.queue_queries.expect_lines().returning(|| Err(StorageError::Corrupt("row 7".into())));
    let answer = ask(&ports.state(), "GET", "/queue", &[BEARER, WAIT_TOKEN], "").await;
    answer.assert_problem(500, "INTERNAL");
    assert!(!answer.json().to_string().contains("row 7"), "what went wrong is for the log");
}
