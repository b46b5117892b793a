//! One service in a process of its own, as `oncelog chaos`, `demo` and `bench` start it: the same code, from the same executable.

use std::{pin::pin, process::ExitCode};

use anyhow::Context;
use broker_svc::Broker;
use oncelog_chaos::program::{Program, Programs};
use oncelog_edge::{
    shutdown::Signals,
    telemetry::{self, LogFormat},
};
use producer_svc::Producer;

/// How they are started.
///
/// # Errors
/// Nobody knows where this executable is.
pub(crate) fn programs() -> anyhow::Result<Programs> {
    let exe = std::env::current_exe().context("where this command is")?;
    Ok(Programs { broker: Program::subcommand(&exe, "chaos-broker"), producer: Program::subcommand(&exe, "chaos-producer") })
}

pub(crate) async fn broker(config: broker_svc::Config) -> anyhow::Result<ExitCode> {
    let signals = Signals::register()?;
    let telemetry = telemetry::init("broker-svc", LogFormat::Text, "info")?;
    let mut stop = pin!(signals.stop());
    let mut broker = tokio::select! {
        broker = Broker::start(config, telemetry.telemetry()) => broker?,
        () = &mut stop => std::process::exit(0),
    };
    let failed = tokio::select! {
        () = stop => broker.shutdown().await.err(),
        error = broker.failed() => Some(error),
    };
    // At once: after a failure every task that still runs speaks for a log that may not be there.
    match failed {
        None => {
            telemetry.end().await;
            std::process::exit(0)
        }
        Some(error) => {
            eprintln!("broker-svc: {error:#}");
            std::process::exit(1)
        }
    }
}

pub(crate) async fn producer(config: producer_svc::Config) -> anyhow::Result<ExitCode> {
    let signals = Signals::register()?;
    let telemetry = telemetry::init("producer-svc", LogFormat::Text, "info")?;
    let mut producer = Producer::start(config, telemetry.telemetry()).await?;
    tokio::select! {
        () = signals.stop() => producer.shutdown().await?,
        error = producer.failed() => return Err(error),
    }
    telemetry.end().await;
    Ok(ExitCode::SUCCESS)
}
