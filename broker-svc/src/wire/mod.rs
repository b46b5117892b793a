//! Between the messages of the contract and the requests and answers of the [`pipeline`](crate::pipeline): no I/O, nothing
//! decided but whether a message is well-formed.

pub mod parse;
pub mod reply;
