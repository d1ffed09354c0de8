use std::sync::Arc;

use frontrow_domain::audit_log::{Acting, AuditEntry, Fact, Facts, OperatorAction};
use frontrow_domain::concert::{Concert, PerformanceDate, SeatPlan, Section};
use frontrow_domain::ports::{AdminQueries, MockAdminQueries, RoomOverview, Sales};
use frontrow_domain::queue::{DEFAULT_ROOM_ID, Room, RoomMode, RoomPolicy, RoomPolicyPatch};
use frontrow_domain::seat::{Seat, SeatPlace, SeatState};
use frontrow_domain::unit_of_work::{
    Admit, AggregateRef, Command, CommandOutcome, CommitError, Guard, PauseTokens,
};
use frontrow_domain::{AuditEntryId, Change, ConcertId, PerformanceDateId, RoomId, SeatId, UnitOfWork};

use crate::testing::{
    CONCERT, DATE, Load, OTHER_CONCERT, OTHER_DATE, OTHER_ROOM, ROOM, USER, World, at, given, label, money,
    now, refusal, room, stored, version, world,
};
use crate::{AdminService, Admission, MAX_ATTEMPTS, NewDate};

fn service_with(world: &World, queries: MockAdminQueries) -> AdminService {
    let queries: Arc<dyn AdminQueries> = Arc::new(queries);
    let admission = Admission { rooms: world.rooms(), committer: world.committer(), clock: world.clock() };
    AdminService {
        admission,
        rooms: world.rooms(),
        concerts: world.concerts(),
        queries,
        clock: world.clock(),
        ids: world.ids(),
    }
}

fn service(world: &World) -> AdminService {
    service_with(world, MockAdminQueries::new())
}

fn overview() -> RoomOverview {
    RoomOverview { room: room(RoomPolicy::default(), at(900)), waiting: 8, active: 9 }
}

/// A service that shows [`overview`] of [`ROOM`], as of now.
fn showing(world: &World) -> AdminService {
    let mut queries = MockAdminQueries::new();
    queries.expect_find_room().returning(|id, at| Ok(((id, at) == (ROOM, now())).then(overview)));
    service_with(world, queries)
}

/// The unit of work, apart from what it records of the operator.
fn unlogged(work: UnitOfWork) -> UnitOfWork {
    UnitOfWork { audit_log: Vec::new(), ..work }
}

/// Every unit of work that has reached the committer, apart from what it records of the operator.
fn unlogged_works(world: &World) -> Vec<UnitOfWork> {
    world.works().into_iter().map(unlogged).collect()
}

fn mode(mode: RoomMode) -> RoomPolicyPatch {
    RoomPolicyPatch { mode: Some(mode), ..RoomPolicyPatch::default() }
}

fn interval(seconds: i64) -> RoomPolicyPatch {
    RoomPolicyPatch { admit_interval_seconds: Some(seconds), ..RoomPolicyPatch::default() }
}

fn changed_to(changed: Room) -> UnitOfWork {
    UnitOfWork { rooms: vec![Change::Update(stored(changed, 3))], ..UnitOfWork::default() }
}

/// Admits to [`ROOM`] as long as it is of this version.
fn admitting(room_version: i64, limit: u32) -> UnitOfWork {
    let guard = Guard { aggregate: AggregateRef::Room(ROOM), version: version(room_version) };
    let admit = Admit { room_id: ROOM, limit, max_active: None, active_ttl_seconds: 600, now: now() };
    UnitOfWork { guards: vec![guard], command: Some(Command::Admit(admit)), ..UnitOfWork::default() }
}

#[tokio::test]
async fn a_concert_uses_the_global_room_unless_it_gets_its_own() {
    let world = self::world();
    world.will_commit();
    let made = service(&world).create_concert(USER, label("Title"), label("Hall"), None).await.unwrap();
    let concert = Concert {
        id: ConcertId::new(given(1)),
        title: label("Title"),
        venue: label("Hall"),
        room_id: DEFAULT_ROOM_ID,
    };
    assert_eq!(made, concert);
    assert_eq!(
        unlogged(world.work()),
        UnitOfWork { concerts: vec![concert.clone()], ..UnitOfWork::default() }
    );

    let world = self::world();
    world.will_commit();
    let patch = interval(60);
    let made =
        service(&world).create_concert(USER, label("Title"), label("Hall"), Some(&patch)).await.unwrap();
    let policy = RoomPolicy { admit_interval_seconds: 60, ..RoomPolicy::default() };
    let room = Room { next_tick_at: at(1_060), ..Room::new(RoomId::new(given(1)), policy, now()) };
    let concert = Concert { id: ConcertId::new(given(2)), room_id: room.id, ..concert };
    assert_eq!(made, concert);
    let work =
        UnitOfWork { rooms: vec![Change::Insert(room)], concerts: vec![concert], ..UnitOfWork::default() };
    assert_eq!(unlogged(world.work()), work, "with its room in the same unit of work");
}

