//! Real processes, and everything that can fail around them: killed with `kill -9`, paused, cut off, their answers lost, their
//! disk filled, by chance and aimed at the worst moments; records go in all the while, and in the end all of it is judged.
//!
//! Nothing in the services takes part in this. Moments are seen from outside, by what happens in the data directory, so what is
//! killed here is exactly what runs elsewhere.
//!
//! | module | owns |
//! |---|---|
//! | [`program`] | what is started as a broker and as a producer |
//! | [`process`] | one process: started, asked whether it is ready, paused, ended, killed |
//! | [`port`] | ports that a process can come back to |
//! | [`proxy`] | a network in between that cuts, delays and swallows |
//! | [`stage`] | broker, producer and the networks between them and their callers, put together |
//! | [`moment`] | when to strike, seen from the data directory |
//! | [`volume`] | a small disk of its own, to be filled |
//! | [`dice`] | chance that is the same in every run of a seed |
//! | [`plan`] | what fails next |
//! | `strike` | carrying it out |
//! | [`recorder`] | the history, and what is counted for whoever watches |
//! | `load` | who sends and reads meanwhile |
//! | [`run()`] | all of it, round by round, and the verdict; without a display |

pub mod dice;
mod load;
pub mod moment;
pub mod plan;
pub mod port;
pub mod process;
pub mod program;
pub mod proxy;
pub mod recorder;
mod run;
pub mod stage;
mod strike;
pub mod volume;

pub use run::{Options, Outcome, Phase, Status, run};
