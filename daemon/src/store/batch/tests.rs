use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::*;
use crate::base::clock::{ManualClock, Timestamp};
use crate::base::metrics::Labels;
use crate::model::amendment::{Amended, Amendment};
use crate::model::attempt::{Attempt, Outcome};
use crate::model::callback::CallbackId;
use crate::model::dead_letter::{DeadLetter, Unreadable};
use crate::model::endpoint::{QueueKey, QueueTarget};
use crate::model::endpoint_history::EndpointHistory;
use crate::model::event::RecordRef;
use crate::model::lease::{Facts, Token};
use crate::model::offsets::Watermark;
use crate::model::retry::{Next, Reason};
use crate::model::settlement::{Ended, Park, Settle};
use crate::model::team::Mode;
use crate::store::memory::MemoryStore;
use crate::store::reads::Reads as _;
use crate::store::resends::ResendCounts;
use crate::store::{
    Answer, Begun, ClaimAsk, Claimed, EventClaim, Known, LetterResend, LetterResent, NewLog, Options, PruneAsk, Pruned,
    Pulse, QueueOf, ResendStep, SetBack, Space, SpaceAsk, Take, TakeAsk, Taken,
};

const START: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// The answer of the scripted store to one write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Say {
    Applied,
    AppliedButUncertain,
    Unavailable,
    Broken,
    /// Applied, after a minute.
    AppliedLate,
}

/// A store that answers writes by a script, refuses chosen callbacks, and records all requests.
struct Scripted {
    inner: MemoryStore,
    script: Mutex<VecDeque<Say>>,
    /// Rows that are refused if they have content.
    refused: Vec<CallbackId>,
    /// Rows that are refused with any content.
    always_refused: Vec<CallbackId>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    number: u64,
    ids: Vec<CallbackId>,
    watermarks: usize,
}

