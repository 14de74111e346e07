//! A mock Kafka broker in this program, for the demo and for tests. It is librdkafka's own, and speaks the real
//! protocol over real connections.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaRespErr;

/// The mock broker. It runs on a thread of its own, since it must stay on the thread that made it.
pub struct Broker {
    /// The addresses for clients.
    pub servers: String,
    asks: Option<SyncSender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

/// What is asked of the broker's thread.
enum Ask {
    /// Whether everybody is refused the topic, and whom to tell when it is so.
    Refuse(bool, SyncSender<()>),
}

impl Broker {
    /// Starts a broker that has one topic.
    ///
    /// # Errors
    /// The client library's.
    pub fn start(topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let topic = topic.to_owned();
        let (ready, is_ready) = sync_channel(1);
        let (asks, asked) = sync_channel(1);
        let thread = std::thread::Builder::new().name("mock-broker".to_owned()).spawn(move || {
            let made = MockCluster::new(1).and_then(|cluster| {
                cluster.create_topic(&topic, partitions, 1)?;
                Ok(cluster)
            });
            // The task that started the thread waits for this answer, unless it has ended.
            match made {
                Ok(cluster) => {
                    if ready.send(Ok(cluster.bootstrap_servers())).is_ok() {
                        serve(&cluster, &topic, &asked);
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let servers = is_ready.recv().context("the mock broker's thread ended")??;
        Ok(Self { servers, asks: Some(asks), thread: Some(thread) })
    }

    /// Refuses everybody the topic, or stops refusing it.
    pub fn refuse(&self, refuse: bool) {
        if let Some(asks) = &self.asks {
            let (done, is_done) = sync_channel(1);
            // A broker whose thread has ended refuses everybody anyhow.
            asks.send(Ask::Refuse(refuse, done)).ok();
            is_done.recv().ok();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.asks.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been reported by the thread itself.
            thread.join().ok();
        }
    }
}

/// Answers until the broker's owner drops the other end.
fn serve(cluster: &MockCluster<'_, DefaultProducerContext>, topic: &str, asked: &Receiver<Ask>) {
    while let Ok(Ask::Refuse(refuse, done)) = asked.recv() {
        let error = if refuse {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        } else {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        };
        // The topic was created above, so the mock knows it.
        cluster.topic_error(topic, error).ok();
        // Nobody waits if its owner has ended.
        done.send(()).ok();
    }
}
