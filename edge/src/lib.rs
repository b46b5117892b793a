//! What both services stand behind: everything between the network and a service's own handlers that has nothing to do with
//! records.
//!
//! | module | owns |
//! |---|---|
//! | [`accept`] | which connections get in: their number, their silence, their socket options, their handshakes |
//! | [`security`] | who calls and what they may do: certificates, tokens, permissions, and the way to another service |
//! | [`server`] | the HTTP/2 settings of every gRPC server |
//! | [`intake`] | how much may be on its way in |
//! | [`weight`] | what a message takes when it is decoded, before it is |
//! | [`deadline`] | what a caller hears whose deadline has passed |
//! | [`in_order`] | the answers of a stream, in the order of its requests |
//! | [`health`] | the one truth about readiness, as `grpc.health.v1` and for the admin port |
//! | [`reflection`] | the contract, served to grpcurl and its kind |
//! | [`admin`] | the plain HTTP port for probes and metrics |
//! | [`observe`] | every call counted and, in a trace, recorded |
//! | [`metrics`] | what a service tells of itself in numbers: definitions, and the one owner of them all |
//! | [`trace`], [`names`] | spans, and the conventions' names for what is said of them |
//! | [`machine`] | the wall clock and randomness |
//! | [`telemetry`] | the log, and what OpenTelemetry's variables ask for beside it |
//! | [`shutdown`] | the signals that end a process |
//!
//! A service starts in this order: [`shutdown::Signals::register`], [`telemetry::init`], [`machine::raise_open_files`],
//! [`security::Files::open`], [`health::Health::new`] (not ready), [`accept::Incoming::bind`], [`admin::Admin::bind`],
//! [`server::observed`], [`security::access::AccessLayer`], [`intake::IntakeLayer`]; then [`health::Health::ready`]. It ends in
//! this one: [`health::Health::drain`], which says so and gives load balancers a moment to see it; the signal that tonic's
//! `serve_with_incoming_shutdown` waits for; what was taken in is finished; and at the very end [`telemetry::Running::end`].

pub mod accept;
pub mod admin;
pub mod deadline;
pub mod health;
pub mod in_order;
pub mod intake;
mod link;
pub mod machine;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod reflection;
pub mod security;
mod seldom;
pub mod server;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
pub mod weight;
