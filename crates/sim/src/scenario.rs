//! What a run is about: drawn from its seed before it begins.

use std::fmt;
use std::time::Duration;

use frontrow_app::HoldRules;
use frontrow_domain::queue::{RoomMode, RoomPolicyPatch};

use crate::world::World;

/// The cast and the stage.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) nodes: usize,
    pub(crate) buyers: u64,
    /// Seats a row, of three rows.
    pub(crate) seats_per_row: u32,
    pub(crate) rules: HoldRules,
    /// The policy that the room is made with.
    pub(crate) policy: RoomPolicyPatch,
    /// How long things go wrong.
    pub(crate) storm: Duration,
    /// Abandoned places are given up. As that takes minutes, little else happens.
    pub(crate) has_grace: bool,
}

impl Scenario {
    pub(crate) fn drawn(world: &World) -> Self {
        let has_grace = world.chance(0.06);
        let nodes = if has_grace { &[1, 2, 3][..] } else { &[1, 1, 2, 2, 2, 3, 3, 4, 5][..] };
        let nodes = world.pick(nodes).copied().unwrap_or(1);
        let count = |least, most| i64::try_from(world.between(least, most)).unwrap_or(1);
        let limit = |least, most| world.chance(0.5).then(|| count(least, most));
        let policy = RoomPolicyPatch {
            admit_batch: Some(count(1, 4)),
            admit_interval_seconds: Some(if has_grace { count(180, 300) } else { count(1, 5) }),
            active_ttl_seconds: Some(count(8, 20)),
            max_active: Some(limit(1, 6)),
            max_waiting: Some(limit(4, 12)),
            wait_grace_seconds: has_grace.then_some(Some(120)),
            opens_at: None,
            mode: None,
        };
        let hold_seconds = u32::try_from(world.between(5, 15)).unwrap_or(5);
        Self {
            nodes,
            buyers: world.between(3, if has_grace { 8 } else { 12 }),
            seats_per_row: u32::try_from(world.between(1, 5)).unwrap_or(1),
            rules: HoldRules { hold_seconds, max_seats_per_user: 4 },
            policy,
            storm: Duration::from_secs(if has_grace {
                world.between(300, 420)
            } else {
                world.between(15, 30)
            }),
            has_grace,
        }
    }

    /// How long whoever disturbs lets things be. A crash starts the clocks of the abandoned anew, and an operator admits
    /// them: so where places are to be given up, both are rare.
    pub(crate) fn rest(&self, world: &World) -> Duration {
        if self.has_grace { world.millis(60_000, 200_000) } else { world.millis(500, 8_000) }
    }

    /// Longer than a hold and an admission last.
    pub(crate) fn past_deadline(&self) -> Duration {
        let active = self.policy.active_ttl_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let longest = u64::from(self.rules.hold_seconds).max(active.unwrap_or(0));
        Duration::from_secs(longest.saturating_add(3))
    }

    /// By when everybody has been served, and everything has come to rest.
    pub(crate) const fn longest(&self) -> Duration {
        self.storm.saturating_add(Duration::from_secs(900))
    }

    /// What an operator may change of the policy.
    pub(crate) fn change(&self, world: &World) -> RoomPolicyPatch {
        let count = |least, most| i64::try_from(world.between(least, most)).unwrap_or(1);
        let limit = |least, most| Some(world.chance(0.5).then(|| count(least, most)));
        let modes = [
            RoomMode::Auto,
            RoomMode::Auto,
            RoomMode::Open,
            RoomMode::Hold,
            RoomMode::Closed,
            RoomMode::Paused,
        ];
        let mut change = RoomPolicyPatch { admit_batch: Some(count(1, 5)), ..RoomPolicyPatch::default() };
        match world.below(4) {
            0 => change.max_active = limit(1, 6),
            1 => change.max_waiting = limit(4, 12),
            2 if !self.has_grace => change.admit_interval_seconds = Some(count(1, 6)),
            _ if world.chance(0.2) => {
                let seconds = u32::try_from(world.between(1, 6)).unwrap_or(1);
                change.opens_at = Some(world.chance(0.7).then(|| world.time(0).plus_seconds(seconds)));
            }
            _ => change.mode = world.pick(&modes).copied(),
        }
        change
    }

    /// What an operator sets when the storm is over: everybody gets in.
    pub(crate) fn end(&self, world: &World) -> RoomPolicyPatch {
        RoomPolicyPatch {
            admit_batch: Some(3),
            admit_interval_seconds: Some(2),
            max_active: Some(world.chance(0.5).then_some(4)),
            max_waiting: Some(None),
            opens_at: Some(None),
            mode: world.pick(&[RoomMode::Auto, RoomMode::Open]).copied(),
            ..RoomPolicyPatch::default()
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, buyers, seats_per_row, rules, policy, storm, has_grace } = self;
        let seats = seats_per_row.saturating_mul(3);
        write!(f, "{nodes} nodes, {buyers} buyers, {seats} seats, {rules:?}, {policy:?}, ")?;
        write!(f, "a storm of {storm:?}{}", if *has_grace { ", with a grace" } else { "" })
    }
}
