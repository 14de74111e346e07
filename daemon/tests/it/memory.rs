//! The memory of a process that holds keys is nobody else's.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::until;
use crate::process::BINARY;

/// A user who is not root. The kernel shows by the owner of `/proc/PID/mem` whether a process of such a user is dumpable.
const NOBODY: u32 = 65_534;

/// Starts a program that waits for its standard input, as a user who is not root.
fn waiting(program: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.spawn().unwrap()
}

fn owner(child: &Child) -> u32 {
    std::fs::metadata(format!("/proc/{}/mem", child.id())).unwrap().uid()
}

fn core_limit(child: &Child) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_can_be_dumped_into_a_core_file_or_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("callbackd");
    callbackd_bench::process::install(Path::new(BINARY), &program);
    let mut usual = waiting(Path::new("cat"), &[]);
    assert_ne!(owner(&usual), 0, "a process that can be dumped belongs to its user");
    let reads_a_key = ["keys", "create", "--team", "t", "--kind", "hmac", "--mode", "live", "--from-file", "-"];
    for arguments in [&reads_a_key[..], &["listen", "--listen", "127.0.0.1:0", "--count", "1", "--timeout", "60s"]] {
        let mut child = waiting(&program, arguments);
        until("its memory belongs to root", async || (owner(&child) == 0).then_some(())).await;
        let limit = core_limit(&child);
        assert!(limit.split_whitespace().filter(|word| *word == "0").count() == 2, "{limit}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    usual.kill().unwrap();
    usual.wait().unwrap();
}
