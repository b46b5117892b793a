//! Over real file systems: a disk that is full, a disk that breaks, and a bit that rots under a running broker. What was
//! acknowledged is in the log once, and everybody is told what they can do.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use oncelog_proto::{ErrorCode, v1};
use oncelog_tests::{
    lone_broker::{self, Client, LoneBroker},
    produce::{batch, record, sequenced, tagged, untagged},
    small_disk::SmallDisk,
};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic_types::StatusExt;
use v1::{FetchRequest, batch_result::Outcome};

const MIB: u64 = 1 << 20;
const FLAGS: [&str; 3] = ["--segment-bytes=4194304", "--snapshot-bytes=8388608", "--hold-ms=0"];

/// One producer that sends batch after batch to one partition, each when the one before is acknowledged.
struct Producer {
    id: i64,
    /// Batches that were acknowledged. The next one has been sent, maybe, and nobody knows.
    acknowledged: i64,
}

/// Why a batch was not acknowledged.
#[derive(Debug)]
enum Unacknowledged {
    Refused(ErrorCode),
    /// Of the call, or none: it is not answered.
    Failed(Option<tonic::Status>),
}

/// A value that differs from all others.
fn value(sequence: i64) -> Vec<u8> {
    let mut value = sequence.to_string().into_bytes();
    value.resize(BATCH, sequence.to_le_bytes()[0]);
    value
}

impl Producer {
    async fn new(client: &mut Client) -> Self {
        let granted = client.init_producer_id(v1::InitProducerIdRequest::default()).await.expect("granted").into_inner();
        Self { id: granted.producer_id, acknowledged: 0 }
    }

    /// Sends one batch; true if it was in the log already.
    async fn send(&self, client: &mut Client, sequence: i64) -> Result<bool, Unacknowledged> {
        let call = tagged(self.id, 0, vec![sequenced("t", 0, sequence, vec![record(value(sequence))])]);
        let answered = timeout(UNANSWERED, client.produce(call)).await.map_err(|_| Unacknowledged::Failed(None))?;
        let mut results = answered.map_err(|status| Unacknowledged::Failed(Some(status)))?.into_inner().results;
        match results.remove(0).outcome.expect("an outcome") {
            Outcome::Ack(ack) => {
                assert_eq!(ack.base_offset, sequence, "one record each, and nothing else in the partition");
                Ok(ack.duplicate)
            }
            Outcome::Error(error) => Err(Unacknowledged::Refused(error.code())),
        }
    }

    /// Sends until something is not acknowledged.
    async fn send_all(&mut self, client: &mut Client) -> Unacknowledged {
        loop {
            match self.send(client, self.acknowledged).await {
                Ok(_) => self.acknowledged += 1,
                Err(unacknowledged) => return unacknowledged,
            }
        }
    }

    /// Sends until the disk is full.
    async fn fill(&mut self, client: &mut Client) {
        match self.send_all(client).await {
            Unacknowledged::Refused(code) => assert_eq!(code, ErrorCode::ResourceExhausted),
            other => panic!("{other:?}"),
        }
    }

    /// Sends `count` batches, each until there is room for it.
    async fn go_on(&mut self, client: &mut Client, count: i64) {
        let go_on = async {
            for _ in 0..count {
                while let Err(error) = self.send(client, self.acknowledged).await {
                    assert!(matches!(error, Unacknowledged::Refused(ErrorCode::ResourceExhausted)), "{error:?}");
                    sleep(Duration::from_millis(50)).await;
                }
                self.acknowledged += 1;
            }
        };
        timeout(PATIENCE, go_on).await.expect("there is room again");
    }

