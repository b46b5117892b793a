//! The tables of errors say of each code and of each status what the code itself says, and leave none out.

use std::collections::{BTreeMap, BTreeSet};

use oncelog_docs::page::Page;
use oncelog_proto::ErrorCode;
use oncelog_tests::transcript::code_name;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

const CODES: [&str; 6] = ["code", "meaning", "whose fault", "retry", "outcome known", "gRPC status"];
const STATUSES: [&str; 6] =
    ["status", "codes that come with it", "what else it may mean", "whose fault", "retry", "outcome known"];

/// The rows under a heading, by their first cell.
fn rows<const N: usize>(heading: &str, columns: [&str; N]) -> BTreeMap<String, [String; N]> {
    let mut rows = Page::read("docs/errors.md").table(heading).into_iter();
    assert_eq!(rows.next().expect("there is a table under the heading"), columns);
    assert!(rows.next().expect("a line below the head").iter().all(|cell| cell.starts_with("---")));
    let mut table = BTreeMap::new();
    for row in rows {
        let row: [String; N] = row.try_into().unwrap_or_else(|row| panic!("{row:?} has not {N} cells"));
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let before = table.insert(row[0].clone(), row);
        assert!(before.is_none(), "there twice: {before:?}");
    }
    table
}

/// Every value that the contract declares.
fn declared() -> Vec<ErrorCode> {
    let files = FileDescriptorSet::decode(oncelog_proto::FILE_DESCRIPTOR_SET).expect("it was encoded by the build").file;
    let enums = files.iter().flat_map(|file| &file.enum_type).filter(|declared| declared.name() == "ErrorCode");
    let codes: Vec<_> = enums.flat_map(|declared| &declared.value).map(|value| value.number()).collect();
    assert!(codes.len() > 20, "{codes:?}");
    codes.into_iter().map(|number| ErrorCode::try_from(number).expect("declared")).collect()
}

#[test]
fn of_each_code_the_page_says_what_the_code_says() {
    let said = rows("## Codes", CODES);
    let yes_or_no = |is: bool| if is { "yes" } else { "no" };
    let mut codes: BTreeMap<_, _> =
        declared().into_iter().map(|code| (format!("{} ({})", code.reason(), code as i32), code)).collect();
    for (name, [_, _, _, retry, known, status]) in &said {
        let code = codes.remove(name).unwrap_or_else(|| panic!("no code is called {name}"));
        assert_eq!(retry, yes_or_no(code.is_retriable()), "{name}: retry");
        assert_eq!(known, yes_or_no(code.outcome_is_known()), "{name}: outcome known");
        assert_eq!(*status, code_name(code.grpc_code()), "{name}: gRPC status");
    }
    assert!(codes.is_empty(), "not on the page: {:?}", codes.keys());
}

#[test]
fn of_each_status_the_page_names_the_codes_that_come_with_it() {
    let mut said = rows("## gRPC statuses", STATUSES);
    for number in 0..=16 {
        let status = Code::from_i32(number);
        let name = format!("{} ({number})", code_name(status));
        let [_, codes, ..] = said.remove(&name).unwrap_or_else(|| panic!("{name} is not on the page"));
        let codes: BTreeSet<_> = codes.split(", ").filter(|code| *code != "none").map(ToOwned::to_owned).collect();
        let with_it = declared().into_iter().filter(|code| code.grpc_code() == status);
        assert_eq!(codes, with_it.map(|code| code.reason().to_owned()).collect(), "{name}");
    }
    assert!(said.is_empty(), "no gRPC statuses: {:?}", said.keys());
}
