//! `frontrow demo`: a concert, a crowd of simulated buyers over real HTTP, the sales and the audit.

mod buyer;
mod crowd;
mod http;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use frontrow_api::{OverloadLimits, RateRules};
use frontrow_domain::UserId;
use frontrow_domain::account::WalletCharging;
use frontrow_domain::ports::{AccessClaims, AccessTokens, Clock, IdGenerator, Role};
use frontrow_infra::identity::{SystemClock, UuidV7};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;
use uuid::Uuid;

use crate::app::{Running, STORAGE_SILENCE, Settings, start as start_app};
use crate::audit;
use crate::backend;
use crate::cli::{DatabaseUrl, DemoArgs, Options};
use crate::demo::crowd::Tally;
use crate::demo::http::{Call, Http};
use crate::file::check_log;
use crate::http::ClientRules;
use crate::secret;
use crate::tokens::TokenSettings;

/// How long a hold lasts in the demo where nothing else is said, in seconds: short, so that an abandoned one is soon free.
const HOLD_SECONDS: u32 = 3;
/// Under no load is anybody refused.
const OVERLOAD_TARGET: Duration = Duration::from_secs(600);
/// How many seats a row has.
const ROW: u32 = 10;
/// In how many ticks the whole crowd is admitted, one a second.
const TICKS: u32 = 15;

/// A server with a demo concert, before or after its crowd.
pub struct Demo {
    args: DemoArgs,
    hold_seconds: u32,
    database: DatabaseUrl,
    operator: String,
    http: Arc<Http>,
    running: Running,
    _folder: Option<TempDir>,
}

/// How a demo went.
pub struct Report {
    /// The tables to print.
    pub text: String,
    /// Whether the audit is clean and every answer was an expected one.
    pub is_good: bool,
}

/// What the crowd is after.
#[derive(Clone, Copy)]
struct Sale {
    concert_id: Uuid,
    date_id: Uuid,
}

/// Starts the server of a demo, on a throw-away SQLite file unless a database is given on the command line.
///
/// # Errors
/// A database that holds concerts, unless the demo may add to them; and whatever else keeps the server from starting.
pub async fn start(args: DemoArgs, options: &Options) -> Result<Demo> {
    if options.has_identity_provider() {
        bail!("the demo's buyers are guests: it cannot run with --identity-public-key or --identity-jwks");
    }
    let folder = if options.database_url.is_none() { Some(tempfile::tempdir()?) } else { None };
    let database = match &folder {
        Some(folder) => DatabaseUrl::Sqlite(folder.path().join("demo.db")),
        None => options.database()?,
    };
    let checked = database.clone();
    tokio::task::spawn_blocking(move || check_log(&checked)).await??;
    if !args.into_existing && backend::holds_concerts(&database).await? {
        bail!(
            "{database:?} holds concerts: with --into-existing the demo adds its own, and a crowd of buyers"
        );
    }
    let secret = options.secret.clone().unwrap_or_else(secret::random);
    let tokens = TokenSettings {
        ring: secret::load(Some(&secret), &options.previous_secrets, &database)?,
        provider: None,
        expected: options.expected(),
    };
    let mut hold_rules = options.hold_rules();
    hold_rules.hold_seconds = options.hold_seconds.unwrap_or(HOLD_SECONDS);
    let claims = AccessClaims {
        user_id: UserId::new(UuidV7::default().next_id()),
        role: Role::Admin,
        expires_at: SystemClock::default().now().plus_seconds(24 * 60 * 60),
    };
    let operator = tokens.own().issue(&claims)?;
    let settings = Settings {
        bind: options.bind.clone(),
        database: database.clone(),
        tokens,
        hold_rules,
        // The buyers have no payment backend: they charge their own wallets.
        wallet_charging: WalletCharging::Owner,
        database_options: options.database_options(),
        keep_tokens_for: options.keep_tokens_for(),
        global_policy: options.global_policy()?,
        // The whole crowd shares one address, and is to be served however slow the machine is.
        clients: ClientRules {
            rates: RateRules::default(),
            overload: OverloadLimits::new(OVERLOAD_TARGET),
            ..options.client_rules()
        },
        migrate: true,
        storage_silence: STORAGE_SILENCE * 60,
    };
    let running = start_app(settings).await?;
    let http = Arc::new(Http::new(running.address)?);
    Ok(Demo {
        args,
        hold_seconds: hold_rules.hold_seconds,
        database,
        operator,
        http,
        running,
        _folder: folder,
    })
}

