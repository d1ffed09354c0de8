//! The same races with a protection switched off, where they must fail: so it is the protection that they prove, and no
//! lock, queue or slowness that happens to be in the way.
//!
//! The server is the one that ships. The database takes its protection away: a trigger keeps the version of a row what
//! it was, so that every optimistic lock on it opens, and the unique indexes that back the rules up are dropped. With the
//! versions gone and the indexes there, the database must say no (a 500 to the client, and nothing broken). With both
//! gone the damage is done, and the audit must find it.

use serde_json::json;

use crate::arena::{Answer, Arena, Ground, count, race, strangers};
use crate::line::{admitted_by_tick, ask_64_times, one_person_asking_64_times_has_one_place};
use crate::money::held_and_funded;
use crate::seats::{ask_for_one, ask_for_twelve};

/// How often a race may go well by chance.
const ROUNDS: usize = 6;
const INTERNAL: &str = "500 INTERNAL";

/// Keeps the versions of these tables what they are.
fn freeze(ground: Ground, tables: &[&str]) -> String {
    let trigger = |table: &&str| match ground {
        Ground::Sqlite => format!(
            "CREATE TRIGGER frozen_{table} AFTER UPDATE ON {table} WHEN NEW.version <> OLD.version BEGIN \
             UPDATE {table} SET version = OLD.version WHERE rowid = NEW.rowid; END;"
        ),
        Ground::Postgres => {
            format!(
                "CREATE TRIGGER frozen BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION keep_version();"
            )
        }
    };
    let function = "CREATE FUNCTION keep_version() RETURNS trigger LANGUAGE plpgsql AS \
                    'BEGIN NEW.version := OLD.version; RETURN NEW; END';";
    let function = if ground == Ground::Sqlite { "" } else { function };
    format!("{function} {}", tables.iter().map(trigger).collect::<String>())
}

/// Forgets every answer as soon as it is stored.
fn forget_answers(ground: Ground) -> String {
    let forget = "DELETE FROM idempotency_records WHERE user_id = NEW.user_id;";
    match ground {
        Ground::Sqlite => {
            format!("CREATE TRIGGER forgetful AFTER INSERT ON idempotency_records BEGIN {forget} END;")
        }
        Ground::Postgres => format!(
            "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {forget} RETURN NULL; END'; \
             CREATE TRIGGER forgetful AFTER INSERT ON idempotency_records FOR EACH ROW EXECUTE FUNCTION forget();"
        ),
    }
}

/// Forgets whose a place in line is as soon as it is stored: nobody finds the one that he has.
fn forget_owners(ground: Ground) -> String {
    match ground {
        Ground::Sqlite => "CREATE TRIGGER forgetful_line AFTER INSERT ON queue_tokens BEGIN \
             UPDATE queue_tokens SET user_id = randomblob(16) WHERE rowid = NEW.rowid; END;"
            .to_owned(),
        Ground::Postgres => "CREATE FUNCTION forget_owner() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN NEW.user_id := gen_random_uuid(); RETURN NEW; END'; CREATE TRIGGER forgetful_line \
             BEFORE INSERT ON queue_tokens FOR EACH ROW EXECUTE FUNCTION forget_owner();"
            .to_owned(),
    }
}

fn drop_indexes(names: &[&str]) -> String {
    names.iter().map(|name| format!("DROP INDEX {name};")).collect()
}

/// Everyone asks for one seat, in a few rounds. Gives the answers by round.
async fn seat_races(arena: &Arena) -> Vec<Vec<Answer>> {
    let (sale, seats) = arena.sale(4).await;
    let buyers = arena.crowd(&sale, 32).await;
    let mut rounds = Vec::new();
    for seat in &seats {
        rounds.push(ask_for_one(arena, &sale, &buyers, *seat).await);
    }
    rounds
}

/// Seats without versions: two buyers of one seat get past the decision, and only the index stands.
async fn one_seat_by_the_index_alone(ground: Ground) {
    let Some(arena) = Arena::open_after(ground, 300, &freeze(ground, &["seats"])).await else { return };
    let rounds = seat_races(&arena).await;
    for answers in &rounds {
        assert_eq!(count(answers, "201"), 1);
    }
    let stopped: usize = rounds.iter().map(|answers| count(answers, INTERNAL)).sum();
    assert!(stopped > 0, "nobody reached the index");
    arena.close().await;
}

