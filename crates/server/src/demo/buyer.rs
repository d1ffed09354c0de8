//! One simulated buyer: joins, waits, chooses, holds, charges and pays, with a habit that makes trouble.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use frontrow_domain::ports::IdGenerator;
use frontrow_infra::identity::UuidV7;
use rand::seq::IndexedRandom;
use rand::{RngExt, rng};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::demo::Sale;
use crate::demo::http::{Answer, Call, Http};

/// How long a buyer waits before it looks again at seats that are all held; each time twice as long, up to a bound.
const SOONEST_LOOK: Duration = Duration::from_millis(250);
const RAREST_LOOK: Duration = Duration::from_secs(2);
/// The most seats a buyer wants.
const MAX_SEATS: usize = 4;
/// The most times a buyer chooses anew before it gives up: a bound, far above what happens.
const MAX_CHOICES: u32 = 2_000;

/// What a buyer does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Nothing.
    Plain,
    /// Sends every order twice at once, with one idempotency key.
    DoubleClicks,
    /// Holds seats and leaves.
    Abandons,
    /// Pays the first hold after its deadline.
    PaysLate,
    /// Gives the first hold back and chooses again.
    ChangesMind,
}

impl Habit {
    /// Five in ten people make some trouble.
    pub(super) fn of(number: u32) -> Self {
        match number % 10 {
            1 | 6 => Self::DoubleClicks,
            3 => Self::Abandons,
            5 => Self::PaysLate,
            8 => Self::ChangesMind,
            _ => Self::Plain,
        }
    }
}

/// How a buyer left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With seats.
    Bought,
    /// Without: none were left.
    SoldOut,
    /// Without: it did not pay.
    Abandoned,
}

/// What a buyer met on the way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Experience {
    pub(super) double_clicks: u64,
    pub(super) late: u64,
    pub(super) cancelled: u64,
    pub(super) lost_seats: u64,
}

/// A buyer.
pub(super) struct Buyer {
    http: Arc<Http>,
    sale: Sale,
    hold_seconds: u32,
    habit: Habit,
    user_id: String,
    access_token: String,
    wait_token: String,
    experience: Experience,
}

impl Buyer {
    pub(super) fn new(http: Arc<Http>, sale: Sale, hold_seconds: u32, habit: Habit) -> Self {
        let [user_id, access_token, wait_token] = [const { String::new() }; 3];
        let experience = Experience::default();
        Self { http, sale, hold_seconds, habit, user_id, access_token, wait_token, experience }
    }

    /// The whole visit.
    pub(super) async fn go(mut self) -> (Experience, Result<End>) {
        let end = self.visit().await;
        (self.experience, end)
    }

    async fn visit(&mut self) -> Result<End> {
        if !self.join().await? {
            return Ok(End::SoldOut);
        }
        self.wait().await?;
        self.look_at_dates().await?;
        let (mut first, mut pause) = (true, SOONEST_LOOK);
        for _ in 0..MAX_CHOICES {
            let Some(seats) = self.choose().await? else {
                let answer = self.http.send(self.own(Call::delete("/queue"))).await?;
                expect(&answer, 204)?;
                return Ok(End::SoldOut);
            };
            if seats.is_empty() {
                sleep(pause).await;
                pause = (pause * 2).min(RAREST_LOOK);
                continue;
            }
            let Some(held) = self.hold(&seats).await? else { continue };
            match self.habit {
                Habit::Abandons => return Ok(End::Abandoned),
                Habit::ChangesMind if first => self.give_back(&held).await?,
                Habit::PaysLate if first => self.pay_late(&held).await?,
                _ => {
                    self.charge(held.number("totalAmount")).await?;
                    if self.pay(&held).await? {
                        return Ok(End::Bought);
                    }
                }
            }
            first = false;
        }
        bail!("chose {MAX_CHOICES} times in vain")
    }

    /// Takes a place in line; false where everything is sold.
    async fn join(&mut self) -> Result<bool> {
        let session = self.http.send(Call::post("/sessions", &json!({}))).await?;
        expect(&session, 201)?;
        self.user_id = session.text("userId").to_owned();
        self.access_token = session.text("accessToken").to_owned();
        let body = json!({"concertId": self.sale.concert_id});
        let place = self.http.send(Call::post("/queue", &body).bearer(&self.access_token)).await?;
        if place.outcome() == "409 SOLD_OUT" {
            return Ok(false);
        }
        expect(&place, 201)?;
        self.wait_token = place.wait_token.clone().context("no Wait-Token came with the place")?;
        Ok(true)
    }

    /// Polls as told until admitted.
    async fn wait(&self) -> Result<()> {
        loop {
            let place = self.http.send(self.own(Call::get("/queue"))).await?;
            expect(&place, 200)?;
            match place.text("status") {
                "ACTIVE" => return Ok(()),
                "WAIT" => sleep(Duration::from_secs(place.number("pollAfterSeconds"))).await,
                other => bail!("a waiting place became {other}"),
            }
        }
    }

