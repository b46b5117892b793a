//! Hands everything on to a sink and its answers back: the two hops of a record, and nothing else.

use std::{net::SocketAddr, pin::Pin};

use oncelog_proto::v1::{self, producer_service_client::ProducerServiceClient, producer_service_server::ProducerService};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::calls;

/// One connection to the sink, as producer-svc has one to the broker.
#[derive(Clone, Debug)]
pub(super) struct Relay {
    sink: ProducerServiceClient<Channel>,
}

impl Relay {
    pub(super) async fn connect(to: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { sink: ProducerServiceClient::new(calls::connect(to).await?) })
    }
}

#[tonic::async_trait]
impl ProducerService for Relay {
    type SendStreamStream = Pin<Box<dyn Stream<Item = Result<v1::SendStreamResponse, Status>> + Send>>;

    async fn send(&self, request: Request<v1::SendRequest>) -> Result<Response<v1::SendResponse>, Status> {
        let answer = self.sink.clone().send(request.into_inner()).await?;
        Ok(Response::new(answer.into_inner()))
    }

    async fn send_stream(
        &self,
        request: Request<Streaming<v1::SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        // A request that breaks ends the stream on: the sink answers what it has, and the caller hears the end.
        let requests = request.into_inner().map_while(Result::ok);
        let answers = self.sink.clone().send_stream(requests).await?;
        Ok(Response::new(Box::pin(answers.into_inner())))
    }
}
