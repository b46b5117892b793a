//! A directory for one test.

use std::{fs::File, path::PathBuf};

/// A directory for one test: data and logs. It is kept, and its path told, if the test fails.
#[derive(Debug)]
pub struct Workplace {
    directory: Option<tempfile::TempDir>,
}

impl Workplace {
    /// A new, empty one.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    pub fn new() -> Self {
        Self { directory: Some(tempfile::tempdir().expect("a place for temporary files")) }
    }

    /// A path in it.
    ///
    /// # Panics
    /// Never: the directory is there until the drop.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.as_ref().expect("there until dropped").path().join(name)
    }

    /// A new file in it, for stderr of a command.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn file(&self, name: &str) -> anyhow::Result<File> {
        Ok(File::create(self.path(name))?)
    }
}

impl Default for Workplace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("data and logs are kept in {}", directory.keep().display());
        }
    }
}
