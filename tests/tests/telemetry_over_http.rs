//! OTLP over HTTP, to a real collector: what arrives is what arrives over gRPC.

use oncelog_chaos::stage::{Stage, channel};
use oncelog_proto::v1::{Record, SendRequest, producer_service_client::ProducerServiceClient};
use oncelog_tests::{collector::Collector, workplace::Workplace};

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_metrics_of_both_services_arrive_over_http_too() {
    let workplace = Workplace::new();
    let Some(collector) = Collector::start(&workplace).await.expect("the collector starts") else { return };
    let (data, logs) = (workplace.path("data"), workplace.path(""));
    let stage = Stage::start(collector.programs_over_http(), &data, &logs, &[], &[]).await.expect("both start");
    let record = Record { value: Some("hello".into()), ..Record::default() };
    let request = SendRequest { topic: "orders".to_owned(), records: vec![record], ..SendRequest::default() };
    ProducerServiceClient::new(channel(stage.producer_addr())).send(request).await.expect("it is sent");
    stage.stop().await.expect("both end well");

    let received = collector.received().await.expect("the collector ends well");
    let of = |service: &str| received.spans.iter().filter(|span| span.service == service).map(|span| &span.trace).next();
    let (producer, broker) = (of("producer-svc"), of("broker-svc"));
    assert!(producer.is_some() && broker.is_some(), "{:#?}", received.spans);
    for of_service in ["oncelog.broker.", "oncelog.producer."] {
        assert!(received.metrics.iter().any(|name| name.starts_with(of_service)), "{:?}", received.metrics);
    }
}
