//! `ProducerService`: what callers reach.
//!
//! | module | owns |
//! |---|---|
//! | [`admission`] | the way of a request from the wire to the session: checks, partitions, memory, hand-over |
//! | [`outcome`] | what a caller is told of the outcomes of its records |
//! | [`stamp`] | the trace context in the headers of records |
//! | [`stream`] | `SendStream`: many requests under way, answers in order |

mod admission;
mod outcome;
mod stamp;
mod stream;

use oncelog_edge::security::access::Access;
use oncelog_proto::{
    TraceContext,
    v1::{
        SendRequest, SendResponse, SendStreamRequest,
        producer_service_server::{ProducerService, ProducerServiceServer},
    },
};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use admission::{Admission, Stamping, check};
use outcome::Failure;

/// The service, over an admission.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    admission: Admission,
    access: Access,
}

/// The service as the server takes it. It decodes messages up to [`Admission::max_message_bytes`].
pub(crate) fn service(admission: Admission, access: Access) -> ProducerServiceServer<Rpc> {
    let limit = admission.max_message_bytes();
    ProducerServiceServer::new(Rpc { admission, access }).max_decoding_message_size(limit)
}

#[tonic::async_trait]
impl ProducerService for Rpc {
    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let (_, arrived, request) = request.into_parts();
        let rights = self.access.rights(&arrived)?;
        let count = request.records.len();
        let trace = arrived.get::<TraceContext>().copied();
        // From here on the records live on even if this future is dropped at the caller's deadline.
        let admitted = self.admission.admit(request, &rights, trace).await;
        // As long as they waited, they were still on their way in.
        drop(arrived);
        let sent = match admitted {
            Ok(outcomes) => outcome::sent(outcomes.await.ok().as_deref(), count),
            Err(fault) => Err(Failure::not_taken_in(fault, count)),
        };
        sent.map(Response::new).map_err(|failure| failure.to_status())
    }

    type SendStreamStream = stream::Answers;

    async fn send_stream(
        &self,
        request: Request<Streaming<SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        let rights = self.access.rights(request.extensions())?;
        Ok(Response::new(stream::serve(self.admission.clone(), rights, request.into_inner())))
    }
}
