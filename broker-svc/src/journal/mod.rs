//! The journal: everything that ever changed what the broker knows, on disk, in order.
//!
//! Entries are committed in groups: one write, one sync, and then the group is durable and readable. A group is whole or it is
//! cut, and nothing of a cut group was ever acknowledged. Damage to what was durable is never taken for a torn group: it is
//! refused, with file and byte. The state is what comes out of folding the entries, at an opening as well as live (I5), so the
//! journal decides nothing about producers or topics; it keeps.
//!
//! [`open()`] → [`Journal::write`] → [`Journal::sync`] → [`Reader::read`]. `FORMAT.md` describes the files byte by byte.
//!
//! | module | owns |
//! |---|---|
//! | [`disk`] | what is asked of a disk; `real_disk` and [`sim_disk`] answer |
//! | `direct` | writing past the page cache |
//! | `names`, `identity`, `format_file` | which files are the journal's, of which format, and whose |
//! | `position` | where a group ends, in a form that fits no other history |
//! | `entry_codec`, `group_header`, `segment_header` | bytes of an entry, a group, a segment |
//! | `group`, `options` | what is committed at once, and the limits |
//! | `scan`, `tail` | reading groups; where the last segment ends |
//! | `inventory`, `replay`, `open`, `report` | opening: look, decide, fold, and only then change |
//! | `writer`, `new_segment` | writing groups and markers; rolling into a new segment |
//! | `catalog`, `memory_index`, `block`, `index_file` | which batches are where |
//! | `reader` | reading batches |
//! | `inspect`, `outline` | reading everything, and changing nothing; what there is, without reading it all |
//! | `snapshot_writer`, `snapshot_file` | the state, kept |
//! | `retention`, `background`, `reserve`, `room` | what may go; tidying in steps; space for a full disk; how much is left |
//! | `error`, `stats` | what went wrong, how large it is |

pub mod disk;
pub mod sim_disk;

mod background;
mod block;
mod catalog;
mod direct;
mod entry_codec;
mod error;
mod format_file;
mod group;
mod group_header;
mod identity;
mod index_file;
mod inspect;
mod inventory;
mod memory_index;
mod names;
mod new_segment;
mod open;
mod options;
mod outline;
mod position;
mod random;
mod reader;
mod real_disk;
mod replay;
mod report;
mod reserve;
mod retention;
mod room;
mod scan;
mod segment_header;
mod sim_content;
mod snapshot_file;
mod snapshot_writer;
mod stats;
mod tail;
mod varint;
mod writer;

pub use background::{Background, Step};
pub use error::{Fatal, NoSpace, OpenError, ReadError, SnapshotError, WriteError};
pub use group::{Group, GroupDraft};
pub use inspect::{Base, Inspected, Inspection};
pub use open::{Replay, open};
pub use options::{GroupLimit, MARKER_BYTES, Options};
pub use outline::{Outline, SegmentOutline};
pub use position::{GroupNumber, Position};
pub use reader::{Reader, StoredBatch};
pub use real_disk::RealDisk;
pub use report::{Cut, OpenReport, Progress};
pub use retention::Retention;
pub use snapshot_writer::SnapshotWriter;
pub use stats::Stats;
pub use writer::Journal;
