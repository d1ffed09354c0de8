//! Races in the waiting room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use frontrow_app::Admission;
use frontrow_domain::Timestamp;
use frontrow_domain::ports::Clock;
use frontrow_infra::Storage;
use frontrow_testkit::app::{Buyer, Sale, TestApp, all_nodes_know};
use serde_json::{Value, json};

use crate::arena::{Answer, Arena, Hammer, count, counts, patch_room, race, strangers, tally};

/// Looks for a due tick, as every node's scheduler does.
pub(crate) async fn admit_who_is_due(storage: Storage, clock: Arc<dyn Clock>) {
    let admission = Admission { rooms: storage.rooms, committer: storage.committer, clock };
    let admitted = admission.run().await.unwrap();
    assert_eq!(admitted.failures, 0);
}

fn time(body: &Value, field: &str) -> Timestamp {
    Timestamp::parse(body[field].as_str().unwrap()).unwrap()
}

/// One person asks for a place 64 times at once. Gives the answers, and the Wait-Tokens that they brought.
pub(crate) async fn ask_64_times(
    arena: &Arena,
    sale: &Sale,
    buyer: &Buyer,
) -> (Vec<Answer>, BTreeSet<String>) {
    let answers = race((0..64).map(|_| arena.enter(buyer, sale)).collect()).await;
    let tokens = answers.iter().map(|answer| answer.header("wait-token")).collect();
    (answers, tokens)
}

pub(crate) async fn one_person_asking_64_times_has_one_place(arena: &Arena) {
    let (sale, _) = arena.sale(1).await;
    for buyer in strangers(3) {
        let (answers, tokens) = ask_64_times(arena, &sale, &buyer).await;
        assert_eq!(tally(&answers), counts([("201", 1), ("200", 63)]));
        assert_eq!(tokens.len(), 1, "byte for byte");
        assert!(answers.iter().all(|answer| answer.json()["tokenId"] == answers[0].json()["tokenId"]));
    }
    let room = arena.room(arena.node(), &sale).await;
    assert_eq!((&room["waiting"], &room["active"]), (&json!(3), &json!(0)));
}

/// How many of a crowd were admitted by each tick of a room that admits three a second, while the nodes and eight more
/// look for due ticks all the time.
pub(crate) async fn admitted_by_tick(arena: &Arena) -> BTreeMap<i64, usize> {
    const ENOUGH: usize = 9;
    let policy = json!({"admitBatch": 3, "admitIntervalSeconds": 1, "mode": "HOLD"});
    let (sale, _) = arena.sale_behind(policy, 1).await;
    let crowd = arena.waiting(&sale, 60).await;
    let hammer = Hammer::start(arena, 8, admit_who_is_due).await;
    patch_room(arena.node(), &sale, &json!({"mode": "AUTO"})).await;
    let a_tick = time(&arena.room(arena.node(), &sale).await, "nextTickAt").unix_micros();
    let admitted = loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let room = arena.room(arena.node(), &sale).await;
        if room["active"].as_u64().unwrap() >= u64::try_from(ENOUGH).unwrap() {
            patch_room(arena.node(), &sale, &json!({"mode": "HOLD"})).await;
            break activations(arena, &crowd).await;
        }
    };
    hammer.stop().await;
    let mut by_tick = BTreeMap::new();
    for at in admitted {
        *by_tick.entry((at.unix_micros() - a_tick).div_euclid(1_000_000)).or_default() += 1;
    }
    by_tick
}

/// When each of those who were admitted was.
async fn activations(arena: &Arena, crowd: &[Buyer]) -> Vec<Timestamp> {
    all_nodes_know().await;
    let mut activations = Vec::new();
    for buyer in crowd {
        let place = arena.place(buyer).await;
        if !place["activatedAt"].is_null() {
            activations.push(time(&place, "activatedAt"));
        }
    }
    activations
}

/// However many look for it, a tick admits one batch.
pub(crate) async fn one_batch_a_tick(arena: &Arena) {
    let by_tick = admitted_by_tick(arena).await;
    assert!(by_tick.len() >= 3, "{by_tick:?}");
    assert!(by_tick.values().all(|admitted| *admitted == 3), "{by_tick:?}");
}

/// Ticks every second, and operators on every node who admit as fast as they can.
pub(crate) async fn active_ones_never_pass_the_limit(arena: &Arena) {
    let policy = json!({"admitBatch": 3, "admitIntervalSeconds": 1, "maxActive": 7});
    let (sale, _) = arena.sale_behind(policy, 1).await;
    let crowd = arena.waiting(&sale, 60).await;
    let hammer = Hammer::start(arena, 4, admit_who_is_due).await;
    for _ in 0..4 {
        let admitting = race((0..24).map(|n| arena.admit(&sale, 1 + n % 3)).collect());
        let (admitted, ()) = tokio::join!(admitting, watch_the_limit(arena, &sale));
        assert_eq!(tally(&admitted), counts([("200", 24)]));
        let active = active_of(arena, &crowd).await;
        assert_eq!(active.len(), 7);
        // Three of the seven leave, and their places are taken again.
        let leaving = race(active[..3].iter().map(|buyer| arena.leave(buyer)).collect());
        let admitting = race((0..12).map(|_| arena.admit(&sale, 3)).collect());
        let (left, admitted, ()) = tokio::join!(leaving, admitting, watch_the_limit(arena, &sale));
        assert_eq!((tally(&left), tally(&admitted)), (counts([("204", 3)]), counts([("200", 12)])));
    }
    hammer.stop().await;
    patch_room(arena.node(), &sale, &json!({"mode": "HOLD"})).await;
    let active = active_of(arena, &crowd).await.len();
    assert!((4..=7).contains(&active), "{active}");
    let room = arena.room(arena.node(), &sale).await;
    assert_eq!(room["waiting"].as_u64().unwrap(), u64::try_from(60 - 12 - active).unwrap());
}

