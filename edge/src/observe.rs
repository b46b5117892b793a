//! Every call that is answered, counted and, if it is in a trace, recorded.
//!
//! The context comes from the call's metadata, and the handler finds that of the call's own span among the extensions of its
//! request. What is logged while the handler runs carries the ids of the trace.
//!
//! A call ends when its status is known: with its answer, or, where that is a stream, with the trailers behind it. One whose caller
//! went away before is `CANCELLED`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use oncelog_proto::trace::{TRACEPARENT, Traceparent};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{
    metrics::calls::{Calls, Ongoing, is_server_failure, status_name},
    names,
    trace::{Span, Tracer},
};

/// Observes every call of a server.
#[derive(Clone, Debug)]
pub struct ObserveLayer {
    calls: Arc<Calls>,
    tracer: Tracer,
}

impl ObserveLayer {
    /// Counts into `calls` and records with `tracer`.
    pub fn new(calls: Arc<Calls>, tracer: Tracer) -> Self {
        Self { calls, tracer }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, layer: self.clone() }
    }
}

/// A service whose calls are observed.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S, B> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let call = Call::begin(&self.layer, &request);
        if let Some(context) = call.span.context() {
            request.extensions_mut().insert(context);
        }
        Observed { inner: self.inner.call(request), call: Some(call) }
    }
}

/// The answer to a call that is observed.
#[derive(Debug)]
pub struct Observed<F> {
    inner: F,
    call: Option<Call>,
}

impl<F, E> Future for Observed<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let answer = {
            let _logged = this.call.as_ref().and_then(|call| call.log.as_ref()).map(tracing::Span::enter);
            ready!(Pin::new(&mut this.inner).poll(cx))
        };
        let Some(mut call) = this.call.take() else { return Poll::Ready(answer) };
        Poll::Ready(match answer {
            Ok(answer) => match status(answer.headers()) {
                Some(status) => {
                    call.ongoing.set(status);
                    Ok(answer)
                }
                None if call.ongoing.method().streams => Ok(answer.map(|body| Body::new(Ending { body, call }))),
                // The status of an answer that is no stream and no failure stands behind it, and is known.
                None => {
                    call.ongoing.set(Code::Ok);
                    Ok(answer)
                }
            },
            Err(error) => {
                call.ongoing.set(Code::Internal);
                Err(error)
            }
        })
    }
}

/// A call until it ends, which is when this is dropped.
#[derive(Debug)]
struct Call {
    ongoing: Ongoing,
    span: Span,
    /// What is logged within it carries its trace.
    log: Option<tracing::Span>,
}

impl Call {
    fn begin<B>(ObserveLayer { calls, tracer }: &ObserveLayer, request: &Request<B>) -> Self {
        let ongoing = calls.begin(request.uri().path());
        let method = ongoing.method();
        let mut span = Span::none();
        // Probes would be most of all that is recorded.
        if tracer.is_on() && method.name != names::OTHER {
            span = tracer.serve(method.name, traceparent(request.headers()));
            span.set(names::RPC_SYSTEM, names::GRPC);
            span.set(names::RPC_METHOD, method.name);
        }
        let log = span.context().map(|context| {
            tracing::info_span!("call", method = method.name, trace_id = %context.trace_id(), span_id = %context.span_id())
        });
        Self { ongoing, span, log }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (method, code) = (self.ongoing.method().name, self.ongoing.status());
        let status = status_name(code);
        if self.span.is_recorded() {
            self.span.set(names::RPC_STATUS, status);
        }
        if is_server_failure(code) {
            self.span.fail(status);
        }
        let _logged = self.log.as_ref().map(tracing::Span::enter);
        match code {
            // They say that something is wrong here, and not with the call.
            Code::Internal | Code::Unknown | Code::DataLoss => {
                tracing::warn!(method, status, took = ?self.ongoing.took(), "a call failed");
            }
            _ => tracing::debug!(method, status, took = ?self.ongoing.took(), "a call ended"),
        }
    }
}

fn traceparent(headers: &HeaderMap) -> Option<Traceparent> {
    Traceparent::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

fn status(headers: &HeaderMap) -> Option<Code> {
    Status::from_header_map(headers).map(|status| status.code())
}

/// A stream of answers with the status behind it.
struct Ending {
    body: Body,
    call: Call,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(status) {
                    self.call.ongoing.set(status);
                }
            }
            Some(Err(error)) => self.call.ongoing.set(error.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
