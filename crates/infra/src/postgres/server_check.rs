//! Checks of a server: what every connection must find before it is used, and again while it is kept.
//!
//! The settings are those that are in force in the session, wherever they come from: the server, the
//! database, the role, or the `options` of the URL.

use diesel::QueryableByName;
use diesel::sql_types::{Integer, Text};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::config::TargetSessionAttrs;

use super::error::ConnectError;

/// The statement whose one row is a [`ServerState`]. A server in recovery is read-only too.
pub(super) const STATE: &str = "\
    SELECT current_setting('transaction_read_only') AS read_only, \
        current_setting('server_encoding') AS encoding, \
        current_setting('fsync') AS fsync, \
        current_setting('synchronous_commit') AS synchronous_commit, \
        current_setting('synchronous_standby_names') AS sync_replicas, \
        pg_backend_pid() AS backend";

/// The state of a server as a session finds it.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub(super) struct ServerState {
    #[diesel(sql_type = Text)]
    read_only: String,
    #[diesel(sql_type = Text)]
    encoding: String,
    #[diesel(sql_type = Text)]
    fsync: String,
    #[diesel(sql_type = Text)]
    synchronous_commit: String,
    #[diesel(sql_type = Text)]
    sync_replicas: String,
    /// The process of the server that serves the session.
    #[diesel(sql_type = Integer)]
    pub(super) backend: i32,
}

/// Requirements of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands {
    /// Whether the server must take writes, must not, or may be either.
    pub(super) role: TargetSessionAttrs,
    /// Whether acknowledged commits may be lost in a crash of the server.
    pub(super) allow_lossy_commits: bool,
    /// Whether commits must wait for a replica.
    pub(super) require_sync_replica: bool,
}

impl Demands {
    /// Requirements of a session that acknowledges no write to a client.
    pub(super) const fn without_durability(role: TargetSessionAttrs) -> Self {
        Self { role, allow_lossy_commits: true, require_sync_replica: false }
    }
}

impl ServerState {
    /// The state in the answers to statements of which the last one is [`STATE`]; `None` when there is no such row.
    pub(super) fn read(answers: &[SimpleQueryMessage]) -> Option<Self> {
        let row = answers.iter().rev().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })?;
        let text = |name: &str| Some(row.try_get(name).ok()??.to_owned());
        Some(Self {
            read_only: text("read_only")?,
            encoding: text("encoding")?,
            fsync: text("fsync")?,
            synchronous_commit: text("synchronous_commit")?,
            sync_replicas: text("sync_replicas")?,
            backend: text("backend")?.parse().ok()?,
        })
    }

    /// Compares the state with the requirements of a connection.
    pub(super) fn check(&self, demands: &Demands, server: &str) -> Result<(), ConnectError> {
        let server = || server.to_owned();
        match (demands.role, self.read_only.as_str()) {
            (TargetSessionAttrs::ReadWrite, "on") => return Err(ConnectError::ReadOnly { server: server() }),
            (TargetSessionAttrs::ReadOnly, "off") => {
                return Err(ConnectError::NotReadOnly { server: server() });
            }
            _ => {}
        }
        if self.encoding != "UTF8" {
            return Err(ConnectError::Encoding { encoding: self.encoding.clone() });
        }
        if !demands.allow_lossy_commits {
            self.check_durability()?;
        }
        if demands.require_sync_replica && self.sync_replicas.trim().is_empty() {
            return Err(ConnectError::NoSyncReplica);
        }
        Ok(())
    }

    fn check_durability(&self) -> Result<(), ConnectError> {
        let lossy = |name: &str, value: &str| {
            Err(ConnectError::LossyCommits { setting: format!("{name} = {value}") })
        };
        if self.fsync == "off" {
            return lossy("fsync", &self.fsync);
        }
        match self.synchronous_commit.as_str() {
            // `local` does not wait for a synchronous replica, which takes over without it.
            value @ ("off" | "local") => lossy("synchronous_commit", value),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> ServerState {
        let text = |text: &str| text.to_owned();
        ServerState {
            read_only: text("off"),
            encoding: text("UTF8"),
            fsync: text("on"),
            synchronous_commit: text("on"),
            sync_replicas: String::new(),
            backend: 1,
        }
    }

    const STRICT: Demands = Demands {
        role: TargetSessionAttrs::ReadWrite,
        allow_lossy_commits: false,
        require_sync_replica: false,
    };

    fn found(state: &ServerState, demands: Demands) -> String {
        state.check(&demands, "h:1").map_or_else(|error| error.to_string(), |()| "sound".to_owned())
    }

    #[test]
    fn each_setting_that_loses_commits_is_named_unless_allowed() {
        for (name, value) in
            [("fsync", "off"), ("synchronous_commit", "off"), ("synchronous_commit", "local")]
        {
            let mut state = sound();
            match name {
                "fsync" => state.fsync = value.to_owned(),
                _ => state.synchronous_commit = value.to_owned(),
            }
            let told = found(&state, STRICT);
            assert!(told.contains(&format!("{name} = {value}")), "{told}");
            assert_eq!(found(&state, Demands { allow_lossy_commits: true, ..STRICT }), "sound");
        }
        for value in ["on", "remote_write", "remote_apply"] {
            let state = ServerState { synchronous_commit: value.to_owned(), ..sound() };
            assert_eq!(found(&state, STRICT), "sound");
        }
    }

    #[test]
    fn a_role_an_encoding_and_a_replica_are_demanded() {
        let read_only = ServerState { read_only: "on".to_owned(), ..sound() };
        assert!(found(&read_only, STRICT).contains("h:1 is read-only"));
        let reader = Demands::without_durability(TargetSessionAttrs::ReadOnly);
        assert_eq!(found(&read_only, reader), "sound");
        assert!(found(&sound(), reader).contains("not read-only"));
        for state in [&sound(), &read_only] {
            assert_eq!(found(state, Demands::without_durability(TargetSessionAttrs::Any)), "sound");
        }
        let latin = ServerState { encoding: "LATIN1".to_owned(), ..sound() };
        assert!(found(&latin, STRICT).contains("LATIN1"));
        let replicated = Demands { require_sync_replica: true, ..STRICT };
        assert!(found(&sound(), replicated).contains("synchronous_standby_names is empty"));
        let state = ServerState { sync_replicas: "ANY 1 (a, b)".to_owned(), ..sound() };
        assert_eq!(found(&state, replicated), "sound");
    }
}
