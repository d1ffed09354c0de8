//! Openings of rooms, pauses of the sale, and ticks that a wrong clock has written.

use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, sent, settings};
use serde_json::{Value, json};

use crate::support::{
    add_date, admin_post, asked, becomes, enter, in_seconds, micros, now, past, patch_room, place,
    place_status, refused, room, sale_on, time,
};

/// A concert with a room of its own and no date yet.
async fn concert(app: &TestApp, policy: &Value) -> Value {
    let body = json!({"title": "A Concert", "venue": "A Hall", "room": policy});
    sent(admin_post(app, "/admin/concerts", &body), 201).await
}

async fn opens(app: &TestApp, concert: &Value) -> (Value, Value) {
    let room = room(app, concert["roomId"].as_str().unwrap().parse().unwrap()).await;
    (room["opensAt"].clone(), room["opensAtDerived"].clone())
}

fn date(on_sale: Option<i64>) -> Value {
    let section = json!({"section": "A", "grade": "R", "price": 100, "rows": 1, "seatsPerRow": 2});
    let mut date = json!({"startsAt": in_seconds(90_000), "sections": [section]});
    if let Some(on_sale) = on_sale {
        date["onSaleAt"] = json!(in_seconds(on_sale));
    }
    date
}

pub(crate) async fn no_tick_admits_before_the_opening(app: &TestApp) {
    let opens_at = in_seconds(6);
    let policy = json!({"admitBatch": 5, "admitIntervalSeconds": 1, "opensAt": opens_at});
    let sale = app.sale(policy, 1, 1).await;
    let shown = room(app, sale.room_id).await;
    assert_eq!((&shown["opensAt"], &shown["nextTickAt"]), (&json!(opens_at), &json!(opens_at)));
    assert_eq!(shown["opensAtDerived"], false);
    let (early, by_hand) = (app.waiting(&sale).await, app.guest().await);
    let first = place(app, &early).await;
    assert!((1..=6).contains(&first["estimatedWaitSeconds"].as_u64().unwrap()), "{first}");
    assert_eq!(app.admit(sale.room_id, 1).await, 1, "by hand it works");
    asked(enter(app, &by_hand, &sale), 201).await;
    let waiting = app.waiting(&sale).await;
    becomes("the tick admits", "ACTIVE".to_owned(), async || place_status(app, &waiting).await).await;
    let activated = time(&place(app, &waiting).await, "activatedAt");
    assert!(activated >= time(&shown, "opensAt"), "{activated}");
    let next = time(&room(app, sale.room_id).await, "nextTickAt");
    assert_eq!(micros(time(&shown, "opensAt"), next) % 1_000_000, 0, "the grid counts from the opening");
}

pub(crate) async fn an_opening_is_set_moved_and_cleared(app: &TestApp) {
    let sale = app.sale(json!({"admitIntervalSeconds": 600}), 1, 1).await;
    let created = room(app, sale.room_id).await;
    assert_eq!(created["opensAt"], Value::Null);
    for seconds in [5_000, 9_000] {
        let opens_at = in_seconds(seconds);
        let changed = sent(patch_room(app, sale.room_id, &json!({"opensAt": opens_at})), 200).await;
        assert_eq!([&changed["opensAt"], &changed["nextTickAt"]], [&opens_at, &opens_at]);
    }
    let cleared = sent(patch_room(app, sale.room_id, &json!({"opensAt": null})), 200).await;
    assert_eq!([&cleared["opensAt"], &cleared["nextTickAt"]], [&Value::Null, &created["nextTickAt"]]);
    for (bad, status) in [(json!("tomorrow"), 400), (json!(12), 400), (json!(""), 400)] {
        let code = "MALFORMED_REQUEST";
        refused(patch_room(app, sale.room_id, &json!({"opensAt": bad})), status, code).await;
    }
    // An opening in the past is now.
    let waiting = app.waiting(&sale).await;
    sent(patch_room(app, sale.room_id, &json!({"opensAt": in_seconds(5_000)})), 200).await;
    sent(patch_room(app, sale.room_id, &json!({"opensAt": in_seconds(-5)})), 200).await;
    becomes("the room is open", "ACTIVE".to_owned(), async || place_status(app, &waiting).await).await;
}

