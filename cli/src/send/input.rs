//! Stdin, cut into requests.
//!
//! Reading blocks, so it has a thread of its own. A request is cut when it is full, or when the next record might have to be
//! waited for: typed lines go out one by one, a file in full requests.

use std::{
    io::{BufReader, Read},
    thread,
};

use anyhow::Context;
use oncelog_proto::{record_set::RecordSetEncoder, v1::Record};
use tokio::sync::mpsc;

use crate::framing::Framing;

/// Records that follow each other.
#[derive(Debug, PartialEq)]
pub(super) struct Chunk {
    /// Number of the first, from 1: with lines, its line number.
    pub(super) first: u64,
    /// At least one.
    pub(super) records: Vec<Record>,
}

/// The input, read ahead by a few chunks.
#[derive(Debug)]
pub(super) struct Input {
    chunks: mpsc::Receiver<anyhow::Result<Chunk>>,
}

impl Input {
    /// Reads stdin in chunks of at most `batch` records.
    pub(super) fn stdin(framing: Framing, batch: usize) -> Self {
        Self::start(framing, batch, std::io::stdin())
    }

    fn start(framing: Framing, batch: usize, input: impl Read + Send + 'static) -> Self {
        let (tx, chunks) = mpsc::channel(CHUNKS_AHEAD);
        thread::spawn(move || read(&framing, batch, input, &tx));
        Self { chunks }
    }

    /// The next chunk; none at the end. An error is the last thing that comes.
    pub(super) async fn next(&mut self) -> Option<anyhow::Result<Chunk>> {
        self.chunks.recv().await
    }
}

fn read(framing: &Framing, batch: usize, input: impl Read, out: &mpsc::Sender<anyhow::Result<Chunk>>) {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut chunk = Chunk { first: 1, records: Vec::new() };
    let mut bytes = 0;
    loop {
        let number = chunk.first + chunk.records.len() as u64;
        let record = framing.read(&mut input).with_context(|| format!("record {number}"));
        let ended = match record {
            Ok(Some(record)) => {
                bytes += RecordSetEncoder::added_len(&record);
                chunk.records.push(record);
                None
            }
            Ok(None) => Some(None),
            Err(error) => Some(Some(error)),
        };
        let full = chunk.records.len() >= batch || bytes >= REQUEST_BYTES;
        if (full || ended.is_some() || input.buffer().is_empty()) && !chunk.records.is_empty() {
            let next = Chunk { first: chunk.first + chunk.records.len() as u64, records: Vec::new() };
            // Nobody listens any more: the sending has come to its end.
            if out.blocking_send(Ok(std::mem::replace(&mut chunk, next))).is_err() {
                return;
            }
            bytes = 0;
        }
        match ended {
            None => {}
            Some(None) => return,
            Some(Some(error)) => return drop(out.blocking_send(Err(error))),
        }
    }
}

const CHUNKS_AHEAD: usize = 4;
const READ_BYTES: usize = 1 << 20;
/// Well below what a server takes in one message by gRPC's default, 4 MiB; one record more may be added.
const REQUEST_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    async fn chunks(batch: usize, input: impl Read + Send + 'static) -> (Vec<(u64, usize)>, Option<String>) {
        let mut input = Input::start(Framing::Lines { key_separator: None }, batch, input);
        let mut chunks = Vec::new();
        loop {
            match input.next().await {
                Some(Ok(chunk)) => chunks.push((chunk.first, chunk.records.len())),
                Some(Err(error)) => return (chunks, Some(format!("{error:#}"))),
                None => return (chunks, None),
            }
        }
    }

    #[tokio::test]
    async fn chunks_are_full_and_the_last_one_is_the_rest() {
        assert_eq!(chunks(2, &b"a\nb\nc\nd\ne\n"[..]).await, (vec![(1, 2), (3, 2), (5, 1)], None));
        assert_eq!(chunks(2, &b""[..]).await, (vec![], None));
    }

    #[tokio::test]
    async fn a_chunk_is_cut_by_bytes_too() {
        let lines = [vec![b'x'; REQUEST_BYTES], vec![b'\n'], b"a\nb\n".to_vec()].concat();
        assert_eq!(chunks(10, std::io::Cursor::new(lines)).await, (vec![(1, 1), (2, 2)], None));
    }

    #[tokio::test]
    async fn what_has_come_goes_out_before_more_is_waited_for() {
        let came = (&b"a\nb\n"[..]).chain(&b"c\n"[..]);
        assert_eq!(chunks(10, came).await, (vec![(1, 2), (3, 1)], None));
    }

    #[tokio::test]
    async fn what_stands_before_an_error_goes_out_and_the_error_names_its_record() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the disk is gone"))
            }
        }
        let (chunks, error) = chunks(10, (&b"a\nb\n"[..]).chain(Fails)).await;
        assert_eq!(chunks, [(1, 2)]);
        let error = error.expect("it failed");
        assert!(error.contains("record 3") && error.contains("the disk is gone"), "{error}");
    }
}
