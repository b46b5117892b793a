//! Every rule that a comment cites by number stands in `proto/RULES.md`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if ["rs", "proto", "txt"].iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            found.push(path);
        }
    }
}

/// Words such as `R12`, where they stand alone.
fn cited(text: &str) -> BTreeSet<String> {
    let is_rule = |word: &&str| {
        let mut rest = word.chars();
        let letter = rest.next();
        let number = rest.as_str();
        letter.is_some_and(|letter| "IRSDOCPW".contains(letter)) && number.len() <= 2 && number.parse::<u8>().is_ok()
    };
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(is_rule).map(str::to_owned).collect()
}

#[test]
fn every_cited_number_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rules = fs::read_to_string(root.join("proto/RULES.md")).expect("readable");
    let explained: BTreeSet<_> = rules.split("**").skip(1).step_by(2).flat_map(cited).collect();
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    assert!(paths.len() > 50, "the sources are there");
    let mut missing = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let comments: String = match path.extension().and_then(|e| e.to_str()) {
            Some("rs" | "proto") => {
                text.lines().filter_map(|line| line.split_once("//")).map(|(_, c)| format!("{c}\n")).collect()
            }
            _ => text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect(),
        };
        missing.extend(cited(&comments).difference(&explained).map(|rule| format!("{}: {rule}", path.display())));
    }
    assert!(missing.is_empty(), "cited, but not explained in proto/RULES.md:\n{}", missing.join("\n"));
}
