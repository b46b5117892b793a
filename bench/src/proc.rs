//! What the kernel tells of processes and of the machine, under `/proc`.

use std::{collections::HashMap, fs};

use anyhow::Context;

/// CPU time of a process and its threads, in seconds; without its children.
///
/// # Errors
/// It has ended, or this is not Linux.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = Stat::read(pid)?;
    Ok(stat.own_ticks as f64 / ticks_per_second())
}

/// CPU time of this process and of everything that it started, ended processes included, in seconds.
///
/// # Errors
/// This is not Linux.
pub fn tree_cpu_seconds() -> anyhow::Result<f64> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended since the directory was read; then its parent has inherited its time.
        if let Ok(stat) = Stat::read(pid) {
            parents.insert(pid, stat);
        }
    }
    let root = std::process::id();
    let is_ours = |mut pid: u32| {
        // Process 0 is nobody; a chain of parents is no longer than the number of processes.
        for _ in 0..=parents.len() {
            if pid == root {
                return true;
            }
            let Some(stat) = parents.get(&pid) else { return false };
            pid = stat.parent;
        }
        false
    };
    let ticks: u64 = parents.iter().filter(|(pid, _)| is_ours(**pid)).map(|(_, stat)| stat.own_ticks + stat.reaped_ticks).sum();
    Ok(ticks as f64 / ticks_per_second())
}

/// Resident memory of a process in bytes: now, and the most there ever was.
///
/// # Errors
/// It has ended, or this is not Linux.
pub fn resident_bytes(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).with_context(|| format!("no {key}"))
    };
    Ok((kilobytes("VmRSS:")? << 10, kilobytes("VmHWM:")? << 10))
}

/// The machine's CPU time so far, in seconds over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineCpu {
    /// Spent on anything but idling and waiting for the disk.
    pub busy: f64,
    /// Taken away by the host of a virtual machine.
    pub stolen: f64,
}

impl MachineCpu {
    /// Since the machine started.
    ///
    /// # Errors
    /// This is not Linux.
    pub fn read() -> anyhow::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat")?, ticks_per_second()).context("/proc/stat has no line of all cores")
    }

    fn parse(stat: &str, ticks_per_second: f64) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal
        let ticks: Vec<u64> = line.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let &[user, nice, system, _, _, irq, softirq, steal, ..] = ticks.as_slice() else { return None };
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy: busy as f64 / ticks_per_second, stolen: steal as f64 / ticks_per_second })
    }
}

/// One line of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    reaped_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> anyhow::Result<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat"))?).with_context(|| format!("/proc/{pid}/stat is no stat"))
    }

    /// The name, in parentheses, may hold anything, parentheses included; what follows the last one are numbers.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            own_ticks: number(11)? + number(12)?,
            reaped_ticks: number(13)? + number(14)?,
        })
    }
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 11 13 17 19 20 0 1 0";
        assert_eq!(Stat::parse(text), Some(Stat { parent: 3, own_ticks: 24, reaped_ticks: 36 }));
        assert_eq!(Stat::parse("7 (a) S 3"), None);
    }

    #[test]
    fn waiting_for_the_disk_is_not_busy_and_stolen_time_is_apart() {
        let cpu = MachineCpu::parse("cpu  100 10 20 9999 8888 1 2 50 0 0\ncpu0 1 1 1 1 1 1 1 1", 100.0);
        assert_eq!(cpu, Some(MachineCpu { busy: 1.33, stolen: 0.5 }));
        assert_eq!(MachineCpu::parse("cpu0 1 1", 100.0), None);
    }

    #[test]
    fn what_this_process_burns_is_counted_as_its_own() {
        let before = tree_cpu_seconds().expect("Linux");
        let mut x = 1u64;
        while tree_cpu_seconds().expect("Linux") < before + 0.02 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        assert!(cpu_seconds(std::process::id()).expect("Linux") > 0.0);
        assert!(resident_bytes(std::process::id()).expect("Linux").1 > 1 << 20);
    }
}
