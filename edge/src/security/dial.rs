//! The way to another service: its address, looked up anew for each connection; TLS, with the certificates that are the newest
//! then; and the token that calls show.

use std::{
    future::Future,
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::GaiResolver},
    rt::TokioIo,
};
use oncelog_proto::bearer::{Bearer, authorization};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt};

use super::{
    UNPAIRED,
    reload::Reload,
    tls::{ClientTls, HTTP_2},
    tokens,
};
use crate::link::Link;

/// What a caller trusts and shows. All of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Who vouches for the service, certificates in PEM; without it, whom this machine trusts.
    pub ca: Option<PathBuf>,
    /// The caller's certificate with its chain, in PEM.
    pub cert: Option<PathBuf>,
    /// Its key, in PEM.
    pub key: Option<PathBuf>,
    /// The caller's token, alone in its file.
    pub token: Option<PathBuf>,
}

/// Makes connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Dial {
    tls: Option<ClientTls>,
    bearer: Bearer,
}

impl Files {
    /// What is dangerous about showing them to `to`, in a sentence: a token on its way through a network in plaintext.
    pub fn warning(&self, to: &Uri) -> Option<String> {
        let is_read_along = self.token.is_some() && to.scheme() != Some(&Scheme::HTTPS) && !is_this_machine(to);
        is_read_along.then(|| {
            format!("calls to {to} show a token in plaintext: whoever is on the way can read it; begin the address with https://")
        })
    }

    /// Reads what is needed for `to`, and again whenever it changes, which `reload` looks after. TLS is what its scheme says.
    ///
    /// # Errors
    /// One of them cannot be read or used, or makes no sense for `to`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(self, to: &Uri, reload: &Reload) -> Result<Dial, String> {
        let Self { ca, cert, key, token } = self;
        let is_tls = to.scheme() == Some(&Scheme::HTTPS);
        let tls = match (is_tls, ca, cert, key) {
            (true, ca, None, None) => Some(ClientTls::open(reload, ca, None)?),
            (true, ca, Some(cert), Some(key)) => Some(ClientTls::open(reload, ca, Some((cert, key)))?),
            (true, ..) => return Err(UNPAIRED.to_owned()),
            (false, None, None, None) => None,
            (false, ..) => return Err(format!("certificates are given, but {to} is plaintext; begin the address with https://")),
        };
        let bearer = match token {
            None => Bearer::none(),
            Some(path) => {
                let parse = |contents: &[Vec<u8>]| {
                    let text = contents.first().and_then(|content| std::str::from_utf8(content).ok());
                    let token = text.unwrap_or_default().trim();
                    tokens::check(token).map_err(|error| format!("it does not hold one token: {error}"))?;
                    Ok(authorization(token).expect("it is visible ASCII"))
                };
                let current = reload.watch("the token for calls", vec![path], parse)?;
                Bearer::new(move || (**current.borrow()).clone())
            }
        };
        Ok(Dial { tls, bearer })
    }
}

impl Dial {
    /// Without TLS and without a token.
    pub const fn plaintext() -> Self {
        Self { tls: None, bearer: Bearer::none() }
    }

    /// What calls show.
    pub fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }

    /// A channel that connects when it is first used, and again whenever it broke. `endpoint` is by [`endpoint`].
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        endpoint.connect_with_connector_lazy(Connector::new(self.tls.clone(), GaiResolver::new()))
    }

    /// The same, connected.
    ///
    /// # Errors
    /// Nobody listens there, or the two do not trust each other.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        endpoint.connect_with_connector(Connector::new(self.tls.clone(), GaiResolver::new())).await
    }
}

/// The endpoint for an address. TLS is the connector's business, so the endpoint itself is plaintext; what calls say of
/// themselves is `to`, whatever its scheme.
pub fn endpoint(to: &Uri) -> Endpoint {
    let mut parts = to.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    let plain = Uri::from_parts(parts).expect("it was whole with another scheme");
    Endpoint::from(plain).origin(to.clone())
}

