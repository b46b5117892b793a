//! `producer.properties`: the bytes are the file.

use std::{io::Write, os::fd::AsRawFd};

use producer_svc::Config;
use rustix::fs::{MemfdFlags, memfd_create};

/// A file gives settings, or reasons why not.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let mut file = std::fs::File::from(memfd_create("properties", MemfdFlags::CLOEXEC).expect("memory for a file"));
    file.write_all(bytes).expect("memory for a file");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    if let Err(error) = Config::default().with("producer.properties", path).resolve(&|_| None) {
        assert!(!error.problems.is_empty() && !error.to_string().is_empty(), "a refusal has a reason");
    }
}
