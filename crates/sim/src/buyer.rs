//! A buyer: joins, polls as told, looks, holds, charges, pays or thinks better of it, leaves, and comes again. Some stay away
//! without a word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use frontrow_app::{Entered, QueuePlace, ReserveRequest};
use frontrow_domain::account::EntryKind;
use frontrow_domain::queue::{QueueTokenState, QueueTokenStatus};
use frontrow_domain::reservation::ReservationStatus;
use frontrow_domain::seat::{Seat, SeatState};
use frontrow_domain::{EntryId, Money, PaymentId, QueueTokenId, ReservationId, SeatId, UserId};
use uuid::Uuid;

use crate::client::{Client, End};
use crate::cluster::{Cluster, MOST_SKEW_MICROS};
use crate::monitor::{Bytes, Kind, Verdict};
use crate::requests;
use crate::stage::Stage;
use crate::world::NodeRun;

impl Bytes for Option<Entered> {
    fn is_new(&self) -> bool {
        self.as_ref().is_some_and(|entered| entered.is_new)
    }
}
impl Bytes for QueuePlace {}
impl Bytes for Vec<SeatId> {}

/// One person.
pub(crate) struct Buyer {
    client: Client,
    stage: Arc<Stage>,
    user_id: UserId,
    /// The place, and the text that stands for it.
    place: Option<(QueueTokenId, String)>,
    /// What each node has said of each place: whoever waits moves forward only.
    told: BTreeMap<(NodeRun, QueueTokenId), (QueueTokenStatus, u64)>,
    wallet: Wallet,
}

/// What the buyer knows of the account.
#[derive(Default)]
struct Wallet {
    /// Charges that were acknowledged.
    charged: usize,
    /// Charges of which nobody knows.
    open: usize,
}

impl Buyer {
    pub(crate) fn new(cluster: Arc<Cluster>, stage: Arc<Stage>, number: u64) -> Self {
        let user_id = UserId::new(cluster.world.id(cluster.world.time(0)));
        let client = Client::new(cluster, format!("buyer {number}"));
        client.doing("comes");
        client.world().note(format_args!("buyer {number} is {user_id}"));
        Self { client, stage, user_id, place: None, told: BTreeMap::new(), wallet: Wallet::default() }
    }

    /// Comes again and again while the storm lasts, and once more when it is over: then everything must work.
    pub(crate) async fn live(mut self) {
        let world = self.client.world().clone();
        world.sleep(world.millis(0, 4_000)).await;
        loop {
            let is_last = world.elapsed() >= self.stage.calm_from;
            self.visit(is_last).await;
            if is_last {
                break;
            }
            self.client.doing("is away");
            world.sleep(world.millis(0, 3_000)).await;
        }
        self.check_wallet();
        world.doing(&self.client.name, None);
    }

    async fn visit(&mut self, is_last: bool) {
        // Where places are given up, there has to be somebody who is gone.
        let vanishing = if self.stage.scenario.has_grace { 0.5 } else { 0.1 };
        if !is_last && self.client.world().chance(vanishing) {
            return self.visit_and_vanish().await;
        }
        loop {
            match self.wait_for_my_turn(is_last).await {
                Turn::Active => break,
                Turn::Lost if is_last || !self.client.world().chance(0.3) => {}
                Turn::Lost | Turn::SoldOut => return,
            }
        }
        for _ in 0..self.client.world().between(1, 2) {
            self.buy().await;
        }
        if self.client.world().chance(0.4) {
            self.leave().await;
        }
    }

    /// Takes a place and is never seen again under it.
    async fn visit_and_vanish(&mut self) {
        if !self.join().await {
            return;
        }
        let world = self.client.world().clone();
        world.note(format_args!("{} vanishes", self.client.name));
        self.client.doing("stays away");
        let time = if self.stage.scenario.has_grace {
            world.millis(150_000, 400_000)
        } else {
            world.millis(0, 9_000)
        };
        world.sleep(time).await;
    }
}

