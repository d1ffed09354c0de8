//! Starting a throw-away PostgreSQL, sharing it with other processes, and never leaving one behind.
//!
//! A shell process, the keeper (`keeper.sh`), runs and removes the cluster. It is no part of any test process
//! and learns from the kernel when the last of them has gone, so that even a killed test leaves nothing.

use std::{
    env,
    fs::{self, File},
    hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState},
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _, chown},
        process::{CommandExt as _, parent_id},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{certificate::Certificates, programs::Programs};

/// How long a new cluster may take, on a machine that compiles and tests at the same time.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// How long to wait for the keeper of a cluster that is there already.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long a keeper waits for the next user. Test binaries of one run follow each other within this time.
const LINGER_SECONDS: &str = "2";

/// What a cluster gives up for speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Nothing: what was committed survives a stop.
    Full,
    /// It may lose everything when it is stopped.
    None,
}

/// The data of a new cluster.
#[derive(Debug)]
enum Content {
    /// None.
    New(Durability),
    /// All of the server with this connection string and password, which it follows.
    CopyOf { primary: String, password: String },
}

/// This process as a user of a running cluster: as long as the value lives, the cluster is kept.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: PathBuf,
    /// The pipe whose last closing ends the cluster. Open for reading too, although nothing is read from it:
    /// so opening and writing never block and never fail while the keeper is between two reads.
    users: File,
}

impl Keeper {
    /// The cluster of this test run: joined if it is there, started otherwise. Blocks.
    pub(super) fn shared(programs: &Programs) -> anyhow::Result<Self> {
        let uid = own_uid()?;
        // One at a time, so that two processes never start the same cluster.
        let lock = env::temp_dir().join(format!("frontrow-postgres-{uid}.lock"));
        let lock =
            File::options().create(true).append(true).open(&lock).context("cannot open the lock file")?;
        lock.lock().context("cannot take the lock")?;

        let directory = env::temp_dir().join(format!("frontrow-postgres-{uid}-{}", run_key()));
        if let Some(keeper) = Self::join_running(&directory) {
            return Ok(keeper);
        }
        if directory.exists() {
            remove_abandoned(&directory, programs)?;
        }
        fs::create_dir(&directory).context("cannot make the directory of the cluster")?;
        Ok(Self::start(directory, programs, &Content::New(Durability::None))?.0)
    }

    /// A cluster of this process alone, with the keeper's process. Blocks.
    pub(super) fn private(programs: &Programs) -> anyhow::Result<(Self, Child)> {
        let directory = tempfile::Builder::new().prefix("frontrow-postgres-").tempdir()?.keep();
        Self::start(directory, programs, &Content::New(Durability::Full))
    }

    /// A standby of this cluster, with the keeper's process. Blocks.
    pub(super) fn standby(&self, programs: &Programs) -> anyhow::Result<(Self, Child)> {
        let directory = tempfile::Builder::new().prefix("frontrow-postgres-").tempdir()?.keep();
        let (password, port) = (self.read("password")?, self.read("port")?);
        let primary = format!("host=127.0.0.1 port={port} user=frontrow password={password}");
        Self::start(directory, programs, &Content::CopyOf { primary, password })
    }

    /// Fills the empty `directory` and starts a cluster in it.
    fn start(directory: PathBuf, programs: &Programs, content: &Content) -> anyhow::Result<(Self, Child)> {
        let owner = ServerUser::needed(&directory)?;
        write_files(&directory, owner.as_ref(), content)?;
        let child = spawn(&directory, programs, owner.as_ref()).context("cannot start the keeper")?;
        let keeper = Self::join(&directory, START_PATIENCE)?;
        Ok((keeper, child))
    }

    /// Joins a cluster that other processes use; `None` if there is none, or it is gone by now.
    fn join_running(directory: &Path) -> Option<Self> {
        Self::join(directory, JOIN_PATIENCE).ok()
    }

    fn join(directory: &Path, patience: Duration) -> anyhow::Result<Self> {
        let deadline = Instant::now() + patience;
        let users = loop {
            match File::options().read(true).write(true).open(directory.join("users")) {
                Ok(users) => break users,
                Err(error) if !directory.exists() || Instant::now() > deadline => {
                    return Err(error).context("the cluster is gone");
                }
                Err(_) => thread::sleep(POLL_INTERVAL),
            }
        };
        let keeper = Self { directory: directory.to_owned(), users };
        keeper.ask("join", patience)?;
        Ok(keeper)
    }

    /// Has the keeper do `command` and waits for it. The error holds the server's log.
    fn ask(&self, command: &str, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let name = format!("answer-{}", random_hex());
        let answer = self.directory.join(&name);
        (&self.users).write_all(format!("{command} {name}\n").as_bytes())?;
        let status = loop {
            match fs::read_to_string(&answer) {
                Ok(status) => break status,
                Err(_) if !self.directory.exists() => bail!("the cluster is gone"),
                Err(_) if Instant::now() > deadline => bail!("no answer to {command} in {patience:?}"),
                Err(_) => thread::sleep(POLL_INTERVAL),
            }
        };
        fs::remove_file(&answer)?;
        ensure!(status.trim() == "0", "{command} failed, the server's log says:\n{}", self.read("log")?);
        Ok(())
    }

    /// Starts the server again, on the same port. Blocks until it answers.
    pub(super) fn start_server(&self) -> anyhow::Result<()> {
        self.ask("start", START_PATIENCE)
    }

    /// Stops the server as if it had crashed. Blocks until it is gone.
    pub(super) fn stop_server(&self) -> anyhow::Result<()> {
        self.ask("stop", START_PATIENCE)
    }

