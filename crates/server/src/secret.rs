//! The secret: given, or made once and kept beside the SQLite file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use frontrow_infra::identity::Secret;
use rand::distr::{Alphanumeric, SampleString};

use crate::cli::DatabaseUrl;

/// The secret that is configured, or the one kept beside the SQLite file, made if there is none.
///
/// # Errors
/// A secret that is too short, none for PostgreSQL, or a file that cannot be read or written.
pub fn load(given: Option<&str>, database: &DatabaseUrl) -> Result<Secret> {
    match (given, database) {
        (Some(text), _) => Secret::new(text).context("--secret (FRONTROW_SECRET) is not usable"),
        (None, DatabaseUrl::Sqlite(path)) => beside(path),
        (None, DatabaseUrl::Postgres(_)) => {
            bail!("--secret (FRONTROW_SECRET) is required with PostgreSQL: every node needs the same one")
        }
    }
}

/// Made by whoever comes first, whole and readable by the owner alone; everyone reads what is there then.
fn beside(database: &Path) -> Result<Secret> {
    let path = path_of(database);
    if !path.exists() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("a secret cannot be kept beside {}", database.display()))?;
        file.write_all(random().as_bytes())?;
        file.as_file().sync_all()?;
        // Another process may have been faster: its secret stands.
        if let Err(error) = file.persist_noclobber(&path)
            && !path.exists()
        {
            return Err(error.error).with_context(|| format!("cannot write {}", path.display()));
        }
    }
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Secret::new(text.trim()).with_context(|| format!("{} is not usable", path.display()))
}

/// A new secret of 64 letters and digits (380 bits).
#[must_use]
pub fn random() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 64)
}

fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".secret");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use frontrow_domain::ports::{AccessClaims, AccessTokens, Role};
    use frontrow_domain::{Timestamp, UserId};
    use frontrow_infra::identity::AccessKey;

    use super::*;

    fn token(secret: &Secret) -> String {
        let user_id = UserId::new(uuid::Uuid::nil());
        let claims = AccessClaims { user_id, role: Role::User, expires_at: Timestamp::MAX };
        AccessKey::own(secret).issue(&claims).unwrap()
    }

    #[test]
    fn the_secret_beside_a_file_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::Sqlite(folder.path().join("a.db"));
        let first = load(None, &database).unwrap();
        assert_eq!(token(&first), token(&load(None, &database).unwrap()));
        let mode = fs::metadata(folder.path().join("a.db.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_short_secret_or_none_for_postgresql_is_refused() {
        let postgres = DatabaseUrl::Postgres("postgres://h/db".into());
        assert!(load(None, &postgres).is_err());
        assert!(load(Some("short"), &postgres).is_err());
        assert!(load(Some(&random()), &postgres).is_ok());
    }
}
