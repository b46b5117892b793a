//! The pages that are made from the code say what the code says. `WRITE_DOCS=1 cargo test -p oncelog-docs` writes them anew.

use std::{env, fs};

use oncelog_docs::{
    api, configuration,
    page::{Page, root},
};

#[test]
fn the_page_of_settings_is_made_from_the_parsers() {
    compare("docs/configuration.md", &configuration::page());
}

#[test]
fn the_page_of_the_contract_is_made_from_the_protobuf_files() {
    compare("docs/api.md", &api::page());
}

fn compare(path: &str, should: &str) {
    if env::var_os("WRITE_DOCS").is_some() {
        fs::write(root().join(path), should).expect("it can be written");
        return;
    }
    let page = Page::read(path);
    let differ = page.text.lines().zip(should.lines()).zip(1..).find(|((says, should), _)| says != should);
    if let Some(((says, should), line)) = differ {
        panic!("{path}:{line} says\n  {says}\nand should say\n  {should}\n{REMEDY}");
    }
    assert_eq!(page.text.len(), should.len(), "{path} ends too early or too late. {REMEDY}");
}

const REMEDY: &str = "Write it anew by: WRITE_DOCS=1 cargo test -p oncelog-docs --test generated";
