//! What the process tells of itself: a log, and, where OpenTelemetry's own environment variables ask for it, traces and metrics
//! by OTLP.
//!
//! | file | owns |
//! |---|---|
//! | [`log`] | one line an event on stderr |
//! | `otlp` | which of OpenTelemetry's variables ask for what, and what then exports |
//! | `transport` | how it travels: gRPC or HTTP, and certificates |
//!
//! Without an exporter there is no tracer and no meter, and what is asked of them is nothing: see [`Tracer`].

pub mod log;
mod otlp;
mod transport;

use std::{fmt, sync::Arc};

pub use log::LogFormat;
use otlp::Providers;

use crate::{metrics::Registry, trace::Tracer};

/// What a service records to. Clones record to the same.
#[derive(Clone, Default)]
pub struct Telemetry(Option<Arc<Providers>>);

/// The process's telemetry, until it ends.
#[derive(Debug)]
#[must_use]
pub struct Running(Telemetry);

/// Opens the [`log`] and the exporters that are configured, under the name of `service`.
///
/// # Errors
/// A filter or a variable that cannot be understood, an exporter that cannot be made, or the log was opened before.
///
/// # Panics
/// Outside a tokio runtime, if there is an exporter.
pub fn init(service: &'static str, format: LogFormat, filter: &str) -> anyhow::Result<Running> {
    log::init(format, filter)?;
    let providers = otlp::providers(service, &|name| std::env::var(name).ok())?;
    let (traces, metrics) = providers.as_ref().map_or((false, false), Providers::exports);
    tracing::info!(service, version = env!("CARGO_PKG_VERSION"), traces, metrics, "starting");
    Ok(Running(Telemetry(providers.map(Arc::new))))
}

impl Telemetry {
    /// Nothing is exported.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Makes the spans of `scope`, a crate.
    pub fn tracer(&self, scope: &'static str) -> Tracer {
        self.0.as_ref().and_then(|providers| providers.tracer(scope)).unwrap_or_default()
    }

    /// Exports the metrics of `scope`, if any are.
    pub fn export(&self, scope: &'static str, registry: &Arc<Registry>) {
        if let Some(meter) = self.0.as_ref().and_then(|providers| providers.meter(scope)) {
            registry.export(&meter);
        }
    }
}

impl Running {
    /// What a service records to.
    pub fn telemetry(&self) -> Telemetry {
        self.0.clone()
    }

    /// Sends what has not been sent. The last thing that a process does; it takes some seconds at most.
    pub async fn end(self) {
        let Some(providers) = self.0.0 else { return };
        // The exporters' threads are waited for, and one of them needs the runtime that this would keep waiting.
        let ended = tokio::task::spawn_blocking(move || providers.shut_down()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!("the last of the telemetry was not sent: {error:#}");
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Telemetry").field(&self.0.as_ref().map_or((false, false), |providers| providers.exports())).finish()
    }
}
