//! A process that is measured.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use crate::requests::{AUTH, SECRET};

/// A running process. It is killed when this value is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts the process and reads its address from the first line that it prints.
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut output = std::io::BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        // The rest of its output is read as well, so that the process never waits for a full pipe.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let address = line.trim().trim_start_matches(|c: char| !c.is_ascii_digit());
        let address = address.split('/').next().unwrap_or_default();
        Ok(Self { address: address.parse().with_context(|| line.clone())?, child })
    }

    /// Starts this same program with other arguments.
    pub(crate) fn own(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start(Command::new(std::env::current_exe()?).args(arguments))
    }

    /// Starts the customers' binary as a gate.
    pub(crate) fn gate(upstream: SocketAddr, remember: u32) -> anyhow::Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?.with_file_name("scale-callback"))
                .args(["gate", "--listen", "127.0.0.1:0", "--upstream"])
                .arg(format!("http://{upstream}"))
                .args(["--remember", &remember.to_string()])
                // The benchmark's crowd and its good client share one address.
                .args(["--connections-per-address", "1024", "--connections-per-prefix", "1024"])
                .env("SCALE_CALLBACK_SIGNING_SECRET", SECRET)
                .env("SCALE_CALLBACK_AUTH_KEY", AUTH),
        )
    }

    /// The CPU time so far in microseconds, of user and system together. `schedstat` counts it in nanoseconds for each
    /// thread.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let mut nanoseconds = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += stat.split(' ').next().context("the time it ran")?.parse::<f64>()?;
        }
        Ok(nanoseconds / 1e3)
    }

    /// The largest amount of memory that the process has had, in MiB.
    pub(crate) fn most_memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("its memory")?;
        Ok(line.trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }

    pub(crate) fn is_alive(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
