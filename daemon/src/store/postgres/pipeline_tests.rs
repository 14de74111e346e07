//! What is sent together, in which order, and what becomes of it when a part fails. The server of these tests speaks as much of
//! PostgreSQL's protocol as is needed, and keeps its answers back until it was told enough: a client that waits for an answer too early
//! waits for ever.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::cells::{Cell, param};
use super::error::PostgresError;
use super::pipeline::{OnItsWay, Pipeline};
use super::session::Warnings;
use super::transaction::Open;
use crate::store::StoreError;

const DEADLINE: Duration = Duration::from_secs(20);
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// How many statements the server wants to have before it answers them, each time.
type Script = VecDeque<usize>;

/// A server, and the statements that came to it, in their order.
struct Server {
    script: Script,
    told: Arc<Mutex<Vec<String>>>,
}

impl Connect for Server {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let session = Session {
                stream: theirs,
                script: self.script.clone(),
                told: Arc::clone(&self.told),
                statements: HashMap::new(),
                has_failed: false,
            };
            tokio::spawn(async move { session.serve().await.ok() });
            let (client, connection) = config.connect_raw(ours, NoTls).await?;
            Ok((client, tokio::spawn(async move { drop(connection.await) })))
        })
    }
}

struct Session {
    stream: DuplexStream,
    script: Script,
    told: Arc<Mutex<Vec<String>>>,
    /// The SQL of prepared statements, by name.
    statements: HashMap<String, String>,
    /// The transaction has failed, and nothing but its end succeeds.
    has_failed: bool,
}

impl Session {
    async fn serve(mut self) -> std::io::Result<()> {
        let length = self.stream.read_i32().await?;
        self.payload(length).await?;
        let greeting = [message(b'R', &0_i32.to_be_bytes()), message(b'K', &[0; 8]), message(b'Z', b"I")].concat();
        self.stream.write_all(&greeting).await?;
        // The answers to a group of messages, up to its end, and the groups that wait.
        let (mut answer, mut waiting, mut is_statement) = (Vec::new(), Vec::new(), false);
        loop {
            let tag = self.stream.read_u8().await?;
            let length = self.stream.read_i32().await?;
            let payload = self.payload(length).await?;
            let texts: Vec<&str> =
                payload.split(|byte| *byte == 0).filter_map(|text| str::from_utf8(text).ok()).collect();
            match tag {
                b'P' => {
                    self.statements.insert(texts[0].to_owned(), texts[1].to_owned());
                    answer.extend(message(b'1', b""));
                }
                // Each statement has one value, an integer.
                b'D' => answer.extend([message(b't', &[0, 1, 0, 0, 0, 23]), message(b'n', b"")].concat()),
                b'B' => {
                    let sql = self.statements[texts[1]].clone();
                    answer.extend(self.answer(&sql, &message(b'2', b"")));
                    is_statement = true;
                }
                b'Q' if texts[0] == "COMMIT" && self.told("goes away") => return Ok(()),
                b'Q' => {
                    answer.extend(self.answer(texts[0], b""));
                    is_statement = true;
                }
                _ => {}
            }
            if ![b'S', b'Q'].contains(&tag) {
                continue;
            }
            answer.extend(message(b'Z', b"T"));
            let group = std::mem::take(&mut answer);
            if !std::mem::take(&mut is_statement) {
                self.stream.write_all(&group).await?;
                continue;
            }
            waiting.push(group);
            if self.script.front().is_none_or(|wanted| waiting.len() >= *wanted) {
                self.script.pop_front();
                self.stream.write_all(&waiting.concat()).await?;
                waiting.clear();
            }
        }
    }

    async fn payload(&mut self, length: i32) -> std::io::Result<Vec<u8>> {
        let mut payload = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut payload).await?;
        Ok(payload)
    }

    fn told(&self, sql: &str) -> bool {
        self.told.lock().unwrap().iter().any(|told| told == sql)
    }

    /// The answer to a statement. One whose SQL is `fails` and a code fails with this code.
    fn answer(&mut self, sql: &str, begin: &[u8]) -> Vec<u8> {
        self.told.lock().unwrap().push(sql.to_owned());
        let code = match sql.strip_prefix("fails ") {
            Some(code) => Some(code),
            None if self.has_failed && !["COMMIT", "ROLLBACK"].contains(&sql) => Some("25P02"),
            None => None,
        };
        if let Some(code) = code {
            self.has_failed = true;
            return message(b'E', format!("SERROR\0VERROR\0C{code}\0Mit failed\0\0").as_bytes());
        }
        let tag = if sql == "COMMIT" && self.has_failed { "ROLLBACK" } else { sql };
        [begin, &message(b'C', format!("{tag}\0").as_bytes())[..]].concat()
    }
}

fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
    let length = i32::try_from(payload.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes()[..], payload].concat()
}

/// A connection to a server, and what that is told.
async fn connected(script: &[usize]) -> (Object, Arc<Mutex<Vec<String>>>) {
    let told = Arc::default();
    let server = Server { script: script.iter().copied().collect(), told: Arc::clone(&told) };
    let mut config = Config::new();
    config.user("test");
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let pool = Pool::builder(Manager::from_connect(config, server, recycling)).max_size(1).build().unwrap();
    (pool.get().await.unwrap(), told)
}

