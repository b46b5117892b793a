//! Any calls of the broker, one after the other. The bytes are steps: a kind (1 byte), a length (2 bytes), and a message or, for
//! time, milliseconds.
//!
//! | kind | step |
//! |---|---|
//! | 0–6 | `Produce`, `InitProducerId`, `CreateTopic`, `DeleteTopic`, `DescribeTopics`, `DescribeProducers`, `Fetch` |
//! | 7 | the group being written becomes durable |
//! | 8 | time passes |
//! | 9 | the broker crashes, without what is not durable, and starts again |

use std::time::Duration;

use broker_svc::{
    journal::Group,
    pipeline::{Answer, Now, Output, Pipeline, Request},
    state::State,
    wire::{parse, reply},
};
use oncelog_proto::{Fault, Monotonic, Timestamp, TopicName, TopicPartition, v1};
use prost::Message;

use crate::directory;

/// Every call is answered or refused; what was decided can be replayed to the same state, and kept in a snapshot and read back.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let mut broker = Broker::start();
    let mut rest = bytes;
    while let Some(([kind, high, low], tail)) = rest.split_first_chunk() {
        let len = u16::from_be_bytes([*high, *low]);
        let (message, tail) = tail.split_at(usize::from(len).min(tail.len()));
        rest = tail;
        match kind % 10 {
            7 => broker.sync(),
            8 => broker.wait(Duration::from_millis(u64::from(len).pow(2))),
            9 => broker.restart(),
            kind => {
                // A call that cannot be decoded or is malformed is refused before the broker hears of it.
                if let Some(Ok(request)) = parse(kind, message) {
                    broker.ask(request);
                }
            }
        }
    }
    broker.settle();
    let state = State::from_chunks(broker.pipeline.state().to_chunks()).expect("a snapshot can be read back");
    assert_eq!(&state, broker.pipeline.state());
    assert_eq!(&broker.replayed(), broker.pipeline.state(), "replay leads to the state that was lived (I5)");
}

fn parse(kind: u8, message: &[u8]) -> Option<Result<Request, Fault>> {
    Some(match kind {
        0 => {
            let request = v1::ProduceRequest::decode(message).ok()?;
            let limit = directory::options().limits.max_message_bytes;
            if parse::unpacked_bytes(&request, limit) > crate::UNPACKED_BYTES {
                return None;
            }
            parse::produce(request, limit)
        }
        1 => parse::init_producer(&v1::InitProducerIdRequest::decode(message).ok()?).map(|(ask, _)| Request::InitProducer(ask)),
        2 => parse::create_topic(&v1::CreateTopicRequest::decode(message).ok()?),
        3 => TopicName::parse(&v1::DeleteTopicRequest::decode(message).ok()?.topic).map(Request::DeleteTopic),
        4 => parse::describe_topics(&v1::DescribeTopicsRequest::decode(message).ok()?),
        5 => parse::describe_producers(&v1::DescribeProducersRequest::decode(message).ok()?),
        _ => {
            let request = v1::FetchRequest::decode(message).ok()?;
            TopicPartition::parse(&request.topic, request.partition).map(Request::Locate)
        }
    })
}

struct Broker {
    pipeline: Pipeline<()>,
    now: Now,
    durable: Vec<Group>,
    writing: Option<Group>,
}

impl Broker {
    fn start() -> Self {
        let now = Now { monotonic: Monotonic::from_micros(0), wall: Timestamp::from_micros(1_000_000_000_000_000) };
        let pipeline = Pipeline::open(directory::options(), State::default(), None, now);
        Self { pipeline, now, durable: Vec::new(), writing: None }
    }

    fn ask(&mut self, request: Request) {
        self.pipeline.on_request((), request, self.now);
        self.go_on();
    }

    /// Begins to write what is gathered, and tells what may be told.
    fn go_on(&mut self) {
        if self.writing.is_none() {
            self.writing = self.pipeline.poll_group();
            if self.writing.is_some() {
                self.pipeline.on_written();
            }
        }
        while let Some(output) = self.pipeline.poll_output() {
            if let Output::Answer((), answer) = output {
                tell(answer);
            }
        }
    }

    fn sync(&mut self) {
        if let Some(group) = self.writing.take() {
            self.durable.push(group);
            self.pipeline.on_synced(u64::MAX);
        }
        self.go_on();
    }

    fn wait(&mut self, passed: Duration) {
        self.now = Now { monotonic: self.now.monotonic.plus(passed), wall: self.now.wall.plus(passed) };
        self.pipeline.on_tick(self.now);
        self.go_on();
    }

    /// Waits until everything is answered and durable.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.pipeline.is_idle() {
                return;
            }
            if self.writing.is_some() {
                self.sync();
            } else {
                self.wait(Duration::from_millis(200));
            }
        }
        panic!("what waits is answered in the end");
    }

    fn restart(&mut self) {
        let state = self.replayed();
        let last = self.durable.last().map(Group::time);
        *self = Self {
            pipeline: Pipeline::open(directory::options(), state, last, self.now),
            now: self.now,
            durable: std::mem::take(&mut self.durable),
            writing: None,
        };
        self.go_on();
    }

    fn replayed(&self) -> State {
        let mut state = State::default();
        for group in &self.durable {
            for entry in group.entries() {
                state.apply(entry, group.time()).expect("what was decided can be replayed");
            }
        }
        state
    }
}

/// Puts an answer into its message.
fn tell(answer: Answer) {
    match answer {
        Answer::Produced(outcomes) => drop(reply::produced(outcomes)),
        Answer::Granted(granted) => drop(reply::granted(granted, None, 2_000)),
        Answer::Topics(page) => drop(reply::topics(&page, &|_| None)),
        Answer::Producers(page) => drop(reply::producers(page)),
        Answer::Located(_, ends) => assert!(ends.start <= ends.end, "a log ends where it starts, or later"),
        Answer::Refused(fault) => drop(fault.to_status()),
        Answer::Created(_) | Answer::Deleted => {}
    }
}
