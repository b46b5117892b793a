//! `oncelog journal`: what is on a stopped broker's disk, segment by segment. Headers and directories are read by the broker's
//! own code; nothing is changed, and records are not read (`oncelog verify` reads all of it).

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;
use broker_svc::journal::{Inspection, Outline, SegmentOutline};
use oncelog_proto::Timestamp;
use serde::Serialize;

use crate::{
    exit::Exit,
    output::{self, Output},
    progress::Progress,
    terminal::{Table, bytes, grouped},
    verify::read_only::ReadOnlyDisk,
};

/// What `oncelog journal` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of the broker's data; the broker has to be stopped.
    #[arg(long, value_name = "DIR", default_value = "./oncelog-data", env = "ONCELOG_BROKER_DATA_DIR")]
    data_dir: PathBuf,
    /// The form of what is told.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Told {
    /// Names the journal, for ever.
    cluster: Option<String>,
    incarnation: Option<u64>,
    clean: bool,
    torn: Option<String>,
    segments: Vec<Segment>,
    snapshots: Vec<Snapshot>,
    damaged_snapshots: Vec<String>,
    other_files: Vec<OtherFile>,
}

#[derive(Debug, Serialize)]
struct Segment {
    segment: u64,
    file: String,
    file_bytes: u64,
    used_bytes: u64,
    first_group: u64,
    groups: u64,
    batches: u64,
    records: u64,
    data_bytes: u64,
    other_entries: u64,
    oldest: Option<String>,
    newest: Option<String>,
    opening: u64,
    indexed: bool,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    file: String,
    after_group: u64,
    segment: u64,
}

#[derive(Debug, Serialize)]
struct OtherFile {
    file: String,
    bytes: u64,
}

/// Looks, and tells.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let directory = args.data_dir.clone();
    // It reads all the time.
    let told = tokio::task::spawn_blocking(move || look(&directory)).await??;
    match args.output {
        Output::Text => tell(&args.data_dir, &told, &mut io::stdout().lock())?,
        Output::Json => output::json(&told)?,
    }
    Ok(Exit::Success.into())
}

fn look(directory: &Path) -> anyhow::Result<Told> {
    let wrong = || format!("the journal in {}", directory.display());
    let disk = ReadOnlyDisk::open(directory).with_context(wrong)?;
    let inspection = Inspection::begin(Arc::new(disk)).with_context(wrong)?;
    let mut progress = Progress::start("reading");
    let outline = inspection.outline(&mut |at| progress.at(at.bytes, at.total));
    progress.end();
    let Outline { cluster, segments, others } = outline.with_context(wrong)?;
    let snapshots = inspection.bases().into_iter().filter_map(|base| {
        let (file, at) = (base.snapshot()?, base.position()?);
        Some(Snapshot { file, after_group: at.group().get(), segment: at.segment() })
    });
    Ok(Told {
        cluster: cluster.map(|(cluster, _)| cluster.iter().map(|byte| format!("{byte:02x}")).collect()),
        incarnation: cluster.map(|(_, incarnation)| incarnation),
        clean: inspection.is_clean(),
        torn: inspection.torn().map(str::to_owned),
        segments: segments.into_iter().map(Segment::of).collect(),
        snapshots: snapshots.collect(),
        damaged_snapshots: inspection.damaged_snapshots().to_vec(),
        other_files: others.into_iter().map(|(file, bytes)| OtherFile { file, bytes }).collect(),
    })
}

impl Segment {
    fn of(outline: SegmentOutline) -> Self {
        let time = |time: Timestamp| time.to_proto().to_string();
        Self {
            segment: outline.number,
            file_bytes: outline.file_bytes,
            used_bytes: outline.used_bytes,
            first_group: outline.first_group,
            groups: outline.groups,
            batches: outline.batches,
            records: outline.records,
            data_bytes: outline.data_bytes,
            other_entries: outline.other_entries,
            oldest: outline.times.map(|(oldest, _)| time(oldest)),
            newest: outline.times.map(|(_, newest)| time(newest)),
            opening: outline.opening,
            indexed: outline.is_indexed,
            state: match (outline.is_trimmed, outline.is_last) {
                (true, _) => "trimmed",
                (false, true) => "active",
                (false, false) => "sealed",
            },
            file: outline.file,
        }
    }
}

fn tell(directory: &Path, told: &Told, out: &mut impl Write) -> io::Result<()> {
    let Some(cluster) = &told.cluster else {
        return writeln!(out, "nothing was ever written in {}", directory.display());
    };
    writeln!(out, "journal {cluster}, incarnation {}, in {}", told.incarnation.unwrap_or(0), directory.display())?;
    let stop = match (&told.torn, told.clean) {
        (Some(torn), _) => {
            format!("the last group was being written when the machine stopped, and the next start cuts it ({torn})")
        }
        (None, true) => "the last stop was a clean one".to_owned(),
        (None, false) => "the last stop was no clean one; nothing has to be cut".to_owned(),
    };
    writeln!(out, "{stop}\n")?;
    let mut segments = Table::new(&[
        "#SEGMENT",
        "STATE",
        "#USED",
        "#GROUPS",
        "#BATCHES",
        "#RECORDS",
        "#OTHER ENTRIES",
        "INDEX",
        "OLDEST",
        "NEWEST",
    ]);
    for segment in &told.segments {
        let dash = || "-".to_owned();
        segments.row(vec![
            segment.segment.to_string(),
            segment.state.to_owned(),
            bytes(segment.used_bytes),
            grouped(segment.groups),
            grouped(segment.batches),
            grouped(segment.records),
            grouped(segment.other_entries),
            if segment.indexed { "yes".to_owned() } else { dash() },
            segment.oldest.clone().unwrap_or_else(dash),
            segment.newest.clone().unwrap_or_else(dash),
        ]);
    }
    segments.write(out)?;
    writeln!(out)?;
    if told.snapshots.is_empty() {
        writeln!(out, "no snapshot: a start reads the journal from its beginning")?;
    }
    for snapshot in &told.snapshots {
        writeln!(out, "snapshot {}: the state after group {}, verified", snapshot.file, grouped(snapshot.after_group))?;
    }
    for damaged in &told.damaged_snapshots {
        writeln!(out, "damaged snapshot {damaged}")?;
    }
    for other in &told.other_files {
        writeln!(out, "{} ({})", other.file, bytes(other.bytes))?;
    }
    Ok(())
}
