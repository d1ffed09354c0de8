//! A PostgreSQL that `serve` must not work with: one line that says what to do, and exit code 2.

use frontrow_testkit::app::Database;
use frontrow_testkit::postgres::{PoolMode, Pooler};
use tempfile::tempdir;

use crate::binary::{Serving, run};
use crate::{SECRET, refused, url};

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_lose_commits_is_served_only_if_allowed() {
    let Some(database) = Database::postgres().await else { return };
    let lossy = "DO $$ BEGIN \
        EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$";
    database.execute(lossy).await;
    let (folder, url) = (tempdir().unwrap(), url(&database));
    let env = |allowed| {
        [
            ("FRONTROW_DATABASE_URL", url.as_str()),
            ("FRONTROW_SECRET", SECRET),
            ("FRONTROW_ALLOW_LOSSY_COMMITS", allowed),
        ]
    };
    let output = run(folder.path(), "serve --no-migrate --bind 127.0.0.1:0", &env("false"));
    let line = refused(&output);
    assert!(line.contains("= off") && line.contains("--allow-lossy-commits"), "{line}");
    let (code, _) = Serving::start(folder.path(), "serve --no-migrate", &env("true")).stop();
    assert_eq!(code, Some(0));
    let output =
        run(folder.path(), "serve --no-migrate --require-sync-replica --bind 127.0.0.1:0", &env("true"));
    assert!(refused(&output).contains("synchronous_standby_names"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_is_refused_in_a_line() {
    let Some(database) = Database::postgres().await else { return };
    let Database::Postgres(behind) = &database else { unreachable!("it is on PostgreSQL") };
    let Some(pooler) = Pooler::start(behind, PoolMode::Transaction, "") else { return };
    let folder = tempdir().unwrap();
    let env = [("FRONTROW_DATABASE_URL", pooler.url()), ("FRONTROW_SECRET", SECRET)];
    for command in ["migrate", "serve --bind 127.0.0.1:0", "audit"] {
        let output = run(folder.path(), command, &env);
        assert!(refused(&output).contains("session mode"), "{command}: {output:?}");
    }
}
