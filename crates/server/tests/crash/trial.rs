//! A trial: a node and its crowd, what happens to them, and the account of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use frontrow::cli::DatabaseUrl;
use frontrow_infra::identity::SystemClock;
use frontrow_testkit::app::{Database, Sale, admin_token, id, sent};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::check::{Differences, check};
use crate::crowd::{Api, Crowd, OnSale, Shared, newcomer};
use crate::node::Node;
use crate::told::{Life, Notes};

/// How often each thing is killed where nothing else is said: the short version.
const KILLS: u32 = 4;
/// How long the service may take to come back, on a machine that does much else.
pub(crate) const COMES_BACK_WITHIN: Duration = Duration::from_secs(120);
/// How many seats there are for each kill.
const SEATS_A_KILL: u32 = 500;

/// How often each thing is killed: `FRONTROW_CRASH_KILLS`.
pub(crate) fn kills() -> u32 {
    number("FRONTROW_CRASH_KILLS").unwrap_or(KILLS)
}

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// Said aloud, whether or not the test harness keeps what is printed to itself.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A node under load.
pub(crate) struct Trial {
    name: &'static str,
    seed: u64,
    pub(crate) chance: StdRng,
    pub(crate) database: Database,
    pub(crate) node: Node,
    pub(crate) api: Api,
    pub(crate) sale: Sale,
    pub(crate) seats: Vec<Uuid>,
    /// Those who came besides the crowd, and only look.
    pub(crate) lookers: Vec<Life>,
    crowd: Option<Crowd>,
    events: u32,
    slowest_return: Duration,
}

/// How a trial has ended.
pub(crate) struct Account {
    pub(crate) lives: Vec<Life>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) differences: Differences,
    /// What `frontrow audit` found; `None` if nothing.
    pub(crate) audit: Option<String>,
}

impl Account {
    /// Every promise that was broken, in words.
    pub(crate) fn broken(&self) -> Vec<String> {
        let unsettled = self.lives.iter().filter(|life| life.unsettled);
        let mut broken = self.shared.notes.breaches();
        broken.extend(unsettled.map(|life| format!("{} never heard an outcome", life.user_id)));
        broken.extend(self.differences.lost.iter().map(|line| format!("lost: {line}")));
        broken.extend(self.differences.surplus.iter().map(|line| format!("surplus: {line}")));
        broken.extend(self.audit.clone());
        broken
    }
}

impl Trial {
    /// Starts a node on a database, which it reaches by `url`, and makes a sale. Nobody comes yet.
    pub(crate) async fn open(name: &'static str, database: Database, url: &DatabaseUrl) -> Self {
        let seed = number("FRONTROW_CRASH_SEED").unwrap_or_else(rand::random);
        say(&format!("{name}: FRONTROW_CRASH_SEED={seed}"));
        let mut node = Node::new(url);
        node.start().await;
        let api = Api::new(node.base());
        let (sale, seats, looker) = on_sale(&api, SEATS_A_KILL * (kills() + 1)).await;
        let chance = StdRng::seed_from_u64(seed);
        let (crowd, events, slowest_return) = (None, 0, Duration::ZERO);
        let lookers = vec![looker];
        Self { name, seed, chance, database, node, api, sale, seats, lookers, crowd, events, slowest_return }
    }

    /// Lets the crowd in, and waits until it is at work. The service may be `away` for so long.
    pub(crate) async fn crowd(&mut self, away: Duration) {
        let on_sale = OnSale { sale: self.sale, seats: self.seats.clone() };
        let crowd = Crowd::start(self.api.clone(), on_sale, self.seed, away + COMES_BACK_WITHIN);
        crowd.goes_on().await;
        self.crowd = Some(crowd);
    }

