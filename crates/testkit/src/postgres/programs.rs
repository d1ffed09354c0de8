//! Where the programs of a PostgreSQL server are, and what happens where there are none.

use std::{
    cmp::Reverse,
    env, fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

/// A directory that holds every program a cluster needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs(PathBuf);

impl Programs {
    /// The first of `directories` that holds `initdb`, `postgres` and `pg_ctl` together. A directory with only
    /// some of them is passed over: it belongs to a client, or to something else of that name.
    pub fn find(directories: impl IntoIterator<Item = PathBuf>) -> Option<Self> {
        directories
            .into_iter()
            .find(|directory| {
                ["initdb", "postgres", "pg_ctl"].iter().all(|name| executable(&directory.join(name)))
            })
            .map(Self)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }
}

/// Where to look, in this order: `PATH`, what `pg_config` says, Debian's directories with the newest first.
pub fn search_list() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(told_by_pg_config()).chain(debian()).collect()
}

/// Passes on what was found. Otherwise says once per process, on standard error, that PostgreSQL tests are
/// skipped.
///
/// # Panics
/// If nothing was found although it is `required`.
pub fn found_or_skipped(found: Option<Programs>, required: bool) -> Option<Programs> {
    const MISSING: &str = "no directory holds initdb, postgres and pg_ctl \
        (looked in PATH, `pg_config --bindir`, /usr/lib/postgresql/*/bin)";
    static SAID: Once = Once::new();
    if found.is_none() {
        assert!(!required, "FRONTROW_REQUIRE_POSTGRES is set, but {MISSING}");
        // Not `eprintln!`, which the test harness captures and shows for failed tests only.
        SAID.call_once(|| drop(writeln!(std::io::stderr(), "PostgreSQL tests skipped: {MISSING}")));
    }
    found
}

fn executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn told_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(directory.trim()))
}

fn debian() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| Reverse(*version));
    versions.into_iter().map(|(_, directory)| directory).collect()
}
