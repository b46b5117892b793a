//! Every input that was ever worth keeping is run again.

use std::{fs, panic, path::Path};

use oncelog_fuzz::TARGETS;

#[test]
fn nothing_that_was_kept_does_any_harm() {
    let mut total = 0;
    for (name, run) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.expect("readable").path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has a corpus");
        for input in &inputs {
            let bytes = fs::read(input).expect("readable");
            if let Err(panic) = panic::catch_unwind(|| run(&bytes)) {
                eprintln!("{name} fails on {}", input.display());
                panic::resume_unwind(panic);
            }
        }
        eprintln!("{name}: {} inputs", inputs.len());
        total += inputs.len();
    }
    eprintln!("{total} inputs in all");
}

#[test]
fn every_target_is_in_the_list_and_has_a_fuzzer() {
    let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets"))
        .expect("there are targets")
        .map(|entry| entry.expect("readable").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    files.sort();
    assert_eq!(files, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}
