//! How much may be on its way in: the memory of requests from their first byte until the service has taken them over.
//!
//! A limit that is looked at when a message is decoded comes too late: by then the message is in memory, and may take a hundred
//! times its bytes. So what arrives is weighed piece by piece ([`crate::weight`]) and paid for out of one budget of the whole
//! process. Who finds nothing left is refused in the middle of a request and can send it again, for nothing of it was looked at;
//! nobody waits here, or requests that are half there could wait for each other.
//!
//! A refusal is about the message that there is no room for. One piece may hold the end of a message and begin others: what is
//! whole goes on before. On a stream it is answered then; else its sender would take it for the one that was refused.
//!
//! What is paid comes back when the service takes a message over. Of a stream that is when it asks for more: the transport
//! decodes all that is whole first. Of any other call it is when the service lets the request's [`Share`] go.
//!
//! A message that does not arrive in time ends its call, or silent callers could hold the budget; who has sent nothing at all
//! holds a place among the calls, and has as long.
//!
//! Answers that are streams are limited by whoever makes them. What is served beside the contract has no limits of its own: a
//! watch of health takes one short message and may then be open for days. So such a call holds its place until its answer ends.
//! And since nobody is asked who they are before a call of health, such calls have a budget of their own: they take nothing from
//! those of the contract.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use oncelog_proto::{ErrorCode, Fault};
use tokio::time::{Sleep, sleep};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::weight::{Call, SUBMESSAGE_BYTES, Scale, Weighed};

/// What may be on its way in at a time, over all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of messages, from the size of the largest: each counts its bytes, or [`SUBMESSAGE_BYTES`] for each submessage in it
    /// if that is more.
    pub bytes: u64,
    /// Calls of the contract that are not answered yet, or whose caller still sends; from 1. For others (health, reflection)
    /// there is room beside them, for one in [`BESIDE`] and for 1 at least, until their answer ends, with [`CALL_BYTES`] each.
    pub calls: u64,
    /// Time from the first byte of a message to its last.
    pub message_time: Duration,
    /// The setting that the two numbers come from, for those who are refused: as it is written, and as a key of metadata.
    pub setting: (&'static str, &'static str),
}

impl Limits {
    /// By the size of the setting; a minute for each message. There is room for a call for each [`CALL_BYTES`] of it, and for
    /// 1,024 at least.
    pub fn of(bytes: usize, setting: (&'static str, &'static str)) -> Self {
        let bytes = bytes as u64;
        Self { bytes, calls: (bytes / CALL_BYTES).max(LEAST_CALLS), message_time: Duration::from_secs(60), setting }
    }
}

/// Makes every call pay for what it sends.
#[derive(Clone, Debug)]
pub struct IntakeLayer(Budgets);

/// Out of which calls are paid for.
#[derive(Clone, Debug)]
struct Budgets {
    contract: Arc<Budget>,
    beside: Arc<Budget>,
}

impl IntakeLayer {
    /// One budget for all calls of the contract that are served through it, and one for all others.
    ///
    /// # Panics
    /// If a limit is 0.
    pub fn new(limits: Limits) -> Self {
        assert!(limits.bytes > 0 && limits.calls > 0, "an intake that takes nothing in");
        let calls = (limits.calls / BESIDE).max(1);
        let beside = Limits { calls, bytes: calls * CALL_BYTES, ..limits };
        let setting_bytes = limits.bytes;
        let budget = |limits, what| {
            let (bytes, calls) = (AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Budget { limits, setting_bytes, what, bytes, calls })
        };
        Self(Budgets { contract: budget(limits, "calls"), beside: budget(beside, "calls of health and reflection") })
    }
}

impl<S> Layer<S> for IntakeLayer {
    type Service = Intake<S>;

    fn layer(&self, inner: S) -> Intake<S> {
        Intake { inner, budgets: self.0.clone() }
    }
}

/// A service whose calls pay for what they send.
#[derive(Clone, Debug)]
pub struct Intake<S> {
    inner: S,
    budgets: Budgets,
}

