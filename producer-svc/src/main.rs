//! Starts the producer service and ends it when it is asked to.

use std::process::ExitCode;

use clap::Parser;
use oncelog_edge::{
    machine,
    shutdown::Signals,
    telemetry::{self, LogFormat, Telemetry},
};
use producer_svc::{Config, ConfigError, Producer};

/// Takes records from callers in any language and writes each of them to the broker's log exactly once.
///
/// A flag wins over an environment variable, which wins over producer.properties, which wins over the default.
#[derive(Debug, Parser)]
#[command(version)]
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
