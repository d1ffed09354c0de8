//! Signals that stop a process in order.

use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::tempdir;
use tokio::time::sleep;

use crate::binary::{Serving, command, start};
use crate::log::ready;

#[test]
fn a_terminal_that_ends_stops_a_server_in_order() {
    let folder = tempdir().unwrap();
    let (code, log) = Serving::start(folder.path(), "serve", &[]).stop_by("-HUP");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopping"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_ends_stops_a_demo_with_its_crowd() {
    let folder = tempdir().unwrap();
    let (mut demo, address) = start(command(folder.path(), "demo --buyers 50000", &[]), Stdio::null());
    ready(&address).await;
    demo.signal("-HUP");
    assert_eq!(demo.wait("demo"), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_told_to_outlive_its_terminal_does() {
    let folder = tempdir().unwrap();
    let mut nohup = Command::new("sh");
    // What nohup does.
    nohup.args(["-c", "trap '' HUP; exec \"$0\" serve \"$@\"", env!("CARGO_BIN_EXE_frontrow")]);
    nohup.current_dir(folder.path());
    let (mut server, address) = start(nohup, Stdio::null());
    ready(&address).await;
    server.signal("-HUP");
    sleep(Duration::from_millis(500)).await;
    assert!(server.runs());
    ready(&address).await;
    server.signal("-TERM");
    assert_eq!(server.wait("serve"), Some(0));
}
