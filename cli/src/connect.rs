//! The way to a service, what it trusts and shows on it, and what is said when it fails: one line with the gRPC code, the reason,
//! and what to do.

use std::{io, path::PathBuf, sync::Once, time::Duration};

use oncelog_edge::security::{dial, reload::Reload};
use oncelog_proto::{
    Link,
    v1::{broker_service_client::BrokerServiceClient, producer_service_client::ProducerServiceClient},
};
use tonic::{Code, Status, transport::Uri};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::exit::Exit;

/// What is trusted and shown on the way to a service whose URL begins with https://, and the token for one that asks for it.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct Secured {
    /// Who vouches for an https:// service, certificates in PEM. Default: whom this machine trusts.
    #[arg(long, value_name = "FILE", env = "ONCELOG_TLS_CA", global = true)]
    tls_ca: Option<PathBuf>,
    /// Certificate to show, with its chain, in PEM.
    #[arg(long, value_name = "FILE", env = "ONCELOG_TLS_CERT", requires = "tls_key", global = true)]
    tls_cert: Option<PathBuf>,
    /// Key of --tls-cert, in PEM.
    #[arg(long, value_name = "FILE", env = "ONCELOG_TLS_KEY", requires = "tls_cert", global = true)]
    tls_key: Option<PathBuf>,
    /// A file with the token to show, and nothing else.
    #[arg(long, value_name = "FILE", env = "ONCELOG_TOKEN_FILE", global = true)]
    token_file: Option<PathBuf>,
}

/// Connects to the producer at `url`.
pub(crate) async fn producer(url: &str, secured: &Secured) -> anyhow::Result<ProducerServiceClient<Link>> {
    Ok(ProducerServiceClient::new(link("producer", url, secured).await?))
}

/// Connects to the broker at `url`.
pub(crate) async fn broker(url: &str, secured: &Secured) -> anyhow::Result<BrokerServiceClient<Link>> {
    Ok(BrokerServiceClient::new(link("broker", url, secured).await?).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// Connects to what the `service` ("broker" or "producer") at `url` says of its health.
pub(crate) async fn health(service: &str, url: &str, secured: &Secured) -> anyhow::Result<HealthClient<Link>> {
    Ok(HealthClient::new(link(service, url, secured).await?))
}

async fn link(service: &str, url: &str, secured: &Secured) -> anyhow::Result<Link> {
    let parsed = url.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.authority().is_some());
    let is_no_url = || Exit::Usage.because(format!("--{service} {url:?} is not a URL like http://host:port"));
    let to = parsed.ok_or_else(is_no_url)?;
    let Secured { tls_ca, tls_cert, tls_key, token_file } = secured.clone();
    let files = dial::Files { ca: tls_ca, cert: tls_cert, key: tls_key, token: token_file };
    if let Some(warning) = files.warning(&to) {
        // However many connections there will be.
        WARNED.call_once(|| eprintln!("oncelog: {warning}"));
    }
    let dial = files.open(&to, &Reload::default()).map_err(anyhow::Error::msg)?;
    let endpoint = dial::endpoint(&to)
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let channel = dial.connect(&endpoint).await.map_err(|error| {
        let cause = root_cause(&error);
        if is_distrust(&error) {
            return anyhow::anyhow!(
                "the {service} at {url} is there, but there is no TLS with it ({cause}); see --tls-ca and --tls-cert"
            );
        }
        let what = format!("no {service} answers at {url} ({cause}); `oncelog dev` starts one, --{service} names another");
        Exit::Unreachable.because(what)
    })?;
    Ok(dial.bearer().on(channel))
}

/// A failed call, in one line: what was tried, the code, the reason and the message, and what to do about it.
pub(crate) fn failure(tried: &str, status: &Status) -> anyhow::Error {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| format!(" {}", info.reason)).unwrap_or_default();
    let message = match (status.message(), std::error::Error::source(status)) {
        ("", Some(source)) => root_cause(source),
        (message, _) => message.to_owned(),
    };
    let advice = match status.code() {
        // No "try again": what was being sent may be in the log.
        Code::Unavailable => "; the service has gone, or is starting",
        Code::ResourceExhausted => "; it is full: try again later, or raise the limit it names",
        Code::Unimplemented => "; is another service listening at this address?",
        Code::Unauthenticated => "; --token-file or --tls-cert say who you are",
        _ => "",
    };
    let exit = match status.code() {
        // No answer of a service: this is what a connection looks like that broke, or a service that is about to end.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => Exit::Failed,
        _ => Exit::Refused,
    };
    exit.because(format!("{tried}: {code}{reason}: {message}{advice}", code = name(status.code())))
}

/// The code as gRPC's documents spell it.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The innermost cause: "connection refused" says more than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Somebody is there, and the handshake of TLS failed: rustls wraps its errors into this kind.
fn is_distrust(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|error| error.kind() == io::ErrorKind::InvalidData)
}

static WARNED: Once = Once::new();
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const WINDOW_BYTES: u32 = 8 << 20;
/// A batch is below 64 MiB before compression; data that does not compress, and what is around it, is a little more.
const MAX_MESSAGE_BYTES: usize = 128 << 20;

#[cfg(test)]
mod tests {
    use oncelog_proto::{ErrorCode, Fault};

    use super::*;

    #[test]
    fn a_failure_is_one_line_with_code_reason_and_message() {
        let fault = Fault::new(ErrorCode::UnknownTopicOrPartition, "there is no topic orders");
        let line = failure("fetch", &fault.to_status()).to_string();
        assert_eq!(line, "fetch: NOT_FOUND UNKNOWN_TOPIC_OR_PARTITION: there is no topic orders");
    }

    #[test]
    fn only_what_a_service_says_is_a_refusal() {
        let exit = |status: Status| Exit::of(&failure("fetch", &status));
        assert_eq!(exit(Status::not_found("x")), Exit::Refused);
        assert_eq!(exit(Status::resource_exhausted("x")), Exit::Refused);
        assert_eq!(exit(Status::unavailable("x")), Exit::Failed);
    }

    #[tokio::test]
    async fn nobody_listening_is_said_with_address_and_advice() {
        let line = producer("http://127.0.0.1:1", &Secured::default()).await.expect_err("nobody listens there").to_string();
        assert!(line.contains("127.0.0.1:1") && line.contains("oncelog dev"), "{line}");
    }
}
