//! Plays the conversations of `proto/transcripts` (their language is described there) with a broker.
//!
//! [`pure`] is the state machine alone, driven by hand; [`live`] a broker process over gRPC. Both take the messages of the
//! contract, so both pass through the same parsing.

pub mod live;
pub mod pure;
mod request;
mod text;

use std::fmt::Write as _;

use request::parse;
pub use request::{Call, Request};
pub use text::code_name;

/// One block of a transcript.
#[derive(Debug)]
struct Block<'a> {
    line: usize,
    request: &'a str,
    answer: Vec<&'a str>,
}

/// A broker that can be conversed with. Answers are text, as in the transcripts.
pub trait Broker {
    /// Plays a request other than `broker`; returns the lines of the answer.
    fn play(&mut self, request: Request) -> Vec<String>;
}

/// Settings of the first block: `broker key=value …`.
pub type Settings = Vec<(String, String)>;

/// Plays `transcript` with the broker that `start` makes from its settings.
///
/// # Panics
/// An answer is another than the transcript says; the message has the line and both.
pub fn play<B: Broker>(name: &str, transcript: &str, start: impl FnOnce(&Settings) -> B) {
    let mut blocks = blocks(transcript).into_iter().peekable();
    let settings = match blocks.next_if(|block| block.request.starts_with("broker ")) {
        Some(block) => block.request.split_whitespace().skip(1).map(text::setting).collect(),
        None => Settings::new(),
    };
    let mut broker = start(&settings);
    for Block { line, request, answer } in blocks {
        let parsed = parse(request).unwrap_or_else(|error| panic!("{name}:{line}: {request}: {error}"));
        let actual = broker.play(parsed);
        if actual != answer {
            let mut message = format!("{name}:{line}: {request}\n--- the transcript says\n");
            answer.iter().for_each(|line| writeln!(message, "{line}").expect("a string grows"));
            message.push_str("--- the broker says\n");
            actual.iter().for_each(|line| writeln!(message, "{line}").expect("a string grows"));
            panic!("{message}");
        }
    }
}

fn blocks(transcript: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut in_answer = false;
    for (line, text) in (1..).zip(transcript.lines()) {
        match text.trim_end() {
            "" => in_answer = false,
            "----" => in_answer = true,
            comment if comment.starts_with('#') => {}
            answer if in_answer => blocks.last_mut().expect("a request comes first").answer.push(answer),
            request => blocks.push(Block { line, request, answer: Vec::new() }),
        }
    }
    blocks
}
