//! The secrets: given, or one made once and kept beside the SQLite file.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use frontrow_infra::identity::{KeyRing, Secret};
use rand::distr::{Alphanumeric, SampleString};

use crate::beside::beside;
use crate::cli::DatabaseUrl;

/// What a bad secret is called.
const CURRENT: &str = "--secret (FRONTROW_SECRET) is not usable";
/// What a bad list of previous secrets is called.
const PREVIOUS: &str = "--previous-secrets (FRONTROW_PREVIOUS_SECRETS) is not usable";

/// The secrets that are configured. Without a current one they are those kept beside the SQLite file, one a line, the
/// current one first; one is made if there is none. `previous` are further ones that tokens may be signed with.
///
/// # Errors
/// A secret that is not usable, none for PostgreSQL, or a file that cannot be read or written.
pub fn load(given: Option<&str>, previous: &[String], database: &DatabaseUrl) -> Result<KeyRing> {
    let ring = match (given, database) {
        (Some(text), _) => KeyRing::from(&usable(text).context(CURRENT)?),
        (None, DatabaseUrl::Sqlite(path)) => kept_for(path)?,
        (None, DatabaseUrl::Postgres(_)) => {
            bail!("--secret (FRONTROW_SECRET) is required with PostgreSQL: every node needs the same one")
        }
    };
    let given = previous.iter().filter(|text| !text.is_empty()).map(|text| usable(text));
    let given = given.collect::<Result<Vec<_>>>().context(PREVIOUS)?;
    ring.believing(given).context(PREVIOUS)
}

/// A secret that can be rotated out some day: with a comma in it, or a blank beside one, it would be another secret in the
/// list of previous ones, and everybody logged out without a word.
fn usable(text: &str) -> Result<Secret> {
    ensure!(text == text.trim(), "a secret has no blank at its start or end");
    ensure!(!text.contains(','), "a secret has no comma");
    Ok(Secret::new(text)?)
}

/// Made by whoever comes first, whole and readable by the owner alone; everyone reads what is there then.
fn kept_for(database: &Path) -> Result<KeyRing> {
    let path = beside(database, ".secret")?;
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
    kept(&text).with_context(|| format!("{} is not usable", path.display()))
}

/// The file of the secrets that are kept next to a database, checked.
///
/// # Errors
/// When there is none, or it cannot be read or used.
pub(crate) fn file_of(database: &Path) -> Result<PathBuf> {
    let path = beside(database, ".secret")?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read secret {}", path.display()))?;
    kept(&text).with_context(|| format!("{} is not usable", path.display()))?;
    Ok(path)
}

/// One a line, the current one first.
fn kept(lines: &str) -> Result<KeyRing> {
    let mut lines = lines.lines().map(str::trim);
    let current = usable(lines.next().unwrap_or_default())?;
    let previous = lines.filter(|line| !line.is_empty()).map(usable);
    Ok(KeyRing::new(current, previous.collect::<Result<Vec<_>>>()?)?)
}

