//! On what a result was made.

use std::{fs, path::Path, process::Command};

use serde::{Deserialize, Serialize};

/// Facts in words, in the order of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine(pub Vec<(String, String)>);

impl Machine {
    /// The first fact that is another on `other`, and what it is on both.
    pub fn difference<'a>(&'a self, other: &'a Self) -> Option<(&'a str, &'a str, &'a str)> {
        let of_other = |what: &str| other.0.iter().find(|(name, _)| name == what).map_or("unknown", |(_, value)| value.as_str());
        let mut facts = self.0.iter().map(|(what, value)| (what.as_str(), value.as_str(), of_other(what)));
        facts.find(|(_, here, there)| here != there)
    }

    /// Of this machine, with `directory` on the disk under test.
    pub fn describe(directory: &Path) -> Self {
        let (disk, file_system) = disk(directory);
        let facts = vec![
            ("processor", processor()),
            ("memory", memory()),
            ("disk", disk),
            ("file system", file_system),
            ("kernel", said("uname", &["-sr"])),
            ("rustc", said("rustc", &["--version"])),
            ("fio", said("fio", &["--version"])),
            ("oncelog", env!("CARGO_PKG_VERSION").to_owned()),
            ("durability of oncelog", crate::oncelog::DURABILITY.to_owned()),
        ];
        Self(facts.into_iter().map(|(what, value)| (what.to_owned(), value)).collect())
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

/// The commit that is measured, and whether there is more than it in the directory.
pub fn commit() -> String {
    said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "not there".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
