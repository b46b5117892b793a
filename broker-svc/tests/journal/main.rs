//! The journal over a disk that loses, tears, lies and fills up.

mod crash;
mod damage;
mod failing_disk;
mod faults;
mod indexes;
mod inspect;
mod operations;
mod outline;
mod overlay;
mod recycling;
mod retention;
mod round_trip;
mod snapshots;
mod support;
mod tail;
