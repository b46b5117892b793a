//! What is started as a broker and as a producer.

use std::{env, path::PathBuf};

use tokio::process::Command;

/// A command, and what always stands first on its line.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    leading: Vec<String>,
}

/// Both services.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The broker.
    pub broker: Program,
    /// The producer.
    pub producer: Program,
}

impl Program {
    /// An executable of its own.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), leading: Vec::new() }
    }

    /// A subcommand of an executable.
    pub fn subcommand(path: impl Into<PathBuf>, name: &str) -> Self {
        Self { path: path.into(), leading: vec![name.to_owned()] }
    }

    /// Ready to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.leading);
        // What the one who runs this has set for themselves is not what is tried here.
        for (key, _) in env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("ONCELOG_")) {
            command.env_remove(key);
        }
        command.env_remove("RUST_LOG").kill_on_drop(true);
        command
    }

    /// For messages.
    pub fn name(&self) -> String {
        let file = self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned();
        self.leading.iter().fold(file, |name, word| format!("{name} {word}"))
    }
}