impl Scripted {
    fn new(script: &[Say]) -> Self {
        Self {
            inner: MemoryStore::new(Options::default(), Arc::new(ManualClock::new(START))),
            script: Mutex::new(script.iter().copied().collect()),
            refused: Vec::new(),
            always_refused: Vec::new(),
            asked: Mutex::default(),
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuses(&self, change: &Change) -> bool {
        self.always_refused.contains(&id_of(change)) || (self.refused.contains(&id_of(change)) && has_content(change))
    }
}

fn id_of(change: &Change) -> CallbackId {
    match change {
        Change::Bury(letter, _) => letter.id,
        other => other.facts().expect("only a dead letter has none").id,
    }
}

fn has_content(change: &Change) -> bool {
    match change {
        Change::Settle(settle) => !settle.body.is_empty(),
        Change::Park(park) => !park.body.is_empty(),
        Change::Bury(letter, _) => !letter.value.is_empty(),
        Change::Release { .. } => false,
    }
}

impl EngineStore for Scripted {
    fn write(&self, batch: Arc<Batch>) -> Answer<'_, Applied> {
        let ids = batch.changes.iter().map(id_of).collect();
        let asked = Asked { number: batch.number, ids, watermarks: batch.watermarks.len() };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let say = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Say::Applied);
        Box::pin(async move {
            if batch.changes.iter().any(|change| self.refuses(change)) {
                return Err(StoreError::Refused("scripted".to_owned()));
            }
            match say {
                Say::Applied => self.inner.write(batch).await,
                Say::AppliedButUncertain => {
                    self.inner.write(batch).await?;
                    Err(StoreError::Uncertain("scripted".to_owned()))
                }
                Say::AppliedLate => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    self.inner.write(batch).await
                }
                Say::Unavailable => Err(StoreError::Unavailable("scripted".to_owned())),
                Say::Broken => Err(StoreError::Broken("scripted".to_owned())),
            }
        })
    }

    fn resend_letter(&self, resend: LetterResend) -> Answer<'_, LetterResent> {
        self.inner.resend_letter(resend)
    }

    fn discard_letter(&self, letter: CallbackId) -> Answer<'_, bool> {
        self.inner.discard_letter(letter)
    }

    fn resend(&self, step: ResendStep) -> Answer<'_, Option<ResendCounts>> {
        self.inner.resend(step)
    }

    fn note_endpoints(&self, histories: Vec<EndpointHistory>) -> Answer<'_, ()> {
        self.inner.note_endpoints(histories)
    }

    fn endpoint_histories(&self, at_most: usize) -> Answer<'_, Vec<EndpointHistory>> {
        self.inner.endpoint_histories(at_most)
    }

    fn space(&self, ask: SpaceAsk) -> Answer<'_, Space> {
        self.inner.space(ask)
    }

    fn newest_time(&self) -> Answer<'_, Option<Timestamp>> {
        self.inner.newest_time()
    }

    fn set_back(&self, back: SetBack) -> Answer<'_, usize> {
        self.inner.set_back(back)
    }

    fn begin(&self) -> Answer<'_, Begun> {
        self.inner.begin()
    }

    fn claim(&self, ask: ClaimAsk) -> Answer<'_, Claimed> {
        self.inner.claim(ask)
    }

    fn amend(&self, changes: Vec<(CallbackId, Amendment)>) -> Answer<'_, Vec<Amended>> {
        self.inner.amend(changes)
    }

    fn retry_queue(&self, queue: QueueKey, at_most: usize) -> Answer<'_, usize> {
        self.inner.retry_queue(queue, at_most)
    }

    fn known(&self, ids: Vec<CallbackId>) -> Answer<'_, Vec<Option<Known>>> {
        self.inner.known(ids)
    }

    fn claim_event_ids(&self, claims: Vec<EventClaim>) -> Answer<'_, Vec<CallbackId>> {
        self.inner.claim_event_ids(claims)
    }

    fn pulse(&self, instance: InstanceId, applied: u64) -> Answer<'_, Pulse> {
        self.inner.pulse(instance, applied)
    }

    fn take(&self, ask: TakeAsk) -> Answer<'_, Take> {
        self.inner.take(ask)
    }

    fn start_over(
        &self,
        instance: InstanceId,
        partition: Arc<PartitionKey>,
        epoch: i64,
        log: NewLog,
    ) -> Answer<'_, Option<Taken>> {
        self.inner.start_over(instance, partition, epoch, log)
    }

    fn release(&self, instance: InstanceId, partitions: Vec<(Arc<PartitionKey>, i64)>) -> Answer<'_, ()> {
        self.inner.release(instance, partitions)
    }

    fn free_leases(&self, lease: Duration) -> Answer<'_, usize> {
        self.inner.free_leases(lease)
    }

    fn sweep(&self, queue_of: QueueOf) -> Answer<'_, ()> {
        self.inner.sweep(queue_of)
    }

    fn prune(&self, ask: PruneAsk) -> Answer<'_, Pruned> {
        self.inner.prune(ask)
    }

    fn end(&self, instance: InstanceId) -> Answer<'_, ()> {
        self.inner.end(instance)
    }
}

/// A writer on a scripted store, with one partition taken over in epoch 1.
struct Bench {
    store: Arc<Scripted>,
    writer: BatchWriter,
    up: watch::Receiver<bool>,
}

impl Bench {
    async fn new(store: Scripted) -> Self {
        let store = Arc::new(store);
        let instance = store.begin().await.unwrap().instance;
        let ask = TakeAsk::at_once(instance, partition());
        assert!(matches!(store.take(ask).await.unwrap(), Take::Taken(taken) if taken.epoch == 1));
        let labels = Labels::default();
        let up = Arc::new(StoreUp::new());
        let up_rx = up.watch();
        let engine = Arc::clone(&store) as Arc<dyn EngineStore>;
        let writer = BatchWriter::new(engine, instance, Arc::new(Metrics::new(&labels)), up);
        Self { store, writer, up: up_rx }
    }

    async fn ended(&self, n: u8) -> Option<(Ended, Outcome)> {
        let rows = self.store.inner.rows(id(n)).await.unwrap();
        rows.settled.map(|row| (row.ended, row.outcome))
    }
}

