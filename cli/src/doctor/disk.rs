//! The disk: how long a sync takes, by the broker's own writes, into a file of zeros as its segments are. Every answer of the
//! default configuration waits for a sync, so this is what decides about latency; throughput comes from how much goes along with
//! each.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use broker_svc::journal::{
    RealDisk,
    disk::{Disk, DiskFile, FileSystem},
};

use super::finding::Finding;
use crate::{
    latency::{Latency, Percentiles},
    progress::Progress,
    terminal::{bytes, grouped, micros},
};

/// Looks at the disk below `directory`, which need not be there yet.
pub(super) fn look(directory: &Path) -> Vec<Finding> {
    let place = existing(directory);
    let wrong = |error: io::Error| {
        let what = format!("{} cannot be used: {error}", place.display());
        vec![Finding::problem("disk", what, "name a directory that can be written to: --data-dir DIR")]
    };
    let disk = match RealDisk::open(&place) {
        Ok(disk) => disk,
        Err(error) => return wrong(error),
    };
    let mut findings = Vec::new();
    match disk.file_system() {
        Ok(system) => findings.push(file_system(&place, system)),
        Err(error) => return wrong(error),
    }
    match measure(&disk) {
        Ok(measured) => findings.push(syncs(&place, &measured)),
        Err(error) => return wrong(error),
    }
    match disk.free_space() {
        Ok(free) => findings.push(space(&place, free)),
        Err(error) => return wrong(error),
    }
    findings
}

/// The directory, or the nearest one above it that is there.
fn existing(directory: &Path) -> PathBuf {
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    absolute.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("/")).to_owned()
}

fn file_system(place: &Path, system: FileSystem) -> Finding {
    let place = place.display();
    match system {
        FileSystem::Local => Finding::good("file system", format!("{place} is on this machine")),
        FileSystem::Doubtful(name) => {
            let advice = "good for a trial; for data that has to last name a directory on a disk: --data-dir DIR";
            Finding::advice("file system", format!("{place} is on {name}, which may forget what was synced"), advice)
        }
        FileSystem::Network(name) => {
            let advice = "a broker refuses to start there, because its locks may exclude nobody; use a disk of this machine";
            Finding::problem("file system", format!("{place} is on {name}"), advice)
        }
    }
}

struct Measured {
    small: Percentiles,
    large: Percentiles,
}

/// Writes and syncs small groups and large ones, each kind for at most a second.
fn measure(disk: &RealDisk) -> io::Result<Measured> {
    let name = format!("oncelog-doctor-{}", std::process::id());
    let file = disk.create(&name)?;
    let measured = measure_in(&file);
    let removed = disk.remove(&name);
    let measured = measured?;
    removed?;
    Ok(measured)
}

fn measure_in(file: &Arc<dyn DiskFile>) -> io::Result<Measured> {
    file.allocate(FILE_BYTES)?;
    let zeros = vec![0; LARGE];
    for position in (0..FILE_BYTES).step_by(LARGE) {
        file.write_at(&[IoSlice::new(&zeros)], position)?;
    }
    file.sync_all()?;
    let mut progress = Progress::start("measuring the disk");
    let small = syncs_of(file, SMALL, &mut |part| progress.at(part, 2 * PARTS));
    let large = syncs_of(file, LARGE, &mut |part| progress.at(PARTS + part, 2 * PARTS));
    progress.end();
    Ok(Measured { small: small?, large: large? })
}

#[expect(clippy::disallowed_methods, reason = "a disk is measured by a real clock")]
fn syncs_of(file: &Arc<dyn DiskFile>, len: usize, progress: &mut dyn FnMut(u64)) -> io::Result<Percentiles> {
    let group = vec![0xa5; len];
    let started = Instant::now();
    let mut latency = Latency::new();
    for index in 0..MOST_SYNCS {
        let position = index * len as u64 % FILE_BYTES;
        let before = Instant::now();
        file.write_at(&[IoSlice::new(&group)], position)?;
        file.sync_data()?;
        let after = Instant::now();
        latency.record(after.duration_since(before), 1);
        let share = after.duration_since(started).as_secs_f64() / LONGEST.as_secs_f64();
        if share >= 1.0 {
            break;
        }
        progress((share * PARTS as f64) as u64);
    }
    Ok(latency.percentiles().expect("at least one"))
}

