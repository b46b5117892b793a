//! Everything that reads bytes from outside, under arbitrary bytes: it may refuse them, and nothing else. It never panics, never
//! takes more memory than its limits say, and what it accepts is what it means.
//!
//! Each module is one target: `run` takes the fuzzer's bytes. `cargo test -p oncelog-fuzz` replays what is kept in `corpus/`, one
//! folder for each target; `fuzz/ci.sh` fuzzes.
//!
//! | target | reads |
//! |---|---|
//! | [`produce_request`] | a `Produce`, from bytes to what the broker judges |
//! | [`broker_calls`] | any calls of the broker, one after the other, with crashes in between |
//! | [`send_request`] | a `Send`; what the producer lets in, the broker takes |
//! | [`broker_answers`] | what the producer hears from the broker |
//! | [`grpc_timeout`] | the header with a caller's deadline |
//! | [`records`] | encoded records: the walk that counts them, and the decoder |
//! | [`packed_records`] | packed records with their claims |
//! | [`compressions`] | compressed data, bombs among it |
//! | [`properties`] | `producer.properties` |
//! | [`journal_files`] | the files of a journal: segments, indexes, snapshots, `FORMAT` |
//! | [`snapshot`] | the state in a snapshot |

pub mod broker_answers;
pub mod broker_calls;
pub mod compressions;
pub mod grpc_timeout;
pub mod journal_files;
pub mod packed_records;
pub mod produce_request;
pub mod properties;
pub mod records;
pub mod send_request;
pub mod snapshot;

mod checksums;
mod directory;

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    ("broker_answers", broker_answers::run),
    ("broker_calls", broker_calls::run),
    ("compressions", compressions::run),
    ("grpc_timeout", grpc_timeout::run),
    ("journal_files", journal_files::run),
    ("packed_records", packed_records::run),
    ("produce_request", produce_request::run),
    ("properties", properties::run),
    ("records", records::run),
    ("send_request", send_request::run),
    ("snapshot", snapshot::run),
];

/// Above this nothing is unpacked: the limit itself, 64 MiB, has its own tests, and a fuzzer that only makes bombs finds nothing
/// else.
const UNPACKED_BYTES: u64 = 1 << 20;

/// The chunks of a snapshot as a broker writes it, for a corpus to begin with.
///
/// # Panics
/// Never: the journal is sound.
pub fn sound_snapshot() -> Vec<Vec<u8>> {
    let disk = broker_svc::journal::sim_disk::SimDisk::new();
    for (name, file) in directory::FILES.iter() {
        disk.set_content(name, file.clone());
    }
    directory::open(&disk, 9).expect("a sound directory").1.to_chunks()
}
