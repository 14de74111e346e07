//! A process that is measured, with its address.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::Command;

use anyhow::Context as _;
use callbackd_bench::process::Process as Child;

use crate::requests::{AUTH, SECRET};

/// A running process that says its address. It is killed when this value is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts the process and reads its address from the first line that it prints.
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let (child, line) = Child::start_and_read_line(command)?;
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
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}
