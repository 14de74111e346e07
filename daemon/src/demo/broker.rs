//! A mock Kafka in this process: librdkafka's own, a real endpoint of the protocol. For the demo and for tests.

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;

/// The mock broker, on a thread of its own, which it may not leave.
pub struct Broker {
    /// Where clients find it.
    pub servers: String,
    end: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Broker {
    /// Starts one with a topic.
    ///
    /// # Errors
    /// The client library's.
    pub fn start(topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let topic = topic.to_owned();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let (end, ended) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("mock-broker".to_owned()).spawn(move || {
            let cluster = MockCluster::new(1).and_then(|cluster| {
                cluster.create_topic(&topic, partitions, 1)?;
                Ok(cluster)
            });
            match cluster {
                Ok(cluster) => {
                    let _ = ready.send(Ok(cluster.bootstrap_servers()));
                    // Until the demo drops its end of the channel.
                    let _ = ended.recv();
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        let servers = is_ready.recv().context("the mock broker's thread ended")??;
        Ok(Self { servers, end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