/// What waiting in line comes to.
enum Turn {
    /// The buyer is admitted.
    Active,
    /// The place is lost, or given up.
    Lost,
    /// Nothing is left to wait for.
    SoldOut,
}

/// The line.
impl Buyer {
    /// Takes a place. False where the concert is sold out.
    async fn join(&mut self) -> bool {
        self.client.doing("joins");
        let (user_id, concert) = (self.user_id, self.stage.concert);
        loop {
            let request = (self.client.world().number(), Kind::Join);
            let handler = move |use_cases| requests::enter(use_cases, user_id, concert);
            match self.client.insist(request, true, handler).await {
                End::Done { answer: Some(entered), .. } => {
                    self.joined(entered);
                    return true;
                }
                End::Done { answer: None, .. } => {
                    self.check_sold_out();
                    return false;
                }
                // The room is closed or full.
                End::Refused | End::Unknown => {
                    self.client.world().sleep(self.client.world().millis(1_000, 4_000)).await;
                }
            }
        }
    }

    /// A seat that is sold never comes back here: so what a node says by its view holds for good.
    fn check_sold_out(&self) {
        let memory = &self.client.cluster.monitor.memory;
        let is_sold = |seat: &Seat| matches!(seat.state, SeatState::Unavailable { .. });
        if !memory.look(|state| state.seats.values().all(|row| is_sold(&row.value))) {
            self.client.world().violate("a join is refused as sold out while a seat is left");
        }
    }

    fn joined(&mut self, entered: Entered) {
        let token = entered.place.token;
        if let Some((id, text)) = &self.place
            && *id == token.id
            && *text != entered.wait_token
        {
            self.client.world().violate("the same place got two Wait-Tokens");
        }
        // One that nobody heard of is not left beside it, nor taken twice: who has a later one has lost this.
        let stands = self.client.cluster.monitor.memory.look(|state| {
            let own = state.queue_tokens.values().map(|row| row.value).filter(|t| t.user_id == self.user_id);
            let stored = own.clone().find(|own| (own.id, own.ticket) == (token.id, token.ticket));
            stored.is_some_and(|stored| {
                let is_over = matches!(stored.state, QueueTokenState::Expired { .. });
                is_over || own.clone().all(|own| own.ticket <= stored.ticket)
            })
        });
        if !stands {
            let name = &self.client.name;
            self.client
                .world()
                .violate(format_args!("{name} has a place that is not stored, or not the last"));
        }
        self.place = Some((token.id, entered.wait_token));
    }

    /// Joins and polls at `pollAfterSeconds`.
    async fn wait_for_my_turn(&mut self, is_last: bool) -> Turn {
        if !self.join().await {
            return Turn::SoldOut;
        }
        self.client.doing("waits");
        loop {
            let Some((id, place)) = self.poll().await else { return Turn::Lost };
            let world = self.client.world().clone();
            match place.status {
                QueueTokenStatus::Active => return Turn::Active,
                QueueTokenStatus::Expired => return Turn::Lost,
                QueueTokenStatus::Wait if !is_last && world.chance(0.03) => {
                    self.leave().await;
                    return Turn::Lost;
                }
                QueueTokenStatus::Wait => {
                    self.client.cluster.monitor.polled(id);
                    world.sleep(Duration::from_secs(place.poll_after_seconds)).await;
                }
            }
        }
    }

    async fn poll(&mut self) -> Option<(QueueTokenId, QueuePlace)> {
        let (id, token) = self.place.clone()?;
        let user_id = self.user_id;
        let request = (self.client.world().number(), Kind::Loose);
        let handler = move |use_cases| requests::look_up(use_cases, user_id, token.clone());
        let End::Done { answer: place, run: Some(run), .. } =
            self.client.insist(request, false, handler).await
        else {
            return self.poll_again().await;
        };
        let world = self.client.world();
        world.note(format_args!("{}: {run} says {:?} {}", self.client.name, place.status, place.position));
        let now = (place.status, place.position);
        if let Some(before) = self.told.insert((run, id), now)
            && goes_back(before, now)
        {
            world.violate(format_args!("{run} said {before:?}, and then {now:?}, of {id}"));
        }
        Some((id, place))
    }

