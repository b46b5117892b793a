//! A `Produce`: the bytes are the message.

use broker_svc::{pipeline::Request, wire::parse};
use oncelog_proto::v1::ProduceRequest;
use prost::Message;

use crate::packed_records;

/// A call is refused as a whole, or each of its batches is judged; one that passed holds what it claims.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    let Ok(request) = ProduceRequest::decode(bytes) else { return };
    if parse::unpacked_bytes(&request, MAX_MESSAGE_BYTES) > crate::UNPACKED_BYTES {
        return;
    }
    let count = request.batches.len();
    match parse::produce(request, MAX_MESSAGE_BYTES) {
        Err(fault) => drop(fault.to_status()),
        Ok(Request::Produce { batches, .. }) => {
            assert_eq!(batches.len(), count, "every batch is judged");
            for batch in batches {
                match batch {
                    Ok(arrival) if arrival.packed.data().len() <= MAX_MESSAGE_BYTES => {
                        arrival.packed.verify().expect("it was verified");
                        packed_records::judge(&arrival.packed);
                    }
                    Ok(_) => {}
                    Err(fault) => drop(fault.to_batch_error()),
                }
            }
        }
        Ok(other) => panic!("a Produce became {other:?}"),
    }
}

const MAX_MESSAGE_BYTES: usize = 2_000;
