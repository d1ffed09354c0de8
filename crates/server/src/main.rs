//! The `frontrow` binary.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::error::ErrorKind;
use frontrow::app::{self, Settings};
use frontrow::cli::{Cli, Command, LogFormat, Options, RoleArg, TokenArgs, in_a_line};
use frontrow::tokens::TokenSettings;
use frontrow::{audit, backend, demo, file, load};
use frontrow_domain::UserId;
use frontrow_domain::ports::{AccessClaims, AccessTokens, Clock, IdGenerator, Role};
use frontrow_infra::identity::{SystemClock, UuidV7};
use mimalloc::MiMalloc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tracing_subscriber::EnvFilter;

/// Requests are many small allocations on a few threads, which this allocator does with fewer instructions
/// (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The exit code of an audit with a breach.
const BREACH: u8 = 1;
/// The exit code of a wrong option, or of a database that cannot be used.
const UNUSABLE: u8 = 2;
/// The environment variable that filters the log.
const LOG: &str = "FRONTROW_LOG";

fn main() -> ExitCode {
    let cli = match Cli::parse_line(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => return unusable(&in_a_line(&error)),
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime");
    let ended = runtime.and_then(|runtime| {
        start_log(cli.options.log_format, cli.command.as_ref())?;
        runtime.block_on(run(cli))
    });
    match ended {
        Ok(code) => code,
        Err(error) => unusable(&format!("{error:#}").replace('\n', " ")),
    }
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
    let told_to_stop = told_to_stop()?;
    let running = app::start(settings).await?;
    tracing::info!("listening on http://{}", running.address);
    told_to_stop.await;
    tracing::info!("stopping");
    running.stop().await?;
    Ok(ExitCode::SUCCESS)
}

/// A write beyond a limit of the size of files (`ulimit -f`, `LimitFSIZE=`) ends a process, unless it handles the signal:
/// then the write fails, like one on a full disk.
fn outlive_limits_of_files() -> Result<()> {
    // Handled until the process ends, whether or not anybody listens.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    Ok(())
}

async fn demo(args: frontrow::cli::DemoArgs, options: &Options) -> Result<ExitCode> {
    let demo = demo::start(args, options).await?;
    let report = demo.run().await?;
    print(&report.text)?;
    if args.exit {
        demo.stop().await?;
    } else {
        print(&format!("serving on http://{} until told to stop (Ctrl-C)", demo.address()))?;
        told_to_stop()?.await;
        demo.stop().await?;
    }
    Ok(if report.is_good { ExitCode::SUCCESS } else { ExitCode::from(BREACH) })
}

/// Waits for a signal that stops the process. It is handled from this call on, whether or not anything waits yet.
fn told_to_stop() -> Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
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
        user_id: UserId::new(args.user.unwrap_or_else(|| UuidV7.next_id())),
        role,
        expires_at: SystemClock::default().now().plus_seconds(args.ttl_seconds),
    };
    Ok(tokens.own().issue(&claims)?)
}

/// The log goes to standard error. `FRONTROW_LOG` filters it; the demo's has warnings only, beside its progress bar. What
/// clients do wrong on the wire is no error of ours, though actix calls it one: whoever sends rubbish would fill the disk.
fn start_log(format: LogFormat, command: Option<&Command>) -> Result<()> {
    let filter = if std::env::var_os(LOG).is_some() {
        let filter = EnvFilter::try_from_env(LOG);
        filter.map_err(|error| anyhow!("{LOG} is like info or warn,frontrow=debug: {error}"))?
    } else if matches!(command, Some(Command::Demo(_))) {
        EnvFilter::new("warn,actix_http=off")
    } else {
        EnvFilter::new("info,actix_server=warn,actix_http=off")
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
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
