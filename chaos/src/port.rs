//! Ports that a process can be killed on and come back to.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections. Above, while the process is down,
//! such a connection may be given its port; one to that very port then even connects to itself.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// An address on the loopback on which nobody listens.
///
/// # Panics
/// If all ports are taken.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run side by side, often with ids one behind the other, begin at different places.
    let start = process::id().wrapping_mul(APART) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from((start + step) % u32::from(COUNT)).expect("below COUNT");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
    panic!("no port from {FIRST} on is free")
}

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// Ports between those of neighbours. Without a common divisor with [`COUNT`].
const APART: u32 = 97;
