//! What a program writes to a pipe: read as it comes, so that the program never waits, and kept up to a limit.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
    time::timeout,
};

/// The last [`MOST`] bytes that were written.
#[derive(Debug)]
pub(crate) struct Written {
    kept: Arc<Mutex<VecDeque<u8>>>,
    reading: JoinHandle<()>,
}

impl Written {
    /// Begins to read.
    pub(crate) fn to(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let keeping = Arc::clone(&kept);
        let reading = tokio::spawn(async move {
            let mut chunk = [0; 8192];
            // A pipe that breaks has ended.
            while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
                let mut kept = keeping.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&chunk[..count]);
                let over = kept.len().saturating_sub(MOST);
                kept.drain(..over);
            }
        });
        Self { kept, reading }
    }

    /// The program has ended, or was ended. Another that it started may hold the pipe; then it is what has come until now.
    pub(crate) async fn all(mut self) -> String {
        if timeout(GRACE, &mut self.reading).await.is_err() {
            self.reading.abort();
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept.iter().copied().collect::<Vec<_>>()).into_owned()
    }
}

/// A few hundred lines are a few kilobytes.
const MOST: usize = 1 << 20;
/// What was written before the end is there already.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_came_is_kept_though_the_pipe_never_ends() {
        let (mut program, pipe) = tokio::io::duplex(64);
        let written = Written::to(pipe);
        program.write_all(b"about to hang\n").await.expect("it is read");
        assert_eq!(written.all().await, "about to hang\n");
    }

    #[tokio::test]
    async fn the_end_is_kept_of_more_than_the_limit_and_nobody_waits() {
        for (length, expected) in [(MOST, MOST), (MOST + 1, MOST)] {
            let (mut program, pipe) = tokio::io::duplex(64);
            let written = Written::to(pipe);
            let mut bytes = vec![b'a'; length];
            bytes[length - 1] = b'z';
            program.write_all(&bytes).await.expect("it is read");
            drop(program);
            let all = written.all().await;
            assert_eq!((all.len(), all.ends_with('z')), (expected, true));
        }
    }
}
