//! Compares what people were told with what is there: over HTTP, and in the database.

use std::collections::{BTreeMap, BTreeSet};

use frontrow_testkit::app::{Database, Sale, admin_token};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use crate::crowd::Api;
use crate::told::Life;

/// How many people are looked at at once.
const AT_ONCE: usize = 8;

/// What does not agree.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// Acknowledged, and not there.
    pub(crate) lost: Vec<String>,
    /// There, and never acknowledged: done twice, or by half.
    pub(crate) surplus: Vec<String>,
}

impl Differences {
    pub(crate) fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.surplus.is_empty()
    }

    fn compare<T: Ord + std::fmt::Debug>(&mut self, whose: Uuid, what: &str, told: &[T], found: &[T]) {
        let (told_set, found_set): (BTreeSet<_>, BTreeSet<_>) =
            (told.iter().collect(), found.iter().collect());
        let line = |item| format!("{what} {item:?} of {whose}");
        self.lost.extend(told_set.difference(&found_set).map(line));
        self.surplus.extend(found_set.difference(&told_set).map(line));
        if found.len() > found_set.len() {
            self.surplus.push(format!("{what} of {whose}, twice the same"));
        }
    }

    fn add(&mut self, other: Self) {
        self.lost.extend(other.lost);
        self.surplus.extend(other.surplus);
    }
}

/// What is there is what people were told, no more and no less. Everybody's outcomes must be known.
pub(crate) async fn check(api: &Api, database: &Database, sale: &Sale, lives: &[Life]) -> Differences {
    let mut differences = Differences::default();
    let looks = stream::iter(lives).map(|life| check_life(api, life)).buffer_unordered(AT_ONCE);
    for found in looks.collect::<Vec<_>>().await {
        differences.add(found);
    }
    check_totals(api, database, sale, lives, &mut differences).await;
    differences
}

/// All items of a list of somebody, over all its pages; none where there is no answer.
async fn list(api: &Api, life: &Life, path: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(api, life, &format!("{path}?limit=100{cursor}")).await;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        let Some(next) = page["nextCursor"].as_str() else { return items };
        cursor = format!("&cursor={next}");
    }
}

async fn get(api: &Api, life: &Life, path: &str) -> Value {
    let answer = api.request(Method::GET, path, life).send().await.expect("an answer");
    answer.json().await.unwrap_or(Value::Null)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or("").to_owned()
}

async fn check_life(api: &Api, life: &Life) -> Differences {
    let mut differences = Differences::default();
    let whose = life.user_id;
    let entries = list(api, life, &format!("/accounts/{whose}/entries")).await;
    let of_kind = |kind| entries.iter().filter(move |entry| entry["kind"] == kind);
    let amount = |entry: &Value| entry["amount"].as_i64().unwrap_or(0);
    let charges: Vec<_> = of_kind("CHARGE").map(|entry| (text(entry, "entryId"), amount(entry))).collect();
    let told: Vec<_> = life.charges.iter().map(|(id, amount)| (id.to_string(), *amount)).collect();
    differences.compare(whose, "charge", &told, &charges);
    let payments: Vec<_> =
        of_kind("PAYMENT").map(|entry| (text(entry, "reservationId"), amount(entry))).collect();
    let told: Vec<_> = life.of("DONE").map(|hold| (hold.id.to_string(), hold.amount)).collect();
    differences.compare(whose, "payment", &told, &payments);
    let balance = get(api, life, &format!("/accounts/{whose}")).await["balance"].as_i64();
    differences.compare(whose, "balance", &[Some(life.charged() - life.paid())], &[balance]);

    let reservations = list(api, life, "/reservations").await;
    let seats = |reservation: &Value| {
        let seats = reservation["seats"].as_array().cloned().unwrap_or_default();
        seats.iter().map(|seat| text(seat, "seatId")).collect::<BTreeSet<_>>()
    };
    let found: Vec<_> = reservations
        .iter()
        .map(|found| (text(found, "reservationId"), text(found, "status"), seats(found)))
        .collect();
    let told: Vec<_> = life
        .holds
        .iter()
        .map(|hold| {
            let seats = hold.seats.iter().map(ToString::to_string).collect();
            (hold.id.to_string(), hold.status.to_owned(), seats)
        })
        .collect();
    differences.compare(whose, "reservation", &told, &found);

    if life.wait_token.is_some() {
        let status = text(&get(api, life, "/queue").await, "status");
        let told = if life.of("DONE").next().is_some() { "EXPIRED" } else { "ACTIVE" };
        differences.compare(whose, "place in line", &[told.to_owned()], &[status]);
    }
    differences
}

/// Nothing belongs to nobody.
async fn check_totals(
    api: &Api,
    database: &Database,
    sale: &Sale,
    lives: &[Life],
    differences: &mut Differences,
) {
    let seats = |status| move |life: &Life| life.of(status).map(|hold| hold.seats.len()).sum::<usize>();
    let sum = |of: &dyn Fn(&Life) -> usize| i64::try_from(lives.iter().map(of).sum::<usize>()).unwrap();
    let tickets = sum(&|life| life.holds.iter().map(|hold| hold.tickets).sum());
    let done = |life: &Life| life.of("DONE").count();
    let told = [
        ("people in line", "SELECT count(*) FROM queue_tokens", sum(&|life| life.wait_token.iter().count())),
        ("entries", "SELECT count(*) FROM entries", sum(&|life| life.charges.len() + done(life))),
        ("reservations", "SELECT count(*) FROM reservations", sum(&|life| life.holds.len())),
        ("payments", "SELECT count(*) FROM payments", sum(&done)),
        ("tickets", "SELECT count(*) FROM tickets", tickets),
        ("seats held", "SELECT count(*) FROM seats WHERE status = 'RESERVED'", sum(&seats("RESERVED"))),
        ("seats sold", "SELECT count(*) FROM seats WHERE status = 'UNAVAILABLE'", sum(&seats("DONE"))),
    ];
    let mut of = |what: &str, told: i64, found: i64| {
        let line = format!("{what}: {told} acknowledged, {found} there");
        match found.cmp(&told) {
            std::cmp::Ordering::Less => differences.lost.push(line),
            std::cmp::Ordering::Greater => differences.surplus.push(line),
            std::cmp::Ordering::Equal => {}
        }
    };
    for (what, query, told) in told {
        of(what, told, database.query_i64(query).await);
    }
    let path = format!("{}/admin/performanceDates/{}/sales", api.base, sale.date_id);
    let sales = api.client.get(path).bearer_auth(admin_token()).send().await.expect("an answer");
    let sales: BTreeMap<String, i64> = sales.json().await.expect("numbers");
    of("amount sold", lives.iter().map(Life::paid).sum(), sales["amountSold"]);
    of("seats reserved", sum(&seats("RESERVED")), sales["reserved"]);
    of("seats unavailable", tickets, sales["unavailable"]);
}
