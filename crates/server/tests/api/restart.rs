//! What a restart must not forget.

use frontrow_testkit::app::{Database, TestApp, settings};
use serde_json::json;

use crate::idempotency::Remembered;
use crate::support::{admin, asked, place, room};

pub(crate) async fn answers_and_tokens_are_the_same_after_a_restart(database: &Database) {
    let app = TestApp::start(settings(database)).await;
    let mut remembered = Remembered::make(&app).await;
    let line = place(&app, &remembered.waiting).await;
    let before = room(&app, remembered.sale.room_id).await;
    remembered.check(&app).await;
    app.stop().await;

    let app = TestApp::start(settings(database)).await;
    remembered.check(&app).await;
    let again = place(&app, &remembered.waiting).await;
    for field in ["tokenId", "roomId", "userId", "status", "position", "enteredAt"] {
        assert_eq!(again[field], line[field], "{field}");
    }
    assert_eq!(room(&app, remembered.sale.room_id).await, before, "policy, counts and the grid of ticks");
    remembered.pay(&app).await;
    app.stop().await;

    let app = TestApp::start(settings(database)).await;
    remembered.check(&app).await;
    app.stop().await;
}

pub(crate) async fn options_do_not_change_the_room_of_a_later_start(database: &Database) {
    let app = TestApp::start(settings(database)).await;
    let rooms = admin(&app, reqwest::Method::GET, "/admin/rooms");
    let first = asked(rooms, 200).await.json();
    app.stop().await;
    let mut other = settings(database);
    other.global_policy.admit_batch = 77;
    let app = TestApp::start(other).await;
    let rooms = admin(&app, reqwest::Method::GET, "/admin/rooms");
    assert_eq!(asked(rooms, 200).await.json(), first);
    assert_eq!(first["items"].as_array().unwrap().len(), 1, "the global room is there from the start");
    assert_eq!(first["items"][0]["admitBatch"], json!(10));
    app.stop().await;
}
