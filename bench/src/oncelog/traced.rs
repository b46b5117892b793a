//! What it costs to be watched: both services, exporting to a collector.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::ensure;
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::{Calling, Side};
use crate::{
    candidate::{Candidate, Place},
    load::Load,
    measured::Measured,
};

/// Calls to the services while they export metrics, and traces of so large a share of the requests.
#[derive(Debug)]
pub struct Traced {
    calling: Calling,
    /// 0 to 1, in decimal.
    share: &'static str,
}

impl Traced {
    /// `calling` calls the services.
    pub fn new(calling: Calling, share: &'static str) -> Self {
        Self { calling, share }
    }
}

#[tonic::async_trait(?Send)]
impl Candidate for Traced {
    async fn run(&self, load: &Load, place: Place<'_>) -> anyhow::Result<Measured> {
        let collector = Collector::start().await?;
        let mut calling = self.calling.clone();
        if let Side::Oncelog(settings) = &mut calling.side {
            settings.environment = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.addr)),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
                ("OTEL_TRACES_SAMPLER_ARG", self.share.to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        }
        let measured = calling.run(load, place).await?;
        ensure!(collector.spans() > 0, "the services were to be traced, and sent no span");
        Ok(measured)
    }
}

/// Takes everything and keeps nothing, in the process of the bench.
struct Collector {
    addr: SocketAddr,
    sink: Sink,
    serving: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Sink {
    spans: Arc<AtomicU64>,
}

impl Collector {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (addr, sink) = (listener.local_addr()?, Sink::default());
        let serve = Server::builder()
            .add_service(TraceServiceServer::new(sink.clone()).max_decoding_message_size(usize::MAX))
            .add_service(MetricsServiceServer::new(sink.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Ok(Self { addr, sink, serving: tokio::spawn(async move { drop(serve.await) }) })
    }

    fn spans(&self) -> u64 {
        self.sink.spans.load(Ordering::Relaxed)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.spans.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(&self, _: Request<ExportMetricsServiceRequest>) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}
