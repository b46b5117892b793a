//! What a shell asks of the machine that it runs on, so that everybody else can be told: the wall clock, randomness, open files.

use std::{fmt, io, sync::Arc, time::SystemTime};

use oncelog_proto::Timestamp;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Tells what people call the time. It may jump. Cheap to clone.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl WallClock {
    /// The machine's own.
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn system() -> Self {
        Self::new(|| Timestamp::from_system(SystemTime::now()))
    }

    /// Another one.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.now()).finish()
    }
}

/// Raises the limit of open files as far as this process may, and tells it. Each connection and each file of a journal takes one,
/// and the limit that processes start with is often 1,024. Where that is refused the limit stays, and the log says so.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::info!(before = current, limit = maximum, "open files"),
        Err(error) => {
            tracing::warn!(limit = current, %error, "the limit of open files cannot be raised; raise it with `ulimit -n`")
        }
    }
}

/// A random number.
///
/// # Errors
/// The operating system has none.
pub fn random() -> io::Result<u64> {
    getrandom::u64().map_err(|e| io::Error::other(format!("the operating system has no randomness: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_process_is_allowed() {
        raise_open_files();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
