//! The state machine alone: groups are durable as soon as they are gathered, and time passes when it is told to.

use std::{collections::HashMap, time::Duration};

use broker_svc::{
    config::Config,
    entry::{Entry, PartitionId},
    journal::Group,
    pipeline::{Answer, Now, Options, Output, Pipeline, Request as Ask},
    state::{Ends, State},
    wire::{parse, reply},
};
use oncelog_proto::{Fault, Monotonic, PackedBatch, Timestamp, TopicName, TopicPartition, v1};

use super::{Broker, Request, Settings, request::Call, text};

/// A broker without a disk: its journal is a list.
#[derive(Debug)]
pub struct PureBroker {
    config: Config,
    pipeline: Pipeline<u64>,
    now: Now,
    journal: Vec<Group>,
    next: u64,
    answers: HashMap<u64, Answer>,
    later: HashMap<String, (u64, v1::ProduceRequest)>,
}

impl PureBroker {
    /// A fresh broker.
    ///
    /// # Panics
    /// A setting is not one of broker-svc's.
    pub fn start(settings: &Settings) -> Self {
        let config = super::live::config("nowhere".as_ref(), settings);
        let now = Now { monotonic: Monotonic::from_micros(0), wall: Timestamp::from_micros(1_000_000_000_000_000) };
        let pipeline = Pipeline::open(options(&config), State::default(), None, now);
        let mut broker =
            Self { config, pipeline, now, journal: Vec::new(), next: 0, answers: HashMap::new(), later: HashMap::new() };
        broker.settle();
        broker
    }

    fn settle(&mut self) {
        loop {
            while let Some(output) = self.pipeline.poll_output() {
                if let Output::Answer(number, answer) = output {
                    self.answers.insert(number, answer);
                }
            }
            let Some(group) = self.pipeline.poll_group() else { return };
            self.journal.push(group);
            self.pipeline.on_written();
            self.pipeline.on_synced(u64::MAX);
        }
    }

    fn ask(&mut self, ask: Ask) -> u64 {
        self.next += 1;
        self.pipeline.on_request(self.next, ask, self.now);
        self.settle();
        self.next
    }

    /// Lets time pass until the answer is there.
    fn wait(&mut self, number: u64) -> Result<Answer, Fault> {
        for _ in 0..100_000 {
            if let Some(answer) = self.answers.remove(&number) {
                return match answer {
                    Answer::Refused(fault) => Err(fault),
                    answer => Ok(answer),
                };
            }
            self.tick(self.pipeline.next_wakeup());
        }
        panic!("no answer comes, however long one waits");
    }

    fn tick(&mut self, to: Monotonic) {
        let passed = to.since(self.now.monotonic);
        self.now = Now { monotonic: self.now.monotonic.plus(passed), wall: self.now.wall.plus(passed) };
        self.pipeline.on_tick(self.now);
        self.settle();
    }

    fn idle(&mut self, duration: Duration) {
        let until = self.now.monotonic.plus(duration);
        while self.pipeline.next_wakeup() < until {
            self.tick(self.pipeline.next_wakeup());
        }
        self.tick(until);
    }

    /// Replays the journal; a snapshot, taken halfway, has to lead to the same state (I5).
    fn restart(&mut self, clean: bool) {
        let mut state = State::default();
        let halfway = self.journal.len() / 2;
        for (index, group) in self.journal.iter().enumerate() {
            if clean && index == halfway {
                state = State::from_chunks(state.to_chunks()).expect("a snapshot can be read back");
            }
            for entry in group.entries() {
                state.apply(entry, group.time()).expect("the journal is sound");
            }
        }
        assert_eq!(&state, self.pipeline.state(), "replay leads to the state that was lived");
        let last = self.journal.last().map(|group| group.time());
        self.pipeline = Pipeline::open(options(&self.config), state, last, self.now);
        self.settle();
    }

