//! A small name server for tests. It knows addresses for some names, does not answer for others, and answers "no such
//! name" for the rest.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The answer for a name.
#[derive(Debug, Clone)]
pub enum Answer {
    /// These addresses.
    Addresses(Vec<IpAddr>),
    /// These addresses. The answer about IPv6 comes after this time.
    SlowV6(Vec<IpAddr>, Duration),
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
    answered: watch::Receiver<u64>,
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
        let (count, answered) = watch::channel(0);
        let task = tokio::spawn(async move {
            let socket = Arc::new(socket);
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                if let Some((answer, delay)) = answer(&packet[..length], &known) {
                    let (socket, count) = (Arc::clone(&socket), count.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(delay).await;
                        // A client that has gone needs no answer.
                        socket.send_to(&answer, from).await.ok();
                        count.send_modify(|count| *count += 1);
                    });
                }
            }
        });
        Ok(Self { address, names, answered, task })
    }

    /// Waits until it has sent this many answers.
    ///
    /// # Panics
    /// The name server has ended.
    pub async fn until_answered(&self, count: u64) {
        let mut answered = self.answered.clone();
        answered.wait_for(|sent| *sent >= count).await.expect("the name server runs");
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

/// The answer to one question of type A or AAAA, and when it is sent. Questions of other types get an empty answer.
fn answer(packet: &[u8], known: &Mutex<HashMap<String, Answer>>) -> Option<(Vec<u8>, Duration)> {
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
    let (code, addresses, slow) = match found {
        Some(Answer::Silence) => return None,
        Some(Answer::Failure) => (2, Vec::new(), Duration::ZERO),
        Some(Answer::Addresses(addresses)) => (0, addresses, Duration::ZERO),
        Some(Answer::SlowV6(addresses, delay)) => (0, addresses, delay),
        None => (3, Vec::new(), Duration::ZERO),
    };
    let asked: Vec<_> = addresses.iter().filter_map(|ip| record(*ip, kind)).collect();
    let mut reply = packet.get(..2)?.to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(asked.len()).ok()?, 0, 0, 0, 0]);
    reply.extend(packet.get(12..question_end)?);
    reply.extend(asked.concat());
    Some((reply, if kind == AAAA { slow } else { Duration::ZERO }))
}

const A: u16 = 1;
const AAAA: u16 = 28;

/// The record of an address, if it is of the kind that was asked for. It may be kept for 30 s.
fn record(ip: IpAddr, kind: u16) -> Option<Vec<u8>> {
    let data = match (ip, kind) {
        (IpAddr::V4(ip), A) => ip.octets().to_vec(),
        (IpAddr::V6(ip), AAAA) => ip.octets().to_vec(),
        _ => return None,
    };
    let length = u8::try_from(data.len()).ok()?;
    let kind = u8::try_from(kind).ok()?;
    Some([&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 30, 0, length][..], &data].concat())
}
