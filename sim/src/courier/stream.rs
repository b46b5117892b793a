//! What the courier does to the calls on a stream. None of them can be lost alone, or overtake another: what is lost takes along
//! all that is behind it. Copies come by `Produce`, whenever they like.

use oncelog_proto::v1::{ProduceStreamRequest, ProduceStreamResponse};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Courier, Fate, produce};

/// The answers, as the transport takes them.
pub(super) type Answers = ReceiverStream<Result<ProduceStreamResponse, Status>>;

/// Carries a stream. It is carried on for what was taken along, even if nobody wants answers any more.
pub(super) async fn carry(courier: Courier, requests: Streaming<ProduceStreamRequest>) -> Result<Answers, Status> {
    let (onward, outbound) = mpsc::channel(1);
    let answers = courier.broker.clone().produce_stream(ReceiverStream::new(outbound)).await?.into_inner();
    let (back, inbound) = mpsc::channel(1);
    tokio::spawn(async move {
        let (tell_fates, fates) = mpsc::channel(UNANSWERED);
        tokio::join!(there(courier, requests, onward, tell_fates, back.clone()), and_back(answers, fates, back));
    });
    Ok(ReceiverStream::new(inbound))
}

async fn there(
    courier: Courier,
    mut requests: Streaming<ProduceStreamRequest>,
    onward: mpsc::Sender<ProduceStreamRequest>,
    fates: mpsc::Sender<Fate>,
    back: mpsc::Sender<Result<ProduceStreamResponse, Status>>,
) {
    while let Ok(Some(request)) = requests.message().await {
        let fate = courier.fate();
        if let Some(after) = fate.copy_after {
            courier.carry_copy(after, request.produce.clone().unwrap_or_default(), produce);
        }
        if fate.is_lost {
            return end(fate.is_silent, &back).await;
        }
        sleep(fate.delay).await;
        if fates.send(fate).await.is_err() || onward.send(request).await.is_err() {
            return;
        }
    }
}

async fn and_back(
    mut answers: Streaming<ProduceStreamResponse>,
    mut fates: mpsc::Receiver<Fate>,
    back: mpsc::Sender<Result<ProduceStreamResponse, Status>>,
) {
    loop {
        let Some(answer) = answers.message().await.transpose() else { return };
        // The end of a stream is the answer to nothing.
        let fate = if answer.is_ok() { fates.recv().await.unwrap_or_default() } else { Fate::default() };
        if fate.answer_is_lost {
            return end(fate.is_silent, &back).await;
        }
        sleep(fate.answer_delay).await;
        let is_last = answer.is_err();
        if back.send(answer).await.is_err() || is_last {
            return;
        }
    }
}

/// Whoever waits for the answers hears that something is wrong, or nothing until it loses its patience.
async fn end(is_silent: bool, back: &mpsc::Sender<Result<ProduceStreamResponse, Status>>) {
    if is_silent {
        back.closed().await;
    } else {
        let _ = back.send(Err(Status::unavailable("lost on the way"))).await;
    }
}

/// As many as the broker takes.
const UNANSWERED: usize = 5;
