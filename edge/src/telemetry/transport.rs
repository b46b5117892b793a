//! How telemetry travels: over gRPC or over HTTP, with the certificates that OpenTelemetry's variables name.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry_http::{HttpClient, HttpError, hyper::HyperClient};
use opentelemetry_otlp::{
    MetricExporter, SpanExporter, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig, Identity},
};
use tokio::runtime::Handle;

use super::otlp::{Env, set};
use crate::security::tls;

/// Sends spans to where the variables say.
///
/// # Errors
/// What they say cannot be understood or read.
pub(super) fn spans(env: Env<'_>) -> anyhow::Result<SpanExporter> {
    let certificates = Certificates::read(env, "TRACES")?;
    let built = match Protocol::read(env, "TRACES")? {
        Protocol::Http => SpanExporter::builder().with_http().with_http_client(certificates.http(env, "TRACES")?).build(),
        Protocol::Grpc => match certificates.grpc() {
            Some(tls) => SpanExporter::builder().with_tonic().with_tls_config(tls).build(),
            None => SpanExporter::builder().with_tonic().build(),
        },
    };
    built.context("the exporter of traces")
}

/// Sends numbers to where the variables say.
///
/// # Errors
/// What they say cannot be understood or read.
pub(super) fn metrics(env: Env<'_>) -> anyhow::Result<MetricExporter> {
    let certificates = Certificates::read(env, "METRICS")?;
    let built = match Protocol::read(env, "METRICS")? {
        Protocol::Http => MetricExporter::builder().with_http().with_http_client(certificates.http(env, "METRICS")?).build(),
        Protocol::Grpc => match certificates.grpc() {
            Some(tls) => MetricExporter::builder().with_tonic().with_tls_config(tls).build(),
            None => MetricExporter::builder().with_tonic().build(),
        },
    };
    built.context("the exporter of metrics")
}

/// `OTEL_EXPORTER_OTLP_PROTOCOL`, and that of a kind of telemetry, which counts for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    /// Protobuf in HTTP/1.1.
    Http,
}

impl Protocol {
    pub(super) fn read(env: Env<'_>, kind: &str) -> anyhow::Result<Self> {
        match of_kind(env, kind, "PROTOCOL") {
            None => Ok(Self::Grpc),
            Some((_, said)) if said == "grpc" => Ok(Self::Grpc),
            Some((_, said)) if said == "http/protobuf" => Ok(Self::Http),
            Some((name, said)) => bail!("{name} is {said:?}; what is offered is grpc and http/protobuf"),
        }
    }
}

/// What the variables name, in PEM. Read once: an exporter keeps what it began with.
struct Certificates {
    /// Who vouches for the collector; none: whom this machine trusts.
    authority: Option<Vec<u8>>,
    /// What is shown to it: a certificate and its key.
    identity: Option<[Vec<u8>; 2]>,
}

impl Certificates {
    fn read(env: Env<'_>, kind: &str) -> anyhow::Result<Self> {
        let read = |what: &str| {
            let said = of_kind(env, kind, what);
            said.map(|(name, path)| fs::read(&path).with_context(|| format!("{name} is {path:?}, which cannot be read")))
                .transpose()
        };
        let identity = match (read("CLIENT_CERTIFICATE")?, read("CLIENT_KEY")?) {
            (Some(certificate), Some(key)) => Some([certificate, key]),
            (None, None) => None,
            (Some(_), None) => {
                bail!("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is set and OTEL_EXPORTER_OTLP_CLIENT_KEY is not: set both")
            }
            (None, Some(_)) => {
                bail!("OTEL_EXPORTER_OTLP_CLIENT_KEY is set and OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is not: set both")
            }
        };
        Ok(Self { authority: read("CERTIFICATE")?, identity })
    }