/// Neither: the seat is sold over and over.
async fn one_seat_without_protection(ground: Ground) {
    let sql = freeze(ground, &["seats"]) + &drop_indexes(&["reservation_seats_one_live"]);
    let Some(arena) = Arena::open_after(ground, 300, &sql).await else { return };
    let most = seat_races(&arena).await.iter().map(|answers| count(answers, "201")).max().unwrap();
    assert!(most > 1, "the seat went to one buyer without any protection");
    assert!(arena.broken_promises().await.contains(&"at most one live reservation a seat"));
}

const PAYING: [&str; 4] = ["accounts", "queue_tokens", "reservations", "seats"];

/// Payments without versions: the second of two is stopped by the indexes.
async fn one_payment_by_the_indexes_alone(ground: Ground) {
    let Some(arena) = Arena::open_after(ground, 300, &freeze(ground, &PAYING)).await else { return };
    let mut stopped = 0;
    for _ in 0..ROUNDS {
        let (buyer, held) = held_and_funded(&arena).await;
        let answers = race((0..32).map(|_| arena.pay(&buyer, held)).collect()).await;
        assert_eq!((count(&answers, "200"), arena.balance(&buyer).await), (1, 800));
        stopped += count(&answers, INTERNAL);
    }
    assert!(stopped > 0, "nobody reached the indexes");
    arena.close().await;
}

/// Neither: one reservation is paid over and over.
async fn one_payment_without_protection(ground: Ground) {
    let indexes = ["entries_number", "payments_reservation", "tickets_seat"];
    let sql = freeze(ground, &PAYING) + &drop_indexes(&indexes);
    let Some(arena) = Arena::open_after(ground, 300, &sql).await else { return };
    let mut most = 0;
    for _ in 0..ROUNDS {
        let (buyer, held) = held_and_funded(&arena).await;
        let answers = race((0..32).map(|_| arena.pay(&buyer, held)).collect()).await;
        most = most.max(count(&answers, "200"));
    }
    assert!(most > 1, "one payment went through without any protection");
    let broken = arena.broken_promises().await;
    assert!(
        broken.contains(&"a paid reservation has one payment, with a ticket for each seat"),
        "{broken:?}"
    );
    assert!(broken.contains(&"a balance is the sum of its entries, and never negative"), "{broken:?}");
}

/// Charges an account that is there, 100 times at once. Gives the answers, and the balance that these have made.
async fn charge_race(arena: &Arena) -> (Vec<Answer>, i64) {
    let buyer = strangers(1).remove(0);
    arena.fund(std::slice::from_ref(&buyer), 1).await;
    let answers = race((0..100).map(|_| arena.charge(&buyer, 5)).collect()).await;
    (answers, arena.balance(&buyer).await - 1)
}

/// Charges without versions: of two that meet, the second is stopped by the number of its entry.
async fn charges_by_the_index_alone(ground: Ground) {
    let Some(arena) = Arena::open_after(ground, 300, &freeze(ground, &["accounts"])).await else { return };
    let (answers, charged) = charge_race(&arena).await;
    assert_eq!(charged, 5 * i64::try_from(count(&answers, "200")).unwrap());
    assert!(count(&answers, INTERNAL) > 0, "nobody reached the index");
    arena.close().await;
}

/// Neither: charges that were acknowledged are lost.
async fn charges_without_protection(ground: Ground) {
    let sql = freeze(ground, &["accounts"]) + &drop_indexes(&["entries_number"]);
    let Some(arena) = Arena::open_after(ground, 300, &sql).await else { return };
    let (answers, charged) = charge_race(&arena).await;
    assert_eq!(count(&answers, "200"), 100);
    assert!(charged < 500, "nothing was lost without any protection");
    let broken = arena.broken_promises().await;
    assert!(broken.contains(&"a balance is the sum of its entries, and never negative"), "{broken:?}");
}

