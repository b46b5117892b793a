//! Which of OpenTelemetry's variables ask for what, and what then exports.
//!
//! Something is exported if `OTEL_EXPORTER_OTLP_ENDPOINT` or the one of its kind (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`) says where to, or `OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` is `otlp`. Nothing
//! is by default: a service that nobody watches should not look for a collector. How it travels there, [`transport`] knows. All
//! else is read by OpenTelemetry's own libraries: headers, compression, the sampler, the limits of batches and spans, the
//! resource. What is asked for and not offered stops the start: a service that is thought to be watched should be.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    trace::{self, SdkTracerProvider},
};

use super::transport;
use crate::{
    machine,
    trace::{DrawnIds, HeadSampler, Tracer},
};

/// What exports.
#[derive(Debug)]
pub(super) struct Providers {
    traces: Option<(SdkTracerProvider, HeadSampler)>,
    metrics: Option<SdkMeterProvider>,
}

/// Reads a variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

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
    let resource = Resource::builder().with_attributes(unsaid(service, env)?).build();
    let traces = wanted.traces.then(|| {
        let exporter = transport::spans(env)?;
        // As the variables have it.
        let sampler = trace::Config::default().sampler;
        let head = HeadSampler::new(sampler.clone());
        let provider = SdkTracerProvider::builder().with_sampler(sampler).with_id_generator(DrawnIds);
        anyhow::Ok((provider.with_resource(resource.clone()).with_batch_exporter(exporter).build(), head))
    });
    let metrics = wanted.metrics.then(|| {
        let exporter = transport::metrics(env)?;
        anyhow::Ok(SdkMeterProvider::builder().with_resource(resource.clone()).with_periodic_exporter(exporter).build())
    });
    Ok(Some(Providers { traces: traces.transpose()?, metrics: metrics.transpose()? }))
}

/// What the variables do not say of the process. Numbers of two processes that say the same of themselves would be taken for
/// those of one, so each has an id of its own.
fn unsaid(service: &'static str, env: Env<'_>) -> anyhow::Result<Vec<KeyValue>> {
    let said = set(env, "OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_said = |key: &str| {
        let is_named = key == "service.name" && set(env, "OTEL_SERVICE_NAME").is_some();
        is_named || said.split(',').any(|pair| pair.split('=').next().is_some_and(|said| said.trim() == key))
    };
    let instance = format!("{:016x}{:016x}", machine::random()?, machine::random()?);
    let own = [
        ("service.name", service.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance),
    ];
    let unsaid = own.into_iter().filter(|(key, _)| !is_said(key));
    Ok(unsaid.map(|(key, value)| KeyValue::new(key, value)).collect())
}

impl Wanted {
    fn read(env: Env<'_>) -> anyhow::Result<Self> {
        if set(env, "OTEL_SDK_DISABLED").is_some_and(|said| said.eq_ignore_ascii_case("true")) {
            return Ok(Self { traces: false, metrics: false });
        }
        if let Some(other) = set(env, "OTEL_LOGS_EXPORTER").filter(|said| !["none", "console"].contains(&said.as_str())) {
            bail!("OTEL_LOGS_EXPORTER is {other:?}; the log is on stderr and goes nowhere else: none, or console");
        }
        if let Some(other) = set(env, "OTEL_PROPAGATORS").filter(|said| !said.split(',').any(|one| one.trim() == "tracecontext"))
        {
            bail!("OTEL_PROPAGATORS is {other:?}; what is offered is tracecontext");
        }
        let wanted = Self { traces: Self::kind(env, "TRACES")?, metrics: Self::kind(env, "METRICS")? };
        if wanted.traces {
            check_sampler(env)?;
        }
        let of_traces = UNREAD_OF_TRACES.iter().filter(|_| wanted.traces);
        for name in UNREAD_OF_METRICS.iter().filter(|_| wanted.metrics).chain(of_traces) {
            if let Some(value) = set(env, name) {
                bail!("{name} is {value:?}; it is not offered, and would have no effect: unset it");
            }
        }
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
        Ok(is_wanted)
    }
}

/// The library would log that it does not know a sampler, and record everything.
fn check_sampler(env: Env<'_>) -> anyhow::Result<()> {
    let Some(name) = set(env, "OTEL_TRACES_SAMPLER") else { return Ok(()) };
    ensure!(SAMPLERS.contains(&name.as_str()), "OTEL_TRACES_SAMPLER is {name:?}; what is offered is {}", SAMPLERS.join(", "));
    if name.ends_with("traceidratio") {
        let share = set(env, "OTEL_TRACES_SAMPLER_ARG").unwrap_or_default();
        let is_share = share.parse().is_ok_and(|share: f64| (0.0..=1.0).contains(&share));
        ensure!(is_share, "OTEL_TRACES_SAMPLER is {name}, and OTEL_TRACES_SAMPLER_ARG {share:?} is no share from 0.0 to 1.0");
    }
    Ok(())
}

