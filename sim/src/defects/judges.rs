//! Who has to catch which defect. The simulation wherever it can, because it knows of no defect; the model and the tests of a
//! rule beside it, or alone where a run comes upon too little.

use std::fmt;

use Judge::{LargeScenario, Scenario, Seeds};
use oncelog_defects::Defect;

/// Somebody who has to catch a defect.
#[derive(Debug)]
pub(super) enum Judge {
    /// The simulation, in one of so many seeds from 1 on: many more than it took.
    Seeds(u64),
    /// A scenario of the model, within its small bounds.
    Scenario(&'static str),
    /// The same within its large bounds.
    LargeScenario(&'static str),
    /// A test has to fail.
    Test(Test),
}

/// A test.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) package: &'static str,
    /// How cargo is told where it is.
    pub(super) target: &'static [&'static str],
    pub(super) name: &'static str,
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeds(most) => write!(f, "{most} seeds of the simulation"),
            Self::Scenario(scenario) | Self::LargeScenario(scenario) => write!(f, "the model's scenario `{scenario}`"),
            Self::Test(test) => test.fmt(f),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'s test `{}`", self.package, self.name)
    }
}

/// Each of them has to.
pub(super) fn of(defect: Defect) -> Vec<Judge> {
    use Defect as D;
    match defect {
        D::SpanCountsUnresolved => {
            vec![Seeds(60), Scenario("span"), session("r1_tagged_batches_span_five_from_the_lowest_unresolved_one_on")]
        }
        D::RecoveryTellsNoOffsets => {
            vec![Seeds(20), Scenario("refusals"), pipeline("r2_a_recovery_tells_the_window_of_the_fenced_epoch")]
        }
        D::RecoveryTellsOlderEpochs => {
            vec![Seeds(20), Scenario("refusals"), pipeline("r3_an_epoch_in_which_nothing_was_written_leaves_nothing_to_tell")]
        }
        D::HeldBatchesChangeEpoch => {
            vec![Seeds(60), Scenario("strangers"), pipeline("r4_a_held_batch_of_a_fenced_epoch_is_told_at_once_and_not_let_in")]
        }
        D::RefusalIsFinal => vec![Scenario("refusals"), session("r5_a_refused_batch_keeps_its_tag_until_a_recovery")],
        D::StaleAnswersCount => {
            vec![Scenario("refusals"), session("r6_an_answer_counts_only_for_a_batch_that_still_carries_its_tag")]
        }
        D::FloorAtAnswerTime => {
            vec![session("r7_a_delayed_out_of_order_is_judged_by_what_was_known_when_the_call_was_sent")]
        }
        D::OutOfOrderMeansAbsent => vec![Seeds(60), Scenario("hold-limit"), session("r8_an_out_of_order_proves_no_absence")],
        D::EpochIsGuessed => vec![Seeds(20), Scenario("refusals"), session("r9_an_epoch_is_learned_from_a_recovery_alone")],
        D::UnknownIdIsTaggedAnew => {
            vec![LargeScenario("statuses"), session("r10_what_was_handed_over_under_a_lost_id_is_unknown_for_good")]
        }
        D::WindowsExpire => vec![pipeline("r11_a_producer_that_is_not_heard_of_is_forgotten_in_all_partitions_at_once")],
        D::NoClosedMarkers => vec![pipeline("r12_a_copy_from_before_the_deletion_fits_into_no_later_topic_of_the_name")],
        D::TokensAreNotCompared => vec![Seeds(20), pipeline("r13_only_the_same_token_hears_a_recovery_again")],
        D::DuplicatesAnswerEarly | D::RecoveriesAnswerEarly => {
            vec![Scenario("crashes"), pipeline("r14_nothing_is_heard_that_was_computed_from_what_a_crash_takes_away")]
        }
        D::DescriptionsAnswerEarly => vec![pipeline("r14_nothing_is_heard_that_was_computed_from_what_a_crash_takes_away")],
        D::LimitsComeFirst => vec![pipeline("r15_what_is_in_the_log_is_acknowledged_whatever_the_limits_say_now")],

        D::DuplicateIsAppended => {
            vec![Seeds(20), Scenario("retries"), pipeline("i2_a_copy_of_what_is_in_the_log_is_not_appended")]
        }
        D::ConflictIsSwallowed => {
            vec![Seeds(100), pipeline("i1_other_content_under_a_used_sequence_is_not_acknowledged")]
        }
        D::GapIsAppended => vec![Seeds(20), Scenario("retries"), pipeline("i3_a_gap_is_never_appended")],
        D::OlderEpochIsAccepted => vec![Seeds(60), Scenario("strangers"), pipeline("i6_nothing_of_a_fenced_epoch_gets_in")],

        D::AnswersBeforeSync => vec![Seeds(200), Scenario("crashes")],
        D::FailedWriteIsPassedOver => vec![Seeds(400), journal("faults::a_failed_write_is_fatal_and_stays_so")],
        D::FailedSyncIsTriedAgain => vec![Seeds(100), journal(UNPROVEN)],
        D::WindowForgetsAtRestart => vec![pipeline("i5_a_restart_forgets_none_of_the_last_five_batches")],
        D::SnapshotAheadOfLog => vec![
            broker("committer::tests::what_is_folded_into_snapshots_is_durable"),
            journal("snapshots::a_state_ahead_of_the_durable_end_is_never_kept"),
        ],
        D::ExpiresAtReplay => vec![pipeline("i5_an_opening_forgets_nobody")],
        D::WallClockIsTrusted => vec![broker("pipeline::clock::tests::a_clock_that_jumps_ahead_is_followed_slowly")],
        D::DurableNumberStaysZero => vec![
            journal("round_trip::the_durable_number_moves_from_the_second_group_on"),
            journal("tail::no_flipped_bit_of_the_last_three_groups_is_silent"),
        ],
        D::DamageIsCutAsTorn => vec![journal("tail::a_group_with_a_marker_behind_it_is_never_cut")],
        D::TornGroupStays => vec![journal("tail::a_torn_group_is_kept_aside_cut_and_reported")],
        D::UnprovenIsNotWrittenAgain => vec![journal(UNPROVEN)],
        D::DirectoryIsNotSynced | D::HeaderIsNotSynced | D::SealIsNotSynced => {
            vec![journal("crash::what_was_acknowledged_survives_a_power_loss_at_every_change")]
        }
        D::TrimmedBeforeDurable => vec![journal("retention::files_go_after_the_entry_is_durable_and_never_before")],
        D::TailDataIsNotChecked => vec![journal("crash::the_log_is_readable_after_every_kind_of_power_loss")],
        D::DirectoryIsNotChecked => vec![journal("tail::no_flipped_bit_of_the_last_three_groups_is_silent")],
        D::ReadDataIsNotChecked => vec![journal("indexes::damaged_data_is_refused_for_its_range_only")],
        D::SnapshotIsNotChecked => vec![journal("snapshots::a_damaged_snapshot_gives_way_to_the_older_one_and_is_told")],
        D::LinkedSegmentIsRecycled => vec![journal("recycling::a_segment_that_a_backup_holds_is_not_recycled")],
    }
}

/// Of the producer's session.
fn session(name: &'static str) -> Judge {
    Judge::Test(Test { package: "producer-svc", target: &["--test", "rules"], name })
}

/// Of the broker's pipeline.
fn pipeline(name: &'static str) -> Judge {
    Judge::Test(Test { package: "broker-svc", target: &["--test", "rules"], name })
}

/// Of one of the broker's modules.
fn broker(name: &'static str) -> Judge {
    Judge::Test(Test { package: "broker-svc", target: &["--lib"], name })
}

/// Of the broker's journal.
fn journal(name: &'static str) -> Judge {
    Judge::Test(Test { package: "broker-svc", target: &["--test", "journal"], name })
}

const UNPROVEN: &str = "faults::a_failed_sync_is_fatal_and_its_pages_are_written_again_by_the_next_opening";
