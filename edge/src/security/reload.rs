//! Files that are read again when they change, without a restart.
//!
//! They are looked at every [`EVERY`], by their content: what mounts secrets replaces a link somewhere above them, of which nobody
//! who watches a file is told. What cannot be used leaves everything as it was. Files that belong together may be seen half
//! replaced, so an alarm is given only for what was found twice.

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
                // The runtime is about to end.
                let Ok(look) = look else { break };
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
    unusable: Option<ContentDigest>,
    alarmed: bool,
}

impl Seen {
    fn new(current: ContentDigest) -> Self {
        Self { current, unusable: None, alarmed: false }
    }

    fn judge<T>(&mut self, look: Look<T>) -> Verdict<T> {
        match look {
            Look::AsItWas if self.unusable.take().is_some() && self.alarmed => Verdict::Back,
            Look::AsItWas => Verdict::Nothing,
            Look::New(digest, value) => {
                (self.current, self.unusable) = (digest, None);
                Verdict::Changed(value)
            }
            Look::Unusable(digest, error) => {
                let is_found_twice = self.unusable.replace(digest) == Some(digest);
                if !is_found_twice || self.alarmed {
                    return Verdict::Nothing;
                }
                self.alarmed = true;
                Verdict::Alarm(error)
            }
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
        Err(error) => return Look::Unusable(Sha256::digest(&error).into(), error),
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
        assert_eq!(seen.judge(Look::New([4; 32], 4)), Verdict::Changed(4));
        assert!(seen.take_alarm());
        assert_eq!(seen.current, [4; 32]);
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
