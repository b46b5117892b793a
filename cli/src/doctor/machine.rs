//! What this process is given: versions, files, memory.

use std::{fs, thread};

use rustix::{
    process::{Resource, getrlimit},
    system::uname,
};

use super::finding::Finding;
use crate::terminal::{bytes, grouped};

pub(super) fn version() -> Finding {
    let version = env!("CARGO_PKG_VERSION");
    let system = uname();
    let kernel = format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let what = format!("oncelog {version} on {kernel}, {cores} cores");
    Finding::good("version", what).with("version", version).with("kernel", kernel).with("cores", cores)
}

pub(super) fn open_files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    files(limit.current, limit.maximum)
}

/// None: there is no limit. A service raises its soft limit to the hard one when it starts, so the hard one counts.
fn files(soft: Option<u64>, hard: Option<u64>) -> Finding {
    let told = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), grouped);
    let what = format!("{} open files allowed, up to {} if asked for", told(soft), told(hard));
    let finding = if hard.is_some_and(|hard| hard < FILES) {
        let advice = format!(
            "a service has a file open for each connection and segment: ulimit -Hn {FILES}, or LimitNOFILE={FILES} in its unit"
        );
        Finding::advice("open files", what, advice)
    } else {
        Finding::good("open files", what)
    };
    finding.with("soft_limit", soft).with("hard_limit", hard)
}

pub(super) fn memory() -> Finding {
    let available = fs::read_to_string("/proc/meminfo").ok().and_then(|info| available(&info));
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    let cached = fs::read_to_string("/sys/fs/cgroup/memory.stat").ok().and_then(|stat| inactive(&stat)).unwrap_or(0);
    let used = read("memory.current").unwrap_or(0).saturating_sub(cached);
    let allowed = read("memory.max").map(|most| most.saturating_sub(used));
    judge_memory(available.into_iter().chain(allowed).min())
}

fn judge_memory(available: Option<u64>) -> Finding {
    let Some(available) = available else {
        return Finding::good("memory", "how much there is cannot be seen here");
    };
    let what = format!("{} available", bytes(available));
    let finding = if available < MEMORY {
        let advice = "both services want some 500 MiB under load with their defaults; give them more, or lower their limits: docs/configuration.md";
        Finding::advice("memory", what, advice)
    } else {
        Finding::good("memory", what)
    };
    finding.with("available_bytes", available)
}

fn available(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"))?;
    Some(kib.trim().parse::<u64>().ok()? << 10)
}

/// What the kernel remembers of files that nobody uses just now: it is counted as used, and is there for the asking.
fn inactive(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse().ok()
}

/// As many as a service's thousand connections and a log of some thousand segments need.
const FILES: u64 = 4_096;
const MEMORY: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn few_files_and_little_memory_are_worth_a_word() {
        let level = |hard| files(Some(64), hard).level;
        assert_eq!([Some(FILES - 1), Some(FILES), None].map(level), [Level::Advice, Level::Good, Level::Good]);
        let level = |available| judge_memory(available).level;
        assert_eq!([Some(MEMORY - 1), Some(MEMORY), None].map(level), [Level::Advice, Level::Good, Level::Good]);
    }

    #[test]
    fn what_files_are_remembered_by_counts_as_there() {
        assert_eq!(inactive("anon 1\ninactive_anon 7\ninactive_file 4096\nactive_file 5\n"), Some(4096));
        assert_eq!(inactive("anon 1\n"), None);
    }

    #[test]
    fn available_memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(available("MemTotal:       4096 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }
}