    /// The answer was lost: nothing depends on it.
    async fn poll_again(&mut self) -> Option<(QueueTokenId, QueuePlace)> {
        self.client.world().sleep(Duration::from_secs(1)).await;
        Box::pin(self.poll()).await
    }

    async fn leave(&mut self) {
        let Some((id, token)) = self.place.take() else { return };
        self.client.doing("leaves");
        self.client.cluster.monitor.stays_away(id);
        let user_id = self.user_id;
        let request = (self.client.world().number(), Kind::Idempotent);
        let handler = move |use_cases| requests::leave(use_cases, user_id, token.clone());
        self.client.insist(request, true, handler).await;
        let stored = self.client.cluster.monitor.memory.look(|state| state.queue_tokens.get(&id).copied());
        if !stored.is_some_and(|row| matches!(row.value.state, QueueTokenState::Expired { .. })) {
            self.client.world().violate("a place that was given up is still there");
        }
    }
}

/// Whether a node takes back what it said of a place.
fn goes_back(before: (QueueTokenStatus, u64), now: (QueueTokenStatus, u64)) -> bool {
    let rank = |status| match status {
        QueueTokenStatus::Wait => 0,
        QueueTokenStatus::Active => 1,
        QueueTokenStatus::Expired => 2,
    };
    rank(now.0) < rank(before.0) || (rank(now.0) == rank(before.0) && now.1 > before.1)
}

/// The purchase.
impl Buyer {
    async fn buy(&mut self) {
        let Some(wanted) = self.choose_seats().await else { return };
        let Some((id, total)) = self.hold(wanted).await else { return };
        let world = self.client.world().clone();
        let hold = u64::from(self.stage.scenario.rules.hold_seconds);
        if world.chance(0.8) {
            // Sometimes a little less than is needed.
            let amount = if world.chance(0.1) { total - 1 } else { total };
            self.charge(amount).await;
        }
        self.client.doing("thinks it over");
        world.sleep(world.millis(0, hold * 1_300)).await;
        match world.below(10) {
            0 | 1 => self.cancel(id).await,
            2 => self.pay_and_cancel_at_once(id).await,
            3 => {}
            _ => {
                if self.pay(id).await == Some(false) && world.chance(0.5) {
                    self.charge(total).await;
                    self.pay(id).await;
                }
            }
        }
    }

    /// Looks at the seats, and takes some that are free, or just any.
    async fn choose_seats(&mut self) -> Option<Vec<SeatId>> {
        self.client.doing("looks at seats");
        let (_, token) = self.place.clone()?;
        let (user_id, date) = (self.user_id, (self.stage.concert, self.stage.date));
        let request = (self.client.world().number(), Kind::Loose);
        let handler = move |use_cases| requests::look(use_cases, user_id, token.clone(), date);
        let free = self.client.insist(request, true, handler).await.answer()?;
        let world = self.client.world();
        let mut from = if world.chance(0.2) || free.is_empty() { self.stage.seats.clone() } else { free };
        // One more than is allowed, now and then.
        let count = if world.chance(0.05) { 5 } else { world.between(1, 3) };
        let mut wanted = Vec::new();
        for _ in 0..count {
            if let Some(seat) = world.pick(&from).copied() {
                wanted.push(seat);
                from.retain(|other| *other != seat);
            }
        }
        (!wanted.is_empty()).then_some(wanted)
    }

