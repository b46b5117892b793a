//! The header with a caller's deadline.

use std::{convert::Infallible, sync::LazyLock};

use http::{HeaderValue, Request, Response};
use oncelog_edge::deadline::DeadlineLayer;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tower::{Layer, Service, service_fn};

/// A call that is answered at once is answered, whatever the header says.
///
/// # Panics
/// A defect was found.
pub fn run(bytes: &[u8]) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("it needs nothing"));
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let request = Request::builder().header("grpc-timeout", value).body(()).expect("well-formed");
    let answered = RUNTIME.block_on(async {
        let answer = |_| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        DeadlineLayer.layer(service_fn(answer)).call(request).await
    });
    assert!(answered.is_ok_and(|answer| answer.headers().is_empty()), "the answer is the service's own");
}
