//! Many seeds, each in a process of its own: so a run depends on nothing but its seed, and a crash of one is a result as well.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};

use crate::world::Outcome;

/// Runs seeds from `first` on; true: all of them were well.
pub(crate) fn run(first: u64, seeds: u64, minutes: Option<u64>, jobs: usize) -> anyhow::Result<bool> {
    let began = now();
    let limit = minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
    let last = if minutes.is_some() { u64::MAX } else { first.saturating_add(seeds) };
    let mut campaign = Campaign::default();
    let mut running = Vec::new();
    let mut seed = first;
    let mut told = began;
    loop {
        while running.len() < jobs && seed < last && limit.is_none_or(|limit| now() < limit) {
            running.push((seed, start(seed)?));
            seed += 1;
        }
        if running.is_empty() {
            break;
        }
        let (seed, child) = running.remove(0);
        campaign.take(seed, child)?;
        if now() - told > TELL_EVERY {
            told = now();
            campaign.tell_progress(now() - began);
        }
    }
    campaign.tell(now() - began);
    Ok(campaign.failed.is_empty())
}

fn start(seed: u64) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.arg(format!("--seed={seed}")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("starting the run of seed {seed}"))
}

#[derive(Debug, Default)]
struct Campaign {
    runs: u64,
    simulated_ms: u64,
    tallies: BTreeMap<String, Tally>,
    failed: Vec<u64>,
}

#[derive(Debug, Default)]
struct Tally {
    times: u64,
    seeds: u64,
}

impl Campaign {
    fn take(&mut self, seed: u64, child: Child) -> anyhow::Result<()> {
        let output = child.wait_with_output().with_context(|| format!("waiting for seed {seed}"))?;
        self.runs += 1;
        let text = String::from_utf8_lossy(&output.stdout);
        let outcome = text.lines().last().and_then(|line| serde_json::from_str::<Outcome>(line).ok());
        let mut failures = match &outcome {
            Some(outcome) => outcome.failures.clone(),
            None => vec![format!("the run ended without a result: {}", output.status)],
        };
        if let Some(outcome) = outcome {
            self.simulated_ms += outcome.simulated_ms;
            for (what, times) in outcome.tallies.into_iter().filter(|(_, times)| *times > 0) {
                let tally = self.tallies.entry(what).or_default();
                tally.times += times;
                tally.seeds += 1;
            }
        }
        if !failures.is_empty() {
            self.failed.push(seed);
            failures.extend(String::from_utf8_lossy(&output.stderr).lines().take(20).map(ToOwned::to_owned));
            say(&format!("seed {seed} FAILED:\n  {}\n  again: {}", failures.join("\n  "), replay(seed)));
        }
        Ok(())
    }

    fn tell_progress(&self, elapsed: Duration) {
        let (runs, failed, seconds) = (self.runs, self.failed.len(), elapsed.as_secs_f64());
        say(&format!("{runs} seeds in {seconds:.0} s ({:.1} a second), {failed} failed", self.runs as f64 / seconds));
    }

    fn tell(&self, elapsed: Duration) {
        for (what, Tally { times, seeds }) in &self.tallies {
            say(&format!("{times:>10} in {seeds:>5} seeds  {what}"));
        }
        let simulated = Duration::from_millis(self.simulated_ms).as_secs();
        self.tell_progress(elapsed);
        say(&format!("simulated: {} hours {} minutes", simulated / 3_600, simulated % 3_600 / 60));
        for seed in &self.failed {
            say(&format!("failed: {}", replay(*seed)));
        }
    }
}

/// The command that runs a seed again.
fn replay(seed: u64) -> String {
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    format!("cargo run{release} -p oncelog-sim -- --seed {seed} --trace")
}

pub(crate) fn say(text: &str) {
    // Nobody reads on: then nobody misses it.
    let _ = writeln!(io::stdout(), "{text}");
}

/// The machine's clock. What the standard library reads in this program is the simulated one.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

const TELL_EVERY: Duration = Duration::from_secs(10);
