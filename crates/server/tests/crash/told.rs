//! What the clients were told: every request's outcome, and every effect that was acknowledged.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use frontrow_domain::ports::IdGenerator;
use frontrow_infra::identity::UuidV7;
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::time::sleep;
use uuid::Uuid;

/// How long one answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// How long to wait before a request is sent again.
const PAUSE: Duration = Duration::from_millis(40);

/// What one sending came to.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Done, or refused for good.
    Answer(Answer),
    /// 503 in order: nothing was changed.
    Unavailable,
    /// 503 with `outcome: "unknown"`, or the connection was lost on the way.
    Unknown,
    /// There was nobody to connect to.
    NotSent,
}

/// An answer that decides.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    pub(crate) wait_token: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    /// Status and problem code, as in `409 SEAT_NOT_AVAILABLE`.
    pub(crate) fn kind(&self) -> String {
        let code = self.body["code"].as_str().unwrap_or("");
        format!("{} {code}", self.status).trim_end().to_owned()
    }

    pub(crate) fn id(&self, field: &str) -> Uuid {
        frontrow_testkit::app::id(&self.body, field)
    }

    /// When its effect was decided upon, by the id that it was given then.
    fn decided_at(&self) -> Option<Duration> {
        let mut ids =
            ["paymentId", "entryId", "reservationId"].iter().filter_map(|id| self.body[id].as_str());
        made_at(Uuid::parse_str(ids.next()?).ok()?)
    }
}

/// What became of a request that is sent until its outcome is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tries {
    /// An earlier one may have had its effect.
    pub(crate) doubtful: bool,
}

impl Tries {
    /// Notes one outcome of a try that was sent then, since 1970. An effect that shows up although every earlier try was
    /// refused for now: somebody was told that nothing was changed, and that was not true. An effect of this very try may
    /// come as a repeat, too: it is looked up when the answer to its COMMIT was lost.
    pub(crate) fn note(&mut self, sent: Duration, told: &Told) -> Result<(), &'static str> {
        match told {
            Told::Unknown => self.doubtful = true,
            Told::Answer(answer)
                if answer.replayed && !self.doubtful && answer.decided_at().is_none_or(|at| at < sent) =>
            {
                return Err("had its effect, and was told that it had none");
            }
            Told::Answer(_) | Told::Unavailable | Told::NotSent => {}
        }
        Ok(())
    }
}

/// Counts of everything that was heard, and what should never be.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) acknowledged: AtomicU64,
    kinds: Mutex<BTreeMap<&'static str, u64>>,
    breaches: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

impl Notes {
    pub(crate) fn breach(&self, what: impl Into<String>) {
        self.breaches.lock().unwrap().push(what.into());
    }

    pub(crate) fn breaches(&self) -> Vec<String> {
        self.breaches.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.kinds.lock().unwrap().get(kind).copied().unwrap_or(0)
    }

    /// All counts, in a line.
    pub(crate) fn line(&self) -> String {
        let kinds = self.kinds.lock().unwrap();
        let kinds = kinds.iter().map(|(kind, count)| format!("{count} {kind}"));
        let slowest = self.slowest.lock().unwrap();
        format!("{}, slowest answer {:.1} s", kinds.collect::<Vec<_>>().join(", "), slowest.as_secs_f64())
    }

    fn note(&self, kind: &'static str) {
        *self.kinds.lock().unwrap().entry(kind).or_default() += 1;
    }

    /// Sends a request once.
    pub(crate) async fn send(&self, what: &str, request: RequestBuilder) -> Told {
        self.send_within(ANSWERS_WITHIN, what, request).await
    }

    /// Sends a request once, which is to be answered within so long.
    pub(crate) async fn send_within(&self, limit: Duration, what: &str, request: RequestBuilder) -> Told {
        let sent = Instant::now();
        let response = match request.timeout(limit).send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                self.note("not sent");
                return Told::NotSent;
            }
            Err(error) => {
                if error.is_timeout() {
                    self.breach(format!("{what}: no answer within {limit:?}"));
                }
                self.note("unknown (connection lost)");
                return Told::Unknown;
            }
        };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("Retry-After").and_then(|seconds| seconds.parse::<u64>().ok());
        let replayed = header("Idempotency-Replayed") == Some("true");
        let wait_token = header("Wait-Token").map(ToOwned::to_owned);
        let status = response.status().as_u16();
        let Ok(bytes) = response.bytes().await else {
            self.note("unknown (connection lost)");
            return Told::Unknown;
        };
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = slowest.max(sent.elapsed());
        drop(slowest);
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let answer = Answer { status, replayed, wait_token, body };
        if status < 500 {
            let is_success = status < 300;
            self.note(if is_success { "acknowledged" } else { "refused" });
            self.acknowledged.fetch_add(u64::from(is_success), Ordering::Relaxed);
            return Told::Answer(answer);
        }
        let in_order = answer.kind() == "503 UNAVAILABLE" && retry_after.is_some_and(|seconds| seconds >= 1);
        if !in_order {
            self.breach(format!("{what} answered {} {}", answer.kind(), answer.body));
        }
        if in_order && answer.body["outcome"] != "unknown" {
            self.note("unavailable (503)");
            return Told::Unavailable;
        }
        self.note("unknown (503)");
        Told::Unknown
    }

    /// Sends a request until its outcome is known; `None` when that takes longer than the patience, which is a breach.
    pub(crate) async fn settle(
        &self,
        what: &str,
        patience: Duration,
        request: impl Fn() -> RequestBuilder,
    ) -> Option<Answer> {
        let begun = Instant::now();
        let mut tries = Tries::default();
        while begun.elapsed() < patience {
            let sent = made_at(UuidV7::default().next_id()).expect("the time in it");
            let told = self.send(what, request()).await;
            if let Err(breach) = tries.note(sent, &told) {
                self.breach(format!("{what} {breach}"));
            }
            if let Told::Answer(answer) = told {
                return Some(answer);
            }
            sleep(PAUSE).await;
        }
        self.breach(format!("{what}: nothing for {patience:?}; the service does not come back"));
        None
    }
}

/// When an id was made, since 1970.
fn made_at(id: Uuid) -> Option<Duration> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(Duration::new(seconds, nanos))
}

/// Everything that was acknowledged to one person.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) user_id: Uuid,
    pub(crate) access_token: String,
    pub(crate) wait_token: Option<String>,
    /// Entries and amounts.
    pub(crate) charges: Vec<(Uuid, i64)>,
    pub(crate) holds: Vec<Hold>,
    /// A request of this person was left without a known outcome.
    pub(crate) unsettled: bool,
}

/// A reservation.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    pub(crate) id: Uuid,
    pub(crate) seats: Vec<Uuid>,
    pub(crate) amount: i64,
    pub(crate) status: &'static str,
    pub(crate) tickets: usize,
}

impl Life {
    pub(crate) fn charged(&self) -> i64 {
        self.charges.iter().map(|(_, amount)| amount).sum()
    }

    pub(crate) fn of(&self, status: &'static str) -> impl Iterator<Item = &Hold> {
        self.holds.iter().filter(move |hold| hold.status == status)
    }

    pub(crate) fn paid(&self) -> i64 {
        self.of("DONE").map(|hold| hold.amount).sum()
    }
}
