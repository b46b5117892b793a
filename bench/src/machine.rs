//! On what a result was made.

use std::{fs, path::Path, process::Command};

/// Facts in words, in the order of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine(pub Vec<(&'static str, String)>);

impl Machine {
    /// Of this machine, with `directory` on the disk under test.
    pub fn describe(directory: &Path) -> Self {
        let (disk, file_system) = disk(directory);
        Self(vec![
            ("processor", processor()),
            ("memory", memory()),
            ("disk", disk),
            ("file system", file_system),
            ("kernel", said("uname", &["-sr"])),
            ("rustc", said("rustc", &["--version"])),
            ("fio", said("fio", &["--version"])),
            ("oncelog", format!("{} at {}", env!("CARGO_PKG_VERSION"), commit())),
            ("durability of oncelog", crate::oncelog::DURABILITY.to_owned()),
        ])
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, {}", model.map_or("unknown", |(_, model)| model.trim()))
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    total.map_or_else(|| "unknown".to_owned(), |kilobytes| format!("{:.1} GiB", kilobytes as f64 / f64::from(1 << 20)))
}

/// Device and its kind; type and options of the mount that holds the directory.
fn disk(directory: &Path) -> (String, String) {
    let directory = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let holding = fields.filter(|fields| fields.len() > 3 && directory.starts_with(fields[1]));
    // Of two mounts at one place the later one is seen.
    let Some(mount) = holding.max_by_key(|fields| fields[1].len()) else { return ("unknown".to_owned(), "unknown".to_owned()) };
    let device = mount[0].trim_start_matches("/dev/");
    let rotational = fs::read_to_string(format!("/sys/block/{device}/queue/rotational")).unwrap_or_default();
    let cache = fs::read_to_string(format!("/sys/block/{device}/queue/write_cache")).unwrap_or_default();
    let kind = match rotational.trim() {
        "0" => "not rotating",
        "1" => "rotating",
        _ => "of unknown kind",
    };
    (format!("{device}, {kind}, write cache: {}", cache.trim()), format!("{} ({})", mount[2], mount[3]))
}

fn commit() -> String {
    said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "not there".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
