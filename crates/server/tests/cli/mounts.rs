//! A database that is reached by several paths: by a mount of the file itself, of its folder, or under
//! another name.
//!
//! With `FRONTROW_REQUIRE_MOUNTS=1` the tests fail where nothing may be mounted, instead of being skipped
//! aloud.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use frontrow_testkit::is_required;
use tempfile::tempdir;

use crate::binary::{Serving, run};
use crate::refused;
use crate::wallet::{Wallet, done, names};

/// A bind mount that is unmounted with its owner.
struct Bound(PathBuf);

impl Bound {
    /// `None`, said aloud, where this process may mount nothing.
    fn mount(from: &Path, to: &Path) -> Option<Self> {
        let mounted = Command::new("mount").arg("--bind").args([from, to]).output();
        let refused = match mounted {
            Ok(done) if done.status.success() => return Some(Self(to.to_owned())),
            Ok(refused) => String::from_utf8_lossy(&refused.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let is_required = is_required("FRONTROW_REQUIRE_MOUNTS");
        assert!(!is_required, "FRONTROW_REQUIRE_MOUNTS is set, but nothing may be mounted: {refused}");
        let _ = writeln!(
            std::io::stderr(),
            "a test of mounts is skipped, since nothing may be mounted: {refused}"
        );
        None
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_mounted_by_itself_is_refused() {
    let (folder, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    done(folder.path(), "migrate");
    let mount_point = elsewhere.path().join("frontrow.db");
    fs::write(&mount_point, "").unwrap();
    let Some(_mount) = Bound::mount(&folder.path().join("frontrow.db"), &mount_point) else { return };
    std::os::unix::fs::symlink(&mount_point, elsewhere.path().join("link.db")).unwrap();
    let before = names(elsewhere.path());
    let commands = [
        "serve --bind 127.0.0.1:0",
        "migrate",
        "audit",
        "load --people 1",
        "backup b.db",
        "restore b.db --replace",
    ];
    fs::copy(folder.path().join("frontrow.db"), elsewhere.path().join("b.db")).unwrap();
    for command in commands {
        for name in ["frontrow.db", "link.db"] {
            let command = format!("{command} --database-url sqlite:{name}");
            let command = command.replace("backup b.db", "backup c.db");
            let output = run(elsewhere.path(), &command, &[]);
            let line = refused(&output);
            assert!(
                line.contains("is a mount point") && line.contains("Mount its folder"),
                "{command}: {line}"
            );
        }
    }
    fs::remove_file(elsewhere.path().join("b.db")).unwrap();
    assert_eq!(names(elsewhere.path()), before, "nothing is left next to the mount point");
}

/// The control: a folder may be mounted any number of times, since log and locks are in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_folder_is_served_once() {
    let (folder, elsewhere) = (tempdir().unwrap(), tempdir().unwrap());
    let Some(_mount) = Bound::mount(folder.path(), elsewhere.path()) else { return };
    let serving = Serving::start(folder.path(), "serve", &[]);
    let output = run(elsewhere.path(), "serve --bind 127.0.0.1:0", &[]);
    assert!(refused(&output).contains("served by another process"), "{output:?}");
    Wallet::open(&serving.address).await.charge().await.unwrap();
    done(elsewhere.path(), "audit");
    assert_eq!(serving.stop().0, Some(0));
}

/// The lock is that of the file, too: its name may change while it is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_renamed_is_not_served_twice() {
    let folder = tempdir().unwrap();
    let [path, renamed] = ["frontrow.db", "renamed.db"].map(|name| folder.path().join(name));
    let serving = Serving::start(folder.path(), "serve", &[]);
    Wallet::open(&serving.address).await;
    fs::rename(&path, &renamed).unwrap();
    for command in ["serve --bind 127.0.0.1:0", "restore frontrow.db.secret --replace"] {
        let output = run(folder.path(), &format!("{command} --database-url sqlite:renamed.db"), &[]);
        assert!(refused(&output).contains("served by another process"), "{command}: {output:?}");
    }
    fs::rename(&renamed, &path).unwrap();
    assert_eq!(serving.stop().0, Some(0));
    // The control: once it has ended the name does not matter.
    fs::rename(&path, &renamed).unwrap();
    let serving = Serving::start(folder.path(), "serve --database-url sqlite:renamed.db", &[]);
    Wallet::open(&serving.address).await;
    assert_eq!(serving.stop().0, Some(0));
}