/// Tokens without versions: one person's reservations, made at once, pass the limit.
async fn the_limit_without_protection(ground: Ground) {
    let Some(arena) = Arena::open_after(ground, 300, &freeze(ground, &["queue_tokens"])).await else {
        return;
    };
    let mut most = 0;
    for _ in 0..ROUNDS {
        most = most.max(count(&ask_for_twelve(&arena).await, "201"));
    }
    assert!(most > 4, "{most} seats, within the limit without any protection");
    arena.close().await;
}

/// Places without their index: who asks is found by his place all the same.
async fn one_place_without_its_index(ground: Ground) {
    let sql = drop_indexes(&["queue_tokens_one_live"]);
    let Some(arena) = Arena::open_after(ground, 300, &sql).await else { return };
    one_person_asking_64_times_has_one_place(&arena).await;
    arena.close().await;
}

/// Nor found: one person has the whole line.
async fn one_place_without_protection(ground: Ground) {
    let sql = forget_owners(ground) + &drop_indexes(&["queue_tokens_one_live"]);
    let Some(arena) = Arena::open_after(ground, 300, &sql).await else { return };
    let sale = arena.node().sale(json!({}), 1, 1).await;
    let buyer = strangers(1).remove(0);
    let (answers, tokens) = ask_64_times(&arena, &sale, &buyer).await;
    assert_eq!((count(&answers, "201"), tokens.len()), (64, 64));
    assert_eq!(arena.room(arena.node(), &sale).await["waiting"], 64);
    arena.database.execute(&format!("UPDATE queue_tokens SET user_id = {}", arena.key(buyer.user_id))).await;
    assert!(arena.broken_promises().await.contains(&"at most one live queue token a room and user"));
}

/// Rooms without versions: a tick admits more than one batch.
async fn a_tick_without_its_claim(ground: Ground) {
    let Some(arena) = Arena::open_after(ground, 300, &freeze(ground, &["rooms"])).await else { return };
    let by_tick = admitted_by_tick(&arena).await;
    assert!(
        by_tick.values().any(|admitted| *admitted > 3),
        "one batch a tick without its claim: {by_tick:?}"
    );
    arena.close().await;
}

/// A charge sent 32 times under one key, to an account that has no other protection.
async fn keyed_charge_race(arena: &Arena) -> (Vec<Answer>, i64) {
    let buyer = strangers(1).remove(0);
    arena.fund(std::slice::from_ref(&buyer), 1).await;
    let charge = || arena.charge(&buyer, 7).header("Idempotency-Key", "k");
    let answers = race((0..32).map(|_| charge()).collect()).await;
    (answers, i64::try_from(arena.entries(&buyer).await.len()).unwrap() - 1)
}

/// Charges without versions and index, but with a key: the key alone makes them one.
async fn one_charge_by_its_key_alone(ground: Ground) {
    let sql = freeze(ground, &["accounts"]) + &drop_indexes(&["entries_number"]);
    let Some(arena) = Arena::open_after(ground, 300, &sql).await else { return };
    let (answers, charges) = keyed_charge_race(&arena).await;
    assert_eq!((count(&answers, "200"), charges), (32, 1));
    arena.close().await;
}

/// Without its answer the key protects nothing.
async fn a_key_without_its_answer(ground: Ground) {
    let sql = freeze(ground, &["accounts"]) + &drop_indexes(&["entries_number"]) + &forget_answers(ground);
    let Some(arena) = Arena::open_after(ground, 300, &sql).await else { return };
    let (answers, charges) = keyed_charge_race(&arena).await;
    assert_eq!((count(&answers, "200"), charges), (32, 32));
}

macro_rules! controls {
    ($module:ident, $ground:ident: $($control:ident),+ $(,)?) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $control() {
                super::$control(crate::arena::Ground::$ground).await;
            })+
        }
    };
    ($($module:ident, $ground:ident;)+) => {
        $(controls! { $module, $ground:
            one_seat_by_the_index_alone,
            one_seat_without_protection,
            one_payment_by_the_indexes_alone,
            one_payment_without_protection,
            charges_by_the_index_alone,
            charges_without_protection,
            the_limit_without_protection,
            one_place_without_its_index,
            one_place_without_protection,
            a_tick_without_its_claim,
            one_charge_by_its_key_alone,
            a_key_without_its_answer,
        })+
    };
}

controls! {
    sqlite, Sqlite;
    postgres, Postgres;
}
