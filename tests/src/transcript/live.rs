//! stub
use std::path::Path;

use broker_svc::config::Config;

use super::Settings;

/// The settings of a transcript, as broker-svc's own.
///
/// # Panics
/// One of them is not.
pub fn config(data_dir: &Path, settings: &Settings) -> Config {
    Config::parse_args(flags(data_dir, settings)).expect("the settings of a transcript are flags of broker-svc")
}

/// The settings of a transcript, as flags.
pub fn flags(data_dir: &Path, settings: &Settings) -> Vec<String> {
    let mut flags = vec![format!("--data-dir={}", data_dir.display())];
    flags.extend(settings.iter().map(|(key, value)| format!("--{key}={value}")));
    flags
}
