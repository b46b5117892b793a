//! One run: a program, a scenario, the real services behind, and the verdict.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitStatus,
    time::Duration,
};

use anyhow::Context;
use oncelog_chaos::{
    program::{Program, Programs},
    stage::{Stage, channel},
};
use oncelog_proto::{
    Bearer,
    v1::{broker_service_server::BrokerServiceServer, producer_service_server::ProducerServiceServer},
};
use oncelog_verify::live;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::transport::{Server, server::TcpIncoming};

use crate::{
    accusation::{Accusation, Accusations, Duty},
    broker_front::BrokerFront,
    command::{Commands, Kills},
    contract::{Assignment, Claim, claims, is_complete},
    producer_front::ProducerFront,
    producing::Counts,
    scenario::Scenario,
    script::Script,
    verdict::judge_claims,
    way::UnderWay,
    written::Written,
};

/// What a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It speaks `InitProducerId` and `Produce`.
    Producer,
    /// It speaks `Send`.
    Sender,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) accusations: Vec<Accusation>,
    /// None: it failed, and said nothing of this record. Empty: nothing that it said counts.
    pub(crate) claims: Vec<Option<Claim>>,
    pub(crate) counts: Counts,
    /// Tokens of its recoveries.
    pub(crate) tokens: Vec<String>,
    /// What the program wrote to stderr.
    pub(crate) stderr: String,
}

/// Both services, for all runs of a program.
#[derive(Debug)]
pub(crate) struct Theatre {
    stage: Stage,
    patience: Duration,
}

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Assigned<'a> {
    /// Nobody has written to it.
    pub(crate) topic: String,
    /// The program and its arguments.
    pub(crate) command: &'a [String],
}

impl Theatre {
    /// Starts them; data and logs go to `directory`. A program has to end within `patience`.
    ///
    /// # Errors
    /// One of them does not start.
    pub(crate) async fn start(programs: Programs, directory: &Path, patience: Duration) -> anyhow::Result<Self> {
        Ok(Self { stage: Stage::start(programs, &directory.join("data"), directory, &[], &[]).await?, patience })
    }

    /// Stops them.
    ///
    /// # Errors
    /// One of them does not end well.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stage.stop().await
    }

    /// Runs a program through a scenario.
    ///
    /// # Errors
    /// The services fail; not the program.
    pub(crate) async fn run(&mut self, role: Role, scenario: &Scenario, assigned: Assigned<'_>) -> anyhow::Result<Ran> {
        let Assigned { topic, command } = assigned;
        let (commands, kills) = Commands::new();
        let script = Script::new(scenario.script);
        let front = match role {
            Role::Producer => Front::Broker(BrokerFront::new(channel(self.stage.broker_addr()), commands, script)),
            Role::Sender => Front::Producer(ProducerFront::new(channel(self.stage.producer_addr()), commands, script)),
        };
        let (address, serving) = front.serve().await?;
        let assignment = Assignment { address: address.to_string(), topic, records: RECORDS, timeout: TIMEOUT };
        let mut accusations = Accusations::default();
        let Performed { status, stdout, stderr } = self.perform(role, command, &assignment, kills).await?;
        let claims = match status {
            Some(status) => heard(status, &stdout, scenario, &mut accusations),
            None => {
                accusations.accuse(Duty::Program, format!("it has not ended after {} s", self.patience.as_secs()));
                Vec::new()
            }
        };
        serving.abort();
        front.under_way().at_rest().await;
        if !claims.is_empty() {
            let mut client =
                live::Client::new(Bearer::none().on(channel(self.stage.broker_addr()))).max_decoding_message_size(usize::MAX);
            match live::read(&mut client, std::slice::from_ref(&assignment.topic), &mut |_| {}).await {
                Ok(read) => judge_claims(&read.log, &assignment.topic, &claims, &mut accusations)?,
                Err(error) => accusations.accuse(Duty::Log, format!("it cannot be read: {error}")),
            }
        }
        let (counts, tokens) = front.judge(scenario, &claims, &mut accusations);
        Ok(Ran { accusations: accusations.take(), claims, counts, tokens, stderr })
    }

    /// Runs the program to its end, and kills what the script wants killed.
    async fn perform(
        &mut self,
        role: Role,
        command: &[String],
        assignment: &Assignment,
        mut kills: Kills,
    ) -> anyhow::Result<Performed> {
        let [program, args @ ..] = command else { anyhow::bail!("there is no program to run") };
        let mut program_command = Program::new(program).command();
        program_command
            .args(args)
            .envs(assignment.to_environment())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = program_command.spawn().with_context(|| format!("{program} cannot be started"))?;
        let stdout = Written::to(child.stdout.take().context("stdout is a pipe")?);
        let stderr = Written::to(child.stderr.take().context("stderr is a pipe")?);
        let mut ended = Box::pin(timeout(self.patience, child.wait()));
        let status = loop {
            tokio::select! {
                status = &mut ended => break status.ok().transpose()?,
                Some(done) = kills.recv() => {
                    match role {
                        Role::Producer => self.stage.kill_broker().await?,
                        Role::Sender => self.stage.kill_producer().await?,
                    }
                    // Whoever asked may be gone.
                    let _ = done.send(());
                    match role {
                        Role::Producer => self.stage.restart_broker().await?,
                        Role::Sender => self.stage.restart_producer().await?,
                    }
                }
            }
        };
        drop(ended);
        // If it has not ended, this ends it.
        drop(child);
        Ok(Performed { status, stdout: stdout.all().await, stderr: stderr.all().await })
    }
}

