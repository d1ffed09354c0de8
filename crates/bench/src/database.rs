//! The databases that are measured: a durable PostgreSQL of this run alone, and SQLite files on the same disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use diesel::connection::SimpleConnection;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection, RunQueryDsl};
use frontrow_testkit::app::SECRET;
use frontrow_testkit::postgres::{Cluster, PrivateCluster, Template, TestDatabase};
use tokio::runtime::Runtime;

use crate::usage::Watch;

/// What both sides of every ratio get besides PostgreSQL's own defaults, which are durable (`fsync`,
/// `synchronous_commit` and `full_page_writes` are on): memory that holds the data, and no checkpoint within a round.
const SETTINGS: &str = "
    ALTER SYSTEM SET shared_buffers = '512MB';
    ALTER SYSTEM SET max_wal_size = '8GB';
    ALTER SYSTEM SET checkpoint_timeout = '1h';
    ALTER SYSTEM SET log_lock_waits = off;";

/// The PostgreSQL of this run. It goes when the value does, or the process.
pub(crate) struct Postgres {
    cluster: PrivateCluster,
    template: Template,
}

impl Postgres {
    /// Starts it. New databases have the schema that `program` makes.
    pub(crate) fn start(runtime: &Runtime, program: &Path) -> Result<Self> {
        let program = program.to_owned();
        let template = Template::new("bench", move |url| {
            let migrated = migrate(&program, &without_tls(&url));
            async { migrated }
        });
        let cluster = runtime.block_on(Cluster::start_private()).context("there is no PostgreSQL here")?;
        let empty = Template::new("empty", |_| async { Ok(()) });
        runtime.block_on(async {
            let database = cluster.database(&empty).await;
            let client = database.connect().await?;
            for setting in SETTINGS.split_inclusive(';') {
                client.batch_execute(setting).await?;
            }
            drop((client, database));
            cluster.stop_immediate().await;
            cluster.start().await;
            anyhow::Ok(())
        })?;
        Ok(Self { cluster, template })
    }

    /// A new database with the schema.
    pub(crate) fn database(&self, runtime: &Runtime) -> Database {
        Database::Postgres(runtime.block_on(self.cluster.database(&self.template)))
    }

    /// The process whose children do the work.
    pub(crate) fn postmaster(&self) -> Result<u32> {
        let directory = self.cluster.directory().context("the cluster is ours")?;
        let file = fs::read_to_string(directory.join("data/postmaster.pid"))?;
        file.lines().next().and_then(|line| line.parse().ok()).context("postmaster.pid is not understood")
    }
}

/// A database with the schema of frontrow.
pub(crate) enum Database {
    /// On the PostgreSQL of this run.
    Postgres(TestDatabase),
    /// A file.
    Sqlite(PathBuf),
}

impl Database {
    /// A new file in a directory on the disk that is measured.
    pub(crate) fn sqlite(program: &Path, path: PathBuf) -> Result<Self> {
        let database = Self::Sqlite(path);
        migrate(program, &database.url())?;
        Ok(database)
    }

    /// For `--database-url`.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(database) => without_tls(database.url()),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
        }
    }

    /// How it is called in the report.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::Sqlite(_) => "SQLite",
        }
    }

    /// Runs statements that fill it, all or none. No server may run on it if it is a file. Foreign keys are not checked,
    /// which makes it fast; the audit at the end looks at what came of it.
    pub(crate) fn fill(&self, runtime: &Runtime, statements: &[String]) -> Result<()> {
        let statements = statements.join(";\n");
        match self {
            Self::Postgres(database) => runtime.block_on(async {
                let client = database.connect().await?;
                let unchecked = "BEGIN; SET LOCAL session_replication_role = replica";
                client.batch_execute(&format!("{unchecked};\n{statements};\nCOMMIT")).await?;
                Ok(client.batch_execute("ANALYZE").await?)
            }),
            Self::Sqlite(path) => {
                let mut connection = SqliteConnection::establish(&path.display().to_string())?;
                let unchecked = "PRAGMA foreign_keys = OFF; PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE";
                Ok(connection.batch_execute(&format!("{unchecked};\n{statements};\nCOMMIT"))?)
            }
        }
    }

    /// The one number that a query answers.
    pub(crate) fn count(&self, runtime: &Runtime, query: &str) -> Result<i64> {
        match self {
            Self::Postgres(database) => Ok(runtime.block_on(database.query_i64(query))?),
            Self::Sqlite(path) => {
                let mut connection = SqliteConnection::establish(&path.display().to_string())?;
                let query =
                    format!("WITH counted (number) AS ({query}) SELECT number AS \"count\" FROM counted");
                Ok(diesel::sql_query(query).get_result::<Count>(&mut connection)?.count)
            }
        }
    }

    /// Fails, with the findings, unless every invariant holds.
    pub(crate) fn audit(&self, program: &Path) -> Result<()> {
        let output = command(program, &self.url()).arg("audit").output()?;
        let (table, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "the audit of {} failed:\n{table}{error}", self.name());
        Ok(())
    }

    /// Whom to watch beside the server.
    pub(crate) fn watch(&self, postgres: Option<&Postgres>) -> Result<Watch> {
        let postmaster = match self {
            Self::Postgres(_) => postgres.map(Postgres::postmaster).transpose()?,
            Self::Sqlite(_) => None,
        };
        Ok(Watch { server: None, postmaster })
    }
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

/// The program with a database and the bench's secret. It is the release binary that is measured, never this process.
pub(crate) fn command(program: &Path, database_url: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("FRONTROW_DATABASE_URL", database_url)
        .env("FRONTROW_SECRET", SECRET)
        // The load generator opens its connections in advance and all from one address, as a proxy does.
        .env("FRONTROW_TRUSTED_PROXIES", "127.0.0.1")
        .env("FRONTROW_LOG", "warn");
    command
}

fn migrate(program: &Path, database_url: &str) -> Result<()> {
    let output = command(program, database_url).arg("migrate").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "migrate failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Like pgbench and psql, the server speaks to PostgreSQL without TLS.
fn without_tls(url: &str) -> String {
    format!("{url}?sslmode=disable")
}
