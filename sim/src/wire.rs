//! Connections between the hosts, as tonic takes them. One may break after any byte.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use turmoil::net::{TcpListener, TcpStream};

use crate::{chronicle::Chronicle, dice::Dice, weather::Weather};

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Bytes, read or written, until it breaks.
    left: Option<usize>,
    chronicle: Option<Chronicle>,
}

impl Wire {
    /// False: it is broken.
    fn carries(&mut self, bytes: usize) -> bool {
        let Some(left) = &mut self.left else { return true };
        if *left > 0
            && *left <= bytes
            && let Some(chronicle) = &self.chronicle
        {
            chronicle.count("network: connection cut");
        }
        *left = left.saturating_sub(bytes);
        *left > 0
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was cut")
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        if self.carries(bytes) { read } else { Poll::Ready(Err(broken())) }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let some = match self.left {
            Some(0) => return Poll::Ready(Err(broken())),
            // What is under way when it breaks arrives as far as it got.
            Some(left) => &buf[..left.min(buf.len())],
            None => buf,
        };
        let written = Pin::new(&mut self.stream).poll_write(cx, some);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.carries(*bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Listens on every host at the one port.
pub(crate) async fn listen() -> io::Result<(ReceiverStream<io::Result<Wire>>, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let local_addr = listener.local_addr()?;
    let (accepted, connections) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                biased;
                // Dropping the listener closes it.
                () = accepted.closed() => return,
                connection = listener.accept() => connection.map(|(stream, _)| Wire { stream, left: None, chronicle: None }),
            };
            if accepted.send(stream).await.is_err() {
                return;
            }
        }
    });
    Ok((ReceiverStream::new(connections), local_addr))
}

/// Makes channels whose connections may break.
#[derive(Clone, Debug)]
pub(crate) struct Wires {
    pub(crate) dice: Arc<Mutex<Dice>>,
    pub(crate) weather: Weather,
    pub(crate) chronicle: Chronicle,
    /// Of a hundred connections.
    pub(crate) cut_percent: u64,
}

impl Wires {
    /// Connects when it is first used.
    pub(crate) fn channel(&self, endpoint: Endpoint) -> Channel {
        let wires = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
            let wires = wires.clone();
            async move {
                let host = uri.host().ok_or_else(|| io::Error::other("no host"))?.to_owned();
                let stream = TcpStream::connect((host.as_str(), PORT)).await?;
                io::Result::Ok(TokioIo::new(wires.wire(stream)))
            }
        }))
    }

    /// For a client that sends pings often, so that it does not stay long with a connection that carries nothing.
    pub(crate) fn watched_channel(&self, host: &str) -> Channel {
        let endpoint = Endpoint::from_shared(url(host)).expect("a URL");
        self.channel(
            endpoint
                .connect_timeout(Duration::from_secs(1))
                .http2_keep_alive_interval(Duration::from_secs(2))
                .keep_alive_timeout(Duration::from_secs(1))
                .keep_alive_while_idle(true),
        )
    }

    fn wire(&self, stream: TcpStream) -> Wire {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let is_cut = !self.weather.is_calm() && dice.percent(self.cut_percent);
        // From the first bytes of a connection to some dozens of calls.
        let bits = dice.within(4..=18);
        let left = is_cut.then(|| dice.within(1..=1 << bits));
        Wire { stream, left: left.map(|left| usize::try_from(left).expect("small")), chronicle: Some(self.chronicle.clone()) }
    }
}

pub(crate) fn url(host: &str) -> String {
    format!("http://{host}:{PORT}")
}

/// The same on every host.
const PORT: u16 = 50051;
