//! `oncelog demo`: see it refuse duplicates. Both services as processes, four writers, and a network between the services that
//! loses answers and breaks, around a broker that is killed; all of it shown while it happens, and judged in the end.
//!
//! `chaos` breaks more, for longer, and shows less: this is for somebody who has never heard of it.

mod audit;
mod board;
mod mishap;
mod play;
mod reader;
mod screen;
mod show;
mod traffic;
mod verdict;
mod wire_tap;
mod writer;

use std::{io, process::ExitCode, time::Duration};

use self::board::{Asked, Board};
use crate::{
    chaos::{duration, seed},
    exit::Exit,
    interrupt::Interrupt,
    output::{self, Output},
    terminal::Style,
    workplace::Workplace,
};

/// What `oncelog demo` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long things fail: a number with s or m.
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = demo_duration)]
    duration: Duration,
    /// Decides what fails, and when. Default: random, and told.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Send batches without tags, so that the broker cannot recognise what it has already stored, under the same failures. What
    /// is sent again is then there twice, the verdict says so, and so does the exit code: 5, as after any verification that found
    /// something.
    #[arg(long)]
    without_idempotence: bool,
    /// The form of the verdict. With json, what is shown meanwhile goes to stderr.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Plays, shows, and tells the verdict.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch()?;
    let seed = seed(args.seed)?;
    let asked = Asked { seed, duration: args.duration, idempotence: !args.without_idempotence };
    let board = Board::new(asked, play::WRITERS, play::PARTITIONS);
    let workplace = Workplace::new(None, "oncelog-demo")?;
    let played = {
        let showing = show::Showing::start(board.clone(), args.output);
        let played = tokio::select! {
            played = play::play(workplace.path(), asked, &board) => Some(played),
            () = showing.for_ever() => None,
            () = interrupt.asked() => None,
        };
        showing.end();
        played
    };
    let Some(played) = played else { return Ok(Exit::Interrupted.into()) };
    let verdict = match played {
        Ok(verdict) => verdict,
        Err(error) => return Err(error.context(format!("seed {seed}; data and logs are kept in {}", workplace.keep().display()))),
    };
    match args.output {
        Output::Text => output::heard(verdict.tell(&mut io::stdout().lock(), Style::of(&io::stdout())))?,
        Output::Json => output::heard(output::json(&verdict.json()))?,
    }
    if verdict.is_sound() {
        return Ok(Exit::Success.into());
    }
    // Without idempotence it is as expected, and nobody will look for the cause.
    if asked.idempotence {
        eprintln!("oncelog: data, logs and the history are kept in {}", workplace.keep().display());
    }
    Ok(Exit::NotSound.into())
}

fn demo_duration(text: &str) -> Result<Duration, String> {
    let asked = duration(text)?;
    // Everything that was sent is remembered, to be judged.
    if asked > LONGEST {
        Err(format!("a demo lasts at most {} m; `oncelog chaos` goes on for longer", LONGEST.as_secs() / 60))
    } else {
        Ok(asked)
    }
}

const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_is_short() {
        assert_eq!(demo_duration("8s"), Ok(Duration::from_secs(8)));
        assert_eq!(demo_duration("10m"), Ok(LONGEST));
        assert!(demo_duration("11m").is_err() && demo_duration("0s").is_err());
    }
}
