//! How much goes out, and in which calls: both sides of every limit.

mod script;

use std::time::Duration;

use oncelog_proto::{ErrorCode, record_set::RecordSetEncoder, v1::Record};
use producer_svc::session::{FailureKind, ProduceCall, RecordOutcome, SessionConfig};
use script::{Script, ack, one_by_one, tags, values};

/// Encoded bytes of a record with a value of this length.
fn encoded(len: usize) -> usize {
    RecordSetEncoder::added_len(&Record { value: Some(vec![b'x'; len].into()), ..Record::default() })
}

fn counts(call: &ProduceCall) -> Vec<i32> {
    call.batches.iter().map(|batch| batch.packed.count().get()).collect()
}

#[test]
fn no_more_calls_are_out_than_allowed() {
    for limit in 1..=5 {
        let mut script = Script::new(SessionConfig { max_in_flight: limit, ..one_by_one() });
        let mut calls = Vec::new();
        for partition in 0..7 {
            script.send(partition, "a");
        }
        for _ in 0..limit {
            calls.push(script.call());
        }
        script.assert_no_call();
        script.answer(&calls[0], vec![ack(0)]);
        script.call();
        script.assert_no_call();
    }
}

#[test]
fn calls_of_a_fenced_epoch_count_until_they_end() {
    let mut script = Script::new(one_by_one());
    for partition in 0..5 {
        script.send(partition, "a");
    }
    let calls: Vec<_> = (0..5).map(|_| script.call()).collect();
    script.answer(&calls[0], vec![script::refuse(ErrorCode::InvalidProducerEpoch)]);
    script.answer_init(script::PRODUCER, 1, Vec::new());
    assert_eq!(tags(&script.call()), [(1, 0)]);
    script.assert_no_call();
    script.answer(&calls[1], vec![ack(0)]);
    assert_eq!(tags(&script.call()), [(1, 0)]);
    script.assert_no_call();
}

#[test]
fn a_partition_has_at_most_five_tagged_batches() {
    let mut script = Script::new(one_by_one());
    for i in 0..6 {
        script.send(0, &format!("a{i}"));
    }
    let calls: Vec<_> = (0..5).map(|_| script.call()).collect();
    script.assert_no_call();
    script.answer(&calls[0], vec![ack(0)]);
    assert_eq!(tags(&script.call()), [(0, 5)]);
}

#[test]
fn a_call_has_one_batch_of_a_partition_and_many_partitions() {
    let mut script = Script::new(SessionConfig { max_request_size: 10_000, ..one_by_one() });
    // Two batches of each partition.
    script.send_all("t", &[(0, "a0"), (0, "a1"), (1, "b0"), (1, "b1")]);
    assert_eq!(values(&script.call()), [["a0"], ["b0"]]);
    assert_eq!(values(&script.call()), [["a1"], ["b1"]]);
}

#[test]
fn a_call_is_loaded_up_to_the_request_limit() {
    // What a batch adds is its data, its topic's name, and at most 96 bytes of numbers and framing.
    let batch = encoded(100) + 1 + 96;
    for (limit, first) in [(3 * batch, 3), (3 * batch - 1, 2)] {
        let config = SessionConfig { linger: Duration::from_millis(5), batch_size: 200, max_request_size: limit, ..one_by_one() };
        let mut script = Script::new(config);
        for partition in 0..4 {
            script.send(partition, &"x".repeat(100));
        }
        script.wait(5);
        let calls = [script.call(), script.call()];
        assert_eq!(calls.each_ref().map(|call| call.batches.len()), [first, 4 - first]);
        let wire: usize = calls[0].batches.iter().map(|batch| prost::Message::encoded_len(&batch.packed.to_proto())).sum();
        assert!(wire < limit);
    }
}

#[test]
fn a_batch_above_the_request_limit_still_gets_its_call() {
    let mut script = Script::new(SessionConfig { max_request_size: 10, ..one_by_one() });
    script.send(0, &"x".repeat(100));
    assert_eq!(script.call().batches.len(), 1);
}

#[test]
fn a_batch_is_full_at_batch_size_while_a_call_is_free() {
    for (size, expected) in [(3 * encoded(10), 3), (3 * encoded(10) - 1, 2)] {
        let config =
            SessionConfig { linger: Duration::from_secs(1), batch_size: size, max_request_size: 100_000, ..one_by_one() };
        let mut script = Script::new(config);
        for _ in 0..4 {
            script.send(0, &"x".repeat(10));
        }
        assert_eq!(counts(&script.call()), [expected]);
        script.assert_no_call();
    }
}

#[test]
fn a_full_batch_does_not_linger_and_one_a_byte_below_does() {
    let linger = Duration::from_secs(1);
    for (size, leaves) in [(2 * encoded(10), true), (2 * encoded(10) + 1, false)] {
        let mut script = Script::new(SessionConfig { linger, batch_size: size, max_request_size: 100_000, ..one_by_one() });
        script.send(0, &"x".repeat(10));
        script.assert_no_call();
        script.send(0, &"x".repeat(10));
        if !leaves {
            script.assert_no_call();
            script.wait(1_000);
        }
        assert_eq!(counts(&script.call()), [2]);
    }
}

