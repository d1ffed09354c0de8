//! Runs histories and compares what is answered with the model.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::env;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use frontrow::app::Node;
use frontrow_model::{Answer, Model, Operation, Refusal, Snapshot, Step};
use futures_util::future::join_all;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

use crate::ground::Ground;
use crate::history::{History, world};
use crate::mutants::{Mutation, mutated};
use crate::pausing::pausing;
use crate::subject::Subject;

/// How often each kind of answer was given.
pub(crate) type Tally = BTreeMap<String, u64>;

/// Where cases run, and with which mistake.
pub(crate) struct Setting<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) mutation: Option<Mutation>,
    tally: Mutex<Tally>,
}

impl<'a> Setting<'a> {
    pub(crate) fn new(ground: &'a Ground, mutation: Option<Mutation>) -> Self {
        Self { ground, mutation, tally: Mutex::default() }
    }

    pub(crate) fn tally(self) -> Tally {
        self.tally.into_inner().unwrap()
    }

    /// Runs a history. `step` is told of each step before it is taken.
    pub(crate) fn replay(&self, steps: &[Step], step: impl Fn()) -> Result<(), String> {
        self.ground.block_on(async {
            let plot = self.ground.plot().await;
            let storage = plot.storage.clone();
            let storage = self.mutation.map_or(storage.clone(), |mutation| mutated(storage, mutation));
            let pauses = Arc::default();
            let is_deterministic = self.ground.is_deterministic();
            let storage = if is_deterministic { pausing(storage, Arc::clone(&pauses)) } else { storage };
            let mut case = Case {
                model: Model::new(&world()),
                subject: Subject::new(&world(), storage, self.mutation).await,
                setting: self,
                pauses,
            };
            for (number, taken) in steps.iter().enumerate() {
                step();
                case.take(taken).await.map_err(|why| format!("step {number}, {taken:?}:\n{why}"))?;
            }
            case.finish().await.map_err(|why| format!("in the end:\n{why}"))?;
            drop(case);
            let broken = plot.audit().await;
            if broken.is_empty() { Ok(()) } else { Err(format!("the audit finds: {broken:?}")) }
        })
    }

    /// Runs so many histories of at most so many steps. The first that fails is made as short as can be.
    pub(crate) fn run(&self, cases: u32, steps: usize, seed: u64) -> Result<(), Failed> {
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
        let histories = History::sequential_strategy(steps / 2..=steps);
        let ran = TestRunner::new_with_rng(config, rng).run(&histories, |(_, steps, seen)| {
            let step = || {
                if let Some(seen) = &seen {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            };
            self.replay(&steps, step).map_err(TestCaseError::fail)
        });
        ran.map_err(|error| match error {
            TestError::Fail(why, (_, steps, _)) => Failed { why: why.to_string(), steps },
            TestError::Abort(why) => Failed { why: why.to_string(), steps: Vec::new() },
        })
    }
}

/// A history that the model does not explain.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) why: String,
    pub(crate) steps: Vec<Step>,
}

impl Failed {
    /// The history as Rust, to be pasted into `regressions.rs`.
    pub(crate) fn as_regression(&self) -> String {
        let steps = format!("{:#?}", self.steps).replace('[', "vec![");
        format!("{}\n\nPaste into regressions.rs:\n\nhistory! {{ what_went_wrong: {steps} }}\n", self.why)
    }
}

/// How many cases to run: `FRONTROW_MODEL_CASES`, or as many as fit into an ordinary test run.
pub(crate) fn cases(ordinarily: u32) -> u32 {
    number("FRONTROW_MODEL_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(ordinarily)
}

/// Where the random numbers begin: `FRONTROW_MODEL_SEED`, or always the same.
pub(crate) fn seed() -> u64 {
    number("FRONTROW_MODEL_SEED").unwrap_or(20_261_127)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}

/// The same pauses for the same step, whatever was before: so that a history that fails still does when others are left out.
fn seed_of(step: &Step) -> u64 {
    let mut digest = DefaultHasher::new();
    format!("{step:?}").hash(&mut digest);
    digest.finish()
}

struct Case<'a> {
    model: Model,
    subject: Subject,
    setting: &'a Setting<'a>,
    pauses: Arc<AtomicU64>,
}

