//! Starts the broker and ends it when it is asked to, or when the disk fails.

use std::process::ExitCode;

use broker_svc::{Broker, Config, config::Conflict};
use clap::Parser;
use oncelog_edge::{
    shutdown::Signals,
    telemetry::{self, LogFormat},
};

/// Owns a durable, partitioned log that knows what each producer has already written to it.
///
/// A flag wins over its environment variable, which wins over the default.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    config: Config,
    /// How log lines look on stderr; ONCELOG_LOG says what is logged.
    #[arg(long, value_enum, default_value_t, env = "ONCELOG_BROKER_LOG_FORMAT")]
    log_format: LogFormat,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("broker-svc: {error:#}");
            ExitCode::from(if error.is::<Conflict>() { BAD_CONFIGURATION } else { 1 })
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let signals = Signals::register()?;
    telemetry::init("broker-svc", cli.log_format, "info")?;
    let mut broker = Broker::start(cli.config).await?;
    tokio::select! {
        () = signals.stop() => broker.shutdown().await,
        error = broker.failed() => {
            eprintln!("broker-svc: {error:#}");
            // At once: every task that still runs speaks for a log that may not be there.
            std::process::exit(1);
        }
    }
}

/// What command lines end with that cannot be understood.
const BAD_CONFIGURATION: u8 = 2;
