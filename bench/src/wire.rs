//! A proxy before a PostgreSQL server on loopback that cuts connections at a COMMIT: before the server receives it, or after it has
//! answered and before the client knows. It reads the protocol only as far as that.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use scale_callback::samples::Seed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running proxy. It ends, with its connections, when this value is dropped.
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: u16,
    /// One COMMIT in so many is cut; 0 cuts none.
    one_in: AtomicU64,
    seed: AtomicU64,
    before: AtomicU64,
    after: AtomicU64,
    /// Rises whenever the clients are left alone.
    stranded: watch::Sender<u64>,
}

/// How long the server does not notice that its client is gone.
const UNNOTICED: Duration = Duration::from_secs(3);

impl Wire {
    /// Starts a proxy before the server at this port of loopback.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(server: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let zero = || AtomicU64::new(0);
        let shared = Arc::new(Shared {
            server,
            one_in: zero(),
            seed: zero(),
            before: zero(),
            after: zero(),
            stranded: watch::channel(0).0,
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on one COMMIT in so many is cut, chosen by the seed; 0 cuts none.
    pub fn cut_one_in(&self, count: u64, seed: u64) {
        self.shared.seed.store(seed, Ordering::SeqCst);
        self.shared.one_in.store(count, Ordering::SeqCst);
    }

    /// Ends every connection on the client's side alone. The server notices it three seconds later.
    pub fn strand(&self) {
        self.shared.stranded.send_modify(|count| *count += 1);
    }

    /// How many were cut before the server received them, and how many after it had answered.
    #[must_use]
    pub fn cuts(&self) -> (u64, u64) {
        (self.shared.before.load(Ordering::SeqCst), self.shared.after.load(Ordering::SeqCst))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A connection that breaks is what this proxy is for.
            serve(client, &shared).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

/// What becomes of a COMMIT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    CutBefore,
    CutAfter,
}

impl Shared {
    fn fate(&self) -> Fate {
        let one_in = self.one_in.load(Ordering::SeqCst);
        if one_in == 0 {
            return Fate::Passes;
        }
        let mut seed = Seed::new(self.seed.fetch_add(1, Ordering::SeqCst));
        match (seed.below(one_in), seed.below(2)) {
            (0, 0) => Fate::CutBefore,
            (0, _) => Fate::CutAfter,
            _ => Fate::Passes,
        }
    }
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", shared.server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // Once this is set, nothing of the server's goes on to the client.
    let is_cut = AtomicBool::new(false);
    let mut stranded = shared.stranded.subscribe();
    tokio::select! {
        ended = forward(&mut from_client, &mut to_server, shared, &is_cut) => return ended,
        ended = answer(&mut from_server, &mut to_client, shared, &is_cut) => return ended,
        _ = stranded.changed() => {}
    }
    drop((from_client, to_client));
    tokio::time::sleep(UNNOTICED).await;
    Ok(())
}

/// Carries what the client says, a message at a time. Ends where a COMMIT is cut before the server.
async fn forward(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    is_cut: &AtomicBool,
) -> std::io::Result<()> {
    // The first message has no type.
    let mut message = vec![0; 4];
    from.read_exact(&mut message).await?;
    rest(from, &mut message, 0).await?;
    to.write_all(&message).await?;
    loop {
        let mut message = vec![0; 5];
        from.read_exact(&mut message).await?;
        rest(from, &mut message, 1).await?;
        if message[0] == b'Q' && message[5..].starts_with(b"COMMIT") {
            match shared.fate() {
                Fate::Passes => {}
                Fate::CutBefore => {
                    shared.before.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                Fate::CutAfter => is_cut.store(true, Ordering::SeqCst),
            }
        }
        to.write_all(&message).await?;
    }
}

/// Reads the rest of a message, whose length begins at this place.
async fn rest(from: &mut OwnedReadHalf, message: &mut Vec<u8>, length_at: usize) -> std::io::Result<()> {
    let length = u32::from_be_bytes([
        message[length_at],
        message[length_at + 1],
        message[length_at + 2],
        message[length_at + 3],
    ]);
    let whole = length_at + usize::try_from(length).unwrap_or(usize::MAX);
    let begun = message.len();
    message.resize(whole, 0);
    from.read_exact(&mut message[begun..]).await?;
    Ok(())
}

/// What a server answers to a COMMIT, or to a statement before it that failed.
const ANSWERS: [&[u8]; 4] = [b"COMMIT\0", b"ROLLBACK\0", b"SERROR\0", b"SFATAL\0"];

/// Carries what the server says. Ends when a COMMIT that is cut is answered. Other statements may have been sent together with it, and
/// their answers are kept back, too.
async fn answer(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    is_cut: &AtomicBool,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    let mut kept_back: Vec<u8> = Vec::new();
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        if !is_cut.load(Ordering::SeqCst) {
            to.write_all(&bytes[..count]).await?;
            continue;
        }
        kept_back.extend(&bytes[..count]);
        let has = |answer: &&[u8]| kept_back.windows(answer.len()).any(|window| window == *answer);
        if ANSWERS.iter().any(has) {
            shared.after.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
    }
}
