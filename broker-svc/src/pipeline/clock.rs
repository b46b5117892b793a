//! The time of a group: the wall clock, made safe to decide by.

use std::time::Duration;

use oncelog_defects::{Defect, is_on};
use oncelog_proto::{Monotonic, Timestamp};

/// Two clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Only goes forward; for waiting.
    pub monotonic: Monotonic,
    /// What people call the time; may jump. For what is kept.
    pub wall: Timestamp,
}

/// Gives groups their times: never backwards, and forward at most twice as fast as time really passes, so that it catches up
/// after the wall clock was set forward.
///
/// Producers expire and segments are dropped by this time. A wall clock that jumps a month ahead for a minute must not make
/// the broker forget everyone: the retries after it would be appended a second time. So the bound holds however many groups
/// there are in that minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupClock {
    last: Timestamp,
    read_at: Monotonic,
}

/// What an opening says about the time since the last group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// How long the broker was down, by the wall clock.
    pub(super) downtime: Duration,
    /// It may as well be the clock that is wrong.
    pub(super) is_doubtful: bool,
}

impl GroupClock {
    /// Starts at an opening, after a last group of that time. A doubt of an earlier opening lasts until an operator accepts the
    /// clock: the groups since then have its time, and beside them nothing looks wrong any more.
    pub(super) fn open(last_group: Option<Timestamp>, now: Now, was_doubtful: bool, accept_jump: bool) -> (Self, Opening) {
        let last_group = last_group.unwrap_or(now.wall);
        let downtime = now.wall.since(last_group);
        let is_doubtful = (was_doubtful || downtime > DOUBTFUL_JUMP) && !accept_jump;
        (Self { last: last_group.max(now.wall), read_at: now.monotonic }, Opening { downtime, is_doubtful })
    }

    /// The time of a group that begins now.
    pub(super) fn tick(&mut self, now: Now) -> Timestamp {
        self.last = self.read(now);
        self.read_at = now.monotonic;
        self.last
    }

    /// What [`Self::tick`] would say.
    pub(super) fn read(&self, now: Now) -> Timestamp {
        if is_on(Defect::WallClockIsTrusted) {
            return now.wall.max(self.last);
        }
        let latest = self.last.plus(2 * now.monotonic.since(self.read_at));
        now.wall.clamp(self.last, latest)
    }
}

/// At an opening nothing tells a jump of the clock from a long downtime.
const DOUBTFUL_JUMP: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn now(monotonic: u64, wall: u64) -> Now {
        Now { monotonic: Monotonic::from_micros(monotonic * 1_000_000), wall: Timestamp::from_micros(wall * 1_000_000) }
    }

    fn seconds(time: Timestamp) -> u64 {
        time.as_micros() / 1_000_000
    }

    #[test]
    fn a_clock_set_back_does_not_take_the_groups_along() {
        let (mut clock, _) = GroupClock::open(None, now(0, 1000), false, false);
        assert_eq!(seconds(clock.tick(now(10, 1010))), 1010);
        assert_eq!(seconds(clock.tick(now(11, 500))), 1010);
        assert_eq!(seconds(clock.tick(now(20, 1020))), 1020);
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_followed_slowly() {
        let (mut clock, _) = GroupClock::open(None, now(0, 1000), false, false);
        assert_eq!(seconds(clock.tick(now(10, 1_000_000))), 1020);
        assert_eq!(seconds(clock.tick(now(11, 1_000_000))), 1022);
    }

    #[test]
    fn many_groups_do_not_let_a_jump_through() {
        let (mut clock, _) = GroupClock::open(None, now(0, 1000), false, false);
        for _ in 0..1000 {
            assert_eq!(seconds(clock.tick(now(10, 1_000_000))), 1020);
        }
    }

    #[test]
    fn more_than_a_day_between_the_last_group_and_the_opening_is_doubtful() {
        let last = Some(Timestamp::from_micros(1000 * 1_000_000));
        let day = 24 * 3600;
        let opening = |wall, was_doubtful, accept| GroupClock::open(last, now(0, wall), was_doubtful, accept).1;
        assert_eq!(opening(1000 + day, false, false), Opening { downtime: Duration::from_secs(day), is_doubtful: false });
        assert!(opening(1001 + day, false, false).is_doubtful);
        assert!(!opening(1001 + day, false, true).is_doubtful);
        assert!(opening(1000, true, false).is_doubtful, "what an earlier one doubted");
        assert!(!opening(1000, true, true).is_doubtful);
    }
}