fn syncs(place: &Path, measured: &Measured) -> Finding {
    let Measured { small, large } = measured;
    let a_second = |micros: u64| 1e6 / micros.max(1) as f64;
    let commits = a_second(small.p50);
    let throughput = a_second(large.p50) * LARGE as f64;
    let what = format!(
        "write and sync of {}: p50 {}, p99 {}, slowest {}; of {}: p50 {}. The disk allows {} commits a second, each \
         with all that waited, and {}/s in full ones, which is {} records of 1 KiB; processor and network may allow less",
        bytes(SMALL as u64),
        micros(small.p50),
        micros(small.p99),
        micros(small.max),
        bytes(LARGE as u64),
        micros(large.p50),
        grouped(commits as u64),
        bytes(throughput as u64),
        grouped(throughput as u64 / 1_024),
    );
    let finding = match small.p50 {
        SLOW_MICROS.. => Finding::advice(
            "disk",
            what,
            "slow syncs: callers that wait for each answer get few records a second; send more at once (SendStream, or more \
             callers), or use a disk with a write cache that survives a power loss",
        ),
        ..=SUSPICIOUS_MICROS => Finding::advice(
            "disk",
            what,
            format!("faster than a disk is: see whether {} is memory, or a volume that does not pass syncs on", place.display()),
        ),
        _ => Finding::good("disk", what),
    };
    finding
        .with("sync_micros_p50", small.p50)
        .with("sync_micros_p99", small.p99)
        .with("sync_micros_max", small.max)
        .with("large_group_micros_p50", large.p50)
        .with("commits_per_second", commits)
        .with("bytes_per_second", throughput)
}

fn space(place: &Path, free: u64) -> Finding {
    let what = format!("{} free at {}", bytes(free), place.display());
    let finding = if free < LITTLE_SPACE {
        let advice = "a broker wants room for its spare segments and a snapshot, and refuses records without it; make room, or set \
                      --segment-bytes and --retention-bytes lower";
        Finding::advice("disk space", what, advice)
    } else {
        Finding::good("disk space", what)
    };
    finding.with("free_bytes", free)
}

/// The least that is written at once: a block.
const SMALL: usize = 4 << 10;
/// A group of a broker that is busy.
const LARGE: usize = 512 << 10;
const FILE_BYTES: u64 = 16 << 20;
const MOST_SYNCS: u64 = 500;
const LONGEST: Duration = Duration::from_secs(1);
/// In which progress is told.
const PARTS: u64 = 1_000;
const SLOW_MICROS: u64 = 10_000;
const SUSPICIOUS_MICROS: u64 = 20;
/// A few segments of the default size.
const LITTLE_SPACE: u64 = 2 << 30;

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    fn measured(p50: u64) -> Measured {
        let percentiles = |p50| Percentiles { p50, p90: p50, p99: p50, p999: p50, max: p50 };
        Measured { small: percentiles(p50), large: percentiles(1_000) }
    }

    #[test]
    fn slow_disks_and_those_too_fast_to_be_true_are_told_with_advice() {
        let level = |p50| syncs(Path::new("/d"), &measured(p50)).level;
        assert_eq!([20, 21, 9_999, 10_000].map(level), [Level::Advice, Level::Good, Level::Good, Level::Advice]);
        let what = syncs(Path::new("/d"), &measured(250)).what;
        assert!(what.contains("4,000 commits a second") && what.contains("500.0 MiB/s"), "{what}");
    }

    #[test]
    fn a_network_file_system_is_a_problem_and_little_space_is_worth_a_word() {
        let level = |system| file_system(Path::new("/d"), system).level;
        assert_eq!(level(FileSystem::Network("nfs")), Level::Problem);
        assert_eq!(level(FileSystem::Doubtful("tmpfs")), Level::Advice);
        assert_eq!(level(FileSystem::Local), Level::Good);
        let level = |free| space(Path::new("/d"), free).level;
        assert_eq!([LITTLE_SPACE - 1, LITTLE_SPACE].map(level), [Level::Advice, Level::Good]);
    }

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let findings = look(&directory.path().join("not/there/yet"));
        assert!(findings.iter().any(|finding| finding.values.contains_key("sync_micros_p50")), "{findings:?}");
        assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 0);
    }
}
