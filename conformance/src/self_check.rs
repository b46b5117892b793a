//! Judges the judge: the programs of [`crate::wrong`] are accused of what is wrong with them, and of nothing without a defect.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::ValueEnum;

use crate::{
    accusation::Accusation,
    run::Role,
    suite::{Judged, Suite, scenarios},
    wrong::{Expected, ProducerDefect, SenderDefect},
};

/// Tells of each program whether it was judged rightly. True: all were.
///
/// # Errors
/// The services fail.
pub(crate) async fn run(suite: &mut Suite, this: PathBuf) -> anyhow::Result<bool> {
    let mut check = Check { suite, this, failed: 0, checked: 0 };
    check.conforms(Role::Producer, "wrong-producer").await?;
    check.conforms(Role::Sender, "wrong-sender").await?;
    for defect in ProducerDefect::value_variants() {
        check.accuses(Role::Producer, "wrong-producer", name(defect), defect.expected()).await?;
    }
    for defect in SenderDefect::value_variants() {
        check.accuses(Role::Sender, "wrong-sender", name(defect), defect.expected()).await?;
    }
    let Check { failed, checked, .. } = check;
    match failed {
        0 => writeln!(io::stdout(), "the suite accuses rightly: {checked} programs")?,
        _ => writeln!(io::stdout(), "THE SUITE IS WRONG about {failed} of {checked} programs")?,
    }
    Ok(failed == 0)
}

struct Check<'a> {
    suite: &'a mut Suite,
    /// This command.
    this: PathBuf,
    failed: usize,
    checked: usize,
}

impl Check<'_> {
    async fn conforms(&mut self, role: Role, subcommand: &str) -> anyhow::Result<()> {
        let all: Vec<_> = scenarios(role).iter().map(|scenario| scenario.name).collect();
        let found = self.found(role, subcommand, None, &all).await?;
        let wrongly: Vec<String> = found.iter().flat_map(|(scenario, accusations)| accused(scenario, accusations)).collect();
        self.tell(&format!("{subcommand} without a defect"), "nothing", &wrongly)
    }

    async fn accuses(&mut self, role: Role, subcommand: &str, defect: String, expected: Expected) -> anyhow::Result<()> {
        let Expected { before, scenarios, duty } = expected;
        let names = [before, scenarios].concat();
        let found = self.found(role, subcommand, Some(&defect), &names).await?;
        let missed = found.iter().filter(|(scenario, accusations)| {
            scenarios.contains(scenario) && accusations.iter().all(|accusation| accusation.duty != duty)
        });
        let missed: Vec<String> = missed
            .flat_map(|(scenario, accusations)| {
                let rather = accused(scenario, accusations);
                [format!("{scenario}: not accused of it")].into_iter().chain(rather)
            })
            .collect();
        self.tell(&format!("{subcommand} {defect}"), &format!("{duty}, in {}", scenarios.join(", ")), &missed)
    }

    /// What the program is accused of in each of these scenarios, which run in this order.
    async fn found(
        &mut self,
        role: Role,
        subcommand: &str,
        defect: Option<&str>,
        names: &[&str],
    ) -> anyhow::Result<Vec<(&'static str, Vec<Accusation>)>> {
        let command: Vec<String> =
            [&*self.this.to_string_lossy(), subcommand].into_iter().chain(defect).map(str::to_owned).collect();
        let title = format!("{}-{}", subcommand, defect.unwrap_or("right"));
        let chosen = names.iter().filter_map(|name| scenarios(role).iter().find(|scenario| scenario.name == *name));
        let mut found = Vec::new();
        self.suite
            .judge(Judged { role, title: &title, command: &command }, chosen, |scenario, ran| {
                found.push((scenario.name, ran.accusations.clone()));
                Ok(())
            })
            .await?;
        Ok(found)
    }

    fn tell(&mut self, program: &str, expected: &str, wrongly: &[String]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        self.checked += 1;
        self.failed += usize::from(!wrongly.is_empty());
        let verdict = if wrongly.is_empty() { "ok" } else { "FAILED" };
        writeln!(out, "{verdict:<6} {program:<48} {expected}")?;
        for what in wrongly.iter().take(ACCUSATIONS_SHOWN) {
            writeln!(out, "       {what}")?;
        }
        Ok(())
    }
}

fn accused(scenario: &str, accusations: &[Accusation]) -> Vec<String> {
    accusations.iter().map(|accusation| format!("{scenario}: {accusation}")).collect()
}

/// As the command line has it.
fn name(defect: &impl ValueEnum) -> String {
    defect.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

const ACCUSATIONS_SHOWN: usize = 10;