    async fn hold(&mut self, seat_ids: Vec<SeatId>) -> Option<(ReservationId, i64)> {
        self.client.doing("holds seats");
        let (_, token) = self.place.clone()?;
        let (user_id, number) = (self.user_id, self.client.world().number());
        let keyed = requests::key(user_id, number);
        let request = ReserveRequest { performance_date_id: self.stage.date, seat_ids };
        let handler = move |use_cases| {
            requests::reserve(use_cases, token.clone(), keyed.clone(), user_id, request.clone())
        };
        let end = self.client.insist((number, Kind::Once), true, &handler).await;
        let End::Done { answer, run, replayed } = end else { return None };
        let (id, total) = named(&answer)?;
        let id = ReservationId::new(id);
        let is_there = self.client.cluster.monitor.memory.look(|state| {
            state.reservations.get(&id).is_some_and(|row| {
                (row.value.user_id, row.value.total_amount.minor_units()) == (user_id, total)
            })
        });
        if !is_there {
            self.client.world().violate("an acknowledged hold is not stored");
        }
        if let Some(run) = run.filter(|_| !replayed) {
            self.check_shown(run, id).await;
        }
        self.client.come_again(number, handler).await;
        Some((id, total))
    }

    /// A node that has itself held seats shows them as taken.
    async fn check_shown(&self, held_at: NodeRun, id: ReservationId) {
        let Some((_, token)) = self.place.clone() else { return };
        let (user_id, date) = (self.user_id, (self.stage.concert, self.stage.date));
        let world = self.client.world();
        let handler = move |use_cases| requests::look(use_cases, user_id, token, date);
        let (run, verdict) = self.client.ask(held_at.node, Kind::Loose, world.number(), handler).await;
        let Verdict::Done { answer: free, .. } = verdict else { return };
        let held = self.client.cluster.monitor.memory.look(|state| {
            let row = state.reservations.get(&id)?;
            // By any clock.
            let is_held = row.value.status_at(world.time(MOST_SKEW_MICROS)) == ReservationStatus::Reserved;
            is_held.then(|| row.value.seat_ids())
        });
        if run == Some(held_at) && held.is_some_and(|held| held.iter().any(|seat| free.contains(seat))) {
            world.violate(format_args!("{held_at} shows seats as free that it has held"));
        }
    }

    async fn charge(&mut self, amount: i64) {
        self.client.doing("charges");
        let Ok(amount) = Money::new(amount) else { return };
        let has_key = self.client.world().chance(0.7);
        let (user_id, number) = (self.user_id, self.client.world().number());
        let keyed = if has_key { requests::key(user_id, number) } else { None };
        let handler = move |use_cases| requests::charge(use_cases, keyed.clone(), user_id, amount);
        match self.client.insist((number, Kind::Once), has_key, &handler).await {
            End::Done { answer, .. } => {
                self.wallet.charged += 1;
                let is_there = named(&answer).is_some_and(|(id, _)| {
                    let id = EntryId::new(id);
                    let entry =
                        self.client.cluster.monitor.memory.look(|state| state.entries.get(&id).copied());
                    entry.is_some_and(|entry| (entry.user_id, entry.amount) == (user_id, amount))
                });
                if !is_there {
                    self.client.world().violate("an acknowledged charge is not stored");
                }
                if has_key {
                    self.client.come_again(number, handler).await;
                }
            }
            End::Refused => {}
            End::Unknown => self.wallet.open += 1,
        }
    }

    /// Whether it was paid; nothing where nobody can tell.
    async fn pay(&mut self, id: ReservationId) -> Option<bool> {
        self.client.doing("pays");
        let (user_id, number) = (self.user_id, self.client.world().number());
        let keyed = requests::key(user_id, number);
        let handler = move |use_cases| requests::pay(use_cases, keyed.clone(), user_id, id);
        match self.client.insist((number, Kind::Once), true, &handler).await {
            End::Done { answer, run, replayed } => {
                self.check_payment(id, &answer);
                if let Some(run) = run.filter(|_| !replayed) {
                    self.check_gate(run).await;
                }
                self.client.come_again(number, handler).await;
                Some(true)
            }
            End::Refused => Some(false),
            End::Unknown => None,
        }
    }

