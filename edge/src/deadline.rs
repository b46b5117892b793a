//! What a caller hears whose deadline has passed: `DEADLINE_EXCEEDED` with an `ErrorInfo`.
//!
//! tonic itself would answer `CANCELLED`, which callers take for their own doing. At the deadline the handler's future is
//! dropped; a handler hands its work over before it waits for the outcome, so the work goes on: a deadline ends the caller's
//! wait, not the life of its records. Calls are bounded until their answer begins; the end of an open stream is the caller's.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use oncelog_proto::{ErrorCode, Fault};
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tower::{Layer, Service};

/// Puts every call under the deadline that its caller set.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner }
    }
}

/// A service whose calls end at their callers' deadlines.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Call<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let deadline = timeout(request.headers()).map(|timeout| {
            // tonic runs the same timer around this one; ours has to be the first.
            (timeout, Box::pin(sleep(timeout.saturating_sub(HEAD_START))))
        });
        Call { inner: Box::pin(self.inner.call(request)), deadline }
    }
}

/// A call and its deadline.
#[derive(Debug)]
pub struct Call<F> {
    inner: Pin<Box<F>>,
    deadline: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl<F, E> Future for Call<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let Poll::Ready(answer) = self.inner.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        let Some((timeout, sleep)) = self.deadline.as_mut() else { return Poll::Pending };
        ready!(sleep.as_mut().poll(cx));
        let message = format!("the deadline of {timeout:?} has passed; the outcome is unknown: what was taken in goes on");
        let fault = Fault::new(ErrorCode::RequestTimedOut, message).with("timeout_ms", timeout.as_millis());
        Poll::Ready(Ok(fault.to_status().into_http()))
    }
}

/// The time that a caller gives, by gRPC's header: at most 8 digits and a unit. One that cannot be read is none.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Two ticks of tokio's clock.
const HEAD_START: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_by_grpcs_rule() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().expect("a header value"));
            timeout(&headers)
        };
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("4m"), Some(Duration::from_millis(4)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        for bad in ["", "S", "1", "1s", "100000000S", "+1S", "-1S", "1.5S", "1 S"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