pub(crate) async fn the_dates_of_a_concert_open_its_own_room(app: &TestApp) {
    let own = concert(app, &json!({"admitIntervalSeconds": 1})).await;
    let (room_id, concert_id) = (&own["roomId"], own["concertId"].as_str().unwrap().parse().unwrap());
    let room_id = room_id.as_str().unwrap().parse().unwrap();
    assert_eq!(opens(app, &own).await, (Value::Null, json!(false)), "no date yet");
    let (late, soon) = (date(Some(8_000)), date(Some(4_000)));
    add_date(app, concert_id, &late).await;
    assert_eq!(opens(app, &own).await, (late["onSaleAt"].clone(), json!(true)));
    add_date(app, concert_id, &soon).await;
    assert_eq!(opens(app, &own).await, (soon["onSaleAt"].clone(), json!(true)), "the earliest");
    assert_eq!(room(app, room_id).await["nextTickAt"], soon["onSaleAt"]);
    let operators = in_seconds(6_000);
    sent(patch_room(app, room_id, &json!({"opensAt": operators})), 200).await;
    assert_eq!(opens(app, &own).await, (json!(operators), json!(false)), "the operator's counts");
    sent(patch_room(app, room_id, &json!({"opensAt": null})), 200).await;
    assert_eq!(opens(app, &own).await, (soon["onSaleAt"].clone(), json!(true)));

    let newcomer = app.guest().await;
    let entered = asked(newcomer.own(app.post("/queue", &json!({"concertId": concert_id}))), 201).await;
    assert_eq!(entered.json()["status"], "WAIT");
    assert!(entered.json()["estimatedWaitSeconds"].as_u64().unwrap() > 3_000);
    add_date(app, concert_id, &date(None)).await;
    assert_eq!(opens(app, &own).await, (Value::Null, json!(false)), "one date is on sale already");
    becomes("its ticks admit", json!(1), async || room(app, room_id).await["active"].clone()).await;

    let global = app.sale(Value::Null, 1, 1).await;
    sale_on(app, &global, 90_000, Some(4_000), 1).await;
    assert_eq!(room(app, global.room_id).await["opensAt"], Value::Null, "the global room serves others too");
}

async fn pausing(app: &TestApp, sale: &Sale, mode: &str) -> Value {
    sent(patch_room(app, sale.room_id, &json!({"mode": mode})), 200).await
}

async fn is_paused(app: &TestApp, buyer: &Buyer) -> bool {
    place(app, buyer).await["salePaused"] == true
}

pub(crate) async fn a_pause_stops_the_sale_and_keeps_what_is_held(app: &TestApp) {
    let sale = app.sale(json!({"activeTtlSeconds": 8}), 1, 6).await;
    let (payer, quitter, late) = (app.active(&sale).await, app.active(&sale).await, app.active(&sale).await);
    let seats = app.seats(&late, &sale).await;
    let paid = app.hold(&payer, &sale, &seats[..1]).await;
    let given_back = app.hold(&quitter, &sale, &seats[1..2]).await;
    app.charge(&payer, 1_000).await;
    let waiting = app.waiting(&sale).await;
    let before = time(&place(app, &late).await, "expiresAt");
    let paused_from = now();
    let paused = pausing(app, &sale, "PAUSED").await;
    assert_eq!(
        [&paused["mode"], &paused["waiting"], &paused["active"]],
        [&json!("PAUSED"), &json!(1), &json!(3)]
    );

    let refusal = refused(app.reserve(&late, &sale, &seats[2..3]), 409, "SALE_PAUSED").await;
    assert!(refusal["detail"].as_str().unwrap().contains("paused"), "{refusal}");
    let admit = format!("/admin/rooms/{}/admit", sale.room_id);
    refused(admin_post(app, &admit, &json!({"count": 1})), 409, "SALE_PAUSED").await;
    let newcomer = app.waiting(&sale).await;
    assert_eq!(place_status(app, &newcomer).await, "WAIT", "newcomers may join");
    assert_eq!(place(app, &newcomer).await["estimatedWaitSeconds"], Value::Null);
    becomes("buyers see the pause", true, async || is_paused(app, &late).await).await;
    assert!(is_paused(app, &waiting).await);
    pausing(app, &sale, "PAUSED").await;

    // Longer than the turn lasts, and than a sweep takes.
    past(before.plus_seconds(3)).await;
    assert_eq!(place_status(app, &late).await, "ACTIVE");
    asked(late.own(app.get(&sale.seats_path())), 200).await;
    asked(late.own(app.post("/queue", &json!({"concertId": sale.concert_id}))), 200).await;
    refused(app.reserve(&late, &sale, &seats[2..3]), 409, "SALE_PAUSED").await;
    asked(app.pay(&payer, paid), 200).await;
    asked(quitter.own(app.delete(&format!("/reservations/{given_back}"))), 204).await;
    assert_eq!(room(app, sale.room_id).await["active"], 2, "the payer is through");

    let resumed_from = now();
    pausing(app, &sale, "HOLD").await;
    let after = time(&place(app, &late).await, "expiresAt");
    let (added, pause) = (micros(before, after), micros(paused_from, resumed_from));
    assert!((pause - 2_000_000..pause + 20_000_000).contains(&added), "{added} of a pause of {pause}");
    asked(app.reserve(&late, &sale, &seats[2..3]), 201).await;
    assert!(!is_paused(app, &late).await);
    assert_eq!(app.admit(sale.room_id, 1).await, 1);
    becomes("the time that was left ends", "EXPIRED".to_owned(), async || place_status(app, &late).await)
        .await;
}

