//! Payment: all of it or nothing.

use frontrow_testkit::app::{Buyer, Database, Sale, TestApp, id, sent, settings};
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    NOBODY, ask, asked, balance, enter, entries, everything, is_about, past, place, place_status, refused,
    reservation, sales, seat_status, time,
};

/// A buyer with a hold of these many seats at 100 each.
async fn holder(app: &TestApp, sale: &Sale, seats: usize) -> (Buyer, Uuid) {
    let buyer = app.active(sale).await;
    let free = app.seats(&buyer, sale).await;
    let held = app.hold(&buyer, sale, &free[..seats]).await;
    (buyer, held)
}

pub(crate) async fn a_payment_changes_everything_at_once(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 3).await;
    let (buyer, held) = holder(app, &sale, 2).await;
    let onlooker = app.active(&sale).await;
    app.charge(&buyer, 500).await;
    let before = reservation(app, &buyer, held).await;

    let receipt = asked(app.pay(&buyer, held), 200).await.json();
    assert_eq!(id(&receipt, "paymentId").get_version_num(), 7);
    assert_eq!(receipt["reservationId"], json!(held));
    assert_eq!([&receipt["amount"], &receipt["balance"]], [200, 300]);
    is_about(time(&receipt, "paidAt"), 0);
    let seats = |items: &Value| {
        let mut ids: Vec<Uuid> = items.as_array().unwrap().iter().map(|item| id(item, "seatId")).collect();
        ids.sort();
        ids
    };
    assert_eq!(seats(&receipt["tickets"]), seats(&before["seats"]), "a ticket a seat");
    let tickets = receipt["tickets"].as_array().unwrap();
    assert_ne!(id(&tickets[0], "ticketId"), id(&tickets[1], "ticketId"));

    // This node has paid the token away itself: the gate knows at once.
    ask(buyer.own(app.get(&sale.seats_path()))).await.sent_to_the_queue("WAIT_TOKEN_EXPIRED");
    let seen = place(app, &buyer).await;
    assert_eq!((&seen["status"], &seen["position"]), (&json!("EXPIRED"), &json!(0)));
    assert_eq!(balance(app, &buyer).await, 300);
    let history = entries(app, &buyer).await;
    assert_eq!(history.len(), 2);
    assert_eq!((&history[0]["kind"], &history[0]["reservationId"]), (&json!("PAYMENT"), &json!(held)));
    assert_eq!([&history[0]["amount"], &history[0]["balanceAfter"]], [200, 300]);
    assert_eq!(history[0]["at"], receipt["paidAt"]);
    let after = reservation(app, &buyer, held).await;
    assert_eq!(after["status"], "DONE");
    assert_eq!([&after["totalAmount"], &after["seats"]], [&before["totalAmount"], &before["seats"]]);
    for seat_id in seats(&before["seats"]) {
        assert_eq!(seat_status(app, &onlooker, &sale, seat_id).await, "UNAVAILABLE");
    }
    assert_eq!(sales(app, sale.date_id).await, [1, 0, 2, 200]);
    refused(app.reserve(&onlooker, &sale, &seats(&before["seats"])), 409, "SEAT_NOT_AVAILABLE").await;
}

pub(crate) async fn the_last_coin_pays(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, held) = holder(app, &sale, 1).await;
    app.charge(&buyer, 99).await;
    refused(app.pay(&buyer, held), 409, "INSUFFICIENT_BALANCE").await;
    app.charge(&buyer, 1).await;
    assert_eq!(sent(app.pay(&buyer, held), 200).await["balance"], 0);
}

pub(crate) async fn the_live_token_of_that_room_ends(app: &TestApp) {
    let (sale, other) = (app.sale(json!({}), 1, 1).await, app.sale(json!({}), 1, 1).await);
    let (buyer, held) = holder(app, &sale, 1).await;
    app.charge(&buyer, 100).await;
    let elsewhere = asked(enter(app, &buyer, &other), 201).await;
    let elsewhere = Buyer { wait_token: Some(elsewhere.wait_token()), ..buyer.clone() };
    // The token of the hold is given up; a new one waits in the same room.
    asked(buyer.own(app.delete("/queue")), 204).await;
    let again = asked(enter(app, &buyer, &sale), 201).await;
    let again = Buyer { wait_token: Some(again.wait_token()), ..buyer.clone() };
    assert_eq!(place_status(app, &again).await, "WAIT");
    sent(app.pay(&buyer, held), 200).await;
    assert_eq!(place_status(app, &again).await, "EXPIRED");
    assert_eq!(place_status(app, &elsewhere).await, "WAIT", "another room's stays");
    let newcomer = asked(enter(app, &buyer, &sale), 201).await;
    assert_ne!(Some(newcomer.wait_token()), again.wait_token);
}