/// Asks every node how many are ACTIVE, many times.
async fn watch_the_limit(arena: &Arena, sale: &Sale) {
    for node in arena.nodes.iter().cycle().take(12) {
        let active = active_in(arena, node, sale).await;
        assert!(active <= 7, "{active}");
    }
}

/// How many are ACTIVE by this node's account.
async fn active_in(arena: &Arena, node: &TestApp, sale: &Sale) -> u64 {
    arena.room(node, sale).await["active"].as_u64().unwrap()
}

/// Who is ACTIVE by the account of whichever node is asked.
async fn active_of(arena: &Arena, crowd: &[Buyer]) -> Vec<Buyer> {
    all_nodes_know().await;
    let mut active = Vec::new();
    for buyer in crowd {
        if arena.place(buyer).await["status"] == "ACTIVE" {
            active.push(buyer.clone());
        }
    }
    active
}

/// Set on the first node, it holds on the last; lifted there, it is lifted on the first.
pub(crate) async fn a_hold_of_the_room_counts_on_every_node(arena: &Arena) {
    let policy = json!({"admitBatch": 2, "admitIntervalSeconds": 1});
    let (sale, _) = arena.sale_behind(policy, 1).await;
    arena.waiting(&sale, 60).await;
    let (first, last) = (&arena.nodes[0], arena.nodes.last().unwrap());
    let hammer = Hammer::start(arena, 2, admit_who_is_due).await;
    wait_for_more_than(0, arena, last, &sale).await;
    patch_room(first, &sale, &json!({"mode": "HOLD"})).await;
    let held_at = active_in(arena, last, &sale).await;
    tokio::time::sleep(Duration::from_millis(2_300)).await;
    assert_eq!(
        active_in(arena, last, &sale).await,
        held_at,
        "two ticks have passed, and nobody was admitted"
    );
    patch_room(last, &sale, &json!({"mode": "AUTO"})).await;
    wait_for_more_than(held_at, arena, first, &sale).await;
    patch_room(first, &sale, &json!({"mode": "CLOSED"})).await;
    let refused = race((0..8).map(|_| arena.enter(&strangers(1)[0], &sale)).collect()).await;
    assert_eq!(tally(&refused), counts([("503 ROOM_CLOSED", 8)]));
    hammer.stop().await;
}

async fn wait_for_more_than(before: u64, arena: &Arena, node: &TestApp, sale: &Sale) {
    let more = async {
        while active_in(arena, node, sale).await <= before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), more).await.expect("somebody is admitted");
}

/// The audit counts the line afterwards: no gap, no twin, nobody overtaken.
pub(crate) async fn joining_leaving_and_admitting_at_once(arena: &Arena) {
    let (sale, _) = arena.sale(1).await;
    let old = arena.waiting(&sale, 32).await;
    let new = strangers(32);
    let mut requests = Vec::new();
    for n in 0..32 {
        requests.push(arena.enter(&new[n], &sale));
        requests.push(arena.leave(&old[31 - n]));
        requests.push(arena.admit(&sale, 1));
    }
    let answers = race(requests).await;
    let of_kind = |kind: usize| -> Vec<_> { answers.iter().skip(kind).step_by(3).cloned().collect() };
    assert_eq!(tally(&of_kind(0)), counts([("201", 32)]));
    assert_eq!(tally(&of_kind(1)), counts([("204", 32)]));
    assert_eq!(count(&of_kind(2), "200"), 32, "{:?}", tally(&of_kind(2)));
    let let_in: u64 = of_kind(2).iter().map(|answer| answer.json()["admitted"].as_u64().unwrap()).sum();
    assert!(let_in > 0);
    for buyer in &old {
        assert_eq!(arena.place(buyer).await["status"], "EXPIRED");
    }
    let room = arena.room(arena.node(), &sale).await;
    let (waiting, active) = (room["waiting"].as_u64().unwrap(), room["active"].as_u64().unwrap());
    assert_eq!(waiting + active, 32, "the newcomers, in line or through it");
    assert!(active <= let_in, "{active} of {let_in}");
}

/// Whatever becomes of the payer's place meanwhile, the payment goes through and expires what was under it.
pub(crate) async fn paying_while_leaving_and_entering_again(arena: &Arena) {
    let (sale, seats) = arena.sale(24).await;
    let buyers = arena.crowd(&sale, 24).await;
    arena.fund(&buyers, 100).await;
    let held = arena.hold_each(&buyers, &sale, &seats).await;
    let trios = buyers
        .iter()
        .zip(&held)
        .flat_map(|(buyer, held)| [arena.pay(buyer, *held), arena.leave(buyer), arena.enter(buyer, &sale)]);
    let answers = race(trios.collect()).await;
    for trio in answers.chunks(3) {
        assert_eq!((trio[0].kind().as_str(), trio[1].kind().as_str()), ("200", "204"));
        assert!(["200", "201"].contains(&trio[2].kind().as_str()), "{:?}", trio[2]);
    }
    assert_eq!(arena.sales(&sale).await, [0, 0, 24, 2_400]);
    for buyer in &buyers {
        assert_eq!(arena.place(buyer).await["status"], "EXPIRED", "the token it was held under");
    }
}