#[tokio::test]
async fn a_concert_with_an_impossible_room_is_not_made() {
    let world = world();
    let made = service(&world).create_concert(USER, label("Title"), label("Hall"), Some(&interval(0))).await;
    assert!(refusal(made).starts_with("InvalidPolicy(InvalidPolicy { field: \"admitIntervalSeconds\""));
    world.assert_untouched();
}

fn new_date() -> NewDate {
    let section = |name, rows, seats_per_row| Section {
        section: label(name),
        grade: label("VIP"),
        price: money(70),
        rows,
        seats_per_row,
    };
    NewDate {
        concert_id: CONCERT,
        starts_at: at(5_000),
        on_sale_at: Some(at(2_000)),
        seats: SeatPlan::new(vec![section("A", 1, 2), section("B", 1, 1)]).unwrap(),
    }
}

#[tokio::test]
async fn a_date_is_made_with_all_its_seats() {
    let world = world();
    world.will_commit();
    let made = service(&world).create_date(USER, new_date()).await.unwrap();
    let id = PerformanceDateId::new(given(1));
    assert_eq!(made, (id, 3));
    let seat = |n, section, number| {
        let place =
            SeatPlace { section: label(section), row: 1, number, grade: label("VIP"), price: money(70) };
        let id_of_seat = SeatId::new(given(n));
        Change::Insert(Seat { id: id_of_seat, performance_date_id: id, place, state: SeatState::Available })
    };
    let date = PerformanceDate { id, concert_id: CONCERT, starts_at: at(5_000), on_sale_at: Some(at(2_000)) };
    // Another date is on sale already: the room's own grid counts, and its version stands for the dates.
    let work = UnitOfWork {
        rooms: vec![Change::Update(stored(room(RoomPolicy::default(), at(900)), 3))],
        performance_dates: vec![date],
        seats: vec![seat(2, "A", 1), seat(3, "A", 2), seat(4, "B", 1)],
        ..UnitOfWork::default()
    };
    assert_eq!(unlogged(world.work()), work);
}

#[tokio::test]
async fn impossible_dates_are_not_made() {
    let world = world();
    let unknown = NewDate { concert_id: OTHER_CONCERT, ..new_date() };
    assert_eq!(refusal(service(&world).create_date(USER, unknown).await), "ConcertNotFound");
    let never = NewDate { concert_id: OTHER_CONCERT, on_sale_at: Some(at(5_000)), ..new_date() };
    let refused = refusal(service(&world).create_date(USER, never).await);
    assert_eq!(refused, "NeverOnSale(NeverOnSale)", "422 comes before 404");
    world.assert_untouched();
}

#[tokio::test]
async fn a_changed_policy_is_stored_over_the_version_that_was_read() {
    let world = world();
    world.will_commit();
    let shown = showing(&world).change_room(USER, ROOM, &interval(300)).await.unwrap();
    assert_eq!(shown, overview());
    let policy = RoomPolicy { admit_interval_seconds: 300, ..RoomPolicy::default() };
    let changed = Room { policy, next_tick_at: at(1_200), ..room(policy, at(900)) };
    assert_eq!(unlogged(world.work()), changed_to(changed));
}

#[tokio::test]
async fn a_shorter_interval_whose_tick_has_passed_admits_at_once() {
    let world = world();
    world.will_commit();
    world.will_come_to(CommandOutcome::Admitted(10));
    showing(&world).change_room(USER, ROOM, &interval(50)).await.unwrap();
    let policy = RoomPolicy { admit_interval_seconds: 50, ..RoomPolicy::default() };
    let changed = Room { next_tick_at: now(), ..room(policy, at(900)) };
    let ticked = Room { last_tick_at: now(), next_tick_at: at(1_050), ..changed };
    let claim = UnitOfWork {
        rooms: vec![Change::Update(stored(ticked, 4))],
        command: admitting(4, 10).command,
        ..UnitOfWork::default()
    };
    assert_eq!(unlogged_works(&world), [changed_to(changed), claim]);
}

