//! Commands that make people up, on a database that holds a sale.

use frontrow_testkit::app::{Database, TestApp, settings};
use serde_json::json;
use tempfile::tempdir;

use crate::binary::run;
use crate::{SECRET, refused, url};

const DEMO: &str = "demo --exit --buyers 20 --seats 10 --bind 127.0.0.1:0";

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_concerts_is_left_alone_unless_it_is_said() {
    for database in [Some(Database::sqlite()), Database::postgres().await].into_iter().flatten() {
        let folder = tempdir().unwrap();
        let url = url(&database);
        let env = [("FRONTROW_DATABASE_URL", url.as_str()), ("FRONTROW_SECRET", SECRET)];
        // The control: without concerts nothing is asked.
        let filled = run(folder.path(), "load --people 3", &env);
        assert_eq!(filled.code, Some(0), "{filled:?}");
        let app = TestApp::start(settings(&database)).await;
        app.sale(json!({}), 1, 2).await;
        app.stop().await;

        let rows = async || {
            let counts = ["concerts", "queue_tokens"].map(|table| format!("SELECT count(*) FROM {table}"));
            (database.query_i64(&counts[0]).await, database.query_i64(&counts[1]).await)
        };
        assert_eq!(rows().await, (1, 3));
        let demo = format!("{DEMO} --database-url {url}");
        for command in [demo.as_str(), "load --people 3"] {
            let output = run(folder.path(), command, &env);
            let line = refused(&output);
            assert!(line.contains("holds concerts") && line.contains("--into-existing"), "{line}");
            assert!(!line.contains("@"), "no password: {line}");
        }
        assert_eq!(rows().await, (1, 3), "nothing was written");
        for command in [demo.as_str(), "load --people 3"] {
            let output = run(folder.path(), &format!("{command} --into-existing"), &env);
            assert_eq!(output.code, Some(0), "{output:?}");
        }
        assert_eq!(rows().await.0, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_does_not_take_its_database_from_the_environment() {
    let folder = tempdir().unwrap();
    let live = format!("sqlite:{}", folder.path().join("live.db").display());
    let unreachable = "postgres://me:pass-of-the-url@127.0.0.1:1/db";
    for url in [live.as_str(), unreachable] {
        let output = run(folder.path(), DEMO, &[("FRONTROW_DATABASE_URL", url)]);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the live database was touched");
    // The control: the flag is taken, before the command or behind it.
    for args in
        [format!("--database-url {live} {DEMO}"), format!("{DEMO} --database-url {live} --into-existing")]
    {
        let output = run(folder.path(), &args, &[]);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    assert!(folder.path().join("live.db").exists());
}
