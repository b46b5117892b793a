//! Files that are read again when they change, without a restart.
//!
//! They are looked at every [`EVERY`], by their content: what mounts secrets replaces a link somewhere above them, of which
//! nobody who watches a file is told. A file may be seen half written, and files that belong together half replaced; the half of
//! a list may well be understood, and would shut out those in the other half. So nothing is done about anything new until the
//! next look has found the same: then it holds, or, if it cannot be used, an alarm is given, and everything stays as it was.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::sleep};

/// What stands in some files, as it was last understood.
pub type Current<T> = watch::Receiver<Arc<T>>;

/// Watches files, each group of them for itself.
#[derive(Clone, Debug, Default)]
pub struct Reload {
    stale: Arc<AtomicU64>,
}

impl Reload {
    /// Reads `files` and makes a value of their contents, now and whenever they change. `what` they are is told in the log.
    ///
    /// # Errors
    /// They cannot be read, or not understood.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn watch<T: Send + Sync + 'static>(
        &self,
        what: &'static str,
        files: Vec<PathBuf>,
        parse: impl Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Current<T>, String> {
        let contents = read_all(&files)?;
        let value = parse(&contents).map_err(|error| format!("{}: {error}", named(&files)))?;
        let (tell, current) = watch::channel(Arc::new(value));
        let mut seen = Seen::new(digest(&contents));
        let stale = Arc::clone(&self.stale);
        let parse = Arc::new(parse);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = sleep(EVERY) => {}
                    () = tell.closed() => break,
                }
                let (paths, parse, unchanged) = (files.clone(), Arc::clone(&parse), seen.current);
                let look = tokio::task::spawn_blocking(move || look(&paths, unchanged, &*parse)).await;
                let look = match look {
                    Ok(look) => look,
                    Err(error) if error.is_panic() => Look::unusable("reading them is a defect of the service".to_owned()),
                    // The runtime is about to end.
                    Err(_) => break,
                };
                match seen.judge(look) {
                    Verdict::Nothing => continue,
                    Verdict::Changed(value) => {
                        tell.send_replace(Arc::new(value));
                        tracing::info!(files = named(&files), "{what} read again");
                    }
                    Verdict::Back => tracing::info!(files = named(&files), "{what} are again what they were"),
                    Verdict::Alarm(error) => {
                        stale.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(files = named(&files), error, "{what} cannot be used; what they said before holds");
                        continue;
                    }
                }
                if seen.take_alarm() {
                    stale.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
        Ok(current)
    }

    /// How many groups of files say something now that cannot be used.
    pub fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
enum Look<T> {
    AsItWas,
    New(ContentDigest, T),
    /// With a digest of what was found, so that the same is recognised.
    Unusable(ContentDigest, String),
}

impl<T> Look<T> {
    /// What has no contents.
    fn unusable(error: String) -> Self {
        Self::Unusable(Sha256::digest(&error).into(), error)
    }
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<T> {
    Nothing,
    Changed(T),
    /// What could not be used is gone.
    Back,
    Alarm(String),
}

/// Nothing of a file is kept, and this is what it is recognised by.
type ContentDigest = [u8; 32];

/// What was found so far.
#[derive(Debug)]
struct Seen {
    current: ContentDigest,
    /// By the last look, if that is not what holds.
    new: Option<ContentDigest>,
    alarmed: bool,
}

impl Seen {
    fn new(current: ContentDigest) -> Self {
        Self { current, new: None, alarmed: false }
    }

    fn judge<T>(&mut self, look: Look<T>) -> Verdict<T> {
        let found = match &look {
            Look::AsItWas => None,
            Look::New(digest, _) | Look::Unusable(digest, _) => Some(*digest),
        };
        let is_found_twice = std::mem::replace(&mut self.new, found) == found;
        match look {
            Look::AsItWas if self.alarmed => Verdict::Back,
            Look::New(digest, value) if is_found_twice => {
                (self.current, self.new) = (digest, None);
                Verdict::Changed(value)
            }
            Look::Unusable(_, error) if is_found_twice && !self.alarmed => {
                self.alarmed = true;
                Verdict::Alarm(error)
            }
            _ => Verdict::Nothing,
        }
    }

