//! The `frontrow` binary.

use std::future::ready;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use frontrow::app::{self, Settings};
use frontrow::cli::{Cli, Command, DemoArgs, Options, RoleArg, TokenArgs, in_a_line};
use frontrow::log::Log;
use frontrow::signals::StopSignals;
use frontrow::tokens::TokenSettings;
use frontrow::{audit, backend, demo, file, load};
use frontrow_domain::UserId;
use frontrow_domain::ports::{AccessClaims, AccessTokens, Clock, IdGenerator, Role};
use frontrow_infra::identity::{SystemClock, UuidV7};
use mimalloc::MiMalloc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

/// Requests are many small allocations on a few threads, which this allocator does with fewer instructions
/// (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The exit code of an audit with a breach.
const BREACH: u8 = 1;
/// The exit code of a wrong option, or of a database that cannot be used.
const UNUSABLE: u8 = 2;
/// How long work on other threads may go on when the process is about to end.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// What is logged unless `FRONTROW_LOG` says otherwise. Malformed requests are no errors of the server, though actix logs them
/// as such: a client that sends rubbish would fill the disk.
const LOGGED: &str = "info,actix_server=warn,actix_http=off";
/// The same for the demo: warnings only, next to its progress bar.
const LOGGED_IN_DEMO: &str = "warn,actix_http=off";

fn main() -> ExitCode {
    let cli = match Cli::parse_line(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => return unusable(&in_a_line(&error)),
    };
    let logged = if matches!(cli.command, Some(Command::Demo(_))) { LOGGED_IN_DEMO } else { LOGGED };
    let log = match Log::start(cli.options.log_format, logged) {
        Ok(log) => log,
        Err(error) => return unusable(&format!("{error:#}")),
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime");
    let ended = runtime.and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        // A check of the database, or a stuck disk, must not keep a process that was told to stop.
        runtime.shutdown_timeout(ENDS_WITHIN);
        ended
    });
    let code = match ended {
        Ok(code) => code,
        Err(error) => {
            // By the log's own thread: standard error may be stalled, and the process must end all the same.
            log.say(&format!("frontrow: {error:#}").replace('\n', " "));
            ExitCode::from(UNUSABLE)
        }
    };
    log.end();
    code
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let options = cli.options;
    match cli.command.unwrap_or(Command::Serve { no_migrate: false }) {
        Command::Serve { no_migrate } => serve(Settings::new(&options, !no_migrate)?).await,
        Command::Demo(args) => demo(args, &options).await,
        Command::Load(args) => {
            print(&load::load(args, &options.database()?, options.global_policy()?).await?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Migrate => {
            let database = options.database()?;
            spawn_blocking(move || file::check_log(&database)).await??;
            app::prepare(&options.database()?, options.global_policy()?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Audit { json } => {
            let (database, audited_at) = (options.database()?, SystemClock::default().now());
            file::require_own_log(&database)?;
            let findings = backend::audit(&database).await?;
            let report =
                if json { audit::json(&findings, &database, audited_at)? } else { audit::table(&findings) };
            print(&report)?;
            Ok(if audit::is_clean(&findings) { ExitCode::SUCCESS } else { ExitCode::from(BREACH) })
        }
        Command::Backup(args) => {
            let database = options.database()?;
            print(&spawn_blocking(move || file::backup(&args, &database)).await??)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Restore(args) => {
            let database = options.database()?;
            print(&spawn_blocking(move || file::restore(&args, &database)).await??)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Token(args) => {
            print(&access_token(args, &options)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi => {
            print(&frontrow_api::openapi_json())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn serve(settings: Settings) -> Result<ExitCode> {
    outlive_limits_of_files()?;
    let mut stop = StopSignals::listen()?;
    let running = tokio::select! {
        running = app::start(settings) => running?,
        () = stop.received() => return Ok(ExitCode::SUCCESS),
    };
    tracing::info!("listening on http://{}", running.address);
    let stopping = async {
        stop.received().await;
        tracing::info!("stopping");
    };
    running.run_until(stopping).await?;
    Ok(ExitCode::SUCCESS)
}

/// A write beyond a limit of the size of files (`ulimit -f`, `LimitFSIZE=`) ends a process, unless it handles the signal:
/// then the write fails, like one on a full disk.
fn outlive_limits_of_files() -> Result<()> {
    // Handled until the process ends, whether or not anybody listens.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    Ok(())
}

/// A demo that is told to stop before its crowd is through has nothing to report.
async fn demo(args: DemoArgs, options: &Options) -> Result<ExitCode> {
    let mut stop = StopSignals::listen()?;
    let demo = tokio::select! {
        demo = demo::start(args, options) => demo?,
        () = stop.received() => return Ok(ExitCode::SUCCESS),
    };
    let report = tokio::select! {
        report = demo.run() => Some(report?),
        () = stop.received() => None,
    };
    let Some(report) = report else {
        demo.run_until(ready(())).await?;
        return Ok(ExitCode::SUCCESS);
    };
    print(&report.text)?;
    if args.exit {
        demo.run_until(ready(())).await?;
    } else {
        print(&format!("serving on http://{} until told to stop (Ctrl-C)", demo.address()))?;
        demo.run_until(stop.received()).await?;
    }
    Ok(if report.is_good { ExitCode::SUCCESS } else { ExitCode::from(BREACH) })
}

fn access_token(args: TokenArgs, options: &Options) -> Result<String> {
    if options.has_identity_provider() {
        anyhow::bail!("with --identity-public-key or --identity-jwks the outside provider makes the tokens");
    }
    let tokens = TokenSettings::new(options, &options.database()?)?;
    let role = match args.role {
        RoleArg::User => Role::User,
        RoleArg::Admin => Role::Admin,
        RoleArg::Cashier => Role::Cashier,
    };
    let claims = AccessClaims {
        user_id: UserId::new(args.user.unwrap_or_else(|| UuidV7::default().next_id())),
        role,
        expires_at: SystemClock::default().now().plus_seconds(args.ttl_seconds),
    };
    Ok(tokens.own().issue(&claims)?)
}

/// Writes to standard output, where what a command was asked for belongs.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

fn unusable(line: &str) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "frontrow: {line}");
    ExitCode::from(UNUSABLE)
}
