//! The command line: the binary itself, its exit codes, what it prints, and how it starts and stops.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod audit;
mod backup;
mod binary;
mod breaches;
mod database_demands;
mod existing_sale;
mod live_audit;
mod log;
mod mounts;
mod replaced_file;
mod restore;
mod secrets;
mod signals;
mod sqlite_file;
mod stopping;
mod wallet;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use binary::{Output, Serving, run};
use frontrow::cli::DatabaseUrl;
use frontrow_testkit::app::{Database, sent};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::tempdir;

const SECRET: &str = "a secret for the command line that nobody may see";

/// Checks that a command was refused: exit code 2, one line on standard error, nothing on standard output.
#[track_caller]
fn refused(output: &Output) -> &str {
    assert_eq!(output.code, Some(2), "{output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one clear line: {output:?}");
    assert!(lines[0].len() > 10, "{output:?}");
    lines[0]
}

/// The URL of a database as the command line takes it.
pub(crate) fn url(database: &Database) -> String {
    match database.url() {
        DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
        DatabaseUrl::Postgres(url) => url,
    }
}

async fn get(address: &str, path: &str, bearer: &str) -> (u16, Value) {
    let request = Client::builder().no_proxy().build().unwrap().get(format!("http://{address}{path}"));
    let response = request.bearer_auth(bearer).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[test]
fn wrong_options_are_refused_in_a_line() {
    let folder = tempdir().unwrap();
    for args in [
        "--nonsense",
        "nonsense",
        "serve --nonsense",
        "serve nonsense",
        "--database-url mysql://h/db",
        "--database-url frontrow.db",
        "--database-url sqlite:",
        "--log-format xml",
        "--hold-seconds 0",
        "--hold-seconds soon",
        "--max-seats-per-user 0",
        "--admit-batch ten",
        "--admit-batch 0",
        "--admit-batch -1",
        "--admit-interval-seconds 0",
        "--active-ttl-seconds 0",
        "--bind nowhere",
        "--bind 127.0.0.1:99999",
        "--secret short",
        "--previous-secrets short",
        "--identity-public-key missing.pem",
        "--identity-jwks missing.json",
        "--identity-jwks a.json --identity-public-key a.pem",
        "--identity-issuer=",
        "--identity-role-claim roles",
        "--identity-role-claim=",
        "--wallet-charging anybody",
        "--rate-limit-per-caller 20",
        "--rate-limit-per-address 0/s",
        "--trusted-proxies 10.0.0.0/99",
        "--cors-origins tickets.example",
        "--max-connections 0",
        "--max-connections-per-address 0",
        "--client-timeout-seconds 0",
        "--database-url sqlite:missing/folder/a.db",
        "token --role king",
        "token --role admin --user me",
        "demo --exit --buyers 0",
        "audit --exit",
        "audit --database-url sqlite:missing.db",
        "backup",
        "backup a.db --database-url sqlite:missing.db",
        "restore missing.db",
    ] {
        let output = run(folder.path(), args, &[]);
        let line = refused(&output);
        assert!(!line.contains("panicked"), "{args}: {line}");
    }
    let output = run(folder.path(), "serve", &[("FRONTROW_ADMIT_BATCH", "ten")]);
    refused(&output);
}

#[test]
fn the_line_says_what_is_missing_or_may_be() {
    let folder = tempdir().unwrap();
    for (args, words) in [
        ("load", "--people <PEOPLE>"),
        ("token --role x", "[possible values: user, admin, cashier]"),
        ("--wallet-charging x", "[possible values: self, cashier]"),
        ("--log-format xml", "[possible values: text, json]"),
        ("--cors-origins https://*.example", "a lone * for all"),
    ] {
        let output = run(folder.path(), args, &[]);
        assert!(refused(&output).contains(words), "{args}: {output:?}");
    }
}

#[test]
fn a_filter_of_the_log_must_be_one() {
    let folder = tempdir().unwrap();
    let migrated = |filter| run(folder.path(), "migrate", &[("FRONTROW_LOG", filter)]);
    for bad in ["foo=bar=baz", "info,frontrow=loud", "[{"] {
        let output = migrated(bad);
        assert!(refused(&output).contains("FRONTROW_LOG"), "{bad}: {output:?}");
    }
    // A target may have any name.
    for good in ["zzz", "warn,frontrow=debug", ""] {
        assert_eq!(migrated(good).code, Some(0), "{good}");
    }
}

#[test]
fn a_public_key_must_be_one() {
    let folder = tempdir().unwrap();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/src/identity/test_keys");
    for (file, name) in [("ed25519_private.pem", "private"), ("ec_p384_public.pem", "another kind")] {
        std::fs::copy(keys.join(file), folder.path().join("key.pem")).unwrap();
        let output = run(folder.path(), "serve --bind 127.0.0.1:0 --identity-public-key key.pem", &[]);
        assert!(!refused(&output).contains("BEGIN"), "{name}");
    }
    std::fs::copy(keys.join("ed25519_public.pem"), folder.path().join("key.pem")).unwrap();
    let serving = Serving::start(folder.path(), "serve --identity-public-key key.pem", &[]);
    assert_eq!(serving.stop().0, Some(0));
}

#[test]
fn a_key_set_must_be_one() {
    let folder = tempdir().unwrap();
    let serve = "serve --bind 127.0.0.1:0 --identity-jwks keys.json";
    for (set, word) in [
        (json!({"keys": []}), "no RSA"),
        (json!({"keys": [{"kty": "oct", "k": "hunter2-hunter2"}]}), "secret key"),
        (json!("keys"), "JWK set"),
    ] {
        std::fs::write(folder.path().join("keys.json"), set.to_string()).unwrap();
        let output = run(folder.path(), serve, &[]);
        let line = refused(&output);
        assert!(
            line.contains("--identity-jwks") && line.contains(word) && !line.contains("hunter2"),
            "{line}"
        );
    }
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    std::fs::write(folder.path().join("keys.json"), json!({"keys": [key]}).to_string()).unwrap();
    let serving = Serving::start(folder.path(), "serve --identity-jwks keys.json", &[]);
    // What the provider makes is not made here.
    for command in ["token --role admin", "demo --exit --bind 127.0.0.1:0"] {
        let output = run(folder.path(), &format!("{command} --identity-jwks keys.json"), &[]);
        assert!(refused(&output).contains("--identity-jwks"), "{output:?}");
    }
    // A broken file is said so once, and changes nothing.
    std::fs::write(folder.path().join("keys.json"), "rubbish").unwrap();
    std::thread::sleep(Duration::from_secs(7));
    let (code, log) = serving.stop();
    let warnings = log.lines().filter(|line| line.contains("stay as they were")).count();
    assert_eq!((code, warnings), (Some(0), 1), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_goes_on_and_none_is_shown() {
    let folder = tempdir().unwrap();
    let (old, new) = ("the-old-secret-of-the-command-line-1", "the-new-secret-of-the-command-line-2");
    let rooms = async |serving: &Serving, token: &Output| {
        get(&serving.address, "/admin/rooms", token.stdout.trim()).await.0
    };
    let token = |secret| run(folder.path(), "token --role admin", &[("FRONTROW_SECRET", secret)]);
    let (before, after) = (token(old), token(new));
    let by_variable =
        [("FRONTROW_SECRET", new), ("FRONTROW_PREVIOUS_SECRETS", old), ("FRONTROW_LOG", "debug")];
    let listed = format!("another-secret-of-the-command-line-3,{old}");
    let by_list = [("FRONTROW_SECRET", new), ("FRONTROW_PREVIOUS_SECRETS", listed.as_str())];
    let again = format!("--previous-secrets {} --previous-secrets {old}", SECRET.replace(' ', "-"));
    let alone = [("FRONTROW_SECRET", new)];
    let empty = [("FRONTROW_SECRET", new), ("FRONTROW_PREVIOUS_SECRETS", "")];
    for (args, env, old_is_good) in [
        ("", by_variable.as_slice(), 200),
        ("", by_list.as_slice(), 200),
        (again.as_str(), alone.as_slice(), 200),
        ("", empty.as_slice(), 401),
    ] {
        let serving = Serving::start(folder.path(), args, env);
        assert_eq!((rooms(&serving, &after).await, rooms(&serving, &before).await), (200, old_is_good));
        let (code, log) = serving.stop();
        assert_eq!(code, Some(0));
        assert!(!log.contains(old) && !log.contains(new), "{log}");
    }
    let short = "hunter2-is-too-short-for-a-key";
    for list in [short.to_owned(), format!("{old},{short}"), format!("{old}, {new}")] {
        let env = [("FRONTROW_SECRET", new), ("FRONTROW_PREVIOUS_SECRETS", list.as_str())];
        let output = run(folder.path(), "serve --bind 127.0.0.1:0", &env);
        let line = refused(&output);
        assert!(line.contains("--previous-secrets"), "{line}");
        assert!(![old, new, short].iter().any(|secret| line.contains(secret)), "{line}");
    }
    let help = run(folder.path(), "--help", &by_variable).stdout;
    assert!(help.contains("--previous-secrets") && !help.contains(old), "{help}");
}

#[test]
fn help_and_version_are_printed() {
    let folder = tempdir().unwrap();
    let output = run(folder.path(), "--help", &[("FRONTROW_SECRET", SECRET)]);
    assert_eq!(output.code, Some(0));
    for word in [
        "serve",
        "demo",
        "migrate",
        "audit",
        "backup",
        "restore",
        "token",
        "openapi",
        "--database-url",
        "FRONTROW_SECRET",
    ] {
        assert!(output.stdout.contains(word), "{word} is not in {}", output.stdout);
    }
    assert!(!output.stdout.contains(SECRET));
    assert_eq!(run(folder.path(), "--version", &[]).code, Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_bad_secret_is_refused_and_not_shown() {
    let folder = tempdir().unwrap();
    let short = "hunter2-is-too-short-for-a-key";
    let postgres = "postgres://me:pass-of-the-url@127.0.0.1:1/db";
    for args in ["serve", "token --role admin", "demo --exit --bind 127.0.0.1:0"] {
        let output = run(folder.path(), args, &[("FRONTROW_SECRET", short)]);
        assert!(!refused(&output).contains(short));
        let output = run(folder.path(), &format!("{args} --secret {short}"), &[]);
        assert!(!refused(&output).contains(short));
    }
    // The list of previous secrets could not carry these.
    for bad in [
        " hunter2-with-a-blank-before-it-00000",
        "hunter2-with-a-blank-behind-it-00000 ",
        "hunter2-with,a-comma-within-it-000000",
    ] {
        for args in ["token --role admin", "serve --bind 127.0.0.1:0", "demo --exit --bind 127.0.0.1:0"] {
            let output = run(folder.path(), args, &[("FRONTROW_SECRET", bad)]);
            let line = refused(&output);
            assert!(line.contains("--secret (FRONTROW_SECRET)") && !line.contains("hunter2"), "{line}");
        }
    }
    for args in ["serve", "token --role admin"] {
        let output = run(folder.path(), args, &[("FRONTROW_DATABASE_URL", postgres)]);
        let line = refused(&output);
        assert!(line.to_lowercase().contains("secret") && !line.contains("pass-of-the-url"), "{line}");
    }
}

#[test]
fn too_many_secrets_are_blamed_on_where_they_are() {
    let folder = tempdir().unwrap();
    let secrets: Vec<String> = (0..10).map(|n| format!("hunter2-is-secret-number-{n}-of-ten")).collect();
    let serve = "serve --bind 127.0.0.1:0";
    std::fs::write(folder.path().join("frontrow.db.secret"), secrets.join("\n")).unwrap();
    let kept = run(folder.path(), serve, &[]);
    let listed = secrets.join(",");
    let given = [("FRONTROW_SECRET", SECRET), ("FRONTROW_PREVIOUS_SECRETS", listed.as_str())];
    let given = run(folder.path(), serve, &given);
    for (output, blamed, not_blamed) in
        [(&kept, "frontrow.db.secret", "--previous"), (&given, "--previous-secrets", "frontrow.db")]
    {
        let line = refused(output);
        assert!(line.contains(blamed) && line.contains("at most 8"), "{line}");
        assert!(!line.contains(not_blamed) && !line.contains("hunter2"), "{line}");
    }
}

#[test]
fn an_unreachable_database_is_named_without_its_password() {
    let folder = tempdir().unwrap();
    let url = "postgres://me:pass-of-the-url@127.0.0.1:1/db";
    for command in ["serve", "serve --no-migrate", "migrate", "audit"] {
        let args = format!("{command} --database-url {url} --secret {}", SECRET.replace(' ', "-"));
        let line = run(folder.path(), &args, &[]);
        assert!(!refused(&line).contains("pass-of-the-url"), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_not_shown() {
    let Some(database) = Database::postgres().await else { return };
    let url = url(&database);
    let (head, tail) = (url.split_once('@').unwrap().0, url.split_once('@').unwrap().1);
    let (user, password) = head.rsplit_once(':').unwrap();
    for password in ["a-wrong-password", password] {
        let wrong = format!("{user}:{password}@{tail}_which_is_not_there");
        let args = format!("serve --database-url {wrong} --secret {}", SECRET.replace(' ', "-"));
        let folder = tempdir().unwrap();
        let output = run(folder.path(), &args, &[]);
        assert!(!refused(&output).contains(password), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_configuration_it_serves_a_file_with_a_secret_of_its_own() {
    let folder = tempdir().unwrap();
    let serving = Serving::start(folder.path(), "", &[]);
    assert!(folder.path().join("frontrow.db").exists());
    let secret = folder.path().join("frontrow.db.secret");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(secret).unwrap();
    assert!(secret.trim().len() >= 32);

    let token = run(folder.path(), "token --role admin", &[]);
    assert_eq!((token.code, token.stdout.lines().count()), (Some(0), 1), "{token:?}");
    let (status, rooms) = get(&serving.address, "/admin/rooms", token.stdout.trim()).await;
    assert_eq!((status, &rooms["items"][0]["admitBatch"]), (200, &json!(10)));
    let user = "9f1c24a6-6c4a-4d5e-8f21-3b0f2c6f7a11";
    let token = run(folder.path(), &format!("token --role user --user {user}"), &[]).stdout;
    assert_eq!(get(&serving.address, "/admin/rooms", token.trim()).await.0, 403);
    let account = get(&serving.address, &format!("/accounts/{user}"), token.trim()).await;
    assert_eq!(account, (200, json!({"userId": user, "balance": 0})));

    // A second one on this file is refused; commands may run beside it.
    let second = run(folder.path(), "serve --bind 127.0.0.1:0", &[]);
    assert!(refused(&second).contains("frontrow.db"));
    let taken =
        run(folder.path(), &format!("--database-url sqlite:other.db --bind {}", serving.address), &[]);
    refused(&taken);
    for command in ["audit", "migrate"] {
        assert_eq!(run(folder.path(), command, &[]).code, Some(0), "{command}");
    }
    let (code, log) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(secret.trim()));
    // The next start takes the same secret: tokens stay good.
    let serving = Serving::start(folder.path(), "", &[]);
    assert_eq!(get(&serving.address, &format!("/accounts/{user}"), token.trim()).await.0, 200);
    assert_eq!(serving.stop().0, Some(0));
}

#[test]
fn migrate_may_be_repeated_and_be_left_to_somebody_else() {
    let folder = tempdir().unwrap();
    refused(&run(folder.path(), "serve --no-migrate --bind 127.0.0.1:0", &[]));
    for _ in 0..2 {
        let output = run(folder.path(), "migrate", &[]);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    let serving = Serving::start(folder.path(), "serve --no-migrate", &[]);
    assert_eq!(serving.stop().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_may_be_repeated_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    let folder = tempdir().unwrap();
    database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    let env = [("FRONTROW_DATABASE_URL", url(&database)), ("FRONTROW_SECRET", SECRET.to_owned())];
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    refused(&run(folder.path(), "serve --no-migrate --bind 127.0.0.1:0", &env));
    for _ in 0..2 {
        let output = run(folder.path(), "migrate", &env);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    assert_eq!(run(folder.path(), "audit", &env).code, Some(0));
    // Any number of nodes may serve one PostgreSQL.
    let nodes =
        [Serving::start(folder.path(), "serve --no-migrate", &env), Serving::start(folder.path(), "", &env)];
    for node in nodes {
        assert_eq!(node.stop().0, Some(0));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is kept in files");
}

#[test]
fn openapi_prints_the_document() {
    let folder = tempdir().unwrap();
    let output = run(folder.path(), "openapi", &[]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/queue"]["post"].is_object());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no database was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn later_options_change_nothing_and_warn_once() {
    let folder = tempdir().unwrap();
    let warnings = |log: &str| log.lines().filter(|line| line.contains("WARN")).count();
    let policy = async |serving: &Serving| {
        let token = run(folder.path(), "token --role admin", &[]).stdout;
        let (_, rooms) = get(&serving.address, "/admin/rooms", token.trim()).await;
        let room = &rooms["items"][0];
        ["admitBatch", "admitIntervalSeconds", "activeTtlSeconds"].map(|field| room[field].as_i64().unwrap())
    };
    let first = "--admit-batch 3 --admit-interval-seconds 70 --active-ttl-seconds 80";
    for (options, warned) in [
        (first, 0),
        (first, 0),
        ("--admit-batch 4 --admit-interval-seconds 71 --active-ttl-seconds 81", 1),
        ("--admit-batch 3 --admit-interval-seconds 70 --active-ttl-seconds 81", 1),
    ] {
        let serving = Serving::start(folder.path(), options, &[]);
        assert_eq!(policy(&serving).await, [3, 70, 80]);
        let (code, log) = serving.stop();
        assert_eq!((code, warnings(&log)), (Some(0), warned), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_finishes_what_runs() {
    let folder = tempdir().unwrap();
    let database = Some(Database::Sqlite(folder));
    for database in [database, Database::postgres().await].into_iter().flatten() {
        stops_in_order(&database).await;
    }
}

async fn stops_in_order(database: &Database) {
    let folder = tempdir().unwrap();
    let url = url(database);
    let env = [("FRONTROW_DATABASE_URL", url.as_str()), ("FRONTROW_SECRET", SECRET)];
    let serving = Serving::start(folder.path(), "serve", &env);
    let client = Client::builder().no_proxy().build().unwrap();
    let (sure, unsure) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let session: Value = sent(client.post(format!("http://{}/sessions", serving.address)), 201).await;
    let (user, bearer) = (session["userId"].as_str().unwrap(), session["accessToken"].as_str().unwrap());
    let charge = format!("http://{}/accounts/{user}/charge", serving.address);
    let crowd: Vec<_> = (0..4)
        .map(|_| {
            let request = client.post(&charge).bearer_auth(bearer).json(&json!({"amount": 10}));
            let (sure, unsure) = (sure.clone(), unsure.clone());
            tokio::spawn(async move {
                loop {
                    match request.try_clone().unwrap().send().await {
                        Ok(answer) if answer.status() == 200 => sure.fetch_add(1, Ordering::SeqCst),
                        Ok(answer) if answer.status() == 409 => 0,
                        Ok(answer) => panic!("it answered {}", answer.status()),
                        Err(_) => {
                            unsure.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    };
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (code, log) = tokio::task::spawn_blocking(move || serving.stop()).await.unwrap();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    for one in crowd {
        one.await.unwrap();
    }
    let (sure, unsure) = (sure.load(Ordering::SeqCst), unsure.load(Ordering::SeqCst));
    assert!(sure > 0, "nothing was charged at all");
    let serving = Serving::start(folder.path(), "serve", &env);
    let (_, account) = get(&serving.address, &format!("/accounts/{user}"), bearer).await;
    let charged = account["balance"].as_i64().unwrap() / 10;
    assert!((sure..=sure + unsure).contains(&charged), "{charged} were charged, {sure} were told so");
    assert_eq!(serving.stop().0, Some(0));
}

/// The lines of an audit's report that tell of a breach.
pub(crate) fn broken(output: &Output) -> Vec<&str> {
    output.stdout.lines().filter(|line| line.contains("BROKEN")).collect()
}

/// Checks a demo's report: everything sold, a clean audit.
#[track_caller]
fn sold_out(output: &Output) {
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("20 of 20 seats sold"), "{}", output.stdout);
    assert!(output.stdout.contains("at most one live reservation a seat"), "{}", output.stdout);
    assert_eq!(broken(output), Vec::<&str>::new(), "{}", output.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_filled_for_sizing() {
    for database in [Some(Database::sqlite()), Database::postgres().await].into_iter().flatten() {
        let folder = tempdir().unwrap();
        let url = url(&database);
        let env = [("FRONTROW_DATABASE_URL", url.as_str()), ("FRONTROW_SECRET", SECRET)];
        let filled = run(folder.path(), "load --people 25001", &env);
        assert_eq!(filled.code, Some(0), "{filled:?}");
        assert!(filled.stdout.contains("25001 people"), "{filled:?}");
        let nowhere = "load --people 1 --room 018f0000-0000-7000-8000-00000000dead";
        assert!(refused(&run(folder.path(), nowhere, &env)).contains("018f0000"));
        let audit = run(folder.path(), "audit", &env);
        assert_eq!((audit.code, broken(&audit).len()), (Some(0), 0), "{audit:?}");

        let serving = Serving::start(folder.path(), "serve", &env);
        let client = Client::builder().no_proxy().build().unwrap();
        let session: Value = sent(client.post(format!("http://{}/sessions", serving.address)), 201).await;
        let bearer = session["accessToken"].as_str().unwrap();
        let entering = client.post(format!("http://{}/queue", serving.address)).bearer_auth(bearer);
        assert_eq!(sent(entering, 201).await["position"], 25_002);
        assert_eq!(serving.stop().0, Some(0));
    }
}

const DEMO: &str = "demo --exit --buyers 60 --seats 20 --bind 127.0.0.1:0";

#[test]
fn the_demo_sells_out_on_a_file_it_throws_away() {
    let folder = tempdir().unwrap();
    sold_out(&run(folder.path(), DEMO, &[]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_sells_out_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    let folder = tempdir().unwrap();
    let url = url(&database);
    let env = [("FRONTROW_DATABASE_URL", url.as_str()), ("FRONTROW_SECRET", SECRET)];
    sold_out(&run(folder.path(), &format!("{DEMO} --database-url {url}"), &env));
    // What was sold stays where it was sold.
    assert_eq!(run(folder.path(), "audit", &env).code, Some(0));
}