/// A new secret of 64 letters and digits (380 bits).
#[must_use]
pub fn random() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use frontrow_domain::ports::{AccessClaims, AccessTokens, Role};
    use frontrow_domain::{Timestamp, UserId};
    use frontrow_infra::identity::AccessKeys;

    use super::*;

    fn postgres() -> DatabaseUrl {
        DatabaseUrl::Postgres("postgres://h/db".into())
    }

    fn nobody() -> AccessClaims {
        let user_id = UserId::new(uuid::Uuid::nil());
        AccessClaims { user_id, role: Role::User, expires_at: Timestamp::MAX }
    }

    fn token(ring: &KeyRing) -> String {
        AccessKeys::own(ring).issue(&nobody()).unwrap()
    }

    fn believes(ring: &KeyRing, token: &str) -> bool {
        AccessKeys::own(ring).verify(token, Timestamp::MIN).is_ok()
    }

    #[test]
    fn the_secret_beside_a_file_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::Sqlite(folder.path().join("a.db"));
        let first = load(None, &[], &database).unwrap();
        assert_eq!(token(&first), token(&load(None, &[], &database).unwrap()));
        let mode = fs::metadata(folder.path().join("a.db.secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_in_front_of_a_kept_secret_is_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::Sqlite(folder.path().join("a.db"));
        let before = token(&load(None, &[], &database).unwrap());
        let path = folder.path().join("a.db.secret");
        let kept = fs::read_to_string(&path).unwrap();
        let next = random();
        fs::write(&path, format!("{next}\n{kept}\n\n")).unwrap();
        let rotated = load(None, &[], &database).unwrap();
        assert!(believes(&rotated, &before));
        assert_eq!(
            token(&rotated),
            token(&load(Some(&next), &[], &database).unwrap()),
            "the first line signs"
        );
        // A secret that is given stands alone: the kept one must be named to go on.
        assert!(!believes(&load(Some(&next), &[], &database).unwrap(), &before));
        assert!(believes(&load(Some(&next), std::slice::from_ref(&kept), &database).unwrap(), &before));
        fs::write(&path, format!("{next}\nshort\n")).unwrap();
        assert!(load(None, &[], &database).is_err());
        fs::write(&path, format!("\n{next}\n")).unwrap();
        assert!(load(None, &[], &database).is_err(), "nothing signs");
    }

    #[test]
    fn a_short_secret_or_none_for_postgresql_is_refused() {
        assert!(load(None, &[], &postgres()).is_err());
        assert!(load(Some("short"), &[], &postgres()).is_err());
        assert!(load(Some(&random()), &[], &postgres()).is_ok());
    }

    #[test]
    fn a_secret_that_no_list_could_carry_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::Sqlite(folder.path().join("a.db"));
        for _ in 0..100 {
            assert!(usable(&random()).is_ok(), "one that is made here is none");
        }
        for bad in [format!(" {}", random()), format!("{}\t", random()), format!("{0},{0}", random())] {
            let error = format!("{:#}", load(Some(&bad), &[], &database).unwrap_err());
            assert!(error.contains("--secret") && !error.contains(bad.trim()), "{error}");
        }
        assert!(load(Some(&format!("two words {}", random())), &[], &database).is_ok());
    }

    #[test]
    fn too_many_lines_are_the_files_fault() {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::Sqlite(folder.path().join("a.db"));
        let keep = |lines: usize| {
            let secrets: Vec<String> = (0..lines).map(|_| random()).collect();
            fs::write(folder.path().join("a.db.secret"), secrets.join("\n")).unwrap();
        };
        let blamed = |given: &[String]| format!("{:#}", load(None, given, &database).unwrap_err());
        keep(KeyRing::MOST_PREVIOUS + 2);
        assert!(blamed(&[]).contains("a.db.secret is not usable"));
        keep(KeyRing::MOST_PREVIOUS + 1);
        assert!(load(None, &[], &database).is_ok());
        assert!(blamed(&[random()]).contains("--previous-secrets"));
    }

    #[test]
    fn previous_secrets_are_secrets_too() {
        let (now, before) = (random(), random());
        let with = |previous: &[String]| load(Some(&now), previous, &postgres());
        assert!(believes(
            &with(std::slice::from_ref(&before)).unwrap(),
            &token(&load(Some(&before), &[], &postgres()).unwrap())
        ));
        assert!(with(&[String::new()]).is_ok(), "an empty variable is none");
        let many: Vec<String> = (0..=KeyRing::MOST_PREVIOUS).map(|_| random()).collect();
        for bad in [vec!["short".to_owned()], vec![before.clone(), format!(" {before}")], many] {
            let error = format!("{:#}", with(&bad).unwrap_err());
            assert!(error.contains("--previous-secrets"), "{error}");
            assert!(bad.iter().all(|secret| !error.contains(secret.trim())), "{error}");
        }
    }
}
