//! The offer of a concert costs the same however many of its seats are sold. Not measured in time: PostgreSQL counts the pages of
//! seats that are touched.

use std::sync::Arc;
use std::time::Duration;

use frontrow_domain::ports::Offer;
use frontrow_infra::Storage;
use frontrow_infra::postgres::Postgres;
use frontrow_testkit::postgres::TestDatabase;

use crate::fixture::{Fixture, START, at, money};
use crate::{Opened, options};

const SEATS: u32 = 20_000;
/// The tree of the index and the page of one seat, for each of two dates; those of all seats are some hundreds.
const FEW_PAGES: i64 = 20;

/// Pages of `seats` and its indexes that sessions which have ended looked at.
async fn pages(database: &TestDatabase) -> i64 {
    let pages = "SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0))::BIGINT \
                 FROM pg_statio_user_tables WHERE relname = 'seats'";
    database.query_i64(pages).await.unwrap()
}

/// Ends the connections of an adapter, and waits until what they counted is written down.
async fn close(database: &TestDatabase, postgres: &Postgres) {
    assert!(postgres.close(Duration::from_secs(10)).await);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND application_name = 'frontrow'";
    while database.query_i64(end).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_reads_no_sold_seats() {
    let Some(Opened { database, postgres }) = Opened::new(options()).await else { return };
    database.execute("ALTER TABLE seats SET (autovacuum_enabled = false)").await.unwrap();
    let fixture = Fixture::new(Storage::new(Arc::new(postgres.clone())), ());
    let sale = fixture.sale(SEATS).await;
    fixture.another_date(sale.room, sale.concert.clone(), 3).await;
    fixture.hold(&sale, &sale.seat_ids()[..1], at(0)).await;
    close(&database, &postgres).await;
    // All but the dearest of the first date, and all of the second.
    let sell = format!(
        "UPDATE seats SET status = 'UNAVAILABLE', hold_expires_at = NULL, \
             reservation_id = (SELECT reservation_id FROM reservations) WHERE seat_number < {SEATS}"
    );
    database.execute(&sell).await.unwrap();
    database.execute("VACUUM ANALYZE").await.unwrap();

    let cost = async || {
        let before = pages(&database).await;
        let postgres = Postgres::connect(database.url(), options()).await.unwrap();
        let storage = Storage::new(Arc::new(postgres.clone()));
        let offers = storage.concert_queries.offers(vec![sale.concert.id], at(0)).await.unwrap();
        let from_price = Some(money(i64::from(SEATS) * 100));
        assert_eq!(offers, [(sale.concert.id, Offer { next_date_at: Some(at(START)), from_price })]);
        close(&database, &postgres).await;
        pages(&database).await - before
    };
    let few = cost().await;
    assert!((1..=FEW_PAGES).contains(&few), "{few} pages");
    // The control: without the index it reads what is sold.
    database.execute("DROP INDEX seats_unsold").await.unwrap();
    let many = cost().await;
    assert!(many > 10 * FEW_PAGES, "{many} pages");
}
