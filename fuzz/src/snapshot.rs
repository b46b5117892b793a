//! The state in a snapshot: the bytes are a chunk.

use broker_svc::state::State;

/// A chunk is refused, or makes a state that can be told, and written, and read back as it was.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let Ok(state) = State::from_chunks([bytes]) else { return };
    for topic in state.topic_names() {
        let described = state.describe_topic(&topic).expect("it was named");
        assert!(!described.partitions.is_empty(), "{topic} has partitions");
    }
    drop(state.describe_producers(None, None, None, 1_000));
    let again = State::from_chunks(state.to_chunks()).expect("it was written here");
    assert_eq!(again, state);
}
