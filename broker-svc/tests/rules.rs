//! The broker's part of the rules, each with the trace that breaks the promise without it. R6 to R10 are the producer's alone.

mod stage;

use std::time::Duration;

use broker_svc::state::WINDOW_BATCHES;
use oncelog_proto::ErrorCode;
use stage::{Heard, Stage, acked, again, batch, options, refused};

/// R1: a0's call is cancelled but its copy lives; a0 is resent; the copy is appended, and more after it. A producer that has at
/// most five tagged batches from the lowest unresolved one on finds a0 in the window; one more, and its offset is forgotten.
#[test]
fn r1_within_a_span_of_five_a_batch_in_doubt_is_remembered() {
    let mut stage = Stage::new(options());
    for (base, who) in (0..).zip(["copy of a0", "a1", "a2", "a3", "a4"]) {
        stage.produce(who, 0, &[batch("t/0", base)]);
    }
    stage.produce("resend of a0", 0, &[batch("t/0", 0)]);
    stage.produce("a5", 0, &[batch("t/0", 5)]);
    stage.produce("another resend", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("resend of a0"), again(0));
    assert_eq!(stage.heard("another resend"), refused(ErrorCode::DuplicateSequenceNumber));
    assert_eq!(stage.log("t/0"), ["a0", "a1", "a2", "a3", "a4", "a5"]);
}

/// R1: so at most four distinct batches are ever early, with as many copies as the network makes. Copies of one share a slot, or
/// they would leave no room for the batches before it.
#[test]
fn r1_copies_of_an_early_batch_share_its_slot_and_the_sixth_early_batch_is_refused_at_once() {
    let mut stage = Stage::new(options());
    for (base, who) in (1..).zip(["a1", "a2", "a3", "a4", "a5"]) {
        stage.produce(who, 0, &[batch("t/0", base)]);
    }
    for who in ["a5 again", "a5 once more"] {
        stage.produce(who, 0, &[batch("t/0", 5)]);
    }
    stage.produce("a6", 0, &[batch("t/0", 6)]);
    stage.sync_all();
    assert_eq!(stage.heard("a6"), Some(Heard::Refused(ErrorCode::OutOfOrderSequenceNumber, Some(0))));
    assert_eq!(stage.heard("a5"), None);
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    for (offset, who) in (0..).zip(["a0", "a1", "a2", "a3", "a4", "a5"]) {
        assert_eq!(stage.heard(who), acked(offset));
    }
    assert_eq!((stage.heard("a5 again"), stage.heard("a5 once more")), (again(5), again(5)));
}

/// R2: a0 is appended and its answer lost. The recovery tells what the answer would have told.
#[test]
fn r2_a_recovery_tells_the_window_of_the_fenced_epoch() {
    let mut stage = Stage::new(options());
    for base in 0..7 {
        stage.produce("lost", 0, &[batch("t/0", base)]);
    }
    stage.sync_all();
    let granted = stage.recover("recovery", 0, "mine").expect("granted");
    assert_eq!((granted.producer_epoch, granted.partitions.len()), (1, 1));
    let told = &granted.partitions[0];
    assert_eq!((told.topic.as_str(), told.partition, told.next_sequence), ("t", 0, 7));
    let bases: Vec<_> = told.window.iter().map(|entry| (entry.base_sequence, entry.base_offset, entry.record_count)).collect();
    assert_eq!(bases, (2..7).map(|n| (n, n, 1)).collect::<Vec<_>>());
    assert_eq!(bases.len(), WINDOW_BATCHES);
    let stored: Vec<_> = stage.appends("t/0").into_iter().skip(2).collect();
    for (entry, (checksum, time)) in told.window.iter().zip(stored) {
        assert_eq!((entry.checksum, entry.append_time), (checksum, Some(time.to_proto())));
    }
}