    fn call(&mut self, call: Call) -> Result<Vec<String>, Fault> {
        Ok(match call {
            Call::Produce(request) => {
                let number = self.produce(request.clone())?;
                produced(&request, self.wait(number)?)
            }
            Call::Init(request) => {
                let (ask, last) = parse::init_producer(&request)?;
                let number = self.ask(Ask::InitProducer(ask));
                let Answer::Granted(granted) = self.wait(number)? else { panic!("another answer") };
                text::granted(&reply::granted(granted, last.as_ref(), self.config.max_message_bytes))
            }
            Call::Create(request) => {
                let number = self.ask(parse::create_topic(&request)?);
                let Answer::Created(partitions) = self.wait(number)? else { panic!("another answer") };
                text::created(&request.topic, partitions.get())
            }
            Call::Delete(request) => {
                let number = self.ask(Ask::DeleteTopic(TopicName::parse(&request.topic)?));
                self.wait(number)?;
                text::deleted()
            }
            Call::Describe(request) => {
                let number = self.ask(parse::describe_topics(&request)?);
                let Answer::Topics(page) = self.wait(number)? else { panic!("another answer") };
                text::described(&reply::topics(&page, &|_| None))
            }
            Call::Producers(request) => {
                let number = self.ask(parse::describe_producers(&request)?);
                let Answer::Producers(page) = self.wait(number)? else { panic!("another answer") };
                text::producers(&reply::producers(page))
            }
            Call::Fetch(request) => {
                let name = TopicPartition::parse(&request.topic, request.partition)?;
                let number = self.ask(Ask::Locate(name.clone()));
                let Answer::Located(partition, ends) = self.wait(number)? else { panic!("another answer") };
                let first = ends.first_to_read(request.offset, &name)?.get();
                let most = request.max_records.map_or(usize::MAX, |most| usize::try_from(most).expect("not negative"));
                text::fetched(&[self.fetched(partition, ends, first, most)])
            }
        })
    }

    fn produce(&mut self, request: v1::ProduceRequest) -> Result<u64, Fault> {
        let ask = parse::produce(request, self.config.max_message_bytes)?;
        Ok(self.ask(ask))
    }

    /// What the groups hold of a partition.
    fn fetched(&self, partition: PartitionId, ends: Ends, first: i64, most: usize) -> v1::FetchResponse {
        let mut records = Vec::new();
        for group in &self.journal {
            let mut payloads = group.payloads().iter();
            for entry in group.entries() {
                let Entry::Append(append) = entry else { continue };
                let data = payloads.next().expect("an append has a payload").clone();
                if append.partition != partition {
                    continue;
                }
                let (codec, count) = (append.compression, append.count);
                let packed = PackedBatch::from_stored(codec, count, append.uncompressed_bytes, append.checksum, data);
                let stored = packed.and_then(|packed| packed.records().ok()).expect("it was verified");
                records.extend((0..).zip(stored).map(|(index, record)| v1::fetch_response::FetchedRecord {
                    offset: append.base_offset.get() + index,
                    record: Some(record),
                    producer_id: append.tag.map(|tag| tag.producer.get()),
                    producer_epoch: append.tag.map(|tag| tag.epoch.get()),
                    sequence: append.tag.map(|tag| tag.base.get() + index),
                    ..Default::default()
                }));
            }
        }
        records.retain(|record| record.offset >= first);
        records.truncate(most);
        v1::FetchResponse { records, log_start_offset: ends.start.get(), log_end_offset: ends.end.get(), ..Default::default() }
    }
}

impl Broker for PureBroker {
    fn play(&mut self, request: Request) -> Vec<String> {
        match request {
            Request::Call(call) => self.call(call).unwrap_or_else(|fault| text::refused(&fault.to_status())),
            Request::Later(name, Call::Produce(request)) => {
                let number = self.produce(request.clone()).expect("only well-formed calls are left for later");
                self.later.insert(name, (number, request));
                Vec::new()
            }
            Request::Later(..) => panic!("only produce can be left for later"),
            Request::Answer(name) => {
                let (number, request) = self.later.remove(&name).expect("it was left for later");
                match self.wait(number) {
                    Ok(answer) => produced(&request, answer),
                    Err(fault) => text::refused(&fault.to_status()),
                }
            }
            Request::Idle(duration) => {
                self.idle(duration);
                Vec::new()
            }
            Request::Restart { clean } => {
                self.restart(clean);
                Vec::new()
            }
        }
    }
}

fn produced(request: &v1::ProduceRequest, answer: Answer) -> Vec<String> {
    let Answer::Produced(outcomes) = answer else { panic!("another answer") };
    text::produced(request, reply::produced(outcomes))
}

fn options(config: &Config) -> Options {
    config.pipeline_options(config.journal_options(0).group_limit(), 0)
}
