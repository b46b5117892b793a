//! The README's table of errors says of each code what the code itself says.

use std::{collections::BTreeMap, fs, path::Path};

use oncelog_proto::ErrorCode;
use oncelog_tests::transcript::code_name;

const COLUMNS: [&str; 6] = ["code", "meaning", "whose fault", "retry", "outcome known", "gRPC status"];

/// The rows under the heading "Errors", by code.
fn table() -> BTreeMap<String, Vec<String>> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("there is a README");
    let section = readme.lines().skip_while(|line| *line != "## Errors").skip(1).take_while(|line| !line.starts_with("## "));
    let cells = |line: &str| -> Option<Vec<String>> {
        let row = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(row.split('|').map(|cell| cell.trim().replace('`', "")).collect())
    };
    let mut rows = section.filter_map(cells);
    assert_eq!(rows.next().expect("there is a table under the heading"), COLUMNS);
    assert!(rows.next().expect("a line below the head").iter().all(|cell| cell.starts_with("---")));
    let mut table = BTreeMap::new();
    for row in rows {
        assert_eq!(row.len(), COLUMNS.len(), "{row:?}");
        let before = table.insert(row[0].clone(), row);
        assert!(before.is_none(), "there twice: {before:?}");
    }
    table
}

#[test]
fn the_readme_says_of_each_error_what_the_code_says() {
    let said = table();
    let yes_or_no = |is: bool| if is { "yes" } else { "no" };
    let codes = (0..10_000).filter_map(|number| ErrorCode::try_from(number).ok());
    let mut codes: BTreeMap<_, _> = codes.map(|code| (format!("{} ({})", code.reason(), code as i32), code)).collect();
    for (name, row) in &said {
        let code = codes.remove(name).unwrap_or_else(|| panic!("no code is called {name}"));
        let [retry, known, status] = [&row[3], &row[4], &row[5]];
        assert_eq!(retry, yes_or_no(code.is_retriable()), "{name}: retry");
        assert_eq!(known, yes_or_no(code.outcome_is_known()), "{name}: outcome known");
        assert_eq!(*status, code_name(code.grpc_code()), "{name}: gRPC status");
        assert!(!row[1].is_empty() && !row[2].is_empty(), "{name}: what it means, and whose fault it is");
    }
    assert!(codes.is_empty(), "not in the README: {:?}", codes.keys());
}
