//! How busy the machine was with other things while something was measured.
//!
//! Busy time of all cores, less what this process and everything that it started has used, is what others used, the kernel's
//! own threads included. Time that the host of a virtual machine took away counts as well.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{
    clock,
    proc::{self, MachineCpu},
};

/// What others took, as shares of one core: 0.1 is a tenth of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Disturbance {
    /// CPU time of other processes and of the kernel.
    pub others: f64,
    /// CPU time that the host took away.
    pub stolen: f64,
}

impl Disturbance {
    /// Is it so little that the run counts?
    pub fn is_quiet(self) -> bool {
        self.total() <= QUIET
    }

    /// Both together.
    pub fn total(self) -> f64 {
        self.others + self.stolen
    }
}

/// From here to [`Self::end`].
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    began: Instant,
    machine: MachineCpu,
    own: f64,
}

impl Observation {
    /// Begins.
    ///
    /// # Errors
    /// This is not Linux.
    pub fn begin() -> anyhow::Result<Self> {
        Ok(Self { began: clock::now(), machine: MachineCpu::read()?, own: proc::tree_cpu_seconds()? })
    }

    /// Ends.
    ///
    /// # Errors
    /// This is not Linux.
    pub fn end(self) -> anyhow::Result<Disturbance> {
        let (machine, own) = (MachineCpu::read()?, proc::tree_cpu_seconds()?);
        let seconds = self.began.elapsed().as_secs_f64().max(1e-3);
        let others = (machine.busy - self.machine.busy) - (own - self.own);
        // Ticks are coarse: a difference of differences may come out below nothing.
        Ok(Disturbance {
            others: (others / seconds).max(0.0),
            stolen: ((machine.stolen - self.machine.stolen) / seconds).max(0.0),
        })
    }
}

/// A tenth of one core: what the kernel's own threads need for a busy disk stays below it.
const QUIET: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_a_core_is_quiet_and_more_is_not() {
        assert!(Disturbance { others: 0.06, stolen: 0.04 }.is_quiet());
        assert!(!Disturbance { others: 0.07, stolen: 0.04 }.is_quiet());
    }
}
