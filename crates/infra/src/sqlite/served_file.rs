//! Identity of the served file: whether its path, and that of its log, still lead to what was opened.
//!
//! A file that is deleted, moved or replaced while it is served stays open, so that SQLite would go on acknowledging commits
//! that no later start finds. The writer compares before and after every batch (two `stat` calls each, some microseconds);
//! reads trust a comparison for [`TRUSTED_FOR`]. A file that is moved back is served again (ADR 0016).
//!
//! A file that is overwritten keeps its inode. The owner of its lock sees that by the marker (ADR 0020), and the file is
//! distrusted for good: what SQLite has in memory and in the log belongs to the contents before.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a comparison is trusted by reads.
const TRUSTED_FOR: Duration = Duration::from_millis(250);

/// The path leads elsewhere, or nowhere; or the file has other contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database file, or its -wal file, was deleted, moved, replaced or overwritten while it is served"
)]
pub(super) struct FileReplaced;

/// Device and inode of a file.
type Identity = (u64, u64);

/// The file that was opened, and its log.
#[derive(Debug)]
pub(super) struct ServedFile {
    path: PathBuf,
    identity: Identity,
    log: PathBuf,
    log_identity: Option<Identity>,
    /// Whether another program wrote over the file. Never unset.
    is_overwritten: AtomicBool,
    opened_at: Instant,
    /// Milliseconds from `opened_at` to the last comparison that found both in place, and one more; 0 when the last one
    /// did not.
    intact_at: AtomicU64,
}

impl ServedFile {
    /// Remembers what the path leads to. Taken once a connection has opened the log, which lies next to the file itself,
    /// wherever a link to it lies.
    pub(super) fn remember(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut log = fs::canonicalize(&path)?.into_os_string();
        log.push("-wal");
        let log = PathBuf::from(log);
        let (identity, log_identity) = (identity(&path)?, identity(&log).ok());
        let (opened_at, intact_at) = (Instant::now(), AtomicU64::new(1));
        let is_overwritten = AtomicBool::new(false);
        Ok(Self { path, identity, log, log_identity, is_overwritten, opened_at, intact_at })
    }

    /// The path that was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails every comparison from now on: another program wrote over the file.
    pub(super) fn distrust(&self) {
        self.is_overwritten.store(true, Ordering::Relaxed);
        self.intact_at.store(0, Ordering::Relaxed);
    }

    /// Whether another program wrote over the file.
    pub(super) fn is_overwritten(&self) -> bool {
        self.is_overwritten.load(Ordering::Relaxed)
    }

    /// Compares now.
    pub(super) fn check(&self) -> Result<(), FileReplaced> {
        let is_log_intact =
            self.log_identity.is_none_or(|log| identity(&self.log).is_ok_and(|now| now == log));
        let is_file_intact = identity(&self.path).is_ok_and(|now| now == self.identity);
        let is_intact = is_log_intact && is_file_intact && !self.is_overwritten();
        let intact_at = if is_intact { self.milliseconds().saturating_add(1) } else { 0 };
        self.intact_at.store(intact_at, Ordering::Relaxed);
        if is_intact { Ok(()) } else { Err(FileReplaced) }
    }

    /// Compares now, unless that was done a moment ago.
    pub(super) fn check_lately(&self) -> Result<(), FileReplaced> {
        let intact_at = self.intact_at.load(Ordering::Relaxed);
        let age = self.milliseconds().saturating_add(1).saturating_sub(intact_at);
        if intact_at > 0 && Duration::from_millis(age) < TRUSTED_FOR { Ok(()) } else { self.check() }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn served() -> (TempDir, PathBuf, ServedFile) {
        let folder = tempdir().unwrap();
        let path = folder.path().join("a.db");
        fs::write(&path, "file").unwrap();
        fs::write(folder.path().join("a.db-wal"), "log").unwrap();
        let served = ServedFile::remember(&path).unwrap();
        served.check().unwrap();
        (folder, path, served)
    }

    #[test]
    fn a_file_that_is_moved_is_missed_until_it_is_back() {
        let (folder, path, served) = served();
        let elsewhere = folder.path().join("b.db");
        fs::rename(&path, &elsewhere).unwrap();
        assert_eq!(served.check(), Err(FileReplaced));
        assert_eq!(served.check_lately(), Err(FileReplaced), "a bad comparison is not trusted");
        fs::copy(&elsewhere, &path).unwrap();
        assert_eq!(served.check(), Err(FileReplaced), "a copy is another file");
        fs::rename(&elsewhere, &path).unwrap();
        assert_eq!(served.check_lately(), Ok(()));
    }

    #[test]
    fn a_log_that_is_deleted_is_missed() {
        let (folder, _, served) = served();
        // As SQLite holds it: else its inode could be given to its successor.
        let _open = fs::File::open(folder.path().join("a.db-wal")).unwrap();
        fs::remove_file(folder.path().join("a.db-wal")).unwrap();
        assert_eq!(served.check(), Err(FileReplaced));
        fs::write(folder.path().join("a.db-wal"), "log").unwrap();
        assert_eq!(served.check(), Err(FileReplaced), "a new log is another file");
    }

    #[test]
    fn writing_to_the_files_changes_nothing() {
        let (folder, path, served) = served();
        fs::write(&path, "more").unwrap();
        fs::write(folder.path().join("a.db-wal"), "").unwrap();
        assert_eq!(served.check(), Ok(()));
    }

    #[test]
    fn an_overwritten_file_is_distrusted_for_good() {
        let (_folder, _, served) = served();
        assert_eq!(served.check_lately(), Ok(()));
        served.distrust();
        assert_eq!(served.check_lately(), Err(FileReplaced), "reads do not trust the comparison before");
        assert_eq!(served.check(), Err(FileReplaced));
        assert_eq!(served.check_lately(), Err(FileReplaced));
    }

    #[test]
    fn a_link_is_followed_for_the_file_and_its_log() {
        let (folder, path, _) = served();
        let link = folder.path().join("link.db");
        symlink(&path, &link).unwrap();
        let served = ServedFile::remember(&link).unwrap();
        assert_eq!(served.check(), Ok(()));
        fs::remove_file(folder.path().join("a.db-wal")).unwrap();
        assert_eq!(served.check(), Err(FileReplaced));
    }

    #[test]
    fn reads_trust_a_comparison_for_a_moment_only() {
        let (_folder, path, served) = served();
        served.check().unwrap();
        fs::remove_file(&path).unwrap();
        std::thread::sleep(TRUSTED_FOR);
        assert_eq!(served.check_lately(), Err(FileReplaced));
    }
}