fn partition() -> Arc<PartitionKey> {
    Arc::new(PartitionKey { cluster: "c".into(), topic: "t".into(), number: 0 })
}

fn id(n: u8) -> CallbackId {
    CallbackId::from_bytes([n; 16])
}

fn record(n: u8) -> RecordRef {
    RecordRef { partition: partition(), offset: i64::from(n), timestamp: START.millis() }
}

fn facts(n: u8) -> Arc<Facts> {
    Arc::new(Facts {
        id: id(n),
        record: record(n),
        team: "team_a".into(),
        task_id: "task".into(),
        event_id: None,
        event_type: "task.completed".into(),
        queue: QueueKey { team: "team_a".into(), target: QueueTarget::Default(Mode::Live) },
        mode: Mode::Live,
        content_hash: [n; 32],
        builder: 1,
    })
}

fn settle(n: u8, outcome: Outcome, next: Next) -> Change {
    Change::Settle(Box::new(Settle {
        facts: facts(n),
        token: Token(u64::from(n)),
        epoch: Some(1),
        url: Some("https://a.example/x".into()),
        body: Bytes::from_static(b"{}"),
        number: 1,
        attempt: Attempt {
            outcome,
            sent: true,
            status: None,
            begun_at: START,
            took: Duration::from_millis(5),
            peer: None,
            redialed: false,
            sent_with: None,
            snippet: Bytes::from_static(b"ok"),
        },
        next,
    }))
}

fn delivered(n: u8) -> Change {
    settle(n, Outcome::Ok, Next::Delivered)
}

fn park(n: u8) -> Change {
    Change::Park(Box::new(Park {
        facts: facts(n),
        epoch: 1,
        url: Some("https://a.example/x".into()),
        body: Bytes::from_static(b"{}"),
        due: START,
        token: Token(u64::from(n)),
        lease_until: None,
    }))
}

fn bury(n: u8) -> Change {
    let letter = DeadLetter {
        id: id(n),
        record: record(n),
        reason: Unreadable::NotJson,
        detail: "at line 1".to_owned(),
        team: None,
        task_id: None,
        event_id: None,
        value: Bytes::from_static(b"{"),
        value_len: 1,
        value_hash: Some([n; 32]),
        headers: None,
    };
    Change::Bury(Box::new(letter), 1)
}

fn watermark(upto: i64) -> PartitionWatermark {
    PartitionWatermark { partition: partition(), epoch: 1, watermark: Watermark { upto, seen_upto: upto, last: None } }
}

const REJECTED: Option<(Ended, Outcome)> = Some((Ended::Abandoned(Reason::StoreRejected), Outcome::StoreRejected));
const DELIVERED: Option<(Ended, Outcome)> = Some((Ended::Delivered, Outcome::Ok));

#[tokio::test]
async fn a_batch_whose_fate_is_uncertain_is_written_again_with_its_number() {
    let mut bench = Bench::new(Scripted::new(&[Say::AppliedButUncertain, Say::Applied])).await;
    let written = bench.writer.write(vec![delivered(1), bury(2)], vec![watermark(3)]).await.unwrap();
    let once = Asked { number: 1, ids: vec![id(1), id(2)], watermarks: 1 };
    assert_eq!(bench.store.asked(), [once.clone(), once]);
    let verdicts: Vec<_> = written.changes.iter().map(|(_, verdict)| *verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Ended(Ended::Delivered), Verdict::Buried],
        "though the answer of the write was lost"
    );
    assert_eq!(bench.ended(1).await, DELIVERED);
    bench.writer.write(vec![delivered(3)], Vec::new()).await.unwrap();
    assert_eq!(bench.store.asked()[2].number, 2, "the next batch has the next number");
}

