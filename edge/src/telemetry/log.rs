//! The log: one line an event, on stderr, as text for people or JSON for machines.
//!
//! What is logged within a call that is in a trace carries the trace's ids: `span.trace_id` and `span.span_id` in JSON. What is
//! logged elsewhere of a record in a trace names them itself, as `trace_id`.

use std::{env, io};

use anyhow::Context;
use oncelog_proto::TraceContext;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, filter::ParseError, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON anywhere else.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Opens the process's log. What is logged is said by the environment variable `ONCELOG_LOG`, else by `RUST_LOG`, else by
/// `filter`, in the syntax of tracing's `EnvFilter`: `info`, or `info,broker_svc=debug`. The HTTP libraries below are held to
/// warnings unless they are named, and OpenTelemetry's to what `OTEL_LOG_LEVEL` says, else to warnings.
///
/// # Errors
/// The filter or the level cannot be read, or the process has a log already.
pub(super) fn init(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let (source, directives) = directives(filter);
    let filter = filter_of(&directives, otel_level(env::var("OTEL_LOG_LEVEL").ok())?).with_context(|| {
        format!("{source} is {directives:?}; use a level (info) or targets with levels (info,broker_svc=debug)")
    })?;
    let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
    let lines = lines(format, is_terminal, io::stderr).with_filter(filter);
    tracing_subscriber::registry().with(lines).try_init().context("the log was opened before")
}

fn lines<S, W>(format: LogFormat, is_terminal: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => lines.with_ansi(is_terminal).boxed(),
        LogFormat::Auto if is_terminal => lines.with_ansi(true).boxed(),
        LogFormat::Json | LogFormat::Auto => lines.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

/// The span of a call in a trace: what is logged within it carries the ids. It passes every filter, since a filter says which
/// events are logged, and not what they say.
pub(crate) fn call(method: &'static str, context: TraceContext) -> tracing::Span {
    tracing::error_span!(target: CALL, "call", method, trace_id = %context.trace_id(), span_id = %context.span_id())
}

fn directives(default: &str) -> (&'static str, String) {
    for name in ["ONCELOG_LOG", "RUST_LOG"] {
        if let Some(value) = env::var(name).ok().filter(|v| !v.is_empty()) {
            return (name, value);
        }
    }
    ("the log filter", default.to_owned())
}

/// How much OpenTelemetry's libraries say of themselves.
fn otel_level(said: Option<String>) -> anyhow::Result<&'static str> {
    let Some(said) = said.filter(|said| !said.is_empty()) else { return Ok("warn") };
    let level = ["none", "error", "warn", "info", "debug"].into_iter().find(|level| said.eq_ignore_ascii_case(level));
    let level = level.with_context(|| format!("OTEL_LOG_LEVEL is {said:?}; use none, error, warn, info or debug"))?;
    Ok(if level == "none" { "off" } else { level })
}

/// Later directives win over earlier ones of the same target, so what the user names stays as named.
fn filter_of(directives: &str, otel: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("{QUIET},opentelemetry={otel},{directives},{CALL}=error"))
}

/// The target of the spans of calls. No event has it.
const CALL: &str = "oncelog_call";
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tower=warn,tonic=warn,axum=warn";

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::DefaultGuard;

    use super::*;

    /// What was logged.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        /// What this thread logs until the guard is dropped, as JSON, where these directives say what is logged.
        pub(crate) fn under(directives: &str) -> (Self, DefaultGuard) {
            let written = Self::default();
            let lines = lines(LogFormat::Json, false, written.clone());
            let lines = lines.with_filter(filter_of(directives, "warn").expect("valid"));
            let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
            (written, guard)
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no writer panicked").clone()).expect("JSON is UTF-8")
        }
    }

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let shown = |directives: &str| filter_of(directives, "warn").expect("valid").to_string();
        assert!(shown("debug").contains("h2=warn"));
        assert!(shown("debug,h2=trace").contains("h2=trace"));
        assert!(!shown("debug,h2=trace").contains("h2=warn"));
    }

    #[test]
    fn opentelemetry_says_as_much_of_itself_as_its_variable_asks_for() {
        let level = |said: &str| otel_level(Some(said.to_owned()));
        assert_eq!(otel_level(None).expect("the default"), "warn");
        assert_eq!(level("").expect("none"), "warn");
        assert_eq!((level("none").expect("a level"), level("DEBUG").expect("a level")), ("off", "debug"));
        assert!(level("loud").expect_err("no level").to_string().contains("OTEL_LOG_LEVEL is \"loud\""));
    }
}