pub(crate) async fn without_a_live_token_it_is_paid_all_the_same(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, held) = holder(app, &sale, 1).await;
    app.charge(&buyer, 100).await;
    asked(buyer.own(app.delete("/queue")), 204).await;
    sent(app.pay(&buyer, held), 200).await;
    assert_eq!(sales(app, sale.date_id).await, [0, 0, 1, 100]);
}

/// Checks that a payment is refused and that nothing at all has changed.
async fn refused_without_a_trace(
    app: &TestApp,
    buyer: &Buyer,
    sale: &Sale,
    onlooker: &Buyer,
    reservation_id: Uuid,
    (status, code): (u16, &str),
) -> Value {
    let before = everything(app, buyer, sale, onlooker).await;
    let problem = refused(app.pay(buyer, reservation_id), status, code).await;
    assert_eq!(everything(app, buyer, sale, onlooker).await, before, "{code} left a trace");
    problem
}

pub(crate) async fn too_poor_changes_nothing(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 3).await;
    let (buyer, held) = holder(app, &sale, 3).await;
    let onlooker = app.active(&sale).await;
    let refusal = (409, "INSUFFICIENT_BALANCE");
    let problem = refused_without_a_trace(app, &buyer, &sale, &onlooker, held, refusal).await;
    assert_eq!([&problem["required"], &problem["balance"]], [300, 0], "an account that was never charged");
    app.charge(&buyer, 299).await;
    let problem = refused_without_a_trace(app, &buyer, &sale, &onlooker, held, refusal).await;
    assert_eq!([&problem["required"], &problem["balance"]], [300, 299]);
    // The token still opens the gate and the hold can still be paid.
    asked(buyer.own(app.get(&sale.seats_path())), 200).await;
    app.charge(&buyer, 1).await;
    sent(app.pay(&buyer, held), 200).await;
}

pub(crate) async fn an_unknown_reservation_changes_nothing(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let (buyer, _) = holder(app, &sale, 1).await;
    let (other, theirs) = holder(app, &sale, 1).await;
    app.charge(&buyer, 500).await;
    for unknown in [NOBODY.parse().unwrap(), Uuid::nil(), theirs] {
        let refusal = (404, "RESERVATION_NOT_FOUND");
        refused_without_a_trace(app, &buyer, &sale, &other, unknown, refusal).await;
    }
    assert_eq!(reservation(app, &other, theirs).await["status"], "RESERVED");
    assert_eq!(balance(app, &other).await, 0);
}

pub(crate) async fn for_somebody_else_changes_nothing(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (owner, held) = holder(app, &sale, 1).await;
    let stranger = app.active(&sale).await;
    app.charge(&owner, 500).await;
    app.charge(&stranger, 500).await;
    let before = everything(app, &owner, &sale, &stranger).await;
    let body = json!({"userId": owner.user_id, "reservationId": held});
    refused(stranger.own(app.post("/pay", &body)), 403, "NOT_YOUR_RESOURCE").await;
    let body = json!({"userId": stranger.user_id, "reservationId": held});
    refused(owner.own(app.post("/pay", &body)), 403, "NOT_YOUR_RESOURCE").await;
    refused(stranger.own(app.post("/pay", &body)), 404, "RESERVATION_NOT_FOUND").await;
    assert_eq!(everything(app, &owner, &sale, &stranger).await, before);
    assert_eq!(balance(app, &stranger).await, 500);
}

pub(crate) async fn a_cancelled_hold_changes_nothing(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, held) = holder(app, &sale, 1).await;
    let onlooker = app.active(&sale).await;
    asked(buyer.own(app.delete(&format!("/reservations/{held}"))), 204).await;
    let refusal = (409, "RESERVATION_CANCELLED");
    refused_without_a_trace(app, &buyer, &sale, &onlooker, held, refusal).await;
    app.charge(&buyer, 500).await;
    refused_without_a_trace(app, &buyer, &sale, &onlooker, held, refusal).await;
    // Somebody else has the seat meanwhile.
    let seats = app.seats(&onlooker, &sale).await;
    app.hold(&onlooker, &sale, &seats).await;
    refused_without_a_trace(app, &buyer, &sale, &onlooker, held, refusal).await;
}

pub(crate) async fn paying_again_changes_nothing(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, held) = holder(app, &sale, 1).await;
    let onlooker = app.active(&sale).await;
    app.charge(&buyer, 150).await;
    sent(app.pay(&buyer, held), 200).await;
    let refusal = (409, "ALREADY_PAID");
    refused_without_a_trace(app, &buyer, &sale, &onlooker, held, refusal).await;
    // A new place in the same line is not touched by it, either.
    let again = asked(enter(app, &buyer, &sale), 201).await;
    let again = Buyer { wait_token: Some(again.wait_token()), ..buyer };
    refused_without_a_trace(app, &again, &sale, &onlooker, held, refusal).await;
    assert_eq!(place_status(app, &again).await, "WAIT");
}

