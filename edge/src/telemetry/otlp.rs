//! Which of OpenTelemetry's variables ask for what, and the exporters.
//!
//! Something is exported if `OTEL_EXPORTER_OTLP_ENDPOINT` or the one of its kind (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`) says where to, or `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` is `otlp`. Nothing is by
//! default: a service that nobody watches should not look for a collector. All else is read by OpenTelemetry's own libraries: headers,
//! timeouts, compression, certificates, the sampler, the limits of batches and spans, the resource.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use opentelemetry::{
    metrics::{Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};

use crate::trace::Tracer;

/// What exports.
#[derive(Debug)]
pub(super) struct Providers {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

/// Reads a variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    traces: bool,
    metrics: bool,
}

/// The exporters that the variables ask for.
pub(super) fn providers(service: &'static str, env: Env<'_>) -> anyhow::Result<Option<Providers>> {
    let wanted = Wanted::read(env)?;
    if wanted == (Wanted { traces: false, metrics: false }) {
        return Ok(None);
    }
    let resource = || {
        let builder = Resource::builder();
        // A name that the variables give counts for more.
        let named = set(env, "OTEL_SERVICE_NAME").is_some()
            || set(env, "OTEL_RESOURCE_ATTRIBUTES").is_some_and(|said| said.contains("service.name="));
        let builder = if named { builder } else { builder.with_service_name(service) };
        builder.with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build()
    };
    let traces = wanted.traces.then(|| {
        let exporter = SpanExporter::builder().with_tonic().build().context("the exporter of traces")?;
        anyhow::Ok(SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build())
    });
    let metrics = wanted.metrics.then(|| {
        let exporter = MetricExporter::builder().with_tonic().build().context("the exporter of metrics")?;
        anyhow::Ok(SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(exporter).build())
    });
    Ok(Some(Providers { traces: traces.transpose()?, metrics: metrics.transpose()? }))
}

impl Wanted {
    fn read(env: Env<'_>) -> anyhow::Result<Self> {
        if set(env, "OTEL_SDK_DISABLED").is_some_and(|said| said.eq_ignore_ascii_case("true")) {
            return Ok(Self { traces: false, metrics: false });
        }
        let wanted = Self { traces: Self::kind(env, "TRACES")?, metrics: Self::kind(env, "METRICS")? };
        Ok(wanted)
    }

    fn kind(env: Env<'_>, kind: &str) -> anyhow::Result<bool> {
        let endpoint =
            set(env, "OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| set(env, &format!("OTEL_EXPORTER_OTLP_{kind}_ENDPOINT")));
        let name = format!("OTEL_{kind}_EXPORTER");
        let is_wanted = match set(env, &name).as_deref() {
            None => endpoint.is_some(),
            Some("otlp") => true,
            Some("none") => false,
            // It is served on the admin port in any case.
            Some("prometheus") if kind == "METRICS" => false,
            Some(other) => bail!("{name} is {other:?}; what is offered is otlp, and none"),
        };
        if is_wanted {
            let own = format!("OTEL_EXPORTER_OTLP_{kind}_PROTOCOL");
            for name in [own.as_str(), "OTEL_EXPORTER_OTLP_PROTOCOL"] {
                if let Some(protocol) = set(env, name) {
                    ensure!(
                        protocol == "grpc",
                        "{name} is {protocol:?}; what is offered is grpc: give the collector's gRPC port"
                    );
                    break;
                }
            }
        }
        Ok(is_wanted)
    }
}

/// A variable that is empty is none, as OpenTelemetry has it.
fn set(env: Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

impl Providers {
    /// Traces, and metrics?
    pub(super) fn exports(&self) -> (bool, bool) {
        (self.traces.is_some(), self.metrics.is_some())
    }

    pub(super) fn tracer(&self, scope: &'static str) -> Option<Tracer> {
        self.traces.as_ref().map(|provider| Tracer::new(provider.tracer(scope)))
    }

    pub(super) fn meter(&self, scope: &'static str) -> Option<Meter> {
        self.metrics.as_ref().map(|provider| provider.meter(scope))
    }

    /// Blocks until the rest is sent.
    pub(super) fn shut_down(&self) -> anyhow::Result<()> {
        let traces = self.traces.as_ref().map(|traces| traces.shutdown_with_timeout(PATIENCE));
        let metrics = self.metrics.as_ref().map(|metrics| metrics.shutdown_with_timeout(PATIENCE));
        traces.transpose().context("traces")?;
        metrics.transpose().context("metrics")?;
        Ok(())
    }
}

/// For the last of the spans, and again for the last of the numbers.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(said: &[(&str, &str)]) -> anyhow::Result<(bool, bool)> {
        let env = |name: &str| said.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Wanted::read(&env).map(|wanted| (wanted.traces, wanted.metrics))
    }

    #[test]
    fn nothing_is_exported_unless_somebody_says_where_to_or_asks_for_it() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        for (said, expected) in [
            (&[][..], (false, false)),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], (false, false)),
            (&[ENDPOINT], (true, true)),
            (&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")], (false, false)),
            (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], (false, true)),
            (&[ENDPOINT, ("OTEL_METRICS_EXPORTER", "prometheus")], (true, false)),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317")], (true, false)),
            (&[("OTEL_METRICS_EXPORTER", "otlp")], (false, true)),
        ] {
            assert_eq!(wanted(said).expect("understood"), expected, "{said:?}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        let error = wanted(&[("OTEL_TRACES_EXPORTER", "zipkin")]).expect_err("not offered").to_string();
        assert!(error.contains("OTEL_TRACES_EXPORTER is \"zipkin\""), "{error}");
        let http = [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
        let error = wanted(&http).expect_err("not offered").to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"http/protobuf\""), "{error}");
        let own = [http[0], http[1], ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")];
        assert!(wanted(&own).is_ok(), "the one of its kind counts for more");
    }
}