#[tokio::test]
async fn a_room_that_resumes_waits_for_its_next_tick() {
    let world = world();
    let held = RoomPolicy { mode: RoomMode::Hold, ..RoomPolicy::default() };
    world.facts().put_room(stored(room(held, at(300)), 3));
    world.will_commit();
    showing(&world).change_room(USER, ROOM, &mode(RoomMode::Auto)).await.unwrap();
    let resumed =
        Room { last_tick_at: at(900), next_tick_at: at(1_500), ..room(RoomPolicy::default(), at(300)) };
    assert_eq!(unlogged(world.work()), changed_to(resumed), "the tick at 900 went by on HOLD");
}

#[tokio::test]
async fn the_first_dates_of_a_concert_open_its_room() {
    let world = world();
    world.facts().dates.clear();
    world.will_conflict(AggregateRef::Room(ROOM), |facts| {
        facts.put_room(stored(room(RoomPolicy::default(), at(900)), 4));
    });
    world.will_commit();
    service(&world).create_date(USER, new_date()).await.unwrap();
    let opened = room(RoomPolicy::default(), at(900));
    let opened = Room { sales_open_at: Some(at(2_000)), next_tick_at: at(2_000), ..opened };
    let rooms: Vec<_> = world.works().into_iter().flat_map(|work| work.rooms).collect();
    assert_eq!(rooms, [3, 4].map(|version| Change::Update(stored(opened, version))), "decided anew");
}

#[tokio::test]
async fn a_pause_begins_and_ends_with_the_mode() {
    use RoomMode::{Auto, Closed, Hold, Open, Paused};
    let pause = |begins| Some(Command::PauseTokens(PauseTokens { room_id: ROOM, begins, now: now() }));
    for (before, after, command) in [
        (Auto, Paused, pause(true)),
        (Hold, Paused, pause(true)),
        (Closed, Paused, pause(true)),
        (Open, Paused, pause(true)),
        (Paused, Paused, None),
        (Paused, Auto, pause(false)),
        (Paused, Hold, pause(false)),
        (Paused, Closed, pause(false)),
        (Hold, Closed, None),
    ] {
        let world = world();
        let policy = RoomPolicy { mode: before, ..RoomPolicy::default() };
        world.facts().put_room(stored(room(policy, at(900)), 3));
        world.will_commit();
        showing(&world).change_room(USER, ROOM, &mode(after)).await.unwrap();
        assert_eq!(world.work().command, command, "{before:?} to {after:?}");
    }
}

#[tokio::test]
async fn a_change_moves_a_tick_back_that_lies_too_far_ahead() {
    let world = world();
    let healthy = room(RoomPolicy::default(), at(900));
    world.facts().put_room(stored(Room { next_tick_at: at(61_500), last_tick_at: at(60_900), ..healthy }, 3));
    world.will_commit();
    showing(&world).change_room(USER, ROOM, &mode(RoomMode::Auto)).await.unwrap();
    assert_eq!(unlogged(world.work()), changed_to(healthy));
}

#[tokio::test]
async fn opening_a_room_admits_its_waiters() {
    let world = world();
    world.will_commit();
    world.will_come_to(CommandOutcome::Admitted(2));
    showing(&world).change_room(USER, ROOM, &mode(RoomMode::Open)).await.unwrap();
    let policy = RoomPolicy { mode: RoomMode::Open, ..RoomPolicy::default() };
    let changed = changed_to(room(policy, at(900)));
    assert_eq!(unlogged_works(&world), [changed, admitting(4, 1_000)], "guarded by the new version");
}

#[tokio::test]
async fn a_change_stands_even_if_nobody_could_be_admitted_then() {
    let world = world();
    world.will_commit();
    world.will_fail(CommitError::Unavailable("down".into()));
    let shown = showing(&world).change_room(USER, ROOM, &mode(RoomMode::Open)).await.unwrap();
    assert_eq!(shown, overview());
}

#[tokio::test]
async fn a_change_that_meets_another_is_made_over_that() {
    let world = world();
    world.will_conflict(AggregateRef::Room(ROOM), |facts| {
        let policy = RoomPolicy { admit_batch: 99, ..RoomPolicy::default() };
        facts.put_room(stored(room(policy, at(900)), 4));
    });
    world.will_commit();
    showing(&world).change_room(USER, ROOM, &mode(RoomMode::Hold)).await.unwrap();
    let policy = RoomPolicy { admit_batch: 99, mode: RoomMode::Hold, ..RoomPolicy::default() };
    let both = Change::Update(stored(room(policy, at(900)), 4));
    assert_eq!(world.works().pop().unwrap().rooms, [both], "both changes count");
}