    /// None: the exporter does what the endpoint's scheme says.
    fn grpc(&self) -> Option<ClientTlsConfig> {
        if self.authority.is_none() && self.identity.is_none() {
            return None;
        }
        let tls = match &self.authority {
            Some(authority) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        Some(match &self.identity {
            Some([certificate, key]) => tls.identity(Identity::from_pem(certificate, key)),
            None => tls,
        })
    }

    fn http(&self, env: Env<'_>, kind: &str) -> anyhow::Result<OnRuntime> {
        let (timeout, runtime) = (timeout(env, kind)?, Handle::current());
        let is_tls = of_kind(env, kind, "ENDPOINT").is_some_and(|(_, endpoint)| endpoint.starts_with("https://"));
        if !is_tls {
            // Nobody has to be trusted for it, and a machine may trust nobody.
            return Ok(OnRuntime { client: Arc::new(HyperClient::with_default_connector(timeout, None)), runtime });
        }
        let shown = self.identity.as_ref().map_or(&[][..], |identity| &identity[..]);
        let mut tls = tls::client_config(self.authority.as_deref(), shown)
            .map_err(anyhow::Error::msg)
            .context("the certificates for the collector")?;
        // The connector says itself what it speaks.
        tls.alpn_protocols.clear();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
        Ok(OnRuntime { client: Arc::new(HyperClient::new(connector, timeout, None)), runtime })
    }
}

/// An HTTP client for threads that have no runtime: those that export are such.
#[derive(Debug)]
struct OnRuntime {
    client: Arc<dyn HttpClient>,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = Arc::clone(&self.client);
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

/// How long an export may take over HTTP; over gRPC the library reads it.
fn timeout(env: Env<'_>, kind: &str) -> anyhow::Result<Duration> {
    let Some((name, said)) = of_kind(env, kind, "TIMEOUT") else { return Ok(DEFAULT_TIMEOUT) };
    let millis = said.parse().with_context(|| format!("{name} is {said:?}, which is no number of milliseconds"))?;
    Ok(Duration::from_millis(millis))
}

/// The variable for a kind of telemetry, else the one for all, with its name.
fn of_kind(env: Env<'_>, kind: &str, what: &str) -> Option<(String, String)> {
    let names = [format!("OTEL_EXPORTER_OTLP_{kind}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
    names.into_iter().find_map(|name| set(env, &name).map(|said| (name, said)))
}

/// As OpenTelemetry specifies it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::{super::otlp::tests::with, *};

    #[test]
    fn the_protocol_of_a_kind_counts_for_more_and_what_is_not_offered_is_named() {
        let protocol = |said: &[(&str, &str)]| with(said, |env| Protocol::read(env, "TRACES")).map_err(|error| error.to_string());
        const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert_eq!(protocol(&[]), Ok(Protocol::Grpc));
        assert_eq!(protocol(&[HTTP]), Ok(Protocol::Http));
        assert_eq!(protocol(&[HTTP, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")]), Ok(Protocol::Grpc));
        assert_eq!(protocol(&[HTTP, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")]), Ok(Protocol::Http));
        let error = protocol(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]).expect_err("not offered");
        assert!(error.contains("OTEL_EXPORTER_OTLP_PROTOCOL is \"http/json\""), "{error}");
    }

    #[test]
    fn a_timeout_is_in_milliseconds() {
        let timeout = |said: &[(&str, &str)]| with(said, |env| timeout(env, "METRICS")).map_err(|error| error.to_string());
        assert_eq!(timeout(&[]), Ok(DEFAULT_TIMEOUT));
        assert_eq!(timeout(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "250")]), Ok(Duration::from_millis(250)));
        let error = timeout(&[("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1s")]).expect_err("no number");
        assert!(error.contains("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT is \"1s\""), "{error}");
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named_and_a_key_without_one_as_well() {
        let read = |said: &[(&str, &str)]| with(said, |env| Certificates::read(env, "TRACES"));
        assert!(read(&[]).expect("none").grpc().is_none());
        let said =
            [("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"), ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/nowhere/own")];
        let error = |said: &[(&str, &str)]| read(said).err().expect("not there").to_string();
        assert_eq!(error(&said[..1]), "OTEL_EXPORTER_OTLP_CERTIFICATE is \"/nowhere/ca.pem\", which cannot be read");
        assert_eq!(error(&said), "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE is \"/nowhere/own\", which cannot be read");
        // This file is one that is there; what is in it is looked at when there is a connection.
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(error(&[("OTEL_EXPORTER_OTLP_CLIENT_KEY", file)]).ends_with("set both"));
        assert!(error(&[("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", file)]).ends_with("set both"));
    }

    #[tokio::test]
    async fn certificates_for_http_are_looked_at_from_the_start_if_it_goes_over_tls() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let client = |endpoint| {
            let said = [("OTEL_EXPORTER_OTLP_CERTIFICATE", file), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)];
            with(&said, |env| Certificates::read(env, "TRACES")?.http(env, "TRACES"))
        };
        assert!(client("http://collector:4318").is_ok());
        let error = client("https://collector:4318").expect_err("it holds none");
        assert!(format!("{error:#}").starts_with("the certificates for the collector: "), "{error:#}");
    }
}
