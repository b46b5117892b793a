//! Commands that install: run to their end, and what a failed one said.

use std::{fmt::Display, fs, io, path::Path, process::Command};

use super::Missing;

/// Runs `command` and returns what it said on stdout and stderr.
///
/// # Errors
/// It is not there, or fails.
pub(super) fn finish(command: &mut Command) -> Result<String, Missing> {
    let tried = shown(command);
    match command.output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
            if output.status.success() { Ok(said) } else { Err(missing(&tried, &end_of(&said))) }
        }
        Err(error) => Err(missing(&tried, &error)),
    }
}

/// Makes `directory` with `fill`, whole or not at all: what was begun and not finished is begun anew the next time.
///
/// # Errors
/// `fill` fails, or the file system does.
pub(super) fn once(directory: &Path, fill: impl FnOnce(&Path) -> Result<(), Missing>) -> Result<(), Missing> {
    if directory.is_dir() {
        return Ok(());
    }
    let unfinished = directory.with_extension("unfinished");
    if unfinished.is_dir() {
        fs::remove_dir_all(&unfinished).map_err(|error| unusable(&unfinished, &error))?;
    }
    fs::create_dir_all(&unfinished).map_err(|error| unusable(&unfinished, &error))?;
    fill(&unfinished)?;
    fs::rename(&unfinished, directory).map_err(|error| unusable(directory, &error))
}

/// A file or directory of the tools that cannot be used.
pub(super) fn unusable(path: &Path, error: &io::Error) -> Missing {
    missing(&path.display(), error)
}

/// What was `tried`, and what it `said`.
pub(super) fn missing(tried: &impl Display, said: &impl Display) -> Missing {
    Missing(format!("{tried}: {said}"))
}

fn shown(command: &Command) -> String {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The last lines: there a package manager says what was wrong.
fn end_of(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

const LINES_SHOWN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_tells_what_was_tried_and_what_it_said() {
        let Missing(why) = finish(Command::new("sh").args(["-c", "echo no such package >&2; exit 3"])).unwrap_err();
        assert_eq!(why, "sh -c echo no such package >&2; exit 3: no such package");
    }

    #[test]
    fn a_command_that_is_not_there_is_missing() {
        let Missing(why) = finish(&mut Command::new("no-such-command-here")).unwrap_err();
        assert!(why.starts_with("no-such-command-here: "), "{why}");
    }

    #[test]
    fn what_failed_halfway_is_filled_again_and_what_is_there_is_left() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("tool");
        let failed = once(&directory, |unfinished| {
            fs::write(unfinished.join("half"), "").unwrap();
            Err(missing(&"it", &"no"))
        });
        assert!(failed.is_err() && !directory.exists());

        once(&directory, |unfinished| {
            assert!(!unfinished.join("half").exists());
            fs::write(unfinished.join("whole"), "").unwrap();
            Ok(())
        })
        .unwrap();
        assert!(directory.join("whole").exists());

        once(&directory, |_| panic!("it is there already")).unwrap();
    }
}
