//! A mock Kafka in this process: librdkafka's own, a real endpoint of the protocol. For the demo and for tests.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;
use rdkafka::types::RDKafkaRespErr;

/// The mock broker, on a thread of its own, which it may not leave.
pub struct Broker {
    /// Where clients find it.
    pub servers: String,
    asks: Option<SyncSender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

/// What is asked of the broker's thread.
enum Ask {
    /// Refuse everybody this topic, or no longer.
    Refuse(bool),
}

impl Broker {
    /// Starts one with a topic.
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
            match made {
                Ok(cluster) => {
                    let _ = ready.send(Ok(cluster.bootstrap_servers()));
                    // Until its owner drops the other end.
                    while let Ok(Ask::Refuse(refuse)) = asked.recv() {
                        let error = if refuse {
                            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
                        } else {
                            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
                        };
                        let _ = cluster.topic_error(&topic, error);
                    }
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        let servers = is_ready.recv().context("the mock broker's thread ended")??;
        Ok(Self { servers, asks: Some(asks), thread: Some(thread) })
    }

    /// Refuses everybody its topic, or no longer.
    pub fn refuse(&self, refuse: bool) {
        if let Some(asks) = &self.asks {
            let _ = asks.send(Ask::Refuse(refuse));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.asks.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