    /// A random moment later, within so many milliseconds.
    pub(crate) async fn a_moment(&mut self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(self.chance.random_range(0..milliseconds))).await;
    }

    /// What was done to the service is over: it goes on by itself.
    pub(crate) async fn goes_on(&mut self) {
        self.events += 1;
        let took = self.crowd.as_ref().expect("a crowd").goes_on().await;
        self.slowest_return = self.slowest_return.max(took);
    }

    /// What was heard.
    pub(crate) fn notes(&self) -> &Notes {
        &self.crowd.as_ref().expect("a crowd").shared.notes
    }

    /// How often a kind of outcome was heard up to now.
    pub(crate) fn heard(&self, kind: &str) -> u64 {
        self.notes().count(kind)
    }

    /// `frontrow audit` finds nothing.
    pub(crate) fn assert_audit(&self) {
        if let Some(found) = audit(&self.node) {
            panic!("{}: seed {}: {found}", self.name, self.seed);
        }
    }

    /// Lets everybody finish, and compares what they were told with what is there.
    pub(crate) async fn account(&mut self) -> Account {
        let (shared, mut lives) = self.crowd.take().expect("a crowd").stop().await;
        lives.extend(self.lookers.clone());
        let differences = check(&self.api, &self.database, &self.sale, &lives).await;
        let audit = audit(&self.node);
        let line = self.line(&shared, &lives, &differences, audit.is_none());
        say(&line);
        for breach in self.node.panics() {
            shared.notes.breach(breach);
        }
        Account { lives, shared, differences, audit }
    }

    fn line(&self, shared: &Shared, lives: &[Life], differences: &Differences, is_clean: bool) -> String {
        let count = |of: &dyn Fn(&Life) -> usize| lives.iter().map(of).sum::<usize>();
        let mut line = format!("{}: seed {}, {} times; ", self.name, self.seed, self.events);
        let _ = write!(
            line,
            "requests: {}; effects: {} joins, {} charges, {} holds, {} cancelled, {} paid; ",
            shared.notes.line(),
            count(&|life| life.wait_token.iter().count()),
            count(&|life| life.charges.len()),
            count(&|life| life.holds.len()),
            count(&|life| life.of("CANCELLED").count()),
            count(&|life| life.of("DONE").count()),
        );
        let _ = write!(
            line,
            "lost {}, surplus {}, audit {}; slowest return {:.1} s",
            differences.lost.len(),
            differences.surplus.len(),
            if is_clean { "clean" } else { "BROKEN" },
            self.slowest_return.as_secs_f64(),
        );
        line
    }

    /// The end of a trial in which every promise must have held.
    pub(crate) async fn close(mut self) -> Account {
        let account = self.account().await;
        let broken = account.broken();
        assert!(broken.is_empty(), "{broken:#?}\nseed {}\n{}", self.seed, self.node.last_words());
        let done = |status| account.lives.iter().filter(|life| life.of(status).next().is_some()).count();
        assert!(done("DONE") > 0 && done("CANCELLED") > 0, "nobody bought or cancelled: it proves nothing");
        account
    }
}

/// What `frontrow audit` finds; `None` if nothing.
pub(crate) fn audit(node: &Node) -> Option<String> {
    let output = node.run("audit");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (!output.status.success()).then(|| said(&output.stdout) + &said(&output.stderr))
}

/// Makes a concert whose room lets everybody in for a day, and a date with so many seats.
async fn on_sale(api: &Api, seats: u32) -> (Sale, Vec<Uuid>, Life) {
    let post = |path: String, body| {
        let request = api.client.post(format!("{}{path}", api.base)).json(&body);
        sent(request.bearer_auth(admin_token()), 201)
    };
    let room = json!({"mode": "OPEN", "activeTtlSeconds": 86_400});
    let concert = json!({"title": "A Concert", "venue": "A Hall", "room": room});
    let made = post("/admin/concerts".to_owned(), concert).await;
    let concert_id = id(&made, "concertId");
    let section =
        json!({"section": "A", "grade": "R", "price": 50, "rows": seats.div_ceil(100), "seatsPerRow": 100});
    let starts_at = SystemClock::uncorrected().plus_seconds(864_000).to_string();
    let date = json!({"startsAt": starts_at, "sections": [section]});
    let date = post(format!("/admin/concerts/{concert_id}/performanceDates"), date).await;
    let sale = Sale { concert_id, room_id: id(&made, "roomId"), date_id: id(&date, "performanceDateId") };

    let mut looker = newcomer(rand::random());
    let join = api.request(Method::POST, "/queue", &looker).json(&json!({"concertId": concert_id}));
    let joined = join.send().await.expect("an answer");
    looker.wait_token = Some(joined.headers()["Wait-Token"].to_str().unwrap().to_owned());
    let shown = sent(api.request(Method::GET, &sale.seats_path(), &looker), 200).await;
    let seats = shown["seats"].as_array().unwrap().iter().map(|seat| id(seat, "seatId")).collect();
    (sale, seats, looker)
}