/// What came of the program's process.
struct Performed {
    /// None: it does not end.
    status: Option<ExitStatus>,
    stdout: String,
    stderr: String,
}

/// What the program said, if it ended as it has to.
fn heard(status: ExitStatus, stdout: &str, scenario: &Scenario, accusations: &mut Accusations) -> Vec<Option<Claim>> {
    match (status.success(), scenario.is_alarming()) {
        (true, false) | (false, true) => {}
        (true, true) => accusations.accuse(Duty::Alarm, "acknowledged records are gone, and it ended as if all were well"),
        (false, false) => {
            accusations.accuse(Duty::Program, format!("it ended with {status}"));
            return Vec::new();
        }
    }
    let said = claims(stdout, RECORDS).and_then(|claims| {
        // Who fails tells what it knows.
        if status.success() {
            is_complete(&claims)?;
        }
        Ok(claims)
    });
    said.unwrap_or_else(|error| {
        accusations.accuse(Duty::Program, format!("{error:#}"));
        Vec::new()
    })
}

/// What the program speaks to.
enum Front {
    Broker(BrokerFront),
    Producer(ProducerFront),
}

impl Front {
    async fn serve(&self) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let mut server = Server::builder();
        let server = match self {
            Self::Broker(front) => {
                let service = BrokerServiceServer::new(front.clone()).max_decoding_message_size(usize::MAX);
                server.add_service(service)
            }
            Self::Producer(front) => {
                let service = ProducerServiceServer::new(front.clone()).max_decoding_message_size(usize::MAX);
                server.add_service(service)
            }
        };
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve_with_incoming(incoming).await {
                eprintln!("oncelog-conformance: the front ended: {error}");
            }
        });
        Ok((address, serving))
    }

    fn under_way(&self) -> &UnderWay {
        match self {
            Self::Broker(front) => front.under_way(),
            Self::Producer(front) => front.under_way(),
        }
    }

    fn judge(&self, scenario: &Scenario, claims: &[Option<Claim>], accusations: &mut Accusations) -> (Counts, Vec<String>) {
        match self {
            Self::Broker(front) => {
                let mut state = front.state();
                state.producing.claimed(claims);
                for Accusation { duty, what } in state.producing.accusations.take() {
                    accusations.accuse(duty, what);
                }
                let counts = state.producing.counts();
                if counts.recoveries > scenario.recoveries {
                    let what = format!("it recovered {} times and had {} reasons", counts.recoveries, scenario.recoveries);
                    accusations.accuse(Duty::Recovery, what);
                }
                exercised(&state.script, accusations);
                (counts, state.producing.tokens().into_iter().collect())
            }
            Self::Producer(front) => {
                let mut state = front.state();
                state.sending.claimed(claims);
                for Accusation { duty, what } in state.sending.accusations.take() {
                    accusations.accuse(duty, what);
                }
                exercised(&state.script, accusations);
                (Counts { calls: state.sending.calls(), most_outstanding: 1, recoveries: 0 }, Vec::new())
            }
        }
    }
}

fn exercised(script: &Script, accusations: &mut Accusations) {
    for (on, fault) in script.left_over() {
        let what = format!("{fault:?} on {on:?} never happened; the program makes too few calls for this scenario");
        accusations.accuse(Duty::Exercised, what);
    }
}

const RECORDS: u32 = 200;
const TIMEOUT: Duration = Duration::from_secs(1);
