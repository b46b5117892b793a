//! The history of a sending (`--history FILE`), for `oncelog verify`. Without a file nothing is recorded.

use std::{collections::VecDeque, fs::File, io, path::Path, time::Instant};

use anyhow::Context;
use oncelog_proto::v1::{Record, SendStreamResponse};
use oncelog_verify::{
    HistoryWriter,
    history::{Began, CallId, CallerId, Digest, Event, FORMAT, Line, SendCalled},
    wire,
};

/// Writes down what is sent and what is answered, in the order of the requests.
#[derive(Debug)]
pub(super) struct Recording {
    out: Option<HistoryWriter<File>>,
    topic: String,
    partition: Option<i32>,
    started: Instant,
    calls: u64,
    open: VecDeque<(CallId, usize)>,
}

impl Recording {
    /// Begins one in a new file; none: nothing is written.
    #[expect(clippy::disallowed_methods, reason = "a recorder tells when things were seen, by a real clock")]
    pub(super) fn begin(path: Option<&Path>, topic: &str, partition: Option<i32>) -> anyhow::Result<Self> {
        // Others may write to the topic, too.
        let began = Began { format: FORMAT, alone: false, once: false, expiration_ms: None };
        let create = |path: &Path| HistoryWriter::create(path, began).with_context(|| format!("--history {}", path.display()));
        let out = path.map(create).transpose()?;
        Ok(Self { out, topic: topic.to_owned(), partition, started: Instant::now(), calls: 0, open: VecDeque::new() })
    }

    /// A request goes out next.
    pub(super) fn called(&mut self, records: &[Record]) -> io::Result<()> {
        if self.out.is_none() {
            return Ok(());
        }
        let call = CallId(self.calls);
        self.calls += 1;
        self.open.push_back((call, records.len()));
        let records = records.iter().map(Digest::of).collect();
        self.write(Event::SendCalled(SendCalled {
            call,
            caller: CallerId(0),
            streamed: true,
            // As it is unless somebody has switched it off, and then the verdict says so.
            repeats: false,
            topic: self.topic.clone(),
            partition: self.partition,
            records,
        }))
    }

    /// The oldest open request was answered.
    pub(super) fn answered(&mut self, answer: &SendStreamResponse) -> io::Result<()> {
        let Some((call, count)) = self.open.pop_front() else { return Ok(()) };
        self.write(Event::SendAnswered { call, outcomes: wire::send_stream(count, answer) })
    }

    /// Everything is in the file. What is still open stays without an answer.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), HistoryWriter::flush)
    }

    fn write(&mut self, event: Event) -> io::Result<()> {
        let at = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.out.as_mut().map_or(Ok(()), |out| out.write(&Line { at, event }))
    }
}
