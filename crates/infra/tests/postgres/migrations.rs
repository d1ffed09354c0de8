//! Migrations: up, down and up again, and by several nodes at once.

use std::path::Path;

use frontrow_domain::ports::StorageHealth;
use frontrow_infra::postgres::{Postgres, migrate};
use frontrow_testkit::postgres::{TestDatabase, database};

use crate::{EMPTY, PlainRole, options, told};

/// All there is in the schema, one line each, in a fixed order.
async fn schema(database: &TestDatabase) -> Vec<String> {
    let sql = "\
        SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' \
            || coalesce(column_default, '-') || ' ' || coalesce(collation_name, '-') \
        FROM information_schema.columns WHERE table_schema = 'public' \
        UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public' \
        UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) \
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace \
        UNION ALL SELECT 'relation ' || relname || ' ' || relkind::TEXT FROM pg_class \
            WHERE relnamespace = 'public'::regnamespace \
        UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace \
        ORDER BY 1";
    let rows = database.connect().await.unwrap().query(sql, &[]).await.unwrap();
    rows.into_iter().map(|row| row.get(0)).collect()
}

/// Runs every `down.sql`, the newest first, and forgets that the migrations ran.
async fn revert(database: &TestDatabase) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres");
    let mut migrations: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    migrations.sort();
    for migration in migrations.iter().rev() {
        let down = std::fs::read_to_string(migration.join("down.sql")).unwrap();
        database.execute(&down).await.unwrap();
    }
    database.execute("DELETE FROM __diesel_schema_migrations").await.unwrap();
}

#[tokio::test]
async fn up_down_and_up_again() {
    let Some(database) = database(&EMPTY).await else { return };
    migrate(database.url()).await.unwrap();
    let once = schema(&database).await;
    assert!(once.iter().any(|line| line.starts_with("constraint seats ")), "{once:?}");

    revert(&database).await;
    let left = schema(&database).await;
    let ours = left.iter().filter(|line| !line.contains("__diesel_schema_migrations"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());

    migrate(database.url()).await.unwrap();
    assert_eq!(schema(&database).await, once);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_together_migrate_once() {
    let Some(database) = database(&EMPTY).await else { return };
    let nodes: Vec<_> = (0..4)
        .map(|_| {
            let url = database.url().to_owned();
            tokio::spawn(async move { migrate(&url).await })
        })
        .collect();
    for node in nodes {
        node.await.unwrap().unwrap();
    }
    let applied = "SELECT count(*) FROM __diesel_schema_migrations";
    let embedded = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres"));
    let embedded = i64::try_from(embedded.unwrap().count()).unwrap();
    assert_eq!(database.query_i64(applied).await.unwrap(), embedded);
}

/// A role that may read and write, and make nothing.
#[tokio::test]
async fn a_schema_that_is_up_to_date_needs_no_right_to_create() {
    let Some(database) = database(&EMPTY).await else { return };
    let role = PlainRole::new(&database, "plain", "").await;
    // The control: making a schema needs it.
    let refused = migrate(&role.url()).await.unwrap_err();
    assert!(told(&refused).contains("permission denied"), "{}", told(&refused));
    role.drop().await;

    migrate(database.url()).await.unwrap();
    let role = PlainRole::new(&database, "plain", "").await;
    let migrated = migrate(&role.url()).await;
    let connected = Postgres::connect(&role.url(), options()).await;
    let pinged = match &connected {
        Ok(postgres) => postgres.writability().await.map(|_| ()).map_err(|error| told(&error)),
        Err(error) => Err(told(error)),
    };
    drop(connected);
    role.drop().await;
    migrated.unwrap();
    pinged.unwrap();
}

/// The role of a database may have a statement timeout of its own.
#[tokio::test]
async fn no_timeout_ends_a_migration() {
    let Some(database) = database(&EMPTY).await else { return };
    // Every CREATE TABLE sleeps for longer than the timeouts allow.
    let slow = format!(
        "CREATE FUNCTION dawdle() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); END $$; \
         CREATE EVENT TRIGGER dawdle ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION dawdle(); \
         ALTER DATABASE {} SET statement_timeout = 20",
        database.name()
    );
    database.execute(&slow).await.unwrap();
    migrate(database.url()).await.unwrap();
}

/// Whoever can run statements on the database could otherwise make an action undone.
#[tokio::test]
async fn what_operators_did_is_neither_changed_nor_deleted() {
    let Some(database) = database(&EMPTY).await else { return };
    migrate(database.url()).await.unwrap();
    let nil = "'00000000-0000-0000-0000-000000000000'";
    let add =
        format!("INSERT INTO audit_log VALUES ({nil}, now(), {nil}, 'CHANGE_ROOM', {nil}, NULL, '{{}}')");
    database.execute(&add).await.unwrap();
    for change in
        ["UPDATE audit_log SET user_id = gen_random_uuid()", "DELETE FROM audit_log", "TRUNCATE audit_log"]
    {
        let refused = format!("{:?}", database.execute(change).await.unwrap_err());
        assert!(refused.contains("append-only"), "{change}: {refused}");
    }
    // Without its trigger nothing would keep anybody from it.
    let control = "DROP TRIGGER audit_log_append_only ON audit_log; DELETE FROM audit_log";
    database.execute(control).await.unwrap();
}
