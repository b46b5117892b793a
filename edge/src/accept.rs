//! Which connections get in.
//!
//! At most [`Limits::connections`] are open at once; one more is closed as soon as it is accepted, so that its caller hears of
//! it instead of waiting in a queue that nobody serves. A connection that does not begin to speak HTTP/2 in time is closed, or
//! silent ones could take every place. `TCP_NODELAY` is set here, because tonic ignores its own setting for a listener that it
//! did not bind, and without it a small call waits for a delayed acknowledgement, 40 ms and more.
//!
//! With TLS, each handshake is a task of its own that holds a place, and a connection gets in when it is done; a handshake counts
//! towards the time to begin to speak. Who calls is read from the certificate once, here.
//!
//! Dropping [`Incoming`] closes the listening socket; open connections live on.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Sleep, sleep},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::{
    link::Link,
    security::{identity::Identity, tls::ServerTls},
    seldom::Seldom,
};

/// What a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, from 1.
    pub connections: usize,
    /// Time from being accepted to the end of the HTTP/2 connection preface, which every client sends at once.
    pub preface: Duration,
}

impl Default for Limits {
    /// 1,000 connections; 10 seconds.
    fn default() -> Self {
        Self { connections: 1_000, preface: Duration::from_secs(10) }
    }
}

/// The connections of one listening socket, as tonic's `serve_with_incoming_shutdown` takes them.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    local_addr: SocketAddr,
    limits: Limits,
    tls: Option<ServerTls>,
    handshakes: JoinSet<Option<Connection>>,
    places: Arc<Semaphore>,
    /// After an error of the listener itself, which would otherwise come again at once, and again.
    pause: Option<Pin<Box<Sleep>>>,
    turned_away: Seldom,
    failed_handshakes: Arc<Seldom>,
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it calls from, if that is known.
    pub addr: Option<SocketAddr>,
    /// What its certificate calls it; none: it has shown none, or one without a name.
    pub identity: Option<Identity>,
}

impl Incoming {
    /// Listens on `addr`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound; the message names it.
    ///
    /// # Panics
    /// If `limits.connections` is 0, or outside a tokio runtime.
    pub async fn bind(addr: SocketAddr, limits: Limits) -> io::Result<Self> {
        assert!(limits.connections > 0, "a listener that lets nobody in");
        let named = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}"));
        let listener = TcpListener::bind(addr).await.map_err(named)?;
        let local_addr = listener.local_addr().map_err(named)?;
        let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            listener,
            local_addr,
            limits,
            tls: None,
            handshakes: JoinSet::new(),
            places,
            pause: None,
            turned_away: Seldom::default(),
            failed_handshakes: Arc::default(),
        })
    }

    /// The same over TLS, if there is any.
    #[must_use]
    pub fn over(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The connection, unless it is closed or has to shake hands first.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) -> Option<Connection> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            if let Some(count) = self.turned_away.note() {
                let limit = self.limits.connections;
                tracing::warn!(%peer, limit, count, "connections closed: the limit is reached; close idle ones or raise the limit");
            }
            return None;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY refused: the peer has gone already");
            return None;
        }
        let preface = Preface { missing: PREFACE_LEN, limit: Box::pin(sleep(self.limits.preface)) };
        let Some(tls) = &self.tls else {
            let peer = Peer { addr: Some(peer), identity: None };
            return Some(Connection { link: Link::Plain(stream), peer, preface: Some(preface), _place: place });
        };
        let acceptor = TlsAcceptor::from(tls.current());
        let failed = Arc::clone(&self.failed_handshakes);
        self.handshakes.spawn(async move {
            let connection = shake_hands(acceptor, stream, peer, preface, place).await;
            connection
                .inspect_err(|error| {
                    if let Some(count) = failed.note() {
                        tracing::warn!(%peer, %error, count, "TLS handshakes failed");
                    }
                })
                .ok()
        });
        None
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = self.pause.as_mut() {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(connection)))) => return Poll::Ready(Some(Ok(connection))),
                Poll::Ready(Some(_)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, peer)) => {
                    if let Some(connection) = self.admit(stream, peer) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                // The peer's fault, over with its connection.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    let addr = self.local_addr;
                    tracing::error!(%addr, %error, "cannot accept connections; trying again (too many open files? raise `ulimit -n`)");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}

async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    mut preface: Preface,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    let stream = tokio::select! {
        stream = acceptor.accept(stream) => stream?,
        () = preface.limit.as_mut() => return Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = Peer { addr: Some(peer), identity: certificate.and_then(Identity::of_certificate) };
    Ok(Connection { link: Link::Tls(Box::new(stream.into())), peer, preface: Some(preface), _place: place })
}

