//! The deliberate defects of `oncelog-defects` are compiled in for tests alone: what is shipped has none, and no switch for one.

use std::fs;

use oncelog_tests::binaries;

#[test]
fn the_commands_have_no_switch_for_a_deliberate_defect() {
    for name in ["broker-svc", "producer-svc", "oncelog"] {
        let binary = fs::read(binaries::path(name)).expect("it was just built");
        let contains = |text: &str| binary.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(contains("ONCELOG_LOG"), "{name}: what it asks its environment for is found");
        assert!(!contains("ONCELOG_DEFECT"), "{name} was built with the feature `deliberate-defects`");
    }
}
