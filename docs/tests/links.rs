//! Every relative link of every page leads somewhere, also behind its `#`; and the index of `docs/` names every page there.

use std::path::{Component, Path, PathBuf};

use oncelog_docs::page::{Page, root};

#[test]
fn every_link_leads_somewhere() {
    let pages = Page::all();
    assert!(pages.len() > 10, "the pages are there");
    let mut broken = Vec::new();
    for page in &pages {
        for link in page.links() {
            if let Err(why) = follow(page, &link.target) {
                broken.push(format!("{}:{}: {}: {why}", page.path.display(), link.line, link.target));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn follow(from: &Page, target: &str) -> Result<(), &'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let folder = from.path.parent().unwrap_or_else(|| Path::new(""));
    let path = if path.is_empty() { from.path.clone() } else { within(&folder.join(path)).ok_or("it leaves the repository")? };
    if !root().join(&path).exists() {
        return Err("there is no such file");
    }
    match anchor {
        Some(anchor) if path.extension().is_some_and(|ending| ending == "md") && !Page::read(path).anchors().contains(anchor) => {
            Err("there is no such heading")
        }
        _ => Ok(()),
    }
}

/// The path without `..`. None if it leads out.
fn within(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if !plain.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            other => plain.push(other),
        }
    }
    Some(plain)
}

#[test]
fn a_broken_link_is_found() {
    let page = Page::read("docs/README.md");
    for broken in ["nothing.md", "../README.md#nothing", "#nothing", "../../etc/passwd"] {
        assert!(follow(&page, broken).is_err(), "{broken}");
    }
    for sound in
        ["../README.md", "../README.md#start", "../proto/RULES.md#what-must-always-be-true", "../bench", "https://example.org"]
    {
        assert_eq!(follow(&page, sound), Ok(()), "{sound}");
    }
}

#[test]
fn the_index_names_every_page() {
    let index = Page::read("docs/README.md");
    let named: Vec<_> = index.links().into_iter().map(|link| Path::new("docs").join(link.target)).collect();
    for page in Page::all().into_iter().filter(|page| page.path.parent() == Some(Path::new("docs"))) {
        let is_index = page.path == index.path;
        assert!(is_index || named.contains(&page.path), "docs/README.md does not name {}", page.path.display());
    }
}
