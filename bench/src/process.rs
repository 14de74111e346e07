//! A child process that is measured, and that ends with the value that holds it.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

/// A running child process. It is killed when this value is dropped.
pub struct Process(Child);

impl Process {
    /// Starts the process.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        Ok(Self(command.spawn()?))
    }

    /// Starts the process and reads the first line that it prints.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn start_and_read_line(command: &mut Command) -> anyhow::Result<(Self, String)> {
        let mut process = Self::start(command.stdout(Stdio::piped()))?;
        let mut output = std::io::BufReader::new(process.0.stdout.take().context("its output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        // The rest of its output is read as well, so that the process never waits for a full pipe.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Ok((process, line))
    }

    /// The CPU time so far in microseconds, of user and system together. `schedstat` counts it in nanoseconds for each
    /// thread.
    ///
    /// # Errors
    /// The process has ended.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let mut nanoseconds = 0.0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += stat.split(' ').next().context("the time it ran")?.parse::<f64>()?;
        }
        Ok(nanoseconds / 1e3)
    }

    /// The largest amount of memory that the process has had, in MiB.
    ///
    /// # Errors
    /// The process has ended.
    pub fn most_memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("its memory")?;
        Ok(line.trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }

    /// Asks the process to end.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub fn terminate(&self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "the process got no signal");
        Ok(())
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// The operating system refuses to tell.
    pub fn is_alive(&mut self) -> anyhow::Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Copies a program, so that every user may run it. Another process writes the copy: if this one did, a child that another thread
/// starts meanwhile could hold the copy open for writing for a moment, and the kernel starts no program that is open for writing.
///
/// # Panics
/// It can't be copied.
pub fn install(program: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([program, to]).status();
    assert!(status.is_ok_and(|status| status.success()), "{} can't be copied", program.display());
}