pub(crate) async fn a_lapsed_hold_changes_nothing(database: &Database) {
    let mut short = settings(database);
    short.hold_rules.hold_seconds = 1;
    let app = TestApp::start(short).await;
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, held) = holder(&app, &sale, 1).await;
    let onlooker = app.active(&sale).await;
    past(time(&reservation(&app, &buyer, held).await, "holdExpiresAt")).await;
    // At once, whether or not a sweep has been by, and before the balance is looked at.
    refused(app.pay(&buyer, held), 409, "RESERVATION_EXPIRED").await;
    app.charge(&buyer, 500).await;
    let refusal = (409, "RESERVATION_EXPIRED");
    refused_without_a_trace(&app, &buyer, &sale, &onlooker, held, refusal).await;
    let seats = app.seats(&onlooker, &sale).await;
    app.hold(&onlooker, &sale, &seats).await;
    refused(app.pay(&buyer, held), 409, "RESERVATION_EXPIRED").await;
    assert_eq!(balance(&app, &buyer).await, 500);
    assert_eq!(place_status(&app, &buyer).await, "ACTIVE");
    assert_eq!(seat_status(&app, &onlooker, &sale, seats[0]).await, "RESERVED");
    app.stop().await;
}

pub(crate) async fn malformed_payments_are_refused(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, held) = holder(app, &sale, 1).await;
    app.charge(&buyer, 500).await;
    let user = buyer.user_id;
    for body in [
        String::new(),
        "{}".into(),
        "[]".into(),
        json!({"userId": user}).to_string(),
        json!({"reservationId": held}).to_string(),
        json!({"userId": user, "reservationId": "x"}).to_string(),
        json!({"userId": "x", "reservationId": held}).to_string(),
        json!({"userId": user, "reservationId": 5}).to_string(),
        json!({"userId": user, "reservationId": null}).to_string(),
        json!({"userId": user, "reservationId": [held]}).to_string(),
    ] {
        let request = buyer.own(app.post("/pay", &Value::Null)).body(body);
        refused(request, 400, "MALFORMED_REQUEST").await;
    }
    assert_eq!(balance(app, &buyer).await, 500);
    let body = json!({"userId": user, "reservationId": held, "amount": 1, "seats": []});
    assert_eq!(sent(buyer.own(app.post("/pay", &body)), 200).await["amount"], 100);
}

pub(crate) async fn one_of_many_payments_wins(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 1).await;
    let (buyer, held) = holder(app, &sale, 1).await;
    app.charge(&buyer, 1_000).await;
    let answers = join_all((0..8).map(|_| ask(app.pay(&buyer, held)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let code = answer.any_problem(409)["code"].clone();
        assert!(code == "ALREADY_PAID" || code == "CONFLICT", "{code}");
    }
    assert_eq!(balance(app, &buyer).await, 900);
    assert_eq!(entries(app, &buyer).await.len(), 2);
    assert_eq!(sales(app, sale.date_id).await, [0, 0, 1, 100]);
}

pub(crate) async fn two_holds_are_paid_from_one_account(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 4).await;
    let buyer = app.active(&sale).await;
    let seats = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 300).await;
    let holds = [app.hold(&buyer, &sale, &seats[..2]).await, app.hold(&buyer, &sale, &seats[2..]).await];
    // There is money for one of them. A payment that met the other is tried again by its buyer.
    let answers = join_all(holds.iter().map(|held| ask(app.pay(&buyer, *held)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let code = answer.any_problem(409)["code"].clone();
        assert!(code == "INSUFFICIENT_BALANCE" || code == "CONFLICT", "{code}");
    }
    assert_eq!(balance(app, &buyer).await, 100);
    assert_eq!(sales(app, sale.date_id).await, [0, 2, 2, 200]);
}

pub(crate) async fn payment_and_cancellation_do_not_both_win(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 8).await;
    for _ in 0..4 {
        let (buyer, held) = holder(app, &sale, 1).await;
        app.charge(&buyer, 100).await;
        let cancel = buyer.own(app.delete(&format!("/reservations/{held}")));
        let (paid, cancelled) = tokio::join!(ask(app.pay(&buyer, held)), ask(cancel));
        match (paid.status, cancelled.status) {
            (200, 409) => {
                cancelled.problem(409, "ALREADY_PAID");
                assert_eq!(reservation(app, &buyer, held).await["status"], "DONE");
                assert_eq!(balance(app, &buyer).await, 0);
            }
            (409, 204) => {
                paid.problem(409, "RESERVATION_CANCELLED");
                assert_eq!(reservation(app, &buyer, held).await["status"], "CANCELLED");
                assert_eq!(balance(app, &buyer).await, 100);
            }
            both => panic!("pay and cancel answered {both:?}"),
        }
    }
}
