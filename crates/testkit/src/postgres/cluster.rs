//! The servers that tests talk to.

use std::{
    env,
    ops::Deref,
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use super::{
    database::{Template, TestDatabase, with_database},
    keeper::{Keeper, run_key},
    programs::{Programs, found_or_skipped, search_list},
};
use crate::is_required;

/// A running PostgreSQL server on which test databases are made.
#[derive(Debug)]
pub struct Cluster {
    admin_url: String,
    /// What distinguishes this run's templates from those of other runs on a server that outlives them.
    run_key: String,
    /// `None` for a server that is not ours (`FRONTROW_TEST_POSTGRES_URL`).
    keeper: Option<Arc<Keeper>>,
}

impl Cluster {
    /// The server of this test run: that of `FRONTROW_TEST_POSTGRES_URL` if set, else one cluster that is
    /// shared by all processes of the run and goes when the last of them has gone. It is fast, not durable.
    /// `None`, said once on standard error, where there is no PostgreSQL.
    ///
    /// # Panics
    /// If there is none although `FRONTROW_REQUIRE_POSTGRES` is set, or if it does not start.
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
        blocking(|| SHARED.get_or_init(Self::open_shared).as_ref()).await
    }

    /// A cluster for one test alone, which may stop and start it. It has the default durability.
    /// `None` where the server programs are missing, as in [`Cluster::shared`].
    ///
    /// # Panics
    /// As [`Cluster::shared`].
    pub async fn start_private() -> Option<PrivateCluster> {
        blocking(|| {
            let programs = installed()?;
            let (keeper, child) = Keeper::private(&programs).expect("a private PostgreSQL starts");
            Some(PrivateCluster { cluster: Self::of(keeper), child: Mutex::new(child) })
        })
        .await
    }

    fn open_shared() -> Option<Self> {
        let given = env::var("FRONTROW_TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty());
        if let Some(admin_url) = given {
            return Some(Self { admin_url, run_key: run_key(), keeper: None });
        }
        let programs = installed()?;
        Some(Self::of(Keeper::shared(&programs).expect("the PostgreSQL of the test run starts")))
    }

    fn of(keeper: Keeper) -> Self {
        let admin_url = keeper.url().expect("a running cluster has written down its port and password");
        Self { admin_url, run_key: run_key(), keeper: Some(Arc::new(keeper)) }
    }

    /// A new database, a copy of the template, which is prepared first if this server has not seen it yet.
    ///
    /// # Panics
    /// If the server does not answer or the template cannot be prepared.
    pub async fn database(&self, template: &Template) -> TestDatabase {
        TestDatabase::create(&self.admin_url, &self.run_key, template).await
    }

    /// The certificate (PEM) to trust for TLS to this server, as in `sslmode=verify-full&sslrootcert=...`.
    /// `None` for a server that is not ours.
    pub fn root_cert_path(&self) -> Option<PathBuf> {
        self.keeper.as_ref().map(|keeper| keeper.root_cert_path())
    }

    /// Where the cluster lives; it is gone when the cluster is. `None` for a server that is not ours.
    pub fn directory(&self) -> Option<&Path> {
        self.keeper.as_ref().map(|keeper| keeper.directory())
    }
}

/// A cluster that its test may stop and start. Dropping it stops and removes it.
#[derive(Debug)]
pub struct PrivateCluster {
    cluster: Cluster,
    child: Mutex<Child>,
}

impl PrivateCluster {
    /// Stops the server at once, as a crash would: open transactions are lost, committed ones are recovered at
    /// the next start. Returns when it is gone.
    ///
    /// # Panics
    /// If it does not stop, or is stopped already.
    pub async fn stop_immediate(&self) {
        let keeper = self.keeper();
        blocking(move || keeper.stop_server().expect("the server stops")).await;
    }

    /// Starts the stopped server again, on the same port. Returns when it accepts connections.
    ///
    /// # Panics
    /// If it does not start, or runs already.
    pub async fn start(&self) {
        let keeper = self.keeper();
        blocking(move || keeper.start_server().expect("the server starts again")).await;
    }

    /// A server that follows this one, and takes no writes until it is promoted (`SELECT pg_promote()`). It
    /// has the databases of this one, under the same names.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn standby(&self) -> Self {
        let keeper = self.keeper();
        let (keeper, child) = blocking(move || {
            let programs = installed().expect("a running server has its programs");
            keeper.standby(&programs).expect("a standby starts")
        })
        .await;
        Self { cluster: Cluster::of(keeper), child: Mutex::new(child) }
    }

    /// The URL of a database on this server, by its name.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        with_database(&self.cluster.admin_url, database)
    }

    fn keeper(&self) -> Arc<Keeper> {
        self.cluster.keeper.clone().expect("a private cluster is always ours")
    }
}

impl Deref for PrivateCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for PrivateCluster {
    fn drop(&mut self) {
        let Some(keeper) = &self.cluster.keeper else { return };
        if keeper.quit().is_err() {
            return; // The keeper stops once this process has gone.
        }
        let Ok(child) = self.child.get_mut() else { return };
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn installed() -> Option<Programs> {
    found_or_skipped(Programs::find(search_list()), is_required("FRONTROW_REQUIRE_POSTGRES"))
}

/// Runs what blocks away from the test's own runtime threads. A panic goes on in the caller.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
