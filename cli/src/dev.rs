//! `oncelog dev`: both services in one process, for trying things out.
//!
//! They speak to each other over the loopback exactly as two processes would. Settings that have no flag here are taken from
//! the services' own environment variables.

mod card;

use std::{ffi::OsString, io::Write, net::SocketAddr, path::PathBuf, pin::pin, process::ExitCode};

use anyhow::Context;
use broker_svc::Broker;
use oncelog_edge::{machine, shutdown::Signals, telemetry};
use producer_svc::Producer;

use crate::output::{self, Output};

/// What `oncelog dev` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the log; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "./oncelog-data")]
    data_dir: PathBuf,
    /// Where the broker listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    broker_listen: SocketAddr,
    /// Where the producer listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50052")]
    producer_listen: SocketAddr,
    /// Where the broker's health, readiness and metrics are served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    broker_admin_listen: SocketAddr,
    /// Where the producer's health, readiness and metrics are served.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9465")]
    producer_admin_listen: SocketAddr,
    /// Size of a segment file of the log, in bytes. Less than a broker's own default: a laptop's disk is not all for this.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    segment_bytes: u64,
    /// The form of what is told when both are ready: lines to try next, or the addresses.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs both services until a signal, or until one of them fails.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let signals = Signals::register()?;
    let telemetry = telemetry::init("oncelog dev", telemetry::LogFormat::Text, "warn")?;
    machine::raise_open_files();

    let mut broker = broker_svc::Config::parse_args([OsString::from("--data-dir"), args.data_dir.clone().into()])?;
    broker.listen = args.broker_listen;
    broker.admin_listen = args.broker_admin_listen;
    broker.segment_bytes = args.segment_bytes;
    let mut stop = pin!(signals.stop());
    let mut broker = tokio::select! {
        broker = Broker::start(broker, telemetry.telemetry()) => broker.context("the broker does not start")?,
        // Reading a long journal can be broken off anywhere, and the end of the runtime would wait for it.
        () = &mut stop => std::process::exit(0),
    };

    let producer = producer_svc::Config::default()
        .listen(args.producer_listen)
        .admin_listen(Some(args.producer_admin_listen))
        .broker(broker.local_addr());
    let mut producer = Producer::start(producer, telemetry.telemetry()).await.context("the producer does not start")?;

    let mut out = std::io::stdout();
    match args.output {
        Output::Text => {
            let card = card::card(producer.local_addr(), broker.local_addr());
            writeln!(out, "oncelog is ready; its data is in {}; Ctrl-C stops it\n\n{card}", args.data_dir.display())?;
        }
        Output::Json => output::json(&serde_json::json!({
            "broker": broker.local_addr(), "producer": producer.local_addr(),
            "broker_admin": args.broker_admin_listen, "producer_admin": args.producer_admin_listen, "data_dir": args.data_dir,
        }))?,
    }
    out.flush()?;

    let failed = tokio::select! {
        () = stop => None,
        // Without the broker there is nothing that the producer could still do.
        error = broker.failed() => return Err(error.context("the broker failed")),
        error = producer.failed() => Some(error.context("the producer failed")),
    };
    // The producer first: what it has taken in, the broker has still to write.
    let drained = match failed {
        Some(error) => Err(error),
        None => producer.shutdown().await.context("the producer did not drain"),
    };
    broker.shutdown().await.context("the broker did not stop cleanly")?;
    telemetry.end().await;
    drained.map(|()| ExitCode::SUCCESS)
}
