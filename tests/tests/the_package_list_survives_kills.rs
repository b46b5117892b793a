//! The promise: real records, 8 partitions, a broker that is killed 20 times and more, a producer that is paused, answers
//! that are lost, and in the end every record is in the log: byte for byte, exactly once, in the order of its key.

use oncelog_tests::ordeal::{self, PARTITIONS, TOPIC};

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_in_the_log_once_and_in_order_after_twenty_kills() {
    let ordeal = ordeal::run(&[]).await.expect("every record is acknowledged");
    assert!(ordeal.kills >= 20, "{} kills", ordeal.kills);
    ordeal.verdict.assert_exactly_once_in_order();

    // The positions are without gaps too, and every record carries its tag.
    let lines = ordeal.stack.fetch(&[TOPIC, "--output=json"]).await.expect("the log can be read");
    let mut next = vec![0; PARTITIONS];
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let record: serde_json::Value = serde_json::from_slice(line).expect("a JSON object a line");
        let number = |field: &str| record[field].as_i64().unwrap_or_else(|| panic!("no {field} in {record}"));
        let partition = usize::try_from(number("partition")).expect("from 0");
        assert_eq!(number("offset"), next[partition], "partition {partition}");
        next[partition] += 1;
        assert!(number("producer_id") >= 0 && number("producer_epoch") >= 0 && number("sequence") >= 0);
    }
    assert!(next.iter().all(|&end| end > 0), "a partition without a record: {next:?}");
}
