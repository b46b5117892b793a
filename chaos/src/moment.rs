//! When to strike: moments of the journal's life, seen from its directory, by what the operating system tells of the files in it
//! (inotify). So a process can be stopped within microseconds of a write, without a line in it that knows of this.
//!
//! What a sync does is not told. A strike between sync and answer is made of two: from now on answers are swallowed on the way,
//! and then the process is killed. Whoever asked cannot tell that from a kill right behind the sync.

use std::{
    io,
    mem::MaybeUninit,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
    io::Errno,
    process::{Pid, Signal, kill_process},
};

/// A moment in the life of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// Any.
    Any,
    /// A group is written, and its sync has not returned.
    Write,
    /// A new segment begins.
    Roll,
    /// A snapshot has been begun.
    Snapshot,
    /// The journal is being opened.
    Recovery,
}

impl Moment {
    /// For messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "at any moment",
            Self::Write => "between write and sync",
            Self::Roll => "while a segment begins",
            Self::Snapshot => "during a snapshot",
            Self::Recovery => "during recovery",
        }
    }

    fn is(self, name: &str, what: ReadFlags) -> bool {
        match self {
            Self::Any => true,
            Self::Write => name.ends_with(".log") && what.contains(ReadFlags::MODIFY),
            Self::Roll => name.ends_with(".log") && what.intersects(ReadFlags::CREATE.union(ReadFlags::MOVED_TO)),
            Self::Snapshot => name.starts_with("snap-") && what.intersects(ReadFlags::CREATE.union(ReadFlags::MODIFY)),
            Self::Recovery => name.ends_with(".log") && what.contains(ReadFlags::OPEN),
        }
    }
}

/// Looks at a directory from its beginning on: what happens after [`Self::on`] is not missed.
#[derive(Debug)]
pub struct Watch(rustix::fd::OwnedFd);

impl Watch {
    /// Begins to look.
    ///
    /// # Errors
    /// There is no such directory, or this system cannot watch one.
    pub fn on(directory: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let what = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::OPEN;
        inotify::add_watch(&fd, directory, what)?;
        Ok(Self(fd))
    }

    /// Waits for a moment and then for `after`, and sends the signal. False: the moment did not come in time. Blocks.
    ///
    /// # Errors
    /// The directory cannot be watched any more, or the process has ended.
    #[expect(clippy::disallowed_methods, reason = "what is awaited happens in another process, by a real clock")]
    pub fn strike(self, moment: Moment, after: Duration, patience: Duration, target: Pid, signal: Signal) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
                    if moment.is(name, event.events()) {
                        break;
                    }
                }
                Err(Errno::WOULDBLOCK) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    let wait = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().min(50_000_000).into() };
                    poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&wait))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !after.is_zero() {
            thread::sleep(after);
        }
        kill_process(target, signal)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_process_is_killed_when_a_segment_is_written_and_not_by_anything_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut sleeper = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("there is sleep");
        let target = Pid::from_child(&sleeper);
        let watch = || Watch::on(directory.path()).expect("a directory");
        let strike = |watch: Watch| watch.strike(Moment::Write, Duration::ZERO, Duration::from_millis(100), target, Signal::KILL);
        let not_yet = watch();
        std::fs::write(directory.path().join("1.idx"), "x").expect("written");
        assert!(!strike(not_yet).expect("watched"));
        let now = watch();
        std::fs::write(directory.path().join("1.log"), "x").expect("written");
        assert!(strike(now).expect("watched"));
        assert_eq!(sleeper.wait().expect("ended").signal(), Some(Signal::KILL.as_raw()));
    }
}
