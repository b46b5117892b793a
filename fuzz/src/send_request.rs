//! A `Send`: the bytes are the message.

use oncelog_proto::{RecordCount, record_set, v1::SendRequest};
use producer_svc::wire;
use prost::Message;

/// What the producer lets in, the broker takes: a record that passes here and fails there would be tried for ever.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let Ok(request) = SendRequest::decode(bytes) else { return };
    match wire::send(&request, MAX_REQUEST_SIZE) {
        Err(fault) => drop(fault.to_status()),
        Ok(()) => {
            let count = RecordCount::of_len(request.records.len()).expect("a request has records");
            record_set::verify(&record_set::encode(&request.records), count).expect("the broker takes what was let in");
        }
    }
}

const MAX_REQUEST_SIZE: usize = 2_000;
