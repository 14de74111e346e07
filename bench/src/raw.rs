//! Receivers that misbehave at the level of bytes.

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
    /// Answers every request with these bytes and keeps the connection open.
    Answer(Vec<u8>),
    /// Answers one request with these bytes and closes the connection.
    AnswerOnceThenClose(Vec<u8>),
    /// Sends these bytes before it has read anything.
    Greet(Vec<u8>),
    /// Closes as soon as it is connected.
    CloseAtOnce,
    /// Reads the request, sends these bytes, and resets the connection.
    Reset(Vec<u8>),
    /// Reads the request and never answers.
    Silence,
    /// Reads nothing, so that a large body stays half sent, and then resets the connection.
    DeafThenReset,
    /// Sends a head at one byte per second.
    DripHead,
    /// Sends headers that never end.
    EndlessHead,
    /// Reads the request, sends the first bytes, and then the second ones again and again, each time as a piece of its own.
    Flood(&'static [u8], &'static [u8]),
    /// Sends 200 and a body that never ends.
    EndlessBody,
    /// Sends 200 and a body at one byte per second.
    DripBody,
}

/// A running raw receiver. It ends when this value is dropped.
pub struct Raw {
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections so far.
    pub connections: Arc<AtomicU64>,
    /// Bytes that `Act::Flood` has sent so far.
    pub flooded: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Raw {
    /// Starts a receiver on loopback.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub async fn start(act: Act) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU64::new(0));
        let flooded = Arc::new(AtomicU64::new(0));
        let (count, sent) = (Arc::clone(&connections), Arc::clone(&flooded));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (act, sent) = (act.clone(), Arc::clone(&sent));
                tokio::spawn(async move {
                    // A client that gives up is expected here.
                    match act {
                        Act::Flood(first, again) => flood(stream, first, again, &sent).await.ok(),
                        act => perform(stream, act).await.ok(),
                    };
                });
            }
        });
        Ok(Self { address, connections, flooded, task })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn perform(mut stream: TcpStream, act: Act) -> std::io::Result<()> {
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
            // The client keeps the connection, and finds it closed when it uses it again.
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
        endless => {
            read_request(&mut stream).await?;
            answer_slowly(stream, endless).await
        }
    }
}

async fn flood(mut stream: TcpStream, first: &[u8], again: &[u8], sent: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    read_request(&mut stream).await?;
    stream.write_all(first).await?;
    loop {
        stream.write_all(again).await?;
        sent.fetch_add(again.len() as u64, Ordering::Relaxed);
    }
}

/// Sends an answer that comes slowly or never ends.
async fn answer_slowly(mut stream: TcpStream, act: Act) -> std::io::Result<()> {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    match act {
        Act::DripHead => {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-slow: yes yes yes yes yes\r\n\r\n" {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Act::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await?;
            }
        }
        Act::EndlessBody => {
            stream.write_all(OK).await?;
            loop {
                stream.write_all(b"10\r\n0123456789abcdef\r\n").await?;
            }
        }
        _ => {
            stream.write_all(OK).await?;
            loop {
                stream.write_all(b"1\r\nx\r\n").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Reads a head and a body of the length that `content-length` names. Returns false if the client closed the
/// connection.
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
    // This returns when the client gives up.
    stream.read(&mut rest).await.map(drop)
}

fn reset(stream: TcpStream) -> std::io::Result<()> {
    stream.set_zero_linger()?;
    drop(stream);
    Ok(())
}