impl<S> Service<Request<Body>> for Intake<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let call = Call::of(request.uri().path());
        let budget = if call.is_some() { &self.budgets.contract } else { &self.budgets.beside };
        let Some(place) = Place::take(budget) else {
            let refused = budget.too_many_calls().to_status().into_http();
            return Box::pin(std::future::ready(Ok(refused)));
        };
        let place = Arc::new(place);
        let share = Share(Arc::new(Paid { budget: Arc::clone(budget), bytes: AtomicU64::new(0) }));
        let is_stream = call.is_some_and(|call| call.is_stream);
        if !is_stream {
            request.extensions_mut().insert(share.clone());
        }
        let arriving = |body| Arriving {
            body,
            scale: Scale::new(call),
            is_stream,
            share,
            taken_over: 0,
            begun: 0,
            rest: None,
            limit: None,
            is_over: false,
            _place: Arc::clone(&place),
        };
        let answer = self.inner.call(request.map(|body| Body::new(arriving(body))));
        Box::pin(async move {
            let answer = answer.await?;
            Ok(if call.is_some() { answer } else { answer.map(|body| Body::new(Leaving { body, _place: place })) })
        })
    }
}

/// What a request that is whole has paid for its memory; it comes back when the last copy is dropped. A service finds it among
/// the extensions of its request and keeps it as long as it has the decoded message and has not accounted for it by itself.
#[derive(Clone, Debug)]
pub struct Share(Arc<Paid>);

#[derive(Debug)]
struct Budget {
    limits: Limits,
    /// What the setting says, of which this may be a part.
    setting_bytes: u64,
    /// What is paid for out of it.
    what: &'static str,
    bytes: AtomicU64,
    calls: AtomicU64,
}

impl Budget {
    fn take(taken: &AtomicU64, more: u64, limit: u64) -> bool {
        let sum = |taken: u64| taken.checked_add(more).filter(|sum| *sum <= limit);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }

    fn too_many_calls(&self) -> Fault {
        let (calls, what, (setting, key)) = (self.limits.calls, self.what, self.limits.setting);
        let message = format!("{calls} {what} are under way, as many as {setting} has room for; send this one again later");
        let fault = Fault::new(ErrorCode::ResourceExhausted, message).with("calls", calls);
        fault.with(key, self.setting_bytes).retry_after(RETRY_AFTER)
    }

    /// Why a message that takes `bytes`, or more, was not let in.
    fn refusal(&self, bytes: u64) -> Fault {
        let (most, (setting, key)) = (self.limits.bytes, self.limits.setting);
        if bytes > most {
            let message = format!(
                "the message takes more than {most} bytes when it is decoded, each submessage in it counting {SUBMESSAGE_BYTES}; send \
                 less at once, or raise {setting}"
            );
            return Fault::new(ErrorCode::MessageTooLarge, message).with(key, most);
        }
        let what = self.what;
        let message = format!("{what} on their way in take all that {setting} has room for, {most} bytes; send it again later");
        Fault::new(ErrorCode::ResourceExhausted, message).with(key, self.setting_bytes).retry_after(RETRY_AFTER)
    }
}

/// One call's place among the calls.
#[derive(Debug)]
struct Place(Arc<Budget>);

