//! What is started as a broker and as a producer.

use std::{env, path::PathBuf};

use tokio::process::Command;

/// A command, and what always stands first on its line.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    leading: Vec<String>,
    environment: Vec<(String, String)>,
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
        Self { path: path.into(), leading: Vec::new(), environment: Vec::new() }
    }

    /// A subcommand of an executable.
    pub fn subcommand(path: impl Into<PathBuf>, name: &str) -> Self {
        Self { path: path.into(), leading: vec![name.to_owned()], environment: Vec::new() }
    }

    /// The same with a variable in its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Ready to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.leading);
        // What the one who runs this has set for themselves is not what is tried here.
        for (key, _) in env::vars_os().filter(|(key, _)| is_ours(&key.to_string_lossy())) {
            command.env_remove(key);
        }
        command.env_remove("RUST_LOG").kill_on_drop(true);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// For messages.
    pub fn name(&self) -> String {
        let file = self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned();
        self.leading.iter().fold(file, |name, word| format!("{name} {word}"))
    }
}

/// A variable that a service reads.
fn is_ours(name: &str) -> bool {
    ["ONCELOG_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix))
}
