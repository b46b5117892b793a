//! A journal's directory, small and with everything in it that a broker writes: three openings, every kind of entry a call can
//! make, indexes, two snapshots. The same bytes in every process.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use broker_svc::{
    journal::{self, Journal, OpenError, Options, Step, sim_disk::SimDisk},
    pipeline::{self, Now, Pipeline, Request},
    state::{InitRequest, Limits, State},
    wire::parse,
};
use oncelog_proto::{
    Compression, Monotonic, PackedBatch, ProducerId, RecordCount, Timestamp, TopicName, record_set,
    topic::PartitionCount,
    v1::{Batch, ProduceRequest, Record},
};

/// Its files, by name.
pub(crate) static FILES: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(live);

/// Opens what is on the disk, as a broker does.
pub(crate) fn open(disk: &SimDisk, seed: u64) -> Result<(Journal, State), OpenError> {
    let options = Options { segment_bytes: 1 << 20, spares: 0, ballast_bytes: 0, ..Options::new(seed) };
    let mut state = State::default();
    let (journal, _) = journal::open(Arc::new(disk.clone()), options, &mut state, &mut |_| {})?;
    Ok((journal, state))
}

/// Small limits, so that they are reached.
pub(crate) fn options() -> pipeline::Options {
    pipeline::Options {
        limits: Limits {
            max_message_bytes: 2_000,
            auto_create_topics: true,
            default_partitions: PartitionCount::new(2).expect("2"),
            max_partitions: 50,
            max_producers: 4,
            max_windows: 20,
            producer_id_expiration: Duration::from_secs(3600),
        },
        hold: Duration::from_millis(200),
        hold_bytes: 10_000,
        group_limit: Options { segment_bytes: 1 << 20, ..Options::new(0) }.group_limit(),
        incarnation: 0,
        accept_clock_jump: true,
    }
}

fn live() -> BTreeMap<String, Vec<u8>> {
    let disk = SimDisk::new();
    for opening in 0..3 {
        let (journal, state) = open(&disk, opening).expect("a sound disk");
        let micros = opening * 7_200_000_000;
        let wall = Timestamp::from_micros(1_000_000_000_000_000 + micros);
        let now = Now { monotonic: Monotonic::from_micros(micros), wall };
        let last = (opening > 0).then(|| journal.position().time());
        let mut broker = Life { pipeline: Pipeline::open(options(), state, last, now), journal, now };
        broker.opening(opening);
        if opening > 0 {
            let at = broker.journal.position();
            let state = broker.pipeline.state().to_chunks();
            broker.journal.snapshot_writer().write(at, &mut state.into_iter()).expect("a sound disk");
        }
        broker.ask(Request::CreateTopic { topic: topic("after"), partitions: None });
        broker.journal.write_marker(opening == 1).expect("a sound disk");
        let mut background = broker.journal.take_background().expect("it is taken once");
        while background.step().expect("a sound disk") != Step::Idle {}
    }
    let mut files: BTreeMap<_, _> =
        disk.names().into_iter().map(|name| (name.clone(), disk.content(&name).expect("it was listed"))).collect();
    // The zeros behind the last group of the last segment say nothing more by being many.
    let active = files.iter_mut().rfind(|(name, _)| name.ends_with(".log")).expect("there is one").1;
    let used = active.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    active.truncate(used.next_multiple_of(4096) + 2 * 4096);
    files
}

struct Life {
    journal: Journal,
    pipeline: Pipeline<()>,
    now: Now,
}

impl Life {
    /// Each request in a group of its own.
    fn ask(&mut self, request: Request) {
        self.pipeline.on_request((), request, self.now);
        while let Some(group) = self.pipeline.poll_group() {
            self.journal.write(&group).expect("there is room");
            self.journal.sync().expect("a sound disk");
            self.pipeline.on_written();
            self.pipeline.on_synced(u64::MAX);
            while self.pipeline.poll_output().is_some() {}
        }
    }

    fn opening(&mut self, opening: u64) {
        if opening == 2 {
            // Both producers were silent for an hour; one of them is heard of in time.
            self.produce(Some((2, 0)), 3, Compression::Snappy);
            self.pipeline.on_tick(self.now);
        }
        self.ask(Request::InitProducer(InitRequest::Fresh));
        let id = i64::try_from(opening).expect("small") + 1;
        for (base, compression) in (0..).zip([Compression::None, Compression::Snappy, Compression::Zstd]) {
            self.produce(Some((id, 0)), base, compression);
            self.produce(None, 0, Compression::Lz4);
        }
        if opening == 1 {
            let (producer, token) = (ProducerId::new(1).expect("valid"), broker_svc::entry::TokenHash([9; 16]));
            self.ask(Request::InitProducer(InitRequest::Recover { producer, epoch: oncelog_proto::Epoch::ZERO, token }));
            self.ask(Request::CreateTopic { topic: topic("gone"), partitions: PartitionCount::new(3).ok() });
            self.ask(Request::DeleteTopic(topic("gone")));
        }
    }

    fn produce(&mut self, producer: Option<(i64, i32)>, base_sequence: i64, compression: Compression) {
        let record = Record { key: Some("key".into()), value: Some(vec![b'v'; 40].into()), ..Default::default() };
        let packed = PackedBatch::pack(&record_set::encode(&[record]), RecordCount::MIN, compression).expect("small");
        let batch = Batch { topic: "t".into(), base_sequence, packed: Some(packed.to_proto()), ..Default::default() };
        let (producer_id, producer_epoch) = (producer.map(|(id, _)| id), producer.map_or(0, |(_, epoch)| epoch));
        let request = ProduceRequest { producer_id, producer_epoch, batches: vec![batch], ..Default::default() };
        self.ask(parse::produce(request, 2_000).expect("well-formed"));
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("an allowed name")
}
