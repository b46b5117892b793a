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
