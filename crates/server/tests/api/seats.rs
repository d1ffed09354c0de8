//! The seats of a date: the filter, and what lets clients and caches spare the transfer.

use std::io::Read;

use flate2::read::GzDecoder;
use frontrow_testkit::app::{Buyer, Sale, TestApp, sent};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::{Answer, ask, asked, becomes, seat_statuses};

fn seats(app: &TestApp, buyer: &Buyer, sale: &Sale, query: &str, encoding: &str) -> RequestBuilder {
    let path = format!("{}{query}", sale.seats_path());
    buyer.own(app.get(&path)).header("Accept-Encoding", encoding)
}

/// The ETag, which must be a strong one.
#[track_caller]
fn etag(answer: &Answer) -> String {
    let etag = answer.header("ETag").expect("an ETag");
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "not a strong ETag: {etag}");
    etag.to_owned()
}

#[track_caller]
fn may_be_kept_but_asked_again(answer: &Answer) {
    assert_eq!(answer.header("Cache-Control"), Some("private, no-cache"));
    let vary =
        answer.headers.get_all("Vary").iter().map(|value| value.to_str().unwrap().to_ascii_lowercase());
    assert!(
        vary.flat_map(|value| value.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>())
            .any(|name| name == "accept-encoding")
    );
}

fn unzipped(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(body).read_to_end(&mut plain).expect("gzip");
    plain
}

pub(crate) async fn seats_are_the_available_ones_unless_told(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 4).await;
    let (buyer, onlooker) = (app.active(&sale).await, app.active(&sale).await);
    let all = app.seats(&buyer, &sale).await;
    app.charge(&buyer, 1_000).await;
    let paid = app.hold(&buyer, &sale, &all[..1]).await;
    app.hold(&onlooker, &sale, &all[1..2]).await;
    sent(app.pay(&buyer, paid), 200).await;
    let expected: Vec<_> = all
        .iter()
        .zip(["UNAVAILABLE", "RESERVED", "AVAILABLE", "AVAILABLE"])
        .map(|(id, status)| (*id, status.to_owned()))
        .collect();
    becomes("the seats", expected, async || seat_statuses(app, &onlooker, &sale).await).await;
    becomes("the free seats", all[2..].to_vec(), async || app.seats(&onlooker, &sale).await).await;
}

pub(crate) async fn an_answer_that_is_known_is_not_sent_again(app: &TestApp) {
    let sale = app.sale(json!({}), 5, 40).await;
    let buyer = app.active(&sale).await;
    let mut etags = Vec::new();
    for query in ["", "?status=all"] {
        for encoding in ["identity", "gzip"] {
            let request = || seats(app, &buyer, &sale, query, encoding);
            let first = asked(request(), 200).await;
            let known = etag(&first);
            may_be_kept_but_asked_again(&first);
            let others = format!("\"another\", {known}, \"one-more\"");
            for value in [known.as_str(), "*", others.as_str()] {
                let again = asked(request().header("If-None-Match", value), 304).await;
                assert!(again.body.is_empty());
                assert_eq!(etag(&again), known);
                may_be_kept_but_asked_again(&again);
            }
            let stranger = asked(request().header("If-None-Match", "\"another\""), 200).await;
            assert_eq!((etag(&stranger), &stranger.body), (known.clone(), &first.body));
            etags.push(known);
        }
    }
    let different: std::collections::BTreeSet<_> = etags.iter().collect();
    assert_eq!(different.len(), 4, "one per filter and encoding: {etags:?}");
    for other in &etags[1..] {
        asked(seats(app, &buyer, &sale, "", "identity").header("If-None-Match", other), 200).await;
    }
}

pub(crate) async fn a_change_changes_the_etag(app: &TestApp) {
    let sale = app.sale(json!({}), 1, 2).await;
    let buyer = app.active(&sale).await;
    let ids = app.seats(&buyer, &sale).await;
    for query in ["", "?status=all"] {
        let before = asked(seats(app, &buyer, &sale, query, "identity"), 200).await;
        let known = etag(&before);
        let reservation_id = app.hold(&buyer, &sale, &ids[..1]).await;
        let conditional = || seats(app, &buyer, &sale, query, "identity").header("If-None-Match", &known);
        becomes("it is another answer", 200, async || ask(conditional()).await.status).await;
        let after = asked(conditional(), 200).await;
        assert_ne!(etag(&after), known);
        assert_ne!(after.body, before.body);
        asked(buyer.own(app.delete(&format!("/reservations/{reservation_id}"))), 204).await;
        becomes("the seat is back", before.json(), async || {
            asked(seats(app, &buyer, &sale, query, "identity"), 200).await.json()
        })
        .await;
    }
}

pub(crate) async fn seats_are_zipped_for_who_takes_that(app: &TestApp) {
    let sale = app.sale(json!({}), 5, 40).await;
    let buyer = app.active(&sale).await;
    for query in ["", "?status=all"] {
        let plain = asked(seats(app, &buyer, &sale, query, "identity"), 200).await;
        assert!(matches!(plain.header("Content-Encoding"), None | Some("identity")));
        assert_eq!(plain.json()["seats"].as_array().unwrap().len(), 200);
        for accepted in ["gzip", "gzip;q=0.5", "GZIP, identity;q=0.1"] {
            let zipped = asked(seats(app, &buyer, &sale, query, accepted), 200).await;
            assert_eq!(zipped.header("Content-Encoding"), Some("gzip"), "{accepted}");
            assert!(zipped.header("Content-Type").unwrap().starts_with("application/json"));
            assert!(zipped.body.len() < plain.body.len() / 2);
            let body: Value = serde_json::from_slice(&unzipped(&zipped.body)).unwrap();
            assert_eq!(body, plain.json());
        }
        let refused = asked(seats(app, &buyer, &sale, query, "gzip;q=0, identity"), 200).await;
        assert!(matches!(refused.header("Content-Encoding"), None | Some("identity")));
        assert_eq!(refused.body, plain.body);
    }
}
