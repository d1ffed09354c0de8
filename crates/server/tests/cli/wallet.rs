//! Wallets that are charged over HTTP, with a record of what was acknowledged.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use diesel::sql_types::Text;
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection};
use frontrow_testkit::app::{id, query_sqlite, sent};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::binary::{Output, Serving, run};

/// The entries of accounts that were acknowledged, shared.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<Vec<Uuid>>>);

impl Acknowledged {
    fn add(&self, entry: Uuid) {
        self.0.lock().unwrap().push(entry);
    }

    fn all(&self) -> Vec<Uuid> {
        self.0.lock().unwrap().clone()
    }
}

/// A guest with a wallet.
#[derive(Clone)]
pub(crate) struct Wallet {
    client: Client,
    base: String,
    user_id: Uuid,
    pub(crate) bearer: String,
}

impl Wallet {
    pub(crate) async fn open(address: &str) -> Self {
        let client = Client::builder().no_proxy().build().unwrap();
        let base = format!("http://{address}");
        let session: Value = sent(client.post(format!("{base}/sessions")), 201).await;
        let bearer = session["accessToken"].as_str().unwrap().to_owned();
        Self { client, base, user_id: id(&session, "userId"), bearer }
    }

    /// The same guest at another server.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self { base: format!("http://{address}"), ..self.clone() }
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/accounts/{}{rest}", self.base, self.user_id)
    }

    /// Charges 1. Returns the entry, when that was acknowledged.
    pub(crate) async fn charge(&self) -> Option<Uuid> {
        let request = self.client.post(self.path("/charge")).bearer_auth(&self.bearer);
        let response = request.json(&json!({"amount": 1})).send().await.ok()?;
        let is_done = response.status() == 200;
        let body: Value = response.json().await.ok()?;
        is_done.then(|| id(&body, "entryId"))
    }

    /// The status of a look at the balance, and the balance.
    pub(crate) async fn balance(&self) -> (u16, Option<i64>) {
        let response = self.client.get(self.path("")).bearer_auth(&self.bearer).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["balance"].as_i64())
    }
}

/// Wallets that are charged until they are told to stop.
pub(crate) struct Charging {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    acknowledged: Acknowledged,
}

impl Charging {
    pub(crate) async fn start(address: &str, wallets: usize) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Acknowledged::default());
        let mut tasks = Vec::new();
        for _ in 0..wallets {
            let wallet = Wallet::open(address).await;
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(entry) = wallet.charge().await {
                        acknowledged.add(entry);
                    }
                }
            }));
        }
        Self { stop, tasks, acknowledged }
    }

    /// What was acknowledged so far.
    pub(crate) fn acknowledged(&self) -> Vec<Uuid> {
        self.acknowledged.all()
    }

    /// Waits until so many more were acknowledged.
    pub(crate) async fn more(&self, entries: usize) {
        let enough = self.acknowledged().len() + entries;
        while self.acknowledged().len() < enough {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn stop(self) -> Vec<Uuid> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.acknowledged.all()
    }
}

/// How many of these entries are in a file.
pub(crate) fn stored(database: &Path, entries: &[Uuid]) -> usize {
    let ids: Vec<String> = entries.iter().map(|entry| format!("x'{}'", entry.simple())).collect();
    let query = format!("SELECT count(*) FROM entries WHERE entry_id IN ({})", ids.join(", "));
    usize::try_from(query_sqlite(database, &query)).unwrap()
}

/// A command on `frontrow.db` of a folder that must succeed.
#[track_caller]
pub(crate) fn done(folder: &Path, args: &str) -> Output {
    let output = run(folder, args, &[]);
    assert_eq!(output.code, Some(0), "{args}: {output:?}");
    output
}

/// Serves `frontrow.db` of a folder, answers a request, stops, and gives the log.
pub(crate) async fn served_once(folder: &Path) -> String {
    let serving = Serving::start(folder, "serve", &[]);
    Wallet::open(&serving.address).await;
    let (code, log) = serving.stop();
    assert_eq!(code, Some(0), "{log}");
    log
}

/// The incarnation of the data in a file.
pub(crate) fn incarnation(database: &Path) -> String {
    #[derive(QueryableByName)]
    struct Answer {
        #[diesel(sql_type = Text)]
        incarnation: String,
    }
    let mut connection = SqliteConnection::establish(database.to_str().unwrap()).unwrap();
    let query = diesel::sql_query("SELECT hex(incarnation_id) AS incarnation FROM incarnation");
    query.get_result::<Answer>(&mut connection).unwrap().incarnation
}

/// The names of all that is in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