impl Demo {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Serves until `stop` is ready, then stops.
    ///
    /// # Errors
    /// When the HTTP server ends before that.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<()> {
        self.running.run_until(stop).await
    }

    /// Sends the crowd through and reports.
    ///
    /// # Errors
    /// When the concert cannot be made or the result not be read.
    pub async fn run(&self) -> Result<Report> {
        let sale = self.create_sale().await?;
        let started = Instant::now();
        let tally = crowd::run(self.http.clone(), self.args, self.hold_seconds, sale).await?;
        let took = started.elapsed();
        let sales = self.settled_sales(sale).await?;
        let findings = backend::audit(&self.database).await?;
        let sold_out = sales.sold == u64::from(self.args.seats);
        let text = format!(
            "{}\n\n{}\n\n{}\n\n{} of {} seats sold to {} of {} people in {:.1} s ({} requests)",
            crowd_table(&tally),
            sales.table(),
            audit::table(&findings),
            sales.sold,
            self.args.seats,
            tally.bought,
            self.args.buyers,
            took.as_secs_f64(),
            self.http.requests(),
        );
        // Fewer buyers than seats cannot buy them all; otherwise someone was let down.
        let enough = sold_out || tally.bought == u64::from(self.args.buyers) - tally.abandoned;
        Ok(Report { text, is_good: audit::is_clean(&findings) && tally.unexpected == 0 && enough })
    }

    async fn create_sale(&self) -> Result<Sale> {
        let batch = self.args.buyers.div_ceil(TICKS).max(1);
        let room = json!({"admitBatch": batch, "admitIntervalSeconds": 1, "activeTtlSeconds": 600});
        let concert = json!({"title": "Frontrow Demo Night", "venue": "Loopback Hall", "room": room});
        let concert_id = self.create("/admin/concerts", &concert, "concertId").await?;
        let starts_at = SystemClock::default().now().plus_seconds(30 * 24 * 60 * 60);
        let section = |name: &str, price: u32, rows: u32, seats_per_row: u32| json!({"section": name, "grade": name, "price": price, "rows": rows, "seatsPerRow": seats_per_row});
        let (rows, rest) = (self.args.seats / ROW, self.args.seats % ROW);
        let mut sections = Vec::new();
        if rows > 0 {
            sections.push(section("R", 150_000, rows, ROW));
        }
        if rest > 0 {
            sections.push(section("S", 110_000, 1, rest));
        }
        let date = json!({"startsAt": starts_at.to_string(), "sections": sections});
        let path = format!("/admin/concerts/{concert_id}/performanceDates");
        let date_id = self.create(&path, &date, "performanceDateId").await?;
        Ok(Sale { concert_id, date_id })
    }

    async fn create(&self, path: &str, body: &serde_json::Value, id: &str) -> Result<Uuid> {
        let answer = self.http.send(Call::post(path, body).bearer(&self.operator)).await?;
        ensure!(answer.status == 201, "{path} answered {}: {}", answer.status, answer.body);
        Ok(Uuid::parse_str(answer.text(id))?)
    }

    /// The sales once no hold is left: those that were abandoned last have lapsed then.
    async fn settled_sales(&self, sale: Sale) -> Result<Sales> {
        let path = format!("/admin/performanceDates/{}/sales", sale.date_id);
        for _ in 0..(self.hold_seconds + 5) * 4 {
            let answer = self.http.send(Call::get(&path).bearer(&self.operator)).await?;
            ensure!(answer.status == 200, "{path} answered {}: {}", answer.status, answer.body);
            let sales = Sales {
                available: answer.number("available"),
                reserved: answer.number("reserved"),
                sold: answer.number("unavailable"),
                amount: answer.number("amountSold"),
            };
            if sales.reserved == 0 {
                return Ok(sales);
            }
            sleep(Duration::from_millis(250)).await;
        }
        bail!("holds did not lapse in time")
    }
}

struct Sales {
    available: u64,
    reserved: u64,
    sold: u64,
    amount: u64,
}

impl Sales {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(["available", "reserved", "sold", "amount sold"]);
        table.add_row([self.available, self.reserved, self.sold, self.amount]);
        table
    }
}

fn crowd_table(tally: &Tally) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["the crowd", ""]);
    for (what, count) in [
        ("bought", tally.bought),
        ("found it sold out", tally.sold_out),
        ("abandoned a hold and left", tally.abandoned),
        ("double clicks with one effect", tally.double_clicks),
        ("paid too late and were refused", tally.late),
        ("changed their mind and chose again", tally.cancelled),
        ("lost a seat to somebody faster", tally.lost_seats),
        ("unexpected answers", tally.unexpected),
    ] {
        table.add_row([what.to_owned(), count.to_string()]);
    }
    table
}
