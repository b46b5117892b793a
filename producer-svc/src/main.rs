//! Starts the producer service and ends it when it is asked to.

use std::process::ExitCode;

use clap::Parser;
use oncelog_edge::{
    machine,
    shutdown::Signals,
    telemetry::{self, LogFormat, Telemetry},
};
use producer_svc::{Config, ConfigError, Producer};

/// Takes records from callers in any language and writes each that it accepts to the broker's log exactly once.
///
/// A flag wins over an environment variable, which wins over producer.properties, which wins over the default. Of a flag that is
/// given more than once the last counts.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Cli {
    #[command(flatten)]
    config: Config,
    /// How log lines look on stderr; ONCELOG_LOG says what is logged.
    #[arg(long, value_enum, default_value_t, env = "ONCELOG_PRODUCER_LOG_FORMAT")]
    log_format: LogFormat,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("producer-svc: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() { BAD_CONFIGURATION } else { 1 })
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let signals = Signals::register()?;
    let telemetry = telemetry::init("producer-svc", cli.log_format, "info")?;
    machine::raise_open_files();
    let ended = serve(cli.config, signals, telemetry.telemetry()).await;
    telemetry.end().await;
    ended
}

async fn serve(config: Config, signals: Signals, telemetry: Telemetry) -> anyhow::Result<()> {
    let mut producer = Producer::start(config, telemetry).await?;
    tokio::select! {
        () = signals.stop() => producer.shutdown().await,
        error = producer.failed() => Err(error),
    }
}

/// What command lines end with that cannot be understood.
const BAD_CONFIGURATION: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// So that whoever deploys it adds to the flags that a template has.
    #[test]
    fn of_a_flag_that_is_given_twice_the_last_one_counts() {
        let said = |args: &[&str]| Cli::try_parse_from([&["producer-svc"], args].concat()).map(|cli| cli.config);
        assert_eq!(said(&["--linger-ms=1", "--linger-ms=2"]).expect("understood"), said(&["--linger-ms=2"]).expect("understood"));
        assert_ne!(said(&["--linger-ms=1", "--linger-ms=2"]).expect("understood"), said(&["--linger-ms=1"]).expect("understood"));
    }
}
