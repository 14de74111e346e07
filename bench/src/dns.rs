//! A small name server for tests. It knows addresses for some names, does not answer for others, and answers "no such
//! name" for the rest.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The answer for a name.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These addresses.
    Addresses(Vec<Ipv4Addr>),
    /// No answer at all.
    Silence,
    /// A server failure.
    Failure,
}

/// A running name server. It ends when this value is dropped.
pub struct NameServer {
    /// Where it listens.
    pub address: SocketAddr,
    names: Arc<Mutex<HashMap<String, Answer>>>,
    task: JoinHandle<()>,
}

impl NameServer {
    /// Starts a name server on loopback.
    ///
    /// # Errors
    /// The operating system refuses it.
    pub async fn start() -> std::io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let names: Arc<Mutex<HashMap<String, Answer>>> = Arc::default();
        let known = Arc::clone(&names);
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                if let Some(answer) = answer(&packet[..length], &known) {
                    // A client that has gone needs no answer.
                    socket.send_to(&answer, from).await.ok();
                }
            }
        });
        Ok(Self { address, names, task })
    }

    /// Sets the answer for a name.
    pub fn set(&self, name: &str, answer: Answer) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), answer);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to one question of type A. Questions of other types get an empty answer.
fn answer(packet: &[u8], known: &Mutex<HashMap<String, Answer>>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let question_end = at + 4;
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    let found = known.lock().unwrap_or_else(PoisonError::into_inner).get(&labels.join(".")).cloned();
    let (code, addresses) = match found {
        Some(Answer::Silence) => return None,
        Some(Answer::Failure) => (2, Vec::new()),
        Some(Answer::Addresses(addresses)) if kind == 1 => (0, addresses),
        Some(Answer::Addresses(_)) => (0, Vec::new()),
        None => (3, Vec::new()),
    };
    let mut reply = packet.get(..2)?.to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    reply.extend(packet.get(12..question_end)?);
    for address in addresses {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}
