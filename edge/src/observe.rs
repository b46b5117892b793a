//! Every call that is answered, counted and, if it is in a trace, recorded.
//!
//! The context comes from the call's metadata, and the handler finds that of the call's own span among the extensions of its
//! request. What is logged while the handler runs, or its stream of answers, carries the ids of the trace.
//!
//! A call ends when its status is known: with its answer, or, where that is a stream, with the trailers behind it. One whose
//! caller went away before is `CANCELLED`.

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
    telemetry::log,
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
            let _logged = this.call.as_ref().and_then(Call::enter);
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
        let log = span.context().map(|context| log::call(method.name, context));
        Self { ongoing, span, log }
    }

    fn enter(&self) -> Option<tracing::span::Entered<'_>> {
        self.log.as_ref().map(tracing::Span::enter)
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

/// The number alone: the message and the details of a refusal are nothing to whoever counts it.
fn status(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()))
}

const GRPC_STATUS: &str = "grpc-status";

/// A stream of answers with the status behind it.
struct Ending {
    body: Body,
    call: Call,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = {
            let _logged = this.call.enter();
            ready!(Pin::new(&mut this.body).poll_frame(cx))
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(status) {
                    this.call.ongoing.set(status);
                }
            }
            Some(Err(error)) => this.call.ongoing.set(error.code()),
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::log::tests::Written;

    /// Answers are logged about when they are made.
    struct Told(&'static str);

    impl http_body::Body for Told {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            tracing::warn!(target: "broker_svc", "{}", self.0);
            Poll::Ready(None)
        }
    }

    /// What a call in a trace logs, in its handler and in its stream of answers, where `filter` says what is logged.
    async fn logged(filter: &str) -> String {
        let (written, _guard) = Written::under(filter);
        let tracer = Tracer::new(SdkTracerProvider::builder().build().tracer("test"));
        let layer = ObserveLayer::new(Arc::new(Calls::of(&["oncelog.v1.BrokerService"])), tracer);
        let handler = tower::service_fn(|_: Request<()>| {
            Box::pin(async {
                tracing::warn!(target: "broker_svc", "in the handler");
                Ok::<_, Infallible>(Response::new(Body::new(Told("in the stream"))))
            })
        });
        let request = Request::post("/oncelog.v1.BrokerService/Fetch").body(()).expect("a request");
        let answer = layer.layer(handler).oneshot(request).await.expect("answered");
        let mut body = answer.into_body();
        std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
        written.text()
    }

    #[tokio::test]
    async fn what_is_logged_within_a_call_carries_its_trace_whatever_is_filtered() {
        for filter in ["warn", "info", "broker_svc=warn", "off,broker_svc=debug"] {
            let text = logged(filter).await;
            for message in ["in the handler", "in the stream"] {
                let line = text.lines().find(|line| line.contains(message)).expect(filter);
                assert!(line.contains("trace_id") && line.contains("span_id"), "{filter}: {line}");
            }
        }
        assert_eq!(logged("error").await, "", "the span alone is let through, and is no event");
    }

    #[test]
    fn a_status_is_read_by_its_number_alone() {
        let read = |status: Status| super::status(status.into_http::<Body>().headers());
        assert_eq!(read(Status::not_found("ä")), Some(Code::NotFound));
        assert_eq!(super::status(&HeaderMap::new()), None);
        let nonsense = HeaderMap::from_iter([(http::HeaderName::from_static(GRPC_STATUS), http::HeaderValue::from_static("x"))]);
        assert_eq!(super::status(&nonsense), Some(Code::Unknown));
    }
}