#[test]
fn what_filled_up_while_all_calls_were_out_leaves_when_one_ends() {
    let linger = Duration::from_secs(1);
    let config = SessionConfig { linger, max_in_flight: 1, batch_size: encoded(10), max_request_size: 100_000, ..one_by_one() };
    let mut script = Script::new(config);
    let send = |script: &mut Script| script.send(0, &"x".repeat(10));
    send(&mut script);
    let first = script.call();
    for _ in 0..3 {
        send(&mut script);
    }
    script.answer(&first, vec![ack(0)]);
    assert_eq!(counts(&script.call()), [3]);
}

#[test]
fn while_all_calls_are_out_a_batch_fills_on_up_to_the_request_limit() {
    let config = SessionConfig { max_in_flight: 1, batch_size: encoded(10), max_request_size: 20 * encoded(10), ..one_by_one() };
    let mut script = Script::new(config);
    script.send(0, &"x".repeat(10));
    let mut call = script.call();
    for _ in 0..50 {
        script.send(0, &"x".repeat(10));
    }
    let mut sizes = Vec::new();
    for _ in 0..3 {
        script.answer(&call, vec![ack(0)]);
        call = script.call();
        sizes.extend(counts(&call));
    }
    assert_eq!(sizes, [20, 20, 10]);
}

#[test]
fn a_large_send_fills_batches_on_once_there_are_as_many_as_calls() {
    let config = SessionConfig { batch_size: 2 * encoded(1), max_request_size: 1_000 * encoded(1), ..one_by_one() };
    let mut script = Script::new(config);
    let records: Vec<_> = (0..110).map(|_| (0, "x")).collect();
    script.send_all("t", &records);
    let sizes: Vec<_> = (0..5).flat_map(|_| counts(&script.call())).collect();
    assert_eq!(sizes, [2, 2, 2, 2, 2], "five batches leave at once");
    script.assert_no_call();
}

#[test]
fn before_there_is_an_id_batches_fill_on() {
    let mut script = Script::fresh(SessionConfig { batch_size: encoded(1), max_request_size: 10_000, ..one_by_one() });
    for _ in 0..10 {
        script.send(0, "x");
    }
    script.answer_init(script::PRODUCER, 0, Vec::new());
    assert_eq!(counts(&script.call()), [10]);
}

#[test]
fn a_send_over_many_partitions_is_complete_once_in_the_callers_order() {
    let mut script = Script::new(one_by_one());
    let send = script.send_all("t", &[(1, "b0"), (0, "a0"), (1, "b1"), (0, "a1")]);
    let mut offsets = [0i64; 2];
    for _ in 0..4 {
        assert!(script.outcomes(send).is_none());
        let call = script.call();
        let partition = call.batches[0].partition.partition.get();
        let at = usize::try_from(partition).expect("small");
        script.answer(&call, vec![ack(100 * i64::from(partition) + offsets[at])]);
        offsets[at] += 1;
    }
    let places = script.outcomes(send).expect("complete").iter().map(|outcome| match outcome {
        RecordOutcome::Appended { partition, offset, .. } => (partition.get(), offset.map(oncelog_proto::Offset::get)),
        RecordOutcome::Refused(_) | RecordOutcome::Unknown => (-1, None),
    });
    let places: Vec<_> = places.collect();
    assert_eq!(places, [(1, Some(100)), (0, Some(0)), (1, Some(101)), (0, Some(1))]);
}

#[test]
fn a_send_without_records_is_complete_at_once() {
    let mut script = Script::new(one_by_one());
    let send = script.send_all("t", &[]);
    assert_eq!(script.outcomes(send), Some([].as_slice()));
}

#[test]
fn an_offset_at_the_end_of_all_offsets_breaks_nothing() {
    let mut script = Script::new(SessionConfig { batch_size: 1000, max_request_size: 1000, ..one_by_one() });
    let send = script.send_all("t", &[(0, "a"), (0, "b")]);
    let call = script.call();
    script.answer(&call, vec![ack(i64::MAX)]);
    let offsets = script.outcomes(send).expect("complete").iter().map(|outcome| match outcome {
        RecordOutcome::Appended { offset, .. } => offset.map(oncelog_proto::Offset::get),
        RecordOutcome::Refused(_) | RecordOutcome::Unknown => Some(-1),
    });
    let offsets: Vec<_> = offsets.collect();
    assert_eq!(offsets, [Some(i64::MAX), None]);
}

#[test]
fn a_new_batch_waits_for_the_resend_of_the_one_before_it() {
    let mut script = Script::new(one_by_one());
    script.send(0, "a0");
    let call = script.call();
    script.fail(&call, FailureKind::InDoubt);
    script.send(0, "a1");
    script.assert_no_call();
    script.wait(200);
    let calls = [script.call(), script.call()];
    assert_eq!(calls.each_ref().map(tags), [[(0, 0)], [(0, 1)]]);
}

#[test]
fn a_resend_goes_before_the_new_batches_of_other_partitions() {
    let mut script = Script::new(SessionConfig { max_in_flight: 1, ..one_by_one() });
    script.send(0, "a0");
    let call = script.call();
    script.fail(&call, FailureKind::InDoubt);
    script.send(1, "b0");
    let other = script.call();
    script.send(2, "c0");
    script.wait(200);
    script.answer(&other, vec![ack(0)]);
    assert_eq!(values(&script.call()), [["a0"]], "c0 was there first");
}