    /// Was there an alarm that is over now?
    fn take_alarm(&mut self) -> bool {
        std::mem::take(&mut self.alarmed)
    }
}

fn look<T>(files: &[PathBuf], unchanged: ContentDigest, parse: impl Fn(&[Vec<u8>]) -> Result<T, String>) -> Look<T> {
    let contents = match read_all(files) {
        Ok(contents) => contents,
        Err(error) => return Look::unusable(error),
    };
    let digest = digest(&contents);
    if digest == unchanged {
        return Look::AsItWas;
    }
    match parse(&contents) {
        Ok(value) => Look::New(digest, value),
        Err(error) => Look::Unusable(digest, error),
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    files.iter().map(|path| read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(contents)
}

fn digest(contents: &[Vec<u8>]) -> ContentDigest {
    let mut hash = Sha256::new();
    for content in contents {
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

fn named(files: &[PathBuf]) -> String {
    files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Between two looks.
pub const EVERY: Duration = Duration::from_secs(2);
/// Of one file.
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_replaced_gives_no_alarm_and_what_stays_unusable_gives_one() {
        let mut seen = Seen::new([0; 32]);
        let bad = |n: u8| Look::<u8>::Unusable([n; 32], format!("bad {n}"));
        assert_eq!(seen.judge(Look::<u8>::AsItWas), Verdict::Nothing);
        assert_eq!(seen.judge(bad(1)), Verdict::Nothing, "the other half may come");
        assert_eq!(seen.judge(bad(2)), Verdict::Nothing, "it changes still");
        assert_eq!(seen.judge(bad(2)), Verdict::Alarm("bad 2".to_owned()));
        assert_eq!(seen.judge(bad(2)), Verdict::Nothing, "once is enough");
        assert_eq!(seen.judge(bad(3)), Verdict::Nothing);
        assert_eq!(seen.judge(bad(3)), Verdict::Nothing, "it was told that they cannot be used");
        assert_eq!(seen.judge(Look::New([4; 32], 4)), Verdict::Nothing);
        assert_eq!(seen.judge(Look::New([4; 32], 4)), Verdict::Changed(4));
        assert!(seen.take_alarm());
        assert_eq!(seen.current, [4; 32]);
    }

    #[test]
    fn what_is_new_holds_once_it_is_found_twice() {
        let mut seen = Seen::new([0; 32]);
        let new = |n: u8| Look::New([n; 32], n);
        assert_eq!(seen.judge(new(1)), Verdict::Nothing, "the rest may come");
        assert_eq!(seen.judge(new(2)), Verdict::Nothing, "it came");
        assert_eq!(seen.judge(new(2)), Verdict::Changed(2));
        assert_eq!(seen.judge(new(3)), Verdict::Nothing);
        assert_eq!(seen.judge(Look::<u8>::AsItWas), Verdict::Nothing);
        assert_eq!(seen.judge(new(3)), Verdict::Nothing, "twice, and not one after the other");
        assert_eq!(seen.judge(new(3)), Verdict::Changed(3));
        assert_eq!(seen.current, [3; 32]);
    }

    #[test]
    fn what_is_back_as_it_was_is_told_if_there_was_an_alarm() {
        let mut seen = Seen::new([0; 32]);
        let bad = || Look::<u8>::Unusable([1; 32], "bad".to_owned());
        seen.judge(bad());
        assert_eq!(seen.judge(Look::<u8>::AsItWas), Verdict::Nothing);
        seen.judge(bad());
        assert_eq!(seen.judge(bad()), Verdict::Alarm("bad".to_owned()));
        assert_eq!(seen.judge(Look::<u8>::AsItWas), Verdict::Back);
        assert!(seen.take_alarm() && !seen.take_alarm());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_and_an_unusable_one_leaves_what_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("number");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("1");
        let reload = Reload::default();
        let parse = |contents: &[Vec<u8>]| {
            let text = String::from_utf8_lossy(&contents[0]).into_owned();
            text.parse::<u32>().map_err(|error| error.to_string())
        };
        let mut current = reload.watch("numbers", vec![path.clone()], parse).expect("readable");
        assert_eq!(**current.borrow(), 1);
        write("2");
        current.changed().await.expect("watched");
        assert_eq!((**current.borrow_and_update(), reload.stale()), (2, 0));
        write("x");
        while reload.stale() == 0 {
            sleep(EVERY).await;
        }
        assert_eq!(**current.borrow(), 2);
        write("3");
        current.changed().await.expect("watched");
        assert_eq!((**current.borrow(), reload.stale()), (3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_alarm_and_the_files_are_looked_at_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("number");
        std::fs::write(&path, "1").expect("written");
        let reload = Reload::default();
        let parse = |contents: &[Vec<u8>]| {
            assert_ne!(contents[0], b"x", "a defect");
            Ok(contents[0].clone())
        };
        let mut current = reload.watch("numbers", vec![path.clone()], parse).expect("readable");
        std::fs::write(&path, "x").expect("written");
        while reload.stale() == 0 {
            sleep(EVERY).await;
        }
        std::fs::write(&path, "2").expect("written");
        current.changed().await.expect("watched");
        assert_eq!((&**current.borrow(), reload.stale()), (&b"2".to_vec(), 0));
    }

    #[tokio::test]
    async fn what_cannot_be_used_at_the_start_is_told_with_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("missing");
        let watch = |path: &Path| Reload::default().watch("files", vec![path.to_owned()], |_| Err::<(), _>("no good".to_owned()));
        let error = watch(&path).expect_err("it is not there");
        assert!(error.contains(&path.display().to_string()) && error.contains("cannot be read"), "{error}");
        std::fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
        assert!(watch(&path).expect_err("no good").ends_with("missing: no good"));
        std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).expect("written");
        assert!(watch(&path).expect_err("too large").contains("more than 1048576 bytes"));
    }
}
