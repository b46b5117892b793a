//! Judges a program: runs it through scenarios, one after the other, each with a topic of its own.

use std::{collections::HashMap, path::Path, time::Duration};

use oncelog_chaos::program::{Program, Programs};
use tempfile::TempDir;

use crate::{
    accusation::{Accusation, Duty},
    run::{Assigned, Ran, Role, Theatre},
    scenario::{PRODUCER, SENDER, Scenario},
};

/// The services, and how long a program may take with them.
#[derive(Debug)]
pub(crate) struct Suite {
    theatre: Theatre,
    /// Data and logs of the services, as long as they run.
    _directory: TempDir,
}

/// A program that is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged<'a> {
    pub(crate) role: Role,
    /// Begins the names of its topics; no other program of this suite has it.
    pub(crate) title: &'a str,
    /// The program and its arguments.
    pub(crate) command: &'a [String],
}

impl Suite {
    /// Starts the services, which are in the directory `services`.
    ///
    /// # Errors
    /// One of them does not start.
    pub(crate) async fn start(services: &Path, patience: Duration) -> anyhow::Result<Self> {
        let program = |name: &str| Program::new(services.join(name));
        let programs = Programs { broker: program("broker-svc"), producer: program("producer-svc") };
        let directory = tempfile::tempdir()?;
        Ok(Self { theatre: Theatre::start(programs, directory.path(), patience).await?, _directory: directory })
    }

    /// Runs a program, and tells of each scenario when it is over.
    ///
    /// # Errors
    /// The services fail, not the program; or what hears of it.
    pub(crate) async fn judge(
        &mut self,
        judged: Judged<'_>,
        scenarios: impl IntoIterator<Item = &'static Scenario>,
        mut tell: impl FnMut(&Scenario, &Ran) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Judged { role, title, command } = judged;
        // Each run is another process of the program.
        let mut tokens: HashMap<String, &str> = HashMap::new();
        for scenario in scenarios {
            let topic = format!("{title}-{}", scenario.topic());
            let mut ran = self.theatre.run(role, scenario, Assigned { topic, command }).await?;
            for token in std::mem::take(&mut ran.tokens) {
                if let Some(before) = tokens.insert(token, scenario.name) {
                    let what =
                        format!("the token of {before:?} is used by another process; two that share one come to share an epoch");
                    ran.accusations.push(Accusation { duty: Duty::Token, what });
                }
            }
            tell(scenario, &ran)?;
        }
        Ok(())
    }

    /// Stops the services.
    ///
    /// # Errors
    /// One of them does not end well.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.theatre.stop().await
    }
}

/// All there are for a role.
pub(crate) const fn scenarios(role: Role) -> &'static [Scenario] {
    match role {
        Role::Producer => PRODUCER,
        Role::Sender => SENDER,
    }
}
