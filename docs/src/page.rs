//! Just enough of Markdown for what is tested: fenced blocks, links, the anchors of headings, and tables.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A Markdown file.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is, from the top of the repository.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of its opening fence, from 1.
    pub line: usize,
    /// The first word behind the fence.
    pub language: String,
    /// What follows it there.
    pub remark: String,
    /// What stands between the fences.
    pub text: String,
}

/// A link, or a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its line, from 1.
    pub line: usize,
    /// Where it leads, as it is written.
    pub target: String,
}

impl Page {
    /// Reads a page by its path from the top of the repository.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path, text }
    }

    /// Every page of the repository, by path.
    pub fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        find(&root(), &mut paths);
        paths.sort();
        let top = root();
        paths.iter().map(|path| Self::read(path.strip_prefix(&top).expect("found below it"))).collect()
    }

    /// The fenced blocks, in order.
    ///
    /// # Panics
    /// If one does not end.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines().zip(1..);
        while let Some((opening, line)) = lines.next() {
            let Some(info) = opening.strip_prefix("```") else { continue };
            let info = info.trim();
            let (language, remark) = info.split_once(' ').unwrap_or((info, ""));
            let mut block = Block { line, language: language.to_owned(), remark: remark.trim().to_owned(), text: String::new() };
            loop {
                let (inside, _) =
                    lines.next().unwrap_or_else(|| panic!("{}:{line}: the block does not end", self.path.display()));
                if inside.starts_with("```") {
                    break;
                }
                block.text += inside;
                block.text.push('\n');
            }
            blocks.push(block);
        }
        blocks
    }

    /// The links, in order.
    pub fn links(&self) -> Vec<Link> {
        let found = |(text, line): (String, usize)| {
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            targets.map(|(target, _)| Link { line, target: target.to_owned() }).collect::<Vec<_>>()
        };
        self.prose().flat_map(|(line, number)| found((without_code(line), number))).collect()
    }

    /// What the part behind `#` may be in a link to this page: one for each heading, as GitHub makes them.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut anchors = BTreeSet::new();
        for (line, _) in self.prose() {
            let heading = line.trim_start_matches('#');
            if heading.len() == line.len() || !heading.starts_with(' ') {
                continue;
            }
            let anchor = anchor(heading.trim());
            let numbered = (1..).map(|number| format!("{anchor}-{number}"));
            let free = std::iter::once(anchor.clone()).chain(numbered).find(|name| !anchors.contains(name));
            anchors.extend(free);
        }
        anchors
    }

    /// The rows of the table under a heading, cell by cell, without backticks; the head and the line below it come first.
    ///
    /// # Panics
    /// If there is no such heading.
    pub fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let mut section = self.text.lines().skip_while(|line| *line != heading).skip(1).peekable();
        assert!(section.peek().is_some(), "{}: there is no heading {heading:?}", self.path.display());
        let section = section.take_while(|line| !line.starts_with("## "));
        let cells = |line: &str| -> Option<Vec<String>> {
            let row = line.strip_prefix('|')?.strip_suffix('|')?;
            Some(row.split('|').map(|cell| cell.trim().replace('`', "")).collect())
        };
        section.filter_map(cells).collect()
    }

    /// Lines outside of fenced blocks, with their numbers.
    fn prose(&self) -> impl Iterator<Item = (&str, usize)> {
        let mut in_block = false;
        self.text.lines().zip(1..).filter(move |(line, _)| {
            let fence = line.starts_with("```");
            in_block ^= fence;
            !in_block && !fence
        })
    }
}

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The anchor that GitHub gives to a heading.
pub fn anchor(heading: &str) -> String {
    // Of a link only its text counts.
    let mut text = String::new();
    let mut rest = heading;
    while let Some((before, behind)) = rest.split_once("](") {
        text += before;
        rest = behind.split_once(')').map_or("", |(_, rest)| rest);
    }
    text += rest;
    let kept = text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ')).collect::<String>();
    kept.replace(' ', "-")
}

/// A line without what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            let is_ours = !name.starts_with('.') && !NOT_OURS.contains(&name.as_str());
            if is_ours {
                find(&path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// Folders of what is built, installed and written by running.
const NOT_OURS: [&str; 7] = ["target", "node_modules", "build", "bench-tools", "bench-data", "bench-report", "oncelog-data"];

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "page.md".into(), text: text.to_owned() }
    }

    #[test]
    fn a_block_has_a_language_and_a_remark_and_is_no_prose() {
        let page = page("# A\n```sh not run: why\n# b\n[x](y)\n```\n[`c`](d) and `[e](f)`\n");
        let block = Block { line: 2, language: "sh".into(), remark: "not run: why".into(), text: "# b\n[x](y)\n".into() };
        assert_eq!(page.blocks(), [block]);
        assert_eq!(page.links(), [Link { line: 6, target: "d".into() }]);
        assert_eq!(page.anchors(), ["a".to_owned()].into());
    }

    #[test]
    fn anchors_are_those_of_github() {
        assert_eq!(anchor("What Kafka does"), "what-kafka-does");
        assert_eq!(anchor("`Send`, and *what* it [means](x.md)!"), "send-and-what-it-means");
        assert_eq!(page("## A\n## A\n#no\n").anchors(), ["a".to_owned(), "a-1".to_owned()].into());
    }

    #[test]
    fn a_table_ends_with_its_section() {
        let rows = page("## T\n\n| a | b |\n|---|---|\n| `1` | 2 |\n\n## U\n| c |\n").table("## T");
        assert_eq!(rows, [vec!["a", "b"], vec!["---", "---"], vec!["1", "2"]]);
    }
}
