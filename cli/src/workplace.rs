//! A directory for one run, which goes when the run does.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::Context;

/// A new directory; removed when dropped.
#[derive(Debug)]
pub(crate) struct Workplace(PathBuf);

impl Workplace {
    /// Makes it in `parent`, or in the system's place for temporary files, under a name that begins with `name`.
    ///
    /// # Errors
    /// It cannot be made, or is there already.
    pub(crate) fn new(parent: Option<&Path>, name: &str) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&parent)
            .and_then(|()| fs::create_dir(&path))
            .with_context(|| format!("the directory {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// It stays.
    pub(crate) fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.0 != Path::new("") {
            // A process that was just killed may still be making a file in it.
            for _ in 0..TRIES {
                if fs::remove_dir_all(&self.0).is_ok() {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
    }
}

const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_everything_in_it_unless_it_is_kept() {
        let parent = tempfile::tempdir().expect("a directory");
        let workplace = Workplace::new(Some(parent.path()), "a").expect("new");
        let path = workplace.path().to_owned();
        fs::write(path.join("file"), "x").expect("written");
        drop(workplace);
        assert!(!path.exists());
        let kept = Workplace::new(Some(parent.path()), "a").expect("new").keep();
        assert_eq!((kept.exists(), kept), (true, path));
    }
}
