//! Calls, those that a service answers and those that it makes: how many are open, and how long they took, by method and status.
//!
//! Every pair of a method and a status has its histogram from the start, so that counting takes no lock and no memory.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use oncelog_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

use super::{Histogram, Metric, Registry, Unit};
use crate::names;

/// The calls of some services.
#[derive(Debug)]
pub struct Calls {
    methods: Vec<Counted>,
    active: AtomicU64,
}

#[derive(Debug)]
struct Counted {
    method: Method,
    by_status: Vec<Arc<Histogram>>,
}

/// A method that is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// `package.Service/Method`.
    pub name: &'static str,
    /// It answers with a stream, so it ends when the stream does.
    pub streams: bool,
    index: usize,
}

impl Calls {
    /// Those of `services` (full names), and all others together as `_OTHER`.
    pub fn of(services: &[&str]) -> Self {
        let own = CONTRACT.iter().filter(|(name, _)| services.iter().any(|service| name.split('/').next() == Some(*service)));
        let names = own.map(|(name, streams)| (name.as_str(), *streams)).chain([(names::OTHER, true)]);
        let counted = |(index, (name, streams))| {
            let by_status = (0..STATUSES.len()).map(|_| Arc::new(Histogram::of_calls())).collect();
            Counted { method: Method { name, streams, index }, by_status }
        };
        Self { methods: names.enumerate().map(counted).collect(), active: AtomicU64::new(0) }
    }

    /// The method of a path, `/package.Service/Method`.
    pub fn method(&self, path: &str) -> Method {
        let name = path.strip_prefix('/').unwrap_or(path);
        let found = self.methods.iter().find(|counted| counted.method.name == name).or(self.methods.last());
        found.expect("the last stands for all others").method
    }

    /// A call begins.
    pub fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// A call ended that had begun.
    pub fn end(&self, method: Method, status: Code, took: Duration) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        self.count(method, status, took);
    }

    /// Counts a call.
    pub fn count(&self, method: Method, status: Code, took: Duration) {
        self.methods[method.index].by_status[status as usize].record_time(took);
    }

    /// Adds them to `registry`: the durations as `durations`, and how many are open as `active`.
    pub fn register(self: &Arc<Self>, registry: &mut Registry, durations: &'static Metric, active: Option<&'static Metric>) {
        let series = self.methods.iter().flat_map(|counted| {
            let by_status = STATUSES.iter().zip(&counted.by_status);
            by_status.map(|(status, histogram)| (vec![counted.method.name, *status], Arc::clone(histogram)))
        });
        registry.histograms(durations, series);
        if let Some(active) = active {
            let calls = Arc::clone(self);
            registry.gauge(active, move || Some(calls.active.load(Ordering::Relaxed)));
        }
    }
}

/// How a status is called in traces and metrics.
pub fn status_name(status: Code) -> &'static str {
    STATUSES[status as usize]
}

/// The calls that a service answers.
pub static SERVED: Metric = Metric::new(
    "rpc.server.call.duration",
    Unit::Seconds,
    "Calls that were answered, by method and status; of a stream, from its beginning to its end.",
)
.by(&[names::RPC_METHOD, names::RPC_STATUS]);
/// The calls that a service makes.
pub static MADE: Metric = Metric::new(
    "rpc.client.call.duration",
    Unit::Seconds,
    "Calls that were made, by method and status; of a stream of calls, each by itself.",
)
.by(&[names::RPC_METHOD, names::RPC_STATUS]);

/// By number.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The methods of the contract, and whether they answer with a stream.
static CONTRACT: LazyLock<Vec<(String, bool)>> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the descriptors were written by a compiler");
    let services = files.file.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    let methods = services.flat_map(|(package, service)| {
        let named = move |method: &prost_types::MethodDescriptorProto| {
            (format!("{package}.{}/{}", service.name(), method.name()), method.server_streaming())
        };
        service.method.iter().map(named)
    });
    methods.collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_by_method_and_status_and_a_made_up_one_among_the_others() {
        let calls = Arc::new(Calls::of(&["oncelog.v1.ProducerService"]));
        let mut registry = Registry::default();
        static ACTIVE: Metric = Metric::new("active", Unit::Count("call"), "Open.");
        calls.register(&mut registry, &SERVED, Some(&ACTIVE));
        for path in ["/oncelog.v1.ProducerService/Send", "/made.up/Name", "/oncelog.v1.BrokerService/Fetch"] {
            calls.begin();
            calls.end(calls.method(path), Code::Unavailable, Duration::from_millis(1));
        }
        calls.begin();
        let text = registry.text();
        let count = |method: &str| {
            format!("rpc_server_call_duration_seconds_count{{rpc_method=\"{method}\",rpc_response_status_code=\"UNAVAILABLE\"}}")
        };
        assert!(text.contains(&format!("{} 1\n", count("oncelog.v1.ProducerService/Send"))), "{text}");
        assert!(text.contains(&format!("{} 2\n", count(names::OTHER))), "{text}");
        assert!(text.contains("\nactive 1\n"), "{text}");
        assert!(!text.contains("made.up") && !text.contains("OK"), "{text}");
    }

    #[test]
    fn statuses_have_their_own_names_and_streams_are_known() {
        assert_eq!([status_name(Code::Ok), status_name(Code::Unauthenticated)], ["OK", "UNAUTHENTICATED"]);
        let calls = Calls::of(&["oncelog.v1.BrokerService"]);
        assert!(calls.method("/oncelog.v1.BrokerService/Fetch").streams);
        assert!(!calls.method("/oncelog.v1.BrokerService/Produce").streams);
    }
}
