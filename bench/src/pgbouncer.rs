//! Starts pgbouncer on loopback before a server of the tests. It ends with the process that started it.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::ports;
use crate::postgres::{Postgres, USER, is_root, run};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);

/// A running pgbouncer. It is stopped when this value is dropped.
pub struct Pgbouncer {
    _folder: tempfile::TempDir,
    port: u16,
    running: Child,
}

impl Pgbouncer {
    /// Pools the connections to `server`; `mode` is "session" or "transaction".
    ///
    /// # Errors
    /// Something is missing; the sentence says what.
    pub fn start(server: &Postgres, mode: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("create a folder for pgbouncer")?;
        let port = ports::free()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\nunix_socket_dir =\n",
            server.port(),
            at("users"),
        );
        std::fs::write(at("users"), format!("\"{USER}\" \"\"\n"))?;
        std::fs::write(at("pgbouncer.ini"), settings)?;
        // It refuses to run as root. A shell between the two waits for the end of its standard input.
        let script =
            r#"exec 3<&0; "$@" </dev/null >/dev/null 2>&1 & pid=$!; cat <&3 >/dev/null; kill -INT $pid; wait $pid"#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        if is_root() {
            run(Command::new("chown").arg("-R").arg("postgres").arg(folder.path()))?;
            command.args(["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        let running = command.args(["pgbouncer", &at("pgbouncer.ini")]).stdin(Stdio::piped()).spawn();
        let started = Self { _folder: folder, port, running: running.context("start pgbouncer; run: make postgres")? };
        let end = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                bail!("pgbouncer did not listen within {START:?}; is it installed? run: make postgres");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    /// The URL of a database of the server, through the pool.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pgbouncer {
    fn drop(&mut self) {
        // When its input ends, the shell ends it. One that can't be waited for has ended already.
        drop(self.running.stdin.take());
        self.running.wait().ok();
    }
}
