//! What the services say in their logs, counted: so a run knows what happened inside of them, and whether it happened at all.

use std::fmt::{self, Write};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, layer::Context, prelude::*, registry};

use crate::chronicle::Chronicle;

/// Counts from now on. What the environment's ONCELOG_LOG names is shown as well.
pub(crate) fn listen(chronicle: Chronicle) {
    let services = Targets::new().with_target("broker_svc", Level::DEBUG).with_target("producer_svc", Level::DEBUG);
    let shown = std::env::var("ONCELOG_LOG").ok().map(|filter| {
        tracing_subscriber::fmt::layer().without_time().with_writer(std::io::stderr).with_filter(EnvFilter::new(filter))
    });
    registry().with(Ear(chronicle).with_filter(services)).with(shown).init();
}

struct Ear(Chronicle);

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        // Here nobody shares the id of a producer-svc, and no disk forgets what it synced: no alarm is right, but for topics that go.
        let is_alarm = *event.metadata().level() == Level::ERROR && event.metadata().target().starts_with("producer_svc");
        if is_alarm && !said.message.contains("the topic was deleted") {
            self.0.fail(format!("an alarm: {}", said.message));
        }
        // What follows is of this one case.
        let what = said.message.split([':', '(', ';']).next().unwrap_or_default().trim_end();
        self.0.count(format!("log: {what}{}", if said.from_snapshot { ", from a snapshot" } else { "" }));
    }
}

#[derive(Debug, Default)]
struct Said {
    message: String,
    from_snapshot: bool,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // A field of that name may follow.
            "message" if self.message.is_empty() => drop(write!(self.message, "{value:?}")),
            // Not recorded where there is none.
            "snapshot" => self.from_snapshot = true,
            _ => {}
        }
    }
}