#[tokio::test]
async fn changes_that_cannot_be_made() {
    let world = self::world();
    assert_eq!(refusal(service(&world).change_room(USER, OTHER_ROOM, &interval(1)).await), "RoomNotFound");
    let refused = refusal(service(&world).change_room(USER, ROOM, &interval(0)).await);
    assert!(refused.starts_with("InvalidPolicy"), "{refused}");
    world.assert_untouched();

    for _ in 0..MAX_ATTEMPTS {
        world.will_conflict(AggregateRef::Room(ROOM), |_| {});
    }
    assert_eq!(refusal(service(&world).change_room(USER, ROOM, &interval(1)).await), "Conflict");

    let world = self::world();
    world.will_fail(CommitError::OutcomeUnknown("lost".into()));
    let refused = refusal(service(&world).change_room(USER, ROOM, &interval(1)).await);
    assert_eq!(refused, "Failure(OutcomeUnknown(\"lost\"))");
}

#[tokio::test]
async fn operators_admit_in_any_mode() {
    for (mode, _) in RoomMode::NAMES {
        let world = world();
        let policy = RoomPolicy { mode, opens_at: Some(at(7_000)), ..RoomPolicy::default() };
        world.facts().put_room(stored(room(policy, at(900)), 3));
        if mode == RoomMode::Paused {
            assert_eq!(refusal(service(&world).admit(USER, ROOM, 5).await), "SalePaused(SalePaused)");
            world.assert_untouched();
            continue;
        }
        world.will_come_to(CommandOutcome::Admitted(4));
        assert_eq!(service(&world).admit(USER, ROOM, 5).await.unwrap(), 4);
        assert_eq!(unlogged(world.work()), admitting(3, 5), "{mode:?}");
    }
}

#[tokio::test]
async fn admitting_goes_by_the_policy_as_it_is_now() {
    let world = self::world();
    world.will_conflict(AggregateRef::Room(ROOM), |facts| {
        facts.put_room(stored(room(RoomPolicy::default(), at(900)), 4));
    });
    world.will_come_to(CommandOutcome::Admitted(5));
    assert_eq!(service(&world).admit(USER, ROOM, 5).await.unwrap(), 5);
    assert_eq!(unlogged_works(&world), [admitting(3, 5), admitting(4, 5)]);

    let world = self::world();
    for _ in 0..MAX_ATTEMPTS {
        world.will_conflict(AggregateRef::Room(ROOM), |_| {});
    }
    assert_eq!(refusal(service(&world).admit(USER, ROOM, 5).await), "Conflict");
    assert_eq!(world.works().len(), usize::try_from(MAX_ATTEMPTS).unwrap());

    let world = self::world();
    assert_eq!(refusal(service(&world).admit(USER, OTHER_ROOM, 5).await), "RoomNotFound");
    world.assert_untouched();
}

#[tokio::test]
async fn rooms_and_sales_are_shown_as_of_now() {
    let sales = Sales { available: 1, reserved: 2, unavailable: 3, amount_sold: money(300) };
    let mut queries = MockAdminQueries::new();
    queries
        .expect_list_rooms()
        .withf(|after, limit, at| (*after, *limit, *at) == (Some(OTHER_ROOM), 5, now()))
        .returning(|_, _, _| Ok(vec![overview()]));
    queries.expect_sales().returning(move |id, at| Ok(((id, at) == (DATE, now())).then_some(sales)));
    let service = service_with(&world(), queries);
    assert_eq!(service.list_rooms(Some(OTHER_ROOM), 5).await.unwrap(), [overview()]);
    assert_eq!(service.sales(DATE).await.unwrap(), sales);
    assert_eq!(refusal(service.sales(OTHER_DATE).await), "PerformanceDateNotFound");
}

fn wanted_policy() -> RoomPolicy {
    RoomPolicy { admit_batch: 77, ..RoomPolicy::default() }
}

fn global(policy: RoomPolicy) -> Room {
    Room::new(DEFAULT_ROOM_ID, policy, now())
}

/// What the only unit of work records, as who did what to what.
fn logged(world: &World) -> AuditEntry {
    let [entry] = world.work().audit_log.try_into().unwrap();
    assert_eq!((entry.user_id, entry.at), (USER, now()));
    entry
}

fn fact(facts: &Facts, name: &str) -> Fact {
    facts.0.get(name).cloned().unwrap_or_else(|| panic!("{name} is not in {facts:?}"))
}

