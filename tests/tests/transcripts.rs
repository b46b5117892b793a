//! The conversations of `proto/transcripts`, with the state machine alone and with a broker process.

use std::{fs, path::Path};

use oncelog_tests::transcript::{Broker, Settings, live::ProcessBroker, play, pure::PureBroker};

fn play_all<B: Broker>(start: impl Fn(&Settings) -> B) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/transcripts");
    let mut played = 0;
    for file in fs::read_dir(folder).expect("the transcripts are there") {
        let path = file.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            play(&name, &fs::read_to_string(&path).expect("readable"), &start);
            played += 1;
        }
    }
    assert!(played >= 7, "only {played} transcripts found");
}

#[test]
fn the_state_machine_answers_as_the_transcripts_say() {
    play_all(PureBroker::start);
}

#[test]
fn a_broker_process_answers_as_the_transcripts_say() {
    play_all(ProcessBroker::start);
}
