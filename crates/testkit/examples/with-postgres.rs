//! Runs a command against a throw-away PostgreSQL: `with-postgres COMMAND [ARG ...]`. The command finds the
//! database in `FRONTROW_DATABASE_URL`, a secret in `FRONTROW_SECRET`, and the permission to use that server,
//! which is fast and not durable, in `FRONTROW_ALLOW_LOSSY_COMMITS`.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use frontrow_testkit::app::SECRET;
use frontrow_testkit::postgres::{Template, database};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("usage: with-postgres COMMAND [ARG ...]")?;
    let empty = Template::new("empty", |_| async { Ok(()) });
    let database = database(&empty).await.context("there is no PostgreSQL on this machine")?;
    let mut command = Command::new(program);
    command.args(words).env("FRONTROW_DATABASE_URL", database.url()).env("FRONTROW_SECRET", SECRET);
    command.env("FRONTROW_ALLOW_LOSSY_COMMITS", "true");
    let status = command.status().context("the command could not be run")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