fn pipeline(statements: &[&'static str]) -> Pipeline<'static> {
    let mut pipeline = Pipeline::new();
    for sql in statements {
        pipeline.push(*sql, vec![param(7_i32)]);
    }
    pipeline
}

/// Begins with one statement, and commits with these. The statements that the server was told come with the answer.
async fn committed(script: &[usize], last: Pipeline<'_>) -> (Result<(), PostgresError>, Vec<String>) {
    let attempt = async {
        let (mut client, told) = connected(script).await;
        let (transaction, _) = Open::begin(&mut client, pipeline(&["first"])).await.ok().unwrap();
        let answer = transaction.commit(last, &Warnings::default()).await;
        // Whatever was sent before has come to the server when it answers this, if it is still there.
        client.simple_query("end").await.ok();
        let told = told.lock().unwrap().clone();
        (answer, told)
    };
    tokio::time::timeout(DEADLINE, attempt)
        .await
        .expect("the client waited for an answer before it had sent everything")
}

#[tokio::test]
async fn the_first_statements_are_sent_with_begin_and_the_last_ones_with_commit() {
    let (answer, told) = committed(&[2, 4], pipeline(&["a", "b", "c"])).await;
    assert!(answer.is_ok());
    assert_eq!(told, [BEGIN, "first", "a", "b", "c", "COMMIT", "end"]);
}

#[tokio::test]
async fn without_one_of_its_statements_nothing_is_committed() {
    let mut last = pipeline(&["a"]);
    last.push("does not fit", vec![param(Cell::Integer(i64::MAX))]);
    last.push("c", vec![param(7_i32)]);
    let (answer, told) = committed(&[], last).await;
    let error = StoreError::from(answer.unwrap_err());
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
    assert_eq!(told, [BEGIN, "first", "a", "ROLLBACK", "end"]);
}

#[tokio::test]
async fn a_statement_that_fails_is_the_answer_although_commit_is_answered_without_an_error() {
    let (answer, told) = committed(&[2, 4], pipeline(&["a", "fails 22012", "c"])).await;
    let PostgresError::Sql(error) = answer.unwrap_err() else { panic!("the server said that it failed") };
    assert_eq!(error.code().unwrap().code(), "22012", "and not that of those after it");
    assert_eq!(told, [BEGIN, "first", "a", "fails 22012", "c", "COMMIT", "end"], "nothing is rolled back twice");
}

#[tokio::test]
async fn an_answer_that_comes_at_once_is_an_answer() {
    let (client, _) = connected(&[]).await;
    // The first statement has failed, and the answer to the second one comes before the third one is sent.
    let failed = client.batch_execute("fails 22012").await.unwrap_err();
    let sent = OnItsWay::send(std::future::ready(Err::<(), _>(failed))).await.unless_refused();
    let Ok(sent) = sent else { panic!("it was sent") };
    let answer = sent.answer().await.unwrap_err();
    assert_eq!(answer.code().unwrap().code(), "22012");
    // A value that does not fit, or the end of the connection, means that it was not sent.
    drop(client.simple_query("goes away").await);
    let _gone = client.batch_execute("COMMIT").await;
    let closed = client.batch_execute("a").await.unwrap_err();
    assert!(OnItsWay::send(std::future::ready(Err::<(), _>(closed))).await.unless_refused().is_err());
}

#[tokio::test]
async fn a_new_row_that_is_there_already_was_met() {
    let mut last = pipeline(&["a"]);
    last.push_new("fails 23505", vec![param(7_i32)]);
    let (answer, _) = committed(&[2, 3], last).await;
    assert!(matches!(answer, Err(PostgresError::Met)));
    let (answer, _) = committed(&[2, 3], pipeline(&["a", "fails 23505"])).await;
    assert!(matches!(answer, Err(PostgresError::Sql(_))), "another statement's row");
}

#[tokio::test]
async fn a_connection_that_ends_says_nothing_about_commit() {
    // The answers to the statements never came, but they may have been written all the same.
    let (answer, told) = committed(&[2, 9], pipeline(&["a", "goes away"])).await;
    let error = StoreError::from(answer.unwrap_err());
    assert!(matches!(error, StoreError::Uncertain(_)), "{error}");
    assert_eq!(told, [BEGIN, "first", "a", "goes away"]);
}

#[tokio::test]
async fn what_is_given_up_before_commit_is_rolled_back() {
    let (mut client, told) = connected(&[]).await;
    drop(Open::begin(&mut client, pipeline(&["first"])).await.ok().unwrap());
    client.simple_query("end").await.unwrap();
    assert_eq!(*told.lock().unwrap(), [BEGIN, "first", "ROLLBACK", "end"]);
    // A begin that is dropped while it waits was sent.
    let (mut client, told) = connected(&[9]).await;
    tokio::select! {
        _ = Open::begin(&mut client, pipeline(&["first"])) => panic!("the server does not answer"),
        () = has_told(&told, 2) => {}
    }
    has_told(&told, 3).await;
    assert_eq!(*told.lock().unwrap(), [BEGIN, "first", "ROLLBACK"]);
}

/// Waits until the server was told so many statements.
async fn has_told(told: &Mutex<Vec<String>>, count: usize) {
    let look = async {
        while told.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, look).await.expect("the server is told");
}