    fn check_payment(&self, id: ReservationId, answer: &[u8]) {
        let is_there = self.client.cluster.monitor.memory.look(|state| {
            let payment = named(answer).and_then(|(payment, _)| state.payments.get(&PaymentId::new(payment)));
            let status = state.reservations.get(&id).map(|row| row.value.status);
            payment.is_some_and(|payment| payment.reservation_id == id)
                && status == Some(ReservationStatus::Done)
        });
        if !is_there {
            self.client.world().violate("an acknowledged payment is not stored");
        }
    }

    /// A node that has itself ended a place lets nobody in by it.
    async fn check_gate(&mut self, paid_at: NodeRun) {
        let Some((id, token)) = self.place.clone() else { return };
        let (user_id, date) = (self.user_id, (self.stage.concert, self.stage.date));
        let world = self.client.world();
        let is_over = self.client.cluster.monitor.memory.look(|state| {
            let stored = state.queue_tokens.get(&id).map(|row| row.value.state);
            matches!(stored, Some(QueueTokenState::Expired { .. }))
        });
        let handler = move |use_cases| requests::look(use_cases, user_id, token, date);
        let (run, verdict) = self.client.ask(paid_at.node, Kind::Loose, world.number(), handler).await;
        if is_over && run == Some(paid_at) && matches!(verdict, Verdict::Done { .. }) {
            world.violate(format_args!("{paid_at} lets somebody in after the payment it took"));
        }
    }

    async fn cancel(&mut self, id: ReservationId) {
        self.client.doing("cancels");
        let (user_id, number) = (self.user_id, self.client.world().number());
        let handler = move |use_cases| requests::cancel(use_cases, user_id, id);
        let end = self.client.insist((number, Kind::Idempotent), true, handler).await;
        if matches!(end, End::Done { .. }) {
            let status = self
                .client
                .cluster
                .monitor
                .memory
                .look(|state| state.reservations.get(&id).map(|row| row.value.status));
            if status != Some(ReservationStatus::Cancelled) {
                self.client.world().violate(format_args!("a cancelled reservation is {status:?}"));
            }
        }
    }

    /// Another window of the same person cancels what this one pays.
    async fn pay_and_cancel_at_once(&mut self, id: ReservationId) {
        let (user_id, node) = (self.user_id, self.client.cluster.any());
        let other = Client::new(self.client.cluster.clone(), format!("{} once more", self.client.name));
        let number = other.world().number();
        let handler = move |use_cases| requests::cancel(use_cases, user_id, id);
        let cancelling = other.ask(node, Kind::Idempotent, number, handler);
        let ((_, cancelled), paid) = futures_util::future::join(cancelling, self.pay(id)).await;
        if paid == Some(true) && matches!(cancelled, Verdict::Done { .. }) {
            self.client.world().violate("a reservation is paid and cancelled");
        }
    }

    /// What is stored is what was acknowledged, and may be what nobody knows of.
    fn check_wallet(&self) {
        let charges = self.client.cluster.monitor.memory.look(|state| {
            let own = state.entries.values().filter(|entry| entry.user_id == self.user_id);
            own.filter(|entry| entry.kind == EntryKind::Charge).count()
        });
        let Wallet { charged, open } = self.wallet;
        if !(charged..=charged + open).contains(&charges) {
            self.client.world().violate(format_args!(
                "{} was told of {charged} charges, and does not know of {open}: {charges} are stored",
                self.client.name
            ));
        }
    }
}

/// What an answer names, and how much.
fn named(answer: &[u8]) -> Option<(Uuid, i64)> {
    let (named, amount) = std::str::from_utf8(answer).ok()?.split_once(' ')?;
    let id = named.split('"').nth(3)?;
    Some((Uuid::parse_str(id).ok()?, amount.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No storage can make a view show a place further back (ADR 0007): so no mutation shows it.
    #[test]
    fn a_place_goes_forward_only() {
        use QueueTokenStatus::{Active, Expired, Wait};
        for (before, now) in [((Wait, 3), (Wait, 2)), ((Wait, 1), (Active, 1)), ((Active, 1), (Expired, 1))] {
            assert!(!goes_back(before, before) && !goes_back(before, now) && goes_back(now, before));
        }
    }
}
