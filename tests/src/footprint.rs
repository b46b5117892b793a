//! Everything a broker holds: topics, partitions, offsets, bytes, producers, epochs, sequences.

use oncelog_proto::v1;
use tonic::Status;

use crate::lone_broker::Client;

/// What is told of all topics and all producers.
#[derive(Clone, Debug, PartialEq)]
pub struct Footprint {
    topics: v1::DescribeTopicsResponse,
    producers: v1::DescribeProducersResponse,
}

impl Footprint {
    /// Asks for it.
    ///
    /// # Errors
    /// The broker does not say.
    pub async fn of(client: &mut Client) -> Result<Self, Status> {
        let topics = client.describe_topics(v1::DescribeTopicsRequest::default()).await?.into_inner();
        let producers = client.describe_producers(v1::DescribeProducersRequest::default()).await?.into_inner();
        Ok(Self { topics, producers })
    }
}
