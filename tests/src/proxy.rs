//! A network in between that breaks on command: it cuts connections, and swallows what a server answers, so that the server
//! has done its work and nobody hears of it.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards TCP connections from its own address to another.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

/// What the network is like.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Every connection that was made under a lower number is cut.
    cuts: u64,
    swallow: bool,
}

impl Proxy {
    /// Listens on a free port and forwards to `upstream`, which need not listen yet: a connection is ended if it does not.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(crate::port::free()).await?;
        let addr = listener.local_addr()?;
        let weather = watch::Sender::new(Weather::default());
        let seen = weather.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, upstream, seen.clone()));
            }
        });
        Ok(Self { addr, weather, accepting })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts every open connection; new ones are forwarded.
    pub fn cut(&self) {
        self.weather.send_modify(|w| w.cuts += 1);
    }

    /// From now on, what the server says is read and thrown away; what the client says still arrives. A connection from which
    /// something was taken is of no use any more: end this with [`Self::cut_and_forward`].
    pub fn swallow_answers(&self) {
        self.weather.send_modify(|w| w.swallow = true);
    }

    /// Cuts every open connection, and forwards answers again on new ones.
    pub fn cut_and_forward(&self) {
        self.weather.send_modify(|w| {
            w.swallow = false;
            w.cuts += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// Forwards one connection until either side ends it, or the weather does.
async fn forward(mut client: TcpStream, upstream: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let made_under = weather.borrow().cuts;
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let mut seen = weather.clone();

    let there = async {
        let mut buf = vec![0; CHUNK_BYTES];
        while let Ok(n @ 1..) = from_client.read(&mut buf).await
            && to_server.write_all(&buf[..n]).await.is_ok()
        {}
    };
    let back = async {
        let mut buf = vec![0; CHUNK_BYTES];
        while let Ok(n @ 1..) = from_server.read(&mut buf).await {
            if seen.borrow_and_update().swallow {
                continue;
            }
            if to_client.write_all(&buf[..n]).await.is_err() {
                return;
            }
        }
    };
    let cut = weather.wait_for(|w| w.cuts != made_under);
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut => {}
    }
}

const CHUNK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every byte with the next one.
    async fn counter() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await
                        && stream.write_u8(byte + 1).await.is_ok()
                    {}
                });
            }
        });
        addr
    }

    #[tokio::test]
    async fn it_forwards_cuts_and_forwards_again() {
        let proxy = Proxy::start(counter().await).await.expect("a free port");
        for byte in [1, 2] {
            let mut stream = TcpStream::connect(proxy.addr()).await.expect("it listens");
            stream.write_u8(byte).await.expect("open");
            assert_eq!(stream.read_u8().await.expect("an answer"), byte + 1);
            proxy.cut();
            assert!(stream.read_u8().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_swallowed_answer_never_comes() {
        let proxy = Proxy::start(counter().await).await.expect("a free port");
        let mut stream = TcpStream::connect(proxy.addr()).await.expect("it listens");
        stream.write_u8(1).await.expect("open");
        assert_eq!(stream.read_u8().await.expect("an answer"), 2);
        proxy.swallow_answers();
        stream.write_u8(3).await.expect("open");
        let answer = tokio::time::timeout(std::time::Duration::from_millis(100), stream.read_u8()).await;
        assert!(answer.is_err(), "{answer:?}");
        proxy.cut_and_forward();
        assert!(stream.read_u8().await.is_err());
        let mut stream = TcpStream::connect(proxy.addr()).await.expect("it listens");
        stream.write_u8(5).await.expect("open");
        assert_eq!(stream.read_u8().await.expect("an answer"), 6);
    }
}
