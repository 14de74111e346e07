//! Topics that are deleted and created again while they are read. The client that reads does not notice all of it: after a broker's
//! restart the old topic's leader has a higher epoch than the new one's, and a new topic that has grown past the old one looks the same.

use std::time::Duration;

use callbackd_bench::recorder::Recorder;

use crate::harness::Harness;
use crate::kafka::{at_the_end, create_topic, delete_topic, each_once, events, own_broker, produce};

const TOPIC: &str = "while-read";
/// Of one change of the topic: three looks of the watch, and the group's next assignment.
const LONG: Duration = Duration::from_secs(90);

async fn arrived(harness: &Harness, servers: &str, receiver: &Recorder, count: usize) {
    assert!(receiver.until(LONG, |receipts| receipts.len() >= count).await, "{} of {count}", receiver.count());
    at_the_end(harness, servers, 2).await;
    each_once(receiver, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_re_created_while_it_is_read_is_read_from_its_beginning() {
    let mut broker = own_broker();
    let servers = broker.servers();
    create_topic(&servers, TOPIC, 2).await;
    let harness = Harness::on(&servers, None, TOPIC, &[], None).await;
    let receiver = harness.accepting().await;
    produce(&servers, TOPIC, 2, &events(0, 40, &receiver.url("/")));
    arrived(&harness, &servers, &receiver, 40).await;
    // The new topic has more records than the old one, then fewer.
    for (first, count) in [(1_000, 100), (2_000, 20)] {
        broker.stop();
        broker.run().unwrap();
        let before = receiver.count();
        produce(&servers, TOPIC, 2, &events(first + 500, 10, &receiver.url("/")));
        arrived(&harness, &servers, &receiver, before + 10).await;
        delete_topic(&servers, TOPIC).await;
        create_topic(&servers, TOPIC, 2).await;
        let before = receiver.count();
        produce(&servers, TOPIC, 2, &events(first, count, &receiver.url("/")));
        arrived(&harness, &servers, &receiver, before + usize::try_from(count).unwrap()).await;
    }
    assert!(harness.app().ops.metrics().partitions_started_over_total.get() >= 4);
    assert!(harness.app().ops.readiness().ready);
}
