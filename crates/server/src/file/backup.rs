//! `frontrow backup`: a consistent copy of a SQLite file, next to whatever serves it.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use frontrow_infra::sqlite::{Contents, Sqlite};
use tempfile::{Builder, NamedTempFile};

use super::marker::random_marker;
use super::{check_log, folder_of, is_same_file, sqlite_file, sync_folder, unfinished_log, with_suffix};
use crate::beside::beside;
use crate::cli::{BackupArgs, DatabaseUrl};
use crate::secret;

/// Copies a database, checks the copy, and gives it its name when it is durable. Returns a line that says
/// what was written.
///
/// # Errors
/// When the copy cannot be made, or is damaged. There is no file of the name then, or the one that was there
/// before.
pub fn backup(args: &BackupArgs, database: &DatabaseUrl) -> Result<String> {
    let source = sqlite_file(database, "backup")?;
    let target = &args.path;
    check_log(database)?;
    require_free(target, source, args.overwrite)?;
    let staged = stage(target)?;
    Sqlite::copy(source, staged.path(), random_marker())
        .with_context(|| format!("cannot back up {}", source.display()))?;
    let contents = Sqlite::verify(staged.path());
    let contents = contents.with_context(|| format!("the copy of {} is no backup", source.display()))?;
    staged.as_file().sync_all()?;
    if args.with_secret {
        let secret = secret::file_of(source).context("--with-secret copies the secret next to the file")?;
        let target = with_suffix(target, ".secret");
        require_free(&target, &secret, args.overwrite)?;
        put(copy_of(&secret, &target)?, &target, args.overwrite)?;
    }
    let size = staged.as_file().metadata()?.len();
    put(staged, target, args.overwrite)?;
    Ok(format!("{} is a backup of {}: {}", target.display(), source.display(), described(size, contents)))
}

/// The size and the contents of a database, for people.
pub(super) fn described(size: u64, contents: Contents) -> String {
    let Contents { seats, reservations, payments, entries } = contents;
    format!(
        "{size} bytes, {seats} seats, {reservations} reservations, {payments} payments, {entries} account entries"
    )
}

/// What lies next to a database and is part of it.
const SIDECARS: [&str; 6] = ["-wal", "-shm", "-journal", ".lock", ".marker", ".secret"];

/// Whether two paths name the same place in the same folder, whether or not there is a file.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let folders = (folder_of(one).canonicalize(), folder_of(other).canonicalize());
    one.file_name() == other.file_name() && matches!(folders, (Ok(one), Ok(other)) if one == other)
}

/// Refuses a name that is taken, unless it may be overwritten; and in any case that of a database in use.
fn require_free(target: &Path, source: &Path, overwrite: bool) -> Result<()> {
    let shown = target.display();
    ensure!(!target.is_dir(), "cannot write backup {shown}: it is a folder");
    ensure!(!is_same_file(target, source), "cannot write backup {shown}: it is the original");
    let is_sidecar = |suffix| Ok::<_, anyhow::Error>(is_same_place(target, &beside(source, suffix)?));
    for suffix in SIDECARS {
        ensure!(
            !is_sidecar(suffix)?,
            "cannot write backup {shown}: it belongs to the database {}",
            source.display()
        );
    }
    if let Ok(existing) = target.symlink_metadata() {
        ensure!(
            existing.is_file(),
            "cannot write backup {shown}: it is a link or a device, not a regular file"
        );
    }
    ensure!(
        overwrite || target.symlink_metadata().is_err(),
        "cannot write backup {shown}: there is a file of that name. --overwrite replaces it"
    );
    match unfinished_log(target)? {
        Some(log) => bail!(
            "cannot write backup {shown}: {} is next to it, the log of a database that is in use or was not closed",
            log.display()
        ),
        None => Ok(()),
    }
}

/// A file without a name yet, in the folder of `target`, that its owner alone may read.
pub(super) fn stage(target: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(target);
    let staged = Builder::new().prefix(".frontrow-").suffix(".partial").tempfile_in(folder);
    staged.with_context(|| format!("cannot write into {}", folder.display()))
}

/// A durable copy of a file that has no name yet, in the folder of `target`.
pub(super) fn copy_of(source: &Path, target: &Path) -> Result<NamedTempFile> {
    let mut staged = stage(target)?;
    let copied = File::open(source).and_then(|mut source| io::copy(&mut source, staged.as_file_mut()));
    copied.with_context(|| format!("cannot copy {}", source.display()))?;
    staged.as_file().sync_all()?;
    Ok(staged)
}

/// Gives a file its name, durably.
pub(super) fn put(staged: NamedTempFile, target: &Path, overwrite: bool) -> Result<()> {
    let put = if overwrite { staged.persist(target) } else { staged.persist_noclobber(target) };
    put.map_err(|error| error.error).with_context(|| format!("cannot write {}", target.display()))?;
    sync_folder(folder_of(target))
}
