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
use tokio::time::Instant;
use tonic::{Code, Status};

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
        let found = self.methods.iter().find(|counted| counted.method.name == name).or_else(|| self.methods.last());
        found.expect("the last stands for all others").method
    }

    /// A call of a path begins.
    pub fn begin(self: &Arc<Self>, path: &str) -> Ongoing {
        self.active.fetch_add(1, Ordering::Relaxed);
        Ongoing { method: self.method(path), calls: Arc::clone(self), began: Instant::now(), status: Code::Cancelled }
    }

    /// Adds them to `registry`: how long they took, by whoever is on this `side` of them, and how many are open as `active`.
    pub fn register(self: &Arc<Self>, registry: &mut Registry, side: Side, active: &'static Metric) {
        let (durations, is_failure): (_, fn(Code) -> bool) = match side {
            Side::Server => (&SERVED, is_server_failure),
            Side::Client => (&MADE, |status| status != Code::Ok),
        };
        let series = self.methods.iter().flat_map(|counted| {
            let by_status = STATUSES.iter().zip(&counted.by_status).enumerate();
            by_status.map(move |(number, (status, histogram))| {
                let code = i32::try_from(number).map_or(Code::Unknown, Code::from_i32);
                let error = if is_failure(code) { *status } else { "" };
                (vec![names::GRPC, counted.method.name, *status, error], Arc::clone(histogram))
            })
        });
        registry.histograms(durations, series);
        let calls = Arc::clone(self);
        registry.gauge(active, move || Some(calls.active.load(Ordering::Relaxed)));
    }
}

/// Who counts calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who answers them.
    Server,
    /// Who makes them.
    Client,
}

/// A call that has begun. It ends when this is dropped, and is `CANCELLED` unless it was said otherwise.
#[derive(Debug)]
pub struct Ongoing {
    calls: Arc<Calls>,
    method: Method,
    began: Instant,
    status: Code,
}

impl Ongoing {
    /// Which method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Its status, as far as it is known.
    pub fn status(&self) -> Code {
        self.status
    }

    /// How long it goes on.
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// It is made as a call of another path.
    pub fn is_of(&mut self, path: &str) {
        self.method = self.calls.method(path);
    }

    /// Its status is known.
    pub fn set(&mut self, status: Code) {
        self.status = status;
    }

    /// It ends with this.
    pub fn end<T>(mut self, answered: &Result<T, Status>) {
        self.status = answered.as_ref().map_or_else(Status::code, |_| Code::Ok);
    }

    /// It ends when `call` does.
    pub async fn until<T>(self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let answered = call.await;
        self.end(&answered);
        answered
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.calls.active.fetch_sub(1, Ordering::Relaxed);
        self.calls.methods[self.method.index].by_status[self.status as usize].record_time(self.took());
    }
}

/// How a status is called in traces and metrics.
pub fn status_name(status: Code) -> &'static str {
    STATUSES[status as usize]
}

/// Is a status the service's doing, as the conventions have it? The others are the caller's.
pub fn is_server_failure(status: Code) -> bool {
    matches!(
        status,
        Code::Unknown | Code::DeadlineExceeded | Code::Unimplemented | Code::Internal | Code::Unavailable | Code::DataLoss
    )
}

/// The calls that a service answers.
static SERVED: Metric = Metric::new(
    "rpc.server.call.duration",
    Unit::Seconds,
    "Calls that were answered, by method and status; of a stream, from its beginning to its end.",
)
.by(LABELS);
/// The calls that a service makes.
static MADE: Metric = Metric::new(
    "rpc.client.call.duration",
    Unit::Seconds,
    "Calls that were made, by method and status; of a stream of calls, each by itself.",
)
.by(LABELS);
/// The conventions want all of them.
const LABELS: &[&str] = &[names::RPC_SYSTEM, names::RPC_METHOD, names::RPC_STATUS, names::ERROR_TYPE];

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
        calls.register(&mut registry, Side::Server, &ACTIVE);
        for path in ["/oncelog.v1.ProducerService/Send", "/made.up/Name", "/oncelog.v1.BrokerService/Fetch"] {
            calls.begin(path).end(&Err::<(), _>(Status::unavailable("")));
        }
        let _open = calls.begin("/oncelog.v1.ProducerService/Send");
        let text = registry.text();
        let count = |method: &str| {
            format!(
                "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",rpc_method=\"{method}\",\
                 rpc_response_status_code=\"UNAVAILABLE\",error_type=\"UNAVAILABLE\"}}"
            )
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