/// One accepted connection. It keeps its place until it is dropped.
#[derive(Debug)]
pub struct Connection {
    link: Link,
    peer: Peer,
    preface: Option<Preface>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.link).poll_read(cx, buf);
        if let Some(preface) = self.preface.as_mut() {
            preface.missing = preface.missing.saturating_sub(buf.filled().len() - before);
            if preface.missing == 0 {
                self.preface = None;
            } else if read.is_pending() && preface.limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 connection preface in time")));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

/// What is still awaited of the first words of a connection.
#[derive(Debug)]
struct Preface {
    missing: usize,
    limit: Pin<Box<Sleep>>,
}

/// Bytes of the HTTP/2 connection preface (RFC 9113, section 3.4).
const PREFACE_LEN: usize = 24;
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };
    use tokio_rustls::TlsConnector;
    use tokio_stream::StreamExt;

    use super::*;
    use crate::security::{reload::Reload, tls::ClientTls};

    async fn bind(limits: Limits) -> Incoming {
        Incoming::bind(([127, 0, 0, 1], 0).into(), limits).await.expect("a free port")
    }

    #[tokio::test]
    async fn the_last_place_is_given_and_the_next_caller_is_closed_until_one_is_free() {
        let mut incoming = bind(Limits { connections: 2, ..Limits::default() }).await;
        let addr = incoming.local_addr();
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(addr).await.expect("the socket listens"));
        }
        let first = incoming.next().await.expect("endless").expect("accepted");
        let second = incoming.next().await.expect("endless").expect("accepted");
        // The third is turned away while the stream is polled for the fourth, which gets the place that becomes free.
        let mut third = clients.pop().expect("three");
        let (end, _) = tokio::join!(third.read_u8(), async {
            tokio::select! {
                _ = incoming.next() => panic!("a third connection got in"),
                () = sleep(Duration::from_millis(200)) => {}
            }
        });
        assert!(end.is_err(), "the third caller was not told");
        drop(first);
        let _fourth = TcpStream::connect(addr).await.expect("the socket listens");
        let fourth = incoming.next().await.expect("endless").expect("accepted");
        assert!(fourth.link.tcp().nodelay().expect("open"));
        drop(second);
    }

    #[tokio::test]
    async fn a_silent_connection_is_ended_and_one_that_spoke_is_not() {
        let preface = Duration::from_millis(50);
        let mut incoming = bind(Limits { preface, ..Limits::default() }).await;
        let addr = incoming.local_addr();

        let mut silent = TcpStream::connect(addr).await.expect("the socket listens");
        silent.write_all(&[0; PREFACE_LEN - 1]).await.expect("open");
        let mut connection = incoming.next().await.expect("endless").expect("accepted");
        let mut buf = [0; PREFACE_LEN];
        let error = connection.read_exact(&mut buf).await.expect_err("one byte is missing");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut speaks = TcpStream::connect(addr).await.expect("the socket listens");
        speaks.write_all(&buf).await.expect("open");
        let mut connection = incoming.next().await.expect("endless").expect("accepted");
        connection.read_exact(&mut buf).await.expect("all bytes came");
        sleep(2 * preface).await;
        speaks.write_all(&[7]).await.expect("open");
        assert_eq!(connection.read_u8().await.expect("still open"), 7);
    }

    #[tokio::test]
    async fn who_does_not_shake_hands_is_ended_and_holds_up_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| directory.path().join(name);
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        std::fs::write(file("cert"), pair.cert.pem()).expect("written");
        std::fs::write(file("key"), pair.signing_key.serialize_pem()).expect("written");
        let reload = Reload::default();
        let tls = ServerTls::open(&reload, file("cert"), file("key"), None).expect("usable");
        let trust = ClientTls::open(&reload, Some(file("cert")), None).expect("usable");

        let preface = Duration::from_millis(500);
        let mut incoming = bind(Limits { connections: 2, preface }).await.over(Some(tls));
        let addr = incoming.local_addr();
        let mut silent = TcpStream::connect(addr).await.expect("the socket listens");
        let speaks = async {
            let stream = TcpStream::connect(addr).await.expect("the socket listens");
            let name = "localhost".try_into().expect("a name");
            let mut stream = TlsConnector::from(trust.current()).connect(name, stream).await.expect("they trust each other");
            stream.write_all(&[7; PREFACE_LEN]).await.expect("open");
            stream
        };
        let (_stream, connection) = tokio::join!(speaks, incoming.next());
        let mut connection = connection.expect("endless").expect("accepted");
        let mut buf = [0; PREFACE_LEN];
        connection.read_exact(&mut buf).await.expect("all bytes came");
        assert_eq!((buf, connection.connect_info().identity), ([7; PREFACE_LEN], None));
        tokio::select! {
            _ = incoming.next() => panic!("it has not shaken hands"),
            end = timeout(20 * preface, silent.read_u8()) => assert!(end.expect("in time").is_err(), "it is closed"),
        }
        // Its place is free again.
        let _third = TcpStream::connect(addr).await.expect("the socket listens");
        tokio::select! {
            _ = incoming.next() => panic!("it has not shaken hands"),
            () = sleep(preface / 5) => {}
        }
        assert_eq!(incoming.places.available_permits(), 0, "two of two");
    }

    #[tokio::test]
    async fn a_dropped_listener_frees_its_port() {
        let incoming = bind(Limits::default()).await;
        let addr = incoming.local_addr();
        drop(incoming);
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let incoming = bind(Limits::default()).await;
        let error = Incoming::bind(incoming.local_addr(), Limits::default()).await.expect_err("in use");
        assert!(error.to_string().contains(&incoming.local_addr().to_string()), "{error}");
    }
}