#[tokio::test]
async fn every_action_is_recorded_in_its_own_unit_of_work() {
    let world = self::world();
    world.will_commit();
    service(&world).create_concert(USER, label("Title"), label("Hall"), Some(&interval(60))).await.unwrap();
    let entry = logged(&world);
    assert_eq!(entry.id, AuditEntryId::new(given(3)));
    assert_eq!(entry.action, OperatorAction::CreateConcert(ConcertId::new(given(2))));
    assert_eq!(entry.before, None);
    assert_eq!(fact(&entry.after, "title"), Fact::Text("Title".to_owned()));
    assert_eq!(fact(&entry.after, "admitIntervalSeconds"), Fact::Number(60));

    let world = self::world();
    world.will_commit();
    service(&world).create_date(USER, new_date()).await.unwrap();
    let entry = logged(&world);
    assert_eq!(entry.action, OperatorAction::CreatePerformanceDate(PerformanceDateId::new(given(1))));
    let Fact::List(sections) = fact(&entry.after, "sections") else { panic!("{entry:?}") };
    let prices: Vec<_> = sections.iter().map(|section| fact(section, "price")).collect();
    assert_eq!(prices, [Fact::Number(70), Fact::Number(70)]);

    let world = self::world();
    world.will_commit();
    showing(&world).change_room(USER, ROOM, &mode(RoomMode::Hold)).await.unwrap();
    let entry = logged(&world);
    assert_eq!(entry.action, OperatorAction::ChangeRoom(ROOM));
    assert_eq!(fact(&entry.before.unwrap(), "mode"), Fact::Text("AUTO".to_owned()));
    assert_eq!(fact(&entry.after, "mode"), Fact::Text("HOLD".to_owned()));

    let world = self::world();
    world.will_come_to(CommandOutcome::Admitted(4));
    service(&world).admit(USER, ROOM, 5).await.unwrap();
    let entry = logged(&world);
    assert_eq!(entry.action, OperatorAction::AdmitWaiters(ROOM));
    assert_eq!(fact(&entry.after, "count"), Fact::Number(5));
}

#[tokio::test]
async fn what_the_scheduler_does_is_no_operators_action() {
    let world = world();
    world.will_commit();
    world.will_come_to(CommandOutcome::Admitted(2));
    showing(&world).change_room(USER, ROOM, &mode(RoomMode::Open)).await.unwrap();
    let logged: Vec<_> = world.works().iter().map(|work| work.audit_log.len()).collect();
    assert_eq!(logged, [1, 0], "the change, and not whom it lets in");
}

#[tokio::test]
async fn the_audit_log_is_read_as_it_is() {
    let entry = Acting { id: AuditEntryId::new(given(7)), at: at(1), user_id: USER }.admits(ROOM, 3);
    let listed = entry.clone();
    let mut queries = MockAdminQueries::new();
    queries
        .expect_list_audit_log()
        .withf(|before, limit| (*before, *limit) == (Some(AuditEntryId::new(given(8))), 5))
        .returning(move |_, _| Ok(vec![listed.clone()]));
    let service = service_with(&world(), queries);
    assert_eq!(service.list_audit_log(Some(AuditEntryId::new(given(8))), 5).await.unwrap(), [entry]);
}

#[tokio::test]
async fn the_global_room_is_made_once_and_keeps_its_policy() {
    let world = self::world();
    world.will_commit();
    assert_eq!(service(&world).ensure_global_room(wanted_policy()).await.unwrap(), wanted_policy());
    let made = Change::Insert(global(wanted_policy()));
    assert_eq!(world.work(), UnitOfWork { rooms: vec![made], ..UnitOfWork::default() });

    let world = self::world();
    world.facts().put_room(stored(global(RoomPolicy::default()), 5));
    let kept = service(&world).ensure_global_room(wanted_policy()).await.unwrap();
    assert_eq!(kept, RoomPolicy::default());
    world.assert_untouched();
}

#[tokio::test]
async fn nodes_that_start_together_agree_on_one_global_room() {
    let world = self::world();
    world.will_conflict(AggregateRef::Room(DEFAULT_ROOM_ID), |facts| {
        facts.put_room(stored(global(RoomPolicy::default()), 1));
    });
    let agreed = service(&world).ensure_global_room(wanted_policy()).await.unwrap();
    assert_eq!(agreed, RoomPolicy::default());

    let world = self::world();
    world.facts().down = Some(Load::Room);
    let refused = refusal(service(&world).ensure_global_room(wanted_policy()).await);
    assert_eq!(refused, "Unavailable(\"down\")");
    world.assert_untouched();
}
