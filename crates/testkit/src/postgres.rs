//! A throw-away PostgreSQL for tests.
//!
//! [`database`] gives a test a database of its own, a copy of a [`Template`], on a server that all processes of
//! the test run share. Nothing has to be set up and nothing is left behind, even by a test that is killed.
//!
//! | environment variable | effect |
//! |---|---|
//! | `FRONTROW_TEST_POSTGRES_URL` | databases are made on that server (`postgres://...`, without TLS) by a user who may create them; those of a killed test stay, named `frontrow_test_...` |
//! | `FRONTROW_REQUIRE_POSTGRES=1` | a missing PostgreSQL or PgBouncer fails the tests instead of skipping them |

mod certificate;
mod cluster;
mod database;
mod keeper;
mod pooler;
mod programs;

pub use cluster::{Cluster, PrivateCluster};
pub use database::{Template, TestDatabase};
pub use pooler::{PoolMode, Pooler};
pub use programs::{Programs, found_or_skipped, search_list};

/// A database of this test alone on the shared server. `None` where there is no PostgreSQL, which has then been
/// said on standard error: the test ends there.
///
/// # Panics
/// As [`Cluster::shared`] and [`Cluster::database`].
pub async fn database(template: &Template) -> Option<TestDatabase> {
    Some(Cluster::shared().await?.database(template).await)
}
