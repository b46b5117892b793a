//! Java's properties syntax, as `java.util.Properties` reads it, in UTF-8.
//!
//! One difference on purpose: Java lets the last of two equal keys win, here the second one is an error.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// A value and the line on which its key stands, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) value: String,
    pub(super) line: usize,
}

/// Reads a whole file.
///
/// # Errors
/// Every malformed escape and every repeated key, each with its line.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Property>, Vec<String>> {
    let mut properties = BTreeMap::<String, Property>::new();
    let mut problems = Vec::new();
    for (line, logical) in logical_lines(text) {
        match split(&logical) {
            Err(problem) => problems.push(format!("line {line}: {problem}")),
            Ok((key, value)) => {
                if let Some(first) = properties.get(&key) {
                    problems.push(format!("line {line}: {key} was set on line {} already; keep one of them", first.line));
                } else {
                    properties.insert(key, Property { value, line });
                }
            }
        }
    }
    if problems.is_empty() { Ok(properties) } else { Err(problems) }
}

/// Joins continued lines and leaves out blank ones and comments. A comment is never continued; a line that continues another
/// is never a comment.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = Vec::new();
    let mut natural = unified.split('\n').enumerate();
    while let Some((index, first)) = natural.next() {
        let first = first.trim_start_matches(BLANK);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            let Some((_, next)) = natural.next() else { break };
            logical.push_str(next.trim_start_matches(BLANK));
        }
        lines.push((index + 1, logical));
    }
    lines
}

/// An even number of backslashes at the end stands for half as many backslashes.
fn ends_in_continuation(line: &str) -> bool {
    line.chars().rev().take_while(|&c| c == '\\').count() % 2 == 1
}

/// The key ends at the first `=`, `:` or blank that is not escaped; blanks around it, and one `=` or `:`, belong to neither.
fn split(logical: &str) -> Result<(String, String), String> {
    let mut rest = logical.chars().peekable();
    let mut key = String::new();
    while let Some(c) = rest.next_if(|c| !matches!(c, '=' | ':') && !BLANK.contains(c)) {
        key.push(if c == '\\' { unescape(&mut rest)? } else { c });
    }
    skip_blanks(&mut rest);
    if rest.next_if(|c| matches!(c, '=' | ':')).is_some() {
        skip_blanks(&mut rest);
    }
    let mut value = String::new();
    while let Some(c) = rest.next() {
        value.push(if c == '\\' { unescape(&mut rest)? } else { c });
    }
    Ok((key, value))
}

fn skip_blanks(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| BLANK.contains(c)).is_some() {}
}

/// What follows a backslash. One that is followed by nothing was the end of the file, and stands for nothing.
fn unescape(rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    Ok(match rest.next() {
        Some('t') => '\t',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('f') => '\u{c}',
        Some('u') => unicode(rest)?,
        Some(other) => other,
        None => return Err("a backslash is followed by nothing".to_owned()),
    })
}

/// Four hexadecimal digits name a UTF-16 code unit; above U+FFFF there are two of them in two escapes.
fn unicode(rest: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    let malformed = || "\\u needs four hexadecimal digits, and a surrogate its other half".to_owned();
    let unit = |rest: &mut Peekable<Chars<'_>>| {
        let digits: String = rest.by_ref().take(4).collect();
        let valid = digits.len() == 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
        valid.then(|| u16::from_str_radix(&digits, 16).ok()).flatten()
    };
    let first = unit(rest).ok_or_else(malformed)?;
    let mut units = vec![first];
    if (0xd800..0xdc00).contains(&first) {
        let escaped = rest.next() == Some('\\') && rest.next() == Some('u');
        units.push(escaped.then(|| unit(rest)).flatten().ok_or_else(malformed)?);
    }
    char::decode_utf16(units).next().and_then(Result::ok).ok_or_else(malformed)
}

/// Space, tab and form feed.
const BLANK: [char; 3] = [' ', '\t', '\u{c}'];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).expect("valid").into_iter().map(|(key, property)| (key, property.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{text:?}: {all:?}");
        all.remove(0)
    }

    #[test]
    fn every_separator_ends_a_key() {
        for text in ["acks=all", "acks:all", "acks all", "acks = all", "  acks\t:\u{c} all", "acks\tall", "acks  =all"] {
            assert_eq!(one(text), ("acks".to_owned(), "all".to_owned()), "{text:?}");
        }
        assert_eq!(one("a==b"), ("a".to_owned(), "=b".to_owned()));
        assert_eq!(one("a = : b"), ("a".to_owned(), ": b".to_owned()));
        assert_eq!(one("a"), ("a".to_owned(), String::new()));
        assert_eq!(one("a="), ("a".to_owned(), String::new()));
    }

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        assert_eq!(read("# a=1\n! b=2\n\n   \t# c=3\n"), []);
        // A comment is not continued.
        assert_eq!(one("# a \\\nb=2"), ("b".to_owned(), "2".to_owned()));
        // A value may hold what starts a comment elsewhere.
        assert_eq!(one("a=1 # no comment"), ("a".to_owned(), "1 # no comment".to_owned()));
    }

    #[test]
    fn an_odd_number_of_backslashes_continues_a_line() {
        assert_eq!(one("a=1,\\\n   2,\\\r\n\t3"), ("a".to_owned(), "1,2,3".to_owned()));
        assert_eq!(one("a=1\\\n#2"), ("a".to_owned(), "1#2".to_owned()));
        assert_eq!(read("a=1\\\\\nb=2"), [("a".to_owned(), "1\\".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(one("a=1\\"), ("a".to_owned(), "1".to_owned()));
    }

    #[test]
    fn escapes_stand_for_what_java_says() {
        assert_eq!(one(r"a\ b\=c=x\:y"), ("a b=c".to_owned(), "x:y".to_owned()));
        assert_eq!(one(r"a=\t\n\r\f\\\q"), ("a".to_owned(), "\t\n\r\u{c}\\q".to_owned()));
        assert_eq!(one(r"a=\u00e4\ud83d\ude00ö"), ("a".to_owned(), "ä😀ö".to_owned()));
        for bad in [r"a=\u12", r"a=\u12g4", r"a=\ud83d", r"a=\ud83d\u0041", r"a=\ude00", r"a=\u+123"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn problems_name_their_lines() {
        let problems = parse("a=1\n\nb=\\u1\\\nc\na=2").expect_err("two problems");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("line 3: "), "{problems:?}");
        assert!(problems[1].starts_with("line 5: a was set on line 1"), "{problems:?}");
    }

    #[test]
    fn lines_are_counted_from_one_across_line_ends_of_every_kind() {
        let properties = parse("a=1\rb=2\r\nc=3\nd=4").expect("valid");
        let lines: Vec<_> = properties.values().map(|p| p.line).collect();
        assert_eq!(lines, [1, 2, 3, 4]);
    }
}
