//! The paths of what is kept next to a SQLite file: its lock, its marker and its secrets.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use frontrow_infra::sqlite::Sqlite;

/// The path of a file next to the database, the same by whichever link the database is named.
///
/// # Errors
/// When the database is a link to nothing or cannot be looked at, or is mounted by itself, so that nothing is next to it.
pub(crate) fn beside(database: &Path, extension: &str) -> Result<PathBuf> {
    Sqlite::require_no_mount_point(database)?;
    let shown = database.display();
    let real = match fs::canonicalize(database) {
        Ok(real) => real,
        Err(error) if error.kind() == ErrorKind::NotFound && !database.is_symlink() => database.to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{shown} is a link to a file that is not there")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
    };
    let mut name = real.into_os_string();
    name.push(extension);
    Ok(PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_and_its_file_have_the_same_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, chain] = ["a.db", "link.db", "chain.db"].map(|name| folder.path().join(name));
        symlink(&file, &link).unwrap();
        symlink(&link, &chain).unwrap();
        let message = beside(&link, ".lock").unwrap_err().to_string();
        assert!(message.contains("a link to a file that is not there"), "{message}");
        let before = beside(&file, ".lock").unwrap();
        fs::write(&file, "").unwrap();
        let real = fs::canonicalize(folder.path()).unwrap().join("a.db.lock");
        for name in [&file, &link, &chain] {
            assert_eq!(beside(name, ".lock").unwrap(), real, "{}", name.display());
        }
        assert_eq!(before, folder.path().join("a.db.lock"), "the file that was to be made");
    }

    #[test]
    fn what_cannot_be_looked_at_is_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let message = beside(&folder.path().join("file/a.db"), ".lock").unwrap_err().to_string();
        assert!(message.starts_with("cannot look at"), "{message}");
    }
}
