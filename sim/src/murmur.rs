//! What the services say in their logs, counted: so a run knows what happened inside of them, and whether it happened at all.

use std::fmt::{self, Write};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, layer::Context, prelude::*, registry};

use crate::chronicle::Chronicle;

/// Counts from now on. The topic `brief` comes and goes. What the environment's ONCELOG_LOG names is shown as well.
pub(crate) fn listen(chronicle: Chronicle, brief: Option<&'static str>) {
    let services = Targets::new().with_target("broker_svc", Level::DEBUG).with_target("producer_svc", Level::DEBUG);
    let shown = std::env::var("ONCELOG_LOG").ok().map(|filter| {
        tracing_subscriber::fmt::layer().without_time().with_writer(std::io::stderr).with_filter(EnvFilter::new(filter))
    });
    registry().with(Ear { chronicle, brief }.with_filter(services)).with(shown).init();
}

struct Ear {
    chronicle: Chronicle,
    brief: Option<&'static str>,
}

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        // Here nobody shares the id of a producer-svc, and no disk forgets what it synced: no alarm is right, but for the topic
        // that goes.
        let is_alarm = *event.metadata().level() == Level::ERROR && event.metadata().target().starts_with("producer_svc");
        if is_alarm && !self.brief.is_some_and(|brief| is_explained(&said.message, brief)) {
            self.chronicle.fail(format!("an alarm: {}", said.message));
        }
        // What follows is of this one case.
        let what = said.message.split([':', '(', ';']).next().unwrap_or_default().trim_end();
        self.chronicle.count(format!("log: {what}{}", if said.from_snapshot { ", from a snapshot" } else { "" }));
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

/// Does the deletion of the topic `brief` explain the alarm? Only if it is about what is gone, names all of it, and all of it was
/// there.
fn is_explained(alarm: &str, brief: &str) -> bool {
    let told = alarm.strip_prefix("the broker has nothing of what it acknowledged in ");
    let told = told.and_then(|told| told.split_once(" partition(s): "));
    let Some((count, Some((named, _)))) = told.map(|(count, rest)| (count, rest.split_once("; "))) else { return false };
    let named: Vec<_> = named.split(", ").collect();
    let is_brief = |name: &&str| name.rsplit_once('/').is_some_and(|(topic, _)| topic == brief);
    count.parse() == Ok(named.len()) && named.iter().all(is_brief)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(brief: Option<&'static str>, alarm: &str) -> usize {
        let chronicle = Chronicle::new(false);
        let ear = registry().with(Ear { chronicle: chronicle.clone(), brief });
        tracing::subscriber::with_default(ear, || tracing::error!(target: "producer_svc::driver", "{alarm}"));
        chronicle.failures().len()
    }

    fn gone(count: usize, named: &str) -> String {
        format!(
            "the broker has nothing of what it acknowledged in {count} partition(s): {named}; either the topic was deleted, or …"
        )
    }

    #[test]
    fn a_gone_alarm_where_no_topic_is_deleted_fails_the_run() {
        assert_eq!(failures(Some("brief"), &gone(2, "brief/0, brief/3")), 0);
        assert_eq!(failures(None, &gone(1, "brief/0")), 1);
        assert_eq!(failures(Some("brief"), &gone(1, "orders/0")), 1);
        assert_eq!(failures(Some("brief"), &gone(2, "brief/0, orders/1")), 1);
        assert_eq!(failures(Some("brief"), &gone(2, "brief/0")), 1, "it does not name all of them");
    }

    #[test]
    fn any_other_alarm_fails_the_run() {
        assert_eq!(failures(Some("brief"), "ACKNOWLEDGED RECORDS ARE LOST in 1 partition(s): brief/0; the topic was deleted"), 1);
    }
}
