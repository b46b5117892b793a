//! The answers of a bidirectional stream, in the order of its requests, however many are under way.
//!
//! Whoever reads the requests puts a future for each into a queue; the transport takes the answers from here, and only here is
//! waited for them. So an answer needs no task of its own, and all that are there when the transport comes leave together. What
//! bounds the queue, requests or records or bytes, is its owner's business.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

/// A stream of answers as tonic takes it. It ends with its queue, or with the first status that stands there in place of an
/// answer. Dropped when nobody wants answers any more; whoever fills the queue notices by its end.
#[derive(Debug)]
pub struct InOrder<F> {
    queue: mpsc::Receiver<Result<F, Status>>,
    first: Option<F>,
}

impl<F> InOrder<F> {
    /// The answers to what is put into `queue`.
    pub fn new(queue: mpsc::Receiver<Result<F, Status>>) -> Self {
        Self { queue, first: None }
    }
}

impl<F: Future + Unpin> Stream for InOrder<F> {
    type Item = Result<F::Output, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(first) = &mut self.first {
                let answer = ready!(Pin::new(first).poll(cx));
                self.first = None;
                return Poll::Ready(Some(Ok(answer)));
            }
            match ready!(self.queue.poll_recv(cx)) {
                Some(Ok(next)) => self.first = Some(next),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_requests_whichever_is_ready_first() {
        let (pending, queue) = mpsc::channel(3);
        let mut answers = InOrder::new(queue);
        let (tell_first, first) = oneshot::channel();
        let (tell_second, second) = oneshot::channel();
        for answer in [Ok(first), Ok(second), Err(Status::out_of_range("too large"))] {
            pending.send(answer).await.expect("it is read");
        }
        tell_second.send(2).expect("it is waited for");
        tokio::select! {
            biased;
            answer = answers.next() => panic!("{answer:?} before the first"),
            () = std::future::ready(()) => {}
        }
        tell_first.send(1).expect("it is waited for");
        for expected in [1, 2] {
            assert_eq!(answers.next().await.expect("more").expect("an answer"), Ok(expected));
        }
        let end = answers.next().await.expect("more").expect_err("the end");
        assert_eq!(end.code(), tonic::Code::OutOfRange);
        drop(pending);
        assert!(answers.next().await.is_none());
    }
}
