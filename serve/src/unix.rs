//! A connection to a unix socket, which waits its turn. The system refuses one at once while the queue of the listener is full,
//! where a TCP connection would wait.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

/// How long the first and the longest wait for room in the queue take.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Connects to a unix socket. While the queue of its listener is full, this waits for as long as the caller does.
///
/// # Errors
/// The system's, except that the queue is full.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    let mut wait = FIRST_WAIT;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if is_full(&error) => tokio::time::sleep(wait).await,
            connected => return connected,
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Whether a connection to a unix socket was refused because the queue of its listener is full. Then somebody listens there.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixSocket;

    use super::*;

    #[tokio::test]
    async fn a_connection_waits_while_the_queue_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
        };
        assert!(is_full(&full), "{full}");
        let waiting = connect(&path);
        tokio::pin!(waiting);
        tokio::time::timeout(Duration::from_millis(20), &mut waiting).await.expect_err("nothing was accepted");
        let (connected, accepted) = tokio::join!(waiting, listener.accept());
        connected.unwrap();
        accepted.unwrap();
        drop(listener);
        assert_eq!(connect(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
