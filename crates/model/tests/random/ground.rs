//! Where cases are run: one adapter, with empty storage for every case.

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use frontrow_infra::audit::Finding;
use frontrow_infra::postgres::{self, Postgres, PostgresOptions, migrate};
use frontrow_infra::sqlite::{Sqlite, SqliteOptions};
use frontrow_infra::{Memory, MemoryState as State, Storage};
use frontrow_testkit::postgres::{Template, TestDatabase, database};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Which adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adapter {
    Memory,
    Sqlite,
    Postgres,
}

/// An adapter and what it needs.
pub(crate) struct Ground {
    runtime: Runtime,
    source: Source,
}

enum Source {
    Memory,
    /// A folder with a migrated file, which is copied for each case.
    Sqlite(TempDir),
    /// One database, emptied before each case.
    Postgres(Postgres, TestDatabase),
}

/// Storage of one case.
pub(crate) struct Plot {
    pub(crate) storage: Storage,
    audited: Audited,
    _keep: Box<dyn Any>,
}

enum Audited {
    Memory(Arc<Memory>),
    Sqlite(Arc<Sqlite>, PathBuf),
    Postgres(String),
}

static MIGRATED: LazyLock<Template> =
    LazyLock::new(|| Template::new("model", |url| async move { Ok(migrate(&url).await?) }));

/// Whatever was migrated, but for the list of migrations and the incarnation; past the triggers that keep the audit log.
const EMPTY: &str = "DO $$ BEGIN PERFORM set_config('session_replication_role', 'replica', true);
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') FROM pg_tables
    WHERE schemaname = 'public' AND tablename NOT IN ('__diesel_schema_migrations', 'incarnation')); END $$";

impl Ground {
    /// `None`, said aloud, where there is no PostgreSQL and one is needed.
    pub(crate) fn open(adapter: Adapter) -> Option<Self> {
        // One thread for what has no I/O: so that a case does the same each time.
        let mut builder = match adapter {
            Adapter::Memory => Builder::new_current_thread(),
            Adapter::Sqlite | Adapter::Postgres => Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let source = match adapter {
            Adapter::Memory => Source::Memory,
            Adapter::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                Sqlite::migrate(folder.path().join("migrated.db")).unwrap();
                Source::Sqlite(folder)
            }
            Adapter::Postgres => runtime.block_on(async {
                let database = database(&MIGRATED).await?;
                // The server of tests is fast, not durable.
                let options = PostgresOptions { allow_lossy_commits: true, ..PostgresOptions::default() };
                let adapter = Postgres::connect(database.url(), options).await.unwrap();
                Some(Source::Postgres(adapter, database))
            })?,
        };
        Some(Self { runtime, source })
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Whether a case does the same each time.
    pub(crate) const fn is_deterministic(&self) -> bool {
        matches!(self.source, Source::Memory)
    }

    /// Empty storage.
    pub(crate) async fn plot(&self) -> Plot {
        match &self.source {
            Source::Memory => {
                let adapter = Arc::new(Memory::new());
                let storage = Storage::new(adapter.clone());
                Plot { storage, audited: Audited::Memory(adapter), _keep: Box::new(()) }
            }
            Source::Sqlite(folder) => {
                let case = tempfile::tempdir().unwrap();
                let path = case.path().join("case.db");
                std::fs::copy(folder.path().join("migrated.db"), &path).unwrap();
                let adapter = Arc::new(Sqlite::open(&path, SqliteOptions::default()).unwrap());
                let storage = Storage::new(adapter.clone());
                Plot { storage, audited: Audited::Sqlite(adapter, path), _keep: Box::new(case) }
            }
            Source::Postgres(adapter, database) => {
                database.execute(EMPTY).await.unwrap();
                let storage = Storage::new(Arc::new(adapter.clone()));
                Plot { storage, audited: Audited::Postgres(database.url().to_owned()), _keep: Box::new(()) }
            }
        }
    }
}

impl Plot {
    /// The promises that are broken by what is stored in the end.
    pub(crate) async fn audit(self) -> Vec<&'static str> {
        let findings: Vec<Finding> = match &self.audited {
            Audited::Memory(adapter) => adapter.look(State::audit),
            Audited::Sqlite(adapter, path) => {
                adapter.close(Duration::from_secs(10));
                Sqlite::audit(path).unwrap()
            }
            Audited::Postgres(url) => postgres::audit(url).await.unwrap(),
        };
        findings.into_iter().filter(|finding| finding.breaches > 0).map(|finding| finding.promise).collect()
    }
}
