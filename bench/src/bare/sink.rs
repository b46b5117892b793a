//! Answers everything at once, as if all had gone well.

use std::{
    pin::Pin,
    sync::atomic::{AtomicI64, Ordering},
};

use futures_util::{Stream, StreamExt};
use oncelog_proto::v1::{
    self, batch_result::Outcome, broker_service_server::BrokerService, produce_stream_response,
    producer_service_server::ProducerService, send_stream_response,
};
use prost_types::Timestamp;
use tonic::{Request, Response, Status, Streaming};

/// Knows nothing but how many producers there were.
#[derive(Debug, Default)]
pub(super) struct Sink {
    producers: AtomicI64,
}

#[tonic::async_trait]
impl BrokerService for Sink {
    type FetchStream = Pin<Box<dyn Stream<Item = Result<v1::FetchResponse, Status>> + Send>>;

    async fn init_producer_id(
        &self,
        _: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        let producer_id = 1 + self.producers.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(v1::InitProducerIdResponse { producer_id, ..v1::InitProducerIdResponse::default() }))
    }

    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        Ok(Response::new(produced(request.get_ref())))
    }

    type ProduceStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ProduceStreamResponse, Status>> + Send>>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let answers = request.into_inner().map(|request| {
            let produced = produced(&request?.produce.unwrap_or_default());
            Ok(v1::ProduceStreamResponse { outcome: Some(produce_stream_response::Outcome::Produced(produced)) })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(not_here())
    }

    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Result<Response<v1::CreateTopicResponse>, Status> {
        Ok(Response::new(v1::CreateTopicResponse { partitions: request.get_ref().partitions }))
    }

    async fn delete_topic(&self, _: Request<v1::DeleteTopicRequest>) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        Err(not_here())
    }

    async fn describe_topics(
        &self,
        _: Request<v1::DescribeTopicsRequest>,
    ) -> Result<Response<v1::DescribeTopicsResponse>, Status> {
        Err(not_here())
    }

    async fn describe_producers(
        &self,
        _: Request<v1::DescribeProducersRequest>,
    ) -> Result<Response<v1::DescribeProducersResponse>, Status> {
        Err(not_here())
    }
}

#[tonic::async_trait]
impl ProducerService for Sink {
    type SendStreamStream = Pin<Box<dyn Stream<Item = Result<v1::SendStreamResponse, Status>> + Send>>;

    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(sent(request.partition, &request.records)))
    }

    async fn send_stream(
        &self,
        request: Request<Streaming<v1::SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        let answers = request.into_inner().map(|request| {
            let request = request?;
            let sent = sent(request.partition, &request.records);
            Ok(v1::SendStreamResponse { outcome: Some(send_stream_response::Outcome::Sent(sent)) })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Each batch is in the log.
fn produced(request: &v1::ProduceRequest) -> v1::ProduceResponse {
    let ack = v1::BatchAck { base_offset: OFFSET, append_time: TIME, duplicate: false };
    let results = request.batches.iter().map(|_| v1::BatchResult { outcome: Some(Outcome::Ack(ack)) }).collect();
    v1::ProduceResponse { results }
}

/// An answer as large as a real one.
fn sent(partition: Option<i32>, records: &[v1::Record]) -> v1::SendResponse {
    let sent = v1::send_response::SentRecord {
        partition: partition.unwrap_or_default(),
        offset: OFFSET,
        append_time: Some(TIME.unwrap_or_default()),
    };
    v1::SendResponse { records: vec![sent; records.len()] }
}

fn not_here() -> Status {
    Status::unimplemented("a sink only takes")
}

const OFFSET: i64 = 1_000_000;
const TIME: Option<Timestamp> = Some(Timestamp { seconds: 1_795_000_000, nanos: 123_456_000 });
