//! What all bars share: the databases, the server, the requests.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::Options;
use crate::database::{Database, Postgres, command};
use crate::http::request;
use crate::load::{Load, Outcome, Pace, Requests};
use crate::node::{Node, log_in};
use crate::seed::{Crowd, Kind, Mint, Venue, id};

/// Connections under full load.
pub(crate) const MANY: usize = 256;

/// A database, with the numbers that are free in it.
pub(crate) struct Store {
    pub(crate) database: Database,
    next_venue: u64,
    next_person: u64,
}

/// What all bars share.
pub(crate) struct Bench {
    pub(crate) options: Options,
    pub(crate) runtime: Runtime,
    pub(crate) mint: Mint,
    program: PathBuf,
    directory: TempDir,
    postgres: OnceCell<Postgres>,
}

impl Bench {
    /// Nothing is started yet: that is done by what needs it.
    pub(crate) fn new(options: Options) -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("frontrow");
        let program = options.frontrow.clone().unwrap_or(beside);
        std::fs::create_dir_all(&options.directory)?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.directory)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { options, runtime, mint: Mint::new()?, program, directory, postgres: OnceCell::new() })
    }

    /// Where files go that live as long as the run. It is on the disk that is measured.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The release binary.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The PostgreSQL of this run.
    pub(crate) fn postgres(&self) -> Result<&Postgres> {
        if self.postgres.get().is_none() {
            // Nobody else sets it: this value stays on one thread.
            let _ = self.postgres.set(Postgres::start(&self.runtime, &self.program)?);
        }
        self.postgres.get().context("it was just started")
    }

    /// A new database on PostgreSQL.
    pub(crate) fn on_postgres(&self) -> Result<Store> {
        Ok(Store::new(self.postgres()?.database(&self.runtime)))
    }

    /// A new SQLite file.
    pub(crate) fn on_sqlite(&self, name: &str) -> Result<Store> {
        Ok(Store::new(Database::sqlite(&self.program, self.directory().join(name))?))
    }

    /// Adds a venue to a database.
    pub(crate) fn fill(&self, store: &mut Store, people: u64, seats: u64, crowd: Crowd) -> Result<Venue> {
        let venue = Venue::new(&store.database, store.next_venue, store.next_person, people, seats);
        store.database.fill(&self.runtime, &venue.statements(crowd))?;
        store.next_venue += 1;
        store.next_person += people.max(seats);
        Ok(venue)
    }

    /// Numbers for people of whom the database knows nothing yet.
    pub(crate) fn newcomers(store: &mut Store, count: u64) -> std::ops::Range<u64> {
        let first = store.next_person;
        store.next_person += count;
        first..first + count
    }

    /// Starts a server on a database that refuses nobody, however slow it is: bars measure what it can do.
    pub(crate) fn serve(&self, store: &Store, arguments: &[&str]) -> Result<Node> {
        let patient = [arguments, &["--overload-target-ms", "600000"]].concat();
        self.serve_until(store, &patient, "/readyz")
    }

    /// Starts a server, which is there once `path` answers 200.
    pub(crate) fn serve_until(&self, store: &Store, arguments: &[&str], path: &str) -> Result<Node> {
        let mut command = command(&self.program, &store.database.url());
        command.arg("serve").args(arguments);
        let bind = |command: &mut std::process::Command, address: std::net::SocketAddr| {
            command.arg("--bind").arg(address.to_string());
        };
        Node::start(command, bind, path, &log_in(self.directory()))
    }

    /// A closed loop against a server.
    pub(crate) fn load<'a>(
        &self,
        node: &Node,
        store: &Store,
        connections: usize,
        expected: &'a [u16],
    ) -> Result<Load<'a>> {
        let watch = store.database.watch(self.postgres.get())?;
        Ok(Load {
            address: node.address,
            connections,
            pace: Pace::Closed,
            expected,
            warm_up: self.options.warm_up(),
            duration: self.options.duration(),
            watch: crate::usage::Watch { server: Some(node.pid()), ..watch },
        })
    }

    /// How long a run is, warm-up included, in seconds.
    pub(crate) fn run_seconds(&self) -> f64 {
        (self.options.warm_up() + self.options.duration()).as_secs_f64()
    }

    /// So many as would be needed at `rate` a second, and some more.
    pub(crate) fn enough_for(&self, rate: f64) -> u64 {
        u64::try_from(Duration::from_secs_f64(self.run_seconds() * rate / 1_000.0).as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// The empty handler.
    pub(crate) fn empty_handler(load: &Load<'_>) -> Result<Outcome> {
        let load = Load { expected: &[200], ..*load };
        load.run(&mut Requests::repeated([request("GET", "/healthz", &[], None)]))
    }

    /// One payment by each buyer.
    pub(crate) fn payments(&self, venue: &Venue) -> Result<Requests> {
        Ok(Requests::once(self.payments_of(venue.buyers())?))
    }

    /// One payment by each of these buyers.
    pub(crate) fn payments_of(&self, buyers: std::ops::Range<u64>) -> Result<Vec<Vec<u8>>> {
        let payment = |buyer| {
            let (user, reservation) = (id(Kind::User, buyer), id(Kind::Reservation, buyer));
            let body = format!("{{\"userId\":\"{user}\",\"reservationId\":\"{reservation}\"}}");
            let bearer = self.mint.bearer(buyer)?;
            Ok(request("POST", "/pay", &[("Authorization", &bearer)], Some(&body)))
        };
        buyers.map(payment).collect()
    }

    /// One seat held by each of these buyers.
    pub(crate) fn holds(&self, venue: &Venue, buyers: std::ops::Range<u64>) -> Result<Requests> {
        Ok(Requests::once(self.holds_of(venue, buyers)?))
    }

    /// The same, one by one.
    pub(crate) fn holds_of(&self, venue: &Venue, buyers: std::ops::Range<u64>) -> Result<Vec<Vec<u8>>> {
        let date = id(Kind::Date, venue.number);
        let hold = |buyer| {
            let seat = id(Kind::Seat, buyer);
            let body = format!("{{\"performanceDateId\":\"{date}\",\"seatIds\":[\"{seat}\"]}}");
            let (bearer, wait_token) = (self.mint.bearer(buyer)?, self.mint.wait_token(venue, buyer));
            let headers = [("Authorization", bearer.as_str()), ("Wait-Token", wait_token.as_str())];
            Ok(request("POST", "/reservations", &headers, Some(&body)))
        };
        buyers.map(hold).collect()
    }

    /// Polls by at most `most` people, evenly from head to tail, in an order that jumps about.
    pub(crate) fn polls(&self, venue: &Venue, most: u64) -> Result<Requests> {
        let count = most.min(venue.people);
        let polls = (0..count).map(|index| {
            // A stride that shares no factor with any count used here visits everyone.
            let shuffled = (index * 7_919) % count;
            let buyer = venue.first + shuffled * venue.people / count;
            let (bearer, wait_token) = (self.mint.bearer(buyer)?, self.mint.wait_token(venue, buyer));
            let headers = [("Authorization", bearer.as_str()), ("Wait-Token", wait_token.as_str())];
            Ok(request("GET", "/queue", &headers, None))
        });
        Ok(Requests::repeated(polls.collect::<Result<Vec<_>>>()?))
    }

    /// Pays for everything the crowd of a new venue holds, or as much as the time allows.
    pub(crate) fn pay(
        &self,
        store: &mut Store,
        arguments: &[&str],
        pace: Pace,
        most: u64,
    ) -> Result<Outcome> {
        let venue = self.fill(store, most, most, Crowd::Holding)?;
        let mut payments = self.payments(&venue)?;
        let node = self.serve(store, arguments)?;
        let load = Load { pace, ..self.load(&node, store, MANY, &[200])? };
        load.run(&mut payments)
    }

    /// Holds seats of a new date with 50,000 of them.
    pub(crate) fn hold(&self, store: &mut Store, pace: Pace) -> Result<Outcome> {
        let venue = self.fill(store, SEATS, SEATS, Crowd::Active)?;
        let mut holds = self.holds(&venue, venue.buyers())?;
        let node = self.serve(store, &[])?;
        let load = Load { pace, ..self.load(&node, store, MANY, &[201])? };
        load.run(&mut holds)
    }
}

/// Seats of the date that is measured.
pub(crate) const SEATS: u64 = 50_000;

impl Store {
    fn new(database: Database) -> Self {
        Self { database, next_venue: 1, next_person: 1 }
    }

    /// Where it is, for clients of its own kind.
    pub(crate) fn url(&self) -> String {
        self.database.url()
    }
}