    /// Each acknowledged batch is in the log, once and in order, and at most the one in flight behind them.
    async fn verify(&self, client: &mut Client) {
        let request = FetchRequest { topic: "t".into(), ..Default::default() };
        let fetched = lone_broker::fetch(client, request).await.expect("readable");
        let values: Vec<_> = fetched.into_iter().flat_map(|f| f.records).map(|r| r.record.and_then(|r| r.value)).collect();
        let count = i64::try_from(values.len()).expect("small");
        assert!(
            (self.acknowledged..=self.acknowledged + 1).contains(&count),
            "{count} in the log, {} acknowledged",
            self.acknowledged
        );
        for (sequence, found) in (0..).zip(values) {
            assert!(found.is_some_and(|found| found == value(sequence)), "record {sequence}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_is_new_serves_what_is_there_and_goes_on_when_there_is_space() {
    let Some(disk) = SmallDisk::new(96 * MIB, 112 * MIB) else { return };
    let others = disk.path().join("of-somebody-else");
    File::create(&others).and_then(|file| file.write_all_at(&vec![1; 30 << 20], 0)).expect("there is room");
    let mut broker = LoneBroker::start_in(&disk.path().join("data"), &FLAGS).await.expect("it starts");
    let mut client = broker.client();
    let mut producer = Producer::new(&mut client).await;

    producer.fill(&mut client).await;
    let full = producer.acknowledged;
    assert!(full > 20, "{full} batches filled the disk");
    producer.verify(&mut client).await;
    assert!(producer.send(&mut client, full - 1).await.expect("what is in the log is acknowledged (R15)"), "as a duplicate");

    // On the full disk it starts, too.
    broker.kill_and_restart().await.expect("it starts on a full disk");
    client = broker.client();
    producer.verify(&mut client).await;
    producer.fill(&mut client).await;
    producer.verify(&mut client).await;

    fs::remove_file(&others).expect("there");
    producer.go_on(&mut client, 20).await;
    producer.verify(&mut client).await;

    // Somebody takes all the space there is, between a look at it and the next, while the broker writes.
    let hog = disk.path().join("hog");
    let hogging = tokio::task::spawn_blocking({
        let hog = hog.clone();
        move || take_all(&hog)
    });
    let unacknowledged = producer.send_all(&mut client).await;
    hogging.await.expect("no panic");
    match unacknowledged {
        Unacknowledged::Refused(code) => {
            assert_eq!(code, ErrorCode::ResourceExhausted);
            producer.verify(&mut client).await;
        }
        // A group that was taken waits for space. Its caller hears nothing, nor does anybody whose answer stands behind it (R14).
        Unacknowledged::Failed(status) => assert!(status.is_none(), "{status:?}"),
    }
    broker.kill_and_restart().await.expect("it starts on a full disk");
    client = broker.client();
    producer.verify(&mut client).await;
    fs::remove_file(&hog).expect("there");
    producer.go_on(&mut client, 10).await;
    broker.stop_and_restart().await.expect("it ends well");
    producer.verify(&mut broker.client()).await;
    eprintln!("{full} batches filled the disk; {} acknowledged in all, all of them there", producer.acknowledged);
}

/// Writes until nothing fits any more.
fn take_all(path: &Path) {
    let mut file = File::create(path).expect("a name fits");
    let some = vec![7; 1 << 16];
    while file.write_all(&some).and_then(|()| file.sync_data()).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_a_sync_ends_the_broker_and_nothing_that_was_acknowledged_is_lost() {
    // The file system believes in 200 MiB; after 48 the device fails.
    let Some(disk) = SmallDisk::new(200 * MIB, 48 * MIB) else { return };
    let mut broker = LoneBroker::start_in(&disk.path().join("data"), &FLAGS).await.expect("it starts");
    let mut client = broker.client();
    let mut producer = Producer::new(&mut client).await;
    let unacknowledged = producer.send_all(&mut client).await;
    assert!(matches!(unacknowledged, Unacknowledged::Failed(_)), "{unacknowledged:?}");
    assert!(producer.acknowledged > 20, "{} batches", producer.acknowledged);
    let (status, log) = broker.ended().await.expect("it ends by itself (I8)");
    assert!(!status.success());
    let last = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
    // A sync hears of it as an error of input or output; a write past the cache, of blocks that were promised, as a lack of
    // space.
    let errors = ["failed: Input/output error", "failed: No space left on device"];
    assert!(errors.iter().any(|error| log.contains(error)) && log.contains("the process has to end"), "{last}");

    disk.repair(400 * MIB).expect("mounted again");
    broker.start_again().await.expect("what is there is whole");
    client = broker.client();
    producer.verify(&mut client).await;
    producer.go_on(&mut client, 10).await;
    producer.verify(&mut client).await;
    eprintln!("{} batches acknowledged, before and after the error, all of them there", producer.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_rots_under_a_running_broker_is_data_loss_for_that_batch_and_for_nothing_else() {
    let mut broker = LoneBroker::start(&[]).await.expect("it starts");
    let mut client = broker.client();
    let values: Vec<_> = (0..6).map(|n| format!("value number {n} of six")).collect();
    for value in &values {
        let of = |topic| batch(topic, 0, vec![record(value.clone())]);
        client.produce(untagged(vec![of("t"), of("u")])).await.expect("taken");
    }
    // The first of the two copies is in topic t.
    let segment = broker.data().join(format!("{:020}.log", 1));
    let bytes = fs::read(&segment).expect("readable");
    let at = bytes.windows(values[3].len()).position(|window| window == values[3].as_bytes()).expect("it is stored") as u64 + 5;
    let file = OpenOptions::new().read(true).write(true).open(&segment).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("there");
    file.write_all_at(&[byte[0] ^ 1], at).expect("it can be written");

    for restart in [false, true] {
        let from = |topic: &str, offset| FetchRequest { topic: topic.into(), offset: Some(offset), ..Default::default() };
        let status = lone_broker::fetch(&mut client, from("t", 3)).await.expect_err("it is not what was written");
        assert_eq!(status.code(), Code::DataLoss, "{status:?}");
        let details = status.get_error_details();
        let told = &details.error_info().expect("always there").metadata;
        assert_eq!((told["offset"].as_str(), told["next_offset"].as_str()), ("3", "4"));
        assert!(status.message().contains(".log is damaged at byte"), "{}", status.message());

        let mut before = client.fetch(from("t", 0)).await.expect("opened").into_inner();
        let mut seen = Vec::new();
        let end = loop {
            match before.message().await {
                Ok(response) => seen.extend(response.expect("it does not end as if all were well").records),
                Err(status) => break status,
            }
        };
        assert_eq!((end.code(), seen.len()), (Code::DataLoss, 3), "what stands before it is read");
        let count = async |client: &mut Client, topic, offset| {
            let fetched = lone_broker::fetch(client, from(topic, offset)).await.expect("whole");
            fetched.iter().map(|response| response.records.len()).sum::<usize>()
        };
        let further = if restart { 3 } else { 2 };
        assert_eq!(count(&mut client, "t", 4).await, further, "and what stands behind it");
        assert_eq!(count(&mut client, "u", 0).await, 6, "and other partitions");
        client.produce(untagged(vec![batch("t", 0, vec![record("one more")])])).await.expect("and it goes on");
        assert_eq!(count(&mut client, "t", 4).await, further + 1);
        if !restart {
            broker.kill_and_restart().await.expect("records below the durable end are looked at when they are read");
            client = broker.client();
        }
    }
}

/// Bytes of a batch.
const BATCH: usize = 400_000;
/// After so long without an answer a call is waiting for space.
const UNANSWERED: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(30);