impl Place {
    fn take(budget: &Arc<Budget>) -> Option<Self> {
        Budget::take(&budget.calls, 1, budget.limits.calls).then(|| Self(Arc::clone(budget)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one call has paid for its messages.
#[derive(Debug)]
struct Paid {
    budget: Arc<Budget>,
    /// Changed by the body alone.
    bytes: AtomicU64,
}

impl Paid {
    /// Pays as much as `bytes` is more than what is paid, or takes back as much as it is less; false, and nothing is changed, if
    /// the budget has not enough.
    fn set(&self, bytes: u64) -> bool {
        let paid = self.bytes.load(Ordering::Relaxed);
        if bytes > paid && !Budget::take(&self.budget.bytes, bytes - paid, self.budget.limits.bytes) {
            return false;
        }
        self.budget.bytes.fetch_sub(paid.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        true
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// The body of a request, which pays for what it hands on.
struct Arriving {
    body: Body,
    scale: Scale,
    is_stream: bool,
    share: Share,
    /// Bytes of messages that were handed on whole.
    taken_over: u64,
    /// Bytes of the message that has begun.
    begun: u64,
    /// What follows in its piece on the messages that there was room for. It is weighed when it is asked for.
    rest: Option<Bytes>,
    /// Until when it has to be whole.
    limit: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    _place: Arc<Place>,
}

impl Arriving {
    /// Weighs and pays for the next piece: how many bytes of it may go on. Less than all of them: whole messages.
    fn weigh(&mut self, piece: &[u8]) -> Result<usize, Fault> {
        let start = self.scale.clone();
        let all = self.scale.put(piece);
        if self.pay(all) {
            return Ok(piece.len());
        }
        self.scale = start;
        let mut paid = 0;
        while paid < piece.len() {
            let before = self.scale.clone();
            let (len, next) = self.scale.put_message(&piece[paid..]);
            if self.pay(next) {
                paid += len;
            } else if paid == 0 {
                return Err(self.share.0.budget.refusal(next.whole.max(next.begun)));
            } else {
                self.scale = before;
                break;
            }
        }
        Ok(paid)
    }

    /// False, and nothing is changed, if there is no room.
    fn pay(&mut self, Weighed { whole, begun }: Weighed) -> bool {
        // What was begun is in `whole` if it has ended.
        let taken_over = self.taken_over + whole;
        if !self.share.0.set(taken_over + begun) {
            return false;
        }
        if whole > 0 {
            self.limit = None;
        }
        (self.taken_over, self.begun) = (taken_over, begun);
        true
    }

    fn is_awaited(&self) -> bool {
        !self.is_stream || self.scale.has_begun()
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.is_stream && self.taken_over > 0 {
            self.taken_over = 0;
            assert!(self.share.0.set(self.begun), "less is always given");
        }
        let polled = match self.rest.take() {
            Some(rest) => Poll::Ready(Some(Ok(Frame::data(rest)))),
            None => http_body::Body::poll_frame(Pin::new(&mut self.body), cx),
        };
        if polled.is_pending() && self.is_awaited() {
            let time = self.share.0.budget.limits.message_time;
            ready!(self.limit.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx));
            self.is_over = true;
            let message = format!("the message did not arrive within {time:?}; nothing of it was looked at; send it again");
            let fault = Fault::new(ErrorCode::RequestTimedOut, message).with("timeout_ms", time.as_millis());
            return Poll::Ready(Some(Err(fault.to_status())));
        }
        let mut frame = ready!(polled);
        if let Some(Ok(frame)) = &mut frame
            && let Some(piece) = frame.data_mut()
        {
            match self.weigh(piece) {
                Ok(paid) => self.rest = Some(piece.split_off(paid)).filter(|rest| !rest.is_empty()),
                Err(fault) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(fault.to_status())));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.rest.is_none() && http_body::Body::is_end_stream(&self.body))
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_some() { SizeHint::default() } else { http_body::Body::size_hint(&self.body) }
    }
}

/// The body of an answer that holds its call's place.
struct Leaving {
    body: Body,
    _place: Arc<Place>,
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        http_body::Body::poll_frame(Pin::new(&mut self.body), cx)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

/// What a call takes beside its messages, in bytes: its headers, and what the transport and the service remember of it.
pub const CALL_BYTES: u64 = 4 << 10;
/// How many calls of the contract there may be for each that is not of it.
pub const BESIDE: u64 = 16;
const LEAST_CALLS: u64 = 1_024;
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::mpsc;
    use tokio_stream::StreamExt;
    use tonic::Code;
    use tonic_types::StatusExt;
    use tower::{ServiceExt, service_fn};

    use super::*;

    const UNARY: &str = "/oncelog.v1.ProducerService/Send";
    const STREAM: &str = "/oncelog.v1.ProducerService/SendStream";
    const WATCH: &str = "/grpc.health.v1.Health/Watch";

    /// An intake, and what comes through it.
    struct Edge {
        layer: IntakeLayer,
    }

    impl Edge {
        fn new(bytes: u64, calls: u64) -> Self {
            let setting = ("--most", "most");
            Self { layer: IntakeLayer::new(Limits { bytes, calls, message_time: Duration::from_secs(60), setting }) }
        }

        fn paid(&self) -> u64 {
            self.layer.0.contract.bytes.load(Ordering::Relaxed)
        }

        /// Calls; the request as the service gets it, or the status.
        async fn call(&self, path: &str, sent: Vec<Vec<u8>>) -> Result<Request<Body>, Status> {
            let sent = tokio_stream::iter(sent.into_iter().map(|piece| Ok::<_, Infallible>(Bytes::from(piece))));
            // The caller has not ended.
            self.call_with(path, Body::new(axum::body::Body::from_stream(sent.chain(tokio_stream::pending())))).await
        }

        async fn call_with(&self, path: &str, body: Body) -> Result<Request<Body>, Status> {
            let (tell, mut told) = mpsc::channel(1);
            let service = service_fn(move |request: Request<Body>| {
                tell.try_send(request).expect("one call");
                std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
            });
            let request = Request::post(path).body(body).expect("a request");
            let Ok(answer) = self.layer.layer(service).oneshot(request).await;
            told.recv().await.ok_or_else(|| Status::from_header_map(answer.headers()).expect("a status"))
        }
    }

    async fn next(body: &mut Body) -> Result<usize, Status> {
        let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *body), cx)).await;
        frame.expect("it goes on").map(|frame| frame.data_ref().map_or(0, Bytes::len))
    }

    /// A message of `len` bytes without anything in it that multiplies, of which `missing` are not sent.
    fn message(len: usize, missing: usize) -> Vec<u8> {
        // Field 15 is no field of any request.
        let value = len.saturating_sub(3);
        let mut message =
            vec![0x7a, 0x80 | u8::try_from(value & 0x7f).expect("7 bits"), u8::try_from(value >> 7).expect("small")];
        message.resize(len, 0);
        let head = [&[0], &u32::try_from(len).expect("small").to_be_bytes()[..]].concat();
        [head, message[..len - missing].to_vec()].concat()
    }

    fn assert_refused(status: &Status, code: Code, reason: &str) {
        let details = status.get_error_details();
        assert_eq!((status.code(), details.error_info().map(|info| info.reason.as_str())), (code, Some(reason)), "{status:?}");
    }

    #[tokio::test]
    async fn the_last_byte_is_given_and_one_more_is_refused_until_a_call_ends() {
        let edge = Edge::new(1_000, 10);
        let mut first = edge.call(UNARY, vec![message(1_000, 1)]).await.expect("a place").into_body();
        next(&mut first).await.expect("999 bytes");
        let mut second =
            edge.call(UNARY, vec![message(100, 99), message(1_000, 999)[5..].to_vec()]).await.expect("a place").into_body();
        next(&mut second).await.expect("the last byte");
        let status = next(&mut second).await.expect_err("one more");
        assert_refused(&status, Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
        assert!(status.get_error_details().retry_info().is_some());
        drop(second);
        drop(first);
        let mut again = edge.call(UNARY, vec![message(1_000, 0)]).await.expect("a place").into_body();
        next(&mut again).await.expect("all of it");
        assert_eq!(edge.paid(), 1_000);
        drop(again);
        assert_eq!(edge.paid(), 0);
    }

    #[tokio::test]
    async fn a_message_that_could_never_fit_is_told_so_by_what_it_becomes() {
        let most = 4 * SUBMESSAGE_BYTES;
        let edge = Edge::new(most, 10);
        let records =
            |count: usize| [vec![0, 0, 0, 0, u8::try_from(2 * count).expect("small")], [0x1a, 0].repeat(count)].concat();
        for path in [UNARY, STREAM] {
            let mut body = edge.call(path, vec![records(4)]).await.expect("a place").into_body();
            next(&mut body).await.expect("as many as there is room for");
            drop(body);
            let mut body = edge.call(path, vec![records(5)]).await.expect("a place").into_body();
            assert_refused(&next(&mut body).await.expect_err("one more"), Code::InvalidArgument, "MESSAGE_TOO_LARGE");
        }
    }

    #[tokio::test]
    async fn a_unary_request_is_paid_for_until_its_share_is_let_go() {
        let edge = Edge::new(1_000, 10);
        let (mut parts, mut body) = edge.call(UNARY, vec![message(1_000, 0)]).await.expect("a place").into_parts();
        next(&mut body).await.expect("all of it");
        drop(body);
        let mut other = edge.call(UNARY, vec![message(200, 0)]).await.expect("a place").into_body();
        assert_refused(&next(&mut other).await.expect_err("full"), Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
        drop(parts.extensions.remove::<Share>().expect("every request has one"));
        let mut other = edge.call(UNARY, vec![message(200, 0)]).await.expect("a place").into_body();
        next(&mut other).await.expect("there is room again");
    }

    #[tokio::test]
    async fn a_stream_pays_for_what_is_not_taken_over_alone() {
        let edge = Edge::new(1_000, 10);
        let cut = [message(600, 0), message(900, 500)].concat();
        let rest = message(900, 0)[5 + 400..].to_vec();
        let mut body =
            edge.call(STREAM, vec![message(1_000, 0), message(1_000, 0), cut, rest]).await.expect("a place").into_body();
        for paid in [1_000, 1_000, 1_000, 900] {
            next(&mut body).await.expect("there is room");
            assert_eq!(edge.paid(), paid);
        }
        drop(body);
        assert_eq!(edge.paid(), 0);
    }

    #[tokio::test]
    async fn a_frame_that_is_refused_says_nothing_of_the_whole_messages_in_it() {
        let edge = Edge::new(1_000, 10);
        let first = message(600, 0);
        let (begun, ended) = first.split_at(200);
        // The end of one message, another one, and the beginning of a third.
        let frame = |third: Vec<u8>| [ended.to_vec(), message(1_000, 0), third].concat();
        let sizes = [begun.len(), ended.len(), message(1_000, 0).len()];

        let sent = vec![begun.to_vec(), frame(message(1_001, 0)), message(1, 0)];
        let mut body = edge.call(STREAM, sent).await.expect("a place").into_body();
        for size in sizes {
            assert_eq!(next(&mut body).await.expect("there is room for it"), size);
        }
        assert_refused(&next(&mut body).await.expect_err("too large"), Code::InvalidArgument, "MESSAGE_TOO_LARGE");
        let over = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await;
        assert!(over.is_none(), "{over:?}");
        drop(body);

        // One that there is room for, once those before it are taken over.
        let sent = vec![begun.to_vec(), frame(message(1_000, 400)), message(1_000, 0)[5 + 600..].to_vec()];
        let mut body = edge.call(STREAM, sent).await.expect("a place").into_body();
        for size in [&sizes[..], &[5 + 600, 400]].concat() {
            assert_eq!(next(&mut body).await.expect("there is room for it"), size);
        }
        assert_eq!(edge.paid(), 1_000);

        // And one that finds none.
        let sent = vec![[message(0, 0), message(1, 0)].concat()];
        let mut other = edge.call(STREAM, sent).await.expect("a place").into_body();
        assert_eq!(next(&mut other).await.expect("it is empty"), 5);
        assert_refused(&next(&mut other).await.expect_err("one byte"), Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
        drop((body, other));
        assert_eq!(edge.paid(), 0);
    }

    #[tokio::test]
    async fn a_body_does_not_end_before_the_rest_of_its_last_frame() {
        let edge = Edge::new(1_000, 10);
        let last = Bytes::from([message(600, 0), message(600, 0)].concat());
        let mut body = edge.call_with(STREAM, Body::new(axum::body::Body::from(last))).await.expect("a place").into_body();
        for _ in 0..2 {
            assert!(!http_body::Body::is_end_stream(&body));
            assert_eq!(next(&mut body).await.expect("there is room for it"), 605);
        }
        assert!(http_body::Body::is_end_stream(&body));
    }

    #[tokio::test]
    async fn the_last_place_is_given_and_the_next_call_is_refused_until_one_ends() {
        let edge = Edge::new(1_000, 2);
        let first = edge.call(UNARY, Vec::new()).await.expect("a place");
        let _second = edge.call(STREAM, Vec::new()).await.expect("a place");
        let status = edge.call(UNARY, Vec::new()).await.expect_err("two are under way");
        assert_refused(&status, Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
        drop(first);
        edge.call(UNARY, Vec::new()).await.expect("a place again");
    }

    #[tokio::test]
    async fn watches_of_health_are_limited_and_take_nothing_from_other_calls() {
        let edge = Edge::new(1_000, 2 * BESIDE);
        // The request is taken over whole, and the answer never ends.
        let open = async || {
            let endless = || Body::new(axum::body::Body::from_stream(tokio_stream::pending::<Result<Bytes, Infallible>>()));
            let service = service_fn(move |_: Request<Body>| std::future::ready(Ok::<_, Infallible>(Response::new(endless()))));
            let request = Request::post(WATCH).body(Body::empty()).expect("a request");
            let Ok(answer) = edge.layer.layer(service).oneshot(request).await;
            Status::from_header_map(answer.headers()).map_or(Ok(answer), Err)
        };
        let first = open().await.expect("a place");
        let _second = open().await.expect("a place");
        let status = open().await.expect_err("two are open");
        assert_refused(&status, Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
        assert!(status.message().starts_with("2 calls of health and reflection are under way"), "{status:?}");
        let mut others = Vec::new();
        for _ in 0..2 * BESIDE {
            others.push(edge.call(UNARY, Vec::new()).await.expect("they have places of their own"));
        }
        edge.call(UNARY, Vec::new()).await.expect_err("and no more");
        drop(first);
        open().await.expect("a place again");
        // An answer that is no stream holds nothing once it is told.
        for _ in 0..3 {
            edge.call(WATCH, Vec::new()).await.expect("a place");
        }
    }

    #[tokio::test]
    async fn what_calls_of_health_send_takes_nothing_from_other_calls() {
        let edge = Edge::new(1_000, 1);
        let all = usize::try_from(CALL_BYTES).expect("small");
        let mut health = edge.call(WATCH, vec![message(all, 1)]).await.expect("a place").into_body();
        next(&mut health).await.expect("all but a byte");
        assert_eq!(edge.paid(), 0);
        let mut other = edge.call(UNARY, vec![message(1_000, 0)]).await.expect("a place").into_body();
        next(&mut other).await.expect("there is room");
        drop(health);
        let mut health = edge.call(WATCH, vec![message(all + 1, 0)]).await.expect("a place").into_body();
        assert_refused(&next(&mut health).await.expect_err("a byte more"), Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_arrive_ends_its_call_and_silence_between_messages_does_not() {
        let edge = Edge::new(1_000, 10);
        for (path, sent) in [(UNARY, Vec::new()), (UNARY, vec![message(100, 1)]), (STREAM, vec![message(100, 1)])] {
            let frames = sent.len();
            let mut body = edge.call(path, sent).await.expect("a place").into_body();
            for _ in 0..frames {
                next(&mut body).await.expect("a part");
            }
            assert_refused(&next(&mut body).await.expect_err("too late"), Code::DeadlineExceeded, "REQUEST_TIMED_OUT");
        }
        let mut body = edge.call(STREAM, vec![message(100, 0)]).await.expect("a place").into_body();
        next(&mut body).await.expect("all of it");
        assert!(tokio::time::timeout(Duration::from_secs(3_600), next(&mut body)).await.is_err(), "it is waited for");
    }
}
