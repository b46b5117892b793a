//! The names of the files in a journal's directory. Numbers are padded, so that a listing by name is a listing by age.

use std::fmt;

/// A file of the journal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileName {
    /// Held locked by the process that has the journal open.
    Lock,
    /// What the directory is: format, cluster, incarnation.
    Format,
    /// Space kept back for the day when the disk is full.
    Ballast,
    /// A segment by its number.
    Segment(u64),
    /// The index of a sealed segment.
    Index(u64),
    /// The state after the group that ends at this byte of this segment.
    Snapshot(u64, u64),
    /// A file of zeros that will be a segment.
    Spare(u64),
    /// A segment that is no longer part of the log and is being deleted.
    Trimmed(u64),
    /// What stood behind the cut at this byte of this segment.
    Torn(u64, u64),
    /// A file that was not finished under its name.
    Aside(String),
}

impl FileName {
    /// None if the file is none of the journal's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok();
        let pair = |text: &str| text.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let parsed = match name {
            "LOCK" => Some(Self::Lock),
            "FORMAT" => Some(Self::Format),
            "BALLAST" => Some(Self::Ballast),
            _ => None,
        }
        .or_else(|| Some(Self::Aside(name.strip_suffix(ASIDE)?.to_owned())))
        .or_else(|| number(name.strip_suffix(".log")?).map(Self::Segment))
        .or_else(|| number(name.strip_suffix(".idx")?).map(Self::Index))
        .or_else(|| number(name.strip_suffix(".trimmed")?).map(Self::Trimmed))
        .or_else(|| number(name.strip_prefix("spare-")?).map(Self::Spare))
        .or_else(|| pair(name.strip_prefix("snap-")?).map(|(segment, byte)| Self::Snapshot(segment, byte)))
        .or_else(|| pair(name.strip_prefix("torn-")?).map(|(segment, byte)| Self::Torn(segment, byte)))?;
        // A number in another form is another name: it is not ours.
        let ours = match &parsed {
            Self::Aside(of) => Self::parse(of).is_some(),
            _ => parsed.to_string() == name,
        };
        ours.then_some(parsed)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("LOCK"),
            Self::Format => f.write_str("FORMAT"),
            Self::Ballast => f.write_str("BALLAST"),
            Self::Segment(number) => write!(f, "{number:020}.log"),
            Self::Index(number) => write!(f, "{number:020}.idx"),
            Self::Snapshot(segment, byte) => write!(f, "snap-{segment:020}-{byte:020}"),
            Self::Spare(number) => write!(f, "spare-{number:020}"),
            Self::Trimmed(number) => write!(f, "{number:020}.trimmed"),
            Self::Torn(segment, byte) => write!(f, "torn-{segment:020}-{byte:020}"),
            Self::Aside(name) => write!(f, "{name}{ASIDE}"),
        }
    }
}

/// The name of a file as long as it is not finished.
pub(super) fn aside(name: &str) -> String {
    FileName::Aside(name.to_owned()).to_string()
}

/// What the name of an unfinished file ends with.
pub(super) const ASIDE: &str = ".unfinished";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let names = [
            FileName::Lock,
            FileName::Format,
            FileName::Ballast,
            FileName::Segment(1),
            FileName::Index(u64::MAX),
            FileName::Snapshot(3, 4096),
            FileName::Spare(0),
            FileName::Trimmed(7),
            FileName::Torn(5, 8192),
            FileName::Aside(FileName::Segment(9).to_string()),
        ];
        for name in names {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in ["lost+found", "1.log", "snap-1-2", "x.unfinished", "00000000000000000001.log.gz", ".log", "spare-"] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}
