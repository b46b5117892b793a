//! `oncelog demo` on a terminal: a pseudo-terminal whose other end this test holds, and reads as a screen would.

use std::{
    fs::File,
    io::Read,
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

struct Shown {
    child: Child,
    screen: File,
    seen: Vec<u8>,
    _temporary: tempfile::TempDir,
}

impl Shown {
    /// Reads until `what` was seen, or to the end.
    fn read_until(&mut self, what: Option<&str>) {
        let mut part = [0; 4096];
        while what.is_none_or(|what| !String::from_utf8_lossy(&self.seen).contains(what)) {
            match self.screen.read(&mut part) {
                Ok(count) if count > 0 => self.seen.extend_from_slice(&part[..count]),
                // That the other end was closed is told as an error.
                _ => return,
            }
        }
    }

    /// The exit code, and all that was seen.
    fn end(mut self) -> (Option<i32>, String) {
        self.read_until(None);
        (self.child.wait().expect("it ends").code(), String::from_utf8_lossy(&self.seen).into_owned())
    }
}

/// Starts `oncelog demo` on a terminal of 30 rows and `columns`.
fn demo(columns: u16, args: &[&str], environment: &[(&str, &str)]) -> Shown {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    tcsetwinsize(&master, Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let terminal = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("the other end");
    let temporary = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
    command.arg("demo").args(args).env("TMPDIR", temporary.path()).env_remove("NO_COLOR").env("LC_ALL", "C.UTF-8");
    command.env("TERM", "xterm-256color").envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(terminal).stderr(Stdio::null());
    let child = command.spawn().expect("it can be started");
    // With the command goes the last copy of the other end here: reading ends when the child does.
    Shown { child, screen: File::from(master), seen: Vec::new(), _temporary: temporary }
}

/// How wide a line is: without what moves the cursor and colours.
fn width(line: &str) -> usize {
    let mut chars = line.chars();
    let mut width = 0;
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => {
                chars.by_ref().skip(1).find(char::is_ascii_alphabetic);
            }
            '\r' => {}
            _ => width += 1,
        }
    }
    width
}

#[test]
fn it_is_redrawn_in_place_within_the_width_of_the_terminal_and_the_verdict_stays() {
    for columns in [60, 120] {
        let (code, screen) = demo(columns, &["--seed=7", "--duration=4s"], &[]).end();
        assert_eq!(code, Some(0), "{screen:?}");
        assert_eq!((screen.matches(HIDDEN).count(), screen.matches(THERE).count()), (1, 1), "{screen:?}");
        assert!(screen.matches("A\r").count() > 10, "it goes up to the first line again and again: {screen:?}");
        assert!(screen.contains("\u{1b}[1m") || screen.contains("\u{1b}[3"), "it is coloured: {screen:?}");
        let (pictures, verdict) = screen.split_once(THERE).expect("seen above");
        for line in pictures.lines() {
            assert!(width(line) <= usize::from(columns), "{columns} columns: {line:?}");
        }
        assert!(verdict.contains("EXACTLY ONCE") && !verdict.contains("A\r"), "{verdict:?}");
    }
}

#[test]
fn without_colour_nothing_is_coloured() {
    let (code, screen) = demo(100, &["--seed=7", "--duration=2s"], &[("NO_COLOR", "1")]).end();
    assert_eq!(code, Some(0), "{screen:?}");
    let is_colour = |rest: &&str| rest.chars().find(char::is_ascii_alphabetic) == Some('m');
    assert_eq!(screen.split('\u{1b}').skip(1).filter(is_colour).count(), 0, "{screen:?}");
    assert!(screen.matches("A\r").count() > 5, "{screen:?}");
}

#[test]
fn the_cursor_comes_back_whoever_asks_for_the_end() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut shown = demo(100, &["--duration=100s"], &[]);
        shown.read_until(Some(HIDDEN));
        kill_process(Pid::from_child(&shown.child), signal).expect("it runs");
        let (code, screen) = shown.end();
        assert_eq!(code, Some(130), "{signal:?}: {screen:?}");
        assert_eq!(screen.matches(THERE).count(), 1, "{signal:?}: {screen:?}");
    }
}

const ROWS: u16 = 30;
/// The cursor.
const HIDDEN: &str = "\u{1b}[?25l";
const THERE: &str = "\u{1b}[?25h";
