//! A bounded queue with a lane a priority, for units of work of both databases (ADR 0015).

use std::collections::VecDeque;

use frontrow_domain::unit_of_work::Priority;

/// How often a lane that has something is passed over before it gets its turn: so that nobody in it waits for ever,
/// and no lane above it loses more than a ninth to it.
const PATIENCE: u32 = 8;

/// A bounded queue. Whoever is of a higher priority goes first; of one priority, who came first. Where it is full, the
/// newest of the lowest priority has to go. Pushing and popping take the same time however many there are.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    /// In the order of [`Priority::ALL`].
    lanes: [Lane<T>; Priority::ALL.len()],
    len: usize,
    limit: usize,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<T>,
    /// How often another lane was taken from while something was in this one.
    passed_over: u32,
}

/// What became of an item that was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<T> {
    /// It is queued.
    Queued,
    /// It is queued in the place of this one, which is not.
    InsteadOf(T),
    /// It is not queued: all that are queued are of its priority or a higher one.
    Refused(T),
}

impl<T> Lanes<T> {
    /// Nothing is queued. A limit of 0 is one of 1: it would never take anything.
    pub(crate) fn new(limit: usize) -> Self {
        let lane = |_| Lane { items: VecDeque::new(), passed_over: 0 };
        Self { lanes: Priority::ALL.map(lane), len: 0, limit: limit.max(1) }
    }

    /// How many are queued.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Queues an item, if there is room or somebody less urgent to make some.
    pub(crate) fn push(&mut self, priority: Priority, item: T) -> Pushed<T> {
        let own = Priority::ALL.iter().position(|other| *other == priority).unwrap_or(0);
        let mut displaced = None;
        if self.len >= self.limit {
            let lower = self.lanes.iter_mut().skip(own.saturating_add(1)).rev();
            displaced = lower.filter_map(|lane| lane.items.pop_back()).next();
            if displaced.is_none() {
                return Pushed::Refused(item);
            }
        } else {
            self.len = self.len.saturating_add(1);
        }
        if let Some(lane) = self.lanes.get_mut(own) {
            lane.items.push_back(item);
        }
        displaced.map_or(Pushed::Queued, Pushed::InsteadOf)
    }

