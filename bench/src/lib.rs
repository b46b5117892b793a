//! What oncelog does in a second, beside the limits of the machine and beside what a user would pick instead.

pub mod clock;
pub mod load;
pub mod measured;
pub mod peers;
pub mod proc;
pub mod process;
