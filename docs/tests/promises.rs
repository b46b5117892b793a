//! What is said in more than one place is said alike, and what should be told is told.

use std::fs;

use oncelog_docs::page::Page;
use oncelog_tests::workplace::Workplace;

const PROMISE: &str = "each accepted record is in the log exactly once, in order, and durable before it is acknowledged, whichever of \
    the network and the broker failed and was retried in between, within a stated window. Accepted means that `Send` answered OK; \
    without an answer the record is in the log at most once, and a caller that sends it again has sent two records";

#[test]
fn the_promise_is_the_same_everywhere() {
    for path in ["README.md", "docs/guarantees.md"] {
        let text = Page::read(path).text.replace(['*', '>'], "").split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.replace("Each accepted", "each accepted").contains(PROMISE), "{path} promises something else");
    }
}

#[test]
fn every_setting_of_a_kafka_producer_is_on_the_page_for_those_who_come_from_there() {
    let page = Page::read("docs/migrating-from-kafka.md").text;
    let ours = Page::read("docs/configuration.md").table("## producer-svc");
    let ours = ours.iter().filter_map(|row| row[0].split_once("<br>")).map(|(name, _)| name);
    // What a service has and a library has not.
    let own = [
        "listen",
        "admin.listen",
        "shutdown.timeout.ms",
        "drain.wait.ms",
        "max.connections",
        "connection.max.age.ms",
        "reflection",
    ];
    let is_security = |name: &str| name.split('.').any(|word| ["tls", "tokens", "token", "permissions"].contains(&word));
    let known: Vec<_> = ours
        .filter(|name| !own.contains(name) && !is_security(name))
        .chain(producer_svc::config::WITHOUT_MEANING.iter().copied())
        .collect();
    assert!(known.len() > 40, "{known:?}");
    let missing: Vec<_> = known.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_properties_that_the_page_brings_along_are_taken_and_what_is_ignored_is_named() {
    let page = Page::read("docs/migrating-from-kafka.md");
    let block = page.blocks().into_iter().find(|block| block.text.contains("producer.properties")).expect("an example");
    let (_, rest) = block.text.split_once("<<'END'\n").expect("a file");
    let (properties, _) = rest.split_once("END\n").expect("its end");
    let workplace = Workplace::new();
    let file = workplace.path("producer.properties");
    fs::write(&file, properties).expect("a new file");
    let settings = producer_svc::Config::default().with("producer.properties", file.display()).resolve(&|_| None).expect("taken");
    assert_eq!(settings.linger.as_millis(), 20);
    let [ignored] = settings.warnings.as_slice() else { panic!("{:?}", settings.warnings) };
    assert!(ignored.contains("client.id"), "{ignored}");
}
