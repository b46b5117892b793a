//! Histories on disk, a line of JSON for each event, and in memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use crate::history::{Began, Event, FORMAT, Line};

/// A history that can be gone through more than once: once for its outline, once to judge, once more for evidence.
pub trait History {
    /// Its lines in order.
    ///
    /// # Errors
    /// It cannot be opened.
    fn lines(&self) -> Result<Box<dyn Iterator<Item = Result<Line, HistoryError>> + '_>, HistoryError>;
}

/// Why a history cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file.
    #[error("the history {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the disk says.
        source: io::Error,
    },
    /// A line is none.
    #[error("line {line} of the history: {what}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

impl HistoryError {
    pub(crate) fn line(line: u64, what: impl Into<String>) -> Self {
        Self::Line { line, what: what.into() }
    }
}

impl History for [Line] {
    fn lines(&self) -> Result<Box<dyn Iterator<Item = Result<Line, HistoryError>> + '_>, HistoryError> {
        Ok(Box::new(self.iter().cloned().map(Ok)))
    }
}

impl History for Vec<Line> {
    fn lines(&self) -> Result<Box<dyn Iterator<Item = Result<Line, HistoryError>> + '_>, HistoryError> {
        self.as_slice().lines()
    }
}

/// A history in a file.
#[derive(Clone, Debug)]
pub struct HistoryFile {
    path: PathBuf,
}

impl HistoryFile {
    /// Names it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl History for HistoryFile {
    fn lines(&self) -> Result<Box<dyn Iterator<Item = Result<Line, HistoryError>> + '_>, HistoryError> {
        let file = File::open(&self.path).map_err(|source| HistoryError::Io { path: self.path.clone(), source })?;
        Ok(Box::new(Lines {
            path: &self.path,
            input: BufReader::with_capacity(BUFFER_BYTES, file),
            number: 0,
            buffer: Vec::new(),
        }))
    }
}

struct Lines<'a> {
    path: &'a Path,
    input: BufReader<File>,
    number: u64,
    buffer: Vec<u8>,
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.buffer.clear();
        self.number += 1;
        let limit = MAX_LINE_BYTES + 1;
        match self.input.by_ref().take(limit).read_until(b'\n', &mut self.buffer) {
            Err(source) => return Some(Err(HistoryError::Io { path: self.path.to_owned(), source })),
            Ok(0) => return None,
            Ok(_) => {}
        }
        if self.buffer.pop() != Some(b'\n') {
            if self.buffer.len() as u64 >= MAX_LINE_BYTES {
                return Some(Err(HistoryError::line(self.number, format!("it has more than {MAX_LINE_BYTES} bytes"))));
            }
            // Whoever recorded was killed in the middle of a line. What it was about to tell had not happened yet, or is unknown.
            return None;
        }
        let line = serde_json::from_slice(&self.buffer);
        Some(line.map_err(|error| HistoryError::line(self.number, error.to_string())))
    }
}

/// Writes a history. The order of the calls is the order of the lines.
#[derive(Debug)]
pub struct HistoryWriter<W: Write> {
    out: BufWriter<W>,
}

impl HistoryWriter<File> {
    /// A new file, with its first line.
    ///
    /// # Errors
    /// It exists, or cannot be written.
    pub fn create(path: &Path, began: Began) -> io::Result<Self> {
        Self::new(File::create_new(path)?, began)
    }
}

impl<W: Write> HistoryWriter<W> {
    /// Begins one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(out: W, began: Began) -> io::Result<Self> {
        let mut writer = Self { out: BufWriter::with_capacity(BUFFER_BYTES, out) };
        writer.write(&Line { at: 0, event: Event::Began(Began { format: FORMAT, ..began }) })?;
        Ok(writer)
    }

    /// Writes a line. It may stay in memory for now.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    /// Everything is in the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const BUFFER_BYTES: usize = 256 << 10;
/// Longest line. A request of 10,000 records, each with a digest, has some 200 KiB.
const MAX_LINE_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Vec<Result<Line, String>> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        let history = HistoryFile::new(file.path());
        history.lines().expect("it is there").map(|line| line.map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn what_is_written_is_read_and_a_last_line_without_its_end_is_not() {
        let mut content = Vec::new();
        let mut writer = HistoryWriter::new(&mut content, Began { format: 0, alone: false, once: false, expiration_ms: None })
            .expect("memory");
        writer.write(&Line { at: 1, event: Event::BrokerDied }).expect("memory");
        writer.write(&Line { at: 2, event: Event::BrokerStarted }).expect("memory");
        writer.flush().expect("memory");
        drop(writer);
        let lines = read(&content);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2], Ok(Line { at: 2, event: Event::BrokerStarted }));
        assert_eq!(read(&content[..content.len() - 1]).len(), 2);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let lines = read(b"{\"at\":1,\"event\":\"broker_died\"}\n{\"at\":1}\n");
        assert!(lines[0].is_ok());
        assert!(lines[1].as_ref().expect_err("no event").starts_with("line 2 of the history: missing field"), "{lines:?}");
    }

    #[test]
    fn a_line_has_at_most_16_mib() {
        let most = usize::try_from(MAX_LINE_BYTES).expect("16 MiB");
        let padded = |len: usize| {
            let mut line = b"{\"at\":1,\"event\":\"broker_died\"}".to_vec();
            line.resize(len, b' ');
            line.push(b'\n');
            read(&line)
        };
        assert!(padded(most)[0].is_ok());
        assert!(padded(most + 1)[0].as_ref().expect_err("too long").contains("more than 16777216 bytes"));
    }
}
