//! A broker process over gRPC: the same conversations, with a disk, a network, signals and a clock in between.

use std::{collections::HashMap, path::Path, time::Duration};

use broker_svc::config::Config;
use oncelog_proto::v1;
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::Status;

use super::{Broker, Call, Request, Settings, text};
use crate::lone_broker::{self, Client, LoneBroker};

/// The process, and the calls that nobody has waited for yet.
#[derive(Debug)]
pub struct ProcessBroker {
    broker: LoneBroker,
    client: Client,
    later: HashMap<String, JoinHandle<Vec<String>>>,
    runtime: Runtime,
}

impl ProcessBroker {
    /// A fresh broker.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(settings: &Settings) -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let flags = setting_flags(settings);
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let broker = runtime.block_on(LoneBroker::start(&flags)).expect("the broker starts");
        let client = runtime.block_on(async { broker.client() });
        Self { broker, client, later: HashMap::new(), runtime }
    }
}

impl Broker for ProcessBroker {
    fn play(&mut self, request: Request) -> Vec<String> {
        let Self { broker, client, later, runtime } = self;
        runtime.block_on(async {
            match request {
                Request::Call(request) => bounded(call(client.clone(), request)).await,
                Request::Later(name, request) => {
                    let held = broker.metric(HELD).await.expect("it is told");
                    later.insert(name, tokio::spawn(call(client.clone(), request)));
                    // Calls overtake each other on their way; only what waits in the broker has certainly arrived.
                    broker.metric_reaches(HELD, held + 1).await.expect("what is left for later is held");
                    Vec::new()
                }
                Request::Answer(name) => {
                    let answer = later.remove(&name).expect("it was left for later");
                    bounded(answer).await.expect("the call does not panic")
                }
                Request::Idle(duration) => {
                    sleep(duration).await;
                    Vec::new()
                }
                Request::Restart { clean } => {
                    let restarted = if clean { broker.stop_and_restart().await } else { broker.kill_and_restart().await };
                    restarted.expect("it starts again");
                    *client = broker.client();
                    Vec::new()
                }
            }
        })
    }
}

async fn bounded<F: Future>(answer: F) -> F::Output {
    timeout(PATIENCE, answer).await.expect("an answer comes in time")
}

async fn call(client: Client, call: Call) -> Vec<String> {
    try_call(client, call).await.unwrap_or_else(|status| text::refused(&status))
}

/// The answer to a call, as the lines of a transcript.
///
/// # Errors
/// The status that the call is refused with.
pub async fn try_call(mut client: Client, call: Call) -> Result<Vec<String>, Status> {
    Ok(match call {
        Call::Init(request) => text::granted(client.init_producer_id(request).await?.get_ref()),
        Call::Produce(request) => {
            let response = client.produce(request.clone()).await?;
            text::produced(&request, response.into_inner())
        }
        Call::Fetch(request) => text::fetched(&lone_broker::fetch(&mut client, request).await?),
        Call::Create(request) => {
            text::created(&request.topic, client.create_topic(request.clone()).await?.into_inner().partitions)
        }
        Call::Delete(request) => {
            let v1::DeleteTopicResponse {} = client.delete_topic(request).await?.into_inner();
            text::deleted()
        }
        Call::Describe(request) => text::described(client.describe_topics(request).await?.get_ref()),
        Call::Producers(request) => text::producers(client.describe_producers(request).await?.get_ref()),
    })
}

/// The settings of a transcript, as broker-svc's own.
///
/// # Panics
/// One of them is not.
pub fn config(data_dir: &Path, settings: &Settings) -> Config {
    let mut flags = setting_flags(settings);
    flags.push(format!("--data-dir={}", data_dir.display()));
    Config::parse_args(flags).expect("the settings of a transcript are flags of broker-svc")
}

fn setting_flags(settings: &Settings) -> Vec<String> {
    settings.iter().map(|(key, value)| format!("--{key}={value}")).collect()
}

const HELD: &str = "oncelog_broker_batches_held_total";
const PATIENCE: Duration = Duration::from_secs(60);
