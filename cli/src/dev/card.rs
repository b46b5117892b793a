//! What to try next: lines for a shell, to be copied as they are. A test runs them as they are.

use std::net::SocketAddr;

/// The lines, for services that listen at these addresses.
pub(super) fn card(producer: SocketAddr, broker: SocketAddr) -> String {
    let send = "oncelog.v1.ProducerService/Send";
    let service = "oncelog.v1.BrokerService";
    format!(
        r#"# Send a record (in JSON, bytes are base64), and read the topic.
grpcurl -plaintext -d '{{"topic":"orders","records":[{{"key":"b3JkZXItMQ==","value":"aGVsbG8="}}]}}' {producer} {send}
grpcurl -plaintext -d '{{"topic":"orders"}}' {broker} {service}/Fetch

# The protocol by hand: get a producer id, and produce the same batch twice. The second answer says "duplicate": true.
ID=$(grpcurl -plaintext -emit-defaults {broker} {service}/InitProducerId | sed -n 's/.*"producerId": *"\([0-9]*\)".*/\1/p')
grpcurl -plaintext -d '{{"producerId":'$ID',"batches":[{{"topic":"payments","records":[{{"value":"aGVsbG8="}}]}}]}}' {broker} {service}/Produce
grpcurl -plaintext -d '{{"producerId":'$ID',"batches":[{{"topic":"payments","records":[{{"value":"aGVsbG8="}}]}}]}}' {broker} {service}/Produce

# A gap is refused, with the sequence that is expected.
grpcurl -plaintext -d '{{"producerId":'$ID',"batches":[{{"topic":"payments","baseSequence":7,"records":[{{"value":"aGVsbG8="}}]}}]}}' {broker} {service}/Produce

# Volume: a record a line, in and out.
seq 100000 | oncelog send numbers --producer http://{producer}
oncelog fetch numbers --broker http://{broker} | tail -3
"#
    )
}