/// On another node the pause holds at once where it is written, and shows within a second.
pub(crate) async fn a_pause_holds_on_every_node(database: &Database) {
    let (here, there) = match database.url() {
        // A file has one server.
        DatabaseUrl::Sqlite(_) => return,
        DatabaseUrl::Postgres(_) => {
            (TestApp::start(settings(database)).await, TestApp::start(settings(database)).await)
        }
    };
    let sale = here.sale(json!({}), 1, 4).await;
    let buyer = there.active(&sale).await;
    let seats = there.seats(&buyer, &sale).await;
    for seat in &seats {
        pausing(&here, &sale, "PAUSED").await;
        refused(there.reserve(&buyer, &sale, std::slice::from_ref(seat)), 409, "SALE_PAUSED").await;
        pausing(&here, &sale, "AUTO").await;
        asked(there.reserve(&buyer, &sale, std::slice::from_ref(seat)), 201).await;
    }
    pausing(&here, &sale, "PAUSED").await;
    becomes("the pause shows there", true, async || is_paused(&there, &buyer).await).await;
    here.stop().await;
    there.stop().await;
}

/// A node, or the only one, whose clock was a day ahead for a moment.
pub(crate) async fn a_tick_that_a_wrong_clock_wrote_heals(database: &Database) {
    let app = TestApp::start(settings(database)).await;
    let day = match database.url() {
        DatabaseUrl::Sqlite(_) => "86400000000",
        DatabaseUrl::Postgres(_) => "INTERVAL '1 day'",
    };
    let astray = format!(
        "UPDATE rooms SET last_tick_at = last_tick_at + {day}, next_tick_at = next_tick_at + {day}, version = version + 1"
    );
    let sale = app.sale(json!({"admitIntervalSeconds": 2}), 1, 1).await;
    let created = time(&room(&app, sale.room_id).await, "nextTickAt");
    database.execute(&astray).await;
    let shown = time(&room(&app, sale.room_id).await, "nextTickAt");
    assert!(micros(now(), shown) <= 2_000_000, "{shown} is shown on the grid");
    let waiting = app.waiting(&sale).await;
    becomes("a pass heals it", "ACTIVE".to_owned(), async || place_status(&app, &waiting).await).await;
    let next = time(&room(&app, sale.room_id).await, "nextTickAt");
    assert_eq!(micros(created, next) % 2_000_000, 0, "the grid is the same");

    // Where the mode lets no pass near it, a change heals it too.
    let held = app.sale(json!({"admitIntervalSeconds": 600, "mode": "HOLD"}), 1, 1).await;
    database.execute(&astray).await;
    let changed = sent(patch_room(&app, held.room_id, &json!({"mode": "AUTO"})), 200).await;
    assert!(micros(now(), time(&changed, "nextTickAt")) <= 600_000_000);
    let ahead = database.query_i64("SELECT count(*) FROM rooms WHERE last_tick_at > next_tick_at").await;
    assert_eq!(ahead, 0);
    app.stop().await;
}
