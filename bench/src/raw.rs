//! Receivers that misbehave, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a raw receiver does with a connection.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers every request with these bytes, and keeps the connection.
    Answer(Vec<u8>),
    /// Answers once, then closes without a word when the next request is there.
    AnswerOnceThenClose(Vec<u8>),
    /// Sends these bytes before it has read anything.
    Greet(Vec<u8>),
    /// Closes as soon as it is connected.
    CloseAtOnce,
    /// Reads the request, sends these bytes, and resets.
    Reset(Vec<u8>),
    /// Reads and never answers.
    Silence,
    /// Does not even read: the request's body stays half-way.
    DeafThenReset,
    /// Sends a head a byte a second.
    DripHead,
    /// Sends headers without an end.
    EndlessHead,
    /// Sends 200, then a body without an end.
    EndlessBody,
    /// Sends 200, then a body a byte a second.
    DripBody,
}

/// A running raw receiver; ends when dropped.
pub struct Raw {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Raw {
    /// Starts one on loopback.
    ///
    /// # Errors
    /// The system's.
    pub async fn start(act: Act) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let act = act.clone();
                tokio::spawn(async move {
                    let _ = perform(stream, act).await;
                });
            }
        });
        Ok(Self { address, connections, task })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn perform(mut stream: TcpStream, act: Act) -> std::io::Result<()> {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    match act {
        Act::CloseAtOnce => Ok(()),
        Act::Answer(bytes) => {
            while read_request(&mut stream).await? {
                stream.write_all(&bytes).await?;
            }
            Ok(())
        }
        Act::Greet(bytes) => {
            stream.write_all(&bytes).await?;
            hold(stream).await
        }
        Act::AnswerOnceThenClose(bytes) => {
            read_request(&mut stream).await?;
            stream.write_all(&bytes).await?;
            // The peer keeps the connection; we are gone before it uses it again.
            Ok(())
        }
        Act::Reset(bytes) => {
            read_request(&mut stream).await?;
            stream.write_all(&bytes).await?;
            reset(stream)
        }
        Act::Silence => {
            read_request(&mut stream).await?;
            hold(stream).await
        }
        Act::DeafThenReset => {
            tokio::time::sleep(Duration::from_millis(200)).await;
            reset(stream)
        }
        Act::DripHead => {
            read_request(&mut stream).await?;
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-slow: yes yes yes yes yes\r\n\r\n" {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Act::EndlessHead => {
            read_request(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await?;
            }
        }
        Act::EndlessBody => {
            read_request(&mut stream).await?;
            stream.write_all(OK).await?;
            loop {
                stream.write_all(b"10\r\n0123456789abcdef\r\n").await?;
            }
        }
        Act::DripBody => {
            read_request(&mut stream).await?;
            stream.write_all(OK).await?;
            loop {
                stream.write_all(b"1\r\nx\r\n").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Reads a head and the body that its content-length tells. False: the peer closed.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<bool> {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    let head_end = loop {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(false);
        }
        seen.extend_from_slice(&chunk[..count]);
        if let Some(place) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            break place + 4;
        }
    };
    let head = String::from_utf8_lossy(&seen[..head_end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).and_then(|n| n.trim().parse().ok());
    let mut left = length.unwrap_or(0_usize).saturating_sub(seen.len() - head_end);
    while left > 0 {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(false);
        }
        left = left.saturating_sub(count);
    }
    Ok(true)
}

async fn hold(mut stream: TcpStream) -> std::io::Result<()> {
    let mut rest = [0; 16];
    // Until the peer gives up.
    let _ = stream.read(&mut rest).await?;
    Ok(())
}

fn reset(stream: TcpStream) -> std::io::Result<()> {
    stream.set_zero_linger()?;
    drop(stream);
    Ok(())
}