    /// Takes the next one.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let is_due = |lane: &Lane<T>| !lane.items.is_empty() && lane.passed_over >= PATIENCE;
        let next = self.lanes.iter().position(is_due);
        let next = next.or_else(|| self.lanes.iter().position(|lane| !lane.items.is_empty()))?;
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let waits = number != next && !lane.items.is_empty();
            lane.passed_over = if waits { lane.passed_over.saturating_add(1) } else { 0 };
        }
        let item = self.lanes.get_mut(next)?.items.pop_front()?;
        self.len = self.len.saturating_sub(1);
        Some(item)
    }

    /// Takes the next ones, at most so many.
    pub(crate) fn pop_many(&mut self, limit: usize) -> Vec<T> {
        std::iter::from_fn(|| self.pop()).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is popped until nothing is left.
    fn drained<T>(lanes: &mut Lanes<T>) -> Vec<T> {
        std::iter::from_fn(|| lanes.pop()).collect()
    }

    #[test]
    fn who_pays_goes_first_and_who_joins_goes_last() {
        let mut lanes = Lanes::new(9);
        for (item, priority) in
            [(1, Priority::Join), (2, Priority::Hold), (3, Priority::Pay), (4, Priority::Pay)]
        {
            assert_eq!(lanes.push(priority, item), Pushed::Queued);
        }
        assert_eq!(drained(&mut lanes), [3, 4, 2, 1]);
        assert_eq!(lanes.len(), 0);
    }

    #[test]
    fn the_newest_of_the_lowest_makes_room() {
        let mut lanes = Lanes::new(3);
        for item in ["join 1", "join 2", "join 3"] {
            assert_eq!(lanes.push(Priority::Join, item), Pushed::Queued);
        }
        assert_eq!(
            lanes.push(Priority::Join, "join 4"),
            Pushed::Refused("join 4"),
            "it is the newest itself"
        );
        assert_eq!(lanes.push(Priority::Hold, "hold 1"), Pushed::InsteadOf("join 3"));
        assert_eq!(lanes.push(Priority::Pay, "pay 1"), Pushed::InsteadOf("join 2"));
        assert_eq!(lanes.push(Priority::Pay, "pay 2"), Pushed::InsteadOf("join 1"));
        assert_eq!(lanes.push(Priority::Hold, "hold 2"), Pushed::Refused("hold 2"));
        assert_eq!(lanes.push(Priority::Pay, "pay 3"), Pushed::InsteadOf("hold 1"));
        assert_eq!(lanes.push(Priority::Pay, "pay 4"), Pushed::Refused("pay 4"));
        assert_eq!(lanes.len(), 3);
        assert_eq!(drained(&mut lanes), ["pay 1", "pay 2", "pay 3"]);
    }

    /// However many pay, one of nine is somebody who holds, and one somebody who joins, as long as there are any.
    #[test]
    fn nobody_waits_for_ever() {
        let mut lanes = Lanes::new(1_000);
        for item in 0..10 {
            lanes.push(Priority::Hold, ("hold", item));
            lanes.push(Priority::Join, ("join", item));
        }
        let mut order = Vec::new();
        for item in 0..90 {
            lanes.push(Priority::Pay, ("pay", item));
            order.extend(lanes.pop());
        }
        for kind in ["hold", "join"] {
            let popped: Vec<i32> =
                order.iter().filter(|(of, _)| *of == kind).map(|(_, item)| *item).collect();
            assert!((7..=10).contains(&popped.len()), "{kind}: {}", popped.len());
            assert!(popped.is_sorted(), "who came first");
        }
        let first = order.iter().take(8).filter(|(kind, _)| *kind == "pay").count();
        assert_eq!(first, 8, "they are patient");
    }

    #[test]
    fn a_batch_takes_no_more_than_it_may() {
        let mut lanes = Lanes::new(9);
        for item in 0..5 {
            let _ = lanes.push(Priority::Pay, item);
        }
        assert_eq!(lanes.pop_many(3), [0, 1, 2]);
        assert_eq!(lanes.pop_many(3), [3, 4]);
        assert_eq!(lanes.pop_many(3), [0; 0]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(Priority),
        Pop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Push(Priority::Pay)),
            Just(Step::Push(Priority::Hold)),
            Just(Step::Push(Priority::Join)),
            Just(Step::Pop),
        ]
    }

    proptest! {
        /// Nothing is lost or doubled, the limit is kept, of one priority who came first goes first, nobody is put out by
        /// an equal, and who is passed over is passed over so many times at most.
        #[test]
        fn all_is_accounted_for(limit in 1_usize..12, steps in prop::collection::vec(step(), 0..300)) {
            let mut lanes = Lanes::new(limit);
            let mut queued: Vec<(Priority, usize)> = Vec::new();
            let mut waits = std::collections::HashMap::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(priority) => match lanes.push(priority, (priority, number)) {
                        Pushed::Queued => {
                            prop_assert!(queued.len() < limit);
                            queued.push((priority, number));
                        }
                        Pushed::InsteadOf(out) => {
                            prop_assert_eq!(queued.len(), limit);
                            prop_assert!(out.0 < priority);
                            let newest_of_lowest =
                                queued.iter().copied().min_by_key(|(priority, number)| (*priority, usize::MAX - number));
                            prop_assert_eq!(Some(out), newest_of_lowest);
                            queued.retain(|item| *item != out);
                            queued.push((priority, number));
                        }
                        Pushed::Refused(item) => {
                            prop_assert_eq!(item, (priority, number));
                            prop_assert_eq!(queued.len(), limit);
                            prop_assert!(queued.iter().all(|(other, _)| *other >= priority));
                        }
                    },
                    Step::Pop => {
                        let popped = lanes.pop();
                        prop_assert_eq!(popped.is_some(), !queued.is_empty());
                        let Some(popped) = popped else { continue };
                        let of_its_kind = queued.iter().copied().find(|(priority, _)| *priority == popped.0);
                        prop_assert_eq!(Some(popped), of_its_kind);
                        queued.retain(|item| *item != popped);
                        for priority in Priority::ALL {
                            let waited = waits.entry(priority).or_insert(0);
                            let waiting = queued.iter().any(|(other, _)| *other == priority);
                            *waited = if waiting && priority != popped.0 { *waited + 1 } else { 0 };
                            prop_assert!(*waited <= PATIENCE + 2, "{:?} waits for {}", priority, waited);
                        }
                    }
                }
                prop_assert_eq!(lanes.len(), queued.len());
            }
        }
    }
}
