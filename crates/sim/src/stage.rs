//! A run from its beginning to its end.

use std::sync::Arc;
use std::time::Duration;

use frontrow_app::NewDate;
use frontrow_domain::concert::{SeatPlan, Section};
use frontrow_domain::{ConcertId, Label, Money, PerformanceDateId, RoomId, SeatId};

use crate::buyer::Buyer;
use crate::client::{Client, End};
use crate::cluster::{Cluster, havoc};
use crate::faults::Plan;
use crate::monitor::Kind;
use crate::requests::{self, OPERATOR};
use crate::scenario::Scenario;
use crate::world::{About, Owner};

/// How long everything may take to come to rest once the last client is gone: those who vanished are admitted, and lapse.
const REST_WITHIN: Duration = Duration::from_secs(300);

/// What is sold, and when the storm is over.
pub(crate) struct Stage {
    pub(crate) scenario: Scenario,
    pub(crate) room: RoomId,
    pub(crate) concert: ConcertId,
    pub(crate) date: PerformanceDateId,
    pub(crate) seats: Vec<SeatId>,
    pub(crate) calm_from: Duration,
}

/// Sets the stage in calm, lets the storm loose, and sees to it that everything comes to rest after it.
pub(crate) async fn play(cluster: Arc<Cluster>, scenario: Scenario) {
    let world = cluster.world.clone();
    world.doing("the stage", Some("is set"));
    let stage = match set(&cluster, scenario).await {
        Ok(stage) => Arc::new(stage),
        Err(error) => return world.violate(format_args!("the stage cannot be set: {error}")),
    };
    let plan = Plan::drawn(&world, stage.scenario.has_grace);
    world.note(format_args!("faults: {plan}"));
    world.set_plan(plan);
    for node in 1..stage.scenario.nodes {
        cluster.start(node);
    }
    for number in 1..=stage.scenario.buyers {
        let buyer = Buyer::new(cluster.clone(), stage.clone(), number);
        world.spawn(About::of(Owner::Outside), buyer.live());
    }
    world.spawn(About::of(Owner::Outside), operate(cluster.clone(), stage.clone()));
    world.spawn(About::of(Owner::Outside), havoc(cluster.clone(), stage.clone()));
    world.sleep_until(stage.calm_from).await;
    world.set_plan(Plan::calm());
    world.note(format_args!("the storm is over"));
    world.doing("the stage", None);
    while !world.is_quiet() {
        world.sleep(Duration::from_secs(1)).await;
    }
    let by = world.elapsed().saturating_add(REST_WITHIN);
    while let Some(unrest) = cluster.monitor.unrest() {
        if world.elapsed() >= by {
            return world.violate(format_args!("there is no rest: {unrest}"));
        }
        world.sleep(Duration::from_secs(1)).await;
    }
    world.note(format_args!("everything has come to rest"));
    world.end();
}

/// The first node makes a concert behind a room of its own, and a date.
async fn set(cluster: &Cluster, scenario: Scenario) -> anyhow::Result<Stage> {
    let admin = cluster.start(0).admin;
    let policy = Some(&scenario.policy);
    let (title, venue) = (Label::new("A concert")?, Label::new("A hall")?);
    let concert = admin.create_concert(OPERATOR, title, venue, policy).await?;
    let section = Section {
        section: Label::new("A")?,
        grade: Label::new("R")?,
        price: Money::new(100)?,
        rows: 3,
        seats_per_row: scenario.seats_per_row,
    };
    let new = NewDate {
        concert_id: concert.id,
        starts_at: cluster.world.time(0).plus_seconds(1_000_000),
        on_sale_at: None,
        seats: SeatPlan::new(vec![section])?,
    };
    let (date, _) = admin.create_date(OPERATOR, new).await?;
    let seats = cluster.monitor.memory.look(|state| state.seats.keys().copied().collect());
    let calm_from = cluster.world.elapsed().saturating_add(scenario.storm);
    Ok(Stage { scenario, room: concert.room_id, concert: concert.id, date, seats, calm_from })
}

/// An operator who changes the room's policy and admits people, and in the end sees to it that everybody gets in.
async fn operate(cluster: Arc<Cluster>, stage: Arc<Stage>) {
    let world = cluster.world.clone();
    let mut client = Client::new(cluster.clone(), "the operator".to_owned());
    client.doing("operates");
    let room = stage.room;
    loop {
        world.sleep(stage.scenario.rest(&world)).await;
        let is_over = world.elapsed() >= stage.calm_from;
        if !is_over && world.chance(0.3) {
            let count = u32::try_from(world.between(1, 4)).unwrap_or(1);
            let request = (world.number(), Kind::Loose);
            let _: End<Vec<u8>> = client.insist(request, false, |u| requests::admit(u, room, count)).await;
            continue;
        }
        let patch = if is_over { stage.scenario.end(&world) } else { stage.scenario.change(&world) };
        world.note(format_args!("the operator wants {patch:?}"));
        let request = (world.number(), Kind::Loose);
        let _: End<Vec<u8>> = client.insist(request, true, |u| requests::change_room(u, room, patch)).await;
        let policy = cluster.monitor.memory.look(|state| state.rooms.get(&room).map(|row| row.value.policy));
        if policy.and_then(|policy| policy.patched(&patch).ok()) != policy {
            world.violate(format_args!("an acknowledged policy is not stored: {policy:?}"));
        }
        if is_over {
            break;
        }
    }
    world.doing(&client.name, None);
}
