//! The command line. Every option is also an environment variable of the same name.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::builder::NonEmptyStringValueParser;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use frontrow_api::{Origins, OverloadLimits, Rate, RateRules, TrustedProxies};
use frontrow_app::HoldRules;
use frontrow_domain::account::WalletCharging;
use frontrow_domain::queue::{InvalidPolicy, RoomPolicy, RoomPolicyPatch};
use frontrow_infra::identity::Expected;
use uuid::Uuid;

use crate::backend::DatabaseOptions;
use crate::http::ClientRules;

/// Ticket on-sales that are fair, correct and fast.
#[derive(Debug, Parser)]
#[command(name = "frontrow", version, about)]
pub struct Cli {
    /// What to do; `serve` when absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of every command.
    #[command(flatten)]
    pub options: Options,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serves
    Serve {
        /// Leaves the schema as it is
        #[arg(long, env = "FRONTROW_NO_MIGRATE")]
        no_migrate: bool,
    },
    /// Sends a crowd of simulated buyers through a throw-away server, then prints sales and audit
    Demo(DemoArgs),
    /// Fills a waiting room with people who never come, for tests and sizing
    Load(LoadArgs),
    /// Brings the schema up to date
    Migrate,
    /// Checks a live database's invariants; exits 1 on any breach
    Audit {
        /// Prints a JSON document instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Back up the SQLite database to a file, consistently and while it is served
    Backup(BackupArgs),
    /// Restore the SQLite database from a backup, while it is not served
    Restore(RestoreArgs),
    /// Prints an access token
    Token(TokenArgs),
    /// Prints the OpenAPI document
    Openapi,
}

impl Cli {
    /// Reads a command line and the environment. The demo, which makes concerts and a crowd, takes its database from the
    /// command line alone: in the environment is that of a live sale.
    ///
    /// # Errors
    /// Those of clap, help and version among them.
    pub fn parse_line<I, T>(words: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let is_given = matches.value_source("database_url") == Some(ValueSource::CommandLine);
        if matches!(cli.command, Some(Command::Demo(_))) && !is_given {
            cli.options.database_url = None;
        }
        Ok(cli)
    }
}

/// How the lines begin that clap adds to what is wrong.
const ADVICE: [&str; 3] = ["tip: ", "Usage: ", "For more information"];

/// What is wrong with a command line, in one line.
#[must_use]
pub fn in_a_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let is_advice = |line: &str| ADVICE.iter().any(|start| line.starts_with(start));
    let lines = text.lines().map(str::trim).take_while(|line| !is_advice(line));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Options of `demo`.
#[derive(Debug, Clone, Copy, Args)]
pub struct DemoArgs {
    /// How many people come
    #[arg(long, env = "FRONTROW_DEMO_BUYERS", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub buyers: u32,
    /// How many seats there are
    #[arg(long, env = "FRONTROW_DEMO_SEATS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub seats: u32,
    /// Stops when the crowd is through, with exit code 1 if the audit fails
    #[arg(long)]
    pub exit: bool,
    /// Run on a database that holds concerts already
    #[arg(long)]
    pub into_existing: bool,
}

/// Options of `load`.
#[derive(Debug, Clone, Copy, Args)]
pub struct LoadArgs {
    /// How many people wait
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub people: u32,
    /// The waiting room; the global one when absent
    #[arg(long)]
    pub room: Option<Uuid>,
    /// Fill a room of a database that holds concerts already
    #[arg(long)]
    pub into_existing: bool,
}

/// Options of `backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// File to write the backup to, readable by its owner alone
    pub path: PathBuf,
    /// Replace a file of that name
    #[arg(long)]
    pub overwrite: bool,
    /// Also copy the secret next to the database, to PATH.secret
    #[arg(long)]
    pub with_secret: bool,
}

/// Options of `restore`.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// File of the backup
    pub path: PathBuf,
    /// Replace the database that is there; it is kept as DATABASE.replaced-TIME
    #[arg(long)]
    pub replace: bool,
    /// Also restore PATH.secret
    #[arg(long)]
    pub with_secret: bool,
}

