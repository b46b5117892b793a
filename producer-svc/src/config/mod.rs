//! The configuration: what was said, where, and what follows from it.
//!
//! A setting may be said by a flag, by an environment variable or in producer.properties, and the first of these wins; else its
//! default holds. [`Config`] is what the flags said; [`Config::resolve`] asks the other two and turns everything into
//! [`Settings`], or into all the reasons at once why that cannot be. Nothing is ever repaired silently: settings that
//! contradict each other stop the start, and the message names both, where each came from, and what would be allowed.

mod key;
mod properties;
mod reading;
mod settings;

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::Path};

use clap::{Arg, ArgAction, ArgMatches, Command};

pub use key::WITHOUT_MEANING;
use key::{ADMIN_LISTEN, BOOTSTRAP_SERVERS, KEYS, LISTEN, PRODUCER_PROPERTIES};
use reading::{Layers, Reading};
pub use settings::{Effective, Settings};

/// What the flags said, each value as it was written. The default says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    flags: BTreeMap<String, String>,
}

/// Why a configuration cannot be used: every reason, in the words of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// One sentence each; at least one.
    pub problems: Vec<String>,
}

impl Config {
    /// Says a setting as its flag would. `name` is Kafka's (`linger.ms`); one that does not exist is told by
    /// [`Self::resolve`].
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.flags.insert(name.to_owned(), value.to_string());
        self
    }

    /// `--listen`: where callers reach the service.
    #[must_use]
    pub fn listen(self, addr: SocketAddr) -> Self {
        self.with(LISTEN.name, addr)
    }

    /// `--broker`: where the broker is.
    #[must_use]
    pub fn broker(self, addr: impl fmt::Display) -> Self {
        self.with(BOOTSTRAP_SERVERS.name, addr)
    }

    /// `--admin-listen`: where probes and metrics are served; none is `off`.
    #[must_use]
    pub fn admin_listen(self, addr: Option<SocketAddr>) -> Self {
        match addr {
            Some(addr) => self.with(ADMIN_LISTEN.name, addr),
            None => self.with(ADMIN_LISTEN.name, "off"),
        }
    }

    /// Asks `environment` and the properties file for what the flags left open, and checks everything.
    ///
    /// # Errors
    /// A value that is not allowed, settings that contradict each other, an unknown setting, a file that cannot be read: all
    /// of them at once.
    pub fn resolve(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
        let mut problems: Vec<_> =
            self.flags.keys().filter(|name| !is_known(name)).map(|n| format!("{n} is no setting")).collect();
        let mut layers = Layers { flags: &self.flags, environment, file: BTreeMap::new() };
        let mut warnings = Vec::new();
        let file = layers.find(&PRODUCER_PROPERTIES).value;
        if !file.is_empty() {
            match read_file(Path::new(&file)) {
                Ok(file) => layers.file = file,
                Err(reasons) => problems.extend(reasons.into_iter().map(|reason| format!("{file}: {reason}"))),
            }
            reading::judge_names(&file, &layers.file, &mut problems, &mut warnings);
        }
        let mut reading = Reading { layers, problems, warnings };
        let settings = Settings::read(&mut reading);
        match settings {
            Some(settings) if reading.problems.is_empty() => Ok(settings),
            _ => Err(ConfigError { problems: reading.problems }),
        }
    }
}

fn is_known(name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name)
}

fn read_file(path: &Path) -> Result<BTreeMap<String, properties::Property>, Vec<String>> {
    let size = std::fs::metadata(path).map_err(|e| vec![format!("cannot be read: {e}")])?.len();
    if size > MAX_FILE_BYTES {
        return Err(vec![format!("has {size} bytes; a properties file has at most {MAX_FILE_BYTES}")]);
    }
    let text = std::fs::read_to_string(path).map_err(|e| vec![format!("cannot be read: {e}")])?;
    properties::parse(&text)
}

impl clap::Args for Config {
    fn augment_args(command: Command) -> Command {
        KEYS.iter().fold(command, |command, key| {
            let default = if key.default.is_empty() { "" } else { " [default: " };
            let close = if key.default.is_empty() { "" } else { "]" };
            let help = format!("{} [env: {}]{default}{}{close} [allowed: {}]", key.help, key.env(), key.default, key.allowed);
            let arg = Arg::new(key.name).long(key.flag()).value_name("VALUE").help(help).action(ArgAction::Set);
            command.arg(arg.allow_negative_numbers(true))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Config {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut config = Self::default();
        config.update_from_arg_matches(matches)?;
        Ok(config)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for key in KEYS {
            if let Some(value) = matches.get_one::<String>(key.name) {
                self.flags.insert(key.name.to_owned(), value.clone());
            }
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "the configuration cannot be used: {one}"),
            all => {
                write!(f, "the configuration cannot be used, for {} reasons:", all.len())?;
                all.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

const MAX_FILE_BYTES: u64 = 1 << 20;
