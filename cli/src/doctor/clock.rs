//! The clock. Records carry the broker's time, retention by age and the expiry of producers go by it; the broker bounds its
//! jumps, and here somebody is told of them.

use std::time::{Duration, Instant, SystemTime};

use super::finding::Finding;

/// Both clocks, beside each other for a while.
#[derive(Debug)]
pub(super) struct Watch {
    wall: SystemTime,
    monotonic: Instant,
}

impl Watch {
    pub(super) fn start() -> Self {
        let (wall, monotonic) = now();
        Self { wall, monotonic }
    }

    pub(super) fn stop(&mut self) -> Finding {
        let (wall, monotonic) = now();
        let by_wall = match wall.duration_since(self.wall) {
            Ok(forward) => forward.as_secs_f64(),
            Err(back) => -back.duration().as_secs_f64(),
        };
        judge(wall, by_wall - monotonic.duration_since(self.monotonic).as_secs_f64())
    }
}

/// `step`: seconds by which the wall clock went ahead of the other.
fn judge(wall: SystemTime, step: f64) -> Finding {
    let told = oncelog_proto::Timestamp::from_system(wall).to_proto();
    if wall < SystemTime::UNIX_EPOCH + OLDEST {
        let advice =
            "set the clock (timedatectl set-ntp true); a broker that is started on the wrong day keeps that day in its log";
        return Finding::problem("clock", format!("it says {told}, before this software was written"), advice);
    }
    let finding = if step.abs() > LARGEST_STEP {
        let advice = "something sets the clock in steps; let a time service slew it (chrony, systemd-timesyncd)";
        Finding::advice("clock", format!("it jumped by {step:.3} s while this ran"), advice)
    } else {
        Finding::good("clock", format!("{told}, and it ran evenly meanwhile"))
    };
    finding.with("step_seconds", step)
}

#[expect(clippy::disallowed_methods, reason = "this is what looks at the clock")]
fn now() -> (SystemTime, Instant) {
    (SystemTime::now(), Instant::now())
}

/// 2025-01-01.
const OLDEST: Duration = Duration::from_secs(1_735_689_600);
const LARGEST_STEP: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_clock_of_another_age_is_a_problem_and_one_that_jumps_worth_a_word() {
        let today = SystemTime::UNIX_EPOCH + OLDEST;
        assert_eq!(judge(today, 0.0).level, Level::Good);
        assert_eq!(judge(today, -0.2).level, Level::Advice);
        assert_eq!(judge(today - Duration::from_secs(1), 0.0).level, Level::Problem);
    }
}
