//! Databases of single tests, copied from a template that is prepared once.

use std::{
    fmt,
    future::Future,
    ops::RangeInclusive,
    pin::Pin,
    thread,
    time::{Duration, Instant},
};

use tokio_postgres::{Client, Error, NoTls, error::SqlState};

use super::keeper::random_hex;

/// Templates and copies are made one at a time, by whichever process: the key of the server's advisory lock.
const CREATION_LOCK: i64 = 0x6672_6f6e_7472_6f77;
/// PostgreSQL silently cuts names off after 63 bytes; two templates must not become one that way.
const TEMPLATE_NAME_CHARACTERS: RangeInclusive<usize> = 1..=24;
const PATIENCE: Duration = Duration::from_secs(15);

type Prepared = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A database that is prepared once per server and test run, and then copied for each test.
pub struct Template {
    name: String,
    prepare: Box<dyn Fn(String) -> Prepared + Send + Sync>,
}

impl Template {
    /// `name` stands for the contents: one name, one way to prepare. `prepare` gets the URL of an empty database
    /// and runs the migrations there, for example.
    ///
    /// # Panics
    /// If the name is not 1 to 24 characters of `a-z`, `0-9` and `_`.
    pub fn new<P, F>(name: &str, prepare: P) -> Self
    where
        P: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(
            TEMPLATE_NAME_CHARACTERS.contains(&name.len()) && name.chars().all(plain),
            "{name:?} is no name for a template"
        );
        Self { name: name.to_owned(), prepare: Box::new(move |url| Box::pin(prepare(url))) }
    }

    /// The name of the template database, which is made if it is missing. The caller holds the creation lock.
    async fn ensure(&self, admin: &Client, admin_url: &str, run_key: &str) -> anyhow::Result<String> {
        let database = format!("frontrow_template_{}_{run_key}", self.name);
        let ready = "SELECT FROM pg_database WHERE datname = $1 AND datistemplate";
        if admin.query_opt(ready, &[&database]).await?.is_none() {
            self.drop_others(admin).await?;
            admin.batch_execute(&format!("CREATE DATABASE {database} TEMPLATE template0")).await?;
            (self.prepare)(with_database(admin_url, &database)).await?;
            seal(admin, &database).await?;
        }
        Ok(database)
    }

    /// Drops what an interrupted preparation has left, and this template of other runs: on a server that outlives
    /// the runs they would pile up. A run that still wants its own makes it again.
    async fn drop_others(&self, admin: &Client) -> Result<(), Error> {
        let pattern = format!("^frontrow_template_{}_[0-9a-f]{{16}}$", self.name);
        for row in
            admin.query("SELECT datname::text FROM pg_database WHERE datname ~ $1", &[&pattern]).await?
        {
            let database: String = row.get(0);
            admin.batch_execute(&format!("ALTER DATABASE {database} IS_TEMPLATE false")).await?;
            admin.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Marks a prepared database as a template. Nobody can connect to it from then on: a database in use cannot be
/// copied.
async fn seal(admin: &Client, database: &str) -> Result<(), Error> {
    admin.batch_execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false")).await?;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    admin.query(end, &[&database]).await?;
    admin.batch_execute(&format!("ALTER DATABASE {database} IS_TEMPLATE true")).await
}

/// A database of one test. Dropping the value drops the database, whoever is connected.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    name: String,
    admin_url: String,
}

impl TestDatabase {
    pub(super) async fn create(admin_url: &str, run_key: &str, template: &Template) -> Self {
        let admin = connect(admin_url).await.expect("the test server accepts connections");
        // Held until the connection ends, in a panic too.
        let lock = format!("SELECT pg_advisory_lock({CREATION_LOCK})");
        admin.batch_execute(&lock).await.expect("the creation lock is free in the end");
        let source = template.ensure(&admin, admin_url, run_key).await;
        let source = source.unwrap_or_else(|error| panic!("cannot prepare {template:?}: {error:?}"));
        let name = format!("frontrow_test_{}", random_hex());
        copy(&admin, &source, &name).await.expect("the template can be copied");
        Self { url: with_database(admin_url, &name), name, admin_url: admin_url.to_owned() }
    }

    /// `postgres://user:password@host:port/database`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the database on its server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection of its own, without TLS.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn connect(&self) -> Result<Client, Error> {
        connect(&self.url).await
    }

    /// Runs one or more statements on a connection of their own.
    ///
    /// # Errors
    /// What the server or the network says.
    pub async fn execute(&self, sql: &str) -> Result<(), Error> {
        self.connect().await?.batch_execute(sql).await
    }

    /// The one `bigint` that a query answers.
    ///
    /// # Errors
    /// What the server or the network says, and any answer but one row whose first column is a `bigint`.
    pub async fn query_i64(&self, sql: &str) -> Result<i64, Error> {
        self.connect().await?.query_one(sql, &[]).await?.try_get(0)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let admin_url = std::mem::take(&mut self.admin_url);
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A thread, because a runtime cannot be entered from within the test's own. A failure is passed over:
        // the test may have stopped the server, and a drop must not panic.
        let dropper = thread::Builder::new().spawn(move || drop_database(&admin_url, &sql));
        if let Ok(dropper) = dropper {
            let _ = dropper.join();
        }
    }
}

fn drop_database(admin_url: &str, sql: &str) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let dropping = async { connect(admin_url).await?.batch_execute(sql).await };
    // The timer is made within the runtime: it needs one.
    let _ = runtime.block_on(async { tokio::time::timeout(PATIENCE, dropping).await });
}

/// Copies a template; waits where a connection to it is still being ended.
async fn copy(admin: &Client, source: &str, name: &str) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    let sql = format!("CREATE DATABASE {name} TEMPLATE {source}");
    loop {
        match admin.batch_execute(&sql).await {
            Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn connect(url: &str) -> Result<Client, Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // Ends with the client; what goes wrong on it is told to the client too.
    tokio::spawn(connection);
    Ok(client)
}

/// The same URL with another database; its parameters stay.
pub(super) fn with_database(url: &str, database: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a database URL has a scheme");
    let (server, parameters) = rest.split_once('?').map_or((rest, ""), |(server, after)| (server, after));
    let server = server.split('/').next().unwrap_or(server);
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{server}/{database}{mark}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced_and_the_rest_stays() {
        for (url, expected) in [
            ("postgres://u:p@h:1/postgres", "postgres://u:p@h:1/x"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/x"),
            ("postgres://h/db?connect_timeout=2&options=a/b", "postgres://h/x?connect_timeout=2&options=a/b"),
            ("postgresql://h?connect_timeout=2", "postgresql://h/x?connect_timeout=2"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
