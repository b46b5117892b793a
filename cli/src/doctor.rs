//! `oncelog doctor`: what of this machine and of running services stands in the way, and what to do about it. It looks, measures
//! the disk for two seconds, and changes nothing.

mod clock;
mod disk;
mod finding;
mod machine;
mod services;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde::Serialize;

use self::finding::{Finding, Level};
use crate::{
    exit::Exit,
    interrupt::Interrupt,
    output::{self, Output},
    terminal::{Line, Style, Tone, columns, wrapped},
};

/// What `oncelog doctor` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory whose disk is measured: where a broker's data is, or is to be.
    #[arg(long, value_name = "DIR", default_value = "./oncelog-data", env = "ONCELOG_BROKER_DATA_DIR")]
    data_dir: PathBuf,
    /// The broker's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051", env = "ONCELOG_BROKER")]
    broker: String,
    /// The producer's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50052", env = "ONCELOG_PRODUCER")]
    producer: String,
    #[command(flatten)]
    secured: crate::connect::Secured,
    /// Where the broker tells its readiness and metrics.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    broker_admin: std::net::SocketAddr,
    /// Where the producer tells its readiness and metrics.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9465")]
    producer_admin: std::net::SocketAddr,
    /// Look at this machine alone, and ask no service.
    #[arg(long)]
    offline: bool,
    /// The form of what is told.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Told {
    /// Nothing is a problem.
    well: bool,
    findings: Vec<Finding>,
}

/// Looks, and tells.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::catch()?;
    tokio::select! {
        code = look(args) => code,
        // What measures the disk goes on to its end, a second or two, and takes its file away.
        () = interrupt.asked() => Ok(Exit::Interrupted.into()),
    }
}

async fn look(args: Args) -> anyhow::Result<ExitCode> {
    let directory = args.data_dir.clone();
    let mut clock = clock::Watch::start();
    let mut findings = vec![machine::version()];
    findings.extend(tokio::task::spawn_blocking(move || disk::look(&directory)).await?);
    findings.extend([clock.stop(), machine::open_files(), machine::memory()]);
    let mut is_unreachable = false;
    if !args.offline {
        for (name, url, admin) in [("broker", &args.broker, args.broker_admin), ("producer", &args.producer, args.producer_admin)]
        {
            let looked = services::look(name, url, &args.secured, admin).await;
            is_unreachable |= looked.is_unreachable;
            findings.extend(looked.findings);
        }
    }
    let well = findings.iter().all(|finding| finding.level != Level::Problem);
    let told = Told { well, findings };
    match args.output {
        Output::Text => {
            output::heard(tell(&told, &mut io::stdout().lock(), Style::of(&io::stdout()), columns(&io::stdout())))?;
        }
        Output::Json => output::heard(output::json(&told))?,
    }
    let exit = match (well, is_unreachable) {
        (true, _) => Exit::Success,
        (false, true) => Exit::Unreachable,
        (false, false) => Exit::Failed,
    };
    Ok(exit.into())
}

fn tell(told: &Told, out: &mut impl Write, style: Style, columns: Option<usize>) -> io::Result<()> {
    let width = columns.map_or(usize::MAX, |columns| columns.saturating_sub(INDENT));
    for finding in &told.findings {
        let (word, tone) = match finding.level {
            Level::Good => ("ok", Tone::Good),
            Level::Advice => ("advice", Tone::Notable),
            Level::Problem => ("PROBLEM", Tone::Bad),
        };
        let mut lines = wrapped(&finding.what, width).into_iter();
        let head = Line::new().then(tone, word).up_to(9).then(Tone::Strong, finding.check).up_to(INDENT);
        let head = head.then(Tone::Plain, lines.next().unwrap_or_default());
        writeln!(out, "{}", head.rendered(style, usize::MAX))?;
        let advice = finding.advice.iter().flat_map(|advice| wrapped(&format!("-> {advice}"), width));
        let rest = lines.map(|line| (Tone::Plain, line)).chain(advice.map(|line| (Tone::Faint, line)));
        for (tone, line) in rest {
            writeln!(out, "{}", Line::new().up_to(INDENT).then(tone, line).rendered(style, usize::MAX))?;
        }
    }
    let problems = told.findings.iter().filter(|finding| finding.level == Level::Problem).count();
    let advices = told.findings.iter().filter(|finding| finding.level == Level::Advice).count();
    let verdict = if problems == 0 { "nothing stands in the way".to_owned() } else { format!("problems: {problems}") };
    writeln!(out, "\n{verdict}{}", if advices == 0 { String::new() } else { format!("; to think about: {advices}") })
}

/// Where what was found begins.
const INDENT: usize = 22;
