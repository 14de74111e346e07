//! One session with the server: how it is dialled, what it is set to, and which of its warnings count.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool_postgres::Connect;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Error, NoTls};

use super::error::told;
use super::server::{self, Unfit};
use super::timeline::Timeline;
use super::tls::VerifyFull;
use super::url::{PostgresUrl, Tls, of_each_host};

/// What every session is set to: a commit is on disk when it is acknowledged, a frozen process can't hold others up for so long that
/// their leases end (5 s after the attempts), the server notices within a quarter of a minute that a machine has vanished, its warnings
/// are heard (one tells of a commit in doubt), and a statement sees what was committed before it, whatever the role or the database is
/// set to. These are statements and no parameters of the connection, because a pooler passes no parameters on.
const SETTINGS: &str = "SET synchronous_commit = on; SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '3s'; SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3; SET tcp_user_timeout = 10000;
    SET client_min_messages = warning; SET default_transaction_isolation = 'read committed';";

/// How long a session may take until it is set up.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one statement may run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Write,
    Read,
}

impl Limit {
    fn sql(self) -> &'static str {
        match self {
            Self::Write => "SET statement_timeout = '30s'",
            Self::Read => "SET statement_timeout = '2s'",
        }
    }
}

/// Counts the warnings of the server. A commit that was acknowledged with a warning is in doubt: its wait for a synchronous
/// standby was cancelled.
#[derive(Debug, Clone, Default)]
pub(super) struct Warnings(Arc<AtomicU64>);

impl Warnings {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Dials the server that a URL names.
pub(super) struct Dialler {
    tls: Option<VerifyFull>,
    warnings: Warnings,
    timeline: Timeline,
}

impl Dialler {
    /// # Errors
    /// A sentence about `sslrootcert`.
    pub(super) fn new(url: &PostgresUrl, warnings: Warnings, timeline: Timeline) -> Result<Self, String> {
        let tls = match &url.tls {
            Tls::Off => None,
            Tls::VerifyFull(roots) => Some(VerifyFull::new(roots.as_deref())?),
        };
        Ok(Self { tls, warnings, timeline })
    }

    /// A session that is set up, on a server that is fit. The task ends with its connection.
    pub(super) async fn session(&self, url: &PostgresUrl, limit: Limit) -> Result<(Client, JoinHandle<()>), Unfit> {
        let patience = PATIENCE.saturating_add(url.connect_patience());
        let opened = tokio::time::timeout(patience, async {
            let (client, connection) = self.dial(&url.config).await.map_err(|error| Unfit::from(&error))?;
            prepare(&client, limit, &self.timeline).await?;
            Ok((client, connection))
        });
        // A pooler lets its clients wait while its server is away.
        opened
            .await
            .unwrap_or_else(|_| Err(Unfit::for_now(format!("it did not answer within {} s", patience.as_secs()))))
    }

    /// Tries one host after the other. The library's own limit of time ends when a host has accepted the connection; a server that
    /// stands still after that must not keep the others from being tried.
    async fn dial(&self, config: &Config) -> Result<(Client, JoinHandle<()>), Error> {
        let mut hosts = of_each_host(config);
        let last = hosts.pop();
        for host in &hosts {
            let patience = host.get_connect_timeout().copied().unwrap_or(PATIENCE);
            if let Ok(Ok(session)) = tokio::time::timeout(patience, self.dial_one(host)).await {
                return Ok(session);
            }
        }
        self.dial_one(last.as_ref().unwrap_or(config)).await
    }

    async fn dial_one(&self, config: &Config) -> Result<(Client, JoinHandle<()>), Error> {
        Ok(match &self.tls {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, tokio::spawn(drive(connection, self.warnings.clone())))
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                (client, tokio::spawn(drive(connection, self.warnings.clone())))
            }
        })
    }
}

impl Connect for Dialler {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move { self.dial(&config).await })
    }
}

/// Sets a new session up, and checks its server.
pub(super) async fn prepare(client: &Client, limit: Limit, timeline: &Timeline) -> Result<(), Unfit> {
    let set = format!("{SETTINGS} {}", limit.sql());
    client.batch_execute(&set).await.map_err(|error| Unfit::from(&error))?;
    timeline.found(&server::check(client).await?);
    Ok(())
}

/// Carries what a connection sends and receives, until it ends.
async fn drive<S, T>(mut connection: Connection<S, T>, warnings: Warnings)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                if notice.parsed_severity() == Some(Severity::Warning) {
                    warnings.0.fetch_add(1, Ordering::SeqCst);
                    tracing::warn!(warning = notice.message(), code = notice.code().code(), "the database warns");
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(error = told(&error), "a connection to the database ended");
                return;
            }
            None => return,
        }
    }
}