    /// Some free seats; none when all are held at the moment; `None` once all are sold.
    async fn choose(&self) -> Result<Option<Vec<Value>>> {
        let Sale { concert_id, date_id } = self.sale;
        let seats = format!("/concerts/{concert_id}/performanceDates/{date_id}/seats");
        let free = self.list(&seats, "seats").await?;
        if free.is_empty() {
            let all = self.list(&format!("{seats}?status=all"), "seats").await?;
            let is_sold = |seat: &Value| seat.get("status").and_then(Value::as_str) == Some("UNAVAILABLE");
            return Ok(if all.iter().all(is_sold) { None } else { Some(Vec::new()) });
        }
        let wanted = rng().random_range(1..=MAX_SEATS);
        let chosen = free.sample(&mut rng(), wanted);
        Ok(Some(chosen.filter_map(|seat| seat.get("seatId")).cloned().collect()))
    }

    /// The dates on which there is a seat left.
    async fn look_at_dates(&self) -> Result<()> {
        let path = format!("/concerts/{}/performanceDates", self.sale.concert_id);
        self.list(&path, "performanceDates").await.map(|_| ())
    }

    async fn list(&self, path: &str, field: &str) -> Result<Vec<Value>> {
        let mut answer = self.http.send(self.own(Call::get(path))).await?;
        expect(&answer, 200)?;
        match answer.body.get_mut(field).map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => bail!("{path} answered without {field}"),
        }
    }

    /// Holds seats; `None` when somebody was faster.
    async fn hold(&mut self, seats: &[Value]) -> Result<Option<Answer>> {
        let body = json!({"performanceDateId": self.sale.date_id, "seatIds": seats});
        let answer = self.order("/reservations", &body).await?;
        match answer.outcome().as_str() {
            "201" => Ok(Some(answer)),
            "409 SEAT_NOT_AVAILABLE" => {
                self.experience.lost_seats += 1;
                Ok(None)
            }
            other => bail!("a hold answered {other}: {}", answer.body),
        }
    }

    /// Gives a hold back; on a slow machine it may have lapsed before.
    async fn give_back(&mut self, held: &Answer) -> Result<()> {
        let path = format!("/reservations/{}", held.text("reservationId"));
        let answer = self.http.send(self.own(Call::delete(&path))).await?;
        match answer.outcome().as_str() {
            "204" => self.experience.cancelled += 1,
            "409 RESERVATION_EXPIRED" => {}
            other => bail!("a hold that was given back answered {other}: {}", answer.body),
        }
        Ok(())
    }

    async fn pay_late(&mut self, held: &Answer) -> Result<()> {
        sleep(Duration::from_secs(u64::from(self.hold_seconds)) + Duration::from_millis(50)).await;
        ensure!(!self.pay(held).await?, "a lapsed hold was paid");
        self.experience.late += 1;
        Ok(())
    }

    async fn charge(&mut self, amount: u64) -> Result<()> {
        let path = format!("/accounts/{}/charge", self.user_id);
        let answer = self.order(&path, &json!({"amount": amount})).await?;
        expect(&answer, 200)
    }

    /// Whether the payment was made; not when the hold has lapsed.
    async fn pay(&mut self, held: &Answer) -> Result<bool> {
        let body = json!({"userId": self.user_id, "reservationId": held.text("reservationId")});
        let answer = self.order("/pay", &body).await?;
        match answer.outcome().as_str() {
            "200" => Ok(true),
            "409 RESERVATION_EXPIRED" => Ok(false),
            other => bail!("a payment answered {other}: {}", answer.body),
        }
    }

    /// Sends an order with a key of its own; twice at once out of habit, and then both must come to one effect.
    ///
    /// A refusal leaves its key free, so the twin of a refused order may still succeed, when a seat was given back in
    /// between. Whoever was refused asks again, and must hear what the twin heard.
    async fn order(&mut self, path: &str, body: &Value) -> Result<Answer> {
        let key = UuidV7::default().next_id().to_string();
        let call = || self.http.send(self.own(Call::post(path, body)).key(&key));
        if self.habit != Habit::DoubleClicks {
            return call().await;
        }
        let (one, other) = tokio::try_join!(call(), call())?;
        let (one, other) = match (one.is_success(), other.is_success()) {
            (false, false) => return Ok(one),
            (true, true) => (one, other),
            (true, false) => (one, call().await?),
            (false, true) => (call().await?, other),
        };
        ensure!(
            one.status == other.status && one.body == other.body,
            "a double click got two answers: {} and {}",
            one.body,
            other.body
        );
        ensure!(one.replayed != other.replayed, "a double click on {path} was carried out twice");
        self.experience.double_clicks += 1;
        Ok(one)
    }

    fn own<'a>(&'a self, call: Call<'a>) -> Call<'a> {
        call.bearer(&self.access_token).wait_token(&self.wait_token)
    }
}

fn expect(answer: &Answer, status: u16) -> Result<()> {
    ensure!(answer.status == status, "expected {status}, got {}: {}", answer.outcome(), answer.body);
    Ok(())
}