fn is_this_machine(to: &Uri) -> bool {
    let host = to.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = |addr: IpAddr| addr.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// Connects, and looks the name up each time.
#[derive(Clone, Debug)]
struct Connector<R> {
    tcp: HttpConnector<R>,
    tls: Option<ClientTls>,
}

impl<R> Connector<R> {
    fn new(tls: Option<ClientTls>, resolver: R) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self { tcp, tls }
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<Link>, BoxError>> + Send>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<R> Service<Uri> for Connector<R>
where
    HttpConnector<R>: Service<Uri, Response = TokioIo<TcpStream>> + Clone + Send + 'static,
    <HttpConnector<R> as Service<Uri>>::Future: Send,
    <HttpConnector<R> as Service<Uri>>::Error: Into<BoxError>,
{
    type Response = TokioIo<Link>;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Connecting {
        let (tcp, tls) = (self.tcp.clone(), self.tls.clone());
        Box::pin(async move {
            let host = to.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let tcp = tcp.oneshot(to).await.map_err(Into::into)?.into_inner();
            let Some(tls) = tls else { return Ok(TokioIo::new(Link::Plain(tcp))) };
            let name = ServerName::try_from(host)?;
            let stream = TlsConnector::from(tls.current()).connect(name, tcp).await?;
            if stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
                return Err("the service does not speak HTTP/2 over TLS, so it is no gRPC service".into());
            }
            Ok(TokioIo::new(Link::Tls(Box::new(stream.into()))))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        net::SocketAddr,
        sync::{Arc, Mutex},
    };

    use hyper_util::client::legacy::connect::dns::Name;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_endpoint_is_plaintext_below_and_calls_name_the_address_as_it_was_written() {
        let to: Uri = "https://broker.shop:50051".parse().expect("an address");
        assert_eq!(endpoint(&to).uri().to_string(), "http://broker.shop:50051/");
    }

    #[tokio::test]
    async fn files_that_make_no_sense_for_an_address_are_told() {
        let (plain, tls) = ("http://b:1".parse().expect("valid"), "https://b:1".parse().expect("valid"));
        let some = || Some(PathBuf::from("/nowhere/at-all"));
        let error = Files { ca: some(), ..Files::default() }.open(&plain, &Reload::default()).expect_err("plaintext");
        assert!(error.contains("https://"), "{error}");
        let error = Files { cert: some(), ..Files::default() }.open(&tls, &Reload::default()).expect_err("no key");
        assert!(error.contains("belong together"), "{error}");
        let error = Files { token: some(), ..Files::default() }.open(&plain, &Reload::default()).expect_err("no file");
        assert!(error.contains("/nowhere/at-all cannot be read"), "{error}");
        assert!(Files::default().open(&plain, &Reload::default()).is_ok());
    }

    #[test]
    fn a_token_in_plaintext_is_warned_of_where_others_are_on_the_way() {
        let warned = |to: &str, token: Option<&str>| {
            let files = Files { token: token.map(PathBuf::from), ..Files::default() };
            files.warning(&to.parse().expect("an address")).is_some()
        };
        for far in [
            "http://broker.shop:1",
            "http://192.0.2.7:1",
            "http://[2001:db8::7]:1",
            "http://localhost.shop:1",
            "http://128.0.0.1:1",
        ] {
            assert!(warned(far, Some("file")) && !warned(far, None), "{far}");
        }
        for near in ["http://localhost:1", "http://LOCALHOST:1", "http://127.0.0.1:1", "http://127.255.0.9:1", "http://[::1]:1"] {
            assert!(!warned(near, Some("file")), "{near}");
        }
        assert!(!warned("https://broker.shop:1", Some("file")));
    }

    #[tokio::test]
    async fn a_file_of_a_token_holds_one_and_a_message_never_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let to = "http://b:1".parse().expect("valid");
        std::fs::write(&path, "s3cret and more").expect("written");
        let error = Files { token: Some(path.clone()), ..Files::default() }.open(&to, &Reload::default()).expect_err("two words");
        assert!(!error.contains("s3cret"), "{error}");
        std::fs::write(&path, "too-short-s3cre\n").expect("written");
        let error = Files { token: Some(path.clone()), ..Files::default() }.open(&to, &Reload::default()).expect_err("15");
        assert!(error.contains("16 to 1024") && !error.contains("s3cre"), "{error}");
        std::fs::write(&path, "a-s3cret-of-many\n").expect("written");
        Files { token: Some(path), ..Files::default() }.open(&to, &Reload::default()).expect("one token");
    }

    /// A name that means another address each time.
    #[derive(Clone)]
    struct Moving(Arc<Mutex<Vec<SocketAddr>>>);

    impl Service<Name> for Moving {
        type Response = std::vec::IntoIter<SocketAddr>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Name) -> Self::Future {
            let next = self.0.lock().expect("no panic").remove(0);
            std::future::ready(Ok(vec![next].into_iter()))
        }
    }

    #[tokio::test]
    async fn each_connection_looks_the_name_up_anew() {
        let listen = async || TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let (first, second) = (listen().await, listen().await);
        let addrs = [&first, &second].map(|listener| listener.local_addr().expect("bound"));
        let mut connector = Connector::new(None, Moving(Arc::new(Mutex::new(addrs.to_vec()))));
        for (listener, addr) in [(&first, addrs[0]), (&second, addrs[1])] {
            // The port is that of the address, so it is named.
            let to: Uri = format!("http://moving.example:{}", addr.port()).parse().expect("an address");
            let (connected, accepted) = tokio::join!(connector.call(to), listener.accept());
            connected.expect("it listens");
            accepted.expect("it came here");
        }
    }
}
