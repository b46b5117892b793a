//! Instructions of each pure operation, counted by valgrind's callgrind: the same on every machine of a kind, whatever else it
//! is doing, so that two commits can be compared where times cannot.
//!
//! An operation is done some hundred and then some thousand times, each in a process of its own; the difference, divided, is what
//! one costs without its preparations.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context, bail, ensure};

use crate::pure::{OPERATIONS, Operation};

/// Counts, and compares with the table that is kept; or keeps the counts as the new one.
///
/// # Errors
/// valgrind is missing, a count differs by more than `tolerance` percent, or an operation is in one of the two only.
pub fn compare(write: bool, tolerance: f64) -> anyhow::Result<()> {
    ensure!(!cfg!(debug_assertions), "this is not a release build; its instructions mean nothing: use cargo run --release");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    let counted: BTreeMap<&str, f64> =
        OPERATIONS.iter().map(|operation| Ok((operation.name, count(operation)?))).collect::<anyhow::Result<_>>()?;
    if write {
        fs::write(&path, table(&counted)).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read; make it with --write", path.display()))?;
    let kept = parse(&text)?;
    let mut differ = Vec::new();
    for (name, now) in &counted {
        let before = *kept.get(*name).with_context(|| format!("{name} is not in instructions.txt; add it with --write"))?;
        let percent = (now / before - 1.0) * 100.0;
        eprintln!("{name:<20} {now:>12.0} instructions, {percent:+.2} % to the {before:.0} that are kept");
        if percent.abs() > tolerance {
            differ.push(*name);
        }
    }
    if let Some(gone) = kept.keys().find(|name| !counted.contains_key(name.as_str())) {
        bail!("instructions.txt has {gone}, which is no operation any more; make it anew with --write");
    }
    ensure!(differ.is_empty(), "{} differ by more than {tolerance} %; if that is meant, keep it with --write", differ.join(", "));
    Ok(())
}

fn count(operation: &Operation) -> anyhow::Result<f64> {
    let (few, many) = (total(operation.name, FEW)?, total(operation.name, MANY)?);
    ensure!(many > few, "{} costs nothing: {few} instructions for {FEW}, {many} for {MANY}", operation.name);
    Ok((many - few) as f64 / (MANY - FEW) as f64)
}

fn total(name: &str, times: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["pure", name, &times.to_string()])
        .output()
        .context("valgrind cannot be run; it is a package of that name (apt-get install valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {said}");
    collected(&said).with_context(|| format!("valgrind tells no count: {said}"))
}

/// From the line `==7== Collected : 12345`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

fn table(counted: &BTreeMap<&str, f64>) -> String {
    let mut text =
        String::from("# Instructions of one operation; see src/pure.rs. Made by `oncelog-bench instructions --write`.\n");
    for operation in OPERATIONS {
        text.push_str(&format!("{:<20} {:>10.0}  # {}\n", operation.name, counted[operation.name], operation.about));
    }
    text
}

fn parse(text: &str) -> anyhow::Result<BTreeMap<String, f64>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty());
    let entry = |line: &str| {
        let (name, count) = line.split_once(char::is_whitespace).with_context(|| format!("no name and count: {line}"))?;
        Ok((name.to_owned(), count.trim().parse().with_context(|| format!("{name} has no count: {count}"))?))
    };
    lines.map(entry).collect()
}

const FEW: u64 = 500;
const MANY: u64 = 2_500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_it_was_written() {
        let counted: BTreeMap<_, _> = OPERATIONS.iter().enumerate().map(|(i, operation)| (operation.name, i as f64)).collect();
        let kept = parse(&table(&counted)).expect("a table");
        assert_eq!(kept.len(), OPERATIONS.len());
        assert!(counted.iter().all(|(name, count)| kept[*name] == *count));
        assert!(parse("walk").is_err() && parse("walk x").is_err());
    }

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        assert_eq!(collected("==7== \n==7== Events    : Ir\n==7== Collected : 2345\n"), Some(2345));
        assert_eq!(collected("==7== nothing"), None);
    }
}
