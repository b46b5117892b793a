//! What oncelog does in a second, beside the limits of the machine and beside what a user would pick instead.
//!
//! | module | owns |
//! |---|---|
//! | [`rows`] | the table of what is measured: rows of candidates, with their loads |
//! | [`targets`] | the table of what is to be reached |
//! | [`recording`] | which rounds are left, and whether there is time for them |
//! | [`session`] | one round: turns, repeats |
//! | [`candidate`] | who can take part in a row |
//! | [`oncelog`], [`bare`], [`limits`], [`peers`] | those who do |
//! | [`calls`] | those who call oncelog and the bare servers alike |
//! | [`load`], [`values`], [`pace`] | what is sent: how much, which bytes, when |
//! | [`ledger`] | the proof that what came back is what was sent |
//! | [`measured`], [`metric`], [`statistics`] | what a run gave, what is read off it, medians |
//! | [`disturbance`], [`proc`], [`process`], [`machine`] | what the machine did meanwhile, and what it is |
//! | [`report`] | tables, plots, JSON |
//! | [`pure`], [`instructions`] | the pure parts, by time and by instructions |

pub mod bare;
pub mod calls;
pub mod candidate;
pub mod clock;
pub mod disturbance;
pub mod instructions;
pub mod ledger;
pub mod limits;
pub mod load;
pub mod machine;
pub mod measured;
pub mod metric;
pub mod oncelog;
pub mod pace;
pub mod peers;
pub mod proc;
pub mod process;
pub mod pure;
pub mod recording;
pub mod report;
pub mod rows;
pub mod session;
pub mod statistics;
pub mod targets;
pub mod values;
