//! The HTTP client of the demo's buyers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use reqwest::{Client, Method, redirect};
use serde_json::Value;
use tokio::sync::Semaphore;

/// How many requests are under way at once; so many connections are enough for any crowd.
const CONNECTIONS: usize = 128;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A client of one server, shared by all buyers.
pub(super) struct Http {
    client: Client,
    base: String,
    slots: Semaphore,
    requests: AtomicU64,
}

/// A request.
pub(super) struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Option<&'a Value>,
    bearer: Option<&'a str>,
    wait_token: Option<&'a str>,
    key: Option<&'a str>,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) wait_token: Option<String>,
    pub(super) replayed: bool,
    pub(super) body: Value,
}

impl<'a> Call<'a> {
    fn new(method: Method, path: &'a str, body: Option<&'a Value>) -> Self {
        Self { method, path, body, bearer: None, wait_token: None, key: None }
    }

    pub(super) fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path, None)
    }

    pub(super) fn post(path: &'a str, body: &'a Value) -> Self {
        Self::new(Method::POST, path, Some(body))
    }

    pub(super) fn delete(path: &'a str) -> Self {
        Self::new(Method::DELETE, path, None)
    }

    pub(super) fn bearer(self, token: &'a str) -> Self {
        Self { bearer: Some(token), ..self }
    }

    pub(super) fn wait_token(self, token: &'a str) -> Self {
        Self { wait_token: Some(token), ..self }
    }

    pub(super) fn key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }
}

impl Answer {
    /// A text of the body; empty where there is none.
    pub(super) fn text(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// A number of the body; zero where there is none.
    pub(super) fn number(&self, field: &str) -> u64 {
        self.body.get(field).and_then(Value::as_u64).unwrap_or(0)
    }

    /// Whether the order was carried out, now or by its twin.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Status and problem code, as in `409 SEAT_NOT_AVAILABLE`.
    pub(super) fn outcome(&self) -> String {
        format!("{} {}", self.status, self.text("code")).trim_end().to_owned()
    }
}

impl Http {
    pub(super) fn new(address: SocketAddr) -> Result<Self> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(CONNECTIONS)
            .timeout(ANSWER_WITHIN)
            .no_proxy()
            .build()?;
        let slots = Semaphore::new(CONNECTIONS);
        Ok(Self { client, base: format!("http://{address}"), slots, requests: AtomicU64::new(0) })
    }

    /// How many requests were sent.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer> {
        let _slot = self.slots.acquire().await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut request = self.client.request(call.method, format!("{}{}", self.base, call.path));
        if let Some(token) = call.bearer {
            request = request.bearer_auth(token);
        }
        for (name, value) in [("Wait-Token", call.wait_token), ("Idempotency-Key", call.key)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wait_token = header("Wait-Token").map(ToOwned::to_owned);
        let replayed = header("Idempotency-Replayed") == Some("true");
        let status = response.status().as_u16();
        let bytes = response.bytes().await?;
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        Ok(Answer { status, wait_token, replayed, body })
    }
}
