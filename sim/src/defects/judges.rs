//! Who has to catch which defect. The simulation wherever it can, because it knows of no defect; the model and the tests of a rule
//! beside it, or alone where a run comes upon too little.

use std::fmt;

use Judge::{Scenario, Seeds};
use oncelog_defects::Defect;

/// Somebody who has to catch a defect.
#[derive(Debug)]
pub(super) enum Judge {
    /// The simulation, in one of so many seeds from 1 on: three times as many as it took, or more.
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
    pub(super) target: &'static str,
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
    match defect {
        Defect::SpanCountsUnresolved => {
            vec![Scenario("span"), session("r1_tagged_batches_span_five_from_the_lowest_unresolved_one_on")]
        }
        Defect::RecoveryTellsNoOffsets => {
            vec![Seeds(10), Scenario("refusals"), broker("r2_a_recovery_tells_the_window_of_the_fenced_epoch")]
        }
        Defect::RecoveryTellsOlderEpochs => {
            vec![Seeds(10), Scenario("refusals"), broker("r3_an_epoch_in_which_nothing_was_written_leaves_nothing_to_tell")]
        }
        Defect::HeldBatchesChangeEpoch => {
            vec![Seeds(10), Scenario("strangers"), broker("r4_a_held_batch_of_a_fenced_epoch_is_told_at_once_and_not_let_in")]
        }
        Defect::RefusalIsFinal => {
            vec![Seeds(10), Scenario("refusals"), session("r5_a_refused_batch_keeps_its_tag_until_a_recovery")]
        }
        Defect::StaleAnswersCount => {
            vec![Seeds(10), session("r6_an_answer_counts_only_for_a_batch_that_still_carries_its_tag")]
        }
        Defect::FloorAtAnswerTime => {
            vec![session("r7_a_delayed_out_of_order_is_judged_by_what_was_known_when_the_call_was_sent")]
        }
        Defect::OutOfOrderMeansAbsent => vec![Seeds(10), Scenario("hold-limit"), session("r8_an_out_of_order_proves_no_absence")],
        Defect::EpochIsGuessed => vec![Seeds(10), session("r9_an_epoch_is_learned_from_a_recovery_alone")],
        Defect::UnknownIdIsTaggedAnew => {
            vec![Seeds(10), Scenario("statuses"), session("r10_what_was_handed_over_under_a_lost_id_is_unknown_for_good")]
        }
        Defect::WindowsExpire => {
            vec![Seeds(10), broker("r11_a_producer_that_is_not_heard_of_is_forgotten_in_all_partitions_at_once")]
        }
        Defect::NoClosedMarkers => vec![broker("r12_a_copy_from_before_the_deletion_fits_into_no_later_topic_of_the_name")],
        Defect::TokensAreNotCompared => {
            vec![Seeds(10), Scenario("strangers"), broker("r13_only_the_same_token_hears_a_recovery_again")]
        }
        Defect::DuplicatesAnswerEarly | Defect::RecoveriesAnswerEarly => {
            vec![Seeds(10), Scenario("crashes"), broker("r14_nothing_is_heard_that_was_computed_from_what_a_crash_takes_away")]
        }
        Defect::DescriptionsAnswerEarly => {
            vec![Seeds(10), broker("r14_nothing_is_heard_that_was_computed_from_what_a_crash_takes_away")]
        }
        Defect::LimitsComeFirst => vec![broker("r15_what_is_in_the_log_is_acknowledged_whatever_the_limits_say_now")],

        Defect::AnswersBeforeSync => vec![Seeds(10), Scenario("crashes")],
        Defect::FailedWriteIsPassedOver => vec![Seeds(10), journal("faults::a_failed_write_is_fatal_and_stays_so")],
        Defect::FailedSyncIsTriedAgain => {
            vec![Seeds(10), journal("faults::a_failed_sync_is_fatal_and_its_pages_are_written_again_by_the_next_opening")]
        }
        Defect::WindowForgetsAtRestart | Defect::SnapshotAheadOfLog | Defect::ExpiresAtReplay | Defect::WallClockIsTrusted => {
            vec![Seeds(30)]
        }
        Defect::DurableNumberStaysZero => vec![
            journal("round_trip::the_durable_number_moves_from_the_second_group_on"),
            journal("tail::no_flipped_bit_of_the_last_three_groups_is_silent"),
        ],
        Defect::DamageIsCutAsTorn => vec![journal("tail::a_group_with_a_marker_behind_it_is_never_cut")],
        Defect::TornGroupStays => vec![journal("tail::a_torn_group_is_kept_aside_cut_and_reported")],
        Defect::UnprovenIsNotWrittenAgain => {
            vec![Seeds(30), journal("faults::a_failed_sync_is_fatal_and_its_pages_are_written_again_by_the_next_opening")]
        }
        Defect::DirectoryIsNotSynced | Defect::HeaderIsNotSynced | Defect::SealIsNotSynced => {
            vec![Seeds(30), journal("crash::what_was_acknowledged_survives_a_power_loss_at_every_change")]
        }
        Defect::TrimmedBeforeDurable => vec![journal("retention::files_go_after_the_entry_is_durable_and_never_before")],
        Defect::TailDataIsNotChecked => {
            vec![Seeds(30), journal("crash::the_log_is_readable_after_every_kind_of_power_loss")]
        }
        Defect::DirectoryIsNotChecked => vec![journal("tail::no_flipped_bit_of_the_last_three_groups_is_silent")],
        Defect::ReadDataIsNotChecked => vec![journal("indexes::damaged_data_is_refused_for_its_range_only")],
        Defect::SnapshotIsNotChecked => vec![journal("snapshots::a_damaged_snapshot_gives_way_to_the_older_one_and_is_told")],
        Defect::LinkedSegmentIsRecycled => vec![journal("recycling::a_segment_that_a_backup_holds_is_not_recycled")],
    }
}

/// Of the producer's session.
fn session(name: &'static str) -> Judge {
    Judge::Test(Test { package: "producer-svc", target: "rules", name })
}

/// Of the broker's pipeline.
fn broker(name: &'static str) -> Judge {
    Judge::Test(Test { package: "broker-svc", target: "rules", name })
}

/// Of the broker's journal.
fn journal(name: &'static str) -> Judge {
    Judge::Test(Test { package: "broker-svc", target: "journal", name })
}