    /// Has the cluster stopped and removed, whoever uses it. Does not wait.
    pub(super) fn quit(&self) -> std::io::Result<()> {
        (&self.users).write_all(b"quit none\n")
    }

    /// The URL of the maintenance database.
    pub(super) fn url(&self) -> anyhow::Result<String> {
        let (password, port) = (self.read("password")?, self.read("port")?);
        Ok(format!("postgres://frontrow:{password}@127.0.0.1:{port}/postgres"))
    }

    pub(super) fn root_cert_path(&self) -> PathBuf {
        self.directory.join("root.pem")
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn read(&self, name: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.directory.join(name)).with_context(|| format!("cannot read {name}"))
    }
}

/// PostgreSQL refuses to run as root: then it runs as one of these, whichever there is.
pub(super) struct ServerUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl ServerUser {
    /// The user to switch to, if this process, which has made `directory`, is root.
    pub(super) fn needed(directory: &Path) -> anyhow::Result<Option<Self>> {
        if fs::metadata(directory)?.uid() != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let found = ["postgres", "nobody"].iter().find_map(|name| Self::parse(&users, name));
        Ok(Some(
            found.context("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`")?,
        ))
    }

    fn parse(users: &str, name: &str) -> Option<Self> {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }
}

fn write_files(directory: &Path, owner: Option<&ServerUser>, content: &Content) -> anyhow::Result<()> {
    let certificates = Certificates::generate()?;
    let port = free_port()?;
    let (durability, password, primary) = match content {
        Content::New(durability) => (*durability, random_hex() + &random_hex(), None),
        Content::CopyOf { primary, password } => (Durability::Full, password.clone(), Some(primary)),
    };
    let mut files = vec![
        ("password", password),
        ("port", port.to_string()),
        ("settings.conf", settings(directory, port, durability)),
        ("root.pem", certificates.root),
        ("server.pem", certificates.server),
        ("server.key", certificates.server_key),
    ];
    files.extend(primary.map(|primary| ("primary", primary.clone())));
    for (name, content) in files {
        let path = directory.join(name);
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?
            .write_all(content.as_bytes())?;
        hand_over(&path, owner)?;
    }
    fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(hand_over(directory, owner)?)
}

pub(super) fn hand_over(path: &Path, owner: Option<&ServerUser>) -> std::io::Result<()> {
    owner.map_or(Ok(()), |user| chown(path, Some(user.uid), Some(user.gid)))
}

/// What is appended to the `postgresql.conf` that `initdb` makes.
fn settings(directory: &Path, port: u16, durability: Durability) -> String {
    let directory = directory.display();
    let speed = match durability {
        Durability::Full => "",
        Durability::None => "fsync = off\nfull_page_writes = off\n",
    };
    format!(
        "listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = '{directory}'\n\
         ssl = on\n\
         ssl_cert_file = '{directory}/server.pem'\n\
         ssl_key_file = '{directory}/server.key'\n\
         max_connections = 300\n\
         shared_buffers = 32MB\n\
         synchronous_commit = on\n\
         deadlock_timeout = 200ms\n\
         log_lock_waits = on\n\
         lc_messages = 'C'\n\
         timezone = 'UTC'\n\
         {speed}"
    )
}

fn spawn(directory: &Path, programs: &Programs, owner: Option<&ServerUser>) -> std::io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", include_str!("keeper.sh"), "keeper"])
        .arg(programs.directory())
        .arg(LINGER_SECONDS)
        .current_dir(directory)
        // Nothing of the developer's own PostgreSQL (PGDATA, PGPORT, ...) may reach this one.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C")
        // Its own group: an interrupt from the keyboard is for the tests, the keeper cleans up after them.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(user) = owner {
        command.gid(user.gid).uid(user.uid);
    }
    command.spawn()
}

/// Clears away a cluster whose keeper was killed.
fn remove_abandoned(directory: &Path, programs: &Programs) -> anyhow::Result<()> {
    let owner = fs::metadata(directory)?;
    // Fails where no server runs any more, which is as good.
    let _ = Command::new(programs.directory().join("pg_ctl"))
        .args(["-m", "immediate", "-w", "-t", "20", "-D"])
        .arg(directory.join("data"))
        .arg("stop")
        .current_dir("/")
        .gid(owner.gid())
        .uid(owner.uid())
        .stdin(Stdio::null())
        .output();
    fs::remove_dir_all(directory).context("cannot remove an abandoned cluster")
}

/// The same for every process that one run of `cargo test` or nextest starts, and for no other: who started
/// this process, and when that one was started itself (where `/proc` tells).
pub(super) fn run_key() -> String {
    let runner = parent_id();
    let stat = fs::read_to_string(format!("/proc/{runner}/stat")).unwrap_or_default();
    // Field 22; the second one, the name in brackets, may hold spaces.
    let started = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(19)).unwrap_or("");
    let mut hasher = DefaultHasher::new();
    (runner, started).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// 64 random bits.
pub(super) fn random_hex() -> String {
    format!("{:016x}", RandomState::new().hash_one(()))
}

/// A port nobody listens on, below those that systems give to outgoing connections: else one of these could
/// take it while the server is stopped.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let offset = RandomState::new().hash_one(()) % 10_000;
    let first = 20_000 + u16::try_from(offset)?;
    (first..30_000)
        .chain(20_000..first)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no free port")
}

fn own_uid() -> std::io::Result<u32> {
    Ok(tempfile::tempfile()?.metadata()?.uid())
}