/// Options of `token`.
#[derive(Debug, Clone, Copy, Args)]
pub struct TokenArgs {
    /// What the bearer may do
    #[arg(long, value_enum, default_value_t = RoleArg::User)]
    pub role: RoleArg,
    /// Who the bearer is; a new user when absent
    #[arg(long)]
    pub user: Option<Uuid>,
    /// How long the token is good, in seconds
    #[arg(long, default_value_t = 24 * 60 * 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub ttl_seconds: u32,
}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// A buyer
    User,
    /// An operator
    Admin,
    /// A payment backend, which charges wallets under --wallet-charging cashier
    Cashier,
}

/// Who may charge a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WalletChargingArg {
    /// Its owner
    #[value(name = "self")]
    Owner,
    /// An access token with the role "cashier", for anybody, and nobody else
    Cashier,
}

impl From<WalletChargingArg> for WalletCharging {
    fn from(arg: WalletChargingArg) -> Self {
        match arg {
            WalletChargingArg::Owner => Self::Owner,
            WalletChargingArg::Cashier => Self::Cashier,
        }
    }
}

/// Options of every command.
#[derive(Clone, Args)]
pub struct Options {
    /// Where to listen
    #[arg(long, env = "FRONTROW_BIND", default_value = "127.0.0.1:8080", global = true)]
    pub bind: String,
    /// `sqlite:PATH` or `postgres://...`
    #[arg(long, env = "FRONTROW_DATABASE_URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,
    /// Signs tokens; at least 32 bytes. With SQLite one is made and kept beside the file
    #[arg(long, env = "FRONTROW_SECRET", hide_env_values = true, global = true)]
    pub secret: Option<String>,
    /// Secrets that signed before: their tokens stay good. Separated by commas, or given again
    #[arg(
        long,
        env = "FRONTROW_PREVIOUS_SECRETS",
        hide_env_values = true,
        value_delimiter = ',',
        global = true
    )]
    pub previous_secrets: Vec<String>,
    /// The RSA, P-256 or Ed25519 public key (PEM) of an outside identity provider
    #[arg(
        long,
        env = "FRONTROW_IDENTITY_PUBLIC_KEY",
        value_name = "PATH",
        conflicts_with = "identity_jwks",
        global = true
    )]
    pub identity_public_key: Option<PathBuf>,
    /// The RSA, P-256 and Ed25519 public keys (JWK set) of an outside identity provider; read again when they change
    #[arg(long, env = "FRONTROW_IDENTITY_JWKS", value_name = "PATH", global = true)]
    pub identity_jwks: Option<PathBuf>,
    /// Who must have issued every access token (`iss`)
    #[arg(long, env = "FRONTROW_IDENTITY_ISSUER", value_name = "ISSUER", value_parser = NonEmptyStringValueParser::new(), global = true)]
    pub identity_issuer: Option<String>,
    /// For whom every access token must be (`aud`)
    #[arg(long, env = "FRONTROW_IDENTITY_AUDIENCE", value_name = "AUDIENCE", value_parser = NonEmptyStringValueParser::new(), global = true)]
    pub identity_audience: Option<String>,
    /// Claim that names the roles in the provider's access tokens, or its path, for example realm_access.roles [default: role]
    #[arg(long, env = "FRONTROW_IDENTITY_ROLE_CLAIM", value_name = "CLAIM", value_parser = NonEmptyStringValueParser::new(), global = true)]
    pub identity_role_claim: Option<String>,
    /// How long a reservation holds its seats [default: 300]
    #[arg(long, env = "FRONTROW_HOLD_SECONDS", global = true, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub hold_seconds: Option<u32>,
    /// How many seats one user may hold or buy on one date
    #[arg(long, env = "FRONTROW_MAX_SEATS_PER_USER", default_value_t = 4, global = true, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub max_seats_per_user: u32,
    /// Who may charge a wallet
    #[arg(long, env = "FRONTROW_WALLET_CHARGING", value_enum, default_value_t = WalletChargingArg::Owner, global = true)]
    pub wallet_charging: WalletChargingArg,
    /// How many people the global room admits a tick [default: 10]
    #[arg(long, env = "FRONTROW_ADMIT_BATCH", global = true)]
    pub admit_batch: Option<i64>,
    /// How many seconds lie between two ticks of the global room [default: 600]
    #[arg(long, env = "FRONTROW_ADMIT_INTERVAL_SECONDS", global = true)]
    pub admit_interval_seconds: Option<i64>,
    /// For how many seconds the global room lets somebody in [default: 600]
    #[arg(long, env = "FRONTROW_ACTIVE_TTL_SECONDS", global = true)]
    pub active_ttl_seconds: Option<i64>,
    /// How many units of work one transaction of the database takes at most [default: 256 on SQLite, 128 on PostgreSQL]
    #[arg(long, env = "FRONTROW_GROUP_COMMIT_LIMIT", global = true, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    pub group_commit_limit: Option<u16>,
    /// Connections to PostgreSQL at most [default: 16]
    #[arg(long, env = "FRONTROW_DATABASE_CONNECTIONS", value_name = "N", global = true, value_parser = clap::value_parser!(u16).range(6..=1_000))]
    pub database_connections: Option<u16>,
    /// Serves from a PostgreSQL that may lose acknowledged writes in a crash: fsync or synchronous_commit is off
    #[arg(long, env = "FRONTROW_ALLOW_LOSSY_COMMITS", global = true)]
    pub allow_lossy_commits: bool,
    /// Refuses a PostgreSQL without a synchronous replica: synchronous_standby_names is empty
    #[arg(long, env = "FRONTROW_REQUIRE_SYNC_REPLICA", global = true)]
    pub require_sync_replica: bool,
    /// How often one caller may call, as 20/s or 600/m; as often as it likes when absent
    #[arg(long, env = "FRONTROW_RATE_LIMIT_PER_CALLER", value_name = "RATE", global = true)]
    pub rate_limit_per_caller: Option<Rate>,
    /// How often one address (of IPv6, one /64) may call, as 20/s or 600/m; as often as it likes when absent
    #[arg(long, env = "FRONTROW_RATE_LIMIT_PER_ADDRESS", value_name = "RATE", global = true)]
    pub rate_limit_per_address: Option<Rate>,
    /// The networks of proxies that are believed when they name their client, as 10.0.0.0/8,192.0.2.1; none when absent
    #[arg(long, env = "FRONTROW_TRUSTED_PROXIES", value_name = "NETWORKS", global = true)]
    pub trusted_proxies: Option<TrustedProxies>,
    /// The origins of pages that may call, as https://a.example,https://b.example, or *; none when absent
    #[arg(long, env = "FRONTROW_CORS_ORIGINS", value_name = "ORIGINS", global = true)]
    pub cors_origins: Option<Origins>,
    /// How many connections are served at once; further ones wait [default: 50000 a core]
    #[arg(long, env = "FRONTROW_MAX_CONNECTIONS", value_name = "N", global = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: Option<u32>,
    /// Maximum concurrent connections of one address (of IPv6, one /64); more are closed. Trusted proxies have no limit [default: a quarter of --max-connections]
    #[arg(long, env = "FRONTROW_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N", global = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections_per_address: Option<u32>,
    /// How long a client may take to send a request, or go without taking any of its answer
    #[arg(long, env = "FRONTROW_CLIENT_TIMEOUT_SECONDS", default_value_t = 30, global = true, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub client_timeout_seconds: u32,
    /// How many milliseconds requests may take on average under overload; more are refused before that is passed
    #[arg(long, env = "FRONTROW_OVERLOAD_TARGET_MS", default_value_t = 100, global = true, value_parser = clap::value_parser!(u32).range(1..=600_000))]
    pub overload_target_ms: u32,
    /// How many hours a queue token is kept after its end
    #[arg(long, env = "FRONTROW_TOKEN_RETENTION_HOURS", default_value_t = 168, global = true, value_parser = clap::value_parser!(u32).range(1..=87_600))]
    pub token_retention_hours: u32,
    /// How to write the log
    #[arg(long, env = "FRONTROW_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// Without secrets and the password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("bind", &self.bind).finish_non_exhaustive()
    }
}

