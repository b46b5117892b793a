//! `oncelog chaos`: both services as processes, everything that can break broken at random for a time, and the verdict on what is
//! left. The engine is in `oncelog_chaos`; here it is started, shown and judged.

mod display;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use oncelog_chaos::{Options, Outcome, Status};
use tokio::sync::watch;

use self::display::Display;
use crate::{
    child,
    exit::Exit,
    interrupt::Interrupt,
    output::{self, Output},
    verify::{offline, verdict::Verdict},
};

/// What `oncelog chaos` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long things fail: a number with s, m or h.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// Decides what fails, and when. Default: random, and told.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Directory for data and logs; made, and it has to be empty. Default: a temporary one, which is kept if something is wrong.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Fill the broker's disk, too: a small one of its own, which only root can mount.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    fill_disk: bool,
    /// The form of the verdict.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
    /// A flag for producer-svc, as it is written there; to see that what is broken on purpose is found.
    #[arg(long, value_name = "FLAG", hide = true, allow_hyphen_values = true)]
    producer_flag: Vec<String>,
}

/// Runs, shows, verifies.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut interrupted = pin!(Interrupt::catch()?.asked());
    let seed = seed(args.seed)?;
    let is_temporary = args.directory.is_none();
    let temporary = || std::env::temp_dir().join(format!("oncelog-chaos-{}-{seed}", std::process::id()));
    let directory = args.directory.unwrap_or_else(temporary);
    fs::create_dir_all(&directory).with_context(|| format!("the directory {}", directory.display()))?;
    ensure!(fs::read_dir(&directory)?.next().is_none(), "{} is not empty; name another --directory", directory.display());
    let options = Options {
        programs: child::programs()?,
        directory: directory.clone(),
        duration: args.duration,
        seed,
        fill_disk: args.fill_disk,
        producer_args: args.producer_flag,
    };
    let (watchers, status) = watch::channel(Status::default());
    let display = Display::start(args.duration, seed, status);
    let ended = tokio::select! {
        ended = oncelog_chaos::run(options, watchers) => Some(ended),
        () = &mut interrupted => None,
    };
    display.end().await;
    let given_up = || {
        eprintln!("oncelog: interrupted; seed {seed}; data and logs are kept in {}", directory.display());
        Ok(Exit::Interrupted.into())
    };
    let Some(ended) = ended else { return given_up() };
    let ended = ended.with_context(|| format!("seed {seed}; data and logs are kept in {}", directory.display()))?;
    let at_rest = {
        let (data, history) = (ended.data.clone(), ended.history.clone());
        let verifying = tokio::task::spawn_blocking(move || offline::verify(&data, &[], Some(&history)));
        tokio::select! {
            verdict = verifying => verdict??,
            () = &mut interrupted => return given_up(),
        }
    };
    let sound = ended.violations.is_empty() && at_rest.is_sound();
    match args.output {
        Output::Text => output::heard(tell(seed, &ended, &at_rest, sound))?,
        Output::Json => output::heard(tell_json(seed, &ended, &at_rest, sound))?,
    }
    let history = ended.history.clone();
    drop(ended);
    clean_up(&directory, &history, is_temporary, sound)?;
    Ok(if sound { Exit::Success } else { Exit::NotSound }.into())
}

fn tell(seed: u64, ended: &Outcome, at_rest: &Verdict, sound: bool) -> anyhow::Result<()> {
    let status = &ended.status;
    let mut out = std::io::stdout().lock();
    for violation in &ended.violations {
        writeln!(out, "violated {violation}")?;
    }
    if !at_rest.is_sound() {
        writeln!(out, "at rest:")?;
        at_rest.tell(Output::Text, Some(&ended.history))?;
    }
    for (kind, times) in &status.struck {
        writeln!(out, "{times:>6} {}", kind.name())?;
    }
    for left_out in &ended.left_out {
        writeln!(out, "left out: {left_out}")?;
    }
    let counted = status.counted;
    let failures: u64 = status.struck.values().sum();
    writeln!(
        out,
        "{}: {failures} failures of {} kinds in {} rounds (seed {seed}); sent {}, acknowledged {}, refused {}, unknown {}; \
         batches retried {}, duplicates refused {}; {} records judged, running and at rest: lost {}, duplicated {}; not judged {}",
        if sound { "sound" } else { "NOT SOUND" },
        status.struck.len(),
        status.rounds,
        counted.sent,
        counted.acknowledged,
        counted.refused,
        counted.unknown,
        counted.retried,
        counted.duplicates_refused,
        status.judged,
        status.lost,
        status.duplicated,
        ended.unjudged
    )?;
    Ok(())
}

fn tell_json(seed: u64, ended: &Outcome, at_rest: &Verdict, sound: bool) -> anyhow::Result<()> {
    let Status { rounds, counted, judged, lost, duplicated, violations, struck, missed, .. } = &ended.status;
    let struck: serde_json::Map<_, _> = struck.iter().map(|(kind, times)| (kind.name(), (*times).into())).collect();
    let told = serde_json::json!({
        "sound": sound, "seed": seed, "rounds": rounds, "failures": struck, "moments_missed": missed, "left_out": ended.left_out,
        "sent": counted.sent, "acknowledged": counted.acknowledged, "refused": counted.refused, "unknown": counted.unknown,
        "batches_produced": counted.produced, "batches_retried": counted.retried, "duplicates_refused": counted.duplicates_refused,
        "judged": judged, "lost": lost, "duplicated": duplicated, "unjudged": ended.unjudged, "violation_count": violations,
        "violations": ended.violations, "at_rest": at_rest,
    });
    Ok(output::json(&told)?)
}

fn clean_up(directory: &Path, history: &Path, is_temporary: bool, sound: bool) -> anyhow::Result<()> {
    if sound && is_temporary {
        fs::remove_dir_all(directory)?;
    } else {
        eprintln!("oncelog: logs are in {}, the last history is {}", directory.display(), history.display());
    }
    Ok(())
}

/// The one that was asked for, or a random one, short enough to be typed.
pub(crate) fn seed(asked: Option<u64>) -> anyhow::Result<u64> {
    match asked {
        Some(seed) => Ok(seed),
        None => Ok(oncelog_edge::machine::random()? >> 32),
    }
}

/// A number with s, m or h.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        unit => return Err(format!("{unit:?} is no unit; use s, m or h")),
    };
    let number: u64 = digits.parse().map_err(|e| format!("{digits:?}: {e}"))?;
    let seconds = number.checked_mul(unit).filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("allowed is 1s to {}h", MOST_SECONDS / 3_600))
}

/// A month.
const MOST_SECONDS: u64 = 30 * 24 * 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("720h"), Ok(Duration::from_secs(MOST_SECONDS)));
        for wrong in ["721h", "0s", "1d", "s", "-1s", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
