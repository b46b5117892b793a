//! The journal over a disk that loses, tears, lies and fills up.

mod crash;
mod faults;
mod indexes;
mod inspect;
mod recycling;
mod retention;
mod round_trip;
mod snapshots;
mod support;
mod tail;
