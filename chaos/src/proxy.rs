//! A network in between that breaks on command: it cuts connections, delays what is said, and swallows what a server answers, so
//! that the server has done its work and nobody hears of it.

use std::{net::SocketAddr, time::Duration};

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
    /// Nobody can connect.
    down: bool,
    /// Each piece of what is said, in either direction, waits for so long.
    delay: Duration,
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
                if seen.borrow().down {
                    continue;
                }
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

    /// Cuts every open connection, and ends every new one at once, until [`Self::heal`].
    pub fn take_down(&self) {
        self.weather.send_modify(|w| {
            w.down = true;
            w.cuts += 1;
        });
    }

    /// From now on each piece of what is said waits for so long.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|w| w.delay = delay);
    }

    /// Forwards everything at once again. Connections whose answers were swallowed are cut.
    pub fn heal(&self) {
        self.weather.send_modify(|w| *w = Weather { cuts: w.cuts + u64::from(w.swallow), ..Weather::default() });
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
    let (seen_there, seen_back) = (weather.clone(), weather.clone());

    let there = async {
        let mut buf = vec![0; CHUNK_BYTES];
        while let Ok(n @ 1..) = from_client.read(&mut buf).await {
            wait(&seen_there).await;
            if to_server.write_all(&buf[..n]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buf = vec![0; CHUNK_BYTES];
        while let Ok(n @ 1..) = from_server.read(&mut buf).await {
            wait(&seen_back).await;
            if seen_back.borrow().swallow {
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

/// Waits for as long as the weather says; no timer if it says nothing.
async fn wait(weather: &watch::Receiver<Weather>) {
    let delay = weather.borrow().delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
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
    async fn a_network_that_is_down_lets_nobody_through_until_it_is_healed() {
        let proxy = Proxy::start(counter().await).await.expect("a free port");
        proxy.take_down();
        let mut stream = TcpStream::connect(proxy.addr()).await.expect("it listens");
        assert!(stream.write_u8(1).await.is_err() || stream.read_u8().await.is_err());
        proxy.heal();
        let mut stream = TcpStream::connect(proxy.addr()).await.expect("it listens");
        stream.write_u8(1).await.expect("open");
        assert_eq!(stream.read_u8().await.expect("an answer"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_delayed_arrives_and_not_before() {
        let weather = watch::Sender::new(Weather { delay: Duration::from_secs(3), ..Weather::default() });
        let before = tokio::time::Instant::now();
        wait(&weather.subscribe()).await;
        assert_eq!(before.elapsed(), Duration::from_secs(3));
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