/// A variable that is empty is none, as OpenTelemetry has it.
pub(super) fn set(env: Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

impl Providers {
    /// Traces, and metrics?
    pub(super) fn exports(&self) -> (bool, bool) {
        (self.traces.is_some(), self.metrics.is_some())
    }

    pub(super) fn tracer(&self, scope: &'static str) -> Option<Tracer> {
        self.traces.as_ref().map(|(provider, head)| Tracer::new(provider.tracer(scope)).asking(head.clone()))
    }

    pub(super) fn meter(&self, scope: &'static str) -> Option<Meter> {
        self.metrics.as_ref().map(|provider| provider.meter(scope))
    }

    /// Blocks until the rest is sent.
    pub(super) fn shut_down(&self) -> anyhow::Result<()> {
        let traces = self.traces.as_ref().map(|(traces, _)| traces.shutdown_with_timeout(PATIENCE));
        let metrics = self.metrics.as_ref().map(|metrics| metrics.shutdown_with_timeout(PATIENCE));
        traces.transpose().context("traces")?;
        metrics.transpose().context("metrics")?;
        Ok(())
    }
}

/// Variables that the libraries do not read.
const UNREAD_OF_METRICS: [&str; 1] = ["OTEL_METRIC_EXPORT_TIMEOUT"];
const UNREAD_OF_TRACES: [&str; 2] = ["OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"];
const SAMPLERS: [&str; 6] =
    ["always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"];
/// For the last of the spans, and again for the last of the numbers.
const PATIENCE: Duration = Duration::from_secs(3);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Asks in an environment in which this is said.
    pub(in super::super) fn with<T>(said: &[(&str, &str)], ask: impl Fn(Env<'_>) -> T) -> T {
        ask(&|name: &str| said.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    fn wanted(said: &[(&str, &str)]) -> anyhow::Result<(bool, bool)> {
        with(said, Wanted::read).map(|wanted| (wanted.traces, wanted.metrics))
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
        let otlp = ("OTEL_TRACES_EXPORTER", "otlp");
        for (name, share, is_offered) in [
            ("always_on", "", true),
            ("parentbased_traceidratio", "0.01", true),
            ("traceidratio", "1", true),
            ("traceidratio", "1.1", false),
            ("parentbased_traceidratio", "", false),
            ("xray", "", false),
        ] {
            let said = [otlp, ("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", share)];
            assert_eq!(wanted(&said).is_ok(), is_offered, "{name} {share}");
        }
        assert!(wanted(&[("OTEL_LOGS_EXPORTER", "otlp")]).is_err() && wanted(&[("OTEL_LOGS_EXPORTER", "console")]).is_ok());
        assert!(wanted(&[("OTEL_PROPAGATORS", "b3")]).is_err() && wanted(&[("OTEL_PROPAGATORS", "b3, tracecontext")]).is_ok());
    }

    #[test]
    fn a_variable_that_nobody_reads_is_refused_where_it_would_have_an_effect() {
        let (traces, metrics) = (("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_METRICS_EXPORTER", "otlp"));
        for (name, of, not_of) in [
            ("OTEL_METRIC_EXPORT_TIMEOUT", metrics, traces),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", traces, metrics),
            ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", traces, metrics),
        ] {
            let error = wanted(&[of, (name, "1000")]).expect_err("not offered").to_string();
            assert!(error.contains(&format!("{name} is \"1000\"")), "{error}");
            assert!(wanted(&[not_of, (name, "1000")]).is_ok() && wanted(&[of, (name, "")]).is_ok(), "{name}");
        }
        assert!(wanted(&[metrics, ("OTEL_METRIC_EXPORT_INTERVAL", "1000")]).is_ok());
    }

    #[test]
    fn what_the_variables_say_of_the_process_counts_for_more_and_each_process_has_an_id() {
        let keys = |said: &[(&str, &str)]| {
            let unsaid = with(said, |env| unsaid("broker-svc", env)).expect("there is randomness");
            unsaid.into_iter().map(|said| said.key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&[]), ["service.name", "service.version", "service.instance.id"]);
        assert_eq!(keys(&[("OTEL_SERVICE_NAME", "x")]), ["service.version", "service.instance.id"]);
        let said = "service.name=x, service.instance.id=1,service.versions=2";
        assert_eq!(keys(&[("OTEL_RESOURCE_ATTRIBUTES", said)]), ["service.version"]);
        let ids = [(); 2].map(|()| with(&[], |env| unsaid("x", env)).expect("there is randomness").pop());
        assert_ne!(ids[0], ids[1]);
    }
}
