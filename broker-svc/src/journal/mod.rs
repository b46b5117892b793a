//! stub
/// Group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Time.
    pub time: oncelog_proto::Timestamp,
    /// Entries.
    pub entries: Vec<crate::entry::Entry>,
    /// Payloads.
    pub payloads: Vec<bytes::Bytes>,
}
/// Options.
#[derive(Debug, Default)]
pub struct Options {
    /// x
    pub segment_bytes: u64,
    /// x
    pub snapshot_every_bytes: u64,
}
/// R.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// x
    pub bytes: Option<u64>,
    /// x
    pub age: Option<std::time::Duration>,
}