#[tokio::test]
async fn while_the_store_is_unavailable_the_batch_waits_and_everybody_knows() {
    let mut bench = Bench::new(Scripted::new(&[Say::Unavailable, Say::Unavailable, Say::Applied])).await;
    let mut up = bench.up.clone();
    let told = tokio::spawn(async move { up.wait_for(|up| !*up).await.is_ok() });
    let begun = Instant::now();
    bench.writer.write(vec![delivered(1)], Vec::new()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(80), "it waits between two writes, longer each time");
    let numbers: Vec<_> = bench.store.asked().iter().map(|asked| asked.number).collect();
    assert_eq!(numbers, [1, 1, 1]);
    assert!(*bench.up.borrow(), "it is up again");
    assert!(told.await.unwrap(), "the store was down for a while");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_not_answered_is_told_and_is_not_given_up() {
    let mut bench = Bench::new(Scripted::new(&[Say::AppliedLate])).await;
    let mut up = bench.up.clone();
    let told = tokio::spawn(async move { up.wait_for(|up| !*up).await.is_ok() });
    bench.writer.write(vec![delivered(1)], Vec::new()).await.unwrap();
    assert!(told.await.unwrap(), "the store was told as down");
    assert!(*bench.up.borrow(), "it is up again");
    assert_eq!(bench.store.asked().len(), 1, "nothing is written twice");
}

#[tokio::test]
async fn a_refused_batch_is_split_until_the_bad_change_is_alone() {
    let store = Scripted { refused: vec![id(3)], ..Scripted::new(&[]) };
    let mut bench = Bench::new(store).await;
    let changes = (1..=5).map(delivered).map(|change| retyped(change, 3)).collect();
    let written = bench.writer.write(changes, vec![watermark(6)]).await.unwrap();
    for n in [1, 2, 4, 5] {
        assert_eq!(bench.ended(n).await, DELIVERED, "callback {n}");
    }
    assert_eq!(bench.ended(3).await, REJECTED);
    let ids: Vec<_> = written.changes.iter().map(|(change, _)| id_of(change)).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5].map(id), "each change once, in their order");
    let asked = bench.store.asked();
    let mut numbers: Vec<_> = asked.iter().map(|asked| asked.number).collect();
    numbers.dedup();
    let last = numbers.len() as u64;
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "a part that is refused leaves its number to the next one");
    assert_eq!(asked.last(), Some(&Asked { number: last, ids: Vec::new(), watermarks: 1 }));
    assert!(asked[1..asked.len() - 1].iter().all(|part| part.watermarks == 0), "watermarks come after all rows");
    assert_eq!(written.watermarks.len(), 1);
    assert_eq!(written.now, START);
}

/// Turns the change of callback `n` into a failure that is tried again. Other changes stay as they are.
fn retyped(change: Change, n: u8) -> Change {
    if id_of(&change) != id(n) {
        return change;
    }
    let horizon = START.plus(Duration::from_secs(60));
    settle(n, Outcome::ServerError, Next::Retry { due: START, since: START, horizon })
}

#[tokio::test]
async fn the_replacement_of_a_refused_change_has_no_content() {
    let store = Scripted { refused: vec![id(1), id(2), id(3)], ..Scripted::new(&[]) };
    let mut bench = Bench::new(store).await;
    bench.writer.write(vec![delivered(1), park(2), bury(3)], Vec::new()).await.unwrap();
    assert_eq!(bench.ended(1).await, DELIVERED, "what was delivered stays delivered");
    assert_eq!(bench.ended(2).await, REJECTED);
    let buried = bench.store.inner.dead_letter(id(3)).await.unwrap().unwrap().letter;
    assert_eq!((buried.record, buried.value.len()), (record(3), 0), "it keeps its place in the topic");
    assert_eq!(buried.detail, "the store refused its bytes");
}

#[tokio::test]
async fn a_store_that_refuses_a_row_without_content_is_broken() {
    let store = Scripted { always_refused: vec![id(2)], ..Scripted::new(&[]) };
    let mut bench = Bench::new(store).await;
    let error = bench.writer.write(vec![delivered(1), delivered(2)], Vec::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::Broken(_)), "{error}");
}

#[tokio::test]
async fn a_broken_store_is_not_asked_again() {
    let mut bench = Bench::new(Scripted::new(&[Say::Broken])).await;
    let error = bench.writer.write(vec![delivered(1)], Vec::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::Broken(_)), "{error}");
    assert_eq!(bench.store.asked().len(), 1);
}