/// R3: a's window is of an older epoch than the one that is fenced. Told of it, a producer would take what it has re-tagged since
/// for appended.
#[test]
fn r3_a_recovery_tells_of_the_fenced_epoch_and_of_no_older_one() {
    let mut stage = Stage::new(options());
    stage.produce("epoch 0", 0, &[batch("a/0", 0), batch("b/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.recover("first", 0, "mine").expect("granted").partitions.len(), 2);
    stage.produce("epoch 1", 1, &[batch("b/0", 0)]);
    stage.sync_all();
    let granted = stage.recover("second", 1, "mine").expect("granted");
    let told: Vec<_> = granted.partitions.iter().map(|p| (p.topic.as_str(), p.next_sequence)).collect();
    assert_eq!(told, [("b", 1)], "a is absent: it holds nothing of epoch 1");
}

/// R3: with nothing written in between, the same answer; with nothing written at all, an empty one.
#[test]
fn r3_an_epoch_in_which_nothing_was_written_leaves_nothing_to_tell() {
    let mut stage = Stage::new(options());
    stage.produce("epoch 0", 0, &[batch("a/0", 0)]);
    stage.sync_all();
    stage.recover("first", 0, "mine").expect("granted");
    assert_eq!(stage.recover("second", 1, "mine").expect("granted").partitions, []);
}

/// R4: a1 of epoch 0 is held, and "expected is 1" becomes true in epoch 1. It was meant for another 1.
#[test]
fn r4_a_held_batch_of_a_fenced_epoch_is_told_at_once_and_not_let_in() {
    let mut stage = Stage::new(options());
    stage.produce("held", 0, &[batch("t/0", 1)]);
    stage.sync_all();
    assert_eq!(stage.heard("held"), None);
    stage.recover("recovery", 0, "mine").expect("granted");
    assert_eq!(stage.heard("held"), refused(ErrorCode::InvalidProducerEpoch));
    stage.produce("a0 of epoch 1", 1, &[batch("t/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.log("t/0"), ["a0"]);
}

/// R4: so do a deletion of the topic and the expiry of the producer end the wait.
#[test]
fn r4_deletion_and_expiry_end_the_wait_of_held_batches() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.produce("held", 0, &[batch("t/0", 2)]);
    stage.delete("t");
    stage.sync_all();
    assert_eq!(stage.heard("held"), refused(ErrorCode::InvalidProducerEpoch));

    let mut stage = Stage::new(stage::Options { hold: 3 * stage::EXPIRATION, ..options() });
    stage.produce("held", 0, &[batch("t/0", 1)]);
    stage.pass(stage::FORGOTTEN);
    stage.sync_all();
    assert_eq!(stage.heard("held"), refused(ErrorCode::UnknownProducerId));
}

/// R5: a0 is refused as too large while a1 is held as sequence 1. Were a1 now renumbered to 0 and let in, the held copy would fit
/// behind it. The recovery that has to come first takes the held one out, and shuts every later copy out.
#[test]
fn r5_after_the_recovery_that_follows_a_refusal_no_copy_of_the_old_tags_fits() {
    let mut stage = Stage::new(options());
    stage.produce("a1", 0, &[batch("t/0", 1)]);
    stage.produce("a0", 0, &[stage::too_large("t/0", 0)]);
    stage.sync_all();
    assert_eq!((stage.heard("a0"), stage.heard("a1")), (refused(ErrorCode::MessageTooLarge), None));
    assert_eq!(stage.recover("recovery", 0, "mine").expect("granted").partitions, []);
    assert_eq!(stage.heard("a1"), refused(ErrorCode::InvalidProducerEpoch));
    stage.produce("a1 renumbered", 1, &[stage::with_value("t/0", 0, "a1")]);
    stage.produce("late copy of a1", 0, &[batch("t/0", 1)]);
    stage.sync_all();
    assert_eq!(stage.heard("late copy of a1"), refused(ErrorCode::InvalidProducerEpoch));
    assert_eq!(stage.log("t/0"), ["a1"]);
}

/// R5: a refusal says nothing of copies. Here the limit is raised and a copy gets in after all; the recovery tells so.
#[test]
fn r5_a_refused_batch_of_which_a_copy_was_appended_is_told_by_the_recovery() {
    let mut stage = Stage::new(options());
    stage.produce("refused", 0, &[stage::too_large("t/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("refused"), refused(ErrorCode::MessageTooLarge));
    stage.restart(stage::with_limits(|limits| limits.max_message_bytes *= 2));
    stage.produce("copy", 0, &[stage::too_large("t/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.recover("recovery", 0, "mine").expect("granted").partitions[0].next_sequence, 1);
}

/// R11: the producer writes to b only, for days. If its entry in a expired by itself, a stale copy of sequence 0 would fit again.
#[test]
fn r11_a_producer_that_is_heard_of_keeps_its_window_in_every_partition() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("a/0", 0)]);
    stage.sync_all();
    for base in 0..5 {
        stage.pass(stage::EXPIRATION / 2);
        stage.produce("b", 0, &[batch("b/0", base)]);
        stage.sync_all();
    }
    stage.produce("copy", 0, &[batch("a/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("copy"), again(0));
}

/// R11: one that is not heard of goes whole, and everything it ever tagged is refused for good.
#[test]
fn r11_a_producer_that_is_not_heard_of_is_forgotten_in_all_partitions_at_once() {
    let mut stage = Stage::new(options());
    stage.produce("written", 0, &[batch("a/0", 0), batch("b/0", 0)]);
    stage.sync_all();
    stage.pass(stage::FORGOTTEN);
    stage.restart(options());
    stage.produce("a", 0, &[batch("a/0", 0)]);
    stage.produce("b", 0, &[batch("b/0", 1)]);
    stage.sync_all();
    for who in ["a", "b"] {
        assert_eq!(stage.heard(who), refused(ErrorCode::UnknownProducerId));
    }
    assert_eq!((stage.log("a/0").len(), stage.log("b/0").len()), (1, 1));
}

/// R12: a0 is acknowledged, the topic deleted, and a stale copy of a0 arrives. It must neither create the topic nor fit into it.
#[test]
fn r12_a_copy_from_before_the_deletion_fits_into_no_later_topic_of_the_name() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/1", 0)]);
    stage.sync_all();
    stage.delete("t");
    stage.produce("before the creation", 0, &[batch("t/1", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("before the creation"), refused(ErrorCode::InvalidProducerEpoch));
    assert!(!stage.has_topic("t"), "nor does it create the topic");
    // Not even where the new topic has no such partition: that is for the new epoch to find out.
    stage.create("t", 1);
    stage.produce("smaller", 0, &[batch("t/1", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("smaller"), refused(ErrorCode::InvalidProducerEpoch));
    stage.restart(options());
    stage.delete("t");
    stage.create("t", 2);
    stage.produce("after a restart", 0, &[batch("t/1", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("after a restart"), refused(ErrorCode::InvalidProducerEpoch));
    assert_eq!(stage.log("t/1"), [""; 0]);
}

/// R12: where nothing of the epoch was written there is no marker, and the next epoch is free of all of them.
#[test]
fn r12_the_marker_closes_what_was_written_until_the_epoch_is_raised() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    stage.delete("t");
    stage.produce("never written to", 0, &[batch("t/1", 0)]);
    stage.produce("closed", 0, &[batch("t/0", 1)]);
    stage.sync_all();
    assert_eq!(stage.heard("never written to"), acked(0));
    assert_eq!(stage.heard("closed"), refused(ErrorCode::InvalidProducerEpoch));
    stage.recover("recovery", 0, "mine").expect("granted");
    stage.produce("open", 1, &[batch("t/0", 0)]);
    stage.produce("copy of the old epoch", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("open"), acked(0));
    assert_eq!(stage.heard("copy of the old epoch"), refused(ErrorCode::InvalidProducerEpoch));
}

/// R13: the answer was lost, and the call repeated. Another process that asks for the same must not come to share the epoch.
#[test]
fn r13_only_the_same_token_hears_a_recovery_again() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    let first = stage.recover("lost", 0, "mine");
    assert_eq!(stage.recover("repeated", 0, "mine"), first);
    stage.restart(options());
    assert_eq!(stage.recover("repeated after a restart", 0, "mine"), first);
    assert_eq!(stage.recover("another process", 0, "its own"), Err(ErrorCode::InvalidProducerEpoch));
    assert_eq!(stage.recover("without a token", 0, ""), Err(ErrorCode::InvalidRequest));
}

/// R13: once something is written in the new epoch somebody lives in it, and whoever asks for it comes too late.
#[test]
fn r13_a_recovery_is_not_repeated_after_something_was_written_in_the_new_epoch() {
    let mut stage = Stage::new(options());
    stage.recover("first", 0, "mine").expect("granted");
    stage.produce("a0", 1, &[batch("t/0", 0)]);
    stage.sync_all();
    for _ in 0..2 {
        assert_eq!(stage.recover("too late", 0, "mine"), Err(ErrorCode::InvalidProducerEpoch));
        stage.restart(options());
    }
    stage.recover("second", 1, "mine").expect("granted");
    assert_eq!(stage.recover("neither current nor the one before", 0, "mine"), Err(ErrorCode::InvalidProducerEpoch));
}

/// R14: an acknowledgement, a duplicate's, a refusal from which somebody could infer, a recovery: all are computed from a0, which
/// is being written. The broker crashes, a0 is gone, and nobody has heard anything that was never true.
#[test]
fn r14_nothing_is_heard_that_was_computed_from_what_a_crash_takes_away() {
    let mut stage = Stage::new(stage::Options { hold: Duration::ZERO, ..options() });
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.write();
    stage.produce("copy", 0, &[batch("t/0", 0)]);
    stage.produce("gap", 0, &[batch("t/0", 2)]);
    stage.produce("other content", 0, &[stage::with_value("t/0", 0, "b0")]);
    stage.ask_recovery("recovery", 0, "mine");
    stage.describe("description");
    for who in ["a0", "copy", "gap", "other content"] {
        assert_eq!(stage.heard(who), None, "{who}");
    }
    assert_eq!(stage.granted("recovery"), None);
    assert!(!stage.is_answered("description"));
    stage.crash(options());
    assert_eq!(stage.recover("after the crash", 0, "mine").expect("granted").partitions, [], "a0 was never there");
}

/// R14, the other side: with the sync all of it is true for ever, and is told.
#[test]
fn r14_everything_is_heard_once_what_it_was_computed_from_is_durable() {
    let mut stage = Stage::new(stage::Options { hold: Duration::ZERO, ..options() });
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.write();
    stage.produce("copy", 0, &[batch("t/0", 0)]);
    stage.produce("gap", 0, &[batch("t/0", 2)]);
    stage.sync();
    assert_eq!((stage.heard("a0"), stage.heard("copy")), (acked(0), again(0)));
    assert_eq!(stage.heard("gap"), Some(Heard::Refused(ErrorCode::OutOfOrderSequenceNumber, Some(1))));
    assert_eq!(stage.log("t/0"), ["a0"]);
}

/// R15: a limit is lowered after a0 was appended. Refused for its size, a0 would be reported as not in the log, or cost a
/// recovery.
#[test]
fn r15_what_is_in_the_log_is_acknowledged_whatever_the_limits_say_now() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    stage.restart(stage::with_limits(|limits| {
        limits.max_message_bytes = 1;
        limits.max_windows = 0;
    }));
    stage.produce("copy", 0, &[batch("t/0", 0)]);
    stage.produce("too large", 0, &[batch("t/0", 1)]);
    stage.produce("no room for a window", 0, &[batch("t/1", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("copy"), again(0));
    assert_eq!(stage.heard("too large"), refused(ErrorCode::MessageTooLarge));
    assert_eq!(stage.heard("no room for a window"), refused(ErrorCode::ResourceExhausted));
}

/// I5, W1: all five batches of a window survive a stop, also if the opening begins with a snapshot.
#[test]
fn i5_a_restart_forgets_none_of_the_last_five_batches() {
    let mut stage = Stage::new(options());
    for base in 0..5 {
        stage.produce("first", 0, &[batch("t/0", base)]);
        stage.sync_all();
    }
    // The snapshot is taken halfway: let that be behind the batches.
    for topic in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        stage.create(topic, 1);
        stage.sync_all();
    }
    stage.restart(options());
    for base in 0..5 {
        stage.produce("copy", 0, &[batch("t/0", base)]);
        stage.sync_all();
        assert_eq!(stage.heard("copy"), again(base));
    }
}

/// I5: to expire is an entry in the journal, and no decision of an opening. While the broker is down nobody is idle.
#[test]
fn i5_an_opening_forgets_nobody() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    stage.stay_down(2 * stage::EXPIRATION);
    stage.produce("copy", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.heard("copy"), again(0));
}

/// I1, W9: what is acknowledged is what is there. Other content under the same sequences is a conflict, said loudly.
#[test]
fn i1_other_content_under_a_used_sequence_is_not_acknowledged() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.produce("other", 0, &[stage::with_value("t/0", 0, "b0")]);
    stage.sync_all();
    assert_eq!(stage.heard("other"), refused(ErrorCode::SequenceConflict));
    assert_eq!(stage.log("t/0"), ["a0"]);
}

/// I2: a copy of what is in the log is acknowledged with the place of the original, and the log stays as it is.
#[test]
fn i2_a_copy_of_what_is_in_the_log_is_not_appended() {
    let mut stage = Stage::new(options());
    for who in ["a0", "copy"] {
        stage.produce(who, 0, &[batch("t/0", 0)]);
        stage.sync_all();
    }
    assert_eq!((stage.heard("a0"), stage.heard("copy")), (acked(0), again(0)));
    assert_eq!(stage.log("t/0"), ["a0"]);
}

/// I3: whatever is before a batch is in the log before it.
#[test]
fn i3_a_gap_is_never_appended() {
    let mut stage = Stage::new(stage::Options { hold: Duration::ZERO, ..options() });
    stage.produce("a1", 0, &[batch("t/0", 1)]);
    stage.sync_all();
    assert_eq!(stage.heard("a1"), Some(Heard::Refused(ErrorCode::OutOfOrderSequenceNumber, Some(0))));
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    assert_eq!(stage.log("t/0"), ["a0"]);
}

/// I6: from the recovery on nothing of the fenced epoch gets in, not even where it would be next.
#[test]
fn i6_nothing_of_a_fenced_epoch_gets_in() {
    let mut stage = Stage::new(options());
    stage.produce("a0", 0, &[batch("t/0", 0)]);
    stage.sync_all();
    stage.recover("recovery", 0, "mine").expect("granted");
    for (who, base) in [("a1 of epoch 0", 1), ("b0 of epoch 0", 0)] {
        stage.produce(who, 0, &[stage::with_value("t/0", base, "old")]);
        stage.sync_all();
        assert_eq!(stage.heard(who), refused(ErrorCode::InvalidProducerEpoch));
    }
    assert_eq!(stage.log("t/0"), ["a0"]);
}
