//! A real OpenTelemetry Collector, which writes what it receives to files: built with Go from `tests/collector`.

use std::{env, fs, net::SocketAddr, path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use anyhow::{Context, ensure};
use oncelog_chaos::{
    port,
    process::Process,
    program::{Program, Programs},
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{binaries, workplace::Workplace};

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    process: Process,
    addr: SocketAddr,
    http: SocketAddr,
    traces: PathBuf,
    metrics: PathBuf,
}

/// A span as the collector received it.
#[derive(Clone, Debug)]
pub struct Span {
    /// Of the process that recorded it.
    pub service: String,
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// The same of the span that it is a child of; empty for none.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// The spans that it links to.
    pub links: Vec<String>,
    /// Its status says that it failed.
    pub failed: bool,
    attributes: Value,
}

/// What a collector has received, once it has ended.
#[derive(Debug)]
pub struct Received {
    /// Every span.
    pub spans: Vec<Span>,
    /// The names of all metrics.
    pub metrics: Vec<String>,
}

impl Collector {
    /// Starts one in a workplace. None, with a word about it, where there is no Go to build it with; with `CI=true` that is a
    /// failure.
    ///
    /// # Errors
    /// It does not start.
    ///
    /// # Panics
    /// It cannot be built although there is Go.
    pub async fn start(workplace: &Workplace) -> anyhow::Result<Option<Self>> {
        static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
        let Some(program) = BUILT.get_or_init(build) else { return Ok(None) };
        let [addr, http] = [port::free(), port::free()];
        let (traces, metrics) = (workplace.path("traces.jsonl"), workplace.path("metrics.jsonl"));
        let config = workplace.path("collector.yaml");
        let text = format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: {addr}\n      http:\n        endpoint: {http}\n\
             exporters:\n  lines/traces:\n    path: {}\n  lines/metrics:\n    path: {}\n\
             service:\n  telemetry:\n    metrics:\n      level: none\n  pipelines:\n\
             \x20   traces: {{receivers: [otlp], exporters: [lines/traces]}}\n\
             \x20   metrics: {{receivers: [otlp], exporters: [lines/metrics]}}\n",
            traces.display(),
            metrics.display()
        );
        fs::write(&config, text)?;
        let args = [format!("--config=file:{}", config.display())];
        let mut process = Process::start(&Program::new(program), &args, &workplace.path("collector.log"))?;
        let listens = async {
            for addr in [addr, http] {
                while TcpStream::connect(addr).await.is_err() {
                    ensure!(process.ended()?.is_none(), "the collector ended: {}", process.log()?);
                    sleep(Duration::from_millis(20)).await;
                }
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, listens).await.context("the collector does not listen")??;
        Ok(Some(Self { process, addr, http, traces, metrics }))
    }

    /// Both services, told by their environment to export to it.
    pub fn programs(&self) -> Programs {
        let Programs { broker, producer } = binaries::programs();
        let endpoint = format!("http://{}", self.addr);
        let told = |program: Program| {
            program.with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).with_variable("OTEL_METRIC_EXPORT_INTERVAL", "500")
        };
        Programs { broker: told(broker), producer: told(producer) }
    }

    /// The same, by HTTP.
    pub fn programs_over_http(&self) -> Programs {
        let endpoint = format!("http://{}", self.http);
        let told = |program: Program| {
            let program = program.with_variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
            program
                .with_variable("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
                .with_variable("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
                .with_variable("OTEL_METRIC_EXPORT_INTERVAL", "500")
        };
        let Programs { broker, producer } = self.programs();
        Programs { broker: told(broker), producer: told(producer) }
    }

    /// Ends it, and tells what it received. To be called after the services ended: they send the last of it then.
    ///
    /// # Errors
    /// It does not end well, or wrote what is no OTLP.
    pub async fn received(self) -> anyhow::Result<Received> {
        let status = self.process.terminate().await?;
        ensure!(status.success(), "the collector ended with {status}");
        let mut received = Received { spans: Vec::new(), metrics: Vec::new() };
        for line in fs::read_to_string(&self.traces)?.lines() {
            let told: Value = serde_json::from_str(line)?;
            for (resource, span) in items(&told, "resourceSpans", "scopeSpans", "spans") {
                received.spans.push(Span::read(resource, span)?);
            }
        }
        for line in fs::read_to_string(&self.metrics)?.lines() {
            let told: Value = serde_json::from_str(line)?;
            let names = items(&told, "resourceMetrics", "scopeMetrics", "metrics");
            received.metrics.extend(names.filter_map(|(_, metric)| Some(metric["name"].as_str()?.to_owned())));
        }
        received.metrics.sort();
        received.metrics.dedup();
        Ok(received)
    }
}

impl Received {
    /// The spans of a trace.
    pub fn trace(&self, id: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.trace == id).collect()
    }
}

impl Span {
    fn read(resource: &Value, span: &Value) -> anyhow::Result<Self> {
        let text = |key: &str| span[key].as_str().map(str::to_owned);
        let links = span["links"].as_array().into_iter().flatten();
        Ok(Self {
            service: attribute(&resource["attributes"], "service.name").unwrap_or_default(),
            trace: text("traceId").context("a span without a trace")?,
            id: text("spanId").context("a span without an id")?,
            parent: text("parentSpanId").unwrap_or_default(),
            name: text("name").unwrap_or_default(),
            links: links.filter_map(|link| Some(link["spanId"].as_str()?.to_owned())).collect(),
            failed: span["status"]["code"] == 2,
            attributes: span["attributes"].clone(),
        })
    }

    /// What it says of something; numbers as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.attributes, key)
    }

    /// What became of what it is about.
    pub fn outcome(&self) -> Option<String> {
        self.attribute("oncelog.outcome")
    }
}

fn attribute(attributes: &Value, key: &str) -> Option<String> {
    let value = &attributes.as_array()?.iter().find(|attribute| attribute["key"] == key)?["value"];
    let value = value.as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Everything in OTLP's three levels, with its resource.
fn items<'a>(
    told: &'a Value,
    resources: &'a str,
    scopes: &'a str,
    things: &'a str,
) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let resources = told[resources].as_array().into_iter().flatten();
    resources.flat_map(move |resource| {
        let scopes = resource[scopes].as_array().into_iter().flatten();
        let things = scopes.flat_map(move |scope| scope[things].as_array().into_iter().flatten());
        things.map(|thing| (&resource["resource"], thing))
    })
}

/// Builds it beside the tests; Go knows by itself what is built already.
fn build() -> Option<PathBuf> {
    let test = env::current_exe().expect("a running test has a path");
    let program = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps").join("collector");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/collector");
    match Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(source).status() {
        Ok(status) => {
            assert!(status.success(), "the collector cannot be built from {source}");
            Some(program)
        }
        Err(error) => {
            assert!(env::var("CI").as_deref() != Ok("true"), "go: {error}; it is needed for the collector");
            eprintln!("left out: there is no go to build the collector with ({error})");
            None
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