/// How to write the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object a line
    Json,
}

impl Options {
    /// How long a hold lasts where nothing else is said, in seconds: the contract's five minutes.
    pub const HOLD_SECONDS: u32 = 300;

    /// Which database; `frontrow.db` in the working directory when nothing is said. Not read by clap, which repeats
    /// what it cannot read: there may be a password in it.
    ///
    /// # Errors
    /// What a URL looks like.
    pub fn database(&self) -> Result<DatabaseUrl> {
        let Some(url) = &self.database_url else {
            return Ok(DatabaseUrl::Sqlite(PathBuf::from("frontrow.db")));
        };
        url.parse().map_err(|expected: &str| anyhow!("--database-url (FRONTROW_DATABASE_URL): {expected}"))
    }

    /// Whether access tokens come from an outside identity provider, so that none can be made here.
    #[must_use]
    pub fn has_identity_provider(&self) -> bool {
        self.identity_public_key.is_some() || self.identity_jwks.is_some()
    }

    /// What every access token must say besides.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected {
            issuer: self.identity_issuer.clone(),
            audience: self.identity_audience.clone(),
            role_claim: self.identity_role_claim.clone(),
        }
    }

    /// The limits of holds.
    #[must_use]
    pub fn hold_rules(&self) -> HoldRules {
        HoldRules {
            hold_seconds: self.hold_seconds.unwrap_or(Self::HOLD_SECONDS),
            max_seats_per_user: self.max_seats_per_user,
        }
    }

    /// What clients may do.
    #[must_use]
    pub fn client_rules(&self) -> ClientRules {
        let count = |limit: u32| usize::try_from(limit).ok();
        ClientRules {
            rates: RateRules {
                per_caller: self.rate_limit_per_caller,
                per_address: self.rate_limit_per_address,
                trusted_proxies: self.trusted_proxies.clone().unwrap_or_default(),
            },
            origins: self.cors_origins.clone(),
            max_connections: self.max_connections.and_then(count),
            max_connections_per_address: self.max_connections_per_address.and_then(count),
            timeout: Duration::from_secs(self.client_timeout_seconds.into()),
            work_within: ClientRules::WORK_WITHIN,
            overload: OverloadLimits::new(Duration::from_millis(self.overload_target_ms.into())),
        }
    }

    /// How long a queue token is kept after its end, in seconds.
    #[must_use]
    pub fn keep_tokens_for(&self) -> u32 {
        self.token_retention_hours.saturating_mul(60 * 60)
    }

    /// How the database is used.
    #[must_use]
    pub const fn database_options(&self) -> DatabaseOptions {
        DatabaseOptions {
            group_commit_limit: self.group_commit_limit,
            connections: self.database_connections,
            allow_lossy_commits: self.allow_lossy_commits,
            require_sync_replica: self.require_sync_replica,
        }
    }

    /// The policy of the global room when it is first made.
    ///
    /// # Errors
    /// [`InvalidPolicy`] names a number out of range.
    pub fn global_policy(&self) -> Result<RoomPolicy, InvalidPolicy> {
        RoomPolicy::default().patched(&RoomPolicyPatch {
            admit_batch: self.admit_batch,
            admit_interval_seconds: self.admit_interval_seconds,
            active_ttl_seconds: self.active_ttl_seconds,
            ..RoomPolicyPatch::default()
        })
    }
}

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A server, by its URL. Has a password: never printed.
    Postgres(String),
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres://..."),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
        match path {
            Some(path) if !path.is_empty() => Ok(Self::Sqlite(PathBuf::from(path))),
            _ => Err("a database URL is sqlite:PATH or postgres://..."),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// Pieces of command lines, and some that are none.
    fn words() -> impl Strategy<Value = Vec<String>> {
        let options: Vec<String> =
            Cli::command().get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect();
        let option = (prop::sample::select(options), prop::option::of(".{0,12}"));
        let word = prop_oneof![
            "serve|demo|load|migrate|audit|backup|restore|token|openapi",
            option.prop_map(|(name, value)| match value {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            }),
            "[0-9a-z./,:*-]{0,12}",
            ".*",
        ];
        prop::collection::vec(word, 0..6)
    }

    proptest! {
        #[test]
        fn any_text_is_a_database_url_or_none(text in prop_oneof![
            ".*",
            "(sqlite|postgres|postgresql):(//)?[a-z/.@:?]{0,20}",
        ]) {
            match text.parse() {
                Ok(DatabaseUrl::Postgres(url)) => {
                    prop_assert!(text.starts_with("postgres://") || text.starts_with("postgresql://"));
                    prop_assert_eq!(url, text);
                }
                Ok(DatabaseUrl::Sqlite(path)) => {
                    let again = format!("sqlite://{}", path.display());
                    prop_assert_eq!(again.parse(), Ok(DatabaseUrl::Sqlite(path)));
                }
                Err(expected) => prop_assert_eq!(expected, "a database URL is sqlite:PATH or postgres://..."),
            }
        }

        #[test]
        fn any_command_line_is_one_or_refused_without_its_secrets(words in words(), at in any::<Index>()) {
            let mut line = vec!["frontrow".to_owned()];
            line.extend(words);
            // Behind a lone `--` nothing is an option, and a secret no secret.
            prop_assume!(!line.contains(&"--".to_owned()));
            let given = ["--secret=hunter2-hunter2-hunter2-hunter2", "--database-url=postgre://u:hunter2@h/d"];
            let at = 1 + at.index(line.len());
            line.splice(at..at, given.map(str::to_owned));
            match Cli::try_parse_from(&line) {
                Err(error) => {
                    prop_assert!(!error.to_string().contains("hunter2"), "{}", error);
                    let line = in_a_line(&error);
                    prop_assert!(!line.is_empty() && line.lines().count() == 1, "{:?}", line);
                }
                // What clap takes is looked at once more before anything starts.
                Ok(Cli { options, .. }) => {
                    let _rules = (options.global_policy().is_ok(), options.client_rules());
                    let error = options.database().unwrap_err().to_string();
                    prop_assert!(!format!("{error} {options:?}").contains("hunter2"), "{}", error);
                }
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn database_urls() {
        let sqlite = |path: &str| Ok(DatabaseUrl::Sqlite(PathBuf::from(path)));
        assert_eq!("sqlite:a/b.db".parse(), sqlite("a/b.db"));
        assert_eq!("sqlite:///tmp/b.db".parse(), sqlite("/tmp/b.db"));
        let url = "postgres://me:secret@h/db";
        let parsed: DatabaseUrl = url.parse().unwrap();
        assert_eq!(parsed, DatabaseUrl::Postgres(url.to_owned()));
        assert!(!format!("{parsed:?}").contains("secret"));
        for bad in ["", "sqlite:", "mysql://x", "frontrow.db"] {
            assert!(bad.parse::<DatabaseUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_the_contracts() {
        let options = Cli::try_parse_from(["frontrow"]).unwrap().options;
        assert_eq!(options.hold_rules(), HoldRules { hold_seconds: 300, max_seats_per_user: 4 });
        assert_eq!(options.global_policy(), Ok(RoomPolicy::default()));
        assert_eq!(options.bind, "127.0.0.1:8080");
        assert_eq!(
            (options.client_rules().overload.target.as_millis(), options.keep_tokens_for()),
            (100, 604_800)
        );
        assert_eq!(format!("{:?}", options.database().unwrap()), "sqlite:frontrow.db");
    }

    #[test]
    fn database_connections_are_six_at_least() {
        let parsed = |arguments: &[&str]| {
            let arguments = ["frontrow"].iter().chain(arguments);
            Cli::try_parse_from(arguments).ok().map(|cli| cli.options.database_options())
        };
        let default = parsed(&[]).unwrap();
        assert_eq!(default.connections, None);
        assert!(!default.allow_lossy_commits && !default.require_sync_replica);
        assert_eq!(parsed(&["--database-connections", "6"]).unwrap().connections, Some(6));
        assert!(parsed(&["--allow-lossy-commits"]).unwrap().allow_lossy_commits);
        for bad in ["5", "0", "1001", "-1", "many"] {
            assert!(parsed(&["--database-connections", bad]).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_database_url_that_cannot_be_read_is_not_repeated() {
        let typo = ["frontrow", "--database-url", "postgre://me:hunter2@h/db"];
        let error = Cli::try_parse_from(typo).unwrap().options.database().unwrap_err().to_string();
        assert!(error.contains("--database-url") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_transaction_takes_one_unit_of_work_at_least() {
        let limit = |text| {
            let parsed = Cli::try_parse_from(["frontrow", "--group-commit-limit", text]);
            parsed.ok().and_then(|cli| cli.options.group_commit_limit)
        };
        assert_eq!([limit("0"), limit("1"), limit("256"), limit("4097")], [None, Some(1), Some(256), None]);
    }

    #[test]
    fn clients_are_limited_where_it_is_said() {
        let rules = |args: &[&str]| {
            let args = ["frontrow"].iter().chain(args);
            Cli::try_parse_from(args).unwrap().options.client_rules()
        };
        let unlimited = rules(&[]);
        assert!(unlimited.rates.per_caller.is_none() && unlimited.rates.per_address.is_none());
        assert_eq!((unlimited.origins, unlimited.max_connections), (None, None));
        assert_eq!(unlimited.max_connections_per_address, None);
        assert_eq!(unlimited.timeout, ClientRules::default().timeout, "but never for ever");
        let limited = rules(&[
            "--rate-limit-per-caller=20/s",
            "--rate-limit-per-address=600/m",
            "--trusted-proxies=10.0.0.0/8,192.0.2.1",
            "--cors-origins=https://a.example",
            "--max-connections=1000",
            "--max-connections-per-address=100",
            "--client-timeout-seconds=5",
        ]);
        assert_eq!(limited.rates.per_caller, "20/s".parse().ok());
        assert_eq!(limited.rates.per_address, "600/m".parse().ok());
        assert_eq!(limited.origins, "https://a.example".parse().ok());
        assert_eq!(limited.max_connections_per_address, Some(100));
        assert_eq!((limited.max_connections, limited.timeout), (Some(1_000), Duration::from_secs(5)));
    }

    #[test]
    fn what_is_wrong_with_a_command_line_is_said_in_one_line() {
        for (args, expected) in [
            ("load", "the following required arguments were not provided: --people <PEOPLE>"),
            (
                "token --role x",
                "invalid value 'x' for '--role <ROLE>' [possible values: user, admin, cashier]",
            ),
            (
                "token --role",
                "a value is required for '--role <ROLE>' but none was supplied [possible values: user, admin, cashier]",
            ),
            (
                "--wallet-charging x",
                "invalid value 'x' for '--wallet-charging <WALLET_CHARGING>' [possible values: self, cashier]",
            ),
            (
                "--log-format xml",
                "invalid value 'xml' for '--log-format <LOG_FORMAT>' [possible values: text, json]",
            ),
            (
                "--hold-seconds 0",
                "invalid value '0' for '--hold-seconds <HOLD_SECONDS>': 0 is not in 1..=86400",
            ),
            (
                "--hold-seconds=a\n\nb",
                "invalid value 'a b' for '--hold-seconds <HOLD_SECONDS>': invalid digit found in string",
            ),
            ("--nonsense", "unexpected argument '--nonsense' found"),
        ] {
            let words = ["frontrow"].into_iter().chain(args.split(' '));
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(in_a_line(&error), expected, "{args}");
        }
    }

    #[test]
    fn a_demo_takes_its_database_from_the_command_line() {
        for args in [
            ["frontrow", "demo", "--database-url", "sqlite:a"],
            ["frontrow", "--database-url", "sqlite:a", "demo"],
        ] {
            let options = Cli::parse_line(args).unwrap().options;
            assert_eq!(options.database_url.as_deref(), Some("sqlite:a"), "{args:?}");
        }
        assert_eq!(Cli::parse_line(["frontrow", "demo"]).unwrap().options.database_url, None);
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        for args in [["frontrow", "--bind", "h:1", "serve"], ["frontrow", "serve", "--bind", "h:1"]] {
            assert_eq!(Cli::try_parse_from(args).unwrap().options.bind, "h:1");
        }
        let bad = Cli::try_parse_from(["frontrow", "--admit-batch", "0"]).unwrap().options;
        assert_eq!(bad.global_policy().unwrap_err().field, "admitBatch");
    }
}
