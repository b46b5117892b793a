//! Starts the broker and ends it when it is asked to, or when the disk fails.

use std::pin::pin;

use broker_svc::{Broker, Config, config::Conflict};
use clap::Parser;
use oncelog_edge::{
    machine,
    shutdown::Signals,
    telemetry::{self, LogFormat, Telemetry},
};

/// Owns a durable, partitioned log that knows what each producer has already written to it.
///
/// A flag wins over its environment variable, which wins over the default. Of a flag that is given more than once the last counts.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Cli {
    #[command(flatten)]
    config: Config,
    /// How log lines look on stderr; ONCELOG_LOG says what is logged.
    #[arg(long, value_enum, default_value_t, env = "ONCELOG_BROKER_LOG_FORMAT")]
    log_format: LogFormat,
}

#[tokio::main]
async fn main() {
    let code = match run(Cli::parse()).await {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("broker-svc: {error:#}");
            if error.is::<Conflict>() { BAD_CONFIGURATION } else { 1 }
        }
    };
    // At once: the end of the runtime would wait for threads that read or write, and after a failure every task that still runs
    // speaks for a log that may not be there.
    std::process::exit(code);
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let signals = Signals::register()?;
    let telemetry = telemetry::init("broker-svc", cli.log_format, "info")?;
    machine::raise_open_files();
    let ended = serve(cli.config, signals, telemetry.telemetry()).await;
    // After a failure the process ends at once, and with it whatever is not told yet.
    if ended.is_ok() {
        telemetry.end().await;
    }
    ended
}

async fn serve(config: Config, signals: Signals, telemetry: Telemetry) -> anyhow::Result<()> {
    let mut stop = pin!(signals.stop());
    let mut broker = tokio::select! {
        broker = Broker::start(config, telemetry) => broker?,
        // A long journal need not be read to its end for that: opening it can be broken off anywhere.
        () = &mut stop => return Ok(()),
    };
    tokio::select! {
        () = stop => broker.shutdown().await,
        error = broker.failed() => Err(error),
    }
}

/// What command lines end with that cannot be understood.
const BAD_CONFIGURATION: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// So that whoever deploys it adds to the flags that a template has.
    #[test]
    fn of_a_flag_that_is_given_twice_the_last_one_counts() {
        let said = |args: &[&str]| {
            Cli::try_parse_from([&["broker-svc", "--data-dir=journal"], args].concat()).map(|cli| cli.config.max_windows)
        };
        assert_eq!(said(&["--max-windows=1000", "--max-windows=5000"]).expect("understood"), 5000);
    }
}