impl Case<'_> {
    async fn take(&mut self, step: &Step) -> Result<(), String> {
        self.pauses.store(seed_of(step), Ordering::SeqCst);
        match step {
            Step::Alone(operation) => self.take_alone(operation).await?,
            Step::Together(operations) => self.take_together(operations).await?,
        }
        // Where it costs nothing, every step is followed by a look at everything.
        if self.setting.ground.is_deterministic() {
            self.look_at_all(&self.subject.restarted()).await
        } else {
            Ok(())
        }
    }

    async fn take_alone(&mut self, operation: &Operation) -> Result<(), String> {
        let told = self.subject.perform(operation).await;
        let poll = self.subject.told_to_poll(&told);
        let answer = self.subject.named(told);
        self.count(&answer);
        let followed = follow(&mut self.model, operation, |expected| same(&answer, expected));
        self.subject.turn_clock_to(self.model.now());
        self.subject.names().forget_tokens(self.model.bygone());
        if let Some((token, seconds)) = poll {
            let due = self.model.poll_after_seconds(token);
            if !due.clone().is_some_and(|due| due.contains(&seconds)) {
                return Err(format!("{token} is told to poll after {seconds} seconds, not {due:?}"));
            }
        }
        followed
    }

    /// All at once; then some order must explain what was answered and what is there now.
    async fn take_together(&mut self, operations: &[Operation]) -> Result<(), String> {
        let told = join_all(operations.iter().map(|operation| self.subject.perform(operation))).await;
        let answers: Vec<Answer> = told.into_iter().map(|told| self.subject.named(told)).collect();
        answers.iter().for_each(|answer| self.count(answer));
        let explained: Vec<Model> = orders(operations.len())
            .into_iter()
            .filter_map(|order| explain(&self.model, operations, &answers, &order))
            .collect();
        if explained.is_empty() {
            let pairs: Vec<_> = operations.iter().zip(&answers).map(|pair| format!("{pair:?}")).collect();
            return Err(format!("no order explains these answers:\n{}", pairs.join("\n")));
        }
        let seen = self.seen(&self.subject.restarted()).await?;
        let fitting = explained.iter().find(|model| model.snapshot() == seen);
        self.model = fitting.cloned().ok_or_else(|| {
            let differences = seen.differences(&explained[0].snapshot()).join("\n");
            format!("no order that explains {answers:?} leads to what is there, one to this:\n{differences}")
        })?;
        Ok(())
    }

    /// By this node and by one that has just been started.
    async fn finish(&self) -> Result<(), String> {
        self.look_at_all(&self.subject.node).await?;
        self.look_at_all(&self.subject.restarted()).await
    }

    async fn look_at_all(&self, node: &Node) -> Result<(), String> {
        let (seen, expected) = (self.seen(node).await?, self.model.snapshot());
        if seen == expected { Ok(()) } else { Err(seen.differences(&expected).join("\n")) }
    }

    async fn seen(&self, node: &Node) -> Result<Snapshot, String> {
        self.subject.snapshot(node).await.map_err(|refusal| format!("cannot be looked at: {refusal:?}"))
    }

    fn count(&self, answer: &Answer) {
        *self.setting.tally.lock().unwrap().entry(answer.kind()).or_default() += 1;
    }
}

fn same(answer: &Answer, expected: &Answer) -> Result<(), String> {
    if answer == expected { Ok(()) } else { Err(format!("     is {answer:?}\n  model {expected:?}")) }
}

/// Does an operation in the model. Where a view that is a moment old may decide it, and `fits` says that it did, it is done so.
fn follow<E>(
    model: &mut Model,
    operation: &Operation,
    fits: impl Fn(&Answer) -> Result<(), E>,
) -> Result<(), E> {
    let mut older = model.clone();
    let unfit = match fits(&model.apply(operation)) {
        Ok(()) => return Ok(()),
        Err(unfit) => unfit,
    };
    match older.apply_by_older_view(operation) {
        Some(expected) if fits(&expected).is_ok() => {
            *model = older;
            Ok(())
        }
        _ => Err(unfit),
    }
}

/// Where these operations lead in this order, if it explains the answers.
fn explain(model: &Model, operations: &[Operation], answers: &[Answer], order: &[usize]) -> Option<Model> {
    let mut model = model.clone();
    for index in order {
        let (operation, answer) = (&operations[*index], &answers[*index]);
        // Two charges that meet: one wins, the other is refused and changes nothing.
        if *answer == Answer::Refused(Refusal::AccountConflict) {
            if !met_another(operations, answers, *index) {
                return None;
            }
        } else {
            let fits = |expected: &Answer| if agrees(operation, answer, expected) { Ok(()) } else { Err(()) };
            follow(&mut model, operation, fits).ok()?;
        }
    }
    Some(model)
}

/// Whether something else of this group has changed the account.
fn met_another(operations: &[Operation], answers: &[Answer], index: usize) -> bool {
    let user = |operation: &Operation| match operation {
        Operation::Charge { user, .. } | Operation::Pay { user, .. } => Some(*user),
        _ => None,
    };
    let others = operations.iter().zip(answers).enumerate().filter(|(other, _)| *other != index);
    let mut others = others.map(|(_, other)| other);
    others.any(|(operation, answer)| {
        user(operation) == user(&operations[index]) && matches!(answer, Answer::Charged(_) | Answer::Paid(_))
    })
}

/// Whether an answer given in the middle of others is the expected one. Some requests are a write and a look at what came of it, and
/// others may come between the two; a pass of the scheduler does what others have left to do.
fn agrees(operation: &Operation, answer: &Answer, expected: &Answer) -> bool {
    match (answer, expected) {
        (Answer::Entered { place, is_new }, Answer::Entered { place: other, is_new: is_other_new }) => {
            (place.token, is_new) == (other.token, is_other_new)
        }
        (Answer::Room(_), Answer::Room(_)) => true,
        (Answer::Admitted(_), Answer::Admitted(_)) => *operation == Operation::Tick || answer == expected,
        _ => answer == expected,
    }
}

/// Every order of so many.
fn orders(number: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..number {
        let longer = |order: &Vec<usize>| -> Vec<Vec<usize>> {
            let rest = (0..number).filter(|next| !order.contains(next));
            rest.map(|next| order.iter().copied().chain([next]).collect()).collect()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    orders
}

#[test]
fn every_order_is_tried_once() {
    assert_eq!(orders(2), [[0, 1], [1, 0]]);
    let mut four = orders(4);
    four.sort();
    four.dedup();
    assert_eq!(four.len(), 24);
}
